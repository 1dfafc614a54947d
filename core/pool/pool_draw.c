/*
 * pool_draw.c - the bins' count-downs to samples: as tiny_draw.c's.
 *
 * Called by the heap's one user.
 *
 * Tested by tests/unit/profile/profile.c.
 */
#include "pool/pool.h"

_Static_assert(HAK_SAMPLING_POOL + HAK_POOL_CLASSES <= HAK_SAMPLING_BINS,
               "a place for each bin");

static int64_t *pool_draw_at(struct hak_pool *pool, unsigned class)
{
    return &pool->sampling->at[HAK_SAMPLING_POOL + class];
}

/* The bin's next sample; as in tiny_draw.c only for a class with blocks out of spans. */
static void pool_draw(struct hak_pool *pool, unsigned class)
{
    int64_t pops = (int64_t)haki_pool_pops(pool, class);
    int64_t until = haki_profile_draw(haki_pool_classes[class].block,
                                      &pool->sampling->random);

    *pool_draw_at(pool, class) = pops + until;
    pool->until[class] = until;
}

void haki_pool_draw_first(struct hak_pool *pool, unsigned class)
{
    if (*pool_draw_at(pool, class) == HAK_NEVER) {
        pool_draw(pool, class);
    }
}

/* The class is not drawn for any more. */
static void pool_undraw(struct hak_pool *pool, unsigned class)
{
    if (*pool_draw_at(pool, class) != HAK_NEVER) {
        int64_t pops = (int64_t)haki_pool_pops(pool, class);

        *pool_draw_at(pool, class) = HAK_NEVER;
        pool->until[class] = HAK_NEVER - pops;
    }
}

void haki_pool_draw_never(struct hak_pool *pool)
{
    if (pool->sampled) {
        for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
            pool->until[c] = HAK_NEVER - (int64_t)haki_pool_pops(pool, c);
        }
        pool->sampled = false;
    }
    pool->round = 0;
}

/* From here on the bins take part in a profile. */
static void pool_draw_begin(struct hak_pool *pool)
{
    if (!pool->sampled) {
        for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
            *pool_draw_at(pool, c) = HAK_NEVER;
        }
        pool->sampled = pool->was_sampled = true;
    }
    pool->sampling->random = haki_sample_seed();
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        if (pool->shelves[c].taken != 0) {
            pool_draw(pool, c);
        } else {
            pool_undraw(pool, c);
        }
    }
}

void haki_pool_draw_round(struct hak_pool *pool)
{
    uint32_t round =
        atomic_load_explicit(&haki_profile.round, memory_order_acquire);
    size_t rate =
        atomic_load_explicit(&haki_profile.draw, memory_order_relaxed);

    HAK_ASSERT(atomic_load(&pool->busy));
    if (rate != 0 && pool->sampling != NULL) {
        pool_draw_begin(pool);
    } else {
        haki_pool_draw_never(pool);
    }
    pool->round = round;
}

/* A sample of the class was due, or there is another round: the next one. */
static void pool_draw_next(struct hak_pool *pool, unsigned class)
{
    size_t rate =
        atomic_load_explicit(&haki_profile.draw, memory_order_relaxed);

    haki_pool_busy(pool, true);
    if (haki_pool_must_draw(pool, 0) || rate == 0 || !pool->sampled) {
        haki_pool_draw_round(pool);
    } else {
        pool_draw(pool, class);
    }
    haki_pool_busy(pool, false);
}

/* There was no room for a sample: a block of the bin, or NULL, without a count. */
static void *pool_pop_uncounted(struct hak_pool *pool, unsigned class)
{
    void *p;

    haki_pool_busy(pool, true);
    if (pool->sampled && pool->top[class][-1] != NULL) {
        pool->until[class] += 1;
        *pool_draw_at(pool, class) += 1;
    }
    p = haki_pool_pop(pool, class);
    haki_pool_busy(pool, false);
    return p;
}

void *haki_pool_pop_drawn(struct hak_pool *pool, unsigned class)
{
    bool due = pool->until[class] < 0;
    void *p = NULL;

    pool_draw_next(pool, class);
    if (!due) {
        p = haki_pool_pop(pool, class);
        due = pool->until[class] < 0;
        if (due) {
            pool_draw_next(pool, class);
        }
    }
    if (due) {
        p = haki_sample_take(haki_pool_classes[class].block, &pool->who);
        p = p != NULL ? p : pool_pop_uncounted(pool, class);
    }
    return p;
}
