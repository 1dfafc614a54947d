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
 * Holes that fill a superslab stay here, up to HAK_ACE_FULL_HOLES of them, so that a
 * program that frees and allocates does not take and give superslabs all the
 * time.
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

/* Sees to it that holes are looked at when their time has come. */
void haki_ace_want_tick(uint32_t now);

bool haki_ace_is_hole(uint32_t page);

/* The pages from `page` on are a hole now. */
void haki_ace_hole_add(uint32_t page, uint32_t pages, uint32_t stamp);

/* The hole is none any more; its start is still one. */
void haki_ace_hole_drop(uint32_t page);

/* The tags of a superslab's slabs. */
void haki_ace_set_tags(uint32_t super, uint32_t tag);

/*
 * Gives back the superslab that the hole at `page` fills. False: it was mapped
 * in part and the system would not unmap the rest; it stays a hole.
 */
bool haki_ace_super_give(uint32_t page);

/* Under a limit on address space a hole of some length is unmapped. */
void haki_ace_shed(uint32_t page);

/*
 * Makes `pages` pages at `page`, inside the hole at `hole`, a run; what is
 * left of the hole on either side stays one. True: they are all zero.
 */
bool haki_ace_cut(uint32_t hole, uint32_t page, uint32_t pages, uint32_t owner);

/*
 * The pages from `page` on, whose start is set but which are neither run nor
 * hole, become a hole, with those on both sides.
 */
void haki_ace_join(uint32_t page, uint32_t pages, uint32_t now);

/* A hole in which a run of `pages` fits, or 0: out of memory. */
uint32_t haki_ace_find_hole(uint32_t pages);

/* Somebody else has mapped something in a hole: it is left alone for good. */
void haki_ace_bury(uint32_t hole);

/* What is live changes by this many pages. */
void haki_ace_count(int64_t pages);

#endif /* HAK_ACE_HOLES_H */
