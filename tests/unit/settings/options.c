/*
 * options.c - tests of the settings: every kind of right and wild value.
 */
#include "settings/options.h"

#include "unit.h"

TestSuite(options, .timeout = 300);

/* Counts what the C library is asked for; watched programs have their own. */
static _Atomic(size_t) mallocs;

#if !UNIT_WATCHED
void *__libc_malloc(size_t size);
void *malloc(size_t size);

__attribute__((visibility("default"))) void *malloc(size_t size)
{
    mallocs++;
    return __libc_malloc(size);
}
#endif

Test(options, defaults)
{
    UNIT_SKIP_IF_EMULATED("its window has 1 GB");
    unsetenv("HAKMEM_BACKGROUND_THREAD");
    cr_assert_eq(haki_option(HAK_OPT_range), HAK_RANGE_DEFAULT);
    cr_assert_eq(haki_option(HAK_OPT_huge_pages), HAK_THP_AUTO);
    cr_assert_eq(haki_option(HAK_OPT_trace), 0);
    cr_assert_eq(haki_option(HAK_OPT_purge_delay), 1000);
    cr_assert_eq(haki_option(HAK_OPT_seal_fork), 0);
    cr_assert_eq(haki_option(HAK_OPT_show_stats), HAK_SHOW_NOT);
    cr_assert_eq(haki_option(HAK_OPT_force_libc_alloc), 0);
    cr_assert_eq(haki_option(HAK_OPT_bench_fast_mode), 0);
    cr_assert_eq(haki_option(HAK_OPT_wrap_diag), 0);
    cr_assert_eq(haki_option(HAK_OPT_deepbind), HAK_DEEPBIND_DROP);
    cr_assert_eq(haki_option(HAK_OPT_background_thread), 1);
    cr_assert_eq(haki_option(HAK_OPT_limit), 0);
    cr_assert_null(haki_option_cgroup());
    cr_assert_null(haki_option_profile());
    cr_assert_eq(haki_option(HAK_OPT_profile_rate), 0);
    cr_assert_eq(haki_option(HAK_OPT_share_stats), 1);
    cr_assert_eq(haki_option(HAK_OPT_guard_rate), 0);
    cr_assert_eq(haki_option(HAK_OPT_guard_memory), 512 * HAK_KIB);
    cr_assert_eq((int)HAK_OPTIONS, 18, "a new option: test its default here");
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

    haki_option(setting->option); /* so that the reload is the only reading */
    setenv(setting->env, setting->text, 1);
    haki_option_test_reload();
    NEED(haki_option(setting->option) == setting->value);
}

#define RANGE HAK_OPT_range, "HAKMEM_RANGE"
#define HUGE HAK_OPT_huge_pages, "HAKMEM_HUGE_PAGES"
#define TRACE HAK_OPT_trace, "HAKMEM_TRACE"
#define DELAY HAK_OPT_purge_delay, "HAKMEM_PURGE_DELAY"
#define SHOW HAK_OPT_show_stats, "HAKMEM_SHOW_STATS"
#define LIMIT HAK_OPT_limit, "HAKMEM_LIMIT"

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
        {HUGE, "", HAK_THP_AUTO},
        {HUGE, "auto", HAK_THP_AUTO},
        {HUGE, "always", HAK_THP_ALWAYS},
        {HUGE, "never", HAK_THP_NEVER},
        {HUGE, "NEVER", HAK_THP_NEVER},
        {DELAY, "", 1000},
        {DELAY, "0", 0},
        {DELAY, "0250", 250},
        {DELAY, "3600000", 3600000},
        {SHOW, "0", HAK_SHOW_NOT},
        {SHOW, "1", HAK_SHOW_TABLE},
        {SHOW, "off", HAK_SHOW_NOT},
        {SHOW, "Yes", HAK_SHOW_TABLE},
        {SHOW, "json", HAK_SHOW_JSON},
        {SHOW, "prometheus", HAK_SHOW_PROM},
        {LIMIT, "", 0},
        {LIMIT, "0", 0},
        {LIMIT, "0G", 0},
        {LIMIT, "1M", HAK_MIB},
        {LIMIT, "1024G", 1024 * HAK_GIB},
        {LIMIT, "1%", HAK_PERCENT | 1},
        {LIMIT, "100%", HAK_PERCENT | 100},
        {HAK_OPT_cgroup, "HAKMEM_CGROUP", "/sys", 1},
        {HAK_OPT_profile, "HAKMEM_PROFILE", "a/b.%p.pb.gz", 1},
        {HAK_OPT_profile, "HAKMEM_PROFILE", "x.html", 1},
        {HAK_OPT_profile_rate, "HAKMEM_PROFILE_RATE", "64K", 64 * HAK_KIB},
        {HAK_OPT_force_libc_alloc, "HAKMEM_FORCE_LIBC_ALLOC", "1", 1},
        {HAK_OPT_bench_fast_mode, "HAKMEM_BENCH_FAST_MODE", "1", 1},
        {HAK_OPT_wrap_diag, "HAKMEM_WRAP_DIAG", "1", 1},
    };

    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        unit_expect_said(read_setting, &settings[i], "");
    }
}

