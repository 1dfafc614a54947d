/*
 * pool.h - the Pool lane: requests of 1025 B to 52 KB.
 *
 * Blocks of one class lie in spans of slabs. The heap's bin of the
 * class is a stack of pointers to free blocks; below it, a word of bits in the
 * span's descriptor says which of its blocks are free. Nothing is ever written
 * to a free block: a link in it would make a page resident that its user may
 * never have touched.
 *
 *     span --bits cleared--> bin --pop--> user --push--> bin --bits set--> span
 *     span with all bits set --a few are kept--> range
 *
 * Blocks that another thread frees set their bits in the span's `remote` word,
 * many at once (heap/outspan.h); whoever sets the first ones puts the span into
 * the owner's inbox, a list linked by inbox_next. So a span's remote frees are
 * taken in with one exchange, however many there are.
 *
 * Invariants, for each class of a heap:
 *   - the stack begins with a NULL; taken = blocks in the bin, in use and in
 *     remote words;
 *   - bits is a subset of ready, the blocks that were ever in the bin;
 *   - a span is in the open list exactly if bits != 0 or ready lacks some of
 *     the span's blocks;
 *   - a span with bits == ready stays if it is the class's only open one, and
 *     such spans have at most 1/16 of the pool's slabs, or are one span;
 *   - a span is in the inbox, or about to be, exactly if remote != 0;
 *   - a page that is gone (range.h) lies only in blocks of `bits`, or behind
 *     the last block; `swept` is set if there may be any;
 *   - a sealed span (range.h) is in no open list and none of its blocks in a
 *     bin: a free sets its bit, and when all bits are set the span is given back.
 * The owner alone works on everything except remote, inbox_next and the inbox.
 */
#ifndef HAK_POOL_H
#define HAK_POOL_H

#include "range/allowance.h"
#include "base/assert.h"
#include "base/base.h"
#include "guard/hard.h"
#include "pool/pool_class.h"
#include "pool/pool_walk.h"
#include "profile/profile.h"
#include "range/range.h"
#include "range/slab_list.h"

/*
 * Places in a bin's stack, its bottom included. Explicit heaps begin with short
 * stacks, which fit on the same page as the other fields, and get longer ones
 * when they have grown.
 */
#define HAK_POOL_STACK 128
#define HAK_POOL_STACK_SHORT 4

/* Whether the users of a class write to all of what they ask for. */
enum hak_pool_use { HAK_POOL_UNKNOWN, HAK_POOL_FULL, HAK_POOL_PARTS };

struct hak_pool_shelf {
    int64_t taken;
    uint32_t open; /* first span with free blocks */
    uint32_t last; /* the last span all of whose blocks were taken; a hint */
    uint8_t use;   /* enum hak_pool_use */
    uint8_t seen;  /* blocks in the bin, as last noted in `allow` */
};

struct hak_pool {
    /* The bins, an array for each part: a class byte is the index. */
    void **top[HAK_POOL_CLASSES];    /* the first free place of the stack */
    int64_t until[HAK_POOL_CLASSES]; /* pops until a sample: profile.h */
    int32_t left[HAK_POOL_CLASSES];  /* pushes to the next look, less 1 */
    int32_t grant[HAK_POOL_CLASSES]; /* what `left` was set to: see tiny.h */
    struct hak_pool_shelf shelves[HAK_POOL_CLASSES];
    struct hak_allowance *allow; /* the heap's */
    uint32_t tag;                /* id << 8 | HAK_TAG_POOL */
    uint32_t all;                /* first of all spans */
    uint32_t nslabs;             /* slabs of spans that are not sealed */
    uint32_t most_slabs; /* the most of these since a thread has the heap */
    uint32_t nsealed;    /* slabs of those that are */
    uint32_t nempty;     /* of nslabs: in spans kept without a block taken */
    uint32_t idle_at;    /* when bins are next emptied */
    uint32_t ticked_at;  /* when it last had a tick, or 0 */
    bool waiting;        /* free memory waits to go back: look often */
    bool swept;          /* pages of spans in use have gone */
    uint8_t skips;       /* as in tiny.h */
    bool sampled;        /* these two as in tiny.h */
    bool was_sampled;
    uint32_t round;
    struct hak_sampling *sampling; /* the heap's; NULL: it takes no part */
    struct hak_sampler who;
    uint64_t remote_frees;
    uint64_t remote_bytes; /* freed by others since it was last set to 0 */
    /* any thread */
    _Atomic(uint32_t) inbox; /* spans with remote frees */
    _Atomic(bool) busy;      /* in a slow path, see haki_tiny_busy */
    /* owner */
    uint32_t places; /* of each stack: one of the two above */
    void *stacks[HAK_POOL_CLASSES * HAK_POOL_STACK];
};

/*
 * Makes the state of heap `id` usable; `stacks` is all zero, or was used by
 * this state before. `small`: begin with short stacks.
 */
void haki_pool_init(struct hak_pool *pool, struct hak_allowance *allow,
                    uint32_t id, bool small);

