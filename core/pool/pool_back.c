/*
 * pool_back.c - the Pool lane: returns blocks to their spans, including those
 * that other threads free, and bounds what all bins keep (allowance.h).
 *
 * Every function except haki_pool_remote_free is called by the one thread that
 * uses the heap.
 *
 * Tested by tests/unit/pool/pool.c and tests/unit/range/allowance.c.
 */
#include "os/lock.h"
#include "os/os.h"
#include "pool/pool_bin.h"
#include "range/pressure.h"
#include "range/purge.h"

/* As in tiny_back.c. */
#define POOL_BUSY_TIME 10
#define POOL_BUSY_SKIPS 15

HAK_NOINLINE void haki_stack_grant(struct hak_pool *pool, unsigned class)
{
    haki_stack_grant_here(pool, class);
}

/* ---- looks --------------------------------------------------------------- */

static void pool_give_empty(struct hak_pool *pool);

/* The bins that have blocks, and how many bytes each. */
struct pool_filled {
    unsigned n;
    uint8_t class[HAK_POOL_CLASSES];
    uint32_t bytes[HAK_POOL_CLASSES];
};

/* Notes what all bins hold. */
static void pool_note_all(struct hak_pool *pool, struct pool_filled *filled)
{
    unsigned n = 0;

    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        uint32_t count = (uint32_t)haki_stack_count(pool, c);

        if (count != pool->shelves[c].seen) {
            haki_stack_note(pool, c);
        }
        filled->class[n] = (uint8_t)c;
        filled->bytes[n] = count * haki_pool_classes[c].block;
        n += count > 0;
    }
    filled->n = n;
}

/*
 * How many bytes each bin may hold so that together they hold at most `most`:
 * bins that hold less leave the rest to the others.
 */
static size_t pool_level(const struct pool_filled *filled, size_t most)
{
    unsigned all = filled->n, before;
    size_t bytes = most / all;

    do {
        size_t left = most;
        unsigned full = 0;

        before = all;
        for (unsigned i = 0; i < filled->n; i++) {
            size_t has = filled->bytes[i];

            full += has > bytes;
            left -= has > bytes ? 0 : has;
        }
        all = full;
        bytes = full > 0 ? left / full : most;
    } while (all != before && all > 0);
    return bytes;
}

/* As in tiny_back.c: empties the fullest bins until Pool's share is met. */
static void pool_shed(struct hak_pool *pool, const struct pool_filled *filled)
{
    struct hak_allowance *allow = pool->allow;
    int64_t before = allow->kept[HAK_KEEPS_POOL];
    int64_t most = haki_may_keep(allow), others = haki_kept(allow) - before;
    bool watched;
    size_t each;

    most -= (int64_t)haki_min((size_t)others, (size_t)most / 2);
    most -= most / 4;
    allow->over = others > most;
    if (before <= most) {
        return;
    }
    watched = haki_is_watched(allow);
    each = pool_level(filled, (size_t)most);
    HAK_ASSERT(filled->n > 0 && each <= (size_t)most);
    for (unsigned i = 0; i < filled->n; i++) {
        unsigned c = filled->class[i];

        if (filled->bytes[i] > each) {
            haki_stack_flush(pool, c,
                             haki_stack_count(pool, c) -
                                 (int32_t)haki_stack_blocks(each, c));
            if (watched) {
                haki_stack_grant(pool, c);
            } else {
                haki_stack_note(pool, c); /* its next look comes no later */
            }
        }
    }
    if (before > allow->kept[HAK_KEEPS_POOL]) {
        haki_keep_gave(allow, (size_t)(before - allow->kept[HAK_KEEPS_POOL]));
    }
}

/* Notes what all bins hold, and gives some back if that is too much. */
static void pool_shed_surplus(struct hak_pool *pool)
{
    struct pool_filled filled;

    pool_note_all(pool, &filled);
    if (haki_kept(pool->allow) > haki_may_keep(pool->allow)) {
        pool_shed(pool, &filled);
    }
}

/* After a look: makes sure that all bins together do not hold too much. */
static void pool_bound(struct hak_pool *pool)
{
    if (HAK_UNLIKELY(!haki_pool_may_keep_empty(pool, 0))) {
        pool_give_empty(pool);
    }
    if (HAK_UNLIKELY(haki_kept(pool->allow) > haki_keep_most(pool->allow))) {
        pool_shed_surplus(pool);
    }
}

void haki_pool_shed(struct hak_pool *pool)
{
    haki_pool_busy(pool, true);
    pool_shed_surplus(pool);
    haki_pool_busy(pool, false);
}

