/*
 * tiny_pages.c - tests of pages of partly used slabs that go back, and of the
 * blocks of such pages, which come again.
 */
#include "heap/heap.h"
#include "os/os.h"
#include "range/purge.h"
#include "range/slabs.h"
#include "tiny/tiny_seal.h"
#include "pages_check.h"
#include "tiny_check.h"
#include "tiny/tiny_slab.h"
#include "unit.h"

TestSuite(tiny_pages, .timeout = 300);

static struct hak_tiny *tiny;

static size_t sweep(void)
{
    size_t bytes;

    haki_tiny_busy(tiny, true);
    bytes = haki_tiny_sweep(tiny);
    haki_tiny_busy(tiny, false);
    tiny_check(tiny);
    pages_check_sum();
    return bytes;
}

/* Takes n blocks and writes to all of each. */
static void take(char **blocks, size_t n, unsigned class)
{
    for (size_t i = 0; i < n; i++) {
        blocks[i] = haki_tiny_alloc(tiny, class);
        NEED(blocks[i] != NULL);
        unit_fill(blocks[i], haki_tiny_size[class], (unsigned)i);
    }
}

static void check_kept(char **blocks, size_t n, unsigned class)
{
    for (size_t i = 0; i < n; i++) {
        NEED(blocks[i] == NULL ||
             unit_filled(blocks[i], haki_tiny_size[class], (unsigned)i));
    }
}

static int by_address(const void *a, const void *b)
{
    const char *const *one = a, *const *other = b;

    return *one < *other ? -1 : *one > *other;
}

/* Frees all but the blocks of every `nth` page or so, and empties the bin. */
static void thin_out(char **blocks, size_t n, unsigned class, size_t nth)
{
    qsort(blocks, n, sizeof(*blocks), by_address);
    for (size_t i = 0; i < n; i++) {
        if ((uintptr_t)blocks[i] / HAK_PAGE % nth == 1) {
            unit_fill(blocks[i], haki_tiny_size[class], (unsigned)i);
        } else {
            haki_tiny_free(tiny, class, blocks[i]);
            blocks[i] = NULL;
        }
    }
    haki_tiny_trim(tiny);
}

static void free_all(char **blocks, size_t n, unsigned class)
{
    for (size_t i = 0; i < n; i++) {
        if (blocks[i] != NULL) {
            haki_tiny_free(tiny, class, blocks[i]);
        }
    }
    haki_tiny_trim(tiny);
}

static size_t resident_pages(void)
{
    size_t sum = 0;

    for (uint32_t n = tiny->all; n != HAK_NO_SLAB;
         n = haki_range_slab(n)->all_next) {
        sum += unit_resident(haki_range_slab_start(n), HAK_SLAB_SIZE);
    }
    return sum;
}

static size_t gone_blocks(void)
{
    size_t sum = 0;

    for (uint32_t n = tiny->all; n != HAK_NO_SLAB;
         n = haki_range_slab(n)->all_next) {
        sum += haki_range_slab(n)->ngone;
    }
    return sum;
}

enum { MOST = 3 * 8192 };
static char *blocks[MOST], *more[MOST];

/* Three slabs' blocks and a few. */
static size_t some(unsigned class)
{
    return 3 * HAK_SLAB_SIZE / haki_tiny_size[class];
}

Test(tiny_pages, what_is_in_use_stays_what_is_free_goes)
{
    tiny = tiny_new(false);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        uint64_t purged = pages_purged();
        size_t n = some(c), before, bytes;

        take(blocks, n, c);
        thin_out(blocks, n, c, 8);
        before = haki_range_resident_bytes();
        bytes = sweep();
        /* In each slab two pages of 16, and what touches their neighbours. */
        cr_assert_geq(bytes, 3 * 8 * HAK_PAGE, "class %u", c);
        cr_assert_eq(haki_range_resident_bytes(), before - bytes);
        cr_assert_eq(pages_purged() - purged, bytes);
        cr_assert_leq(resident_pages(), (3 + 1) * 7);
        check_kept(blocks, n, c);
        cr_assert_eq(sweep(), 0, "nothing goes twice");
        free_all(blocks, n, c);
        tiny_check(tiny);
        cr_assert_eq(tiny->nslabs, 0, "class %u", c);
        pages_check_sum();
        haki_range_purge();
        cr_assert_eq(haki_range_resident_bytes(), 0);
    }
}

