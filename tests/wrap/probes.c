/*
 * probes.c - the probes that tracers see: by readelf, and by gdb where that is there.
 */
#include "base/probe.h"
#include "wrap_test.h"

TestSuite(probes, .timeout = 120);

static const struct wrap_how alone;

/* What a command says; the caller's. */
static struct wrap_said says(const char *const *command)
{
    struct wrap_said said;

    wrap_try(&said, &alone, command);
    return said;
}

static int times(const char *text, const char *what)
{
    int count = 0;

    while ((text = strstr(text, what)) != NULL) {
        count++;
        text += strlen(what);
    }
    return count;
}

static bool is_there(const char *command)
{
    struct wrap_said said =
        says((const char *const[]){command, "--version", NULL});
    bool well = said.status == 0;

    wrap_done(&said);
    return well;
}

Test(probes, the_library_has_notes_of_them)
{
    struct wrap_said said = says((const char *const[]){
        "readelf", "-n", "-W", wrap_path("libhakmem.so"), NULL});

    if (said.status != 0) {
        cr_skip_test("no readelf");
    }
#ifdef HAK_PROBES
    cr_expect_geq(times(said.out, "Provider: hakmem"), 2, "%s", said.out);
    cr_expect_geq(times(said.out, "Name: allocated\n"), 1, "%s", said.out);
    cr_expect_geq(times(said.out, "Name: freed\n"), 1, "%s", said.out);
    cr_expect_eq(times(said.out, "Name: "),
                 times(said.out, "Name: allocated\n") +
                     times(said.out, "Name: freed\n"),
                 "%s", said.out);
#else
    cr_expect_eq(times(said.out, "hakmem"), 0, "%s", said.out);
#endif
    wrap_done(&said);
}

#ifdef HAK_PROBES
Test(probes, gdb_stops_at_one_and_sees_what_it_tells)
{
    const char *line;
    char *wrapper;
    struct wrap_said said;
    int bytes, stands_for, stack;

    if (!is_there("gdb")) {
        cr_skip_test("no gdb");
    }
    cr_assert_gt(asprintf(&wrapper,
                          "set exec-wrapper env LD_PRELOAD=%s "
                          "HAKMEM_PROFILE_RATE=1",
                          wrap_path("libhakmem.so")),
                 0);
    said = says((const char *const[]){
        "gdb",
        "-nx",
        "-nh",
        "-batch",
        "-iex",
        "set auto-load no",
        "-iex",
        "set debuginfod enabled off",
        "-ex",
        wrapper,
        "-ex",
        "break main",
        "-ex",
        "run",
        "-ex",
        "info probes stap hakmem",
        "-ex",
        "break -probe-stap hakmem:allocated",
        "-ex",
        "break -probe-stap hakmem:freed",
        "-ex",
        "continue",
        "-ex",
        "printf \"%d arguments, %d bytes, stands for %d, stack %d\\n\", "
        "$_probe_argc, $_probe_arg1, $_probe_arg2, $_probe_arg3 > 0",
        "-ex",
        "kill",
        "--args",
        wrap_program("plain/owns"),
        NULL});
    if (strstr(said.err, "ptrace") != NULL ||
        strstr(said.out, "Breakpoint 1, ") == NULL) {
        cr_skip_test("gdb can't run programs here");
    }
    cr_expect_geq(times(said.out, "hakmem   allocated"), 1, "%s", said.out);
    cr_expect_geq(times(said.out, "hakmem   freed"), 1, "%s", said.out);
    /* At rate 1 a block stands for itself. */
    line = strstr(said.out, "4 arguments, ");
    cr_assert(line != NULL &&
                  sscanf(line, "4 arguments, %d bytes, stands for %d, stack %d",
                         &bytes, &stands_for, &stack) == 3,
              "%s%s", said.out, said.err);
    cr_expect_gt(bytes, 0);
    cr_expect_eq(stands_for, bytes);
    cr_expect_eq(stack, 1);
    wrap_done(&said);
}
#endif
