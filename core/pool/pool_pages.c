/*
 * pool_pages.c - gives single pages of partly used spans back to the system.
 *
 * A span's word of free blocks says all that is needed: nothing is ever written
 * to free blocks, so pages that lie wholly in them can go back, and return by
 * themselves when touched. They are noted (`gone`, range.h) for the sums, and
 * so that none is given back twice.
 *
 * Called by the one thread that uses the heap.
 */
#include "range/pages.h"
#include "pool/pool.h"
#include "range/purge.h"
#include "range/slabs.h"

/* The most spans that give something back in a short sweep. */
#define SPANS_MOST 256

/*
 * The pages of a span that lie wholly in blocks of `bits`, or with `touch` all
 * pages that these blocks touch, as a mask for each slab.
 */
static void pool_masks(const struct hak_slab *span, uint64_t bits, bool touch,
                       uint32_t masks_of[HAK_SPAN_MOST])
{
    unsigned class = span->class - HAK_TAG_POOL;
    size_t end = span->slabs * HAK_SLAB_SIZE;

    while (bits != 0) {
        uint32_t first = (uint32_t)__builtin_ctzll(bits);
        uint64_t rest = ~(bits >> first);
        uint32_t count = rest != 0 ? (uint32_t)__builtin_ctzll(rest) : 64;
        size_t from = (size_t)first * span->block;
        size_t to = (size_t)(first + count) * span->block;

        /* The rest behind the last block counts as part of it. */
        to = first + count == haki_pool_classes[class].count ? end : to;
        from = touch ? from & ~(HAK_PAGE - 1) : haki_round_up(from, HAK_PAGE);
        to = touch ? haki_round_up(to, HAK_PAGE) : to & ~(HAK_PAGE - 1);
        for (size_t at = from; at < to; at += HAK_PAGE) {
            masks_of[at / HAK_SLAB_SIZE] |= (uint32_t)1
                                            << (at % HAK_SLAB_SIZE / HAK_PAGE);
        }
        bits =
            first + count < 64 ? bits >> (first + count) << (first + count) : 0;
    }
}

/*
 * Those free blocks that seem likely to stay free, where this build can tell.
 */
static uint64_t pool_idle_bits(struct hak_slab *span, bool all)
{
    uint64_t bits = span->bits;

    if (HAK_HARD || all) {
        return bits;
    }
    bits &= span->seen;
    span->seen = span->bits;
    return bits;
}

static size_t pool_sweep_span(uint32_t number, bool all)
{
    struct hak_slab *span = haki_range_slab(number);
    uint32_t blocks = haki_pool_classes[span->class - HAK_TAG_POOL].count;
    uint32_t ready = (uint32_t)__builtin_popcountll(span->ready);
    uint32_t masks_of[HAK_SPAN_MOST] = {0};
    uint64_t idle = pool_idle_bits(span, all);
    size_t bytes = 0;

    HAK_ASSERT((idle & ~span->bits) == 0); /* no block in use loses a page */
    pool_masks(span, idle, false, masks_of);
    for (uint32_t i = 0; i < span->slabs; i++) {
        bytes += haki_range_pages_drop(number + i, masks_of[i]);
    }
    /* Blocks never given out may lie on pages resident from before. */
    if (ready < blocks && (all || (idle != 0 && idle == span->bits))) {
        bytes += haki_range_pages_cut(number, span->slabs,
                                      (size_t)ready * span->block);
    }
    return bytes;
}

size_t haki_pool_sweep(struct hak_pool *pool, bool all)
{
    uint32_t spans = 0;
    size_t bytes = 0;

    HAK_ASSERT(atomic_load(&pool->busy));
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        for (uint32_t n = pool->shelves[c].open;
             n != HAK_NO_SLAB && (all || spans < SPANS_MOST);
             n = haki_range_slab(n)->open_next) {
            size_t more = pool_sweep_span(n, all);

            bytes += more;
            spans += more > 0;
        }
    }
    pool->swept = pool->swept || bytes > 0;
    HAK_WALK(haki_pool_walk_due());
    haki_range_purged(bytes);
    return bytes;
}

void haki_pool_wake(const struct hak_pool *pool, uint32_t number, uint64_t bits)
{
    const struct hak_slab *span = haki_range_slab(number);
    unsigned class = span->class - HAK_TAG_POOL;
    bool whole =
        pool->shelves[class].use == HAK_POOL_FULL || span->block <= HAK_PAGE;
    uint32_t masks_of[HAK_SPAN_MOST] = {0};

    HAK_ASSERT((bits & ~span->ready) == 0 && (bits & span->bits) == 0);
    pool_masks(span, bits, true, masks_of);
    for (uint32_t i = 0; i < span->slabs; i++) {
        haki_range_pages_wake(number + i, masks_of[i], whole);
    }
}
