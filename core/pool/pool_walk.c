/*
 * pool_walk.c - walks a Pool state and checks the invariants of pool.h.
 *
 * Tested by tests/unit/pool/pool.c, after every kind of use.
 */
#include "pool/pool_walk.h"

#if HAK_WALKS

#include "pool/pool.h"
#include "range/slabs.h"

static __thread bool pool_walk_is_due;

void haki_pool_walk_due(void)
{
    pool_walk_is_due = true;
}

void haki_pool_walk_if_due(const struct hak_pool *pool)
{
    if (pool_walk_is_due) {
        pool_walk_is_due = false;
        haki_pool_walk(pool, false);
    }
}

static uint64_t pool_walk_all_bits(unsigned class)
{
    unsigned count = haki_pool_classes[class].count;

    return count == 64 ? UINT64_MAX : ((uint64_t)1 << count) - 1;
}

/* One span's own fields, and the tags of its slabs. */
static void pool_walk_span(const struct hak_pool *pool, uint32_t number,
                           struct hak_pool_sums *sums)
{
    const struct hak_slab *span = haki_range_slab(number);
    unsigned class = span->class - HAK_TAG_POOL;
    bool sealed = haki_range_sealed((size_t)number << HAK_SLAB_SHIFT);
    uint64_t remote, taken;

    HAK_PROVE(class < HAK_POOL_CLASSES);
    HAK_PROVE(span->block == haki_pool_classes[class].block);
    HAK_PROVE(span->slabs == haki_pool_classes[class].slabs);
    HAK_PROVE((span->bits & ~span->ready) == 0);
    HAK_PROVE((span->ready & ~pool_walk_all_bits(class)) == 0);
    HAK_PROVE((span->ready & (span->ready + 1)) ==
              0); /* from the first one on */
    remote = atomic_load(&span->remote);
    taken = span->ready & ~span->bits;
    HAK_PROVE((remote & ~taken) == 0);
    /* Ready blocks have been made resident, or left to faults. */
    HAK_PROVE((size_t)__builtin_popcountll(span->ready) * span->block <=
              haki_range_resident(number, span->slabs));
    for (uint32_t i = 0; i < span->slabs; i++) {
        HAK_PROVE(haki_range_back(number + i) == i);
        HAK_PROVE(haki_range_slab(number + i)->resident <= HAK_SLAB_SIZE);
        HAK_PROVE(haki_range_tag((size_t)(number + i) << HAK_SLAB_SHIFT) ==
                  ((pool->tag + class) | (sealed ? HAK_TAG_SEALED : 0)));
    }
    HAK_PROVE(!sealed || taken != 0);
    sums->spans++;
    sums->slabs += sealed ? 0 : span->slabs;
    sums->sealed += sealed ? span->slabs : 0;
    sums->empty += !sealed && taken == 0 ? span->slabs : 0;
    sums->in_class[class]++;
    sums->open[class] += !sealed && (span->bits != 0 ||
                                     span->ready != pool_walk_all_bits(class));
    sums->remote += remote != 0;
    sums->taken[class] += (size_t)__builtin_popcountll(taken);
}

/* A page that is gone touches only blocks of `bits`. */
static void pool_walk_gone(const struct hak_pool *pool, uint32_t number)
{
    const struct hak_slab *span = haki_range_slab(number);
    uint32_t ready = (uint32_t)__builtin_popcountll(span->ready);

    for (size_t at = 0; at < span->slabs * HAK_SLAB_SIZE; at += HAK_PAGE) {
        uint32_t slab = number + (uint32_t)(at / HAK_SLAB_SIZE);
        uint32_t page = (uint32_t)(at % HAK_SLAB_SIZE / HAK_PAGE);

        if ((haki_range_slab(slab)->gone >> page & 1) == 0) {
            continue;
        }
        HAK_PROVE(pool->swept);
        HAK_PROVE(page * HAK_PAGE < haki_range_slab(slab)->resident);
        for (size_t i = at / span->block;
             i < ready && i * span->block < at + HAK_PAGE; i++) {
            HAK_PROVE((span->bits >> i & 1) != 0);
        }
    }
}

/*
 * A bin: each of its blocks is taken from a span of this pool, and occurs once.
 */
static void pool_walk_bin(const struct hak_pool *pool, unsigned class,
                          struct hak_pool_sums *sums)
{
    void *const *stack = &pool->stacks[class * pool->places];
    size_t count = (size_t)(pool->top[class] - stack) - 1;

