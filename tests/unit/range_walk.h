/*
 * range_walk.h - a walk over all superslabs that verifies what core/range/supers.h
 * promises. The first broken promise ends the process with a line naming it.
 */
#ifndef RANGE_WALK_H
#define RANGE_WALK_H

#include "range/slabs.h"
#include "range/supers.h"
#include "range/superslabs.h"
#include "unit.h"

/* The first superslab that can be taken: before it are the tags. */
UNIT uint32_t first_super(void)
{
    return unit_first_slab() / (uint32_t)HAK_SUPER_SLABS;
}

/* What all superslabs come to. */
struct range_sums {
    size_t committed, used, wholes, spare, resident, rooms, foreign;
};

/* The places in a superslab where n free slabs begin. */
UNIT uint32_t range_places(const struct hak_super *super, unsigned n)
{
    uint32_t places = 0;

    for (unsigned bit = 0; bit + n <= HAK_SUPER_SLABS; bit++) {
        uint32_t run = (uint32_t)(((uint64_t)1 << n) - 1) << bit;

        places |= (super->used & run) == 0 ? (uint32_t)1 << bit : 0;
    }
    return places;
}

/* Every search begins at or below what it looks for. */
UNIT void range_check_starts(uint32_t i)
{
    const struct hak_super *super = &hak_supers.at[i];
    bool part = super->used != 0 && super->used != HAK_ALL_SLABS;

    NEED(super->used != 0 || hak_supers.low <= i);
    if (!part && super->warm == 0) {
        return;
    }
    for (unsigned n = 1; n <= HAK_SPAN_MOST; n++) {
        uint32_t places = range_places(super, n);

        NEED((places & super->warm) == 0 || hak_supers.warm_start[n] <= i);
        NEED(!part || places == 0 || hak_supers.part_start[n] <= i);
    }
}

/* The slabs of a superslab that no lane has whole; what is resident. */
UNIT size_t range_check_slabs(uint32_t i)
{
    const struct hak_super *super = &hak_supers.at[i];
    size_t resident = 0;

    NEED(super->used == 0 || super->described);
    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        uint32_t number = i * (uint32_t)HAK_SUPER_SLABS + n;
        bool used = (super->used >> n & 1) != 0;
        bool warm = (super->warm >> n & 1) != 0;
        uint32_t populated = hak_range_slab(number)->populated;

        NEED(used || hak_range_tag((size_t)number << HAK_SLAB_SHIFT) == 0);
        if (super->described) {
            NEED(populated <= HAK_SLAB_SIZE && populated % HAK_PAGE == 0);
            NEED(used || warm == (populated > 0));
            resident += populated;
        } else {
            resident += warm ? HAK_SLAB_SIZE : 0;
        }
    }
    return resident;
}

UNIT void range_check_super(uint32_t i, struct range_sums *sums)
{
    const struct hak_super *super = &hak_supers.at[i];

    NEED((super->used & super->warm) == 0);
    NEED(hak_map_get(HAK_MAP_WARM, i) == (super->warm != 0));
    NEED(hak_map_get(HAK_MAP_HELD, i) == (super->used != 0));
    NEED(hak_map_get(HAK_MAP_PART, i) ==
         (super->used != 0 && super->used != HAK_ALL_SLABS));
    range_check_starts(i);
    sums->spare += super->used == 0 && super->warm != 0;
    sums->committed += super->claimed * HAK_PAGE;
    switch (super->state) {
    case HAK_SUPER_FRESH:
        NEED(super->used == 0 && super->warm == 0 && super->claimed == 0);
        break;
    case HAK_SUPER_ROOM:
    case HAK_SUPER_FOREIGN:
        NEED(super->used == HAK_ALL_SLABS && super->warm == 0);
        /* Or the rest of a run that was neither unmapped nor made whole. */
        NEED(super->claimed == 0 || (super->state == HAK_SUPER_FOREIGN &&
                                     super->claimed < HAK_SUPER_PAGES));
        sums->rooms += super->state == HAK_SUPER_ROOM;
        sums->foreign += super->state == HAK_SUPER_FOREIGN;
        break;
    case HAK_SUPER_OPEN:
        NEED(super->claimed == HAK_SUPER_PAGES);
        sums->used += (size_t)__builtin_popcount(super->used);
        sums->resident += range_check_slabs(i);
        break;
    case HAK_SUPER_BODY:
        NEED(hak_supers.at[i - 1].state >= HAK_SUPER_WHOLE);
        __attribute__((fallthrough));
    case HAK_SUPER_WHOLE:
        NEED(super->used == HAK_ALL_SLABS && !super->described);
        NEED(super->claimed > 0 && super->claimed <= HAK_SUPER_PAGES);
        sums->wholes++;
        break;
    default: NEED(!"a state");
    }
}

/* Call it while no other thread takes or gives. */
UNIT void range_check(void)
{
    const struct hak_range_figures *figures = &hak_supers.figures;
    struct range_sums sums = {0};
    size_t held = 0;

    hak_lock_take(&hak_supers.lock);
    for (uint32_t i = 0; i < first_super(); i++) {
        NEED(hak_supers.at[i].used == 0 && hak_supers.at[i].claimed == 0);
    }
    NEED(hak_supers.low >= first_super());
    for (uint32_t i = first_super(); i < hak_supers.limit; i++) {
        range_check_super(i, &sums);
    }
    for (int lane = 0; lane < HAK_LANES; lane++) {
        NEED(figures->held[lane] <= figures->held_peak[lane]);
        held += figures->held[lane];
    }
    NEED(held == sums.used * HAK_SLAB_SIZE + sums.wholes * HAK_SUPER_SIZE);
    NEED(figures->slabs_used == sums.used);
    NEED(figures->committed == sums.committed);
    NEED(hak_supers.rooms == sums.rooms && hak_supers.foreign == sums.foreign);
    NEED(hak_supers.spare == sums.spare);
    NEED(hak_range_populated() == sums.resident);
    hak_lock_drop(&hak_supers.lock);
}

#endif /* RANGE_WALK_H */
