/*
 * resident.h - how much of one heap is in memory.
 */
#ifndef HAK_RESIDENT_H
#define HAK_RESIDENT_H

#include "heap/heap.h"

/*
 * Bytes of a heap made by hand that are in memory now: its state, its slabs,
 * its blocks of ACE and Huge. Any thread, as long as the heap is not deleted.
 * O(slabs of the process), and a call to the system for each stretch of pages.
 */
size_t hak_heap_resident(const struct hak_heap *heap);

#endif /* HAK_RESIDENT_H */
