/*
 * heap_made.h - an explicit heap's account, and its blocks by their address.
 *
 * In bytes of whole blocks:
 *
 *     live_bytes = live - what others freed and the heap has not taken in
 *                  + other_bytes                      (hak_heap_live)
 *     live + other_bytes <= limit
 *     gate = min(limit - other_bytes, a little above the peak)
 *
 * A request that keeps `live` at or below the gate costs one comparison. One
 * beyond it comes here: it is refused by the limit, or it is a new peak, which
 * is noted, and the gate rises by a step. So the peak is known to within a step
 * (heap_limit.c) and the hot path has nothing to do with it.
 */
#ifndef HAK_HEAP_MADE_H
#define HAK_HEAP_MADE_H

#include "base/msg.h"
#include "heap/heap.h"

/* ---- heap_limit.c -------------------------------------------------------- */

/* Brings `live` and `gate` up to date with what others freed and the limit. */
void hak_made_settle(struct hak_heap *heap);

/* The same as hak_made_admit, of what is beyond the gate. */
HAK_NOINLINE bool hak_made_admit_slow(struct hak_heap *heap, size_t size);

/* Whether `size` more bytes fit under the limit; counts a refusal. */
HAK_INLINE bool hak_made_admit(struct hak_heap *heap, size_t size)
{
    return HAK_LIKELY(heap->live + size <= heap->gate) ||
           hak_made_admit_slow(heap, size);
}

/* ---- heap_made.c --------------------------------------------------------- */

/* The usable size of p; fatal, naming `caller`, if it is no block of heap's. */
size_t hak_made_size(struct hak_heap *heap, const void *p, const char *caller);

/*
 * Makes p, a block of the heap's with `old` bytes, fit `size` bytes; the first
 * `keep` of them are kept if it moves. NULL: p is untouched, errno is ENOMEM.
 */
void *hak_made_resize(struct hak_heap *heap, void *p, size_t old, size_t keep,
                      size_t size);

/* Ends the program if p, with `usable` bytes, is said to have had `asked`. */
HAK_INLINE void hak_made_need(const void *p, size_t asked, size_t usable,
                              const char *caller)
{
    if (HAK_UNLIKELY(asked > usable)) {
        hak_fatal("%s(%p, %zu): the block has only %zu bytes", caller, p, asked,
                  usable);
    }
}

#endif /* HAK_HEAP_MADE_H */
