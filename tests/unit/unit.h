/*
 * unit.h - what the core's tests share: amounts of work, random numbers,
 * contents, statistics, and functions run in a process of their own.
 *
 * Included by every tests/unit/FOLDER/NAME.c. Criterion runs each test in its own
 * process, so a test may set the environment before it first allocates.
 *
 * Obeys: HAKMEM_TEST_SCALE (divides the amount of work; unset: 1, and 20
 * where memory is watched: sanitizers, valgrind), HAKMEM_TEST_UNDER (the emulator
 * that runs this program).
 */
#ifndef UNIT_H
#define UNIT_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <hakmem.h>

#include "contents.h"
#include "guard/hard.h"
#include "range/range.h"

/* Some tests use only part of this. */
#define UNIT __attribute__((unused)) static inline

#ifdef HAK_SMALL_RANGE
#define UNIT_WATCHED 1
#else
#define UNIT_WATCHED 0
#endif

/*
 * Sanitizers: out of memory is NULL; what a test leaves allocated when it ends
 * is no leak; a child of a program with threads may start threads.
 */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

__attribute__((visibility("default"), used)) const char *
__asan_default_options(void)
{
    return "allocator_may_return_null=1:detect_leaks=0";
}

__attribute__((visibility("default"), used)) const char *
__tsan_default_options(void)
{
    return "allocator_may_return_null=1:die_after_fork=0";
}

/*
 * What a test sees is what it does: no thread of ours comes in between, but in
 * the tests of that thread.
 */
__attribute__((constructor)) static void unit_no_background(void)
{
    setenv("HAKMEM_BACKGROUND_THREAD", "0", 0);
}

/* The address space that watched programs need is beyond any limit of ours. */
#ifdef __SANITIZE_THREAD__
#define UNIT_GCC_TSAN 1
#else
#define UNIT_GCC_TSAN 0
#endif

/*
 * gcc 12's thread sanitizer takes a thread that a forked child starts for one
 * of the parent's ("dup thread"); clang's does not.
 */
#define UNIT_SKIP_IF_GCC_TSAN()                                                \
    do {                                                                       \
        if (UNIT_GCC_TSAN) {                                                   \
            cr_skip("gcc's tsan knows no threads of a child");                 \
        }                                                                      \
    } while (0)

/* Names of C functions are found by it: glibc 2.35. */
UNIT void unit_need_names(void)
{
    if (dlsym(RTLD_DEFAULT, "_dl_find_object") == NULL) {
        cr_skip("this C library has no _dl_find_object");
    }
}

#define UNIT_SKIP_IF_WATCHED(why)                                              \
    do {                                                                       \
        if (UNIT_WATCHED) {                                                    \
            cr_skip(why);                                                      \
        }                                                                      \
    } while (0)

/* What runs another processor's program does not do all that the kernel does. */
#define UNIT_SKIP_IF_EMULATED(why)                                             \
    do {                                                                       \
        if (getenv("HAKMEM_TEST_UNDER") != NULL) {                             \
            cr_skip(why);                                                      \
        }                                                                      \
    } while (0)

/*
 * As cr_assert, where a failed assertion may not jump: in threads that a
 * test started and in child processes.
 */
