/*
 * ace_bits.h - ACE's maps of the pages of a superslab: a bit for each.
 *
 * For ace*.c only. The maps are written under ace.c's lock. A thread that has a
 * run may read the map of starts without it: no bit inside its run changes, and
 * the one behind it stays set.
 */
#ifndef HAK_ACE_BITS_H
#define HAK_ACE_BITS_H

#include "ace/ace_tree.h"
#include "os/os.h"
#include "range/pressure.h"

typedef _Atomic(uint64_t) hak_ace_map;

HAK_INLINE uint64_t haki_bits_word(const hak_ace_map *map, uint32_t word)
{
    return atomic_load_explicit(&map[word], memory_order_relaxed);
}

HAK_INLINE bool haki_bits_get(const hak_ace_map *map, uint32_t i)
{
    return (haki_bits_word(map, i / 64) >> (i % 64) & 1) != 0;
}

/* The bits of pages i to the end of their word, or of `count` pages. */
HAK_INLINE uint64_t haki_bits_mask(uint32_t i, uint32_t count)
{
    return (count >= 64 ? UINT64_MAX : ((uint64_t)1 << count) - 1) << (i % 64);
}

HAK_INLINE void haki_bits_set(hak_ace_map *map, uint32_t from, uint32_t count,
                              bool on)
{
    for (uint32_t i = from; i < from + count;) {
        uint32_t n = (uint32_t)haki_min(64 - i % 64, from + count - i);
        uint64_t bits = haki_bits_mask(i, n);
        uint64_t word = haki_bits_word(map, i / 64);

        atomic_store_explicit(&map[i / 64], on ? word | bits : word & ~bits,
                              memory_order_relaxed);
        i += n;
    }
}

HAK_INLINE bool haki_bits_any(const hak_ace_map *map, uint32_t from,
                              uint32_t count)
{
    for (uint32_t i = from; i < from + count;) {
        uint32_t n = (uint32_t)haki_min(64 - i % 64, from + count - i);

        if ((haki_bits_word(map, i / 64) & haki_bits_mask(i, n)) != 0) {
            return true;
        }
        i += n;
    }
    return false;
}

HAK_INLINE bool haki_bits_all(const hak_ace_map *map, uint32_t from,
                              uint32_t count)
{
    for (uint32_t i = from; i < from + count; i++) {
        if (!haki_bits_get(map, i)) {
            return false;
        }
    }
    return true;
}

/*
 * How many of `count` > 0 bits are not set: usually none, and then this is
 * quick even on machines that can't count bits.
 */
HAK_INLINE uint32_t haki_bits_lacking(const hak_ace_map *map, uint32_t from,
                                      uint32_t count)
{
    uint32_t end = from + count - 1, lacking = 0;
    uint64_t mask = UINT64_MAX << (from % 64);

    for (uint32_t word = from / 64; word <= end / 64; word++) {
        uint64_t clear;

        if (word == end / 64) {
            mask &= UINT64_MAX >> (63 - end % 64);
        }
        clear = mask & ~haki_bits_word(map, word);
        if (clear != 0) {
            lacking += (uint32_t)__builtin_popcountll(clear);
        }
        mask = UINT64_MAX;
    }
    return lacking;
}

/* The first set bit after `from`, or HAK_ACE_PAGES. */
HAK_INLINE uint32_t haki_bits_next(const hak_ace_map *map, uint32_t from)
{
    uint32_t i = from + 1;
    uint64_t bits;

    if (i >= HAK_ACE_PAGES) {
        return HAK_ACE_PAGES;
    }
    bits = haki_bits_word(map, i / 64) & (UINT64_MAX << (i % 64));
    for (i /= 64; bits == 0;) {
        if (++i == HAK_ACE_WORDS) {
            return HAK_ACE_PAGES;
        }
        bits = haki_bits_word(map, i);
    }
    return i * 64 + (uint32_t)__builtin_ctzll(bits);
}

/* The last set bit before `from`; there is one. */
HAK_INLINE uint32_t haki_bits_before(const hak_ace_map *map, uint32_t from)
{
    uint32_t i = (from - 1) / 64;
    uint64_t bits =
        haki_bits_word(map, i) & (UINT64_MAX >> (63 - (from - 1) % 64));

    while (bits == 0) {
        bits = haki_bits_word(map, --i);
    }
    return i * 64 + 63 - (uint32_t)__builtin_clzll(bits);
}

/* ---- ace_gone.c ----------------------------------------------------------- */

/* Whether a page was ever gone. */
extern HAK_HIDDEN atomic_bool haki_ace_were_gone;

HAK_INLINE bool haki_ace_any_gone(uint32_t page, uint32_t pages)
{
    return HAK_UNLIKELY(atomic_load_explicit(&haki_ace_were_gone,
                                             memory_order_relaxed)) &&
           haki_bits_any(haki_ace_super(page)->gone, haki_ace_at(page), pages);
}

/*
 * Maps those of a hole's `pages` pages that are gone; on failure possibly some.
 */
enum hak_os_claim haki_ace_claim(uint32_t page, uint32_t pages);

/* Unmaps those that are mapped, as far as it can; returns the bytes. */
size_t haki_ace_unmap(uint32_t page, uint32_t pages);

/* ---- resident pages: ace_gone.c --------------------------------------------- */

/* Resident pages are charged (pressure.h). */
#define HAK_ACE_CHARGED (&haki_pressure.charged[HAK_CHARGED_ACE])

/* The bytes of those of `pages` pages that are not resident. */
size_t haki_ace_fresh(uint32_t page, uint32_t pages);

/* Marks them all as not resident. */
void haki_ace_clean(uint32_t page, uint32_t pages);

/* ---- runs and holes ------------------------------------------------------ */

/* How many pages the run or hole that begins at `page` has. */
HAK_INLINE uint32_t haki_ace_length(uint32_t page)
{
    return haki_bits_next(haki_ace_super(page)->starts, haki_ace_at(page)) -
           haki_ace_at(page);
}

/* Hardened build: whether the run at `page` lies in a cache. */
HAK_INLINE bool haki_ace_is_cached(uint32_t page)
{
    return HAK_HARD && atomic_load_explicit(
                           &haki_ace_super(page)->cached[haki_ace_at(page) / 8],
                           memory_order_relaxed) != 0;
}

/*
 * The page where the run p begins, or 0 if none begins at p, an address in the
 * range. Needs the lock unless p is a run that the caller has.
 */
HAK_INLINE uint32_t haki_ace_run_at(const void *p)
{
    size_t offset = haki_range_offset(p);
    uint32_t page = (uint32_t)(offset / HAK_PAGE);
    struct hak_ace_super *super;

    if (offset % HAK_PAGE != 0 ||
        haki_range_tag(offset) != HAK_TAG_SHARED(HAK_TAG_ACE)) {
        return 0;
    }
    super = haki_ace_super(page);
    return haki_bits_get(super->starts, haki_ace_at(page)) &&
                   !haki_bits_get(super->holes, haki_ace_at(page)) &&
                   !haki_ace_is_cached(page)
               ? page
               : 0;
}

#endif /* HAK_ACE_BITS_H */