/* HAKMEM_HUGE is HAKMEM_HUGE_PAGES' old name; the new one counts if it is set. */
static void read_old_name(void *arg)
{
    (void)arg;
    setenv("HAKMEM_HUGE", "never", 1);
    haki_option_test_reload();
    NEED(haki_option(HAK_OPT_huge_pages) == HAK_THP_NEVER);
    setenv("HAKMEM_HUGE_PAGES", "", 1);
    haki_option_test_reload();
    NEED(haki_option(HAK_OPT_huge_pages) == HAK_THP_NEVER);
    setenv("HAKMEM_HUGE_PAGES", "always", 1);
    haki_option_test_reload();
    NEED(haki_option(HAK_OPT_huge_pages) == HAK_THP_ALWAYS);
}

Test(options, an_old_name_is_read_where_the_new_one_is_not_set)
{
    unit_expect_said(read_old_name, NULL, "");
}

static void read_old_wild(void *arg)
{
    (void)arg;
    setenv("HAKMEM_HUGE", "banana", 1);
    haki_option_test_reload();
    NEED(haki_option(HAK_OPT_huge_pages) == HAK_THP_AUTO);
}

Test(options, a_wild_value_of_an_old_name_names_the_variable_that_was_set)
{
    unit_expect_said(
        read_old_wild, NULL,
        "hakmem: HAKMEM_HUGE=banana: not one of auto always never; "
        "using auto\n");
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

Test(options, a_wild_rate_says_what_the_default_does)
{
    struct setting setting = {HAK_OPT_profile_rate, "HAKMEM_PROFILE_RATE",
                              "banana", 0};

    unit_expect_said(
        read_setting, &setting,
        "hakmem: HAKMEM_PROFILE_RATE=banana: not a size in bytes (a "
        "number, then K, M, G or T); using 512K if there is a "
        "profile\n");
    setting.text = "2G";
    unit_expect_said(read_setting, &setting,
                     "hakmem: HAKMEM_PROFILE_RATE=2G: must be from 0 to "
                     "1073741824 bytes; using 512K if there is a profile\n");
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
                       "not a size in bytes (a number, then K, M, G or T)",
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

/* There is no limit by default, which the line says instead of a number. */
static void expect_no_limit(const char *text, const char *why)
{
    struct setting setting = {LIMIT, text, 0};
    char line[600];

    snprintf(line, sizeof(line),
             "hakmem: HAKMEM_LIMIT=%s: %s; there is no "
             "limit\n",
             text, why);
    unit_expect_said(read_setting, &setting, line);
}

Test(options, a_wild_limit_is_one_line_and_none)
{
    static const char *const strange[] = {"banana", "-1",   "%",  "1.5%", "-1%",
                                          "80 %",   "80%%", "1X", " 80%"};
    static const char *const outside[] = {
        "1",  "1048575", "1023K", "1025G",
        "0%", "101%",    "200%",  "18446744073709551615%"};

    for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
        expect_no_limit(strange[i],
                        "neither a size in bytes (a number, then K, M, G or T) "
                        "nor a percentage (80%)");
    }
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
        expect_no_limit(outside[i], "must be 0 (none), from 1048576 to "
                                    "1099511627776 bytes, or from 1% to 100%");
    }
}

Test(options, a_wild_directory_is_one_line_and_none)
{
    struct setting setting = {HAK_OPT_cgroup, "HAKMEM_CGROUP", "here", 0};

    unit_expect_said(read_setting, &setting,
                     "hakmem: HAKMEM_CGROUP=here: not the absolute path of a "
                     "directory (of less than 400 bytes); using the process's "
                     "own\n");
}

