/*
 * huge_check.h - compiles the Huge lane in, walks it and verifies what
 * core/huge/huge.h promises; for tests/unit/huge*.c.
 *
 * Call it while no other thread uses the lane. The first broken promise ends
 * the process with a line naming it.
 */
#ifndef HUGE_CHECK_H
#define HUGE_CHECK_H

#include "../../core/huge/huge.c"

#include "unit.h"

struct huge_sums {
    size_t blocks, supers, bytes;
};

/* The tag of the first slab of a block, and the others, which are 0. */
UNIT void huge_check_tags(uint32_t super)
{
    uint32_t first = super * (uint32_t)HAK_SUPER_SLABS;
    uint32_t count = huge_at(super)->supers * (uint32_t)HAK_SUPER_SLABS;

    NEED(hak_range_tag((size_t)first << HAK_SLAB_SHIFT) ==
         HAK_TAG_SHARED(HAK_TAG_HUGE));
    for (uint32_t n = first + 1; n < first + count; n++) {
        NEED(hak_range_tag((size_t)n << HAK_SLAB_SHIFT) == 0);
    }
}

UNIT struct huge_sums huge_check(void)
{
    struct huge_sums sums = {0};
    struct hak_range_figures range;
    uint32_t before = HAK_NO_SUPER;

    for (uint32_t super = blocks; super != HAK_NO_SUPER;) {
        const struct huge *huge = huge_at(super);

        NEED(huge->prev == before);
        NEED(huge->size > 0 && huge->size % HAK_PAGE == 0);
        NEED(huge->supers == supers_for(huge->size));
        for (uint32_t n = 0; n < huge->supers; n++) {
            NEED(hak_range_super_head(super + n) == super);
        }
        huge_check_tags(super);
        sums.blocks++;
        sums.supers += huge->supers;
        sums.bytes += huge->size;
        NEED(sums.blocks <= 100000);
        before = super;
        super = huge->next;
    }
    hak_range_figures(&range);
    NEED(range.held[HAK_LANE_HUGE] == sums.supers * HAK_SUPER_SIZE);
    NEED(figures.live_bytes == sums.bytes);
    NEED(figures.allocs - figures.frees == sums.blocks);
    NEED(figures.peak_bytes >= figures.live_bytes);
    return sums;
}

#endif /* HUGE_CHECK_H */
