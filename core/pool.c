/*
 * pool.c - the Pool lane.
 *
 * Every function but hak_pool_remote_free and the questions about a pointer
 * is called by the one thread that uses the heap.
 */
#include "pool.h"

#include <string.h>

#include "os.h"

/*
 * The page-fault ladder. A class's first span is left to page faults while
 * the process is small: its pages become resident as their blocks are used.
 * From LADDER_FROM bytes on it is populated ahead in small steps, and in
 * larger ones when the class has used up a span.
 */
#define LADDER_FROM HAK_MIB
#define LADDER_FIRST (16 * HAK_KIB)
#define LADDER_MORE HAK_SLAB_SIZE

void hak_pool_init(struct hak_pool *pool, uint32_t id)
{
    memset(pool, 0, sizeof(*pool));
    pool->tag = id << HAK_TAG_CLASS_BITS | HAK_TAG_POOL;
}

void hak_pool_release(struct hak_pool *pool)
{
    uint32_t all = pool->all;

    pool->all = HAK_NO_SLAB;
    pool->nslabs = 0;
    if (all != HAK_NO_SLAB) {
        hak_range_list_give(all, HAK_LANE_POOL);
    }
}

/* Marks the slow paths, as hak_tiny_busy does for Tiny. */
static void busy(struct hak_pool *pool, bool on)
{
    atomic_store_explicit(&pool->busy, on, memory_order_release);
#ifndef HAK_TSAN /* gcc's thread sanitizer knows no fences */
    atomic_thread_fence(memory_order_release);
#endif
}

/* ---- spans ---------------------------------------------------------------- */

/* The bits of the first n blocks. */
static uint64_t first_bits(uint32_t n)
{
    return n >= 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1;
}

static unsigned class_of(const struct hak_slab *span)
{
    return span->class - HAK_TAG_POOL;
}

/* All blocks of the span. */
static uint64_t all_bits(const struct hak_slab *span)
{
    return first_bits(hak_pool_classes[class_of(span)].count);
}

/* The number of the span that slab `number` is part of. */
static uint32_t span_of(uint32_t number)
{
    return number - hak_range_slab(number)->back;
}

/* A new span, open, with no block ready. */
static uint32_t span_take(struct hak_pool *pool, unsigned class)
{
    uint8_t slabs = hak_pool_classes[class].slabs;
    uint32_t number = hak_range_slabs_take(slabs, HAK_LANE_POOL);
    struct hak_slab *span;

    if (number == HAK_NO_SLAB) {
        return HAK_NO_SLAB;
    }
    span = hak_range_slab(number);
    span->bits = span->ready = 0;
    atomic_store_explicit(&span->remote, 0, memory_order_relaxed);
    span->block = hak_pool_classes[class].block;
    span->slabs = slabs;
    for (uint8_t i = 0; i < slabs; i++) {
        hak_range_slab(number + i)->back = i;
        hak_range_slab(number + i)->class = (uint8_t)(HAK_TAG_POOL + class);
        hak_range_set_tag(number + i, pool->tag + class);
    }
    busy(pool, true);
    hak_slab_join(&pool->all, number);
    hak_slab_open(&pool->open[class], number);
    pool->nslabs += slabs;
    busy(pool, false);
    return number;
}

/* Gives back a span of which no block is in use. */
static void span_give(struct hak_pool *pool, uint32_t number)
{
    struct hak_slab *span = hak_range_slab(number);

    busy(pool, true);
    hak_slab_close(&pool->open[class_of(span)], number);
    hak_slab_leave(&pool->all, number);
    pool->nslabs -= span->slabs;
    busy(pool, false);
    hak_range_slabs_give(number, span->slabs, HAK_LANE_POOL);
}

/* Whether a span with this many free and ready blocks belongs in no list. */
static bool is_full(const struct hak_slab *span)
{
    return span->bits == 0 && span->ready == all_bits(span);
}

/* ---- allocating ----------------------------------------------------------- */

