/*
 * pool_bin.h - a Pool bin, which is a stack: what it holds, and when it is
 * looked at; and the lane's spans.
 *
 * For pool*.c only; called by the heap's user.
 */
#ifndef HAK_POOL_BIN_H
#define HAK_POOL_BIN_H

#include "pool/pool.h"
#include "range/slabs.h"

/*
 * A bin may keep HAK_STACK_LEAST bytes; up to HAK_STACK_MOST if that is at most
 * 1/2^HAK_STACK_SHIFT of the pool's slabs; 1/2^HAK_STACK_SHIFT_LARGE of them if
 * that is more; and always HAK_STACK_BLOCKS_LEAST blocks, as long as all bins
 * together keep what allowance.h says. A refill takes at most
 * HAK_STACK_REFILL_MOST blocks of a span. With this a batch of 4 MB in blocks
 * of 1 to 8 KB comes from the bins alone: 7.9 ns per block instead of 16.7.
 */
#define HAK_STACK_LEAST (256 * HAK_KIB)
#define HAK_STACK_SHIFT 2
#define HAK_STACK_MOST HAK_MIB
#define HAK_STACK_SHIFT_LARGE 5
#define HAK_STACK_BLOCKS_LEAST 4
#define HAK_STACK_REFILL_MOST 16

#define HAK_STACK_SPARSE_PART 16 /* as in tiny.c */

/* As in tiny_back.c: pushes until a look while memory waits to go back. */
#define HAK_STACK_GRANT_WAITING 16

_Static_assert(HAK_POOL_STACK_SHORT - 1 <= HAK_STACK_BLOCKS_LEAST,
               "a short stack is full before the budget is used up");

/*
 * How many blocks of the class make up `bytes`: by a short division, as every
 * look at a bin needs this.
 */
HAK_INLINE uint32_t haki_stack_blocks(size_t bytes, unsigned class)
{
    return (uint32_t)haki_min(bytes, HAK_GIB) / haki_pool_classes[class].block;
}

/* The most blocks that a bin of the class may hold. */
HAK_INLINE int32_t haki_stack_budget(const struct hak_pool *pool,
                                     unsigned class)
{
    size_t held = pool->nslabs * HAK_SLAB_SIZE;
    size_t bytes = haki_min(held >> HAK_STACK_SHIFT, HAK_STACK_MOST);
    size_t blocks;

    if (pool->places == HAK_POOL_STACK_SHORT) { /* every new heap comes here */
        return HAK_POOL_STACK_SHORT - 1;
    }
    bytes = haki_max(haki_max(bytes, HAK_STACK_LEAST),
                     held >> HAK_STACK_SHIFT_LARGE);
    blocks = haki_stack_blocks(bytes, class);
    return (int32_t)haki_min(haki_max(blocks, HAK_STACK_BLOCKS_LEAST),
                             pool->places - 1);
}

/* The bottom of a bin's stack, where a NULL is. */
HAK_RACY_INLINE void **haki_stack_bottom(const struct hak_pool *pool,
                                         unsigned class)
{
    return (void **)&pool->stacks[class * pool->places];
}

/* Blocks in the bin. */
HAK_RACY_INLINE int32_t haki_stack_count(const struct hak_pool *pool,
                                         unsigned class)
{
    return (int32_t)(pool->top[class] - haki_stack_bottom(pool, class)) - 1;
}

/* Notes what the bin holds; returns whether that is more than last noted. */
HAK_INLINE bool haki_stack_note(struct hak_pool *pool, unsigned class)
{
    struct hak_pool_shelf *shelf = &pool->shelves[class];
    int32_t more = haki_stack_count(pool, class) - shelf->seen;

    haki_keep_note(pool->allow, HAK_KEEPS_POOL,
                   (int64_t)more * haki_pool_classes[class].block);
    HAK_ASSERT(haki_stack_count(pool, class) >= 0 &&
               haki_stack_count(pool, class) < (int32_t)pool->places);
    shelf->seen = (uint8_t)haki_stack_count(pool, class);
    return more > 0;
}

/* n blocks of the class come out of spans, or, if negative, go back. */
HAK_INLINE void haki_pool_take(struct hak_pool *pool, unsigned class, int64_t n)
{
    if (HAK_UNLIKELY(pool->sampled) && pool->shelves[class].taken == 0) {
        haki_pool_draw_first(pool, class);
    }
    pool->shelves[class].taken += n;
    HAK_ASSERT(pool->shelves[class].taken >= 0);
    haki_keep_taken(pool->allow, n * haki_pool_classes[class].block);
}

/*
 * The lesser of `pushes` and the number of blocks in `bytes`, without a
 * division where possible.
 */
HAK_INLINE int32_t haki_stack_at_most(int32_t pushes, size_t bytes,
                                      unsigned class)
{
    if (pushes > 0 &&
        (uint32_t)pushes * (size_t)haki_pool_classes[class].block > bytes) {
        pushes = (int32_t)haki_stack_blocks(bytes, class);
    }
    return pushes;
}

