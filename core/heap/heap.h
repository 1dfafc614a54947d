/*
 * heap.h - heaps: the Tiny state, and what an explicit heap adds to it.
 *
 * A heap lives in a slot of sixteen pages (range.h), found from its id
 * by arithmetic; of what the struct leaves of the first page most is its maker's
 * (an adapter keeps its own state there: haki_heap_extra). The maps of its packed
 * slabs (tiny.h) end that page and begin the second, the others hold the state of
 * the larger lanes; they are not touched before those are used.
 *
 *     free --take--> owned (a thread's) --thread ends--> parked --adopt--> owned
 *     parked --no block of it is in use any more--> free
 *     free --new---> explicit       ----delete--> free
 *     owned, parked --fork, in the child--> parked, or lost if it was caught in
 *                                           a slow path
 */
#ifndef HAK_HEAP_H
#define HAK_HEAP_H

#include <hakmem.h>

#include "ace/ace.h"
#include "base/base.h"
#include "os/lock.h"
#include "pool/pool.h"
#include "system/system.h"
#include "tiny/tiny.h"
#include "tiny/tiny_seal.h"

enum hak_heap_state {
    HAK_HEAP_FREE,
    HAK_HEAP_OWNED,
    HAK_HEAP_PARKED,
    HAK_HEAP_EXPLICIT,
    HAK_HEAP_LOST
};

#define HAK_HEAP_NAME 32

struct hak_heap {
    struct hak_tiny tiny; /* first: a heap's id leads here */
    /* written before `state` says that a thread owns the heap */
    uint64_t keeper; /* the thread's number, see lock.h */
    /* any thread */
    _Atomic(uint32_t) state;
    uint32_t parked_next; /* id, 0: last; under the heaps' lock */
    uint32_t parked_prev; /* the same; 0: first */
    uint32_t
        relief_round; /* the owner's: the last it took part in, pressure.h */
    uint32_t ticked;  /* the same: when it last saw to what is due */
    uint32_t lend_not_before; /* lend.c's: haki_os_tick(), or 0 */
    /* its haki_heap_use after it was last trimmed for want of memory: whoever
     * uses it, its owner, who has it parked, who borrows it */
    _Atomic(uint64_t) relieved;
    /* in blocks of ACE, Huge and the system (explicit heaps) */
    _Atomic(size_t) other_bytes;
    /* the user of an explicit heap */
    size_t live;  /* bytes in Tiny and Pool blocks, those freed by others too */
    size_t gate;  /* `live` may rise to this before it is looked at */
    size_t limit; /* SIZE_MAX: none */
    size_t peak;  /* the most that was live, to within a step: account.c */
    uint64_t limit_refused;
    uint64_t whole_allocs;      /* blocks of ACE and Huge given out */
    uint64_t fallback;          /* blocks of the system's given out */
    struct hak_pool *pool;      /* in the slot, or NULL: not used yet */
    struct hak_ace_cache *runs; /* the same */
    bool seal_at_fork; /* explicit heaps: it is sealed in a forked child */
    union {
        char name[HAK_HEAP_NAME]; /* explicit heaps */
        /* A thread's: the owner before self_at is set, then whoever holds the
         * lock of lend.h. */
        struct {
            _Atomic(struct hak_heap **) self_at; /* its haki_self, or NULL */
            uint64_t signals; /* that the owner had blocked then */
            uint64_t use;   /* what its counts summed up to at the last look */
            int32_t thread; /* the owner, as the kernel knows it */
            uint32_t tries; /* looks since that sum changed */
        } lend;
    };
};

#define HAK_HEAP_EXTRA_AT ((sizeof(struct hak_heap) + 63) & ~(size_t)63)
#define HAK_HEAP_EXTRA (HAK_UNITS_AT - HAK_HEAP_EXTRA_AT)

_Static_assert(sizeof(struct hak_heap) <= HAK_UNITS_AT - 384,
               "a heap leaves its maker 384 bytes of its first page");

