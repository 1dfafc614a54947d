/*
 * haste.h - heaps that will soon be deleted, by what became of those before.
 *
 * A program that makes a state for each request deletes it a millisecond later. To
 * pack the blocks of such a heap, and to give back its pages as it falls, is work
 * for nothing: the slabs go as they are, and the next heap finds them warm. So:
 *
 *     a heap is deleted within HASTE_TIME of its birth --> row + 1, up to a bound
 *     one that is older is deleted                     --> row / 2
 *     a heap is born, row >= HASTE_ROW, the last early end is not longer ago than
 *         HASTE_TIME, less than HASTE_MOST hasty ones are there --> it is hasty
 *     a hasty heap that has become older and frees     --> packed from then on
 *
 * A hasty heap is not packed: a page for each class that it uses; and until it is
 * older than HASTE_TIME its bins keep up to HASTE_KEEPS, and falls of less than
 * twice that bring no sweep. It counts among the HASTE_MOST until it is deleted, so
 * that what prophecies that fail cost is bounded, some 100 KB each.
 *
 * The row is of all threads together, without a lock: a hint.
 */
#ifndef HAK_HASTE_H
#define HAK_HASTE_H

#include "heap/heap.h"

/* A new explicit heap, of a kind of which there are many: packed or hasty. */
void haki_haste_begin(struct hak_heap *heap);

/* An explicit heap is about to be deleted. */
void haki_haste_end(struct hak_heap *heap);

#endif /* HAK_HASTE_H */
