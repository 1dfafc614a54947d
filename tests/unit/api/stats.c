/*
 * stats.c - tests of the statistics: struct and texts, and that they add up.
 */
#include "api/stats.h"
#include "block.h"
#include "front/lane.h"
#include "settings/options.h"
#include "heap/thread.h"
#include "unit.h"

TestSuite(stats, .timeout = 300);

static const char *const names[] = {
#define HAK_STAT(name, kind, unit, help) #name,
#include <hakmem_stats.def>
#undef HAK_STAT
};

static const char *const units[] = {
#define HAK_STAT(name, kind, unit, help) unit,
#include <hakmem_stats.def>
#undef HAK_STAT
};

static const char *const kinds[] = {
#define HAK_STAT(name, kind, unit, help) #kind,
#include <hakmem_stats.def>
#undef HAK_STAT
};

static const char *const helps[] = {
#define HAK_STAT(name, kind, unit, help) help,
#include <hakmem_stats.def>
#undef HAK_STAT
};

#define NAMES (sizeof(names) / sizeof(names[0]))

/* ---- the struct --------------------------------------------------------------- */

Test(stats, a_full_struct_is_filled)
{
    hak_stats_t stats;

    hak_free(hak_malloc(100));
    memset(&stats, 0xaa, sizeof(stats));
    stats.size = sizeof(stats);
    cr_assert_eq(hak_stats(&stats), 0);
    cr_assert_eq(stats.size, sizeof(stats));
    cr_assert_eq(stats.version, HAK_STATS_VERSION);
    cr_assert_eq(stats.tiny_allocs, 1);
    cr_assert_eq(stats.tiny_frees, 1);
    cr_assert_eq(stats.range_bytes, haki_range.window);
    cr_assert_eq(stats.purged_bytes, 0);
}

Test(stats, no_more_bytes_are_written_than_the_caller_has)
{
    union {
        hak_stats_t stats;
        unsigned char bytes[sizeof(hak_stats_t) + 16];
    } some, all;

    hak_free(hak_malloc(100));
    memset(&all, 0x55, sizeof(all));
    all.stats.size = sizeof(all); /* a later version's struct */
    cr_assert_eq(hak_stats(&all.stats), 0);
    cr_assert_eq(all.stats.size, sizeof(hak_stats_t));
    cr_assert_eq(all.bytes[sizeof(hak_stats_t)], 0x55);
    for (size_t size = 12; size < sizeof(hak_stats_t); size++) {
        memset(&some, 0x55, sizeof(some));
        some.stats.size = size;
        cr_assert_eq(hak_stats(&some.stats), 0);
        cr_assert_eq(some.stats.size, size);
        cr_assert_eq(some.stats.version, HAK_STATS_VERSION);
        cr_assert_eq(memcmp(some.bytes + 8, all.bytes + 8, size - 8), 0);
        for (size_t i = size; i < sizeof(some); i++) {
            cr_assert_eq(some.bytes[i], 0x55);
        }
    }
}

Test(stats, too_small_a_struct_is_einval)
{
    hak_stats_t stats;

    for (size_t size = 0; size < 12; size++) {
        memset(&stats, 0x55, sizeof(stats));
        stats.size = size;
        errno = 0;
        cr_assert_eq(hak_stats(&stats), -1);
        cr_assert_eq(errno, EINVAL);
        cr_assert_eq(stats.size, size);
        cr_assert_eq(stats.version, 0x55555555);
    }
}

Test(stats, asking_allocates_nothing)
{
    cr_assert_eq(unit_stats().tiny_allocs, 0);
    hak_stats_json(NULL, 0);
    hak_stats_text(NULL, 0);
    hak_stats_table(NULL, 0);
    hak_stats_prometheus(NULL, 0);
    cr_assert_eq(unit_stats().heaps, 0);
    cr_assert_eq(unit_stats().range_bytes, 0);
}

/* ---- what is counted ------------------------------------------------------------- */

