/*
 * allowance.c - tests of the bound on what a heap keeps free, all of its bins
 * together: in bulk, in any order, in every lane, and what a busy heap keeps.
 */
#include "range/allowance.h"
#include "clock.h"
#include "block.h"
#include "pool_check.h"
#include "heap/thread.h"
#include "tiny_check.h"
#include "unit.h"

TestSuite(allowance, .init = clock_stop, .timeout = 300);

enum { COUNT = 40000 };

static void *blocks[COUNT];

/* Bytes in the bins of a heap, counted one by one. */
static size_t kept(const struct hak_heap *heap)
{
    const struct hak_tiny *tiny = &heap->tiny;
    size_t bytes = 0;

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        for (const struct hak_block *p = tiny->bins[c].head; p != NULL;
             p = haki_link_get(p)) {
            bytes += haki_tiny_size[c];
        }
        bytes += tiny->shelves[c].spare_count * (size_t)haki_tiny_size[c];
    }
    for (unsigned c = 0; heap->pool != NULL && c < HAK_POOL_CLASSES; c++) {
        void *const *stack = &heap->pool->stacks[c * heap->pool->places];
        size_t count = (size_t)(heap->pool->top[c] - stack) - 1;

        bytes += count * haki_pool_classes[c].block;
    }
    return heap->runs != NULL ? bytes + heap->runs->held * HAK_PAGE : bytes;
}

static size_t slabs(const struct hak_heap *heap)
{
    return heap->tiny.nslabs + (heap->pool != NULL ? heap->pool->nslabs : 0);
}

static void fill(size_t count, size_t most)
{
    uint64_t state = 7;

    for (size_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        blocks[i] = hak_malloc(16 + (state >> 33) % (most - 16));
    }
}

static void shuffle(size_t count)
{
    uint64_t state = 11;

    for (size_t i = 1; i < count; i++) {
        size_t other;
        void *p = blocks[i];

        state = state * 6364136223846793005u + 1442695040888963407u;
        other = (state >> 33) % (i + 1);
        blocks[i] = blocks[other];
        blocks[other] = p;
    }
}

/* Everything freed: what is left is little, in few slabs. */
static void expect_little(void)
{
    struct hak_heap *heap = haki_self;

    cr_assert_leq(kept(heap), 2 * HAK_KEEP_LEAST, "%zu", kept(heap));
    cr_assert_leq(slabs(heap), 24, "%zu slabs", slabs(heap));
    tiny_check(&heap->tiny);
    if (heap->pool != NULL) {
        pool_check(heap->pool);
    }
}

static void free_all(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        hak_free(blocks[i]);
        if (i % 1000 == 0) {
            /* That is what was seen; bins have as much again before a look. */
            size_t most = (size_t)haki_keep_most(&haki_self->tiny.allow);

            cr_assert_leq(kept(haki_self), 2 * most + 1024 * HAK_KIB,
                          "%zu of %zu after %zu", kept(haki_self), most, i);
        }
    }
}

Test(allowance, a_bulk_of_many_sizes_goes_back_while_it_is_freed)
{
    fill(COUNT, 1000);
    free_all(COUNT);
    expect_little();
}

Test(allowance, in_random_order_as_well)
{
    fill(COUNT, 1000);
    shuffle(COUNT);
    free_all(COUNT);
    expect_little();
}

Test(allowance, with_the_sizes_of_pool)
{
    size_t count = unit_scale(10000, 4000);

    fill(count, 8192);
    shuffle(count);
    free_all(count);
    expect_little();
}

Test(allowance, statistics_tell_bins_from_what_is_in_use)
{
    hak_stats_t stats;

    fill(10000, 4000);
    free_all(5000);
    stats = unit_stats();
    cr_assert_eq(stats.kept_bytes, kept(haki_self));
    for (size_t i = 5000; i < 10000; i++) {
        hak_free(blocks[i]);
    }
    stats = unit_stats();
    cr_assert_eq(stats.tiny_live_bytes + stats.pool_live_bytes, 0);
    cr_assert_eq(stats.kept_bytes, kept(haki_self));
    hak_trim();
    cr_assert_eq(unit_stats().kept_bytes, 0);
}

Test(allowance, runs_of_ace_count)
{
    for (size_t i = 0; i < 16; i++) {
        blocks[i] = hak_malloc(200000);
    }
    for (size_t i = 0; i < 16; i++) {
        hak_free(blocks[i]);
    }
    cr_assert_leq(haki_self->runs->held * HAK_PAGE, HAK_KEEP_LEAST);
}

/* The same 500 KB come and go: they stay in the bins. */
Test(allowance, a_busy_heap_keeps_what_it_needs_again)
{
    uint64_t flushes;

    for (int i = 0; i < 200; i++) {
        fill(1000, 1000);
        for (size_t k = 0; k < 1000; k++) {
            hak_free(blocks[k]);
        }
    }
    flushes = haki_self->tiny.flushes;
    for (int i = 0; i < 50; i++) {
        fill(1000, 1000);
        for (size_t k = 0; k < 1000; k++) {
            hak_free(blocks[k]);
        }
    }
    cr_assert_leq(haki_self->tiny.flushes, flushes + 10);
    cr_assert_leq(kept(haki_self), HAK_EXTRA_MOST);
    /* But not through a bulk. */
    fill(COUNT, 1000);
    free_all(COUNT);
    expect_little();
}

/* An explicit heap keeps in proportion to its own size. */
Test(allowance, a_small_heap_keeps_little)
{
    hak_heap *heap = hak_heap_new(NULL);

    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < 300; i++) {
            blocks[i] = hak_heap_malloc(heap, 100 + 13 * i);
        }
        for (size_t i = 0; i < 300; i++) {
            hak_heap_free(heap, blocks[i]);
        }
    }
    cr_assert_leq(kept(heap), 5 * HAK_KEEP_LEAST_FRUGAL, "%zu", kept(heap));
    cr_assert_leq(slabs(heap), 8, "%zu slabs", slabs(heap));
    hak_heap_trim(heap);
    cr_assert_eq(kept(heap), 0);
    cr_assert_eq(slabs(heap), 0);
    hak_heap_delete(heap);
}
