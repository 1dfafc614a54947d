/*
 * ace_tree.h - what ACE keeps about a superslab, and the treaps of holes.
 *
 * For ace*.c only; everything under ace.c's lock.
 *
 * A page's number counts from the range's base; 0 is none (tags lie there).
 * The holes of one length are a treap (Aragon and Seidel, "Randomized search
 * trees", 1989): a search tree by number, a heap by a hash of the number. A bit
 * for each length says whether there are any: so the smallest hole that fits is
 * found without walking one tree of all, which used to take most of the lane's
 * time.
 */
#ifndef HAK_ACE_TREE_H
#define HAK_ACE_TREE_H

#include "ace/ace.h"

#define HAK_ACE_WORDS (HAK_ACE_PAGES / 64)
#define HAK_ACE_PLACES (HAK_ACE_PAGES / 8)

struct hak_hole {
    uint32_t left, right; /* page numbers */
    uint32_t stamp;       /* haki_os_tick() when it came to be */
    uint32_t pages;
};

struct hak_ace_super {
    _Atomic(uint64_t) starts[HAK_ACE_WORDS];
    _Atomic(uint64_t) holes[HAK_ACE_WORDS];
    _Atomic(uint64_t) resident[HAK_ACE_WORDS];
    _Atomic(uint64_t) gone[HAK_ACE_WORDS]; /* see ace_gone.c */
    struct hak_hole hole[HAK_ACE_PLACES];
    uint32_t owner[HAK_ACE_PLACES]; /* of runs */
    uint16_t pages[HAK_ACE_PLACES]; /* of runs, what the map of starts says */
    /* hardened build: runs that lie in a cache */
    _Atomic(uint8_t) cached[HAK_ACE_PLACES];
};

_Static_assert(sizeof(struct hak_ace_super) <= HAK_SUPER_META,
               "it lies over the superslab's descriptors");

HAK_INLINE struct hak_ace_super *haki_ace_super(uint32_t page)
{
    return haki_range_super_meta(page / HAK_ACE_PAGES);
}

/* The index of a page within its superslab. */
HAK_INLINE uint32_t haki_ace_at(uint32_t page)
{
    return page % HAK_ACE_PAGES;
}

HAK_INLINE struct hak_hole *haki_ace_hole(uint32_t page)
{
    return &haki_ace_super(page)->hole[haki_ace_at(page) / 8];
}

struct hak_holes {
    uint64_t some[HAK_ACE_WORDS + 1];  /* lengths that have a hole */
    uint32_t roots[HAK_ACE_PAGES + 1]; /* of the treaps, by length */
};

HAK_INLINE char *haki_ace_address(uint32_t page)
{
    return (char *)HAK_LOAD(haki_range.base) + (size_t)page * HAK_PAGE;
}

/* Adds the hole that begins at `page`, whose `pages` is set. */
void haki_hole_insert(struct hak_holes *holes, uint32_t page);

/* Takes out a hole that was added. */
void haki_hole_remove(struct hak_holes *holes, uint32_t page);

/* The smallest hole of at least `pages` pages, the lowest of them; or 0. */
uint32_t haki_hole_best(const struct hak_holes *holes, uint32_t pages);

#endif /* HAK_ACE_TREE_H */
