/*
 * look.h - upkeep: what slow paths see to besides their own business.
 *
 * Free memory waits for a while before it goes back, in bins, caches and lanes.
 * Nobody is there to watch it, so whoever comes into a slow path does a little.
 * What runs when, and the word for it, in every lane and layer:
 *
 *   grant    how many pushes a bin may take until its next look; few while memory
 *            waits to go back (`waiting`) and in a heap that is `quiet`
 *   look     the grant is used up: the bin is measured and noted in the heap's
 *            allowance, gives back what is above its budget, and has a new grant
 *   shed     all bins together keep more than the allowance: the fullest give back
 *   tick     a look, a refill or a larger request asks the time: what has been
 *            idle for HAKMEM_PURGE_DELAY goes back, of the lanes; for half of
 *            that, of bins and caches. While nothing waits a tick is one load; a
 *            busy heap has one for 16 looks (`skips`)
 *   collect  what other threads freed is taken in: when a bin is refilled, and
 *            before a trim
 *   flush    a bin's blocks go back to their slabs, a cache's runs to their lane
 *   trim     all that is not in use goes back now: hak_trim, the background
 *            thread for heaps whose threads sleep, an ending thread, want of memory
 *   sweep    pages of slabs in use go back on which no block is in use: after a
 *            trim, in an idle heap in slices of 1 ms, in a frugal heap that has
 *            become sparse
 *   relief   memory is short, see relief.h: trims by rounds, and before a refusal
 *   check    freed bytes were counted; is it enough to start the background thread?
 */
#ifndef HAK_LOOK_H
#define HAK_LOOK_H

#include "heap/heap.h"

/*
 * What a look does for who watches from above (api/share.h), NULL: nothing; at the
 * time `now`, where no lock is held. `leaving`: this is the background thread's last.
 */
extern HAK_HIDDEN void (*haki_look_share)(uint32_t now, bool leaving);

/*
 * A word that others change to ask for that, and what it was when they were answered:
 * while they differ slow paths look. The word stays readable for ever. Each look at
 * the limits (pressure.h) makes them differ, too: when much was taken, and now and
 * then.
 */
struct hak_look_asked {
    _Atomic(const _Atomic(uint32_t) *) at;
    _Atomic(uint32_t) answered;
};
extern HAK_HIDDEN struct hak_look_asked haki_look_asked;

HAK_INLINE bool haki_look_is_asked(void)
{
    const _Atomic(uint32_t) *at =
        atomic_load_explicit(&haki_look_asked.at, memory_order_acquire);

    return HAK_UNLIKELY(atomic_load_explicit(at, memory_order_relaxed) !=
                        atomic_load_explicit(&haki_look_asked.answered,
                                             memory_order_relaxed));
}

/* The word is there from now on; NULL: nowhere. It was answered as it is. */
void haki_look_ask_at(const _Atomic(uint32_t) *at);
void haki_look_answer(uint32_t asked);
void haki_look_answer_all(void); /* there is nobody to answer */

/*
 * Until when (haki_os_tick, 0: nobody) somebody up there wants a look ten times a second
 * even if the program sleeps: the background thread goes on until then.
 */
extern HAK_HIDDEN _Atomic(uint32_t) haki_look_watched;

/* A look's part in it. */
HAK_INLINE void haki_look_show(uint32_t now, bool leaving)
{
    if (haki_look_share != NULL) {
        haki_look_share(now, leaving);
    }
}

/*
 * The tick of a heap (NULL: none) and of all lanes: gives back what has been idle
 * for long, the heap's cache included; called on slow paths.
 */
void haki_heap_tick(struct hak_heap *heap);

/* The same, which comes in a large heap though no lane has memory that waits. */
void haki_heap_tick_all(struct hak_heap *heap);

/* Runs from the cache between two such ticks. */
#define HAK_LOOK_EVERY 32

/* The looks at a bin that a push has asked for, and a tick. */
HAK_NOINLINE void haki_heap_look(struct hak_heap *heap, struct hak_bin *bin);
HAK_NOINLINE void haki_heap_look_pool(struct hak_heap *heap, unsigned class);

#endif /* HAK_LOOK_H */
