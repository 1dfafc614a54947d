/*
 * ace_walk.h - walks the ACE lane and checks the invariants of ace.h.
 *
 * Exists only if HAK_WALKS (assert.h); the caller holds the lane's lock, or no
 * other thread uses the lane.
 */
#ifndef HAK_ACE_WALK_H
#define HAK_ACE_WALK_H

#include "base/assert.h"

struct hak_ace_sums {
    size_t supers, runs, holes, full_holes;
    size_t run_pages, hole_pages;
};

/* `quiet`: between two calls, in a process without ghosts (lock.h). */
struct hak_ace_sums haki_ace_walk(bool quiet);

#endif /* HAK_ACE_WALK_H */
