/*
 * relief.h - what heaps and lanes do when memory is short.
 *
 * Under pressure (pressure.h) free memory goes back in rounds, from slow paths.
 * Before a request is refused because there is no memory, everything that the
 * calling thread can reach is given back, and the request is tried once more.
 */
#ifndef HAK_RELIEF_H
#define HAK_RELIEF_H

#include "heap/heap.h"
#include "range/pressure.h"

/*
 * Called on slow paths that are about to take `want` bytes for `heap`, which
 * the calling thread uses (NULL: there is none). Looks at the limits if it is
 * time to; empties the heap's bins and caches if it has not taken part in the
 * present round; the first call in a round gives back what all lanes have free.
 */
void haki_relief_round(struct hak_heap *heap, uint32_t now, size_t want);

/* Whether haki_relief_round has something to do. */
HAK_INLINE bool haki_relief_wanted(size_t want)
{
    return haki_limit_used() + want >=
           atomic_load_explicit(&haki_pressure.relief_at, memory_order_relaxed);
}

/*
 * Called when there was no memory for a request of `size` bytes on the heap
 * (NULL: the calling thread's). Empties the bins and caches of that heap, of
 * the thread's heap and of those whose threads sleep or have ended, if they
 * were used since this was last done, and gives back what the lanes have free.
 * True: it is worth another try. The caller holds no lock and is not inside a
 * lane.
 */
bool haki_relief(struct hak_heap *heap, size_t size);

#endif /* HAK_RELIEF_H */