/* How many bytes more to make resident in a span; 0: leave it to faults. */
static size_t ladder_step(const struct hak_pool *pool, unsigned class)
{
    if (hak_range_populated() < LADDER_FROM) {
        return 0;
    }
    return pool->filled[class] == 0 ? LADDER_FIRST : LADDER_MORE;
}

/*
 * Makes more blocks of a span ready: all of them if its pages are left to
 * faults, else as many as the next step of the ladder brings.
 */
static bool span_ready(struct hak_pool *pool, struct hak_slab *span,
                       uint32_t number)
{
    unsigned class = class_of(span);
    size_t step = ladder_step(pool, class);
    uint32_t have = (uint32_t)__builtin_popcountll(span->ready);
    uint32_t all = hak_pool_classes[class].count;
    uint32_t more = all - have;
    uint64_t fresh;

    if (step > 0) {
        more = (uint32_t)hak_min(more, hak_max(step / span->block, 1));
    }
    if (!hak_range_ready(number, span->slabs, (have + more) * span->block,
                         step)) {
        return false;
    }
    fresh = first_bits(have + more) & ~span->ready;
    span->ready |= fresh;
    span->bits |= fresh;
    if (have + more == all && pool->filled[class] < UINT8_MAX) {
        pool->filled[class]++;
    }
    return true;
}

/* Sees to it that the first open span has a free block. */
static bool open_ready(struct hak_pool *pool, unsigned class)
{
    uint32_t number;

    hak_pool_collect(pool);
    number = pool->open[class];
    if (number == HAK_NO_SLAB) {
        number = span_take(pool, class);
    }
    return number != HAK_NO_SLAB &&
           (hak_range_slab(number)->bits != 0 ||
            span_ready(pool, hak_range_slab(number), number));
}

static HAK_NOINLINE void *alloc_slow(struct hak_pool *pool, unsigned class)
{
    if (hak_range_waiting()) {
        hak_range_tick(hak_os_tick());
    }
    return open_ready(pool, class) ? hak_pool_alloc(pool, class) : NULL;
}

/* p was the last free block of the first open span. */
static HAK_NOINLINE void *close_full(struct hak_pool *pool, unsigned class,
                                     void *p)
{
    busy(pool, true);
    hak_slab_close(&pool->open[class], pool->open[class]);
    busy(pool, false);
    return p;
}

void *hak_pool_alloc(struct hak_pool *pool, unsigned class)
{
    uint32_t number = pool->open[class];
    struct hak_slab *span = hak_range_slab(number);
    uint64_t bits = span->bits; /* slab 0 has a descriptor too, without bits */
    void *p;

    if (HAK_UNLIKELY(bits == 0)) {
        return alloc_slow(pool, class);
    }
    p = hak_range_slab_start(number) +
        (size_t)(unsigned)__builtin_ctzll(bits) * span->block;
    bits &= bits - 1;
    span->bits = bits;
    pool->allocs++;
    pool->live_bytes += span->block;
    if (HAK_UNLIKELY(bits == 0) && span->ready == all_bits(span)) {
        return close_full(pool, class, p);
    }
    return p;
}

/* ---- freeing --------------------------------------------------------------- */

/* `bits` of a span are free again. */
static void put(struct hak_pool *pool, uint32_t number, uint64_t bits)
{
    struct hak_slab *span = hak_range_slab(number);
    uint32_t *open = &pool->open[class_of(span)];

    if (is_full(span)) {
        busy(pool, true);
        hak_slab_open(open, number);
        busy(pool, false);
    }
    span->bits |= bits;
    if (span->bits == span->ready &&
        (span->open_next != HAK_NO_SLAB || span->open_prev != HAK_NO_SLAB)) {
        span_give(pool, number);
    }
}

/* The bit of the block p; 0: none begins there. */
static uint64_t bit_of(const void *p, uint32_t number, unsigned class)
{
    size_t offset = (size_t)((const char *)p - hak_range_slab_start(number));
    uint32_t index = hak_pool_index(offset, class);

    return index < 64 ? (uint64_t)1 << index : 0;
}

