/*
 * tiny_back.c - tests of what goes back from the bins of the Tiny lane: overflow,
 * looks at what they keep, trim, release.
 */
#include "clock.h"
#include "range/purge.h"
#include "tiny_state.h"

TestSuite(tiny_back, .init = clock_stop, .timeout = 300);

/*
 * The push beyond the budget makes all but the last block the spare list; the
 * next overflow gives the spare list to the slabs.
 */
Test(tiny_back, overflow_moves_the_bin_to_spare_and_spare_to_the_slabs)
{
    struct hak_tiny *tiny = tiny_new(false);
    unsigned c = class_of(1024);
    void *blocks[200];
    size_t freed = 0, returned = 0;
    size_t cap;

    for (size_t i = 0; i < 200; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    haki_tiny_trim(tiny); /* an empty bin with its full budget */
    cap = (size_t)tiny->bins[c].left;
    cr_assert_lt(3 * cap, 200);
    for (; freed < cap; freed++) {
        haki_tiny_free(tiny, c, blocks[freed]);
        cr_assert_null(tiny->bins[c].spare);
    }
    cr_assert_eq(tiny->flushes, 0);
    haki_tiny_free(tiny, c, blocks[freed++]);
    cr_assert_eq(tiny->flushes, 1);
    cr_assert_eq(tiny->shelves[c].spare_count, cap);
    cr_assert_eq(tiny->bins[c].spare, blocks[cap - 1]);
    cr_assert_eq(tiny->bins[c].head, blocks[cap]);
    cr_assert_null(haki_link_get(tiny->bins[c].head));
    tiny_check(tiny);
    for (; tiny->flushes < 2; freed++) {
        haki_tiny_free(tiny, c, blocks[freed]);
    }
    for (size_t i = 0; i < 200; i += 64) {
        returned += slab_of(blocks[i])->nfree;
    }
    cr_assert_eq(returned, cap);
    cr_assert_eq(haki_tiny_live(tiny, c), 200 - freed);
    tiny_check(tiny);
    tiny_delete(tiny);
}

/* A bin that was filled must take some pushes before it overflows. */
Test(tiny_back, a_filled_bin_takes_half_its_budget)
{
    struct hak_tiny *tiny = tiny_new(false);
    int32_t budget[HAK_TINY_CLASSES];

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        budget[c] = tiny->bins[c].left;
    }
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        for (size_t i = 0; i < 3 * 65536u / haki_tiny_size[c]; i++) {
            uint64_t refills = tiny->refills;

            cr_assert_not_null(haki_tiny_alloc(tiny, c));
            if (tiny->refills != refills) {
                cr_assert_geq(tiny->bins[c].left, budget[c] / 2);
            }
        }
    }
    tiny_check(tiny);
    tiny_delete(tiny);
}

/*
 * Every bin is looked at once in a while, also if it never holds much: what it
 * holds is then counted anew and nothing is flushed.
 */
Test(tiny_back, a_bin_is_looked_at_after_so_many_pushes)
{
    struct hak_tiny *tiny = tiny_new(false);

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c += 7) {
        void *p = haki_tiny_alloc(tiny, c);
        int32_t budget = tiny->bins[c].left;
        size_t held = head_count(tiny, c);

        haki_tiny_free(tiny, c, p);
        for (int look = 0; look < 3; look++) {
            int32_t left = tiny->bins[c].left;

            for (int32_t i = 0; i < left; i++) {
                haki_tiny_free(tiny, c, haki_tiny_alloc(tiny, c));
            }
            cr_assert_eq(tiny->bins[c].left, 0);
            tiny_check(tiny);
            haki_tiny_free(tiny, c, haki_tiny_alloc(tiny, c));
            cr_assert_geq(tiny->bins[c].left, budget / 2);
            cr_assert_eq(head_count(tiny, c), held + 1);
            tiny_check(tiny);
        }
        cr_assert_eq(haki_tiny_live(tiny, c), 0);
    }
    cr_assert_eq(tiny->flushes, 0);
    tiny_delete(tiny);
}

