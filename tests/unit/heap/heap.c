/*
 * heap.c - tests of heaps' slots, their beginning and end, what they count.
 */
#include "heap/heap.h"

#include "os/os.h"
#include "heap/thread.h"
#include "range/slots.h"
#include "tiny_check.h"
#include "unit.h"

TestSuite(heap, .timeout = 300);

Test(heap, create_gives_an_empty_heap_in_its_slot)
{
    struct hak_heap *heap = haki_heap_create(HAK_HEAP_OWNED);
    struct hak_heap *made = haki_heap_create(HAK_HEAP_EXPLICIT);

    cr_assert_eq(heap, haki_range_heap(heap->tiny.id));
    cr_assert_eq(made, haki_range_heap(made->tiny.id));
    cr_assert_eq(atomic_load(&heap->state), HAK_HEAP_OWNED);
    cr_assert_eq(atomic_load(&made->state), HAK_HEAP_EXPLICIT);
    cr_assert_not(heap->tiny.sent_at_once || heap->tiny.accounted);
    cr_assert(made->tiny.sent_at_once && made->tiny.accounted);
    cr_assert_not(haki_is_frugal(&heap->tiny.allow));
    cr_assert(haki_is_frugal(&made->tiny.allow));
    cr_assert_eq(heap->limit, SIZE_MAX);
    cr_assert_eq(heap->gate, SIZE_MAX);
    tiny_check(&heap->tiny);
    tiny_check(&made->tiny);
    haki_heap_destroy(heap);
    cr_assert_eq(atomic_load(&made->state), HAK_HEAP_EXPLICIT);
    haki_heap_destroy(made);
}

Test(heap, a_refused_slot_is_null)
{
    cr_assert(haki_range_init());
    haki_os_test_refuse(1, false);
    cr_assert_null(haki_heap_create(HAK_HEAP_EXPLICIT));
    cr_assert_eq(unit_stats().heaps, 0);
    cr_assert_not_null(haki_heap_create(HAK_HEAP_EXPLICIT));
    cr_assert_eq(unit_stats().heaps, 1);
}

