/*
 * outspan.h - Pool blocks freed by a thread other than their heap's, in batches.
 *
 *     free --a bit in the box of the class--> a batch --> the span's `remote`
 *
 * A thread's heap has some boxes, each for blocks of one span of another heap;
 * a class always uses the same one. Until a box is sent, nothing is written to
 * the span's descriptor, which its owner works with. It is sent with one atomic
 * operation when it has 64 KB, when a block of another span needs its place,
 * and with the outboxes of Tiny (haki_thread_send). As with those, nothing is
 * held back for an explicit heap (`sent_at_once`), nor for a parked one.
 *
 * Invariants of a box: left != 0 only if bits != 0, and bits != 0 only if the
 * span is Pool's and these of its blocks are taken. Otherwise it is all zero.
 */
#ifndef HAK_OUTSPAN_H
#define HAK_OUTSPAN_H

#include "heap/heap.h"

/* Frees p, a Pool block of heap `id`, for who works on `heap` (NULL: a thread
 * without one). False: no block in use begins there. */
bool haki_outspan_free(struct hak_heap *heap, uint32_t id, void *p);

/*
 * Sends box i; returns the id of the heap to be told (haki_heap_sent), or 0. The
 * caller marks the heap as busy.
 */
uint32_t haki_outspan_send(struct hak_heap *heap, unsigned i);

/*
 * haki_outspan_free if the box of this class has others of the span and is not
 * full with this one. False: nothing was done. Not in the hardened build, which
 * looks at each block.
 */
HAK_INLINE bool haki_outspan_join(struct hak_heap *heap, const void *p,
                                  unsigned class)
{
    struct hak_outspan *box = haki_heap_outspan(heap, class % HAK_OUTSPANS);
    uint64_t bit;

    if (HAK_HARD || box->left < 2 || box->span != haki_pool_span(p) ||
        HAK_UNLIKELY(!haki_pool_is_start(p, class))) {
        return false;
    }
    bit = haki_pool_bit(p, class);
    if (HAK_UNLIKELY((box->bits & bit) != 0)) {
        return false;
    }
    haki_tiny_busy(&heap->tiny, true);
    box->bits |= bit;
    box->left--;
    haki_tiny_busy(&heap->tiny, false);
    return true;
}

#endif /* HAK_OUTSPAN_H */
