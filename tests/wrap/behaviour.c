/*
 * behaviour.c - the malloc family and C++'s operators do what glibc's do,
 * however the library got into the program.
 */
#include "wrap_test.h"

TestSuite(behaviour, .timeout = 300);

static const struct wrap_how alone, preloaded = {.preload = true};

/* Every line that a program says must be the one that it says on glibc. */
static void expect_same(const struct wrap_how *how, const char *program)
{
    struct wrap_said glibc, ours;
    char *left = NULL, *right = NULL;
    size_t lines = 0;

    wrap_run(&glibc, &alone, wrap_program("plain/behaviour"));
    wrap_run(&ours, how, wrap_program(program));
    for (char *a = strtok_r(glibc.out, "\n", &left),
              *b = strtok_r(ours.out, "\n", &right);
         a != NULL || b != NULL;
         a = strtok_r(NULL, "\n", &left), b = strtok_r(NULL, "\n", &right)) {
        cr_assert(a != NULL && b != NULL && strcmp(a, b) == 0,
                  "glibc: %s, we: %s", a != NULL ? a : "nothing",
                  b != NULL ? b : "nothing");
        lines++;
    }
    cr_assert_gt(lines, 1900);
    wrap_done(&glibc);
    wrap_done(&ours);
}

Test(behaviour, preloaded)
{
    expect_same(&preloaded, "plain/behaviour");
}

Test(behaviour, linked_with_the_shared_library)
{
    expect_same(&alone, "shared/behaviour");
}

Test(behaviour, linked_with_the_archive)
{
    expect_same(&alone, "archive/behaviour");
}

Test(behaviour, linked_without_any_shared_library)
{
    expect_same(&alone, "static/behaviour");
}

Test(behaviour, all_to_the_c_library)
{
    static const struct wrap_how forced = {
        .preload = true, .env = {"HAKMEM_FORCE_LIBC_ALLOC=1"}};

    expect_same(&forced, "plain/behaviour");
}

Test(behaviour, without_guards_for_small_sizes)
{
    static const struct wrap_how fast = {.preload = true,
                                         .env = {"HAKMEM_BENCH_FAST_MODE=1"}};

    expect_same(&fast, "plain/behaviour");
}

/* Not asked for malloc, the linker has to take ours all the same. */
Test(behaviour, linked_where_nothing_asks_for_malloc)
{
    static const char *const programs[][2] = {
        {"archive/links", "owned: 1 1 1\n"},
        {"archive/links_lto", "owned: 1 1 1\n"},
        {"archive/links_shared", "owned: 1\n"},
        {"static/links_lto", "owned: 1 1 1\n"},
        {"static/links_shared", "owned: 1\n"}};

    for (int i = 0; i < 5; i++) {
        wrap_expect(&alone, programs[i][1], "", wrap_program(programs[i][0]));
    }
}

/* ---- C23 ---------------------------------------------------------------- */

#ifdef HAK_HARDENED
#define SEES_EVERY_SIZE true
#else
#define SEES_EVERY_SIZE false
#endif

Test(behaviour, sized_frees)
{
    wrap_expect(&alone, "well\n", "", wrap_program("plain/sized"));
    wrap_expect(&preloaded, "well\n", "", wrap_program("plain/sized"));
    wrap_expect(&alone, "well\n", "", wrap_program("archive/sized"));
}

Test(behaviour, sized_frees_with_a_wrong_size)
{
    static const struct {
        const char *what, *said;
        bool hardened;
    } ways[] = {
        {"too large", ", 200): the block has ", false},
        {"far too large", ", 500000): the block has ", false},
        {"too small", ", 99): the block has 100 bytes\n", true},
        {"far too small", ", 5): the block has 100000 bytes\n", true},
        {"not aligned", ", 1073741824, 16): not aligned to that\n", false},
    };

    for (int i = 0; i < 5; i++) {
        struct wrap_said said;

        wrap_try(&said, &preloaded,
                 (const char *const[]){wrap_program("plain/sized"),
                                       ways[i].what, NULL});
        if (ways[i].hardened && !SEES_EVERY_SIZE) {
            cr_assert_eq(said.status, 0, "%s: %s", ways[i].what, said.err);
        } else {
            cr_assert(WIFSIGNALED(said.status));
            cr_assert(strncmp(said.err, "hakmem: fatal: free_", 20) == 0);
            cr_assert_not_null(strstr(said.err, ways[i].said), "said: %s",
                               said.err);
        }
        wrap_done(&said);
    }
}

/* ---- C++ ---------------------------------------------------------------- */

Test(behaviour, cxx_preloaded)
{
    wrap_expect(&alone, "owned: 0 0 0\nwell\n", "", wrap_program("plain/cxx"));
    wrap_expect(&preloaded, "owned: 1 1 1\nwell\n", "",
                wrap_program("plain/cxx"));
}

Test(behaviour, cxx_linked)
{
    static const char *const programs[] = {"shared/cxx", "archive/cxx",
                                           "archive/cxx_static_runtime",
                                           "static/cxx"};

    for (int i = 0; i < (WRAP_SANITIZED ? 3 : 4); i++) {
        wrap_expect(&alone, "owned: 1 1 1\nwell\n", "",
                    wrap_program(programs[i]));
    }
}

/* The C++ library, asked for what to do without memory, is hard to find. */
Test(behaviour, cxx_in_a_library_that_was_opened_for_itself)
{
    if (WRAP_SANITIZED) {
        cr_skip("the sanitizer brings the C++ library in sight");
    }
    wrap_expect(&alone, "caught: 11\n", "", wrap_program("plain/opens_cxx"),
                wrap_program("plain/libcxx.so"));
    wrap_expect(&preloaded, "caught: 11\n", "", wrap_program("plain/opens_cxx"),
                wrap_program("plain/libcxx.so"));
}

/* No C program shall load a C++ library for our sake. */
Test(behaviour, the_library_needs_the_c_library_alone)
{
    struct wrap_said said;
    int needed = 0;

    if (WRAP_SANITIZED) {
        cr_skip("the sanitizer needs more libraries");
    }
    wrap_run(&said, &alone, "readelf", "-d", wrap_path("libhakmem.so"));
    for (char *at = said.out; (at = strstr(at, "(NEEDED)")) != NULL; at++) {
        needed++;
    }
    cr_assert_eq(needed, 1);
    cr_assert_not_null(strstr(said.out, "[libc.so.6]"));
    cr_assert_not_null(strstr(said.out, "soname: [libhakmem.so.0]"));
    cr_assert_not_null(strstr(said.out, "NODELETE"));
    wrap_done(&said);
}
