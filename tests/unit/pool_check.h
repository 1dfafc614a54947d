/*
 * pool_check.h - walks a Pool state and verifies what core/pool/pool.h promises.
 *
 * Call it from the thread that uses the pool while nobody frees its blocks.
 * The first broken promise ends the process with a line naming it.
 */
#ifndef POOL_CHECK_H
#define POOL_CHECK_H

#include "heap/heap.h"
#include "pool/pool.h"
#include "range/slabs.h"
#include "range/slots.h"
#include "unit.h"

/* What the spans come to. */
struct pool_sums {
    size_t spans, slabs, remote; /* spans with remote frees */
    size_t sealed;               /* slabs; `slabs` are the others */
    size_t in_class[HAK_POOL_CLASSES];
    size_t open[HAK_POOL_CLASSES];
    size_t taken[HAK_POOL_CLASSES]; /* blocks */
    size_t bins[HAK_POOL_CLASSES];  /* blocks in them */
    size_t live_bytes;              /* in use, or in remote words */
};

UNIT uint64_t pool_all_bits(unsigned class)
{
    unsigned count = hak_pool_classes[class].count;

    return count == 64 ? UINT64_MAX : ((uint64_t)1 << count) - 1;
}

/* One span's own fields, and the tags of its slabs. */
UNIT void pool_check_span(const struct hak_pool *pool, uint32_t number,
                          struct pool_sums *sums)
{
    const struct hak_slab *span = hak_range_slab(number);
    unsigned class = span->class - HAK_TAG_POOL;
    bool sealed = hak_range_sealed((size_t)number << HAK_SLAB_SHIFT);
    uint64_t remote, taken;

    NEED(class < HAK_POOL_CLASSES);
    NEED(span->block == hak_pool_classes[class].block);
    NEED(span->slabs == hak_pool_classes[class].slabs);
    NEED((span->bits & ~span->ready) == 0);
    NEED((span->ready & ~pool_all_bits(class)) == 0);
    NEED((span->ready & (span->ready + 1)) == 0); /* from the first one on */
    remote = atomic_load(&((struct hak_slab *)(uintptr_t)span)->remote);
    taken = span->ready & ~span->bits;
    NEED((remote & ~taken) == 0);
    /* What is ready has been made resident, or left to faults. */
    NEED((size_t)__builtin_popcountll(span->ready) * span->block <=
         hak_range_resident(number, span->slabs));
    for (uint32_t i = 0; i < span->slabs; i++) {
        NEED(hak_range_back(number + i) == i);
        NEED(hak_range_slab(number + i)->populated <= HAK_SLAB_SIZE);
        NEED(hak_range_tag((size_t)(number + i) << HAK_SLAB_SHIFT) ==
             ((pool->tag + class) | (sealed ? HAK_TAG_SEALED : 0)));
    }
    NEED(!sealed || taken != 0);
    sums->spans++;
    sums->slabs += sealed ? 0 : span->slabs;
    sums->sealed += sealed ? span->slabs : 0;
    sums->in_class[class]++;
    sums->open[class] +=
        !sealed && (span->bits != 0 || span->ready != pool_all_bits(class));
    sums->remote += remote != 0;
    sums->taken[class] += (size_t)__builtin_popcountll(taken);
}

/* A page that is gone touches no block but those of `bits`. */
UNIT void pool_check_gone(const struct hak_pool *pool, uint32_t number)
{
    const struct hak_slab *span = hak_range_slab(number);
    uint32_t ready = (uint32_t)__builtin_popcountll(span->ready);

    for (size_t at = 0; at < span->slabs * HAK_SLAB_SIZE; at += HAK_PAGE) {
        uint32_t slab = number + (uint32_t)(at / HAK_SLAB_SIZE);
        uint32_t page = (uint32_t)(at % HAK_SLAB_SIZE / HAK_PAGE);

        if ((hak_range_slab(slab)->gone >> page & 1) == 0) {
            continue;
        }
        NEED(pool->swept);
        NEED(page * HAK_PAGE < hak_range_slab(slab)->populated);
        for (size_t i = at / span->block;
             i < ready && i * span->block < at + HAK_PAGE; i++) {
            NEED((span->bits >> i & 1) != 0);
        }
    }
}

/* A bin: each of its blocks is taken from a span of the pool's, and once. */
UNIT void pool_check_bin(const struct hak_pool *pool, unsigned class,
                         struct pool_sums *sums)
{
    void *const *stack = &pool->stacks[class * pool->places];
    size_t count = (size_t)(pool->top[class] - stack) - 1;

