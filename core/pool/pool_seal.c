/*
 * pool_seal.c - the fork seal in the Pool lane: sealed spans.
 *
 * Called by the one thread that uses the heap.
 *
 * Tested by tests/unit/api/seal.c.
 */
#include "pool/pool.h"
#include "range/slabs.h"

/* Gives back a sealed span of which no block is taken. */
static void pool_give(struct hak_pool *pool, uint32_t number)
{
    uint8_t slabs = haki_range_slab(number)->slabs;

    HAK_ASSERT(pool->nsealed >= slabs);
    haki_slab_leave(&pool->all, number);
    pool->nsealed -= slabs;
    haki_range_slabs_give(number, slabs, HAK_LANE_POOL);
    HAK_WALK(haki_pool_walk_due());
}

void haki_pool_seal_put(struct hak_pool *pool, uint32_t number, uint64_t bits,
                        int64_t n)
{
    struct hak_slab *span = haki_range_slab(number);

    HAK_ASSERT(haki_range_sealed((size_t)number << HAK_SLAB_SHIFT));
    HAK_CHECK((bits & span->bits) == 0 && (bits & ~span->ready) == 0);
    span->bits |= bits;
    pool->shelves[span->class - HAK_TAG_POOL].taken -= n;
    haki_keep_taken(pool->allow, -n * (int64_t)span->block);
    if (span->bits == span->ready) {
        pool_give(pool, number);
    }
}

bool haki_pool_seal_free(struct hak_pool *pool, void *p)
{
    if (haki_pool_state(p) != HAK_POOL_USED) {
        return false;
    }
    haki_pool_busy(pool, true);
    haki_pool_seal_put(pool, haki_pool_span(p),
                       haki_pool_bit(p, haki_pool_class_at(p)), 1);
    haki_pool_busy(pool, false);
    return true;
}

void haki_pool_seal(struct hak_pool *pool)
{
    haki_pool_trim(pool);
    haki_pool_busy(pool, true);
    for (uint32_t n = pool->all; n != HAK_NO_SLAB;
         n = haki_range_slab(n)->all_next) {
        for (uint32_t i = 0; i < haki_range_slab(n)->slabs; i++) {
            haki_range_seal(n + i);
        }
    }
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        pool->shelves[c].open = HAK_NO_SLAB;
        pool->shelves[c].last = HAK_NO_SLAB;
    }
    pool->nsealed += pool->nslabs;
    pool->allow->slabs -= (int64_t)(pool->nslabs * HAK_SLAB_SIZE);
    HAK_ASSERT(pool->nempty == 0 && pool->allow->slabs >= 0);
    pool->nslabs = 0;
    haki_pool_busy(pool, false);
}
