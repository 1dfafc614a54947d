/*
 * cores.c - several cores in one process: libhakmem.so preloaded beside an
 * adapter's, opened late, twice, in two builds, in namespaces; and blocks that
 * are given away, to libraries that free or resize them, and past others that
 * wrap malloc. (Python's part is tests/python/test_cores.py, nginx's
 * tests/nginx/test_cores.py.)
 *
 * Not under the address sanitizer and valgrind, whose malloc takes the place of
 * every other.
 */
#include "wrap_test.h"

TestSuite(cores, .timeout = 300);

static const struct wrap_how alone, preloaded = {.preload = true};

/* The program says "well" by itself and with the library preloaded. */
#define expect_well(...)                                                       \
    do {                                                                       \
        wrap_expect(&alone, "well\n", "", __VA_ARGS__);                        \
        wrap_expect(&preloaded, "well\n", "", __VA_ARGS__);                    \
    } while (0)

/* ---- a program that embeds Lua ------------------------------------------------ */

Test(cores, states_of_every_kind_in_threads)
{
    expect_well(wrap_program("plain/cores"), "threads");
}

Test(cores, states_of_every_kind_in_children)
{
    expect_well(wrap_program("plain/cores"), "fork");
}

Test(cores, blocks_of_malloc_given_to_hak_lua_alloc)
{
    expect_well(wrap_program("plain/cores"), "blocks");
}

/* The module is a third core, its copy a fourth; every heap has an end. */
Test(cores, states_that_load_the_module_and_a_copy_of_it)
{
    expect_well(wrap_program("plain/cores"), "modules",
                wrap_path("lua/hakmem.so"),
                wrap_program("plain/libluacopy.so"));
}

/*
 * Windows are guessed then, so that one may lie across another. A block that a
 * core takes for its own by the address alone is a leak of another's heap.
 */
Test(cores, states_under_a_limit_on_address_space)
{
    static const struct wrap_how little = {.preload = true,
                                           .address_space = 500 << 20};

    for (int i = 0; i < 3; i++) { /* where they lie is chance */
        wrap_expect(&little, "well\n", "", wrap_program("plain/cores"),
                    "blocks", "modules", wrap_path("lua/hakmem.so"),
                    wrap_program("plain/libluacopy.so"));
    }
}

Test(cores, states_with_few_addresses)
{
    expect_well(wrap_program("plain/cores"), "narrow", "threads", "modules",
                wrap_path("lua/hakmem.so"),
                wrap_program("plain/libluacopy.so"));
}

/* Each core says its own figures, and in which file it is. */
Test(cores, figures_of_each_at_exit)
{
    static const struct wrap_how how = {.preload = true,
                                        .env = {"HAKMEM_SHOW_STATS=1"}};
    struct wrap_said said;
    unsigned long blocks;
    const char *at;

    wrap_run(&said, &how, wrap_program("plain/cores"), "modules",
             wrap_path("lua/hakmem.so"), wrap_program("plain/libluacopy.so"));
    for (int i = 0; i < 4; i++) {
        static const char *const files[] = {", in libhakmem.so\n",
                                            ", in cores\n", ", in hakmem.so\n",
                                            ", in libluacopy.so\n"};

        at = strstr(said.err, files[i]);
        cr_assert_not_null(at, "%sis not in: %s", files[i], said.err);
        cr_assert_null(strstr(at + 1, files[i]));
        cr_assert_eq(sscanf(strstr(at, "\ntiny "), "\ntiny %lu", &blocks), 1);
        cr_assert_gt(blocks, 0);
        at = strstr(at, " refused by a limit");
        cr_assert(at != NULL && strncmp(at - 3, ", 0", 3) == 0);
    }
    wrap_done(&said);
}

/* ---- opened while the program runs ---------------------------------------------- */

Test(cores, opened_late)
{
    expect_well(wrap_program("plain/hosts"), "late", wrap_path("libhakmem.so"));
    expect_well(wrap_program("plain/hosts"), "late",
                wrap_program("plain/libcopy.so"));
}

Test(cores, opened_twice)
{
    expect_well(wrap_program("plain/hosts"), "both", wrap_path("libhakmem.so"),
                wrap_program("plain/libcopy.so"));
}

/* The plain build beside the hardened one, either of them first. */
Test(cores, opened_in_two_builds)
{
    const char *build = wrap_path(""), *end = build + strlen(build) - 1;
    static const char hardened[] = "-hardened";
    size_t length = (size_t)(end - build), tail = sizeof(hardened) - 1;
    bool is_hardened =
        length > tail && strncmp(end - tail, hardened, tail) == 0;
    char *other;

    cr_assert_gt(asprintf(&other, "%.*s%s/libhakmem.so",
                          (int)(is_hardened ? length - tail : length), build,
                          is_hardened ? "" : hardened),
                 0);
    if (access(other, R_OK) != 0) {
        cr_skip("the other build (HARDENED) is not beside this one");
    }
    expect_well(wrap_program("plain/hosts"), "late", other);
    expect_well(wrap_program("plain/hosts"), "both", other,
                wrap_path("libhakmem.so"));
    free(other);
}

