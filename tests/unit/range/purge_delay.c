/*
 * purge_delay.c - tests that memory goes back by itself: after a peak in any
 * lane a little activity, of any lane, brings the resident memory down; not
 * before HAKMEM_PURGE_DELAY; at once by hak_trim. Each case is a process of
 * its own, since the option is read once. Nothing depends on exact times.
 */
#include <time.h>

#include "clock.h"
#include "front/lane.h"
#include "unit.h"

TestSuite(purge_delay, .timeout = 300);

enum { PEAK = 100, BLOCKS = 400000, PATIENCE = 20000 /* ms */ };

static char *blocks[BLOCKS];
static size_t block_count;

/* Sizes from `least` up to `most`. */
struct band {
    const char *name;
    size_t least, most;
};

static const struct band bands[] = {
    {"Tiny", 16, 1024},
    {"Pool", 1025, 53248},
    {"ACE", 53249, 2097151},
    {"Huge", 2097152, 20000000},
};

static void nap(void)
{
    struct timespec ms = {0, 1000000};

    nanosleep(&ms, NULL);
}

/* PEAK MB of blocks, all written to. */
static void peak(const struct band *band)
{
    struct unit_random random = {band->least};
    size_t sum = 0;

    for (block_count = 0; sum < PEAK * HAK_MIB; block_count++) {
        size_t size =
            band->least + unit_below(&random, band->most - band->least + 1);
        char *p = hak_malloc(size);

        NEED(block_count < BLOCKS && hak_owns(p));
        memset(p, 1, size);
        blocks[block_count] = p;
        sum += size;
    }
}

static void drop_all(void)
{
    for (size_t i = 0; i < block_count; i++) {
        hak_free(blocks[i]);
    }
}

/* A few blocks of about `size` bytes come and go. */
static void activity(size_t size)
{
    void *p[3];

    for (size_t i = 0; i < 3; i++) {
        p[i] = hak_malloc(size);
        NEED(p[i] != NULL);
    }
    for (int i = 0; i < 3; i++) {
        hak_free(p[i]);
    }
    nap();
}

/* Activity until no more than `most` bytes are resident; false: never. */
static bool comes_down(size_t size, size_t most)
{
    for (int ms = 0; ms < PATIENCE; ms++) {
        activity(size);
        if (ms % 16 == 0 && unit_rss() <= most) {
            return true;
        }
    }
    return false;
}

struct scene {
    const struct band *band;
    size_t activity;
    const char *delay;
};

static size_t begin(const struct scene *scene)
{
    size_t base;

    memset(blocks, 0, sizeof(blocks));
    setenv("HAKMEM_PURGE_DELAY", scene->delay, 1);
    activity(scene->activity);
    base = unit_rss();
    peak(scene->band);
    NEED(unit_rss() >= base + (PEAK - 5) * HAK_MIB);
    return base;
}

/* After all is freed, below 20 MB more than at the beginning. */
static void comes_and_goes(void *arg)
{
    const struct scene *scene = arg;
    size_t base = begin(scene);

    drop_all();
    NEED(comes_down(scene->activity, base + 20 * HAK_MIB));
}

static void expect_down(size_t size, const char *delay)
{
    for (size_t i = 0; i < 4; i++) {
        struct scene scene = {&bands[i], size, delay};
        struct unit_child child;

        unit_child(&child, comes_and_goes, &scene);
        cr_assert(child.status == 0, "%s, activity of %zu B: %s", bands[i].name,
                  size, child.said);
    }
}

Test(purge_delay, a_peak_goes_back_while_small_blocks_come_and_go)
{
    UNIT_SKIP_IF_WATCHED("their resident memory is not ours");
    expect_down(60, "100");
}

Test(purge_delay, a_peak_goes_back_while_pool_blocks_come_and_go)
{
    UNIT_SKIP_IF_WATCHED("their resident memory is not ours");
    expect_down(3000, "100");
}

Test(purge_delay, a_peak_goes_back_while_runs_come_and_go)
{
    UNIT_SKIP_IF_WATCHED("their resident memory is not ours");
    expect_down(100000, "100");
}

Test(purge_delay, a_peak_goes_back_with_no_delay)
{
    UNIT_SKIP_IF_WATCHED("their resident memory is not ours");
    expect_down(60, "0");
}

/* Every second run is freed: the holes between go back. */
static void half_goes(void *arg)
{
    const struct scene *scene = arg;
    size_t base = begin(scene);

    for (size_t i = 0; i < block_count; i += 2) {
        hak_free(blocks[i]);
    }
    NEED(comes_down(scene->activity, base + PEAK * HAK_MIB * 2 / 3));
    for (size_t i = 1; i < block_count; i += 2) {
        NEED(blocks[i][0] == 1);
        hak_free(blocks[i]);
    }
}