Test(options, a_file_of_no_known_form_is_one_line_and_none)
{
    struct setting setting = {HAK_OPT_profile, "HAKMEM_PROFILE", "heap.pdf", 0};

    unit_expect_said(
        read_setting, &setting,
        "hakmem: HAKMEM_PROFILE=heap.pdf: must end in one of .pb.gz "
        ".txt .json .html (and have less than 400 bytes); no file is "
        "written\n");
}

Test(options, a_wild_number_is_one_line_and_the_default)
{
    static const char *const texts[] = {"soon", "-1",   "+1", " 1", "1 ",
                                        "1s",   "10ms", "1K", "1.5"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        expect_warning(DELAY, texts[i], "not a whole number (of milliseconds)",
                       1000);
    }
    expect_warning(DELAY, "99999999999999999999",
                   "not a whole number (of milliseconds)", 1000);
    expect_warning(DELAY, "3600001", "must be from 0 to 3600000 milliseconds",
                   1000);
}

/* Every word of every table is its place, and there are no others. */
Test(options, the_bounds_of_a_word_are_its_words)
{
    static const struct hak_option_row rows[] = {
#define HAK_OPTION HAK_OPTION_ROW
#include "settings/options.def"
#undef HAK_OPTION
    };

    for (size_t i = 0; i < HAK_OPTIONS; i++) {
        char words[200], *rest = words;
        size_t value = 0;

        cr_assert_leq(rows[i].initial, rows[i].most);
        cr_assert(rows[i].initial >= rows[i].least ||
                  rows[i].type == HAK_OPTION_SHARE);
        if (rows[i].type != HAK_OPTION_WORD) {
            continue;
        }
        snprintf(words, sizeof(words), "%s", rows[i].words);
        for (char *word; (word = strsep(&rest, " ")) != NULL; value++) {
            struct setting setting = {(enum hak_option)i, rows[i].env, word,
                                      value};

            unit_expect_said(read_setting, &setting, "");
        }
        cr_assert_eq(value, rows[i].most + 1);
        cr_assert_eq(rows[i].least, 0);
    }
}

Test(options, a_word_that_is_no_bool_takes_none)
{
    struct setting setting = {SHOW, "2", HAK_SHOW_NOT};

    unit_expect_said(read_setting, &setting,
                     "hakmem: HAKMEM_SHOW_STATS=2: not one of 0 1 json "
                     "prometheus; using 0\n");
}

