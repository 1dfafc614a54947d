/*
 * cool.c - tests of what keeps small heaps small and growing blocks cheap:
 * which slabs Pool gets, a packed slab's ladder, a heap's share for a bin,
 * copies into the large lanes.
 */
#include "front/lane.h"
#include "front/large.h"
#include "os/os.h"
#include "range/slabs.h"
#include "range_check.h"
#include "unit.h"

TestSuite(cool, .timeout = 300);

/* ---- slabs ------------------------------------------------------------------ */

/* Takes 40 slabs, makes `bytes` of slab i resident and gives it back. */
static void take_40(void)
{
    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= 40; i++) {
        cr_assert_eq(take(), i);
    }
}

static void give_with(uint32_t i, size_t bytes)
{
    cr_assert(bytes == 0 || ready(i, bytes, 0));
    give(i);
}

/* A span for Pool of which a few pages may do. */
static uint32_t take_cool(uint32_t count)
{
    uint32_t number = haki_range_slabs_take(count, HAK_LANE_POOL, HAK_CLASS_ANY,
                                            HAK_SLABS_SPARSE);

    cr_assert_geq(number, unit_first_slab());
    return number - unit_first_slab() + 1;
}

Test(cool, pool_gets_slabs_with_little_resident_tiny_the_fullest)
{
    take_40();
    give_with(5, HAK_SLAB_SIZE);
    give_with(9, 32 * HAK_KIB);
    give_with(20, 0);
    range_check();
    cr_assert_eq(take_cool(1), 9);
    cr_assert_eq(take_cool(1), 20);
    give_with(12, 40 * HAK_KIB);
    give_with(3, 36 * HAK_KIB);
    cr_assert_eq(take(), 5);
    cr_assert_eq(take(), 12);
    cr_assert_eq(take(), 3);
    range_check();
}

Test(cool, all_slabs_of_a_span_count)
{
    take_40();
    give_with(3, 16 * HAK_KIB);
    give_with(4, 20 * HAK_KIB);
    give_with(10, 0);
    give_with(11, 0);
    cr_assert_eq(take_cool(2), 10);
    range_check();
}

Test(cool, with_many_warm_slabs_idle_pool_takes_of_them)
{
    take_40();
    give_with(20, 0);
    for (uint32_t i = 5; i <= 7; i++) {
        give_with(i, HAK_SLAB_SIZE);
    }
    range_check();
    cr_assert_eq(take_cool(1), 5);
    cr_assert_eq(take_cool(1), 20); /* two are left */
    range_check();
}

/* No superslab is opened while there is a place, however warm. */
Test(cool, no_superslab_is_opened_for_it)
{
    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= HAK_SUPER_SLABS; i++) {
        cr_assert_eq(take(), i);
    }
    give_with(17, HAK_SLAB_SIZE);
    cr_assert_eq(take_cool(1), 17);
    cr_assert_eq(figures_now().committed, HAK_SUPER_SIZE);
}

/* ---- packed slabs ---------------------------------------------------------- */

Test(cool, a_packed_slab_grows_by_a_page_and_from_36_kb_on_by_8_kb)
{
    static const size_t steps[] = {4096,  8192,  12288, 16384, 20480, 24576,
                                   28672, 32768, 36864, 45056, 53248};
    hak_heap *heap = hak_heap_new(NULL);
    size_t at = 0;

    heap->tiny.packed = true;
    while (at < sizeof(steps) / sizeof(steps[0]) - 1) {
        size_t populated;

        NEED(haki_tiny_alloc(&heap->tiny, HAK_TINY_CLASSES - 1) != NULL);
        populated = haki_range_slab(heap->tiny.packed_at[0])->resident;
        if (populated != steps[at]) {
            cr_assert_eq(populated, steps[++at]);
            cr_assert_geq(heap->tiny.units * HAK_UNIT, steps[at - 1]);
        }
    }
    hak_heap_delete(heap);
}

/* ---- a heap's share ----------------------------------------------------------- */

/* The most that the bins hold while so many blocks are freed in one go. */
static int64_t most_kept(uint8_t share)
{
    enum { BLOCKS = 20000, CLASS = 7 };
    static void *blocks[BLOCKS];
    hak_heap *heap = hak_heap_new(NULL);
    int64_t most = 0;

    heap->tiny.share = heap->tiny.allow.share = share;
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = haki_tiny_alloc(&heap->tiny, CLASS);
    }
    for (int i = 0; i < BLOCKS; i++) {
        haki_tiny_free(&heap->tiny, CLASS, blocks[i]);
        most = (int64_t)haki_max((size_t)most,
                                 (size_t)haki_kept(&heap->tiny.allow));
    }
    hak_heap_delete(heap);
    return most;
}

