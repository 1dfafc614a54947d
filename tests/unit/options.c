/*
 * options.c - tests of the settings: every kind of right and wild value.
 */
#include "options.h"

#include "unit.h"

TestSuite(options, .timeout = 60);

Test(options, defaults)
{
    cr_assert_eq(hak_option(HAK_OPT_range), HAK_RANGE_DEFAULT);
    cr_assert_eq(hak_option(HAK_OPT_huge), HAK_HUGE_AUTO);
    cr_assert_eq(hak_option(HAK_OPT_trace), 0);
}

/* One setting and the value that must come of it. */
struct setting {
    enum hak_option option;
    const char *env, *text;
    size_t value;
};

static void read_setting(void *arg)
{
    const struct setting *setting = arg;

    hak_option(setting->option); /* so that the reload is the only reading */
    setenv(setting->env, setting->text, 1);
    hak_option_test_reload();
    NEED(hak_option(setting->option) == setting->value);
}

#define RANGE HAK_OPT_range, "HAKMEM_RANGE"
#define HUGE HAK_OPT_huge, "HAKMEM_HUGE"
#define TRACE HAK_OPT_trace, "HAKMEM_TRACE"

Test(options, right_values_are_taken_silently)
{
    static struct setting settings[] = {
        {TRACE, "0", 0},
        {TRACE, "1", 1},
        {TRACE, "off", 0},
        {TRACE, "on", 1},
        {TRACE, "no", 0},
        {TRACE, "yes", 1},
        {TRACE, "false", 0},
        {TRACE, "true", 1},
        {TRACE, "YES", 1},
        {TRACE, "", 0},
        {RANGE, "", HAK_RANGE_DEFAULT},
        {RANGE, "1G", HAK_GIB},
        {RANGE, "2g", 2 * HAK_GIB},
        {RANGE, "3GB", 3 * HAK_GIB},
        {RANGE, "3GiB", 3 * HAK_GIB},
        {RANGE, "4096M", 4 * HAK_GIB},
        {RANGE, "1024G", 1024 * HAK_GIB},
        {RANGE, "1073741824", HAK_GIB},
        {RANGE, "1099511627776", 1024 * HAK_GIB},
        {RANGE, "2097152k", 2 * HAK_GIB},
        {RANGE, "2097152Kb", 2 * HAK_GIB},
        {RANGE, "2048mib", 2 * HAK_GIB},
        {HUGE, "", HAK_HUGE_AUTO},
        {HUGE, "auto", HAK_HUGE_AUTO},
        {HUGE, "always", HAK_HUGE_ALWAYS},
        {HUGE, "never", HAK_HUGE_NEVER},
        {HUGE, "NEVER", HAK_HUGE_NEVER},
    };

    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        unit_expect_said(read_setting, &settings[i], "");
    }
}

/* What follows "hakmem: VARIABLE=TEXT: " in the warning. */
static void expect_warning(enum hak_option option, const char *env,
                           const char *text, const char *rest, size_t initial)
{
    struct setting setting = {option, env, text, initial};
    char line[600];

    snprintf(line, sizeof(line), "hakmem: %s=%s: %s; using %zu\n", env, text,
             rest, initial);
    unit_expect_said(read_setting, &setting, line);
}

Test(options, a_wild_bool_is_one_line_and_the_default)
{
    static const char *const texts[] = {"maybe", "2",  "-1", "01",
                                        " 1",    "1 ", "y",  "onn"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        expect_warning(TRACE, texts[i],
                       "not one of 0 1 off on no yes false true", 0);
    }
}

Test(options, a_wild_size_is_one_line_and_the_default)
{
    static const char *const texts[] = {
        "big",
        "-1",
        "+1",
        " 1G",
        "1X",
        "1GX",
        "1 G",
        "1.5G",
        "0x1",
        "G",
        "1GBB",
        "99999999999999999999",
        "100000000000000000G",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        expect_warning(RANGE, texts[i],
                       "not a size in bytes (a number, then K, M or G)",
                       HAK_RANGE_DEFAULT);
    }
}

Test(options, a_size_out_of_bounds_is_one_line_and_the_default)
{
    expect_warning(RANGE, "0", "must be from 1073741824 to 1099511627776 bytes",
                   HAK_RANGE_DEFAULT);
    expect_warning(RANGE, "1073741823",
                   "must be from 1073741824 to 1099511627776 bytes",
                   HAK_RANGE_DEFAULT);
    expect_warning(RANGE, "1025G",
                   "must be from 1073741824 to 1099511627776 bytes",
                   HAK_RANGE_DEFAULT);
    expect_warning(RANGE, "1099511627777",
                   "must be from 1073741824 to 1099511627776 bytes",
                   HAK_RANGE_DEFAULT);
}

Test(options, a_wild_word_is_one_line_and_the_default)
{
    static const char *const texts[] = {"aut", "autos", "auto always", " never",
                                        "0",   "a",     "always ",     "-"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct setting setting = {HUGE, texts[i], HAK_HUGE_AUTO};
        char line[600];

        snprintf(line, sizeof(line),
                 "hakmem: HAKMEM_HUGE=%s: not one of auto always never; using "
                 "auto\n",
                 texts[i]);
        unit_expect_said(read_setting, &setting, line);
    }
}

static void read_wild_twice(void *arg)
{
    (void)arg;
    setenv("HAKMEM_TRACE", "maybe", 1);
    hak_free(hak_malloc(8));
    NEED(hak_option(HAK_OPT_trace) == 0);
    NEED(hak_option(HAK_OPT_trace) == 0);
    hak_free(hak_malloc(16));
}

/* As a program sees it: through its first allocation, not a reload. */
Test(options, a_program_hears_of_a_wild_value_once_and_goes_on)
{
    unit_expect_said(read_wild_twice, NULL,
                     "hakmem: HAKMEM_TRACE=maybe: not one of 0 1 off on no "
                     "yes false true; using 0\n");
}

static void read_two(void *arg)
{
    (void)arg;
    hak_option(HAK_OPT_range);
    setenv("HAKMEM_RANGE", "-", 1);
    setenv("HAKMEM_TRACE", "-", 1);
    errno = 77;
    hak_option_test_reload();
    NEED(errno == 77);
    NEED(hak_option(HAK_OPT_huge) == HAK_HUGE_AUTO);
}

Test(options, each_wild_value_has_a_line_and_errno_is_kept)
{
    struct unit_child child;

    unit_child(&child, read_two, NULL);
    cr_assert_eq(child.status, 0, "%s", child.said);
    cr_assert(strstr(child.said, "HAKMEM_RANGE=-: not a size") != NULL);
    cr_assert(strstr(child.said, "HAKMEM_TRACE=-: not one of") != NULL);
}
