/*
 * wrap_test.h - runs a program with and without libhakmem.so and records its
 * output. Included by every tests/wrap/NAME.c.
 *
 * Obeys: HAKMEM_BUILD (the build directory), HAKMEM_TEST_UNDER (an emulator, with
 * its options, that runs each program); both set by tests/run.py.
 */
#ifndef WRAP_TEST_H
#define WRAP_TEST_H

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "contents.h"

#ifndef WRAP_SANITIZED
#define WRAP_SANITIZED 0
#endif

#define WRAP __attribute__((unused)) static

#define WRAP_MOST 8 /* variables, or words of a command */

/* How to run a program. */
struct wrap_how {
    bool preload;       /* libhakmem.so */
    const char *beside; /* and this library of the build directory after it */
    const char *env[WRAP_MOST]; /* NAME=VALUE to be added */
    rlim_t address_space;       /* RLIMIT_AS; 0: as it is */
    bool no_stderr;             /* standard error is closed */
};

/* What came of it. The texts belong to the struct: wrap_done. */
struct wrap_said {
    int status; /* of waitpid */
    char *out, *err;
};

/* The path of a file in the build directory, valid until the test ends. */
WRAP const char *wrap_path(const char *name)
{
    const char *build = getenv("HAKMEM_BUILD");
    char *path;

    cr_assert(build != NULL, "HAKMEM_BUILD is not set: run 'make check'");
    cr_assert_gt(asprintf(&path, "%s/%s", build, name), 0);
    return path;
}

/* The same for a program or library of tests/wrap/programs. */
WRAP const char *wrap_program(const char *name)
{
    char *path;

    cr_assert_gt(asprintf(&path, "tests/wrap/programs/%s", name), 0);
    return wrap_path(path);
}

/* A new empty file, and in *fd its descriptor. The caller removes it. */
WRAP const char *wrap_temporary(int *fd)
{
    const char *dir = getenv("TMPDIR");
    char *path;

    cr_assert_gt(asprintf(&path, "%s/hakmem-wrap-XXXXXX",
                          dir != NULL ? dir : P_tmpdir),
                 0);
    *fd = mkstemp(path);
    cr_assert_geq(*fd, 0);
    return path;
}

WRAP char *wrap_text(int fd)
{
    off_t length = lseek(fd, 0, SEEK_END);
    char *text = malloc((size_t)length + 1);

    cr_assert(text != NULL && pread(fd, text, (size_t)length, 0) == length);
    text[length] = '\0';
    contents_cut_emulator(text);
    close(fd);
    return text;
}

/* In the child: an emulator, if there is one, becomes the command. */
WRAP void wrap_under(const char *const *command)
{
    const char *under = getenv("HAKMEM_TEST_UNDER");
    char *words[3 * WRAP_MOST], *text = under != NULL ? strdup(under) : NULL;
    int count = 0;

    if (text == NULL) {
        return;
    }
    for (char *word = strtok(text, " "); word != NULL && count < 2 * WRAP_MOST;
         word = strtok(NULL, " ")) {
        words[count++] = word;
    }
    for (int i = 0; command[i] != NULL && count < 3 * WRAP_MOST - 1; i++) {
        words[count++] = (char *)(uintptr_t)command[i];
    }
    words[count] = NULL;
    execvp(words[0], words);
    _exit(127);
}

/* In the child. */
WRAP _Noreturn void wrap_exec(const struct wrap_how *how,
                              const char *const *command, const char *library)
{
    struct rlimit none = {0, 0};

    signal(SIGABRT, SIG_DFL);
    signal(SIGSEGV, SIG_DFL);
    alarm(250);
    setrlimit(RLIMIT_CORE, &none);
    for (int i = 0; i < WRAP_MOST && how->env[i] != NULL; i++) {
        putenv((char *)(uintptr_t)how->env[i]);
    }
    if (how->preload) {
        setenv("LD_PRELOAD", library, 1);
    }
    if (how->beside != NULL) {
        char *both;

        if (asprintf(&both, "%s %s", how->preload ? library : "",
                     wrap_path(how->beside)) > 0) {
            setenv("LD_PRELOAD", both, 1);
        }
    }
    if (how->address_space != 0) {
        struct rlimit limit = {how->address_space, how->address_space};

        setrlimit(RLIMIT_AS, &limit);
    }
    if (how->no_stderr) {
        close(STDERR_FILENO);
    }
    wrap_under(command);
    execvp(command[0], (char *const *)(uintptr_t)command);
    _exit(127);
}

/* Runs command (its last word is NULL), which need not end well. */
WRAP void wrap_try(struct wrap_said *said, const struct wrap_how *how,
                   const char *const *command)
{
    const char *library = wrap_path("libhakmem.so");
    int out = memfd_create("out", MFD_CLOEXEC);
    int err = memfd_create("err", MFD_CLOEXEC);
    pid_t pid;

    cr_assert(out >= 0 && err >= 0);
    fflush(NULL);
    pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        dup2(out, STDOUT_FILENO);
        dup2(err, STDERR_FILENO);
        wrap_exec(how, command, library);
    }
    cr_assert_eq(waitpid(pid, &said->status, 0), pid);
    said->out = wrap_text(out);
    said->err = wrap_text(err);
}

WRAP void wrap_done(struct wrap_said *said)
{
    free(said->out);
    free(said->err);
}

/* The same; it must exit with 0. */
#define wrap_run(said, how, ...)                                               \
    wrap_run_command(said, how, (const char *const[]){__VA_ARGS__, NULL})

WRAP void wrap_run_command(struct wrap_said *said, const struct wrap_how *how,
                           const char *const *command)
{
    wrap_try(said, how, command);
    cr_assert(said->status == 0, "%s: status %#x, said: %.2000s", command[0],
              (unsigned)said->status, said->err);
}

/* Runs a program that must exit with 0 and say exactly out and err. */
#define wrap_expect(how, wanted_out, wanted_err, ...)                          \
    do {                                                                       \
        struct wrap_said wrap_now;                                             \
                                                                               \
        wrap_run(&wrap_now, how, __VA_ARGS__);                                 \
        cr_assert_str_eq(wrap_now.out, wanted_out);                            \
        cr_assert_str_eq(wrap_now.err, wanted_err);                            \
        wrap_done(&wrap_now);                                                  \
    } while (0)

/* The number behind `name` in the line that HAKMEM_WRAP_DIAG=1 ends with. */
WRAP unsigned long wrap_count(const struct wrap_said *said, const char *name)
{
    const char *line = strstr(said->err, "[wrap] exit: libc malloc: ");
    const char *at = line != NULL ? strstr(line, name) : NULL;

    cr_assert(at != NULL, "no figure '%s' in: %s", name, said->err);
    return strtoul(at + strlen(name), NULL, 10);
}

#endif /* WRAP_TEST_H */