/* Nothing may be kept: empties the bin that grew. */
static void pool_give_class(struct hak_pool *pool, unsigned class)
{
    size_t bytes =
        (size_t)haki_stack_count(pool, class) * haki_pool_classes[class].block;

    haki_stack_flush(pool, class, haki_stack_count(pool, class));
    haki_stack_grant(pool, class);
    haki_keep_gave(pool->allow, bytes);
}

bool haki_pool_look_steady(struct hak_pool *pool, unsigned class)
{
    int32_t count = haki_stack_count(pool, class);
    int32_t budget;

    if (count > pool->shelves[class].seen || haki_pool_must_draw(pool, 0)) {
        return false;
    }
    budget = haki_stack_budget(pool, class);
    if (count >= budget - 1) {
        return false;
    }
    pool->skips -= pool->skips > 0;
    if (pool->places == HAK_POOL_STACK_SHORT) {
        haki_stack_set_left(pool, class, budget - count);
    } else {
        haki_stack_grant_steady(pool, class, budget);
    }
    return true;
}

void haki_pool_look(struct hak_pool *pool, unsigned class)
{
    int32_t budget = haki_stack_budget(pool, class);

    HAK_ASSERT(class < HAK_POOL_CLASSES && pool->left[class] < 0);
    haki_pool_busy(pool, true);
    if (HAK_UNLIKELY(haki_pool_must_draw(pool, 0))) {
        haki_pool_draw_round(pool);
    }
    if (haki_stack_count(pool, class) >= budget - 1) {
        haki_stack_flush(pool, class, (haki_stack_count(pool, class) + 1) / 2);
    }
    if (haki_stack_note(pool, class)) {
        haki_stack_grant_noted(pool, class, budget);
        if (haki_may_keep(pool->allow) ==
            0) { /* the others usually are already */
            pool_give_class(pool, class);
        }
        pool_bound(pool);
    } else {
        haki_stack_grant_steady(pool, class, budget);
    }
    haki_pool_tick_within(pool);
    haki_pool_busy(pool, false);
}

/* ---- blocks that other threads free --------------------------------------------- */

bool haki_pool_remote_free(struct hak_pool *owner, void *p, bool *told)
{
    unsigned class = haki_pool_class_at(p);
    uint32_t number = haki_pool_span(p);
    struct hak_slab *span = haki_range_slab(number);
    uint64_t bit, old;

    *told = false;
    if (!haki_pool_is_start(p, class)) {
        return false;
    }
    HAK_ASSERT(HAK_TAG_HEAP(haki_range_tag_of(p)) == HAK_TAG_HEAP(owner->tag));
    bit = haki_pool_bit(p, class);
    if (haki_span_state(span, bit) != HAK_POOL_USED) {
        return false;
    }
    old = atomic_fetch_or_explicit(&span->remote, bit, memory_order_acq_rel);
    if ((old & bit) != 0) {
        return false;
    }
    if (old == 0) {
        haki_slab_tell(&owner->inbox, number);
        *told = true;
    }
    return true;
}

HAK_RACY_READER bool haki_pool_is_taken(const void *p)
{
    unsigned class = haki_pool_class_at(p);
    const struct hak_slab *span = haki_range_slab(haki_pool_span(p));
    uint32_t index = haki_pool_index(haki_pool_offset(p), class);
    uint64_t bit = (uint64_t)1 << (index & 63);

    return index < haki_pool_tables.count[class] &&
           haki_span_state(span, bit) == HAK_POOL_USED &&
           (atomic_load_explicit(&span->remote, memory_order_relaxed) & bit) ==
               0;
}

HAK_RACY_READER bool haki_pool_remote_put(struct hak_pool *owner,
                                          uint32_t number, uint64_t bits)
{
    struct hak_slab *span = haki_range_slab(number);
    uint64_t old, wrong;

    wrong = bits & ~*(const volatile uint64_t *)&span->ready;
    wrong |= bits & *(const volatile uint64_t *)&span->bits;
    old = atomic_fetch_or_explicit(&span->remote, bits, memory_order_acq_rel);
    wrong |= old & bits;
    if (HAK_UNLIKELY(wrong != 0)) {
        uint64_t bit = wrong & (0 - wrong);

        haki_pool_misuse(haki_range_slab_start(number) +
                             (size_t)__builtin_ctzll(wrong) * span->block,
                         (old & bit) != 0 ? HAK_POOL_FREE
                                          : haki_span_state(span, bit));
    }
    if (old == 0) {
        haki_slab_tell(&owner->inbox, number);
    }
    return old == 0;
}