Test(stats, each_call_is_counted_where_it_belongs)
{
    void *p[10];
    hak_stats_t stats;

    for (int i = 0; i < 10; i++) {
        p[i] = hak_malloc(100);
    }
    hak_free(p[0]);
    p[1] = hak_realloc(p[1], 200);
    p[2] = hak_realloc(p[2], unit_ask(110));
    stats = unit_stats();
    cr_assert_eq(stats.tiny_allocs, 11);
    cr_assert_eq(stats.tiny_frees, 2);
    cr_assert_eq(stats.tiny_live_bytes, 8 * 112 + unit_block(p[1]));
    cr_assert_eq(stats.tiny_held_bytes, 2 * HAK_SLAB_SIZE);
    cr_assert_geq(stats.tiny_peak_bytes, stats.tiny_live_bytes);
    cr_assert_eq(stats.pool_allocs + stats.ace_allocs + stats.huge_allocs, 0);
    cr_assert_eq(stats.fallback_memory, 0);
    cr_assert_eq(stats.fallback_exited, 0);
    cr_assert_eq(stats.heaps, 1);
    cr_assert_eq(stats.heaps_parked, 0);
    cr_assert_eq(stats.slabs, 2);
    cr_assert_eq(stats.flushes, 0);
    cr_assert_geq(stats.refills, 2);
    cr_assert_eq(stats.committed_bytes, HAK_SUPER_SIZE);
    cr_assert_gt(stats.resident_bytes, 0);
    cr_assert_leq(stats.resident_bytes, 2 * HAK_SLAB_SIZE);
}

/* The five statistics of a lane, which stand together. */
static struct hak_lane_counts lane_of(int lane)
{
    static const size_t at[] = {
        offsetof(hak_stats_t, tiny_allocs), offsetof(hak_stats_t, pool_allocs),
        offsetof(hak_stats_t, ace_allocs), offsetof(hak_stats_t, huge_allocs)};
    hak_stats_t stats = unit_stats();
    struct hak_lane_counts counts;

    memcpy(&counts, (const char *)&stats + at[lane], sizeof(counts));
    return counts;
}

Test(stats, each_lane_counts_its_own_blocks)
{
    static const size_t least[] = {1, HAK_LANE_POOL_MIN, HAK_LANE_ACE_MIN,
                                   HAK_LANE_HUGE_MIN};
    static const size_t most[] = {HAK_LANE_TINY_MAX, HAK_LANE_POOL_MAX,
                                  HAK_LANE_ACE_MAX, 3 * HAK_LANE_HUGE_MIN};

    for (int lane = 0; lane < HAK_LANES; lane++) {
        struct hak_lane_counts others[HAK_LANES], now;
        char *small = hak_malloc(lane == 0 ? 1 : unit_ask(least[lane]));
        char *large = hak_malloc(unit_ask(most[lane]));
        uint64_t bytes = unit_block(small) + unit_block(large);

        cr_assert(hak_owns(small) && hak_owns(large));
        now = lane_of(lane);
        cr_assert_eq(now.allocs, 2, "lane %d", lane);
        cr_assert_eq(now.frees, 0);
        cr_assert_eq(now.live_bytes, bytes, "lane %d: %zu, not %zu", lane,
                     (size_t)now.live_bytes, (size_t)bytes);
        cr_assert_geq(now.peak_bytes, bytes);
        cr_assert_geq(now.held_bytes, bytes);
        for (int i = 0; i < HAK_LANES; i++) {
            others[i] = lane_of(i);
        }
        hak_free(small);
        hak_free(large);
        now = lane_of(lane);
        cr_assert_eq(now.allocs, 2);
        cr_assert_eq(now.frees, 2);
        cr_assert_eq(now.live_bytes, 0);
        cr_assert_geq(now.peak_bytes, bytes, "the peak stays");
        for (int i = 0; i < HAK_LANES; i++) {
            now = lane_of(i);
            cr_assert(i == lane || memcmp(&now, &others[i], sizeof(now)) == 0,
                      "lane %d changed lane %d", lane, i);
        }
    }
    cr_assert_eq(unit_stats().system_live, 0);
}