    NEED(stack[0] == NULL);
    NEED(pool->places == HAK_POOL_STACK ||
         pool->places == HAK_POOL_STACK_SHORT);
    NEED(count < pool->places);
    NEED(pool->left[class] >= 0);
    NEED(pool->left[class] <= pool->grant[class]);
    NEED(count + (size_t)pool->left[class] < pool->places - 1);
    for (size_t i = 1; i <= count; i++) {
        uint32_t number = hak_pool_span(stack[i]);
        struct hak_slab *span = hak_range_slab(number);
        uint32_t index = hak_pool_index((size_t)((char *)stack[i] -
                                                 hak_range_slab_start(number)),
                                        class);
        uint64_t bit = (uint64_t)1 << (index & 63);

        NEED(index < hak_pool_classes[class].count);
        NEED(hak_range_tag_of(stack[i]) == pool->tag + class);
        NEED((span->ready & ~span->bits & bit) != 0);
        NEED((atomic_load(&span->remote) & bit) == 0);
        for (size_t k = 1; k < i; k++) {
            NEED(stack[k] != stack[i]);
        }
    }
    sums->bins[class] = count;
}

UNIT void pool_check_open(const struct hak_pool *pool, unsigned class,
                          size_t open)
{
    uint32_t before = HAK_NO_SLAB;
    size_t count = 0, idle = 0;

    for (uint32_t n = pool->shelves[class].open; n != HAK_NO_SLAB;) {
        const struct hak_slab *span = hak_range_slab(n);

        NEED(span->class == HAK_TAG_POOL + class);
        NEED(before == HAK_NO_SLAB || span->open_before == before);
        NEED(span->bits != 0 || span->ready != pool_all_bits(class));
        NEED(++count <= open);
        idle += span->bits == span->ready;
        before = n;
        n = span->open_next;
    }
    NEED(count == open);
    NEED(count == 0 ||
         hak_range_slab(pool->shelves[class].open)->open_before == before);
    NEED(idle <= 1); /* the others have been given back */
}

/* The inbox: each of its spans has remote frees, each that has is there. */
UNIT void pool_check_inbox(const struct hak_pool *pool, size_t remote)
{
    struct hak_pool *mine = (struct hak_pool *)(uintptr_t)pool;
    size_t count = 0;

    for (uint32_t n = atomic_load(&mine->inbox); n != HAK_NO_SLAB;
         n = hak_range_slab(n)->inbox_next) {
        NEED(hak_range_back(n) == 0);
        NEED(atomic_load(&hak_range_slab(n)->remote) != 0);
        NEED(++count <= remote);
    }
    NEED(count == remote);
}

/* No slab outside the pool's list may carry its tag. */
UNIT void pool_check_tags(const struct hak_pool *pool)
{
    uint32_t id = HAK_TAG_HEAP(pool->tag);
    size_t count = 0;

    for (size_t n = 0; n < hak_range.size / HAK_SLAB_SIZE; n++) {
        uint32_t tag = hak_range_tag(n << HAK_SLAB_SHIFT);

        count += HAK_TAG_HEAP(tag) == id &&
                 HAK_TAG_CLASS(tag) >= HAK_TAG_POOL &&
                 HAK_TAG_CLASS(tag) < HAK_TAG_POOL + HAK_POOL_CLASSES;
    }
    NEED(count == pool->nslabs + pool->nsealed);
}

/* All but the tags, which is slow; the sums. */
UNIT struct pool_sums pool_check_quick(const struct hak_pool *pool)
{
    struct pool_sums sums = {0};
    uint32_t before = HAK_NO_SLAB;

    NEED(!atomic_load(&((struct hak_pool *)(uintptr_t)pool)->busy));
    for (uint32_t n = pool->all; n != HAK_NO_SLAB;) {
        NEED(hak_range_slab(n)->all_prev == before);
        pool_check_span(pool, n, &sums);
        pool_check_gone(pool, n);
        NEED(sums.slabs <= pool->nslabs && sums.sealed <= pool->nsealed);
        before = n;
        n = hak_range_slab(n)->all_next;
    }
    NEED(sums.slabs == pool->nslabs && sums.sealed == pool->nsealed);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        pool_check_open(pool, c, sums.open[c]);
        pool_check_bin(pool, c, &sums);
        NEED(pool->shelves[c].taken == (int64_t)sums.taken[c]);
        NEED(sums.taken[c] >= sums.bins[c]);
        NEED(hak_pool_live(pool, c) == sums.taken[c] - sums.bins[c]);
        sums.live_bytes +=
            (sums.taken[c] - sums.bins[c]) * hak_pool_classes[c].block;
    }
    pool_check_inbox(pool, sums.remote);
    return sums;
}

UNIT struct pool_sums pool_check(const struct hak_pool *pool)
{
    pool_check_tags(pool);
    return pool_check_quick(pool);
}

/* ---- Pool states without a thread around them ----------------------------- */

/* The Pool state of a heap slot of its own; hak_range_heap(id) leads there. */
UNIT struct hak_pool *pool_new(uint32_t *id)
{
    struct hak_heap *heap;

    NEED(hak_range_init());
    heap = hak_range_heap_take(id);
    NEED(heap != NULL);
    hak_tiny_init(&heap->tiny, *id, false);
    atomic_store(&heap->state, HAK_HEAP_OWNED);
    heap->pool = NULL;
    hak_heap_use_large(heap);
    return heap->pool;
}

#endif /* POOL_CHECK_H */
