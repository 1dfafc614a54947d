/*
 * slots.h - slots, the memory of heaps.
 */
#ifndef HAK_SLOTS_H
#define HAK_SLOTS_H

#include "range/range.h"

/*
 * Memory for a heap, HAK_HEAP_SLOT bytes, page-aligned; *id is its number. A
 * slot that was used before holds what was left there, or zeros. NULL: out of
 * memory or slots.
 */
void *haki_range_heap_take(uint32_t *id);

/*
 * Gives it back. Its first HAK_HEAP_KEPT pages may stay resident for the next
 * heap; the caller has purged any others that were touched.
 */
void haki_range_heap_give(uint32_t id);
#define HAK_HEAP_KEPT 3

/* The heap slot with this id, which must have been taken before. */
HAK_INLINE void *haki_range_heap(uint32_t id)
{
    return haki_range.heap_slots + (size_t)(id - 1) * HAK_HEAP_SLOT;
}

/* How many heap slots were ever taken: their ids are 1 to this. */
uint32_t haki_range_heap_count(void);

/*
 * The first id above `id` whose slot is in use, or 0: a walk over all heaps
 * begins with 0. Any thread; slots that are taken meanwhile may be left out.
 * (Unused slots' pages hold nothing, and reading one costs a page fault.)
 */
uint32_t haki_range_heap_next(uint32_t id);

#endif /* HAK_SLOTS_H */