Test(purge_delay, holes_go_back_whatever_the_activity)
{
    static const size_t sizes[] = {60, 3000, 100000};

    UNIT_SKIP_IF_WATCHED("their resident memory is not ours");
    for (int i = 0; i < 3; i++) {
        struct scene scene = {&bands[HAK_LANE_ACE], sizes[i], "100"};
        struct unit_child child;

        unit_child(&child, half_goes, &scene);
        cr_assert(child.status == 0, "activity of %zu B: %s", sizes[i],
                  child.said);
    }
}

/* ---- not before the delay; at once -------------------------------------------------- */

static void stays(void *arg)
{
    const struct scene *scene = arg;

    begin(scene);
    drop_all();
    for (int ms = 0; ms < 300; ms++) {
        activity(scene->activity);
    }
    NEED(unit_stats().purges == 0);
    /* hak_trim does not wait. */
    NEED(hak_trim() >= (PEAK - 5) * HAK_MIB);
    NEED(unit_stats().resident_bytes == 0);
}

Test(purge_delay, nothing_goes_back_before_the_delay)
{
    UNIT_SKIP_IF_WATCHED("their resident memory is not ours");
    for (size_t i = 0; i < 3; i++) { /* Huge blocks go at once */
        struct scene scene = {&bands[i], 60, "3600000"};
        struct unit_child child;

        unit_child(&child, stays, &scene);
        cr_assert(child.status == 0, "%s: %s", bands[i].name, child.said);
    }
}

static void trims(void *arg)
{
    const struct scene *scene = arg;
    size_t base = begin(scene);

    drop_all();
    hak_trim();
    NEED(unit_rss() <= base + 8 * HAK_MIB);
    NEED(unit_stats().resident_bytes == 0);
    NEED(unit_stats().slabs == 0);
}

Test(purge_delay, trim_gives_all_back_at_once)
{
    UNIT_SKIP_IF_WATCHED("their resident memory is not ours");
    for (size_t i = 0; i < 4; i++) {
        struct scene scene = {&bands[i], 60, "3600000"};
        struct unit_child child;

        unit_child(&child, trims, &scene);
        cr_assert(child.status == 0, "%s: %s", bands[i].name, child.said);
    }
}

/* The same as the statistics tell it, where others watch our memory, too. */
Test(purge_delay, trim_counts_what_goes_back)
{
    clock_stop(); /* else some may go back before */
    for (size_t i = 0; i < 4; i++) {
        size_t before = unit_stats().purged_bytes, sum = 0;

        for (block_count = 0; sum < 4 * HAK_MIB; block_count++) {
            size_t size = bands[i].least + block_count % 16;

            blocks[block_count] = hak_malloc(size);
            memset(blocks[block_count], 1, size);
            sum += size;
        }
        drop_all();
        cr_assert_geq(hak_trim(), sum, "%s", bands[i].name);
        cr_assert_geq(unit_stats().purged_bytes, before + sum);
        cr_assert_eq(unit_stats().resident_bytes, 0);
    }
}

/* ---- explicit heaps ---------------------------------------------------------------- */

/* A peak in a heap that lives on, and activity in that heap alone. */
static void heap_comes_and_goes(void *arg)
{
    const struct scene *scene = arg;
    hak_heap *heap;
    size_t base, n = 0;

    setenv("HAKMEM_PURGE_DELAY", scene->delay, 1);
    heap = hak_heap_new(NULL);
    memset(blocks, 0, sizeof(blocks));
    base = unit_rss();
    for (size_t sum = 0; sum < PEAK * HAK_MIB; sum += scene->band->least) {
        blocks[n] = hak_heap_malloc(heap, scene->band->least);
        NEED(hak_owns(blocks[n]));
        memset(blocks[n++], 1, scene->band->least);
    }
    for (size_t i = 0; i < n; i++) {
        hak_heap_free(heap, blocks[i]);
    }
    for (int ms = 0; ms < PATIENCE; ms++) {
        void *p = hak_heap_malloc(heap, scene->activity);

        nap();
        hak_heap_free(heap, p);
        if (unit_rss() <= base + 20 * HAK_MIB) {
            return;
        }
    }
    NEED(!"it came down");
}

Test(purge_delay, a_heap_s_peak_goes_back)
{
    static const struct band sizes[] = {
        {"Tiny", 600, 0}, {"Pool", 9000, 0}, {"ACE", 90000, 0}};
    static const size_t active[] = {60, 3000};

    UNIT_SKIP_IF_WATCHED("their resident memory is not ours");
    for (int i = 0; i < 6; i++) {
        struct scene scene = {&sizes[i % 3], active[i / 3], "100"};
        struct unit_child child;

        unit_child(&child, heap_comes_and_goes, &scene);
        cr_assert(child.status == 0, "%s, activity of %zu B: %s",
                  scene.band->name, scene.activity, child.said);
    }
}
