/*
 * range_walk.c - walks all superslabs and proves what supers.h promises.
 *
 * Tested by tests/unit/range/slabs.c and tests/unit/range/superslabs.c.
 */
#include "range/range_walk.h"

#if HAK_WALKS

#include "range/pages.h"
#include "range/slabs.h"
#include "range/supers.h"
#include "range/superslabs.h"

/* Sums over all superslabs. */
struct range_walk_sums {
    size_t committed, used, wholes, unused, resident, rooms, foreign;
};

/* The places in a superslab where n free slabs begin. */
static uint32_t range_walk_places(const struct hak_super *super, unsigned n)
{
    uint32_t places = 0;

    for (unsigned bit = 0; bit + n <= HAK_SUPER_SLABS; bit++) {
        uint32_t run = (uint32_t)(((uint64_t)1 << n) - 1) << bit;

        places |= (super->used & run) == 0 ? (uint32_t)1 << bit : 0;
    }
    return places;
}

/* Every search must begin at or below what it looks for. */
void haki_range_walk_starts(uint32_t i)
{
    const struct hak_super *super = &haki_supers.at[i];
    bool part = super->used != 0 && super->used != HAK_ALL_SLABS;

    HAK_PROVE(super->used != 0 || haki_supers.low <= i);
    if (!part && super->resident == 0) {
        return;
    }
    for (unsigned n = 1; n <= HAK_SPAN_MOST; n++) {
        uint32_t places = range_walk_places(super, n);

        HAK_PROVE((places & super->resident) == 0 ||
                  haki_supers.resident_start[n] <= i);
        HAK_PROVE(!part || places == 0 || haki_supers.part_start[n] <= i);
    }
}

/*
 * Walks the slabs of a superslab that no lane has whole; returns what is
 * resident.
 */
static size_t range_walk_slabs(uint32_t i)
{
    const struct hak_super *super = &haki_supers.at[i];
    size_t bytes = 0;

    HAK_PROVE(super->used == 0 || super->described);
    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        uint32_t number = i * (uint32_t)HAK_SUPER_SLABS + n;
        bool used = (super->used >> n & 1) != 0;
        bool resident = (super->resident >> n & 1) != 0;
        uint32_t touched = haki_range_slab(number)->resident;

        HAK_PROVE(used ||
                  haki_range_tag((size_t)number << HAK_SLAB_SHIFT) == 0);
        if (super->described) {
            HAK_PROVE(touched <= HAK_SLAB_SIZE);
            HAK_PROVE(touched % HAK_PAGE == 0);
            HAK_PROVE(used || resident == (touched > 0));
            bytes += haki_slab_resident(haki_range_slab(number));
        } else {
            bytes += resident ? HAK_SLAB_SIZE : 0;
        }
    }
    return bytes;
}

static void range_walk_super(uint32_t i, struct range_walk_sums *sums,
                             bool quiet)
{
    const struct hak_super *super = &haki_supers.at[i];

    HAK_PROVE((super->used & super->resident) == 0);
    HAK_PROVE(haki_map_get(HAK_MAP_RESIDENT, i) == (super->resident != 0));
    HAK_PROVE(haki_map_get(HAK_MAP_HELD, i) == (super->used != 0));
    HAK_PROVE(haki_map_get(HAK_MAP_PART, i) ==
              (super->used != 0 && super->used != HAK_ALL_SLABS));
    haki_range_walk_starts(i);
    sums->unused += super->used == 0 && super->resident != 0;
    sums->committed += super->claimed * HAK_PAGE;
    switch (super->state) {
    case HAK_SUPER_FRESH:
        HAK_PROVE(super->used == 0 && super->resident == 0 &&
                  super->claimed == 0);
        break;
    case HAK_SUPER_ROOM:
    case HAK_SUPER_FOREIGN:
        HAK_PROVE(super->used == HAK_ALL_SLABS && super->resident == 0);
        /*
         * Or it is the rest of a run that could neither be unmapped nor mapped
         * in full.
         */
        HAK_PROVE(super->claimed == 0 || (super->state == HAK_SUPER_FOREIGN &&
                                          super->claimed < HAK_SUPER_PAGES));
        sums->rooms += super->state == HAK_SUPER_ROOM;
        sums->foreign += super->state == HAK_SUPER_FOREIGN;
        break;
    case HAK_SUPER_OPEN:
        HAK_PROVE(super->claimed == HAK_SUPER_PAGES);
        sums->used += (size_t)__builtin_popcount(super->used);
        sums->resident += range_walk_slabs(i);
        break;
    case HAK_SUPER_BODY:
        HAK_PROVE(haki_supers.at[i - 1].state >= HAK_SUPER_WHOLE);
        __attribute__((fallthrough));
    case HAK_SUPER_WHOLE:
        HAK_PROVE(super->used == HAK_ALL_SLABS && !super->described);
        HAK_PROVE(super->claimed <= HAK_SUPER_PAGES);
        HAK_PROVE(super->claimed > 0 || !quiet); /* a moving run has none */
        sums->wholes++;
        break;
    default: HAK_PROVE(!"a state");
    }
}

/* Compares the sums of all of them. */
static void range_walk_totals(const struct range_walk_sums *sums, bool quiet)
{
    const struct hak_range_counts *counts = &haki_supers.counts;
    size_t held = 0;

    for (int lane = 0; lane < HAK_LANES; lane++) {
        HAK_PROVE(counts->held[lane] <= counts->held_peak[lane]);
        held += counts->held[lane];
    }
    HAK_PROVE(counts->slabs_used == sums->used);
    HAK_PROVE(counts->committed == sums->committed);
    HAK_PROVE(haki_supers.rooms == sums->rooms);
    HAK_PROVE(haki_supers.foreign == sums->foreign);
    HAK_PROVE(haki_supers.unused == sums->unused);
    if (quiet) {
        HAK_PROVE(held ==
                  sums->used * HAK_SLAB_SIZE + sums->wholes * HAK_SUPER_SIZE);
        HAK_PROVE(haki_range_resident_bytes() == sums->resident);
    }
}

void haki_range_walk(bool quiet)
{
    struct range_walk_sums sums = {0};

    HAK_HELD(&haki_supers.lock);
    for (uint32_t i = 0; i < haki_supers.tags; i++) {
        HAK_PROVE(haki_supers.at[i].used == 0 &&
                  haki_supers.at[i].claimed == 0);
    }
    HAK_PROVE(haki_supers.low >= haki_supers.tags);
    for (uint32_t i = haki_supers.tags; i < haki_supers.limit; i++) {
        range_walk_super(i, &sums, quiet);
    }
    range_walk_totals(&sums, quiet);
}

#endif /* HAK_WALKS */