    HAK_PROVE(stack[0] == NULL);
    HAK_PROVE(pool->places == HAK_POOL_STACK ||
              pool->places == HAK_POOL_STACK_SHORT);
    HAK_PROVE(count < pool->places);
    HAK_PROVE(pool->left[class] >= 0);
    HAK_PROVE(pool->left[class] <= pool->grant[class]);
    HAK_PROVE(count + (size_t)pool->left[class] < pool->places - 1);
    for (size_t i = 1; i <= count; i++) {
        uint32_t number = haki_pool_span(stack[i]);
        struct hak_slab *span = haki_range_slab(number);
        uint32_t index = haki_pool_index(
            (size_t)((char *)stack[i] - haki_range_slab_start(number)), class);
        uint64_t bit = (uint64_t)1 << (index & 63);

        HAK_PROVE(index < haki_pool_classes[class].count);
        HAK_PROVE(haki_range_tag_of(stack[i]) == pool->tag + class);
        HAK_PROVE((span->ready & ~span->bits & bit) != 0);
        HAK_PROVE((atomic_load(&span->remote) & bit) == 0);
        for (size_t k = 1; k < i; k++) {
            HAK_PROVE(stack[k] != stack[i]);
        }
    }
    sums->bins[class] = count;
}

static void pool_walk_open(const struct hak_pool *pool, unsigned class,
                           size_t open)
{
    uint32_t before = HAK_NO_SLAB;
    size_t count = 0, idle = 0;

    for (uint32_t n = pool->shelves[class].open; n != HAK_NO_SLAB;) {
        const struct hak_slab *span = haki_range_slab(n);

        HAK_PROVE(span->class == HAK_TAG_POOL + class);
        HAK_PROVE(before == HAK_NO_SLAB || span->open_before == before);
        HAK_PROVE(span->bits != 0 || span->ready != pool_walk_all_bits(class));
        HAK_PROVE(++count <= open);
        idle += span->bits == span->ready;
        before = n;
        n = span->open_next;
    }
    HAK_PROVE(count == open);
    HAK_PROVE(count == 0 ||
              haki_range_slab(pool->shelves[class].open)->open_before ==
                  before);
    HAK_PROVE(idle <= 1); /* the others have been given back */
}

/* The inbox contains exactly the spans with remote frees. */
static void pool_walk_inbox(const struct hak_pool *pool, size_t remote)
{
    size_t count = 0;

    for (uint32_t n = atomic_load(&pool->inbox); n != HAK_NO_SLAB;
         n = haki_range_slab(n)->inbox_next) {
        HAK_PROVE(haki_range_back(n) == 0);
        HAK_PROVE(atomic_load(&haki_range_slab(n)->remote) != 0);
        HAK_PROVE(++count <= remote);
    }
    HAK_PROVE(count == remote);
}

struct hak_pool_sums haki_pool_walk(const struct hak_pool *pool, bool quiet)
{
    struct hak_pool_sums sums = {0};
    uint32_t before = HAK_NO_SLAB;
    int64_t kept = 0;

    for (uint32_t n = pool->all; n != HAK_NO_SLAB;) {
        HAK_PROVE(haki_range_slab(n)->all_prev == before);
        pool_walk_span(pool, n, &sums);
        pool_walk_gone(pool, n);
        HAK_PROVE(sums.slabs <= pool->nslabs && sums.sealed <= pool->nsealed);
        before = n;
        n = haki_range_slab(n)->all_next;
    }
    HAK_PROVE(sums.slabs == pool->nslabs && sums.sealed == pool->nsealed);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        pool_walk_open(pool, c, sums.open[c]);
        pool_walk_bin(pool, c, &sums);
        kept += (int64_t)pool->shelves[c].seen * haki_pool_classes[c].block;
        HAK_PROVE(pool->shelves[c].taken == (int64_t)sums.taken[c]);
        HAK_PROVE(sums.taken[c] >= sums.bins[c]);
        HAK_PROVE(haki_pool_live(pool, c) == sums.taken[c] - sums.bins[c]);
        sums.live_bytes +=
            (sums.taken[c] - sums.bins[c]) * haki_pool_classes[c].block;
    }
    HAK_PROVE(pool->allow->kept[HAK_KEEPS_POOL] == kept);
    HAK_PROVE(pool->nempty == sums.empty);
    if (quiet) {
        pool_walk_inbox(pool, sums.remote);
    }
    return sums;
}

#endif /* HAK_WALKS */
