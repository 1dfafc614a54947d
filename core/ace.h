/*
 * ace.h - the ACE lane: requests above 52 KB and below 2 MB.
 *
 * Layer 4. Runs of pages inside superslabs, cut to the page, that split and
 * coalesce: less than a page of a run is waste. A free run is a hole. A
 * request takes the smallest hole that fits, of several the one with the
 * lowest address; a freed run joins the holes on both sides. All threads and
 * heaps share the lane under one lock: work of these sizes dwarfs it.
 *
 * What is known of a superslab lies over its descriptors:
 *   - starts has a bit for each page where a run or a hole begins (page 0 has
 *     it always), holes for each page where a hole begins; a run or hole ends
 *     where the next begins;
 *   - no two holes are neighbours, and a run has at least HAK_ACE_LEAST
 *     pages, so two runs (or two holes) begin more than 8 pages apart and
 *     start / 8 is a place of its own for what is kept about each;
 *   - dirty has a bit for each page that may have contents.
 * The holes of all superslabs are in one treap, ordered by size, then address.
 */
#ifndef HAK_ACE_H
#define HAK_ACE_H

#include "base.h"
#include "range.h"

#define HAK_ACE_LEAST 14 /* pages: 52 KB and more */
#define HAK_ACE_PAGES (HAK_SUPER_SIZE / HAK_PAGE)

/*
 * `pages` pages (HAK_ACE_LEAST to HAK_ACE_PAGES) aligned to `align` bytes (a
 * power of two, a page to a superslab) for the heap with this id, HAK_ID_SHARED
 * for threads. *zero: their contents are zero. NULL: out of memory.
 */
void *hak_ace_alloc(size_t pages, size_t align, uint32_t owner, bool *zero);

/* The run that begins at p, an address in a superslab of ACE's. */
struct hak_ace_run {
    size_t bytes;
    uint32_t owner;
};

/* Frees p and tells what it was. False: no run begins there. */
bool hak_ace_free(void *p, struct hak_ace_run *run);

/* Tells about p. False: no run begins there. */
bool hak_ace_find(const void *p, struct hak_ace_run *run);

/* Tells about the run that p lies in. False: p lies in a hole. */
bool hak_ace_around(const void *p, struct hak_ace_run *run);

/* Makes the run p `pages` long where it is. False: there is no room. */
bool hak_ace_resize(void *p, size_t pages);

/* Frees every run of a heap. */
void hak_ace_free_owner(uint32_t owner);

/* The time when holes have been idle for long enough, see hak_range_due. */
extern HAK_HIDDEN _Atomic(uint32_t) hak_ace_due;

/* Gives back what has been idle for HAKMEM_PURGE_DELAY. */
void hak_ace_tick(uint32_t now);

/* Gives back every hole's pages, the holes that fill a superslab included. */
size_t hak_ace_trim(void);

void hak_ace_figures(struct hak_lane_figures *figures);

/* Around fork: take the lock, drop it. */
void hak_ace_fork_prepare(void);
void hak_ace_fork_done(void);

#endif /* HAK_ACE_H */