Test(cores, opened_in_namespaces)
{
    if (WRAP_SANITIZED) {
        cr_skip("the sanitizer's library would be there twice");
    }
    expect_well(wrap_program("plain/hosts"), "namespace",
                wrap_path("libhakmem.so"));
    expect_well(wrap_program("plain/hosts"), "namespace",
                wrap_program("plain/libcopy.so"));
}

/* What a library's core calls of its own is its own, whoever came before. */
Test(cores, libraries_with_a_core_each)
{
    static const struct wrap_how how = {.preload = true,
                                        .env = {"HAKMEM_SHOW_STATS=json"}};
    struct wrap_said said;
    unsigned long blocks;
    const char *at;

    expect_well(wrap_program("plain/hosts"), "cores",
                wrap_program("plain/libcore.so"),
                wrap_program("plain/libcorecopy.so"));
    wrap_expect(&alone, "well\n", "", wrap_program("shared/hosts"), "cores",
                wrap_program("plain/libcore.so"));
    wrap_run(&said, &how, wrap_program("plain/hosts"), "cores",
             wrap_program("plain/libcore.so"));
    at = strstr(said.err, "\"heaps\":"); /* of a child, first */
    cr_assert_not_null(at);
    cr_assert_eq(sscanf(at, "\"heaps\":%lu", &blocks), 1);
    cr_assert_leq(blocks, 2);
    wrap_done(&said);
}

/* ---- blocks given away ----------------------------------------------------------- */

Test(cores, a_library_that_frees_and_resizes_for_its_caller)
{
    static const char *const linked[] = {"shared/owners", "archive/owners"};

    expect_well(wrap_program("plain/owners"));
    for (int i = 0; i < 2; i++) {
        expect_well(wrap_program(linked[i]), "hak");
    }
}

/* ---- two that wrap malloc -------------------------------------------------------- */

/*
 * Another library that wraps malloc sees everything if it comes first, and
 * nothing if it comes after us; either way each block goes back where it came
 * from.
 */
Test(cores, another_that_wraps_malloc_before_us_and_behind_us)
{
    static const char *const orders[] = {"LD_PRELOAD=%2$s %1$s",
                                         "LD_PRELOAD=%1$s %2$s"};
    static const char *const programs[] = {"plain/owners", "plain/forks"};
    static const struct wrap_how counted = {
        .env = {"PROGRAM_COUNTS=1", "HAKMEM_WRAP_DIAG=1"}};

    for (int i = 0; i < 4; i++) {
        unsigned long requests, frees, strangers;
        struct wrap_said said;
        const char *line;
        char *preload;

        cr_assert_gt(asprintf(&preload, orders[i % 2],
                              wrap_path("libhakmem.so"),
                              wrap_program("plain/libcounts.so")),
                     0);
        wrap_run(&said, &counted, "env", preload,
                 wrap_program(programs[i / 2]));
        cr_assert_str_eq(said.out, "well\n");
        line = strstr(said.err, "requests ");
        cr_assert_not_null(line);
        cr_assert_eq(sscanf(line, "requests %lu, frees %lu, strangers %lu",
                            &requests, &frees, &strangers),
                     3);
        cr_assert(i % 2 == 0 ? requests > 100 && frees > 100
                             : requests == 0 && frees == 0,
                  "%s: %s", preload, line);
        cr_assert_eq(strangers, 0);
        cr_assert_eq(wrap_count(&said, "blocks freed or resized "), 0);
        wrap_done(&said);
        free(preload);
    }
}

/* The same with everything handed on: no block is passed round in a circle. */
Test(cores, another_that_wraps_malloc_and_all_to_the_c_library)
{
    static const char *const orders[] = {"LD_PRELOAD=%2$s %1$s",
                                         "LD_PRELOAD=%1$s %2$s"};
    static const char *const forced[] = {"HAKMEM_FORCE_LIBC_ALLOC=1",
                                         "HAKMEM_FORCE_LIBC_ALLOC=0"};

    for (int i = 0; i < 4; i++) {
        char *preload;

        cr_assert_gt(asprintf(&preload, orders[i % 2],
                              wrap_path("libhakmem.so"),
                              wrap_program("plain/libcounts.so")),
                     0);
        wrap_expect(&alone, "well\n", "", "env", preload, forced[i / 2],
                    wrap_program("plain/owners"));
        wrap_expect(&alone, "well\n", "", "env", preload, forced[i / 2],
                    wrap_program("plain/handles"));
        free(preload);
    }
}
