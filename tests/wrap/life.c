/*
 * life.c - the preloaded library through what happens to processes: forks, no
 * address space, valgrind, a closed standard error, another user's privileges,
 * misuse, and everyday programs.
 */
#include "wrap_test.h"

TestSuite(life, .timeout = 300);

static const struct wrap_how alone, preloaded = {.preload = true};

/* ---- forks -------------------------------------------------------------- */

Test(life, forks_while_other_threads_allocate)
{
    wrap_expect(&alone, "well\n", "", wrap_program("plain/forks"));
    wrap_expect(&preloaded, "well\n", "", wrap_program("plain/forks"));
}

/* Handlers are served as anybody is. */
Test(life, forks_with_handlers_that_allocate)
{
    static const struct wrap_how how = {.preload = true,
                                        .env = {"HAKMEM_WRAP_DIAG=1"}};
    struct wrap_said said;

    wrap_run(&said, &how, wrap_program("plain/forks_atfork"));
    cr_assert_str_eq(said.out, "well\n");
    cr_assert_eq(wrap_count(&said, "recursion "), 0);
    wrap_done(&said);
}

/* ---- a thread of ours in the way ------------------------------------------ */

/* Namespaces are for processes with one thread, rights are a thread's. */
Test(life, alone_where_programs_count_on_it)
{
    static const struct wrap_how how = {.preload = true,
                                        .env = {"HAKMEM_BACKGROUND_THREAD=1"}};

    wrap_expect(&alone, "well\n", "", wrap_program("plain/alone"));
    wrap_expect(&how, "well\n", "", wrap_program("plain/alone"));
}

/* ---- a filter of system calls -------------------------------------------- */

/* systemd's @system-service, from the start: with samples and guards as well. */
Test(life, serves_under_a_filter_of_system_calls)
{
    int fd;
    const char *file = wrap_temporary(&fd);
    char *profile, *set;
    struct wrap_how watched = {
        .preload = true,
        .env = {"HAKMEM_PROFILE_RATE=65536", "HAKMEM_GUARD_RATE=65536"}};

    close(fd);
    cr_assert_gt(asprintf(&profile, "%s.json", file), 0);
    cr_assert_gt(asprintf(&set, "HAKMEM_PROFILE=%s", profile), 0);
    watched.env[2] = set;
    wrap_expect(&alone, "well\n", "", wrap_program("plain/filtered"));
    wrap_expect(&preloaded, "well\n", "", wrap_program("plain/filtered"));
    wrap_expect(&watched, "well\n", "", wrap_program("plain/filtered"));
    cr_assert_eq(access(profile, R_OK), 0);
    unlink(profile);
    unlink(file);
}

/* ---- no range ----------------------------------------------------------- */

#define OTHER_PAGES                                                            \
    "hakmem: this machine's pages are 32 KB, which is not supported (4, "      \
    "16 and 64 are); all requests go to the system allocator\n"

/* On a kernel with other pages nothing is ours, and nothing is lost. */
Test(life, without_a_range_the_c_library_serves_everything)
{
    static const struct wrap_how pages = {.preload = true,
                                          .beside = "tests/libpages.so"};
    struct wrap_said glibc, ours;

    wrap_run(&glibc, &alone, wrap_program("plain/behaviour"));
    wrap_run(&ours, &pages, wrap_program("plain/behaviour"));
    cr_assert(strcmp(glibc.out, ours.out) == 0);
    cr_assert_str_eq(ours.err, OTHER_PAGES);
    wrap_done(&glibc);
    wrap_done(&ours);
    wrap_expect(&pages, "owned: 0 0 0\nwell\n", OTHER_PAGES,
                wrap_program("plain/cxx"));
    wrap_expect(&pages, "well\n", OTHER_PAGES, wrap_program("plain/forks"));
}

/* A limit on address space that is there from the start takes nothing away. */
Test(life, with_little_address_space_it_serves)
{
    static const struct wrap_how how = {.preload = true,
                                        .address_space = 256 << 20};

    wrap_expect(&how, "owned: 1 1 1\nwell\n", "", wrap_program("plain/cxx"));
}

/* ---- valgrind ----------------------------------------------------------- */

