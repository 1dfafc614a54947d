/*
 * supers_mend.c - repairs superslabs in a forked child, when another thread of
 * the parent held their lock.
 *
 * Tested by tests/unit/together/fork_mend.c.
 */
#include "range/pages.h"
#include "range/slabs.h"
#include "range/supers.h"
#include "range/superslabs.h"

/* Superslabs that may or may not be mapped are left alone. */
static void supers_mend_state(uint32_t i)
{
    struct hak_super *super = &haki_supers.at[i];
    bool doubtful =
        (i >= haki_supers.unmap_first && i < haki_supers.unmap_end) ||
        (super->used == 0 && super->claimed != 0 &&
         super->claimed != HAK_SUPER_PAGES);

    if (doubtful || super->state == HAK_SUPER_FOREIGN) {
        super->state = HAK_SUPER_FOREIGN;
        super->used = HAK_ALL_SLABS;
        super->resident = 0;
        super->claimed = 0;
        haki_supers.foreign++;
    } else if (super->used == 0) {
        super->state = super->claimed != 0 ? HAK_SUPER_OPEN : HAK_SUPER_FRESH;
        super->resident = super->claimed != 0 ? HAK_ALL_SLABS : 0;
        super->described = false;
    } else if (super->state == HAK_SUPER_ROOM) {
        haki_supers.rooms++;
    }
}

/*
 * Repairs superslab i as a ghost has left it. Unused slabs may have contents,
 * whether they count as resident or not; so may those of a superslab that was being
 * given back. Used slabs stay so, though the ghost may have been taking or
 * giving them. Returns the bytes that count as resident.
 */
static size_t supers_mend_super(uint32_t i)
{
    struct hak_super *super = &haki_supers.at[i];
    size_t bytes = 0;

    supers_mend_state(i);
    if (super->used == 0) {
        return super->resident != 0 ? HAK_SUPER_SIZE : 0;
    }
    if (super->state != HAK_SUPER_OPEN) {
        super->resident = 0; /* it was just being taken as a whole */
        return 0;
    }
    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        struct hak_slab *slab = haki_range_slab(i * HAK_SUPER_SLABS + n);

        if ((super->used >> n & 1) == 0) {
            slab->resident = (uint32_t)HAK_SLAB_SIZE;
            slab->gone = 0;
        }
        /* In one that was just taken whole these bytes hold something else. */
        bytes += haki_slab_resident(slab);
    }
    super->resident = ~super->used;
    super->described = true;
    haki_supers.counts.slabs_used += (uint32_t)__builtin_popcount(super->used);
    return bytes;
}

/*
 * Everything except `at` is computed again. The lanes' sums of bytes stay as
 * they are: the ghost may or may not have changed them, but only for slabs that
 * are lost.
 */
HAK_COLD void haki_supers_mend(void)
{
    size_t bytes = 0;

    haki_supers.limit = (uint32_t)(HAK_LOAD(haki_range.size) / HAK_SUPER_SIZE);
    haki_supers.counts.slabs_used = 0;
    haki_supers.counts.committed = 0;
    haki_supers.unused = haki_supers.foreign = haki_supers.rooms = 0;
    haki_supers.low = haki_supers.tags;
    for (uint32_t n = 0; n <= HAK_SPAN_MOST; n++) {
        haki_supers.resident_start[n] = haki_supers.part_start[n] =
            haki_supers.tags;
    }
    for (uint32_t i = haki_supers.tags; i < haki_supers.limit; i++) {
        const struct hak_super *super = &haki_supers.at[i];

        bytes += supers_mend_super(i);
        haki_supers.counts.committed += super->claimed * HAK_PAGE;
        haki_map_set(HAK_MAP_RESIDENT, i, false);
        haki_super_changed(i);
        if (super->resident != 0) {
            haki_purge_wanted(i);
        }
    }
    haki_supers.unmap_end = 0;
    atomic_store(&haki_supers_resident, bytes);
}
