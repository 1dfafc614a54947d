/*
 * pool_pages.c - tests of pages of partly used spans that go back.
 */
#include "range/purge.h"
#include "pages_check.h"
#include "pool_check.h"
#include "unit.h"

TestSuite(pool_pages, .timeout = 300);

static struct hak_pool *pool;

static size_t sweep(bool all)
{
    size_t bytes;

    haki_pool_busy(pool, true);
    bytes = haki_pool_sweep(pool, all);
    haki_pool_busy(pool, false);
    pool_check_quick(pool);
    pages_check_sum();
    return bytes;
}

static void put(void *p)
{
    haki_pool_free(pool, haki_pool_class_at(p), p);
}

/* Takes n blocks and writes to all of each. */
static void take(char **blocks, size_t n, unsigned class)
{
    for (size_t i = 0; i < n; i++) {
        blocks[i] = haki_pool_alloc(pool, class);
        NEED(blocks[i] != NULL);
        unit_fill(blocks[i], haki_pool_classes[class].block, (unsigned)i);
    }
}

static void check_kept(char **blocks, size_t n, unsigned class)
{
    for (size_t i = 0; i < n; i++) {
        NEED(blocks[i] == NULL ||
             unit_filled(blocks[i], haki_pool_classes[class].block,
                         (unsigned)i));
    }
}

/* Frees all blocks but each `nth`. */
static void thin_out(char **blocks, size_t n, size_t nth)
{
    for (size_t i = 0; i < n; i++) {
        if (i % nth != 0) {
            put(blocks[i]);
            blocks[i] = NULL;
        }
    }
    haki_pool_trim(pool);
}

static size_t resident_of(const struct hak_pool *of)
{
    size_t sum = 0;

    for (uint32_t n = of->all; n != HAK_NO_SLAB;
         n = haki_range_slab(n)->all_next) {
        sum += unit_resident(haki_range_slab_start(n),
                             haki_range_slab(n)->slabs * HAK_SLAB_SIZE);
    }
    return sum * HAK_PAGE;
}

Test(pool_pages, what_is_in_use_stays_what_is_free_goes)
{
    enum { COUNT = 200, NTH = 7 };
    static char *blocks[COUNT];
    uint32_t id;

    pool = pool_new(&id);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        size_t live = (COUNT + NTH - 1) / NTH;
        /* Each block in use touches so many pages at the most. */
        size_t pages = haki_pool_classes[c].block / HAK_PAGE + 2;
        uint64_t purged = pages_purged();
        size_t before, bytes;

        take(blocks, COUNT, c);
        before = haki_range_resident_bytes();
        thin_out(blocks, COUNT, NTH);
        haki_range_purge();
        bytes = sweep(true);
        cr_assert_gt(bytes, 0);
        cr_assert_geq(pages_purged() - purged, bytes);
        cr_assert_leq(haki_range_resident_bytes(), before - bytes);
        cr_assert_leq(resident_of(pool), live * pages * HAK_PAGE, "class %u",
                      c);
        check_kept(blocks, COUNT, c);
        cr_assert_eq(sweep(true), 0, "nothing goes twice");
        for (size_t i = 0; i < COUNT; i += NTH) {
            put(blocks[i]);
        }
        haki_pool_trim(pool);
        pool_check(pool);
        cr_assert_eq(pool->nslabs, 0);
        pages_check_sum();
        haki_range_purge();
        pages_check_sum();
        cr_assert_eq(haki_range_resident_bytes(), 0);
    }
}