#define NEED(condition)                                                        \
    ((condition) ? (void)0 : unit_need_failed(#condition, __FILE__, __LINE__))

UNIT _Noreturn void unit_need_failed(const char *condition, const char *file,
                                     int line)
{
    fprintf(stderr, "%s:%d: failed: %s\n", file, line, condition);
    fflush(stderr);
    signal(SIGABRT, SIG_DFL);
    abort();
}

/* ---- amounts, random numbers, contents ---------------------------------- */

/* n divided by the scale, at least `least`. */
UNIT size_t unit_scale(size_t n, size_t least)
{
    const char *text = getenv("HAKMEM_TEST_SCALE");
    size_t by = UNIT_WATCHED ? 20 : 1;

    if (text != NULL && atoi(text) > 0) {
        by = (size_t)atoi(text);
    }
    return n / by > least ? n / by : least;
}

struct unit_random {
    uint64_t state;
};

UNIT uint64_t unit_next(struct unit_random *random)
{
    uint64_t x = random->state += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* A number below n. */
UNIT size_t unit_below(struct unit_random *random, size_t n)
{
    return (size_t)(unit_next(random) % n);
}

/* Fills n bytes with contents that tell the seed and the place. */
UNIT void unit_fill(void *p, size_t n, unsigned seed)
{
    contents_fill(p, n, seed);
}

UNIT bool unit_filled(const void *p, size_t n, unsigned seed)
{
    return contents_kept(p, n, seed);
}

/* Hides from the compiler that a pointer or a size is known to be wrong. */
UNIT void *unit_pointer(const void *p)
{
    void *volatile hidden = (void *)(uintptr_t)p;

    return hidden;
}

UNIT size_t unit_size(size_t n)
{
    volatile size_t hidden = n;

    return hidden;
}

/* ---- the hardened build ------------------------------------------------- */

/* What to ask hak_malloc for so that the lanes are asked for `need` bytes. */
UNIT size_t unit_ask(size_t need)
{
    return need - HAK_GUARD_BYTES;
}

/* What a thread's block of `block` bytes is said to have, asked for `size`. */
UNIT size_t unit_usable(size_t block, size_t size)
{
    return HAK_HARD ? size : block;
}

/* ---- statistics ------------------------------------------------------------ */

UNIT hak_stats_t unit_stats(void)
{
    hak_stats_t stats = {.size = sizeof(stats)};

    NEED(hak_stats(&stats) == 0);
    return stats;
}

/* Nothing is left of a test's blocks, in any lane or the system. */
UNIT void unit_expect_none_live(void)
{
    hak_stats_t stats = unit_stats();

    cr_assert_eq(stats.tiny_live_bytes, 0);
    cr_assert_eq(stats.pool_live_bytes, 0);
    cr_assert_eq(stats.ace_live_bytes, 0);
    cr_assert_eq(stats.huge_live_bytes, 0);
    cr_assert_eq(stats.tiny_allocs, stats.tiny_frees);
    cr_assert_eq(stats.pool_allocs, stats.pool_frees);
    cr_assert_eq(stats.ace_allocs, stats.ace_frees);
    cr_assert_eq(stats.huge_allocs, stats.huge_frees);
    cr_assert_eq(stats.system_live, 0);
    cr_assert_eq(stats.system_live_bytes, 0);
}

/* Resident bytes of this process. */
UNIT size_t unit_rss(void)
{
    unsigned long all, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    NEED(file != NULL);
    NEED(fscanf(file, "%lu %lu", &all, &resident) == 2);
    fclose(file);
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Bytes of address space that this process has. */
UNIT size_t unit_address_space(void)
{
    unsigned long all = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    NEED(file != NULL);
    NEED(fscanf(file, "%lu", &all) == 1);
    fclose(file);
    return (size_t)all * (size_t)sysconf(_SC_PAGESIZE);
}

/* How many pages from p on are resident. */
UNIT size_t unit_resident(const void *p, size_t bytes)
{
    unsigned char map[1024];
    size_t pages = bytes / 4096, count = 0;

    NEED(pages <= sizeof(map));
    memset(map, 0, sizeof(map));
    /* What is not mapped is not resident. */
    if (mincore((void *)(uintptr_t)p, bytes, map) != 0) {
        NEED(errno == ENOMEM);
        for (size_t i = 0; i < pages; i++) {
            if (mincore((char *)(uintptr_t)p + i * 4096, 4096, &map[i]) != 0) {
                map[i] = 0;
            }
        }
    }
    for (size_t i = 0; i < pages; i++) {
        count += map[i] & 1;
    }
    return count;
}

/* The number of the first slab: before it the range holds the slabs' tags. */
UNIT uint32_t unit_first_slab(void)
{
    size_t bytes;
    uint32_t first = haki_range_samples(&bytes);

    return first + (uint32_t)(bytes / HAK_SLAB_SIZE);
}

/* ---- a function in a process of its own --------------------------------- */

/* A fork without handlers; newer processors have no call of that name. */
UNIT pid_t unit_bare_fork(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

struct unit_child {
    int status;       /* of waitpid */
    char said[16384]; /* on standard error */
};

UNIT void unit_child_body(void (*run)(void *), void *arg, int fd)
{
    struct rlimit none = {0, 0};

    dup2(fd, STDERR_FILENO);
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGABRT, SIG_DFL);
    signal(SIGSEGV, SIG_DFL);
    alarm(250);
    run(arg);
    _exit(0);
}

/* Runs run(arg) in a child and takes down how it ended and what it said. */
UNIT void unit_child(struct unit_child *child, void (*run)(void *), void *arg)
{
    int fd = memfd_create("stderr", 0);
    ssize_t length;
    pid_t pid;

    NEED(fd >= 0);
    fflush(NULL);
    pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        unit_child_body(run, arg, fd);
    }
    NEED(waitpid(pid, &child->status, 0) == pid);
    length = pread(fd, child->said, sizeof(child->said) - 1, 0);
    NEED(length >= 0);
    child->said[length] = '\0';
    contents_cut_emulator(child->said);
    close(fd);
}

/* run(arg) in a child must end well and say exactly `text`. */
UNIT void unit_expect_said(void (*run)(void *), void *arg, const char *text)
{
    struct unit_child child;

    unit_child(&child, run, arg);
    cr_assert(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0,
              "status %#x, said: %s", (unsigned)child.status, child.said);
    cr_assert_str_eq(child.said, text);
}

/* run(arg) in a child must end well; what it says does not matter. */
UNIT void unit_expect_ok(void (*run)(void *), void *arg)
{
    struct unit_child child;

    unit_child(&child, run, arg);
    cr_assert(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0,
              "status %#x, said: %s", (unsigned)child.status, child.said);
}

/* run(arg) in a child must abort after exactly one line of this text. */
UNIT __attribute__((format(printf, 3, 4))) void
unit_expect_fatal(void (*run)(void *), void *arg, const char *format, ...)
{
    struct unit_child child;
    char text[600];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    unit_child(&child, run, arg);
    cr_assert_str_eq(child.said, text);
    cr_assert(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGABRT,
              "status %#x", (unsigned)child.status);
}

/* ---- threads ------------------------------------------------------------ */

UNIT pthread_t unit_start(void *(*run)(void *), void *arg)
{
    pthread_t thread;

    NEED(pthread_create(&thread, NULL, run, arg) == 0);
    return thread;
}

UNIT void unit_join(pthread_t thread)
{
    NEED(pthread_join(thread, NULL) == 0);
}

/* Runs run(arg) in a thread from its start to its end. */
UNIT void unit_in_thread(void *(*run)(void *), void *arg)
{
    unit_join(unit_start(run, arg));
}

#endif /* UNIT_H */