/* What a heap had counted stays in the sums when it ends. */
Test(heap, counts_outlive_the_heap)
{
    struct hak_heap *heap = haki_heap_create(HAK_HEAP_EXPLICIT);
    struct hak_heap_counts counts;
    hak_stats_t stats;
    uint64_t refills;
    void *p[10], *q[6];

    for (unsigned i = 0; i < 10; i++) {
        p[i] = haki_tiny_alloc(&heap->tiny, i);
    }
    haki_heap_use_large(heap);
    for (unsigned i = 0; i < 6; i++) {
        q[i] = haki_pool_alloc(heap->pool, i);
    }
    for (unsigned i = 0; i < 4; i++) {
        haki_tiny_free(&heap->tiny, i, p[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        haki_pool_free(heap->pool, i, q[i]);
    }
    hak_free(p[4]);
    hak_free(q[2]);
    haki_tiny_collect(&heap->tiny);
    haki_pool_collect(heap->pool);
    haki_heap_count(heap, &counts);
    cr_assert_eq(counts.tiny.allocs, 10);
    cr_assert_eq(counts.tiny.frees, 5);
    cr_assert_eq(counts.tiny.live_bytes, 48 + 56 + 64 + 72 + 80);
    cr_assert_eq(counts.pool.allocs, 6);
    cr_assert_eq(counts.pool.frees, 3);
    cr_assert_eq(counts.pool.live_bytes, 1536 + 1664 + 1792);
    cr_assert_eq(counts.remote_frees, 2);
    stats = unit_stats();
    cr_assert_eq(stats.tiny_allocs, 10);
    cr_assert_eq(stats.tiny_frees, 5);
    cr_assert_eq(stats.tiny_live_bytes, 48 + 56 + 64 + 72 + 80);
    cr_assert_eq(stats.pool_allocs, 6);
    cr_assert_eq(stats.pool_frees, 3);
    cr_assert_eq(stats.pool_live_bytes, 1536 + 1664 + 1792);
    cr_assert_eq(stats.remote_frees, 2);
    refills = stats.refills;
    haki_heap_destroy(heap);
    stats = unit_stats();
    cr_assert_eq(stats.tiny_allocs, 10);
    cr_assert_eq(stats.tiny_frees, 10);
    cr_assert_eq(stats.tiny_live_bytes, 0);
    cr_assert_eq(stats.pool_allocs, 6);
    cr_assert_eq(stats.pool_frees, 6);
    cr_assert_eq(stats.pool_live_bytes, 0);
    cr_assert_eq(stats.tiny_held_bytes, 0);
    cr_assert_eq(stats.pool_held_bytes, 0);
    cr_assert_eq(stats.remote_frees, 2);
    cr_assert_eq(stats.refills, refills);
    cr_assert_eq(stats.slabs, 0);
    cr_assert_eq(stats.heaps, 1, "the thread's, which has freed two blocks");
    cr_assert_eq(haki_self->tiny.nslabs, 0);
}

Test(heap, the_rest_of_the_page_is_the_maker_s_and_zero)
{
    for (int round = 0; round < 3; round++) {
        hak_heap *heap = hak_heap_new(NULL);
        unsigned char *extra = haki_heap_extra(heap);

        cr_assert_geq(HAK_HEAP_EXTRA, 384);
        cr_assert_eq((uintptr_t)extra % 64, 0);
        cr_assert_eq((uintptr_t)(extra + HAK_HEAP_EXTRA),
                     (uintptr_t)heap + HAK_UNITS_AT);
        cr_assert_leq(HAK_HEAP_LARGE_AT + sizeof(struct hak_heap_large),
                      HAK_HEAP_SLOT);
        for (size_t i = 0; i < HAK_HEAP_EXTRA; i++) {
            cr_assert_eq(extra[i], 0);
        }
        cr_assert_null(heap->pool, "it was not used yet");
        cr_assert_null(heap->runs);
        memset(extra, 0xff, HAK_HEAP_EXTRA);
        hak_free(hak_heap_malloc(heap, 100));
        hak_free(hak_heap_malloc(heap, 2000));
        cr_assert_geq((uintptr_t)heap->pool, (uintptr_t)heap + HAK_PAGE);
        cr_assert_leq((uintptr_t)(heap->pool + 1),
                      (uintptr_t)heap + HAK_HEAP_SLOT);
        cr_assert_geq((uintptr_t)heap->runs, (uintptr_t)heap + HAK_PAGE);
        cr_assert_leq((uintptr_t)(heap->runs + 1),
                      (uintptr_t)heap + HAK_HEAP_SLOT);
        for (size_t i = 0; i < HAK_HEAP_EXTRA; i++) {
            cr_assert_eq(extra[i], 0xff);
        }
        hak_heap_delete(heap);
    }
}

Test(heap, a_slot_is_used_again)
{
    hak_heap *one = hak_heap_new(NULL);
    hak_heap *two = hak_heap_new(NULL);

    cr_assert_neq(one->tiny.id, two->tiny.id);
    hak_heap_delete(one);
    cr_assert_eq(hak_heap_new(NULL), one);
    hak_heap_delete(one);
    hak_heap_delete(two);
    cr_assert_eq(unit_stats().heaps, 0);
}

Test(heap, many_heaps_live_at_once_and_stay_apart)
{
    enum { HEAPS = 500 };
    static hak_heap *heaps[HEAPS];
    static char *blocks[HEAPS][4];

    for (unsigned i = 0; i < HEAPS; i++) {
        heaps[i] = hak_heap_new(NULL);
        for (unsigned k = 0; k < 4; k++) {
            blocks[i][k] = hak_heap_malloc(heaps[i], 40);
            unit_fill(blocks[i][k], 40, i * 4 + k);
        }
    }
    for (unsigned i = 0; i < HEAPS; i += 2) {
        hak_heap_delete(heaps[i]);
    }
    for (unsigned i = 1; i < HEAPS; i += 2) {
        for (unsigned k = 0; k < 4; k++) {
            cr_assert(unit_filled(blocks[i][k], 40, i * 4 + k));
        }
        tiny_check(&heaps[i]->tiny);
        hak_heap_delete(heaps[i]);
    }
    cr_assert_eq(unit_stats().slabs, 0);
}