/* Blocks given out of a bin, ever. */
HAK_INLINE uint64_t haki_pool_pops(const struct hak_pool *pool, unsigned class)
{
    const volatile int64_t *word = &pool->until[class];
    int64_t until = *word;

    return (uint64_t)((pool->sampled
                           ? pool->sampling->at[HAK_SAMPLING_POOL + class]
                           : HAK_NEVER) -
                      (until > 0 ? until : 0));
}

/* As those of Tiny: tiny.h. */
HAK_INLINE bool haki_pool_must_draw(const struct hak_pool *pool, int64_t until)
{
    return until < 0 ||
           pool->round !=
               atomic_load_explicit(&haki_profile.round, memory_order_relaxed);
}
void haki_pool_draw_round(struct hak_pool *pool);
void haki_pool_draw_first(struct hak_pool *pool, unsigned class);
void haki_pool_draw_never(struct hak_pool *pool);
void *haki_pool_pop_drawn(struct hak_pool *pool, unsigned class);

/* Gives back every span, even with blocks in use. O(spans). */
void haki_pool_release(struct hak_pool *pool);

/* As haki_tiny_refill. NULL: out of memory. */
HAK_NOINLINE void *haki_pool_refill(struct hak_pool *pool, unsigned class);

/* Looks at a bin whose `left` a push has brought below 0. */
HAK_NOINLINE void haki_pool_look(struct hak_pool *pool, unsigned class);

/*
 * The same, only for a bin that holds no more than was last noted, as after
 * alternating mallocs and frees: just sets when the next look comes. False: the
 * bin holds more.
 */
bool haki_pool_look_steady(struct hak_pool *pool, unsigned class);

/*
 * Empties the fullest bins into their spans if all bins of the heap together
 * hold too much.
 */
void haki_pool_shed(struct hak_pool *pool);

/* Sets every bin's next look according to the state of the heap. */
void haki_pool_grant_all(struct hak_pool *pool);

/* Gives back what bins have kept for long; called on slow paths. */
void haki_pool_tick(struct hak_pool *pool);

/*
 * Frees p, an address in a slab of another thread's pool. False: no block
 * begins there, or it is on its way back already. *told: this was the first
 * such block of a span and its heap was told, see haki_heap_sent.
 */
bool haki_pool_remote_free(struct hak_pool *owner, void *p, bool *told);

/*
 * Whether p, as above, is a block in use or in a bin that is not on its way back.
 */
bool haki_pool_is_taken(const void *p);

/*
 * Frees the blocks `bits` of a span of another thread's pool; fatal if one is not
 * taken. True: they are the span's first such blocks and its heap was told.
 */
bool haki_pool_remote_put(struct hak_pool *owner, uint32_t number,
                          uint64_t bits);

/* Takes in what other threads freed. */
void haki_pool_collect(struct hak_pool *pool);

/*
 * Collects, empties the bins and gives back every span without a block in use.
 */
void haki_pool_trim(struct hak_pool *pool);

/*
 * For an unused pool with empty bins: from here on its stacks fit on the page
 * of the other fields, until it is used again and has grown.
 */
void haki_pool_rest(struct hak_pool *pool);

/* With more slabs than this its stacks are long. */
#define HAK_POOL_GROWN 16
HAK_INLINE bool haki_pool_is_grown(const struct hak_pool *pool)
{
    return pool->nslabs > HAK_POOL_GROWN;
}

/* ---- pages of spans in use: pool_pages.c --------------------------------- */

/*
 * Gives back those pages of spans that lie in free blocks; without `all`, only
 * of blocks that were already free at the last call, and of some hundred spans
 * at most. Returns the bytes. The caller marks itself as busy. O(spans).
 */
size_t haki_pool_sweep(struct hak_pool *pool, bool all);

/*
 * Called when the blocks `bits` of a span leave it for the bin, if `swept` is
 * set.
 */
void haki_pool_wake(const struct hak_pool *pool, uint32_t number,
                    uint64_t bits);

/* ---- the fork seal: pool_seal.c ------------------------------------------ */

/* Empties the bins and seals every span with a block in use. */
void haki_pool_seal(struct hak_pool *pool);

/* Takes back n blocks of a sealed span, those of `bits`. */
void haki_pool_seal_put(struct hak_pool *pool, uint32_t number, uint64_t bits,
                        int64_t n);

/*
 * Frees p, an address in a sealed span of the pool's own. False: no block in
 * use begins there.
 */
bool haki_pool_seal_free(struct hak_pool *pool, void *p);

/* Marks the slow paths, as haki_tiny_busy does for Tiny. */
HAK_INLINE void haki_pool_busy(struct hak_pool *pool, bool on)
{
    HAK_ASSERT(atomic_load(&pool->busy) != on);
    HAK_WALK(on ? (void)0 : haki_pool_walk_if_due(pool));
    atomic_store_explicit(&pool->busy, on, memory_order_release);
    haki_fence_release();
}

/* Blocks of a class in use; any thread may ask, see haki_tiny_live. */
uint64_t haki_pool_live(const struct hak_pool *pool, unsigned class);

