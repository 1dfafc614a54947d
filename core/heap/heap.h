/*
 * heap.h - heaps: the Tiny state, and what an explicit heap adds to it.
 *
 * A heap lives in a slot of sixteen pages (range.h), whose address is computed
 * from its id. Most of what the struct leaves of the first page belongs to
 * whoever made the heap (an adapter keeps its own state there:
 * haki_heap_extra). The maps of its packed slabs (tiny.h) take the end of that
 * page, where a thread's heap has its outboxes, and the start of the second. The
 * other pages hold the state of the
 * larger lanes and are not touched before these are used.
 *
 *     free --take--> owned (a thread's) --thread ends--> parked --adopt--> owned
 *     parked --its last block is freed--> free
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
    /* set before `state` says that a thread owns the heap */
    uint64_t keeper; /* the thread's number, see lock.h */
    /* any thread */
    _Atomic(uint32_t) state;
    uint32_t parked_next; /* id, 0: last; under the heaps' lock */
    uint32_t parked_prev; /* the same; 0: first */
    uint32_t
        relief_round; /* the owner's: the last it took part in, pressure.h */
    uint32_t ticked;  /* the same: when it last did what was due */
    uint32_t lend_not_before; /* lend.c's: haki_os_tick(), or 0 */
    /*
     * its haki_heap_use after it was last trimmed because memory was short; set
     * by whoever uses it: the owner, the holder of the heaps' lock, a borrower
     */
    _Atomic(uint64_t) trimmed_use;
    /* in blocks of ACE, Huge and the system (explicit heaps) */
    _Atomic(size_t) other_bytes;
    /* the user of an explicit heap */
    size_t live;  /* bytes in Tiny and Pool blocks, those freed by others too */
    size_t gate;  /* `live` may rise to this before it is looked at */
    size_t limit; /* SIZE_MAX: none */
    size_t peak;  /* the most that was live, to within a step: account.c */
    uint64_t limit_refusals;
    uint64_t other_allocs;      /* blocks of ACE and Huge given out */
    uint64_t fallback;          /* blocks of the system's given out */
    struct hak_pool *pool;      /* in the slot, or NULL: not used yet */
    struct hak_ace_cache *runs; /* the same */
    bool seal_at_fork; /* explicit heaps: it is sealed in a forked child */
    uint32_t born;     /* the same: haki_os_tick(), see haste.h */
    union {
        char name[HAK_HEAP_NAME]; /* explicit heaps */
        /*
         * A thread's: written by the owner before self_at is set, then by
         * whoever holds the lock of lend.h.
         */
        struct {
            _Atomic(struct hak_heap **) self_at; /* its haki_self, or NULL */
            uint64_t signals; /* the owner had blocked then */
            uint64_t use;     /* the sum of its counts at the last look */
            int32_t thread;   /* the kernel's id of the owner */
            uint32_t tries;   /* looks since that sum changed */
        } lend;
    };
};

/* Blocks of a span of another heap, on their way back there: outspan.h. */
struct hak_outspan {
    uint32_t span; /* its first slab */
    uint32_t left; /* how many more there is room for */
    uint64_t bits;
};
#define HAK_OUTSPANS 32
#define HAK_OUTSPANS_AT                                                        \
    (HAK_UNITS_AT + HAK_OUTBOXES * sizeof(struct hak_outbox))

_Static_assert(HAK_OUTSPANS_AT + HAK_OUTSPANS * sizeof(struct hak_outspan) <=
                   HAK_UNITS_AT + HAK_OUTBOXES_BYTES,
               "they fit behind the outboxes");
_Static_assert(HAK_OUTSPANS_AT % 8 == 0, "aligned");

/* Of a thread's heap, as haki_tiny_outbox. */
HAK_INLINE struct hak_outspan *haki_heap_outspan(const struct hak_heap *heap,
                                                 unsigned i)
{
    HAK_ASSERT(!heap->tiny.accounted && !heap->tiny.packed);
    return (struct hak_outspan *)(void *)((char *)(uintptr_t)heap +
                                          HAK_OUTSPANS_AT) +
           i;
}

#define HAK_HEAP_EXTRA_AT ((sizeof(struct hak_heap) + 63) & ~(size_t)63)
#define HAK_HEAP_EXTRA (HAK_UNITS_AT - HAK_HEAP_EXTRA_AT)

