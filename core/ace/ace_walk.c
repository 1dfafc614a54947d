/*
 * ace_walk.c - walks the ACE lane and checks the invariants of ace.h.
 *
 * Tested by tests/unit/ace/ace.c, after every step of its random use.
 */
#include "ace/ace_walk.h"

#if HAK_WALKS

#include "ace/ace_holes.h"

/* A superslab of ACE's: runs and holes from end to end. */
static void ace_walk_super(uint32_t super, struct hak_ace_sums *sums)
{
    uint32_t begin = super * (uint32_t)HAK_ACE_PAGES;
    struct hak_ace_super *meta = haki_ace_super(begin);
    bool hole_before = false;

    HAK_PROVE(haki_bits_get(meta->starts, 0));
    for (unsigned w = 0; w < HAK_ACE_WORDS; w++) {
        HAK_PROVE((meta->holes[w] & ~meta->starts[w]) == 0);
    }
    for (uint32_t at = 0; at < HAK_ACE_PAGES;) {
        uint32_t pages = haki_ace_length(begin + at);

        if (haki_ace_is_hole(begin + at)) {
            HAK_PROVE(!hole_before);
            HAK_PROVE(haki_ace_hole(begin + at)->pages == pages);
            sums->holes++;
            sums->hole_pages += pages;
            sums->full_holes += pages == HAK_ACE_PAGES;
        } else {
            /* Except what was left alone for good: haki_ace_bury. */
            HAK_PROVE(pages >= HAK_ACE_LEAST || meta->owner[at / 8] == 0);
            HAK_PROVE(meta->pages[at / 8] == pages);
            sums->runs++;
            sums->run_pages += pages;
        }
        hole_before = haki_ace_is_hole(begin + at);
        at += pages;
        HAK_PROVE(at <= HAK_ACE_PAGES);
    }
    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        HAK_PROVE(haki_range_tag((size_t)(super * HAK_SUPER_SLABS + n)
                                 << HAK_SLAB_SHIFT) ==
                  HAK_TAG_SHARED(HAK_TAG_ACE));
    }
    sums->supers++;
}

/* The treap of a length contains only holes of that length, in order. */
static void ace_walk_tree(uint32_t length, uint32_t page, uint32_t *before,
                          size_t *seen)
{
    while (page != 0) {
        const struct hak_hole *hole = haki_ace_hole(page);

        ace_walk_tree(length, hole->left, before, seen);
        HAK_PROVE(haki_ace_is_hole(page));
        HAK_PROVE(hole->pages == length && *before < page);
        *before = page;
        ++*seen;
        page = hole->right;
    }
}

/* A ghost (lock.h) may have counted runs that are lost with it. */
static void ace_walk_counts(const struct hak_ace_sums *sums)
{
    struct hak_range_counts range;

    haki_range_counts(&range);
    HAK_PROVE(sums->supers * HAK_SUPER_SIZE == range.held[HAK_LANE_ACE]);
    HAK_PROVE(haki_ace.counts.allocs - haki_ace.counts.frees == sums->runs);
}

struct hak_ace_sums haki_ace_walk(bool quiet)
{
    struct hak_ace_sums sums = {0};
    uint32_t before;
    size_t seen = 0;

    for (uint32_t super = 0; super < haki_ace.top; super++) {
        if (haki_range_tag((size_t)super << HAK_SUPER_SHIFT) ==
            HAK_TAG_SHARED(HAK_TAG_ACE)) {
            ace_walk_super(super, &sums);
        }
    }
    for (uint32_t length = 1; length <= HAK_ACE_PAGES; length++) {
        before = 0;
        ace_walk_tree(length, haki_ace.holes.roots[length], &before, &seen);
        HAK_PROVE((haki_ace.holes.roots[length] != 0) ==
                  ((haki_ace.holes.some[length / 64] >> (length % 64) & 1) !=
                   0));
    }
    HAK_PROVE(seen == sums.holes);
    HAK_PROVE(sums.full_holes == haki_ace.full_holes);
    HAK_PROVE(haki_ace.counts.live_bytes == sums.run_pages * HAK_PAGE);
    HAK_PROVE(haki_ace.counts.peak_bytes >= haki_ace.counts.live_bytes);
    if (quiet) {
        HAK_PROVE(haki_ace.full_holes <= HAK_ACE_FULL_HOLES);
        ace_walk_counts(&sums);
    }
    return sums;
}

#endif /* HAK_WALKS */