/*
 * HAK_HEAP_EXTRA bytes behind the heap, on its page, zeroed by hak_heap_new. If
 * the heap is a thread's, then the first words are counters (uint64_t), as many
 * as HAK_HEAP_COUNTERS: it ends when it likes, and haki_heap_past has them then.
 */
#define HAK_HEAP_COUNTERS 4
HAK_INLINE void *haki_heap_extra(struct hak_heap *heap)
{
    return (char *)heap + HAK_HEAP_EXTRA_AT;
}

/* From a heap's third page on, all zero until it is used. */
#define HAK_HEAP_LARGE_AT (2 * HAK_PAGE)
struct hak_heap_large {
    struct hak_ace_cache runs;
    struct hak_pool pool;
};

_Static_assert(offsetof(struct hak_heap_large, pool.stacks) +
                           HAK_POOL_CLASSES * HAK_POOL_STACK_SHORT *
                               sizeof(void *) <=
                       HAK_PAGE &&
                   sizeof(struct hak_heap_large) <=
                       HAK_HEAP_SLOT - HAK_HEAP_LARGE_AT -
                           HAK_TINY_STALE * sizeof(struct hak_block *),
               "it has the third page, with short stacks it needs no other; "
               "what a seal needs of the last is left");
_Static_assert(HAK_HEAP_LARGE_AT + sizeof(struct hak_heap_large) <=
                   HAK_SAMPLING_AT,
               "a page for samples lies behind them");
_Static_assert(HAK_UNITS_AT + HAK_UNITS * sizeof(struct hak_unit) <=
                   HAK_HEAP_LARGE_AT,
               "the maps of packed slabs end on the second page");

/* The most slabs that it had since haki_heap_forget_most: what it leaves, about. */
HAK_INLINE uint32_t haki_heap_most_slabs(const struct hak_heap *heap)
{
    return heap->tiny.most_slabs +
           (heap->pool != NULL ? heap->pool->most_slabs : 0);
}

HAK_INLINE void haki_heap_forget_most(struct hak_heap *heap)
{
    heap->tiny.most_slabs = heap->tiny.nslabs;
    if (heap->pool != NULL) {
        heap->pool->most_slabs = heap->pool->nslabs;
    }
}

/* Whether it has taken part in a profile: struct hak_sampling means something. */
HAK_INLINE bool haki_heap_was_sampled(const struct hak_heap *heap)
{
    const struct hak_pool *pool =
        __atomic_load_n(&heap->pool, __ATOMIC_RELAXED);

    return heap->tiny.was_sampled || (pool != NULL && pool->was_sampled);
}

/* Makes `pool` and `runs` of a heap that has an id usable. */
void haki_heap_use_large(struct hak_heap *heap);

/* Whose ACE and Huge blocks are: the explicit heap's or all threads'. */
HAK_INLINE uint32_t haki_heap_owner(const struct hak_heap *heap)
{
    return heap->tiny.direct ? heap->tiny.id : HAK_ID_SHARED;
}

/* Whether its user is in a slow path: its lists may be half done. */
HAK_INLINE bool haki_heap_is_busy(const struct hak_heap *heap)
{
    const struct hak_pool *pool =
        __atomic_load_n(&heap->pool, __ATOMIC_ACQUIRE);

    return atomic_load(&heap->tiny.busy) ||
           (pool != NULL && atomic_load(&pool->busy));
}

/* Empties the bins, takes in what others freed, gives back idle slabs. */
void haki_heap_collect(struct hak_heap *heap);

/*
 * For a heap that was collected and has no user: whether no block of it is in
 * use, so that nobody can send it one, and it has none to send. If not, it gives
 * back what its
 * slot has resident beyond what they need: all but the first page, and the third
 * if there are blocks of Pool's.
 */
bool haki_heap_is_empty(const struct hak_heap *heap);

/*
 * A number that changes when the heap's user, or somebody who frees a block of
 * its, does anything: while it is what it was after a trim, another one brings
 * nothing. Any thread; it may be of a moment ago.
 */
uint64_t haki_heap_use(const struct hak_heap *heap);
void haki_heap_rest(struct hak_heap *heap);