_Static_assert(sizeof(struct hak_heap) <= HAK_UNITS_AT - 384,
               "a heap leaves its maker 384 bytes of its first page");

/*
 * HAK_HEAP_EXTRA bytes behind the heap, on its page, zeroed by hak_heap_new. In
 * a thread's heap the first HAK_HEAP_COUNTERS words are counters (uint64_t):
 * such a heap may end at any time, and they are then added to haki_heap_past.
 */
#define HAK_HEAP_COUNTERS 4
HAK_INLINE void *haki_heap_extra(struct hak_heap *heap)
{
    return (char *)heap + HAK_HEAP_EXTRA_AT;
}

/* What starts at a heap's third page; all zero until it is used. */
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

/*
 * The most slabs that it had since haki_heap_forget_most: about what it leaves.
 */
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

/* The owner of ACE and Huge blocks: the explicit heap, or all threads. */
HAK_INLINE uint32_t haki_heap_owner(const struct hak_heap *heap)
{
    return heap->tiny.accounted ? heap->tiny.id : HAK_ID_SHARED;
}

/* Whether its user is in a slow path: its lists may be half changed. */
HAK_INLINE bool haki_heap_is_busy(const struct hak_heap *heap)
{
    const struct hak_pool *pool =
        __atomic_load_n(&heap->pool, __ATOMIC_ACQUIRE);

    return atomic_load(&heap->tiny.busy) ||
           (pool != NULL && atomic_load(&pool->busy));
}

/* Empties the bins, takes in what others freed, gives back idle slabs. */
void haki_heap_trim(struct hak_heap *heap);

/*
 * The same, unless nothing has happened to the heap since the last time: for
 * requests that are refused over and over. It costs a step for each class, and
 * one for each block that came into a bin, or slab that became empty, since then.
 */
void haki_heap_trim_used(struct hak_heap *heap);

/*
 * For a collected heap without a user: whether none of its blocks is in use, so
 * that nobody can send it one, and it has none to send. If not, gives back what
 * its slot does not need: all pages except the first, and the third if there
 * are blocks of Pool.
 */
bool haki_heap_is_empty(const struct hak_heap *heap);

/*
 * A number that changes whenever the heap's user, or somebody who frees one of
 * its blocks, does anything: while it is the same as after a trim, another trim
 * would bring nothing. Any thread; the number may be a moment old.
 */
uint64_t haki_heap_use(const struct hak_heap *heap);
void haki_heap_rest(struct hak_heap *heap);

/* Reduces what the heap keeps in all to what it may keep. */
void haki_heap_shed(struct hak_heap *heap);

/*
 * Sweeps an explicit heap that has become sparse, that is, with three quarters
 * of its slabs free. Nobody else would: it may never be used again. But
 * alternating mallocs and frees must not sweep, purge and populate the same
 * pages over and over.
 *
 *     steady --fall: more than the price was freed--> falling --refill--> steady
 *                                      sweeps, each after a part of what is left
 *
 * `height` is the most that was in use since the last sweep, as seen by refills
 * and looks. A fall begins when more than its price was freed from there. While
 * a heap is falling and takes nothing from slabs, it looks at its bins often,
 * so that the last sweep comes with the last free or little before it.
 *
 * The price is half of what is worth a sweep (heap.c), for falls that bring the
 * heap lower than any before and for FALLS_FREE more. After these it is twice what
 * such a fall took to begin, so that no fall of the same depth begins again, but no
 * more than PRICE_MOST or twice what is in use; and always twice what the heap may
 * keep extra, since it gives that back and takes it in turns (allowance.h).
 *
 * Only falls that follow each other count: when none has begun for FALL_TIME, the
 * next is free, whatever it goes.
 *
 * Cost: sweeps of one fall come after 1/16 of what is in use and 1 KB, or all of
 * it and 16 KB, so that their number is logarithmic in its depth. Falls that repeat
 * within FALL_TIME are FALLS_FREE, one for each time that the price doubles, and then
 * one for each PRICE_MOST bytes that were taken and freed again, and one in FALL_TIME.
 * What a heap that is left alone in the midst of such a time keeps unswept is less
 * than the price: twice the depth of its usual fall.
 */
