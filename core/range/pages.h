/*
 * pages.h - single pages of slabs in use: given to the system and brought back.
 *
 * The resident pages of a slab are those below `resident` that are not in
 * `gone`; haki_range_resident_bytes is the process's total of them. A page that
 * is gone reads as zero, and touching it makes it resident: its bit must be
 * cleared before that. All of this is done by the slab's owner.
 */
#ifndef HAK_PAGES_H
#define HAK_PAGES_H

#include "range/range.h"

#define HAK_SLAB_PAGES ((uint32_t)(HAK_SLAB_SIZE / HAK_PAGE))

/* The mask of the pages that lie wholly or partly below this distance. */
HAK_INLINE uint32_t haki_slab_pages_below(size_t bytes)
{
    return ((uint32_t)1 << (haki_round_up(bytes, HAK_PAGE) / HAK_PAGE)) - 1;
}

/* The mask of a slab's pages that at..at+size-1 touches; size > 0. */
HAK_INLINE uint32_t haki_slab_pages_of(size_t at, size_t size)
{
    return haki_slab_pages_below(at + size) &
           ~(((uint32_t)1 << (at / HAK_PAGE)) - 1);
}

/* Bytes of the slab that count as resident. */
HAK_INLINE size_t haki_slab_resident(const struct hak_slab *slab)
{
    size_t resident = haki_min(slab->resident, HAK_SLAB_SIZE);
    uint32_t gone = slab->gone & haki_slab_pages_below(resident);
    size_t less = (size_t)__builtin_popcount(gone) * HAK_PAGE;

    return resident > less ? resident - less : 0;
}

/*
 * The pages of the mask that are resident and can go: all of a machine's page
 * can, where that is larger.
 */
uint32_t haki_range_pages_whole(uint32_t number, uint32_t pages);

/*
 * Gives the pages of the mask to the system, neighbours together, and notes
 * them as gone, except those that can't go or that it refuses. Returns
 * the bytes, which the caller reports to haki_range_purged.
 */
size_t haki_range_pages_drop(uint32_t number, uint32_t pages);

/*
 * Pages of the mask are about to be used; `populate`: make them resident now.
 */
void haki_range_pages_wake(uint32_t number, uint32_t pages, bool populate);

/*
 * The same as drop for all of a span except the first `keep` bytes and the rest
 * of their page, the machine's: `resident` goes down to that.
 */
size_t haki_range_pages_cut(uint32_t number, uint32_t slabs, size_t keep);

/*
 * The slab is free. In a free slab `resident` is an upper bound: pages at its
 * end that are gone no longer count, others count as if they were back.
 */
void haki_range_pages_forget(struct hak_slab *slab);

#endif /* HAK_PAGES_H */
