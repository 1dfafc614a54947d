/*
 * range_check.h - what the tests of the range share: slabs by their place, and
 * the walk of range_walk.h.
 */
#ifndef RANGE_CHECK_H
#define RANGE_CHECK_H

#include "range_walk.h"
#include "range/slabs.h"
#include "range/supers.h"
#include "unit.h"

/* ---- slabs by their place ------------------------------------------------ */

/*
 * The tests count slabs from 1: number - unit_first_slab() + 1. 0: none. They
 * take them as Tiny unless they say otherwise.
 */
UNIT uint32_t number_of(uint32_t i)
{
    return unit_first_slab() + i - 1;
}

/* Takes a span of `count` slabs; where it begins, or 0. */
UNIT uint32_t take_span(uint32_t count, enum hak_lane lane)
{
    uint32_t number =
        haki_range_slabs_take(count, lane, HAK_CLASS_ANY, HAK_SLABS_ALL);

    NEED(number == HAK_NO_SLAB || number >= unit_first_slab());
    return number == HAK_NO_SLAB ? 0 : number - unit_first_slab() + 1;
}

UNIT uint32_t take(void)
{
    return take_span(1, HAK_LANE_TINY);
}

UNIT uint32_t take_one(void)
{
    uint32_t i = take();

    NEED(i != 0);
    return i;
}

UNIT void give(uint32_t i)
{
    haki_range_slabs_give(number_of(i), 1, HAK_LANE_TINY);
}

UNIT struct hak_slab *slab(uint32_t i)
{
    return haki_range_slab(number_of(i));
}

UNIT char *start(uint32_t i)
{
    return haki_range_slab_start(number_of(i));
}

/* As haki_range_ready, for a single slab. */
UNIT bool ready(uint32_t i, size_t need, size_t step)
{
    return haki_range_ready(number_of(i), 1, need, step);
}

UNIT void set_tag(uint32_t i, uint32_t tag)
{
    haki_range_set_tag(number_of(i), tag);
}

UNIT uint32_t tag_at(uint32_t i, size_t offset)
{
    return haki_range_tag(((size_t)number_of(i) << HAK_SLAB_SHIFT) + offset);
}

UNIT struct hak_range_counts figures_now(void)
{
    struct hak_range_counts counts;

    haki_range_counts(&counts);
    return counts;
}

#endif /* RANGE_CHECK_H */