/* Everything that the heap keeps together is brought down to what it may. */
void haki_heap_shed(struct hak_heap *heap);

/*
 * Sweeps an explicit heap that has become sparse, three quarters of its slabs
 * free. Nobody else would: it may never be used again. But malloc and free in
 * turn must not sweep, purge and populate the same pages over and over.
 *
 *     steady --fall: more than the price was freed--> falling --refill--> steady
 *                                      sweeps, each after a part of what is left
 *
 * What is in use has risen to `height` since the last sweep, as refills and looks
 * saw it. A fall begins when more than its price was freed of that. While a heap
 * is falling, and nothing was taken from slabs, it looks at its bins often, that
 * the last sweep comes with the last free or little before.
 *
 * The price is half of what is worth a sweep (heap.c), for falls that bring the
 * heap lower than any sweep before and for FALLS_FREE more. After these it is twice
 * what the last fall took to begin, so that no fall of the same depth begins again,
 * but no more than PRICE_MOST; and twice what the heap may keep extra, since it
 * gives that back and takes it in turns (allowance.h).
 *
 * Cost: sweeps of one fall come after 1/16 of what is in use and 1 KB, or all of
 * it and 16 KB, so that their number is logarithmic in its depth. Falls that repeat
 * are FALLS_FREE and one for each time that the price doubles, ten at most, and then
 * one for each PRICE_MOST bytes that were taken and freed again: as much as to
 * take these pages once costs. What a heap that is left alone keeps unswept is less
 * than the price: twice the depth of its usual fall.
 */
void haki_heap_heed_sparse(struct hak_heap *heap);

/* haki_tiny_look, and whatever else keeps too much. */
HAK_INLINE void haki_heap_look_bin(struct hak_heap *heap, struct hak_bin *bin)
{
    bool more = haki_tiny_look(&heap->tiny, bin);

    if (HAK_UNLIKELY(heap->tiny.allow.over)) {
        haki_heap_shed(heap);
    }
    if (heap->tiny.direct && (more || heap->tiny.packed)) {
        haki_heap_heed_sparse(heap);
    }
}

/*
 * The same, and gives back the pages of slabs in use that hold no block in use:
 * what touches them again faults. For a heap that is idle, or told to trim.
 * Returns the bytes of such pages.
 */
size_t haki_heap_sweep(struct hak_heap *heap);

/*
 * Seals the heap's slabs: see tiny.h, pool.h. Its cached runs of ACE's go back
 * to their lane, which needs no seal: it gives out whole pages, and a page that
 * is written to for the first time costs the same wherever it lies.
 */
void haki_heap_seal_slabs(struct hak_heap *heap);

/* Makes known which blocks of sealed slabs are free, as far as it is not. */
void haki_heap_seal_count(struct hak_heap *heap);

/*
 * Takes a slot for a heap. Without a range the heap is a page of its own with
 * id 0, whose bins are never filled. NULL: out of memory.
 */
struct hak_heap *haki_heap_create(enum hak_heap_state state);

/* Gives back the slabs and the slot. */
void haki_heap_destroy(struct hak_heap *heap);

/* Sums of what heaps had counted when they were destroyed, for stats. */
struct hak_heap_past {
    _Atomic(uint64_t) allocs, refills, flushes, remote_frees, refused;
    _Atomic(uint64_t) pool_allocs, runs_taken;
    _Atomic(uint64_t) extra[HAK_HEAP_COUNTERS]; /* see haki_heap_extra */
};
extern struct hak_heap_past haki_heap_past;

/* What one heap has counted. */
struct hak_heap_counts {
    struct hak_lane_counts tiny, pool;          /* without peaks */
    uint64_t runs_taken, runs_held, runs_bytes; /* of the cache of ACE runs */
    uint64_t remote_frees, sealed_bytes;
    uint64_t kept_bytes; /* of free blocks in bins and that cache */
};
/* Any thread, while the heap's owner works on it or deletes it. */
void haki_heap_count(const struct hak_heap *heap,
                     struct hak_heap_counts *counts);

#endif /* HAK_HEAP_H */
