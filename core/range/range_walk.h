/*
 * range_walk.h - walks all superslabs and proves what supers.h promises.
 *
 * Exists only if HAK_WALKS (assert.h); the caller holds the range's lock.
 */
#ifndef HAK_RANGE_WALK_H
#define HAK_RANGE_WALK_H

#include "base/assert.h"

/*
 * `quiet`: no thread is between taking a superslab and having it, none changes
 * what is resident of its slabs, and the process has no ghosts (lock.h).
 */
void haki_range_walk(bool quiet);

/* Of superslab i: every search begins at or below what it looks for. */
void haki_range_walk_starts(uint32_t i);

#endif /* HAK_RANGE_WALK_H */