void haki_heap_sweep_sparse(struct hak_heap *heap);

/* haste.c: a hasty heap is looked at, which may have become old. */
void haki_haste_look(struct hak_heap *heap);

/* The next falls of a new heap have the price that repeated ones have, for a time. */
void haki_heap_fall_dear(struct hak_heap *heap, uint32_t now);

/* haki_tiny_look, and whatever else keeps too much. */
HAK_INLINE void haki_heap_look_bin(struct hak_heap *heap, struct hak_bin *bin)
{
    bool more = haki_tiny_look(&heap->tiny, bin);

    if (HAK_UNLIKELY(heap->tiny.allow.over)) {
        haki_heap_shed(heap);
    }
    if (HAK_UNLIKELY(heap->tiny.hasty)) {
        haki_haste_look(heap);
    }
    if (haki_is_frugal(&heap->tiny.allow) && (more || heap->tiny.packed)) {
        haki_heap_sweep_sparse(heap);
    }
}

/*
 * The same as haki_heap_trim, and gives back those pages of slabs in use
 * that hold no block in use; touching them again causes page faults. For a heap
 * that is idle, or told to trim. Returns the bytes of these pages.
 */
size_t haki_heap_sweep(struct hak_heap *heap);

/*
 * Seals the heap's slabs: see tiny.h, pool.h. Its cached ACE runs go back to
 * their lane, which needs no seal: it gives out whole pages, and the first
 * write to a page costs the same wherever it lies.
 */
void haki_heap_seal_slabs(struct hak_heap *heap);

/*
 * Finds out which blocks of sealed slabs are free, where that is not known yet.
 */
void haki_heap_seal_count(struct hak_heap *heap);

/*
 * Takes a slot for a heap. Without a range the heap is a page of its own with
 * id 0, whose bins are never filled. NULL: out of memory.
 */
struct hak_heap *haki_heap_create(enum hak_heap_state state);

/* Gives back the slabs and the slot. */
void haki_heap_destroy(struct hak_heap *heap);

/* Sums of what destroyed heaps had counted, for the statistics. */
struct hak_heap_past {
    _Atomic(uint64_t) allocs, refills, flushes, remote_frees, refused;
    _Atomic(uint64_t) pool_allocs, runs_taken;
    _Atomic(uint64_t) extra[HAK_HEAP_COUNTERS]; /* see haki_heap_extra */
};
extern struct hak_heap_past haki_heap_past;

/* What one heap has counted. */
struct hak_heap_counts {
    struct hak_lane_counts tiny, pool;          /* without peaks */
    uint64_t runs_taken, runs_held, runs_bytes; /* the cache of ACE runs */
    uint64_t remote_frees, sealed_bytes;
    uint64_t kept_bytes; /* free blocks in bins and in that cache */
};
/* Any thread, even while the heap's owner works on it or deletes it. */
void haki_heap_count(const struct hak_heap *heap,
                     struct hak_heap_counts *counts);

/* The same by class: Tiny's, then Pool's. A heap that has ended is not counted. */
#define HAK_CLASSES (HAK_TINY_CLASSES + HAK_POOL_CLASSES)
struct hak_class_counts {
    uint64_t allocs; /* blocks given out, ever */
    uint64_t live;   /* blocks in use, */
    uint64_t kept;   /* and free ones in bins */
    uint32_t slabs;  /* of that class; haki_stats_classes */
    uint32_t block;  /* bytes; the same */
};
/* Adds a heap's to `classes`, HAK_CLASSES of them. */
void haki_heap_add_classes(const struct hak_heap *heap,
                           struct hak_class_counts *classes);

/* All its bins draw anew, as of a profile that has just been switched; for its user. */
HAK_INLINE void haki_heap_draw(struct hak_heap *heap)
{
    haki_tiny_busy(&heap->tiny, true);
    haki_tiny_draw_round(&heap->tiny);
    haki_tiny_busy(&heap->tiny, false);
    if (heap->pool != NULL) {
        haki_pool_busy(heap->pool, true);
        haki_pool_draw_round(heap->pool);
        haki_pool_busy(heap->pool, false);
    }
}

#endif /* HAK_HEAP_H */