/* It puts its own malloc in ours's place, unless told not to. */
Test(life, under_valgrind)
{
    struct wrap_said said;

    wrap_run(&said, &preloaded, "valgrind", "-q", "--error-exitcode=9",
             wrap_program("plain/cxx"), "calm");
    cr_assert_not_null(strstr(said.out, "well\n"));
    wrap_done(&said);
    wrap_run(&said, &preloaded, "valgrind", "-q", "--error-exitcode=9",
             "--soname-synonyms=somalloc=nouserintercepts",
             wrap_program("plain/cxx"), "calm");
    cr_assert_not_null(strstr(said.out, "well\n"));
    wrap_done(&said);
}

/* ---- standard error ----------------------------------------------------- */

Test(life, standard_error_closed_from_the_start)
{
    static const struct wrap_how how = {
        .preload = true, .no_stderr = true, .env = {"HAKMEM_WRAP_DIAG=1"}};

    wrap_expect(&how, "owned: 1 1 1\nwell\n", "", wrap_program("plain/cxx"));
}

/* Many programs close it at their end, before libraries have theirs. */
Test(life, what_is_said_at_exit_survives_a_closed_standard_error)
{
    static const struct wrap_how how = {.preload = true,
                                        .env = {"HAKMEM_WRAP_DIAG=1"}};
    struct wrap_said said;

    wrap_run(&said, &how, wrap_program("plain/misuse"), "close");
    wrap_count(&said, "forced ");
    wrap_done(&said);
    wrap_run(&said, &how, "ls", wrap_path("libhakmem.so"));
    wrap_count(&said, "forced ");
    wrap_done(&said);
}

/* A program that closes it gets the number for a file of its own. */
Test(life, what_is_said_at_exit_does_not_go_into_another_file)
{
    static const struct wrap_how how = {.preload = true,
                                        .env = {"HAKMEM_WRAP_DIAG=1"}};
    static const char *const ways[] = {"replace", "close all"};
    int fd;
    const char *file = wrap_temporary(&fd);

    for (int i = 0; i < 2; i++) {
        struct wrap_said said;
        struct stat now;

        wrap_run(&said, &how, wrap_program("plain/misuse"), ways[i], file);
        cr_assert(fstat(fd, &now) == 0);
        cr_assert_eq(now.st_size, 0);
        wrap_done(&said);
    }
    close(fd);
    unlink(file);
}

/* The report of HAKMEM_SHOW_STATS is written after ls has closed it. */
Test(life, figures_at_exit_and_when_asked_for)
{
    static const struct wrap_how how = {.preload = true,
                                        .env = {"HAKMEM_SHOW_STATS=1"}};
    struct wrap_said said;
    unsigned long blocks;

    wrap_run(&said, &how, "ls", wrap_path("libhakmem.so"));
    cr_assert_not_null(strstr(said.err, ": ls, process "));
    cr_assert_eq(sscanf(strstr(said.err, "\ntiny "), "\ntiny %lu", &blocks), 1);
    cr_assert_gt(blocks, 0);
    wrap_done(&said);
    wrap_run(&said, &preloaded, wrap_program("plain/misuse"), "stats");
    cr_assert_not_null(strstr(said.err, ": misuse, process "));
    cr_assert_not_null(strstr(said.err, "\nArena 0:\n")); /* glibc's */
    wrap_done(&said);
}

/* ---- cancellation ------------------------------------------------------- */

/* What we print is no point where a cancelled thread ends. */
Test(life, a_cancelled_thread_ends_where_it_asks_to)
{
    static const struct wrap_how trace = {.preload = true,
                                          .env = {"HAKMEM_TRACE=1"}};
    struct wrap_said said;

    wrap_run(&said, &alone, wrap_program("plain/cancels"));
    cr_assert_str_eq(said.out, "reached: 5\n");
    wrap_done(&said);
    wrap_run(&said, &trace, wrap_program("plain/cancels"));
    cr_assert_str_eq(said.out, "reached: 5\n");
    cr_assert_not_null(strstr(said.err, "[SP_INTERNAL_ALLOC]"));
    cr_assert_not_null(strstr(said.err, ": cancels, process "));
    wrap_done(&said);
}

/* ---- rights ------------------------------------------------------------- */

