/*
 * guards.c - which allocator serves a request: the guards of the libc names,
 * their settings, their reasons, and blocks that others made.
 */
#include "wrap_test.h"

TestSuite(guards, .timeout = 300);

static const struct wrap_how alone, preloaded = {.preload = true};

#define EXIT_LINE "[wrap] exit: libc malloc: "

static const char all_ours[] = "1: 1 1 1 1\n100: 1 1 1 1\n1024: 1 1 1 1\n"
                               "1: 1 1 1 1\n100: 1 1 1 1\n1024: 1 1 1 1\n";
static const char none_ours[] = "1: 0 0 0 0\n100: 0 0 0 0\n1024: 0 0 0 0\n"
                                "1: 0 0 0 0\n100: 0 0 0 0\n1024: 0 0 0 0\n";

Test(guards, requests_are_served_by_the_lanes)
{
    wrap_expect(&alone, none_ours, "", wrap_program("plain/owns"));
    wrap_expect(&preloaded, all_ours, "", wrap_program("plain/owns"));
}

/* ---- settings ----------------------------------------------------------- */

Test(guards, force_sends_everything_to_the_c_library)
{
    static const struct wrap_how on = {.preload = true,
                                       .env = {"HAKMEM_FORCE_LIBC_ALLOC=1"}},
                                 off = {.preload = true,
                                        .env = {"HAKMEM_FORCE_LIBC_ALLOC=0"}};

    wrap_expect(&on, none_ours, "", wrap_program("plain/owns"));
    wrap_expect(&off, all_ours, "", wrap_program("plain/owns"));
}

Test(guards, a_setting_that_cannot_be_read_is_reported_once)
{
    static const struct wrap_how bad = {
        .preload = true, .env = {"HAKMEM_FORCE_LIBC_ALLOC=maybe"}};

    wrap_expect(&bad, all_ours,
                "hakmem: HAKMEM_FORCE_LIBC_ALLOC=maybe: not one of 0 1 off on "
                "no yes false true; using 0\n",
                wrap_program("plain/owns"));
}

Test(guards, fast_mode_serves_the_same)
{
    static const struct wrap_how fast = {.preload = true,
                                         .env = {"HAKMEM_BENCH_FAST_MODE=1"}};

    wrap_expect(&fast, all_ours, "", wrap_program("plain/owns"));
}

/* ---- reasons ------------------------------------------------------------ */

static int lines_with(const char *text, const char *what)
{
    int count = 0;

    for (; (text = strstr(text, what)) != NULL; text++) {
        count++;
    }
    return count;
}

Test(guards, each_reason_is_said_once_and_counted_at_exit)
{
    static const struct wrap_how how = {
        .preload = true,
        .env = {"HAKMEM_WRAP_DIAG=1", "HAKMEM_FORCE_LIBC_ALLOC=1"}};
    struct wrap_said said;

    wrap_run(&said, &how, wrap_program("plain/owns"));
    cr_assert_eq(lines_with(said.err, "[wrap] libc malloc: forced\n"), 1);
    cr_assert_eq(lines_with(said.err, "[wrap] libc malloc: "), 1);
    cr_assert_eq(lines_with(said.err, EXIT_LINE), 1);
    cr_assert_geq(wrap_count(&said, "forced "), 24);
    cr_assert_eq(wrap_count(&said, "recursion "), 0);
    cr_assert_geq(wrap_count(&said, "freed or resized "), 24);
    wrap_done(&said);
}

Test(guards, nothing_is_said_when_nothing_falls_through)
{
    static const struct wrap_how how = {.preload = true,
                                        .env = {"HAKMEM_WRAP_DIAG=1"}};
    struct wrap_said said;

    wrap_run(&said, &how, wrap_program("plain/owns"));
    cr_assert_eq(lines_with(said.err, "[wrap] libc malloc: forced"), 0);
    cr_assert_eq(lines_with(said.err, "[wrap] libc malloc: init"), 0);
    cr_assert_eq(wrap_count(&said, "forced "), 0);
    wrap_done(&said);
}

/* Before the C library's start; while a key is set; after a thread's end. */
Test(guards, init_recursion_and_exited)
{
    static const struct wrap_how how = {.preload = true,
                                        .env = {"HAKMEM_WRAP_DIAG=1"}};
    static const char wanted[] = "early: 0 0 0\nat exit\nat the end\n";
    struct wrap_said said;

    wrap_expect(&alone, wanted, "", wrap_program("plain/early"));
    wrap_run(&said, &how, wrap_program("plain/early"));
    cr_assert_str_eq(said.out, wanted);
    cr_assert_eq(lines_with(said.err, "[wrap] libc malloc: init\n"), 1);
    cr_assert_eq(lines_with(said.err, "[wrap] libc malloc: recursion\n"), 1);
    cr_assert_eq(lines_with(said.err, "[wrap] libc malloc: exited\n"), 1);
    cr_assert_geq(wrap_count(&said, "init "), 3);     /* and dlsym's own */
    cr_assert_eq(wrap_count(&said, "recursion "), 5); /* a thread each */
    cr_assert_geq(wrap_count(&said, "exited "), 8);
    wrap_done(&said);
}

/* ---- blocks that others made -------------------------------------------- */

Test(guards, blocks_from_before_go_back_to_who_made_them)
{
    static const struct wrap_how forced = {
        .env = {"HAKMEM_FORCE_LIBC_ALLOC=1"}};
    static const char *const programs[] = {"shared/before", "archive/before"};

    for (int i = 0; i < 2; i++) {
        wrap_expect(&alone, "well\n", "", wrap_program(programs[i]));
        wrap_expect(&forced, "well\n", "", wrap_program(programs[i]));
    }
}

Test(guards, opened_and_closed_libraries)
{
    wrap_expect(&preloaded, "well\n", "", wrap_program("plain/opens"),
                wrap_program("plain/libopened.so"));
}

/* libhakmem.so opened like any library: it is not asked, and may be closed. */
Test(guards, the_library_itself_opened_and_closed)
{
    wrap_expect(&alone, "well\n", "", wrap_program("plain/opens"),
                wrap_program("plain/libopened.so"), wrap_path("libhakmem.so"));
}

/* The Lua module carries a core of its own: two copies, two ranges. */
Test(guards, the_lua_module_beside_the_preloaded_library)
{
    static const char script[] =
        "local before = {}\n"
        "for i = 1, 20000 do before[i] = {tostring(i)} end\n"
        "require 'hakmem'\n"
        "local after = {}\n"
        "for i = 1, 20000 do after[i] = {before[i][1] .. 'x'} end\n"
        "for i = 1, 20000 do before[i] = nil end\n"
        "collectgarbage()\n"
        "local sum = 0\n"
        "for i = 1, 20000 do sum = sum + #after[i][1] end\n"
        "print(sum, #string.rep('y', 3000000))\n";
    static const struct wrap_how how = {.preload = true,
                                        .env = {"HAKMEM_WRAP_DIAG=1"}};
    struct wrap_said said;

    wrap_expect(&alone, "108894\t3000000\n", "", "lua5.4", "-e", script);
    wrap_run(&said, &how, "lua5.4", "-e", script);
    cr_assert_str_eq(said.out, "108894\t3000000\n");
    cr_assert_eq(wrap_count(&said, "init "), 0);
    wrap_done(&said);
}
