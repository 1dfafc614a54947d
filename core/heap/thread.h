/*
 * thread.h - each thread's heap: found, made, parked, adopted.
 *
 * `haki_self` is never NULL: before a thread's first allocation it is
 * haki_heap_none, an empty heap whose tag matches no slab, so that the hot
 * path needs no "is there a heap" test of its own; after the thread's last
 * destructor it is haki_heap_exited, and late requests go to the system.
 */
#ifndef HAK_THREAD_H
#define HAK_THREAD_H

#include "heap/heap.h"

extern HAK_HIDDEN __thread struct hak_heap *haki_self
    __attribute__((tls_model("initial-exec")));
extern HAK_HIDDEN const struct hak_heap haki_heap_none;
extern HAK_HIDDEN const struct hak_heap haki_heap_exited;

/*
 * The thread's heap, or one of the two above, at this moment. It may be lent
 * (lend.h) at any time, so each operation reads this once, and the compiler
 * must not read it again.
 */
HAK_INLINE struct hak_heap *haki_thread_self(void)
{
    return HAK_LOAD(haki_self);
}

/*
 * The bin of a class in that heap. A plain read, which becomes part of the
 * instruction that adds to it; the compiler can't compute it twice.
 */
HAK_INLINE struct hak_bin *haki_thread_bin(unsigned class)
{
    struct hak_bin *bin = &HAK_FOLD(haki_self)->tiny.bins[class];

    __asm__("" : "+r"(bin));
    return bin;
}

/* That heap; NULL if it is one of the two. */
HAK_INLINE struct hak_heap *haki_thread_own(void)
{
    struct hak_heap *heap = haki_thread_self();

    return HAK_LIKELY(heap != &haki_heap_none && heap != &haki_heap_exited)
               ? heap
               : NULL;
}

/* Whether the thread has a heap at this moment. */
HAK_INLINE bool haki_thread_has_heap(void)
{
    return haki_thread_own() != NULL;
}

/*
 * The calling thread's heap, adopted or made if it has none. NULL: out of
 * memory, no range, or the thread is ending (*reason says which).
 */
struct hak_heap *haki_thread_heap(enum hak_reason *reason);

/*
 * From here on no thread gets a heap (reason: forced). Called before there is
 * one.
 */
void haki_thread_close(void);

/* The rest of an allocation when the thread's bin is empty. NULL as above. */
HAK_NOINLINE void *haki_thread_refill(unsigned class, enum hak_reason *reason);

/*
 * A block of the calling thread's heap. NULL as above; *reason is set only
 * then.
 */
HAK_INLINE void *haki_thread_alloc(unsigned class, enum hak_reason *reason)
{
    void *p = haki_bin_pop(haki_thread_bin(class));

    return HAK_LIKELY(p != NULL) ? p : haki_thread_refill(class, reason);
}

/*
 * Called when something was sent to heap `id` (0: nothing was): if its thread
 * has ended, takes the blocks in for it and frees its empty slabs.
 */
void haki_heap_sent_slow(uint32_t id);

HAK_INLINE void haki_heap_sent(uint32_t id)
{
    if (HAK_UNLIKELY(id != 0)) {
        haki_heap_sent_slow(id);
    }
}

/*
 * Makes an explicit heap that only the calling thread uses its thread heap; the
 * heap that it had is parked. Not in the hardened build, where blocks of the
 * two kinds differ.
 */
void haki_thread_adopt(struct hak_heap *heap);

/*
 * From here on threads' heaps are sealed in forked children, for an adapter
 * whose objects live there; without this HAKMEM_SEAL_FORK decides.
 */
void haki_thread_seal_forks(void);

/* Sends what the heap's user holds for other heaps. */
void haki_thread_send(struct hak_heap *heap);

/*
 * Calls `work` for the calling thread's heap, after sending what it holds for
 * others, and for parked heaps, under the heaps' lock; those that are then
 * empty end.
 */
void haki_thread_each(void (*work)(struct hak_heap *heap));

/*
 * Sends the thread's outboxes, trims its heap, all parked ones and those of
 * threads that sleep. The bytes of pages that went back from slabs in use.
 */
size_t haki_thread_trim(void);

/*
 * The same when memory is short, to be called repeatedly: skips heaps not used
 * since the last time, and those of threads that were awake some 10 ms ago.
 */
void haki_thread_trim_used(void);

/*
 * Trims the heaps of threads that sleep and have not used them since the last
 * call. False: nothing is left to do.
 */
bool haki_thread_trim_idle(void);

/* Seals the calling thread's heap and parked ones. */
void haki_thread_seal(void);

#endif /* HAK_THREAD_H */