Test(options, a_wild_word_is_one_line_and_the_default)
{
    static const char *const texts[] = {"aut", "autos", "auto always", " never",
                                        "0",   "a",     "always ",     "-"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct setting setting = {HUGE, texts[i], HAK_THP_AUTO};
        char line[600];

        snprintf(
            line, sizeof(line),
            "hakmem: HAKMEM_HUGE_PAGES=%s: not one of auto always never; using "
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
    NEED(haki_option(HAK_OPT_trace) == 0);
    NEED(haki_option(HAK_OPT_trace) == 0);
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
    haki_option(HAK_OPT_range);
    setenv("HAKMEM_RANGE", "1X", 1);
    setenv("HAKMEM_TRACE", "-", 1);
    errno = 77;
    haki_option_test_reload();
    NEED(errno == 77);
    NEED(haki_option(HAK_OPT_huge_pages) == HAK_THP_AUTO);
}

Test(options, each_wild_value_has_a_line_and_errno_is_kept)
{
    struct unit_child child;

    unit_child(&child, read_two, NULL);
    cr_assert_eq(child.status, 0, "%s", child.said);
    cr_assert(strstr(child.said, "HAKMEM_RANGE=1X: not a size") != NULL);
    cr_assert(strstr(child.said, "HAKMEM_TRACE=-: not one of") != NULL);
}

/* ---- before the environment is there ------------------------------------ */

static void ask_early(void *arg)
{
    char **there = environ;

    (void)arg;
    setenv("HAKMEM_PURGE_DELAY", "7", 1);
    setenv("HAKMEM_HUGE_PAGES", "wild", 1);
    there = environ;
    environ = NULL;
    NEED(!haki_options_ready());
    NEED(haki_option(HAK_OPT_purge_delay) == 1000);
    NEED(!haki_options_ready());
    environ = there;
    NEED(haki_option(HAK_OPT_purge_delay) == 7);
    NEED(haki_options_ready());
    environ = NULL;
    NEED(haki_option(HAK_OPT_purge_delay) == 7);
    NEED(haki_options_ready());
}

Test(options, what_is_asked_too_early_is_the_default_for_now)
{
    unit_expect_said(
        ask_early, NULL,
        "hakmem: HAKMEM_HUGE_PAGES=wild: not one of auto always never; "
        "using auto\n");
}

static void ask_if_ready(void *arg)
{
    (void)arg;
    NEED(haki_options_ready()); /* the first question of all */
}

Test(options, with_an_environment_they_are_ready)
{
    unit_expect_said(ask_if_ready, NULL, "");
}

static void read_watched(void *arg)
{
    size_t before;

    (void)arg;
    setenv("HAKMEM_RANGE", "2G", 1);
    setenv("HAKMEM_TRACE", "wild", 1);
    before = mallocs;
    NEED(haki_option(HAK_OPT_range) == 2 * HAK_GIB);
    NEED(mallocs == before);
    free(unit_pointer(malloc(1)));
    NEED(mallocs == before + 1);
}

Test(options, reading_allocates_nothing)
{
    UNIT_SKIP_IF_WATCHED("malloc is the checker's");
    unit_expect_ok(read_watched, NULL);
}

/* ---- a table of one's own ------------------------------------------------ */

enum { OWN_LANES, OWN_DELAY, OWN_ROWS };

static const struct hak_option_row own_rows[] = {
    HAK_OPTION_ROW(WORD, lanes, "HAKMEM_OWN_LANES", 1, 0, 2, "none some all",
                   "a test's")
        HAK_OPTION_ROW(INT, delay, "HAKMEM_OWN_DELAY", 5, 1, 9, "days", "too")};
static size_t own_values[OWN_ROWS];
static struct hak_options own = {own_rows, OWN_ROWS, own_values,
                                 HAK_OPTIONS_UNREAD};

static void read_own(void *arg)
{
    (void)arg;
    setenv("HAKMEM_OWN_LANES", "all", 1);
    setenv("HAKMEM_OWN_DELAY", "0", 1);
    NEED(haki_options_get(&own, OWN_LANES) == 2);
    setenv("HAKMEM_OWN_LANES", "none", 1);
    NEED(haki_options_get(&own, OWN_LANES) == 2);
    NEED(haki_options_get(&own, OWN_DELAY) == 5);
}

Test(options, an_adapter_reads_a_table_of_its_own)
{
    unit_expect_said(read_own, NULL,
                     "hakmem: HAKMEM_OWN_DELAY=0: must be from 1 to 9 days; "
                     "using 5\n");
}

/* As a signal's handler or a forked child meets a table half read. */
static void read_half_read(void *arg)
{
    (void)arg;
    setenv("HAKMEM_OWN_LANES", "all", 1);
    setenv("HAKMEM_OWN_DELAY", "wild", 1);
    atomic_store(&own.state, HAK_OPTIONS_READING);
    NEED(haki_options_get(&own, OWN_LANES) == 2);
    NEED(haki_options_get(&own, OWN_DELAY) == 5);
    NEED(atomic_load(&own.state) == HAK_OPTIONS_READING);
}

Test(options, nobody_waits_for_a_table_that_is_being_read)
{
    unit_expect_said(read_half_read, NULL, "");
}

/* ---- threads ------------------------------------------------------------- */

static pthread_barrier_t all_there;

static void *ask(void *arg)
{
    (void)arg;
    pthread_barrier_wait(&all_there);
    NEED(haki_options_get(&own, OWN_LANES) == 2);
    NEED(haki_options_get(&own, OWN_DELAY) == 5);
    return NULL;
}

static void read_by_many(void *arg)
{
    pthread_t threads[8];

    (void)arg;
    setenv("HAKMEM_OWN_LANES", "all", 1);
    setenv("HAKMEM_OWN_DELAY", "wild", 1);
    pthread_barrier_init(&all_there, NULL, 8);
    for (int i = 0; i < 8; i++) {
        threads[i] = unit_start(ask, NULL);
    }
    for (int i = 0; i < 8; i++) {
        unit_join(threads[i]);
    }
}

Test(options, threads_that_ask_at_once_hear_one_line)
{
    UNIT_SKIP_IF_GCC_TSAN();
    for (size_t i = 0; i < unit_scale(50, 3); i++) {
        unit_expect_said(read_by_many, NULL,
                         "hakmem: HAKMEM_OWN_DELAY=wild: not a whole number "
                         "(of days); using 5\n");
    }
}
