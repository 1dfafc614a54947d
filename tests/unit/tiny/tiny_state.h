/*
 * tiny_state.h - what the tests of a Tiny state ask of it: for tiny.c, tiny_back.c and
 * tiny_slab.c.
 */
#ifndef TINY_STATE_H
#define TINY_STATE_H

#include "tiny/tiny.h"
#include "range/slabs.h"
#include "tiny_check.h"
#include "unit.h"

/*
 * As in core/tiny/tiny.c: pushes between two looks while memory waits to go, and in
 * a large heap.
 */
enum { GRANT_WAITING = 32, GRANT_LARGE = 512, QUIET_PUSHES = 8 };
enum { QUIET_TIME = 50, BUSY_TIME = 10 }; /* milliseconds */

UNIT unsigned class_of(size_t size)
{
    return haki_tiny_class_16[haki_tiny_index(size)];
}

UNIT size_t slabs_used(void)
{
    struct hak_range_counts counts;

    haki_range_counts(&counts);
    return counts.slabs_used;
}

UNIT struct hak_slab *slab_of(const void *p)
{
    return haki_range_slab(tiny_number(p));
}

/* The head list's count, by its counters. */
UNIT size_t head_count(const struct hak_tiny *tiny, unsigned class)
{
    const struct hak_shelf *shelf = &tiny->shelves[class];
    const struct hak_bin *bin = &tiny->bins[class];

    return shelf->base - (uint32_t)bin->left -
           (uint32_t)haki_bin_pops(tiny, class);
}

#endif