/* What p, an address in one of Pool's slabs, is, as far as we can tell. */
enum hak_pool_state {
    HAK_POOL_USED,   /* a block in use or in a bin */
    HAK_POOL_FREE,   /* a block that is free in its span */
    HAK_POOL_MIDDLE, /* of a block */
    HAK_POOL_NEVER   /* given out */
};
enum hak_pool_state haki_pool_state(const void *p);

/* The class of p's block; p is an address in one of Pool's slabs. */
HAK_INLINE unsigned haki_pool_class_at(const void *p)
{
    return HAK_TAG_CLASS(haki_range_tag_of(p)) - HAK_TAG_POOL;
}

/* The number of the span that p lies in. */
HAK_INLINE uint32_t haki_pool_span(const void *p)
{
    uint32_t number = haki_range_number(p);

    return number - haki_range_back(number);
}

/* The distance of p from the start of its span. */
HAK_INLINE size_t haki_pool_offset(const void *p)
{
    return (size_t)haki_range_back_of(p) << HAK_SLAB_SHIFT |
           ((uintptr_t)p & (HAK_SLAB_SIZE - 1));
}

/* Whether p, in a slab of this class, is the start of a block. */
HAK_INLINE bool haki_pool_is_start(const void *p, unsigned class)
{
    return haki_pool_index(haki_pool_offset(p), class) <
           haki_pool_tables.count[class];
}

/* The bit of p, the start of a block of this class. */
HAK_INLINE uint64_t haki_pool_bit(const void *p, unsigned class)
{
    return (uint64_t)1 << haki_pool_index(haki_pool_offset(p), class);
}

/*
 * Hardened build: notes that p, a block of this class, goes into the bin or
 * leaves it; ends the program if it is free already.
 */
HAK_INLINE void haki_pool_note(const void *p, unsigned class, bool in)
{
    if (HAK_HARD) {
        struct hak_slab *span = haki_range_slab(haki_pool_span(p));
        uint64_t bit = haki_pool_bit(p, class);

        if (!in) {
            span->held &= ~bit;
            return;
        }
        if (HAK_UNLIKELY(((span->held | span->bits |
                           atomic_load_explicit(&span->remote,
                                                memory_order_relaxed)) &
                          bit) != 0)) {
            haki_hard_freed(p, "free");
        }
        span->held |= bit;
    }
}

/*
 * Whether p, in a span of this class, is a block in use or (except in the
 * hardened build) one in a bin.
 */
HAK_INLINE bool haki_pool_is_used(const void *p, unsigned class)
{
    const struct hak_slab *span;
    uint32_t index;

    if (HAK_HARD) {
        return haki_pool_state(p) == HAK_POOL_USED;
    }
    span = haki_range_slab(haki_pool_span(p));
    index = haki_pool_index(haki_pool_offset(p), class);
    return index < haki_pool_tables.count[class] &&
           ((span->ready & ~span->bits) >> index & 1) != 0;
}

/*
 * Hardened build: whether p, the start of a block of this class, was ever given
 * out; ends the program if it is free or was written past its end.
 */
HAK_INLINE bool haki_pool_may_free(const void *p, unsigned class)
{
    enum hak_pool_state state = haki_pool_state(p);

    if (HAK_UNLIKELY(state == HAK_POOL_FREE)) {
        haki_hard_freed(p, "free");
    }
    if (HAK_LIKELY(state == HAK_POOL_USED)) {
        haki_guard_check(p, haki_pool_classes[class].block, "free");
    }
    return state == HAK_POOL_USED;
}

/* Pops a block, or NULL: the bin is empty, or a sample is due; haki_pool_refill. */
HAK_INLINE void *haki_pool_pop(struct hak_pool *pool, unsigned class)
{
    void **top = pool->top[class] - 1;
    void *p = *top;

    if (HAK_LIKELY(p != NULL)) {
        if (HAK_UNLIKELY(--pool->until[class] < 0)) {
            return NULL;
        }
        pool->top[class] = top;
        haki_pool_note(p, class, false);
    }
    return p;
}

HAK_INLINE void *haki_pool_alloc(struct hak_pool *pool, unsigned class)
{
    void *p = haki_pool_pop(pool, class);

    return HAK_LIKELY(p != NULL) ? p : haki_pool_refill(pool, class);
}

/* Pushes a block of this pool; false: it is time for haki_pool_look. */
HAK_INLINE bool haki_pool_push(struct hak_pool *pool, unsigned class, void *p)
{
    void **top = pool->top[class];

    haki_pool_note(p, class, true);
    *top = p;
    /* Last: another thread may fork, and copy the bin, at any instruction. */
    haki_step();
    __atomic_store_n(&pool->top[class], top + 1, __ATOMIC_RELAXED);
    return --pool->left[class] >= 0;
}

/* Frees p, a block of this pool. */
HAK_INLINE void haki_pool_free(struct hak_pool *pool, unsigned class, void *p)
{
    if (HAK_UNLIKELY(!haki_pool_push(pool, class, p))) {
        haki_pool_look(pool, class);
    }
}

#endif /* HAK_POOL_H */