/*
 * A share of the heap, once in the head and once in spare, and no more than a
 * large heap's bin takes between two looks.
 */
Test(tiny_back, what_a_bin_keeps_grows_with_the_heap)
{
    unsigned c = class_of(64);
    size_t count = unit_scale(500000, 200000);
    void **blocks = calloc(count, sizeof(void *));
    struct hak_tiny *tiny;
    size_t first, budget, most = 0;

    setenv("HAKMEM_PURGE_DELAY", "3600000", 1); /* nothing by time */
    tiny = tiny_new(false);
    first = (size_t)tiny->bins[c].left;
    for (size_t i = 0; i < count; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    haki_tiny_trim(tiny);
    cr_assert_gt(tiny->nslabs, HAK_TINY_LARGE);
    cr_assert_eq(tiny->bins[c].left, GRANT_LARGE);
    budget = tiny->nslabs * HAK_SLAB_SIZE / 16 / 64;
    for (size_t i = 0; i < count; i++) {
        haki_tiny_free(tiny, c, blocks[i]);
        most = haki_max(most, head_count(tiny, c));
        cr_assert_lt(head_count(tiny, c), budget + GRANT_LARGE);
        cr_assert_lt(tiny->shelves[c].spare_count, budget + GRANT_LARGE);
    }
    cr_assert_gt(most, 2 * first, "the heap must be big enough to matter");
    cr_assert_geq(most, budget / 2);
    tiny_check(tiny);
    cr_assert_leq(tiny->nslabs, 2 * budget / 1024 + 3);
    /* Used again while it is small, the bin comes back to its first size. */
    for (int i = 0; i < 3; i++) {
        haki_tiny_trim(tiny);
    }
    cr_assert_eq(tiny->nslabs, 0);
    cr_assert(tiny->waiting, "slabs wait to go back");
    for (int i = 0; i < 20; i++) { /* looks that are far from each other */
        clock_pass(BUSY_TIME + 10);
        tiny->shelves[c].base -= (uint32_t)tiny->bins[c].left;
        tiny->bins[c].left = 0;
        haki_tiny_free(tiny, c, haki_tiny_alloc(tiny, c));
    }
    cr_assert_leq((size_t)tiny->bins[c].left, GRANT_WAITING);
    haki_range_purge();
    haki_tiny_free(tiny, c, haki_tiny_alloc(tiny, c));
    haki_tiny_tick(tiny);
    haki_tiny_trim(tiny);
    cr_assert_not(tiny->waiting);
    cr_assert_eq((size_t)tiny->bins[c].left, first);
    free(blocks);
    tiny_delete(tiny);
}

/* Pushes blocks of a class until its bin has been looked at. */
static void push_to_look(struct hak_tiny *tiny, unsigned c)
{
    for (int32_t i = tiny->bins[c].left; i >= 0; i--) {
        haki_tiny_free(tiny, c, haki_tiny_alloc(tiny, c));
    }
}

/* What a busy time left in the bins is found when little happens after it. */
Test(tiny_back, a_large_heap_that_is_quiet_is_looked_at_sooner)
{
    unsigned c = class_of(64), other = class_of(1024);
    size_t count = 100000; /* more than HAK_TINY_LARGE slabs */
    void **blocks = calloc(count, sizeof(void *));
    struct hak_tiny *tiny;

    setenv("HAKMEM_PURGE_DELAY", "3600000", 1);
    tiny = tiny_new(false);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    push_to_look(tiny, c);
    cr_assert_not(tiny->quiet);
    cr_assert_gt(tiny->bins[c].left, QUIET_PUSHES);
    cr_assert_gt(tiny->bins[other].left, QUIET_PUSHES);
    clock_pass(QUIET_TIME + 20);
    push_to_look(tiny, c);
    cr_assert(tiny->quiet);
    cr_assert_leq(tiny->bins[c].left, QUIET_PUSHES);
    cr_assert_leq(tiny->bins[other].left, QUIET_PUSHES, "every bin");
    tiny_check(tiny);
    push_to_look(tiny, other);
    cr_assert_not(tiny->quiet, "much happens again");
    push_to_look(tiny, c);
    cr_assert_gt(tiny->bins[c].left, QUIET_PUSHES);
    /* A small heap is not asked whether it is quiet. */
    clock_pass(QUIET_TIME + 20);
    push_to_look(tiny, c);
    cr_assert(tiny->quiet);
    for (size_t i = 0; i < count; i++) {
        haki_tiny_free(tiny, c, blocks[i]);
    }
    haki_tiny_trim(tiny);
    haki_range_purge();
    clock_pass(QUIET_TIME + 20);
    push_to_look(tiny, other);
    cr_assert_not(tiny->quiet);
    free(blocks);
    tiny_delete(tiny);
}

Test(tiny_back, trim_keeps_blocks_in_use_and_can_be_repeated)
{
    struct hak_tiny *tiny = tiny_new(false);
    char *blocks[1000];

    for (unsigned i = 0; i < 1000; i++) {
        blocks[i] = haki_tiny_alloc(tiny, i % HAK_TINY_CLASSES);
        unit_fill(blocks[i], haki_tiny_size[i % HAK_TINY_CLASSES], i);
    }
    for (int round = 0; round < 3; round++) {
        haki_tiny_trim(tiny);
        tiny_check(tiny);
        for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
            cr_assert_null(tiny->bins[c].head);
            cr_assert_null(tiny->bins[c].spare);
            cr_assert_eq(haki_tiny_live(tiny, c), 25);
        }
    }
    for (unsigned i = 0; i < 1000; i++) {
        cr_assert(unit_filled(blocks[i], haki_tiny_size[i % HAK_TINY_CLASSES],
                              i));
        haki_tiny_free(tiny, i % HAK_TINY_CLASSES, blocks[i]);
    }
    haki_tiny_trim(tiny);
    tiny_check(tiny);
    cr_assert_eq(tiny->nslabs, 0);
    tiny_delete(tiny);
}

