/*
 * tiny_walk.h - walks a Tiny state and checks the invariants of tiny.h.
 *
 * Exists only if HAK_WALKS (assert.h); called by the heap's user.
 */
#ifndef HAK_TINY_WALK_H
#define HAK_TINY_WALK_H

#include "base/assert.h"

struct hak_tiny;

/*
 * `quiet`: no other thread sends blocks meanwhile, so that the inbox is checked
 * as well. The first broken invariant ends the program. O(blocks).
 */
void haki_tiny_walk(const struct hak_tiny *tiny, bool quiet);

/*
 * haki_tiny_walk_due notes that a slab of the heap has come, gone, or changed
 * its list; the walk itself follows at the end of the slow path.
 */
void haki_tiny_walk_due(void);
void haki_tiny_walk_if_due(const struct hak_tiny *tiny);

#endif /* HAK_TINY_WALK_H */