bool hak_pool_free(struct hak_pool *pool, void *p)
{
    uint32_t number = span_of(hak_range_number(p));
    struct hak_slab *span = hak_range_slab(number);
    uint64_t bit = bit_of(p, number, class_of(span));

    if (HAK_UNLIKELY((bit & span->ready & ~span->bits) == 0)) {
        return false;
    }
    pool->frees++;
    pool->live_bytes -= span->block;
    put(pool, number, bit);
    return true;
}

/* Puts a span into the owner's inbox. */
static void tell(struct hak_pool *owner, uint32_t number)
{
    struct hak_slab *span = hak_range_slab(number);
    uint32_t old = atomic_load_explicit(&owner->inbox, memory_order_relaxed);

    /* seq_cst: the sender then reads whether the owner has gone. */
    do {
        span->inbox_next = old;
    } while (!atomic_compare_exchange_weak_explicit(&owner->inbox, &old, number,
                                                    memory_order_seq_cst,
                                                    memory_order_relaxed));
}

bool hak_pool_remote_free(struct hak_pool *owner, void *p, bool *told)
{
    uint32_t number = span_of(hak_range_number(p));
    struct hak_slab *span = hak_range_slab(number);
    uint64_t bit = bit_of(p, number, class_of(span));
    uint64_t old;

    *told = false;
    if (bit == 0) {
        return false;
    }
    old = atomic_fetch_or_explicit(&span->remote, bit, memory_order_acq_rel);
    if ((old & bit) != 0) {
        return false;
    }
    if (old == 0) {
        tell(owner, number);
        *told = true;
    }
    return true;
}

void hak_pool_collect(struct hak_pool *pool)
{
    uint32_t number;

    /* seq_cst: who parks a heap first says so, then looks here. */
    if (HAK_LIKELY(atomic_load_explicit(&pool->inbox, memory_order_seq_cst) ==
                   HAK_NO_SLAB)) {
        return;
    }
    number = atomic_exchange_explicit(&pool->inbox, HAK_NO_SLAB,
                                      memory_order_acquire);
    while (number != HAK_NO_SLAB) {
        struct hak_slab *span = hak_range_slab(number);
        uint32_t next = span->inbox_next;
        /* From here on the span may be put into the inbox again. */
        uint64_t bits =
            atomic_exchange_explicit(&span->remote, 0, memory_order_acq_rel);
        uint64_t count = (uint64_t)__builtin_popcountll(bits);

        pool->remote_frees += count;
        pool->remote_bytes += count * span->block;
        pool->live_bytes -= count * span->block;
        put(pool, number, bits);
        number = next;
    }
}

void hak_pool_trim(struct hak_pool *pool)
{
    hak_pool_collect(pool);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        uint32_t number = pool->open[c];

        while (number != HAK_NO_SLAB) {
            uint32_t next = hak_range_slab(number)->open_next;

            if (hak_range_slab(number)->bits == hak_range_slab(number)->ready) {
                span_give(pool, number);
            }
            number = next;
        }
    }
}

void hak_pool_repair(struct hak_pool *pool)
{
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        uint32_t number = pool->open[c];

        while (number != HAK_NO_SLAB) {
            uint32_t next = hak_range_slab(number)->open_next;

            if (is_full(hak_range_slab(number))) {
                hak_slab_close(&pool->open[c], number);
            }
            number = next;
        }
    }
}

/* ---- questions about a pointer --------------------------------------------- */

size_t hak_pool_size(const void *p)
{
    return hak_range_slab(span_of(hak_range_number(p)))->block;
}

/* Its owner may be at work: only a pointer never given out is misjudged. */
HAK_RACY_READER enum hak_pool_state hak_pool_state(const void *p)
{
    uint32_t number = span_of(hak_range_number(p));
    const struct hak_slab *span = hak_range_slab(number);
    uint64_t bit = bit_of(p, number, class_of(span));

    if (bit == 0) {
        return HAK_POOL_MIDDLE;
    }
    if ((bit & *(const volatile uint64_t *)&span->ready) == 0) {
        return HAK_POOL_NEVER;
    }
    return (bit & *(const volatile uint64_t *)&span->bits) != 0 ? HAK_POOL_FREE
                                                               : HAK_POOL_USED;
}