Test(tiny_back, release_gives_every_slab_back_whatever_is_in_use)
{
    struct hak_tiny *one = tiny_new(false);
    struct hak_tiny *two = tiny_new(false);
    char *kept = haki_tiny_alloc(two, 9);

    unit_fill(kept, haki_tiny_size[9], 5);
    for (unsigned i = 0; i < 30000; i++) {
        haki_tiny_alloc(one, i % HAK_TINY_CLASSES);
    }
    cr_assert_eq(slabs_used(), one->nslabs + 1);
    haki_tiny_release(one);
    cr_assert_eq(slabs_used(), 1);
    cr_assert_eq(one->nslabs, 0);
    cr_assert(unit_filled(kept, haki_tiny_size[9], 5));
    haki_tiny_release(one);
    cr_assert_eq(slabs_used(), 1);
    tiny_check(two);
    tiny_delete(two);
}

Test(tiny_back, hold_keeps_every_freed_block_in_its_bin)
{
    struct hak_tiny *tiny = tiny_new(false);
    unsigned c = class_of(1024);
    void *blocks[500];
    uint64_t flushes;
    uint32_t slabs;

    for (size_t i = 0; i < 500; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    flushes = tiny->flushes;
    slabs = tiny->nslabs;
    for (int i = 0; i < 5; i++) { /* it is set, not added to */
        haki_tiny_hold(tiny);
        cr_assert_eq(tiny->bins[c].left, INT32_MAX / 2);
        tiny_check(tiny);
    }
    for (size_t i = 0; i < 500; i++) {
        haki_tiny_free(tiny, c, blocks[i]);
    }
    tiny_check(tiny);
    cr_assert_eq(tiny->flushes, flushes);
    cr_assert_eq(tiny->nslabs, slabs);
    cr_assert_eq(haki_tiny_live(tiny, c), 0);
    tiny_delete(tiny);
    cr_assert_eq(slabs_used(), 0);
}
