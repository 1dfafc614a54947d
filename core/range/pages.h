/*
 * pages.h - pages of slabs in use go back to the system, and come again.
 *
 * What is resident of a slab are the pages below `resident` that are
 * not in `gone`; the process's sum (haki_range_resident_bytes) is that of these. A
 * page that is gone reads as zero, and whoever touches it makes it resident: so
 * its bit must go before that. All by the owner of the slab.
 */
#ifndef HAK_PAGES_H
#define HAK_PAGES_H

#include "range/range.h"

#define HAK_SLAB_PAGES ((uint32_t)(HAK_SLAB_SIZE / HAK_PAGE))

/* The mask of the pages that lie below this distance, or touch it. */
HAK_INLINE uint32_t haki_slab_pages_below(size_t bytes)
{
    return ((uint32_t)1 << (haki_round_up(bytes, HAK_PAGE) / HAK_PAGE)) - 1;
}

/* The mask of the pages that at..at+size-1 touches, of a slab; size > 0. */
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
 * Gives pages of the mask to the system, neighbours together, and notes them as
 * gone: but those that it refuses or that were not resident. The bytes, of which
 * haki_range_purged is to be told.
 */
size_t haki_range_pages_drop(uint32_t number, uint32_t pages);

/* Pages of the mask are about to be used; `populate`: with few faults. */
void haki_range_pages_wake(uint32_t number, uint32_t pages, bool populate);

/* The same as drop for all of a span but the first `keep` bytes and the rest of
 * their page: `resident` goes down to there. */
size_t haki_range_pages_cut(uint32_t number, uint32_t slabs, size_t keep);

/*
 * The slab is free. Of such a one `resident` is the most that is resident: pages
 * that are gone at the end of it don't count, others do, as if they were back.
 */
void haki_range_pages_forget(struct hak_slab *slab);

#endif /* HAK_PAGES_H */
