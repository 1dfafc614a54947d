/*
 * haste.c - tests of heaps that are expected to end soon: who is one, how many there
 * are, what they cost, and what becomes of one that goes on.
 */
#include "heap/haste.h"

#include <limits.h>

#include "api/embed_heap.h"
#include "api/inside.h"
#include "clock.h"
#include "tiny/tiny_bin.h"
#include "unit.h"

TestSuite(haste, .init = clock_stop, .timeout = 300);

enum { MOST = 8, ROW = 16, BLOCKS = 300, OLD = 150 };

static struct hak_heap *state_new(void)
{
    struct hak_heap *heap = haki_embed_new(HAK_EMBED_STATE, "a state");

    NEED(heap != NULL);
    return heap;
}

/* 30 KB of all sizes, made and freed. */
static void work(struct hak_heap *heap)
{
    void *p[BLOCKS];

    for (int i = 0; i < BLOCKS; i++) {
        p[i] = hak_heap_malloc(heap, (size_t)(16 + i % 24 * 8));
        NEED(p[i] != NULL);
    }
    for (int i = 0; i < BLOCKS; i++) {
        hak_heap_free(heap, p[i]);
    }
}

static void short_lives(int n)
{
    for (int i = 0; i < n; i++) {
        struct hak_heap *heap = state_new();

        work(heap);
        hak_heap_delete(heap);
    }
}

static struct hak_heap *hasty_new(void)
{
    struct hak_heap *heap;

    short_lives(ROW);
    heap = state_new();
    NEED(heap->tiny.hasty);
    return heap;
}

static long faults(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

Test(haste, a_state_is_packed_where_none_has_ended_early)
{
    struct hak_heap *heap = state_new(), *other;

    cr_expect(heap->tiny.packed && !heap->tiny.hasty);
    clock_pass(OLD);
    hak_heap_delete(heap);
    other = state_new();
    cr_expect(other->tiny.packed && !other->tiny.hasty);
    hak_heap_delete(other);
}

Test(haste, explicit_heaps_and_pools_are_none_and_do_not_count)
{
    struct hak_heap *heap;

    for (int i = 0; i < 2 * ROW; i++) {
        hak_heap_delete(hak_heap_new(NULL));
        hak_heap_delete(haki_embed_new(HAK_EMBED_POOL, "a pool"));
    }
    heap = state_new();
    cr_expect(heap->tiny.packed && !heap->tiny.hasty);
    hak_heap_delete(heap);
    heap = hasty_new();
    hak_heap_delete(heap);
    heap = haki_embed_new(HAK_EMBED_POOL, "a pool");
    cr_expect(heap->tiny.packed && !heap->tiny.hasty);
    hak_heap_delete(heap);
}

Test(haste, a_few_early_ends_make_the_next_ones_hasty_and_they_sweep_nothing)
{
    struct hak_heap *heap = hasty_new();
    uint64_t sweeps = atomic_load(&haki_test_sweeps);

    cr_expect(!heap->tiny.packed);
    work(heap);
    cr_expect_eq(atomic_load(&haki_test_sweeps), sweeps);
    hak_heap_delete(heap);
}

Test(haste, the_next_one_finds_the_pages_of_the_last_one)
{
    long least = LONG_MAX;

    hak_heap_delete(hasty_new());
    for (int i = 0; i < 10; i++) { /* another thread's fault may come between */
        long before = faults();

        short_lives(ROW);
        least = faults() - before < least ? faults() - before : least;
    }
    cr_expect_leq(least, 2, "%ld faults of %d heaps", least, ROW);
}

Test(haste, no_more_than_so_many_are_hasty_until_one_is_deleted)
{
    struct hak_heap *heaps[3 * MOST];
    int hasty = 1;

    heaps[0] = hasty_new();
    for (int i = 1; i < 3 * MOST; i++) {
        heaps[i] = state_new();
        hasty += heaps[i]->tiny.hasty;
        cr_expect(heaps[i]->tiny.hasty != heaps[i]->tiny.packed);
    }
    cr_expect_eq(hasty, MOST);
    for (int i = 0; i < 3 * MOST; i++) {
        hak_heap_delete(heaps[i]);
    }
    heaps[0] = hasty_new(); /* the places are there again */
    hak_heap_delete(heaps[0]);
}

Test(haste, one_that_goes_on_is_packed_and_gives_back_what_it_frees)
{
    struct hak_heap *heap = hasty_new();
    void *kept = hak_heap_malloc(heap, 100);

    work(heap);
    clock_pass(OLD);
    for (int i = 0; i < 4; i++) {
        work(heap);
    }
    cr_expect(heap->tiny.packed && heap->tiny.hasty);
    cr_expect_lt(haki_tiny_grain_resident(&heap->tiny), 32 * HAK_KIB);
    cr_expect_lt(haki_kept(&heap->tiny.allow), (int64_t)(32 * HAK_KIB));
    cr_expect_eq(heap->tiny.allow.extra, 0);
    hak_heap_free(heap, kept);
    hak_heap_trim(heap);
    cr_expect_eq(heap->tiny.nslabs, 0);
    hak_heap_delete(heap);
}

Test(haste, a_late_end_and_a_pause_end_it)
{
    struct hak_heap *old, *heap;

    hak_heap_delete(hasty_new());
    clock_pass(OLD);
    heap = state_new(); /* the last early end is long ago */
    cr_expect(!heap->tiny.hasty);
    hak_heap_delete(heap);
    for (int i = 0; i < 5; i++) {
        old = state_new();
        clock_pass(OLD);
        hak_heap_delete(old);
    }
    short_lives(1);
    heap = state_new();
    cr_expect(!heap->tiny.hasty);
    hak_heap_delete(heap);
}
