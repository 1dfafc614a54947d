/*
 * ace_check.h - compiles the ACE lane in, walks it and verifies what
 * core/ace/ace.h promises; for tests/unit/ace*.c.
 *
 * Call it while no other thread uses the lane. The first broken promise ends
 * the process with a line naming it.
 */
#ifndef ACE_CHECK_H
#define ACE_CHECK_H

#include "../../core/ace/ace.c"
#include "../../core/ace/ace_holes.c"

#include "unit.h"

struct ace_sums {
    size_t supers, runs, holes, spares;
    size_t run_pages, hole_pages;
};

/* A superslab of ACE's: runs and holes from end to end. */
UNIT void ace_check_super(uint32_t super, struct ace_sums *sums)
{
    uint32_t begin = super * (uint32_t)HAK_ACE_PAGES;
    struct hak_ace_super *meta = hak_ace_super(begin);
    bool hole_before = false;

    NEED(hak_bits_get(meta->starts, 0));
    for (unsigned w = 0; w < HAK_ACE_WORDS; w++) {
        NEED((meta->holes[w] & ~meta->starts[w]) == 0);
    }
    for (uint32_t at = 0; at < HAK_ACE_PAGES;) {
        uint32_t pages = hak_ace_length(begin + at);

        if (hak_ace_is_hole(begin + at)) {
            NEED(!hole_before);
            NEED(hak_ace_hole(begin + at)->pages == pages);
            sums->holes++;
            sums->hole_pages += pages;
            sums->spares += pages == HAK_ACE_PAGES;
        } else {
            NEED(pages >= HAK_ACE_LEAST);
            NEED(meta->pages[at / 8] == pages);
            sums->runs++;
            sums->run_pages += pages;
        }
        hole_before = hak_ace_is_hole(begin + at);
        at += pages;
        NEED(at <= HAK_ACE_PAGES);
    }
    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        NEED(hak_range_tag((size_t)(super * HAK_SUPER_SLABS + n)
                           << HAK_SLAB_SHIFT) == HAK_TAG_SHARED(HAK_TAG_ACE));
    }
    sums->supers++;
}

/* The treap of a length has holes of it alone, in order. */
UNIT void ace_check_tree(uint32_t length, uint32_t page, uint32_t *before,
                         size_t *seen)
{
    while (page != 0) {
        const struct hak_hole *hole = hak_ace_hole(page);

        ace_check_tree(length, hole->left, before, seen);
        NEED(hak_ace_is_hole(page));
        NEED(hole->pages == length && *before < page);
        *before = page;
        ++*seen;
        page = hole->right;
    }
}

UNIT struct ace_sums ace_check(void)
{
    uint32_t limit = (uint32_t)(hak_range.size / HAK_SUPER_SIZE);
    struct ace_sums sums = {0};
    struct hak_range_figures range;
    uint32_t before;
    size_t seen = 0;

    hak_range_figures(&range);
    for (uint32_t super = 0; super < limit && sums.supers * HAK_SUPER_SIZE <
                                                  range.held[HAK_LANE_ACE];
         super++) {
        size_t offset = (size_t)super * HAK_SUPER_SIZE;

        if (HAK_TAG_CLASS(hak_range_tag(offset)) == HAK_TAG_ACE) {
            NEED(super < hak_ace.top);
            ace_check_super(super, &sums);
        }
    }
    NEED(sums.supers * HAK_SUPER_SIZE == range.held[HAK_LANE_ACE]);
    for (uint32_t length = 1; length <= HAK_ACE_PAGES; length++) {
        before = 0;
        ace_check_tree(length, hak_ace.holes.roots[length], &before, &seen);
    }
    NEED(seen == sums.holes);
    NEED(sums.spares == hak_ace.spares && hak_ace.spares <= SPARE_MOST);
    NEED(hak_ace.figures.live_bytes == sums.run_pages * HAK_PAGE);
    NEED(hak_ace.figures.allocs - hak_ace.figures.frees == sums.runs);
    NEED(hak_ace.figures.peak_bytes >= hak_ace.figures.live_bytes);
    return sums;
}

#endif /* ACE_CHECK_H */
