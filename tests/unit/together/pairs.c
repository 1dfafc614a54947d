/*
 * pairs.c - tests of malloc and free in turn on an explicit heap: it is not swept
 * over and over, and what a heap leaves that is then left alone is still little.
 */
#include "clock.h"
#include "heap/heap.h"
#include "unit.h"

TestSuite(pairs, .init = clock_stop, .timeout = 300);

enum { PAIRS = 2000, SWEEPS = 24, LIVE = 6000 };

static const size_t sizes[] = {16,    24,    64,    200,   512,    1000,
                               1500,  2500,  5000,  9000,  15000,  20000,
                               33000, 50000, 52000, 60000, 100000, 300000};
static const size_t lives[] = {0, 1, 10, 30, 100, 300, 1000, 6000};

static void *live[LIVE];

/* Sweeps of `turns` times `count` blocks of a size that are taken and freed. */
static uint64_t sweeps(hak_heap *heap, size_t size, size_t count, size_t turns)
{
    uint64_t before = haki_test_sweeps;
    void *blocks[16];

    NEED(count <= 16);
    for (size_t n = 0; n < turns; n++) {
        for (size_t i = 0; i < count; i++) {
            blocks[i] = hak_heap_malloc(heap, size);
            NEED(blocks[i] != NULL);
        }
        for (size_t i = 0; i < count; i++) {
            hak_heap_free(heap, blocks[i]);
        }
    }
    return haki_test_sweeps - before;
}

static void try_pairs(bool packed, size_t nlive, size_t size, size_t count)
{
    hak_heap *heap = hak_heap_new(NULL);
    uint64_t n, more;

    NEED(heap != NULL);
    heap->tiny.packed = packed;
    for (size_t i = 0; i < nlive; i++) {
        live[i] = hak_heap_malloc(heap, 64);
        NEED(live[i] != NULL);
    }
    n = sweeps(heap, size, count, PAIRS);
    more = sweeps(heap, size, count, PAIRS);
    cr_assert(n <= SWEEPS && more == 0,
              "%zu live, %zu times %zu bytes, packed: %d: %lu sweeps, then %lu",
              nlive, count, size, packed, (unsigned long)n,
              (unsigned long)more);
    hak_heap_delete(heap);
}

static void try_all(bool packed, size_t count)
{
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t k = 0; k < sizeof(lives) / sizeof(lives[0]); k++) {
            try_pairs(packed, lives[k], sizes[i], count);
        }
    }
}

Test(pairs, a_block_in_turn_is_not_swept_for)
{
    try_all(false, 1);
}

Test(pairs, a_block_in_turn_is_not_swept_for_in_a_packed_heap)
{
    try_all(true, 1);
}

/* After many pairs a fall from far above still gives back what it leaves. */
Test(pairs, a_fall_after_pairs_is_swept)
{
    hak_heap *heap = hak_heap_new(NULL);

    NEED(heap != NULL);
    sweeps(heap, 5000, 1, PAIRS);
    for (size_t round = 0; round < 10; round++) {
        uint64_t before = haki_test_sweeps;

        for (size_t i = 0; i < LIVE; i++) {
            live[i] = hak_heap_malloc(heap, 16 + i % 1000);
            NEED(live[i] != NULL);
        }
        for (size_t i = 0; i < LIVE; i++) {
            if (i % 100 != 0) {
                hak_heap_free(heap, live[i]);
            }
        }
        cr_assert_gt(haki_test_sweeps, before);
        for (size_t i = 0; i < LIVE; i += 100) {
            hak_heap_free(heap, live[i]);
        }
    }
    hak_heap_delete(heap);
}
