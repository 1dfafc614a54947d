/*
 * pages_check.h - the sum of what is resident in slabs, for the tests of pages
 * that go back while their slab is in use.
 */
#ifndef PAGES_CHECK_H
#define PAGES_CHECK_H

#include "range/pages.h"
#include "range/slabs.h"
#include "range/supers.h"
#include "unit.h"

/* The process's sum is that of its slabs; no other lanes may be in use. */
UNIT void pages_check_sum(void)
{
    size_t sum = 0;

    haki_lock_take(&haki_supers.lock);
    for (uint32_t i = haki_supers.tags; i < haki_supers.limit; i++) {
        const struct hak_super *super = &haki_supers.at[i];

        NEED(super->state == HAK_SUPER_FRESH || super->state == HAK_SUPER_OPEN);
        for (uint32_t n = 0; super->state == HAK_SUPER_OPEN &&
                             super->described && n < HAK_SUPER_SLABS;
             n++) {
            const struct hak_slab *slab =
                haki_range_slab(i * HAK_SUPER_SLABS + n);

            NEED((super->used >> n & 1) != 0 || slab->gone == 0);
            sum += haki_slab_resident(slab);
        }
        sum += super->described ? 0
                                : (size_t)__builtin_popcount(super->resident) *
                                      HAK_SLAB_SIZE;
    }
    haki_lock_drop(&haki_supers.lock);
    NEED(sum == haki_range_resident_bytes());
}

UNIT uint64_t pages_purged(void)
{
    struct hak_range_counts counts;

    haki_range_counts(&counts);
    return counts.purged;
}

#endif /* PAGES_CHECK_H */
