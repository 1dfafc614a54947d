/*
 * ace_tree.c - tests of the treaps of ACE's holes: order, heap, best fit, depth.
 * They are compiled in here: the tests know their priorities.
 */
#include "../../../core/ace/ace_tree.c"

#include "range/superslabs.h"
#include "unit.h"

TestSuite(ace_tree, .timeout = 300);

enum { SUPERS = 128, MOST = SUPERS * HAK_ACE_PAGES / 16 };

static struct hak_holes holes;
static uint32_t first;       /* the first of SUPERS superslabs */
static uint32_t pages[MOST]; /* the holes that are in a treap */
static size_t count;

static void start(void)
{
    uint32_t warm;

    NEED(haki_range_init());
    first = haki_range_super_take(HAK_LANE_ACE, &warm);
    for (uint32_t i = 1; i < SUPERS; i++) {
        NEED(haki_range_super_take(HAK_LANE_ACE, &warm) == first + i);
    }
    memset(&holes, 0, sizeof(holes));
    count = 0;
}

/* The page at this place, counted from the first superslab's. */
static uint32_t page_at(size_t place)
{
    return first * (uint32_t)HAK_ACE_PAGES + (uint32_t)place;
}

static void insert(uint32_t page, uint32_t length)
{
    /* What a run that was here before left behind. */
    haki_ace_hole(page)->left = haki_ace_hole(page)->right = UINT32_MAX;
    haki_ace_hole(page)->pages = length;
    haki_hole_insert(&holes, page);
    pages[count++] = page;
}

static void drop(size_t i)
{
    haki_hole_remove(&holes, pages[i]);
    pages[i] = pages[--count];
}

/* Walks the treap of a length below `page`; returns its depth. */
static size_t walk(uint32_t length, uint32_t page, uint32_t *before,
                   size_t *seen)
{
    struct hak_hole *hole;
    size_t left, right;

    if (page == 0) {
        return 0;
    }
    hole = haki_ace_hole(page);
    NEED(hole->pages == length);
    NEED(hole->left == 0 || ace_priority(hole->left) < ace_priority(page));
    NEED(hole->right == 0 || ace_priority(hole->right) < ace_priority(page));
    left = walk(length, hole->left, before, seen);
    NEED(*before < page);
    *before = page;
    NEED(++*seen <= count);
    right = walk(length, hole->right, before, seen);
    return 1 + haki_max(left, right);
}

/* All is in order; the largest depth. */
static size_t check(void)
{
    size_t seen = 0, depth = 0;

    for (uint32_t length = 1; length <= HAK_ACE_PAGES; length++) {
        uint32_t before = 0;
        bool some = (holes.some[length / 64] >> (length % 64) & 1) != 0;

        NEED(some == (holes.roots[length] != 0));
        depth =
            haki_max(depth, walk(length, holes.roots[length], &before, &seen));
    }
    NEED(seen == count);
    return depth;
}

static bool is_empty(void)
{
    static const struct hak_holes none;

    return memcmp(&holes, &none, sizeof(holes)) == 0;
}

/* What haki_hole_best should find. */
static uint32_t best(uint32_t length)
{
    uint32_t found = 0;

    for (size_t i = 0; i < count; i++) {
        uint32_t has = haki_ace_hole(pages[i])->pages;

        if (has >= length &&
            (found == 0 || has < haki_ace_hole(found)->pages ||
             (has == haki_ace_hole(found)->pages && pages[i] < found))) {
            found = pages[i];
        }
    }
    return found;
}

static void check_best(void)
{
    for (uint32_t length = 1; length <= HAK_ACE_PAGES; length += 7) {
        NEED(haki_hole_best(&holes, length) == best(length));
    }
}

Test(ace_tree, an_empty_treap_has_nothing)
{
    start();
    cr_assert_eq(haki_hole_best(&holes, 1), 0);
    insert(page_at(100), 20);
    cr_assert_eq(haki_hole_best(&holes, 20), page_at(100));
    cr_assert_eq(haki_hole_best(&holes, 21), 0);
    drop(0);
    cr_assert(is_empty());
}

Test(ace_tree, of_equal_holes_the_lowest_is_found)
{
    static const size_t places[] = {5 * 512, 512, 9 * 512,
                                    3 * 512, 64,  7 * 512};
    static const size_t order[] = {64, 512, 3 * 512, 5 * 512, 7 * 512, 9 * 512};

    start();
    for (size_t i = 0; i < 6; i++) {
        insert(page_at(places[i]), 30);
    }
    insert(page_at(0), 31); /* lower, but larger */
    for (size_t i = 0; i < 6; i++) {
        uint32_t found = haki_hole_best(&holes, 25);

        cr_assert_eq(found, page_at(order[i]));
        haki_hole_remove(&holes, found);
    }
    cr_assert_eq(haki_hole_best(&holes, 25), page_at(0));
}

Test(ace_tree, random_insertions_and_removals)
{
    struct unit_random random = {1};
    static bool used[MOST];

    start();
    for (size_t i = 0; i < unit_scale(20000, 2000); i++) {
        size_t place = unit_below(&random, i % 4000 < 2000 ? 200 : MOST);

        if (used[place]) {
            for (size_t k = 0; k < count; k++) {
                if (pages[k] == page_at(place * 16)) {
                    drop(k);
                    break;
                }
            }
        } else {
            insert(page_at(place * 16), 1 + (uint32_t)unit_below(&random, 512));
        }
        used[place] = !used[place];
        if (i % 50 == 0) {
            check();
            check_best();
        }
    }
    while (count > 0) {
        drop(unit_below(&random, count));
        if (count % 64 == 0) {
            check();
        }
    }
    cr_assert(is_empty());
}

/*
 * Holes of one length at equal distances, as a program leaves that frees every
 * second block: the treap stays flat, in whichever order they come.
 */
Test(ace_tree, regular_patterns_do_not_make_it_deep)
{
    for (size_t stride = 16; stride <= 512; stride += 1) {
        size_t total = SUPERS * HAK_ACE_PAGES / stride;

        if (stride == 16) {
            start();
        }
        memset(&holes, 0, sizeof(holes));
        count = 0;
        for (size_t i = 0; i < total; i++) {
            insert(page_at(i * stride), 15);
        }
        cr_assert_leq(check(), 45, "stride %zu: depth %zu of %zu", stride,
                      check(), total);
        cr_assert_eq(haki_hole_best(&holes, 15), page_at(0));
    }
}