Test(pool_pages, blocks_of_pages_that_went_are_given_out_again)
{
    enum { COUNT = 300, NTH = 10 };
    static char *blocks[COUNT], *more[COUNT];
    uint32_t id;

    pool = pool_new(&id);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c += 4) {
        uint32_t slabs;

        take(blocks, COUNT, c);
        slabs = pool->nslabs;
        thin_out(blocks, COUNT, NTH);
        sweep(true);
        take(more, COUNT - COUNT / NTH, c);
        pool_check(pool);
        pages_check_sum();
        cr_assert_leq(pool->nslabs, slabs + HAK_SPAN_MOST);
        check_kept(blocks, COUNT, c);
        check_kept(more, COUNT - COUNT / NTH, c);
        for (size_t i = 0; i < COUNT - COUNT / NTH; i++) {
            put(more[i]);
        }
        for (size_t i = 0; i < COUNT; i += NTH) {
            put(blocks[i]);
        }
        haki_pool_trim(pool);
    }
    cr_assert_eq(pool->nslabs, 0);
    pages_check_sum();
}

/* What is not all takes only what was free at the last look already. */
Test(pool_pages, what_was_freed_just_now_waits, .disabled = HAK_HARD)
{
    enum { COUNT = 64 };
    static char *blocks[COUNT];
    unsigned class = haki_pool_class_for(4096);
    uint32_t id;

    pool = pool_new(&id);
    take(blocks, COUNT, class);
    thin_out(blocks, COUNT, 8);
    cr_assert_eq(sweep(false), 0);
    cr_assert_eq(sweep(false), (COUNT - COUNT / 8) * HAK_PAGE);
    cr_assert_eq(sweep(false), 0);
    check_kept(blocks, COUNT, class);
    put(blocks[0]);
    haki_pool_trim(pool);
    cr_assert_eq(sweep(false), 0);
    cr_assert_eq(sweep(false), HAK_PAGE);
}

/* A span that was taken warm gives back what it has not used. */
Test(pool_pages, what_was_never_given_out_goes)
{
    unsigned class = haki_pool_class_for(2048);
    static char *blocks[32];
    uint32_t id;
    char *p;

    pool = pool_new(&id);
    pool->shelves[class].use = HAK_POOL_FULL; /* slabs of any warmth will do */
    take(blocks, 32, class);
    for (size_t i = 0; i < 32; i++) {
        put(blocks[i]);
    }
    haki_pool_trim(pool);
    take(&p, 1, class);
    cr_assert_eq(resident_of(pool), HAK_SLAB_SIZE, "else there is no test");
    cr_assert_gt(sweep(true), 0);
    cr_assert_leq(resident_of(pool), 2 * HAK_PAGE);
    check_kept(&p, 1, class);
    take(blocks, 31, class);
    pool_check(pool);
    check_kept(blocks, 31, class);
    check_kept(&p, 1, class);
    pages_check_sum();
}

/* Random use, a sweep every few steps: contents are kept, lists are whole. */
Test(pool_pages, random_use)
{
    enum { SLOTS = 400 };
    static char *blocks[SLOTS];
    static unsigned class[SLOTS];
    struct unit_random random = {12};
    uint32_t id;

    pool = pool_new(&id);
    for (size_t i = 0; i < unit_scale(60000, 3000); i++) {
        size_t slot = unit_below(&random, SLOTS);

        if (blocks[slot] != NULL) {
            NEED(unit_filled(blocks[slot], haki_pool_classes[class[slot]].block,
                             (unsigned)slot));
            put(blocks[slot]);
            blocks[slot] = NULL;
        } else if (unit_below(&random, 1000) <
                   (i / 4000 % 2 != 0 ? 200 : 900)) {
            class[slot] = (unsigned)unit_below(&random, HAK_POOL_CLASSES);
            blocks[slot] = haki_pool_alloc(pool, class[slot]);
            NEED(blocks[slot] != NULL);
            unit_fill(blocks[slot], haki_pool_classes[class[slot]].block,
                      (unsigned)slot);
        }
        if (i % 37 == 0) {
            haki_pool_busy(pool, true);
            haki_pool_sweep(pool, i % 2 == 0);
            haki_pool_busy(pool, false);
        }
        if (i % 500 == 0) {
            haki_pool_trim(pool);
            sweep(true);
        }
    }
    pool_check(pool);
}
