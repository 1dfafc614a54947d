/*
 * relief.h - what heaps and lanes do when memory is short.
 *
 * Under pressure (pressure.h) free memory goes back by rounds, from
 * slow paths; and before a request is refused for want of memory everything
 * that the calling thread can reach is given back, and it is tried once more.
 */
#ifndef HAK_RELIEF_H
#define HAK_RELIEF_H

#include "heap/heap.h"
#include "range/pressure.h"

/*
 * A slow path of the heap (NULL: there is none), used by the calling thread,
 * which is about to take `want` bytes: looks at the limits if it is time to; if the heap
 * has not taken part in the present round, its bins and caches are emptied; and
 * the first to come in a round gives back what all lanes have free.
 */
void haki_relief_round(struct hak_heap *heap, uint32_t now, size_t want);

/* Whether that has something to do. */
HAK_INLINE bool haki_relief_wanted(size_t want)
{
    return haki_limit_used() + want >=
           atomic_load_explicit(&haki_pressure.relief_at, memory_order_relaxed);
}

/*
 * There was no memory for a request of `size` bytes on the heap (NULL: the
 * calling thread's). Empties the bins and caches of that heap, of the thread's
 * and of those whose threads sleep or have ended, as far as they were used since
 * this was last done, and gives back what the lanes have free. True: it is worth another try. The caller holds no lock and is in no
 * lane.
 */
bool haki_relief(struct hak_heap *heap, size_t size);

#endif /* HAK_RELIEF_H */