Test(tiny_pages, blocks_of_pages_that_went_are_given_out_once_again)
{
    tiny = tiny_new(false);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        size_t n = some(c), gone;
        uint32_t slabs;

        take(blocks, n, c);
        slabs = tiny->nslabs;
        thin_out(blocks, n, c, 8);
        sweep();
        gone = gone_blocks();
        cr_assert_gt(gone, 0);
        take(more, gone, c);
        tiny_check(tiny);
        pages_check_sum();
        cr_assert_lt(gone_blocks(), gone);
        cr_assert_leq(tiny->nslabs, slabs + 1);
        check_kept(blocks, n, c);
        check_kept(more, gone, c);
        free_all(more, gone, c);
        free_all(blocks, n, c);
        cr_assert_eq(tiny->nslabs, 0);
    }
    pages_check_sum();
}

/* Free blocks, then new ones, and only then those of pages that are gone. */
Test(tiny_pages, pages_that_are_gone_come_last)
{
    unsigned class = haki_tiny_class_16[haki_tiny_index(64)];
    size_t n = HAK_SLAB_SIZE / 64;
    uint32_t first, gone;

    tiny = tiny_new(false);
    take(blocks, n + 1, class); /* the last one of a fresh slab */
    first = tiny_number(blocks[0]);
    thin_out(blocks, n, class, 8);
    sweep();
    cr_assert_gt(haki_range_slab(first)->ngone, 0);
    gone = haki_range_slab(first)->gone;
    while (tiny->shelves[class].fresh != HAK_NO_SLAB ||
           tiny->bins[class].head != NULL) {
        take(more, 1, class);
        cr_assert_eq(haki_range_slab(first)->gone, gone);
    }
    cr_assert_eq(tiny->shelves[class].open, first);
    take(more, 1, class);
    cr_assert_eq(tiny_number(more[0]), first);
    cr_assert_lt(haki_range_slab(first)->gone, gone);
    tiny_check(tiny);
    cr_assert_eq(tiny->nslabs, 2);
}

/* A block is freed into a slab of which all others are gone or in use. */
Test(tiny_pages, a_slab_without_a_list_gets_one_by_a_free)
{
    unsigned class = haki_tiny_class_16[haki_tiny_index(512)];
    size_t n = some(class);
    struct hak_slab *slab;

    tiny = tiny_new(false);
    take(blocks, n, class);
    thin_out(blocks, n, class, 2);
    sweep();
    slab = haki_range_slab(tiny_number(blocks[n - 1] != NULL ? blocks[n - 1]
                                                             : blocks[8]));
    cr_assert_gt(slab->ngone, 0);
    for (size_t i = 0; i < n; i++) {
        if (blocks[i] != NULL) {
            cr_assert(unit_filled(blocks[i], haki_tiny_size[class],
                                  (unsigned)i));
            haki_tiny_free(tiny, class, blocks[i]);
            blocks[i] = NULL;
            haki_tiny_trim(tiny);
            tiny_check(tiny);
        }
    }
    cr_assert_eq(tiny->nslabs, 0);
    pages_check_sum();
}

/* What touches a page that is gone is free: its neighbour can go later. */
Test(tiny_pages, a_page_beside_one_that_is_gone_goes_later)
{
    unsigned class =
        haki_tiny_class_16[haki_tiny_index(96)]; /* they lie across */
    size_t n = some(class), before;

    tiny = tiny_new(false);
    take(blocks, n, class);
    thin_out(blocks, n, class, 8);
    sweep();
    for (size_t i = 0; i < n; i++) {
        if (blocks[i] != NULL && (uintptr_t)blocks[i] / HAK_PAGE % 16 != 1) {
            haki_tiny_free(tiny, class, blocks[i]);
            blocks[i] = NULL;
        }
    }
    haki_tiny_trim(tiny);
    before = resident_pages();
    cr_assert_gt(before, 3 * 2 + 2);
    sweep();
    cr_assert_leq(resident_pages(), 3 * 2 + 2);
    check_kept(blocks, n, class);
}