Test(stats, what_goes_back_is_counted)
{
    hak_stats_t before, after;
    char *p = hak_malloc(20 * HAK_MIB);

    memset(p, 1, 20 * HAK_MIB);
    before = unit_stats();
    hak_free(p);
    hak_trim();
    after = unit_stats();
    cr_assert_geq(after.purged_bytes - before.purged_bytes, 20 * HAK_MIB);
    cr_assert_geq(after.purges - before.purges, 1);
}

Test(stats, flushes_and_refills_are_counted)
{
    static void *p[5000];

    for (int i = 0; i < 5000; i++) {
        p[i] = hak_malloc(1000);
    }
    cr_assert_geq(unit_stats().refills, 100);
    cr_assert_eq(unit_stats().flushes, 0);
    for (int i = 0; i < 5000; i++) {
        hak_free(p[i]);
    }
    cr_assert_geq(unit_stats().flushes, 5);
}

Test(stats, the_peak_stays_when_blocks_go)
{
    static void *p[1000];
    uint64_t peak;

    for (int i = 0; i < 1000; i++) {
        p[i] = hak_malloc(1000);
    }
    peak = unit_stats().tiny_peak_bytes;
    cr_assert_geq(peak, 1000 * 1024);
    for (int i = 0; i < 1000; i++) {
        hak_free(p[i]);
    }
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
    cr_assert_eq(unit_stats().tiny_peak_bytes, peak);
}

Test(stats, what_the_libc_names_hand_on_is_added)
{
    hak_stats_t stats;

    hak_free(haki_system_alloc(16, 10, NULL, HAK_REASON_LARGE));
    for (int n = 0; n < 3; n++) {
        haki_system_count(HAK_REASON_INIT);
        haki_system_count(HAK_REASON_LARGE);
        haki_system_count_foreign();
    }
    haki_system_count(HAK_REASON_RECURSION);
    haki_system_count(HAK_REASON_FORCED);
    haki_system_count(HAK_REASON_FORCED);
    stats = unit_stats();
    cr_assert_eq(stats.fallback_init, 3);
    cr_assert_eq(stats.fallback_recursion, 1);
    cr_assert_eq(stats.fallback_forced, 2);
    cr_assert_eq(stats.fallback_large, 4);
    cr_assert_eq(stats.fallback_aligned, 0);
    cr_assert_eq(stats.foreign_frees, 3);
}

/* ---- allocs - frees == live ---------------------------------------------------------- */

enum { THREADS = 4, KEPT = 50 };

static void *keep_some(void *arg)
{
    void **kept = arg;
    struct unit_random random = {(uintptr_t)arg};

    for (size_t i = 0; i < unit_scale(100000, 5000); i++) {
        size_t k = unit_below(&random, KEPT);

        hak_free(kept[k]);
        kept[k] = hak_malloc(1 + unit_below(&random, unit_ask(1024)));
    }
    return NULL;
}

/* Blocks and bytes that a test still holds must be what the statistics say. */
static void expect_held(size_t blocks, size_t bytes)
{
    hak_stats_t stats = unit_stats();

    cr_assert_eq(stats.tiny_allocs - stats.tiny_frees, blocks);
    cr_assert_eq(stats.tiny_live_bytes, bytes);
}

