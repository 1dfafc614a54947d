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

/* A look's part in it. */
HAK_INLINE void haki_look_show(uint32_t now, bool leaving)
{
    if (haki_look_share != NULL) {
        haki_look_share(now, leaving);
    }
}

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
