/*
 * purge.h - free memory goes back to the system after a while.
 */
#ifndef HAK_PURGE_H
#define HAK_PURGE_H

#include "range/range.h"

/*
 * The time, in milliseconds of haki_os_tick, when some free memory will have
 * been idle for long enough to be given back; 0: there is none.
 */
extern HAK_HIDDEN _Atomic(uint32_t) haki_range_due;

/* Whether free memory is waiting to go back. */
HAK_INLINE bool haki_range_waiting(void)
{
    return atomic_load_explicit(&haki_range_due, memory_order_relaxed) != 0;
}

/*
 * Bytes that have come back in all lanes since haki_background_start last
 * looked: slabs and superslabs, counted under the range's lock; ACE's runs,
 * under its lock; blocks sent to other threads' heaps; and what is to be looked
 * at once more. Rough: read and reset without the locks, and memory taken again
 * is not subtracted.
 */
struct hak_range_freed {
    _Atomic(size_t) slabs, runs, sent, again;
};
extern HAK_HIDDEN struct hak_range_freed haki_range_freed;
#define HAK_RANGE_FREED_MUCH (4 * HAK_MIB)

HAK_INLINE size_t haki_range_freed_bytes(void)
{
    return atomic_load_explicit(&haki_range_freed.slabs, memory_order_relaxed) +
           atomic_load_explicit(&haki_range_freed.runs, memory_order_relaxed) +
           atomic_load_explicit(&haki_range_freed.sent, memory_order_relaxed) +
           atomic_load_explicit(&haki_range_freed.again, memory_order_relaxed);
}

/*
 * Called when they are many, for lanes that free without anybody above them
 * looking: haki_background_start. No lock is held.
 */
extern HAK_HIDDEN void (*haki_range_on_much)(void);

HAK_INLINE bool haki_range_freed_much(void)
{
    return haki_range_freed_bytes() >= HAK_RANGE_FREED_MUCH;
}

HAK_INLINE void haki_range_check_freed(void)
{
    if (HAK_UNLIKELY(haki_range_freed_much()) && haki_range_on_much != NULL) {
        haki_range_on_much();
    }
}

/*
 * Adds to `slabs` or `runs`, under the lock: nobody else adds, so it need not
 * be atomic. A reset to 0 that comes in between may be lost, and is repeated.
 */
HAK_INLINE void haki_range_count_freed(_Atomic(size_t) *counter, size_t bytes)
{
    size_t before = atomic_load_explicit(counter, memory_order_relaxed);

    atomic_store_explicit(counter, before + bytes, memory_order_relaxed);
}

HAK_INLINE void haki_range_count_sent(size_t bytes)
{
    atomic_fetch_add_explicit(&haki_range_freed.sent, bytes,
                              memory_order_relaxed);
}

/*
 * Gives back what has been free for HAKMEM_PURGE_DELAY, a few MB at the most;
 * called on slow paths, `now` being haki_os_tick().
 */
void haki_range_tick(uint32_t now);

/*
 * The same for a caller that has nothing else to do, without pauses between
 * portions. True: another portion is due.
 */
bool haki_purge_portion(uint32_t now);

/*
 * What threads leave when they end is kept for new threads, which find it
 * resident. If none begins for a quarter of HAKMEM_PURGE_DELAY it goes back: if
 * it is at least half of what is free and resident, all of that does, since it
 * is not known which thread a free slab came from.
 *
 *     thread ends --> left += the slabs it had at most, left_at = now
 *     thread begins ----------------------------> left = 0
 *     left >= HAK_LEFT_LEAST, delay / 4 after left_at --> purged, left = 0
 */
#define HAK_LEFT_LEAST 64 /* slabs */

/* A thread has got a heap; a thread has ended, whose heap had so many slabs. */
void haki_purge_thread_began(void);
void haki_purge_thread_ended(uint32_t slabs);

/* Counts bytes that a lane has given back itself. */
void haki_range_purged(size_t bytes);

/*
 * Bytes of free slabs and superslabs that are resident: what is still to go
 * back, without ACE's holes.
 */
size_t haki_range_due_bytes(void);

/* Drops the pages of every free slab; returns the bytes. */
size_t haki_range_purge(void);

#endif /* HAK_PURGE_H */
