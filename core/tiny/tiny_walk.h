/*
 * tiny_walk.h - walks a Tiny state and proves what tiny.h promises.
 *
 * There only if HAK_WALKS (assert.h); called by the heap's one user.
 */
#ifndef HAK_TINY_WALK_H
#define HAK_TINY_WALK_H

#include "base/assert.h"

struct hak_tiny;

/*
 * `quiet`: no other thread sends blocks meanwhile, so that the inbox is looked
 * at as well. The first promise that is broken ends the program. O(blocks).
 */
void haki_tiny_walk(const struct hak_tiny *tiny, bool quiet);

/* A slab of the heap in hand has come, gone, or changed its list; the walk then,
 * at the end of the slow path. */
void haki_tiny_walk_due(void);
void haki_tiny_walk_if_due(const struct hak_tiny *tiny);

#endif /* HAK_TINY_WALK_H */
