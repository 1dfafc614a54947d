/*
 * resident.c - tests of hak_heap_resident: it counts what was touched of a
 * heap's own blocks, in every lane, and no other heap's.
 */
#include "heap/heap.h"
#include "front/lane.h"
#include "os/os.h"
#include "unit.h"

TestSuite(resident, .timeout = 300);

static hak_heap *new_heap(void)
{
    hak_heap *heap = hak_heap_new(NULL);

    NEED(heap != NULL);
    return heap;
}

/* `count` blocks of `size` bytes, written to. */
static void fill(hak_heap *heap, char **p, size_t count, size_t size)
{
    for (size_t i = 0; i < count; i++) {
        p[i] = hak_heap_malloc(heap, size);
        NEED(p[i] != NULL);
        memset(p[i], 1, size);
    }
}

Test(resident, an_empty_heap_is_its_state)
{
    hak_heap *heap = new_heap();

    cr_expect_geq(hak_heap_resident(heap), HAK_PAGE);
    cr_expect_leq(hak_heap_resident(heap), HAK_HEAP_SLOT);
    hak_heap_delete(heap);
}

/*
 * A slab's rest and what the ladder makes resident ahead is all there may be
 * besides.
 */
Test(resident, what_was_written_to_in_every_lane)
{
    static const size_t sizes[] = {64, 1000, 5000, 40000, 100000, 3000000};
    enum { MOST = 4000 };
    static char *p[MOST];

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        hak_heap *heap = new_heap(), *other = new_heap();
        size_t count = haki_min(MOST, 4 * HAK_MIB / sizes[i]);
        size_t empty = hak_heap_resident(other), now;

        fill(heap, p, count, sizes[i]);
        now = hak_heap_resident(heap);
        cr_expect_geq(now, count * sizes[i], "%zu B: %zu", sizes[i], now);
        cr_expect_leq(now, count * sizes[i] + count * sizes[i] / 2 + HAK_MIB,
                      "%zu B: %zu", sizes[i], now);
        cr_expect_eq(hak_heap_resident(other), empty, "another heap's");
        for (size_t k = 0; k < count; k++) {
            hak_heap_free(heap, p[k]);
        }
        hak_heap_trim(heap);
        cr_expect_leq(hak_heap_resident(heap), HAK_HEAP_SLOT + HAK_SLAB_SIZE,
                      "%zu B: freed", sizes[i]);
        hak_heap_delete(heap);
        hak_heap_delete(other);
    }
}

/* The same, by a look at every slab. */
static size_t by_tags(const hak_heap *heap)
{
    uint32_t end = (uint32_t)(haki_range.size >> HAK_SLAB_SHIFT);
    size_t sum = haki_os_resident((void *)(uintptr_t)heap, HAK_HEAP_SLOT);

    for (uint32_t n = 1; n < end; n++) {
        if (HAK_TAG_HEAP(haki_range_tag((size_t)n << HAK_SLAB_SHIFT)) ==
            heap->tiny.id) {
            sum += haki_os_resident(haki_range_slab_start(n), HAK_SLAB_SIZE);
        }
    }
    return sum;
}

/* Of heaps with few slabs and of one with many: their sums are the same. */
Test(resident, one_of_many_heaps)
{
    enum { HEAPS = 40, BLOCKS = 3000 };
    static char *p[BLOCKS];
    hak_heap *heaps[HEAPS];

    for (int i = 0; i < HEAPS; i++) {
        heaps[i] = new_heap();
        fill(heaps[i], p, i == 7 ? BLOCKS : 5 + (size_t)i, 40 + (size_t)i * 70);
        fill(heaps[i], p, i == 7 ? BLOCKS : 3, 1500 + (size_t)i * 1000);
    }
    for (int i = 0; i < HEAPS; i++) {
        cr_expect_eq(hak_heap_resident(heaps[i]), by_tags(heaps[i]), "%d", i);
        haki_heap_seal_slabs(heaps[i]);
        cr_expect_eq(hak_heap_resident(heaps[i]), by_tags(heaps[i]),
                     "%d, sealed", i);
    }
    for (int i = 0; i < HEAPS; i++) {
        hak_heap_delete(heaps[i]);
    }
}

/* A block that nobody has touched is not in memory. */
Test(resident, blocks_that_were_not_touched)
{
    hak_heap *heap = new_heap();
    char *ace = hak_heap_malloc(heap, HAK_MIB);
    char *huge = hak_heap_malloc(heap, 16 * HAK_MIB);
    size_t before = hak_heap_resident(heap);

    UNIT_SKIP_IF_WATCHED("pages are resident as the checker likes");
    cr_expect_lt(before, HAK_MIB);
    memset(ace, 1, HAK_MIB / 2);
    memset(huge + 8 * HAK_MIB, 1, HAK_MIB);
    /* gcc 10 takes writes that nobody reads away. */
    __asm__ volatile("" : : "r"(ace), "r"(huge) : "memory");
    cr_expect_geq(hak_heap_resident(heap), before + HAK_MIB + HAK_MIB / 2);
    hak_heap_delete(heap);
}

/* Runs and blocks of an owner, in order, of several superslabs. */
Test(resident, next)
{
    enum { COUNT = 30 };
    char *ace[COUNT], *at = NULL, *before = NULL;
    size_t bytes;
    bool zero;
    int n;

    hak_free(hak_malloc(1));
    for (int i = 0; i < COUNT; i++) {
        ace[i] = haki_ace_alloc(100, HAK_PAGE, 5 + i % 2, &zero);
        cr_assert_not_null(ace[i]);
        if (i < 6) {
            cr_assert_not_null(haki_huge_alloc(3 * HAK_MIB, 1, 5 + i % 2,
                                               &zero));
        }
    }
    for (n = 0; (at = haki_ace_next(6, at, &bytes)) != NULL; n++) {
        cr_expect_gt(at, before);
        cr_expect_eq(bytes, 100 * HAK_PAGE);
        before = at;
    }
    cr_expect_eq(n, COUNT / 2);
    before = NULL;
    for (n = 0; (at = haki_huge_next(5, at, &bytes)) != NULL; n++) {
        cr_expect_gt(at, before);
        cr_expect_eq(bytes, 3 * HAK_MIB);
        before = at;
    }
    cr_expect_eq(n, 3);
    haki_ace_free_owner(5);
    haki_ace_free_owner(6);
    cr_expect_null(haki_ace_next(6, NULL, &bytes));
    cr_expect_null(haki_ace_next(5, ace[3], &bytes));
}