/* An idle heap's slabs are looked at, and swept when nothing has changed. */
Test(tiny_pages, a_pass_sweeps_what_was_so_at_the_last)
{
    unsigned class = haki_tiny_class_16[haki_tiny_index(96)];
    size_t n = some(class), before;

    tiny = tiny_new(false);
    take(blocks, n, class);
    thin_out(blocks, n, class, 8);
    before = haki_range_resident_bytes();
    for (int pass = 0; pass < 3; pass++) {
        haki_tiny_busy(tiny, true);
        haki_tiny_sweep_begin(tiny, 1000);
        for (uint32_t now = 1000; tiny->sweep_at != 0; now += 10) {
            haki_tiny_sweep_slice(tiny, now);
        }
        haki_tiny_busy(tiny, false);
        tiny_check(tiny);
        pages_check_sum();
        cr_assert_eq(haki_range_resident_bytes() < before, pass > 0);
    }
    check_kept(blocks, n, class);
    free_all(blocks, n, class);
}

Test(tiny_pages, pages_that_the_system_refuses_stay)
{
    unsigned class = haki_tiny_class_16[haki_tiny_index(80)];
    size_t n = some(class);

    tiny = tiny_new(false);
    take(blocks, n, class);
    thin_out(blocks, n, class, 8);
    haki_os_test_kinds(HAK_OS_PURGE);
    haki_os_test_refuse(1, true);
    cr_assert_eq(sweep(), 0);
    haki_os_test_refuse(0, false);
    haki_os_test_kinds(HAK_OS_ALL);
    cr_assert_eq(gone_blocks(), 0);
    check_kept(blocks, n, class);
    take(more, n / 2, class);
    cr_assert_eq(tiny->nslabs, 3);
    tiny_check(tiny);
}

/* A sealed slab has no page that is gone but in the sum: all is counted. */
Test(tiny_pages, a_seal_counts_what_was_gone)
{
    unsigned class = haki_tiny_class_16[haki_tiny_index(112)];
    size_t n = some(class);

    tiny = tiny_new(false);
    take(blocks, n, class);
    thin_out(blocks, n, class, 8);
    sweep();
    haki_tiny_seal(tiny);
    tiny_check(tiny);
    cr_assert_eq(tiny->nsealed, 3);
    check_kept(blocks, n, class);
    pages_check_sum();
    for (size_t i = 0; i < n; i++) {
        if (blocks[i] != NULL) {
            haki_tiny_seal_free(tiny, blocks[i], haki_range_tag_of(blocks[i]));
        }
    }
    cr_assert_eq(tiny->nsealed, 0);
    tiny_check(tiny);
    pages_check_sum();
}

/* Random use, a sweep every few steps: contents are kept, lists are whole. */
Test(tiny_pages, random_use)
{
    enum { SLOTS = 6000 };
    static char *slots[SLOTS];
    static unsigned class[SLOTS];
    struct unit_random random = {7};

    tiny = tiny_new(false);
    for (size_t i = 0; i < unit_scale(400000, 20000); i++) {
        size_t slot = unit_below(&random, SLOTS);
        bool grows = i / 20000 % 2 == 0;

        if (slots[slot] != NULL) {
            NEED(unit_filled(slots[slot], haki_tiny_size[class[slot]],
                             (unsigned)slot));
            haki_tiny_free(tiny, class[slot], slots[slot]);
            slots[slot] = NULL;
        } else if (grows || unit_below(&random, 8) == 0) {
            class[slot] = (unsigned)unit_below(&random, 6) * 7;
            slots[slot] = haki_tiny_alloc(tiny, class[slot]);
            NEED(slots[slot] != NULL);
            unit_fill(slots[slot], haki_tiny_size[class[slot]], (unsigned)slot);
        }
        if (i % 300 == 0) {
            haki_tiny_busy(tiny, true);
            haki_tiny_sweep_begin(tiny, (uint32_t)i);
            haki_tiny_sweep_slice(tiny, (uint32_t)i);
            haki_tiny_busy(tiny, false);
        }
        if (i % 5000 == 0) {
            haki_tiny_trim(tiny);
            sweep();
        }
    }
    tiny_check(tiny);
    tiny_delete(tiny);
    pages_check_sum();
}
