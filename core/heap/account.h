/*
 * account.h - the account of a heap: what is charged to it, its limit, its peak.
 *
 * In bytes of whole blocks:
 *
 *     live_bytes = live - what others freed and the heap has not taken in
 *                  + other_bytes                      (haki_account_live)
 *     live + other_bytes <= limit
 *     gate = min(limit - other_bytes, a little above the peak)
 *
 * `live` counts blocks of Tiny and Pool, charged by the heap's only user, who
 * serves from it. other_bytes counts blocks of ACE, Huge and the system, which
 * any thread may free: they are charged where they are made and discharged
 * where they are freed. A thread's heap is not charged.
 *
 * A request that keeps `live` at or below the gate costs one comparison. A
 * request beyond it comes here: either the limit refuses it, or it makes a new
 * peak, which is noted, and the gate rises by a step. So the peak is known to
 * within a step (account.c), and the hot path has nothing to do with it.
 */
#ifndef HAK_ACCOUNT_H
#define HAK_ACCOUNT_H

#include "heap/heap.h"

/* Bytes in blocks in use. Any thread; the number may then be a moment old. */
size_t haki_account_live(const struct hak_heap *heap);

/* Updates `live` and `gate` for what others freed and for the limit. */
void haki_account_update(struct hak_heap *heap);

/* Sets the limit; SIZE_MAX: none. Blocks already in use above it stay. */
void haki_account_set_limit(struct hak_heap *heap, size_t limit);

/* What was admitted could not be allocated: restores the peak. */
void haki_account_undo(struct hak_heap *heap, size_t peak);

/* Whether `size` bytes more than `live` are within `most`, whoever counts them. */
HAK_INLINE bool haki_account_within(size_t live, size_t size, size_t most)
{
    return live <= most && size <= most - live;
}

/*
 * Whether `size` more bytes stay below the gate: then a charge is all it takes.
 */
HAK_INLINE bool haki_account_fits(const struct hak_heap *heap, size_t size)
{
    return heap->live + size <= heap->gate;
}

/* The same as haki_account_admit, for requests beyond the gate. */
HAK_NOINLINE bool haki_account_admit_slow(struct hak_heap *heap, size_t size);

/* Whether `size` more bytes fit under the limit; counts a refusal. */
HAK_INLINE bool haki_account_admit(struct hak_heap *heap, size_t size)
{
    return HAK_LIKELY(haki_account_fits(heap, size)) ||
           haki_account_admit_slow(heap, size);
}

/* A block of Tiny or Pool of this many bytes was given out, or taken back. */
HAK_INLINE void haki_account_charge(struct hak_heap *heap, size_t bytes)
{
    heap->live += bytes;
}

HAK_INLINE void haki_account_discharge(struct hak_heap *heap, size_t bytes)
{
    HAK_ASSERT(heap->live >= bytes);
    heap->live -= bytes;
}

/*
 * Bytes in the heap's blocks of ACE, Huge and the system. Charged and
 * discharged by any thread.
 */
HAK_INLINE size_t haki_account_other(const struct hak_heap *heap)
{
    return atomic_load_explicit(&heap->other_bytes, memory_order_relaxed);
}

HAK_INLINE void haki_account_charge_other(struct hak_heap *heap, size_t bytes)
{
    atomic_fetch_add_explicit(&heap->other_bytes, bytes, memory_order_relaxed);
}

HAK_INLINE void haki_account_discharge_other(struct hak_heap *heap,
                                             size_t bytes)
{
    size_t before = atomic_fetch_sub_explicit(&heap->other_bytes, bytes,
                                              memory_order_relaxed);

    HAK_ASSERT(before >= bytes);
    (void)before;
}

/* Such a block has `now` bytes instead of `old`. */
HAK_INLINE void haki_account_resize_other(struct hak_heap *heap, size_t old,
                                          size_t now)
{
    if (now >= old) {
        haki_account_charge_other(heap, now - old);
    } else {
        haki_account_discharge_other(heap, old - now);
    }
}

#endif /* HAK_ACCOUNT_H */