/* The blocks that are known to be free. */
static uint64_t pool_free_bits(const struct hak_slab *span)
{
    return HAK_HARD ? span->bits | span->held : span->bits;
}

void haki_pool_collect(struct hak_pool *pool)
{
    uint32_t number;

    /* seq_cst: a thread that parks a heap first says so, then looks here. */
    if (HAK_LIKELY(atomic_load_explicit(&pool->inbox, memory_order_seq_cst) ==
                   HAK_NO_SLAB)) {
        return;
    }
    number = atomic_exchange_explicit(&pool->inbox, HAK_NO_SLAB,
                                      memory_order_acquire);
    while (number != HAK_NO_SLAB) {
        struct hak_slab *span = haki_range_slab(number);
        uint32_t next = span->inbox_next;
        /* From here on the span may be put into the inbox again. */
        uint64_t bits =
            atomic_exchange_explicit(&span->remote, 0, memory_order_acq_rel);
        uint64_t n = (uint64_t)__builtin_popcountll(bits);

        HAK_POINT("pool");
        HAK_ASSERT(bits != 0); /* otherwise it is not in the inbox */
        if (HAK_UNLIKELY((bits & pool_free_bits(span)) != 0)) {
            haki_pool_misuse(haki_range_slab_start(number) +
                                 (size_t)__builtin_ctzll(bits &
                                                         pool_free_bits(span)) *
                                     span->block,
                             HAK_POOL_FREE);
        }
        pool->remote_frees += n;
        pool->remote_bytes += n * span->block;
        if (haki_range_sealed((size_t)number << HAK_SLAB_SHIFT)) {
            haki_pool_seal_put(pool, number, bits, (int64_t)n);
        } else {
            haki_span_put(pool, number, bits, (int64_t)n);
        }
        number = next;
    }
}

/* ---- memory back ------------------------------------------------------------------ */

/* Empties the bins; gives back the spans that this leaves without a block. */
void haki_pool_flush(struct hak_pool *pool)
{
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        haki_stack_flush(pool, c, haki_stack_count(pool, c));
        haki_stack_grant(pool, c);
    }
}

/* Gives back every span without a block taken. */
static void pool_give_empty(struct hak_pool *pool)
{
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        uint32_t number = pool->shelves[c].open;

        while (pool->nempty > 0 && number != HAK_NO_SLAB) {
            uint32_t next = haki_range_slab(number)->open_next;

            HAK_ASSERT(!haki_span_is_full(haki_range_slab(number)));
            if (haki_range_slab(number)->bits ==
                haki_range_slab(number)->ready) {
                haki_span_give(pool, number);
            }
            number = next;
        }
    }
    HAK_ASSERT(pool->nempty == 0);
}

/* Empties the bins and gives back every span without a block in use. */
static void pool_give_idle(struct hak_pool *pool)
{
    haki_pool_flush(pool);
    pool_give_empty(pool);
    haki_keep_idle(pool->allow);
}

void haki_pool_trim(struct hak_pool *pool)
{
    haki_pool_busy(pool, true);
    haki_pool_collect(pool);
    pool_give_idle(pool);
    haki_pool_busy(pool, false);
}

void haki_pool_grant_all(struct hak_pool *pool)
{
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        haki_stack_grant(pool, c);
    }
}

static void pool_tick_slow(struct hak_pool *pool)
{
    uint32_t now = haki_os_tick();
    uint32_t idle = haki_idle_delay();
    bool busy = pool->ticked_at != 0 && now - pool->ticked_at < POOL_BUSY_TIME;

    pool->skips = busy ? POOL_BUSY_SKIPS : 0;
    pool->ticked_at = haki_some_time(now);
    if (!pool->waiting) {
        pool->waiting = true;
        pool->idle_at = now + idle;
        haki_pool_grant_all(pool);
    } else if (haki_tick_reached(now, pool->idle_at)) {
        pool->idle_at = now + idle;
        if (!busy || haki_pressure_near()) {
            pool_give_idle(pool);
            haki_pool_sweep(pool, false);
        }
    }
    haki_range_tick(now);
}

/* Called on every slow path: gives back what has been idle for long. */
void haki_pool_tick_within(struct hak_pool *pool)
{
    if (HAK_UNLIKELY(haki_range_waiting())) {
        if (pool->skips > 0) {
            pool->skips--;
        } else {
            pool_tick_slow(pool);
        }
    } else {
        pool->waiting = false;
        pool->skips = 0;
    }
}

void haki_pool_tick(struct hak_pool *pool)
{
    haki_pool_busy(pool, true);
    haki_pool_tick_within(pool);
    haki_pool_busy(pool, false);
}
