/*
 * look.h - the upkeep that slow paths do besides their own work.
 *
 * Free memory waits for a while in bins, caches and lanes before it goes back.
 * No one else watches it, so every slow path takes a look.
 *
 *     a tick            idle memory that is due goes back; nothing waits: a load
 *     a look around     the same, and a large heap's bins in any case
 *     a look at a bin   after so many pushes: one that holds too much is relieved
 */
#ifndef HAK_LOOK_H
#define HAK_LOOK_H

#include "heap/heap.h"

/*
 * Gives back what has been idle for long enough, including the cache of `heap`
 * (NULL: none); called on slow paths.
 */
void haki_heap_tick(struct hak_heap *heap);

/* The same, and what bins have kept for long while other lanes were busy. */
void haki_heap_look_around(struct hak_heap *heap);

/* Runs from the cache between two such looks. */
#define HAK_LOOK_EVERY 32

/* The look at a bin that a push has asked for, and whatever else is due. */
HAK_NOINLINE void haki_heap_look(struct hak_heap *heap, struct hak_bin *bin);
HAK_NOINLINE void haki_heap_look_pool(struct hak_heap *heap, unsigned class);

#endif /* HAK_LOOK_H */