/* A program with more rights than its user takes no settings from him. */
Test(life, a_set_user_id_program_obeys_no_settings)
{
    static const struct wrap_how how = {
        .env = {"HAKMEM_WRAP_DIAG=1", "HAKMEM_TRACE=1",
                "HAKMEM_FORCE_LIBC_ALLOC=maybe"}};
    struct wrap_said said;
    const char *file;
    int fd;

    if (geteuid() != 0) {
        cr_skip("only root can make a program that runs as another user");
    }
    file = wrap_temporary(&fd);
    close(fd);
    wrap_run(&said, &alone, "cp", wrap_program("archive/secret"), file);
    wrap_done(&said);
    cr_assert(chmod(file, 04755) == 0);
    wrap_try(&said, &how,
             (const char *const[]){"setpriv", "--reuid=65534", "--clear-groups",
                                   file, NULL});
    unlink(file);
    cr_assert(WIFEXITED(said.status));
    if (WEXITSTATUS(said.status) != 0) {
        cr_skip("set-user-id programs are not allowed there");
    }
    cr_assert_str_eq(said.err, "");
    wrap_done(&said);

    wrap_try(&said, &how,
             (const char *const[]){wrap_program("archive/secret"), NULL});
    cr_assert_not_null(strstr(said.err, "[wrap] exit"));
    wrap_done(&said);
}

/* ---- misuse ------------------------------------------------------------- */

Test(life, misuse_is_one_line_and_an_abort)
{
    static const char *const ways[][2] = {{"free", "free"},
                                          {"realloc", "realloc"},
                                          {"usable", "malloc_usable_size"}};

    for (int i = 0; i < 3; i++) {
        struct wrap_said said;
        char format[100], rest[100];
        void *p;

        wrap_try(&said, &preloaded,
                 (const char *const[]){wrap_program("plain/misuse"), ways[i][0],
                                       NULL});
        cr_assert(WIFSIGNALED(said.status) && WTERMSIG(said.status) == SIGABRT);
        snprintf(format, sizeof(format), "hakmem: fatal: %s(%%p): %%99[^\n]",
                 ways[i][1]);
        cr_assert_eq(sscanf(said.err, format, &p, rest), 2, "said: %s",
                     said.err);
        cr_assert_str_eq(rest, "the middle of a block of 112 bytes");
        wrap_done(&said);
    }
}

/* ---- programs of every day ---------------------------------------------- */

/* The same output with the library and without, and nothing else said. */
static void expect_same(const char *const *command)
{
    struct wrap_said without, with;

    wrap_run_command(&without, &alone, command);
    wrap_run_command(&with, &preloaded, command);
    cr_assert_gt(strlen(without.out), 0);
    cr_assert_str_eq(with.out, without.out);
    cr_assert_str_eq(with.err, without.err);
    wrap_done(&without);
    wrap_done(&with);
}

#define EVERY_DAY(name, ...)                                                   \
    Test(life, name)                                                           \
    {                                                                          \
        expect_same((const char *const[]){__VA_ARGS__, NULL});                 \
    }

EVERY_DAY(ls, "ls", "-lR", "core", "tests")
EVERY_DAY(sh, "sh", "-c", "for i in 1 2 3; do echo $((i * i)); done | sort -r")
EVERY_DAY(bash, "bash", "-c",
          "a=(); for i in {1..2000}; do a+=(\"$i$i\"); done; "
          "printf '%s\\n' \"${a[@]}\" | sort -n | tail -n 3; wc -c core/*/*.c")
EVERY_DAY(python, "python3", "-c",
          "import json, re, threading\n"
          "def work(n):\n"
          "    out[n] = sum(len(json.dumps([i] * 50)) for i in range(500))\n"
          "out = {}\n"
          "threads = [threading.Thread(target=work, args=(n,))"
          " for n in range(4)]\n"
          "[t.start() for t in threads]; [t.join() for t in threads]\n"
          "print(sorted(out.items()), len(re.sub('a', 'bb', 'xa' * 99999)))\n")
EVERY_DAY(gcc, "gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Iinclude",
          "-Icore", "-S", "-o", "-", "core/tiny/tiny.c")
EVERY_DAY(awk_and_sed, "sh", "-c",
          "sed 's/a/b/g' core/*/*.c | awk '{n += length($0)} END {print n}'")