/* As in tiny_bin.h: the most pushes until the next look at a growing bin. */
HAK_INLINE int32_t haki_stack_bound_pushes(const struct hak_pool *pool,
                                           unsigned class, int32_t pushes)
{
    int64_t used = pool->shelves[class].taken - pool->shelves[class].seen;
    int32_t most;

    if (HAK_UNLIKELY(haki_is_watched(pool->allow))) {
        most = (int32_t)haki_min((size_t)used / HAK_STACK_SPARSE_PART,
                                 HAK_POOL_STACK);
    } else if (pushes <= HAK_STACK_BLOCKS_LEAST) {
        most = pushes;
    } else {
        most = haki_stack_at_most(pushes, haki_keep_step(pool->allow), class);
        most = (int32_t)haki_max((size_t)most, HAK_STACK_BLOCKS_LEAST);
    }
    return pushes < most ? pushes : most;
}

HAK_INLINE void haki_stack_set_left(struct hak_pool *pool, unsigned class,
                                    int32_t pushes)
{
    if (pool->waiting && pool->skips == 0 && pushes > HAK_STACK_GRANT_WAITING) {
        pushes = HAK_STACK_GRANT_WAITING;
    }
    pool->left[class] = pool->grant[class] = pushes > 1 ? pushes - 1 : 0;
}

/*
 * Makes the next look at a bin, which was noted and may hold `budget` blocks,
 * come when it is full, or sooner.
 */
HAK_INLINE void haki_stack_grant_noted(struct hak_pool *pool, unsigned class,
                                       int32_t budget)
{
    int32_t pushes = budget - haki_stack_count(pool, class);

    haki_stack_set_left(pool, class,
                        haki_stack_bound_pushes(pool, class, pushes));
}

/* Notes the bin and sets when it is looked at next. */
HAK_INLINE void haki_stack_grant_here(struct hak_pool *pool, unsigned class)
{
    haki_stack_note(pool, class);
    haki_stack_grant_noted(pool, class, haki_stack_budget(pool, class));
}

/* The same, as a call: for who seldom does it. */
void haki_stack_grant(struct hak_pool *pool, unsigned class);

/* The same for a bin that was noted and has not grown since the last look. */
HAK_INLINE void haki_stack_grant_steady(struct hak_pool *pool, unsigned class,
                                        int32_t budget)
{
    int32_t pushes = budget - haki_stack_count(pool, class);

    haki_stack_set_left(pool, class,
                        haki_stack_at_most(pushes, HAK_STACK_MOST, class));
}

/* The bits of the first n blocks. */
HAK_INLINE uint64_t haki_span_first_bits(uint32_t n)
{
    return n >= 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1;
}

HAK_INLINE unsigned haki_span_class(const struct hak_slab *span)
{
    return span->class - HAK_TAG_POOL;
}

/* Whether all of a span's blocks are taken, and it belongs in no list. */
HAK_INLINE bool haki_span_is_full(const struct hak_slab *span)
{
    return span->bits == 0 &&
           span->ready == haki_span_first_bits(
                              haki_pool_classes[haki_span_class(span)].count);
}

/* Its owner may be changing bits, but not the bit of a block in use. */
HAK_RACY_INLINE enum hak_pool_state haki_span_state(const struct hak_slab *span,
                                                    uint64_t bit)
{
    if ((bit & *(const volatile uint64_t *)&span->ready) == 0) {
        return HAK_POOL_NEVER;
    }
    if (HAK_HARD && (bit & *(const volatile uint64_t *)&span->held) != 0) {
        return HAK_POOL_FREE;
    }
    return (bit & *(const volatile uint64_t *)&span->bits) != 0 ? HAK_POOL_FREE
                                                                : HAK_POOL_USED;
}

/*
 * Whether a span of `slabs` slabs may be kept unused as well; with 0, whether
 * those kept now may stay. A thread may always keep one.
 */
HAK_INLINE bool haki_pool_may_keep_empty(const struct hak_pool *pool,
                                         uint32_t slabs)
{
    uint32_t most = haki_may_keep_empty(pool->allow, pool->nslabs);

    if (!haki_is_frugal(pool->allow)) {
        most = (uint32_t)haki_max(most, slabs != 0 ? slabs : HAK_SPAN_MOST);
    }
    return pool->nempty + slabs <= most;
}

/* Gives back a span of which no block is taken, one of nempty. */
void haki_span_give(struct hak_pool *pool, uint32_t number);

/* n blocks of a span, those of `bits`, are free again. */
void haki_span_put(struct hak_pool *pool, uint32_t number, uint64_t bits,
                   int64_t n);

/* The n blocks that have been in the bin for longest go back to their spans. */
void haki_stack_flush(struct hak_pool *pool, unsigned class, int32_t n);

/* Ends the program: p was freed and should not have been. */
HAK_COLD void haki_pool_misuse(const void *p, enum hak_pool_state state);

/* Empties the bins; gives back the spans that this leaves without a block. */
void haki_pool_flush(struct hak_pool *pool);

/*
 * Does what is due while memory waits to go back; for callers in a slow path.
 */
void haki_pool_tick_within(struct hak_pool *pool);

#endif /* HAK_POOL_BIN_H */
