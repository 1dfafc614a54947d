/*
 * limit.c - HAKMEM_LIMIT, for programs that know nothing of it: what they can
 * get by any name, the messages, and wrong limits.
 */
#include "wrap_test.h"

TestSuite(limit, .timeout = 300);

/* The program ends well, and is told once that it met the limit. */
static void expect_held(const char *program, bool preload)
{
    const struct wrap_how how = {.preload = preload,
                                 .env = {"HAKMEM_LIMIT=40M"}};
    struct wrap_said said;

    wrap_run(&said, &how, wrap_program(program));
    cr_expect_str_eq(said.out, "well\n");
    cr_expect(strncmp(said.err, "hakmem: HAKMEM_LIMIT: ", 22) == 0 &&
                  strchr(said.err, '\n') == said.err + strlen(said.err) - 1,
              "%s", said.err);
    wrap_done(&said);
}

Test(limit, preloaded)
{
    expect_held("plain/limited", true);
}

Test(limit, linked_with_the_archive)
{
    expect_held("archive/limited", false);
}

Test(limit, linked_without_any_shared_library)
{
    expect_held("static/limited", false);
}

/* All goes on as without a limit: a program that sees to its own memory. */
static void expect_line(const char *setting, const char *line)
{
    const struct wrap_how how = {.preload = true, .env = {setting}};
    struct wrap_said said;

    wrap_run(&said, &how, wrap_program("plain/sized"));
    cr_expect_str_eq(said.err, line);
    wrap_done(&said);
}

Test(limit, wrong_limits_are_one_line)
{
    expect_line("HAKMEM_LIMIT=banana",
                "hakmem: HAKMEM_LIMIT=banana: neither a size in bytes (a "
                "number, then K, M, G or T) nor a percentage (80%); there is "
                "no limit\n");
    expect_line("HAKMEM_LIMIT=200%",
                "hakmem: HAKMEM_LIMIT=200%: must be 0 (none), from 1048576 to "
                "1099511627776 bytes, or from 1% to 100%; there is no "
                "limit\n");
    expect_line("HAKMEM_LIMIT=0", "");
}