Test(stats, allocs_less_frees_are_what_is_held)
{
    static void *kept[THREADS][KEPT];
    pthread_t threads[THREADS];
    size_t blocks = 0, bytes = 0;
    hak_heap *heap = hak_heap_new(NULL);

    for (int i = 0; i < THREADS; i++) {
        threads[i] = unit_start(keep_some, kept[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        unit_join(threads[i]);
        for (int k = 0; k < KEPT; k++) {
            blocks += kept[i][k] != NULL;
            bytes += unit_block(kept[i][k]);
        }
    }
    expect_held(blocks, bytes);
    for (int i = 0; i < 100; i++) {
        cr_assert_not_null(hak_heap_malloc(heap, 64));
    }
    expect_held(blocks + 100, bytes + 6400);
    hak_heap_delete(heap);
    expect_held(blocks, bytes);
    for (int i = 0; i < THREADS; i++) {
        for (int k = 0; k < KEPT; k++) {
            hak_free(kept[i][k]);
        }
    }
    hak_trim();
    expect_held(0, 0);
}

/* Statistics are read while threads run: never nonsense. */
static atomic_bool stop;

static void *run(void *arg)
{
    void *p[100] = {NULL};
    struct unit_random random = {(uintptr_t)arg};

    while (!atomic_load(&stop)) {
        size_t k = unit_below(&random, 100);

        hak_free(p[k]);
        p[k] = hak_malloc(unit_below(&random, 1024));
    }
    for (size_t k = 0; k < 100; k++) {
        hak_free(p[k]);
    }
    return NULL;
}

Test(stats, figures_of_running_threads_make_sense)
{
    pthread_t threads[3];
    uint64_t before = 0;

    for (uintptr_t i = 0; i < 3; i++) {
        threads[i] = unit_start(run, (void *)(i + 1));
    }
    for (size_t i = 0; i < unit_scale(20000, 500); i++) {
        hak_stats_t stats = unit_stats();

        cr_assert_leq(stats.tiny_live_bytes, 3 * 101 * 1024 + 4096);
        cr_assert_leq(stats.heaps, 3);
        cr_assert_leq(stats.slabs, 400);
        cr_assert_geq(stats.tiny_frees + 400, before);
        before = stats.tiny_frees;
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++) {
        unit_join(threads[i]);
    }
}

/* ---- texts ---------------------------------------------------------------------- */

/* The value of field i, whatever its name. */
static uint64_t field(const hak_stats_t *stats, size_t i)
{
    uint64_t value;

    memcpy(&value,
           (const char *)stats + offsetof(hak_stats_t, tiny_allocs) + i * 8, 8);
    return value;
}

static void make_figures(void)
{
    for (int i = 0; i < 1000; i++) {
        cr_assert_not_null(hak_malloc((size_t)i * 2));
    }
    hak_trim();
}

Test(stats, json_has_every_figure_under_its_name)
{
    static char text[8192];
    char expected[8192];
    size_t length, at;
    hak_stats_t stats;

    make_figures();
    stats = unit_stats();
    length = hak_stats_json(text, sizeof(text));
    cr_assert_eq(length, strlen(text));
    at = (size_t)sprintf(expected, "{\"version\":%d", HAK_STATS_VERSION);
    for (size_t i = 0; i < NAMES; i++) {
        at += (size_t)sprintf(expected + at, ",\"%s\":%llu", names[i],
                              (unsigned long long)field(&stats, i));
    }
    strcpy(expected + at, "}");
    cr_assert_str_eq(text, expected);
}

Test(stats, text_has_a_line_for_every_figure)
{
    static char text[8192];
    char *line = text;
    hak_stats_t stats;

    make_figures();
    stats = unit_stats();
    cr_assert_eq(hak_stats_text(text, sizeof(text)), strlen(text));
    for (size_t i = 0; i < NAMES; i++) {
        char name[64], unit[16];
        unsigned long long value;
        int end = 0;

        cr_assert_eq(sscanf(line, "%63s %llu %15s %n", name, &value, unit,
                            &end),
                     3);
        cr_assert_str_eq(name, names[i]);
        cr_assert_eq(value, field(&stats, i));
        cr_assert_str_eq(unit, units[i]);
        cr_assert_gt(strcspn(line + end, "\n"), 10, "a help text");
        line = strchr(line, '\n') + 1;
    }
    cr_assert_eq(*line, '\0');
}

Test(stats, prometheus_has_help_type_and_value_of_every_figure)
{
    static char text[16384], expected[16384];
    size_t at = 0;
    hak_stats_t stats;

    make_figures();
    stats = unit_stats();
    cr_assert_eq(hak_stats_prometheus(text, sizeof(text)), strlen(text));
    for (size_t i = 0; i < NAMES; i++) {
        bool total = strcmp(kinds[i], "counter") == 0;
        char name[64];

        cr_assert(total || strcmp(kinds[i], "gauge") == 0);
        sprintf(name, "hakmem_%s%s", names[i], total ? "_total" : "");
        at += (size_t)sprintf(expected + at,
                              "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", name,
                              helps[i], name, kinds[i], name,
                              (unsigned long long)field(&stats, i));
    }
    cr_assert_str_eq(text, expected);
}

/* A counter never falls, whatever is freed, ended, given back or refused. */
Test(stats, counters_never_fall)
{
    hak_stats_t before = unit_stats(), after;

    for (int round = 0; round < 20; round++) {
        hak_heap *heap = hak_heap_new(NULL);

        make_figures();
        cr_assert_not_null(hak_heap_malloc(heap, 100));
        hak_heap_delete(heap);
        hak_free(hak_malloc(5000));
        after = unit_stats();
        for (size_t i = 0; i < NAMES; i++) {
            cr_assert(strcmp(kinds[i], "counter") != 0 ||
                          field(&after, i) >= field(&before, i),
                      "%s fell", names[i]);
        }
        before = after;
    }
}

/* As snprintf: the length of the whole text, a NUL in what there is. */
static void check_as_snprintf(size_t (*print)(char *, size_t))
{
    static char whole[16384], part[16384 + 16];
    size_t length = print(whole, sizeof(whole));

    cr_assert_eq(print(NULL, 0), length);
    for (size_t room = 0; room <= length + 5; room++) {
        size_t copied = room > length ? length : room - 1;

        memset(part, 0x55, sizeof(part));
        cr_assert_eq(print(part, room), length);
        if (room > 0) {
            cr_assert_eq(memcmp(part, whole, copied), 0);
            cr_assert_eq(part[copied], '\0', "room %zu", room);
        }
        for (size_t i = room; i < sizeof(part); i++) {
            cr_assert_eq(part[i], 0x55, "room %zu, byte %zu", room, i);
        }
    }
}

Test(stats, text_works_like_snprintf)
{
    make_figures();
    check_as_snprintf(hak_stats_text);
}

Test(stats, json_works_like_snprintf)
{
    make_figures();
    check_as_snprintf(hak_stats_json);
}

Test(stats, table_and_prometheus_work_like_snprintf)
{
    make_figures();
    check_as_snprintf(hak_stats_table);
    check_as_snprintf(hak_stats_prometheus);
}

/* ---- the table for people ------------------------------------------------ */

/* The line that begins with `head`, or a failure; ends before its newline. */
static void line_of(const char *head, char line[200])
{
    static char text[16384];
    const char *at = text;

    hak_stats_table(text, sizeof(text));
    while (at != NULL && strncmp(at, head, strlen(head)) != 0) {
        at = strchr(at, '\n');
        at += at != NULL;
    }
    cr_assert_not_null(at, "no line begins with '%s' in\n%s", head, text);
    snprintf(line, 200, "%.*s", (int)strcspn(at, "\n"), at);
}

Test(stats, the_table_has_a_line_for_each_lane)
{
    static const char *const lanes[] = {"tiny ", "pool ", "ace ", "huge "};
    char line[200], name[16], size[4][8];
    unsigned long long calls, frees;
    int end = 0;

    hak_free(hak_malloc(100));
    cr_assert_not_null(hak_malloc(unit_ask(1024)));
    for (int i = 0; i < 4; i++) {
        line_of(lanes[i], line);
        cr_assert_eq(sscanf(line, "%15s %llu %llu %7s %*s %7s %*s %7s %7s",
                            name, &calls, &frees, size[0], size[1], size[2],
                            size[3]),
                     7, "%s", line);
        cr_assert_leq(strlen(line), 80);
    }
    line_of("tiny ", line);
    sscanf(line, "tiny 2 1 1.0 KB 128.0 KB 128.0 KB%n", &end);
    cr_assert_eq((size_t)end, strlen(line), "%s", line);
}

/* What stands in the table for n blocks and for so many bytes. */
static void expect_words(const char *head, const char *words)
{
    char line[200];

    line_of(head, line);
    cr_assert(strstr(line, words) != NULL, "'%s' is not in: %s", words, line);
}

Test(stats, sizes_and_numbers_are_for_people)
{
    static const struct {
        size_t size;
        const char *words;
    } sizes[] = {
        {1, " 1 B;"},
        {1023, " 1023 B;"},
        {1024, " 1.0 KB;"},
        {1536, " 1.5 KB;"},
        {(1 << 20) - 1, " 1023.9 KB;"},
        {1 << 20, " 1.0 MB;"},
        {(1 << 20) * 7 / 4, " 1.7 MB;"},
    };

    expect_words("system ", "0 blocks live, 0 B;");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        void *p = haki_system_alloc(16, sizes[i].size, NULL, HAK_REASON_LARGE);

        expect_words("system ", "   1 blocks live,");
        expect_words("system ", sizes[i].words);
        hak_free(p);
    }
    for (int n = 1; n <= 1234567; n++) {
        haki_system_count_foreign();
        if (n == 999) {
            expect_words("others ", " 999 foreign");
        } else if (n == 1000) {
            expect_words("others ", " 1,000 foreign");
        }
    }
    expect_words("others ", " 1,234,567 foreign");
}

Test(stats, the_table_tells_why_requests_were_handed_on)
{
    for (int reason = 0; reason < HAK_REASONS; reason++) {
        for (int n = 0; n < reason * 1000 + 1; n++) {
            haki_system_count((enum hak_reason)reason);
        }
    }
    expect_words("         init",
                 "init 1, recursion 1,001, forced 2,001, large 3,001, "
                 "aligned 4,001, memory 5,001, exited 6,001");
}

/* ---- HAKMEM_SHOW_STATS ---------------------------------------------------- */

/* Ends as a program does; `text` is HAKMEM_SHOW_STATS. */
static void end_showing(void *text)
{
    setenv("HAKMEM_SHOW_STATS", text, 1);
    haki_option_test_reload();
    hak_free(hak_malloc(100));
    exit(0);
}

static struct unit_child child;

static size_t count(const char *text, const char *part)
{
    size_t n = 0;

    for (; (text = strstr(text, part)) != NULL; text++) {
        n++;
    }
    return n;
}

Test(stats, a_program_that_is_asked_to_shows_a_table_as_it_ends)
{
    unit_child(&child, end_showing, (void *)"1");
    cr_assert_eq(child.status, 0);
    cr_assert_eq(strncmp(child.said, "HAKMEM " HAK_VERSION_STRING ": ", 14), 0,
                 "%s", child.said);
    cr_assert_eq(count(child.said, "HAKMEM"), 1);
    cr_assert_eq(count(child.said, "\ntiny "), 1);
    cr_assert_eq(count(child.said, " refused by a limit\n"), 1);
}

Test(stats, a_program_that_is_asked_to_shows_json_or_prometheus)
{
    unit_child(&child, end_showing, (void *)"json");
    cr_assert_eq(count(child.said, "{\"version\":1,\"tiny_allocs\":1,"), 1);
    cr_assert_str_eq(strchr(child.said, '}'), "}\n");
    unit_child(&child, end_showing, (void *)"prometheus");
    cr_assert_eq(count(child.said, "\nhakmem_"), NAMES, "%s", child.said);
    cr_assert_eq(child.said[strlen(child.said) - 1], '\n');
}

Test(stats, a_program_that_is_not_asked_shows_nothing)
{
    unit_expect_said(end_showing, (void *)"0", "");
}

/* By hand, then as it ends; and a child, by hand, likewise. */
static void show_often(void *arg)
{
    pid_t pid;

    (void)arg;
    setenv("HAKMEM_SHOW_STATS", "1", 1);
    haki_option_test_reload();
    errno = 77;
    haki_stats_report(STDERR_FILENO);
    NEED(errno == 77);
    haki_stats_report(STDERR_FILENO);
    pid = fork();
    if (pid != 0) {
        NEED(waitpid(pid, NULL, 0) == pid);
    }
    haki_stats_report(STDERR_FILENO);
    exit(0);
}

Test(stats, a_process_shows_its_figures_once_and_a_forked_child_its_own)
{
    unit_child(&child, show_often, NULL);
    cr_assert_eq(count(child.said, "HAKMEM"), 2, "%s", child.said);
}
