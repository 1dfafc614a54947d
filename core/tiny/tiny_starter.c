/*
 * tiny_starter.c - pages of the starter slab go back to the system.
 *
 * A run of the starter slab (tiny.h) of which all blocks are loose is
 * dissolved: its blocks leave their list and its units are as if never carved,
 * for runs of any class. Those at the end make `starter_used` less, the others
 * are holes. The pages that only such units lie on go back.
 *
 *     never carved --carve--> run --all blocks loose, a sweep--> never carved
 */
#include <string.h>

#include "range/pages.h"
#include "tiny/tiny_slab.h"

#define NEVER 0xff /* what starter_class says of a unit that is in no run */
#define PAGE_UNITS (HAK_PAGE / HAK_STARTER_UNIT)

static uint32_t unit_of(const void *p)
{
    return (uint32_t)(((uintptr_t)p & (HAK_SLAB_SIZE - 1)) / HAK_STARTER_UNIT);
}

/* The first unit of the run that `unit` is of. */
static uint32_t run_of(const struct hak_tiny *tiny, uint32_t unit)
{
    while ((tiny->starter_class[unit] & HAK_STARTER_RUN) == 0) {
        unit--;
    }
    return unit;
}

/* The units of the run that begins at `unit`. */
static uint32_t units_of(const struct hak_tiny *tiny, uint32_t unit)
{
    uint32_t end = unit + 1;

    while (end < tiny->starter_used &&
           (tiny->starter_class[end] & HAK_STARTER_RUN) == 0) {
        end++;
    }
    return end - unit;
}

/* How many blocks of each run are loose, in its first unit's place. */
static void count_loose(const struct hak_tiny *tiny,
                        uint8_t count[HAK_STARTER_UNITS])
{
    memset(count, 0, HAK_STARTER_UNITS);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        for (const struct hak_block *block = hak_tiny_loose(tiny, c);
             block != NULL; block = hak_link_get(block)) {
            count[run_of(tiny, unit_of(block))]++;
        }
    }
}

/* Marks the units of runs that are free as a whole; whether there are any. */
static bool mark_free(const struct hak_tiny *tiny,
                      bool is_free[HAK_STARTER_UNITS])
{
    uint8_t count[HAK_STARTER_UNITS];
    bool any = false;
    uint32_t units;

    count_loose(tiny, count);
    for (uint32_t at = 0; at < tiny->starter_used; at += units) {
        unsigned class = tiny->starter_class[at] & ~HAK_STARTER_RUN;
        bool whole;

        units = units_of(tiny, at);
        HAK_ASSERT(tiny->starter_class[at] == NEVER ||
                   count[at] * hak_tiny_size[class] <=
                       units * HAK_STARTER_UNIT);
        whole = tiny->starter_class[at] != NEVER &&
                count[at] == units * HAK_STARTER_UNIT / hak_tiny_size[class];
        memset(&is_free[at], whole, units);
        any = any || whole;
    }
    return any;
}

/* The blocks of those units leave the class's list. */
static void drop_blocks(struct hak_tiny *tiny, unsigned class,
                        const bool is_free[HAK_STARTER_UNITS])
{
    struct hak_shelf *shelf = &tiny->shelves[class];
    struct hak_block *block = hak_tiny_loose(tiny, class);

    shelf->nloose = 0;
    while (block != NULL) {
        struct hak_block *next = hak_link_get(block);

        HAK_ASSERT(hak_range_number(block) == tiny->starter);
        if (!is_free[unit_of(block)]) {
            hak_link_set(block, hak_tiny_loose(tiny, class));
            shelf->loose =
                (uint16_t)(((uintptr_t)block & (HAK_SLAB_SIZE - 1)) / 8);
            shelf->nloose++;
        }
        block = next;
    }
}

static void dissolve(struct hak_tiny *tiny,
                     const bool is_free[HAK_STARTER_UNITS])
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        drop_blocks(tiny, c, is_free);
    }
    for (uint32_t at = 0; at < tiny->starter_used; at++) {
        if (is_free[at]) {
            tiny->starter_class[at] = NEVER;
            tiny->holes = true;
        }
    }
    while (tiny->starter_used > 0 &&
           tiny->starter_class[tiny->starter_used - 1] == NEVER) {
        tiny->starter_used--;
    }
    tiny->packed = true;
}

/* The pages below starter_used that no run lies on. */
static uint32_t free_pages(const struct hak_tiny *tiny)
{
    uint32_t pages = 0;

    for (uint32_t page = 0; page < tiny->starter_used / PAGE_UNITS; page++) {
        uint32_t at = page * PAGE_UNITS, end = at + PAGE_UNITS;

        while (at < end && tiny->starter_class[at] == NEVER) {
            at++;
        }
        pages |= (uint32_t)(at == end) << page;
    }
    return pages;
}

size_t hak_tiny_starter_sweep(struct hak_tiny *tiny)
{
    bool is_free[HAK_STARTER_UNITS];
    uint32_t number = tiny->starter;
    size_t bytes;

    HAK_ASSERT(tiny->starter_used <= HAK_STARTER_UNITS);
    if (mark_free(tiny, is_free)) {
        dissolve(tiny, is_free);
    }
    HAK_WALK(hak_tiny_walk_due());
    bytes =
        hak_range_pages_cut(number, 1, tiny->starter_used * HAK_STARTER_UNIT);
    return bytes + hak_range_pages_drop(number, free_pages(tiny));
}

uint32_t hak_tiny_starter_hole(struct hak_tiny *tiny, uint32_t units)
{
    uint32_t run = 0;

    for (uint32_t at = 0; at < tiny->starter_used; at++) {
        run = tiny->starter_class[at] == NEVER ? run + 1 : 0;
        if (run == units) {
            at -= units - 1;
            hak_range_pages_wake(
                tiny->starter,
                hak_slab_pages_of((size_t)at * HAK_STARTER_UNIT,
                                  (size_t)units * HAK_STARTER_UNIT),
                false);
            return at;
        }
    }
    tiny->holes = tiny->holes && units > 1;
    return HAK_STARTER_UNITS;
}
