/*
 * ace_holes.h - what ace.c and ace_holes.c share; for no other file.
 *
 * The caller of every function holds the lane's lock.
 */
#ifndef HAK_ACE_HOLES_H
#define HAK_ACE_HOLES_H

#include "ace/ace_bits.h"
#include "os/lock.h"

/*
 * Up to HAK_ACE_FULL_HOLES holes that fill a superslab stay here, so that a program
 * that frees and allocates does not take and give back superslabs all the time.
 */
#define HAK_ACE_FULL_HOLES 4

struct hak_ace_lane {
    hak_lock lock;
    /* under it */
    struct hak_holes holes;
    uint32_t full_holes; /* holes that fill a superslab */
    uint32_t top;        /* no superslab from here on was ever the lane's */
    struct hak_lane_counts counts;
};

extern HAK_HIDDEN struct hak_ace_lane haki_ace;

/* ace.c: the lock's mend, see lock.h. */
void haki_ace_mend(void);

/* HAKMEM_PURGE_DELAY. */
uint32_t haki_ace_delay(void);

/* Makes sure that holes are looked at when they are due. */
void haki_ace_want_tick(uint32_t now);

bool haki_ace_is_hole(uint32_t page);

/* Makes the pages from `page` on a hole. */
void haki_ace_hole_add(uint32_t page, uint32_t pages, uint32_t stamp);

/* The hole is no longer a hole; its start stays marked. */
void haki_ace_hole_drop(uint32_t page);

/* Sets the tags of a superslab's slabs. */
void haki_ace_set_tags(uint32_t super, uint32_t tag);

/*
 * Gives back the superslab that the hole at `page` fills. False: it was mapped
 * in part and the system would not unmap the rest; it stays a hole.
 */
bool haki_ace_super_give(uint32_t page);

/* Under a limit on address space, unmaps the hole if it is long enough. */
void haki_ace_shed(uint32_t page);

/*
 * Makes `pages` pages at `page`, inside the hole at `hole`, a run; what is left
 * of the hole on either side stays a hole. True: the pages are all zero.
 */
bool haki_ace_cut(uint32_t hole, uint32_t page, uint32_t pages, uint32_t owner);

/*
 * Makes the pages from `page` on, whose start is set but which are neither a
 * run nor a hole, a hole, joined with those on both sides.
 */
void haki_ace_join(uint32_t page, uint32_t pages, uint32_t now);

/* Finds a hole in which a run of `pages` fits; 0: out of memory. */
uint32_t haki_ace_find_hole(uint32_t pages);

/* Somebody else has mapped something in a hole: it is left alone for good. */
void haki_ace_bury(uint32_t hole);

/* Live pages change by this many. */
void haki_ace_count(int64_t pages);

#endif /* HAK_ACE_HOLES_H */
