/*
 * range_walk.h - core/range/range_walk.c's walk over all superslabs. The first broken
 * promise ends the process with a line naming it.
 */
#ifndef RANGE_WALK_H
#define RANGE_WALK_H

#include "range/range_walk.h"
#include "range/slabs.h"
#include "range/supers.h"
#include "range/superslabs.h"
#include "unit.h"

/* The first superslab that can be taken: before it are the tags. */
UNIT uint32_t first_super(void)
{
    return unit_first_slab() / (uint32_t)HAK_SUPER_SLABS;
}

/* Call it while no other thread takes or gives. */
UNIT void range_check(void)
{
    haki_lock_take(&haki_supers.lock);
    NEED(haki_supers.tags == first_super());
    haki_range_walk(true);
    haki_lock_drop(&haki_supers.lock);
}

#endif /* RANGE_WALK_H */