Test(cool, a_larger_share_keeps_more_in_the_bins)
{
    cr_assert_geq(most_kept(2), 2 * most_kept(4));
}

/* ---- copies ------------------------------------------------------------------- */

static char *get(hak_heap *heap, size_t size)
{
    enum hak_reason reason;
    bool zero;
    char *p = haki_large_alloc(heap, 16, size, &zero, &reason);

    cr_assert_not_null(p);
    for (size_t i = 0; i < size; i++) {
        p[i] = (char)(i * 7 + i / 4096);
    }
    return p;
}

static bool is_copy(const char *p, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (p[i] != (char)(i * 7 + i / 4096)) {
            return false;
        }
    }
    return true;
}

Test(cool, a_run_that_outgrows_ace_leaves_no_pages)
{
    hak_heap *heap = hak_heap_new(NULL);
    size_t size = 1500 * HAK_KIB;
    enum hak_reason reason;
    char *p = get(heap, size);
    char *q = haki_large_copy(heap, p, size, 3 * HAK_MIB, &reason);

    cr_assert(is_copy(q, size));
    if (!UNIT_WATCHED) {
        cr_assert_eq(unit_resident(p, size), 0);
    }
    cr_assert(haki_large_free(heap, p));
    p = haki_large_alloc(heap, 16, size, &(bool){false}, &reason);
    cr_assert_eq(p[0], 0);
    cr_assert_eq(p[size - 1], 0);
    cr_assert(haki_large_free(heap, p));
    cr_assert(haki_large_free(heap, q));
    hak_heap_delete(heap);
}

/* It passes up a hole that fits it exactly. */
Test(cool, a_copy_that_grows_has_room_behind_it)
{
    hak_heap *heap = hak_heap_new(NULL);
    enum hak_reason reason;
    char *hole = get(heap, 200000);
    char *p = get(heap, 100000);
    char *q;

    cr_assert(haki_large_free(heap, hole));
    q = haki_large_copy(heap, p, 100000, 200000, &reason);
    cr_assert_neq(q, hole);
    cr_assert(is_copy(q, 100000));
    cr_assert(is_copy(p, 100000));
    cr_assert_eq(haki_large_resize(q, 240000), q);
    cr_assert_eq(get(heap, 200000), hole);
    hak_heap_delete(heap);
}

/* The populating of the copy's pages is refused: nothing is lost. */
Test(cool, a_refused_copy_leaves_the_block_alone)
{
    hak_heap *heap = hak_heap_new(NULL);
    size_t size = 1500 * HAK_KIB;
    char *p = get(heap, size);
    enum hak_reason reason = HAK_REASON_LARGE;
    hak_stats_t before = {.size = sizeof(before)}, after = before;

    cr_assert_eq(hak_stats(&before), 0);
    /* What was committed in one try is there in the next: each n three times. */
    for (unsigned n = 3; n < 60; n++) {
        char *q;

        haki_os_test_refuse(n / 3, true);
        q = haki_large_copy(heap, p, size, 3 * HAK_MIB, &reason);
        haki_os_test_refuse(0, false);
        if (q != NULL) {
            cr_assert_gt(n, 7, "no call could be refused");
            cr_assert(is_copy(q, size));
            hak_heap_delete(heap);
            return;
        }
        cr_assert_eq(reason, HAK_REASON_MEMORY);
        cr_assert(is_copy(p, size));
        cr_assert_eq(hak_stats(&after), 0);
        cr_assert_eq(after.huge_live_bytes, before.huge_live_bytes);
    }
    cr_assert_fail("never enough calls");
}

/* Without the lane's lock, and without room behind it. */
Test(cool, a_block_that_grows_into_ace_takes_the_cache_s_run)
{
    char *run = hak_malloc(60 * HAK_KIB), *p = hak_malloc(40000);

    unit_fill(p, 40000, 3);
    hak_free(run);
    p = hak_realloc(p, 60 * HAK_KIB);
    cr_assert_eq(p, run);
    cr_assert(unit_filled(p, 40000, 3));
    hak_free(p);
}
