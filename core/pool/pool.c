/*
 * pool.c - the Pool lane's slow paths: refill, flush, spans.
 *
 * Every function except the queries about a pointer is called by the one thread
 * that uses the heap.
 */
#include "pool/pool_bin.h"

#include <string.h>

#include "os/lock.h"
#include "base/msg.h"
#include "os/os.h"
#include "range/pressure.h"
#include "range/slabs.h"

/*
 * The page-fault ladder. A span is left to page faults while the process is
 * small, or when users of its class may not write to all of what they ask for.
 * The latter is measured on the last span that was used up (pool_probe). Blocks
 * of at most SMALL bytes are assumed to be written in full, as they usually
 * are.
 */
#define LADDER_FROM HAK_MIB
#define LADDER_FIRST (16 * HAK_KIB)
#define LADDER_MORE HAK_SLAB_SIZE
#define SMALL HAK_PAGE

/* Gives the empty bins stacks of `places` places. */
static HAK_NOINLINE void pool_lay_out(struct hak_pool *pool, uint32_t places)
{
    pool->places = places;
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        /* Beyond short stacks the bottoms were never overwritten. */
        if (c * places < HAK_POOL_CLASSES * HAK_POOL_STACK_SHORT) {
            *haki_stack_bottom(pool, c) = NULL;
        }
        pool->top[c] = haki_stack_bottom(pool, c) + 1;
        haki_stack_grant(pool, c);
    }
}

void haki_pool_init(struct hak_pool *pool, struct hak_allowance *allow,
                    uint32_t id, bool small)
{
    memset(pool, 0, offsetof(struct hak_pool, stacks));
    pool->allow = allow;
    pool->tag = id << HAK_TAG_CLASS_BITS | HAK_TAG_POOL;
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        pool->until[c] = HAK_NEVER;
    }
    pool_lay_out(pool, small ? HAK_POOL_STACK_SHORT : HAK_POOL_STACK);
}

void haki_pool_rest(struct hak_pool *pool)
{
    haki_pool_busy(pool, true);
    pool_lay_out(pool, HAK_POOL_STACK_SHORT);
    haki_pool_busy(pool, false);
}

void haki_pool_release(struct hak_pool *pool)
{
    uint32_t all = pool->all;

    HAK_ASSERT((all == HAK_NO_SLAB) == (pool->nslabs + pool->nsealed == 0));
    pool->all = HAK_NO_SLAB;
    pool->nslabs = pool->nsealed = pool->nempty = 0;
    if (all != HAK_NO_SLAB) {
        haki_range_list_give(all, HAK_LANE_POOL);
    }
}

/* ---- spans ---------------------------------------------------------------- */

/* A new span, open, with no block ready. */
static uint32_t pool_span_take(struct hak_pool *pool, unsigned class)
{
    uint8_t slabs = haki_pool_classes[class].slabs;
    uint32_t number =
        haki_range_slabs_take(slabs, HAK_LANE_POOL,
                              (uint8_t)(HAK_TAG_POOL + class),
                              pool->shelves[class].use == HAK_POOL_FULL
                                  ? HAK_SLABS_ALL
                                  : HAK_SLABS_SPARSE);
    struct hak_slab *span;

    if (number == HAK_NO_SLAB) {
        return HAK_NO_SLAB;
    }
    span = haki_range_slab(number);
    span->bits = span->ready = 0;
    span->held = 0;
    atomic_store_explicit(&span->remote, 0, memory_order_relaxed);
    span->block = haki_pool_classes[class].block;
    span->class = (uint8_t)(HAK_TAG_POOL + class);
    span->slabs = slabs;
    for (uint8_t i = 0; i < slabs; i++) {
        HAK_ASSERT(haki_range_tag((size_t)(number + i) << HAK_SLAB_SHIFT) == 0);
        haki_range_set_back(number + i, i);
        haki_range_set_tag(number + i, pool->tag + class);
    }
    haki_slab_join(&pool->all, number);
    haki_slab_open(&pool->shelves[class].open, number);
    pool->nslabs += slabs;
    pool->most_slabs = (uint32_t)haki_max(pool->most_slabs, pool->nslabs);
    pool->nempty += slabs; /* only for a moment */
    HAK_WALK(haki_pool_walk_due());
    pool->allow->slabs += (int64_t)(slabs * HAK_SLAB_SIZE);
    return number;
}

/* Gives back a span, one of nempty, of which no block is taken. */
void haki_span_give(struct hak_pool *pool, uint32_t number)
{
    struct hak_slab *span = haki_range_slab(number);
    struct hak_pool_shelf *shelf = &pool->shelves[haki_span_class(span)];

    HAK_CHECK(span->bits == span->ready);
    HAK_ASSERT(atomic_load(&span->remote) == 0);
    HAK_ASSERT(pool->nslabs >= span->slabs && pool->nempty >= span->slabs);
    haki_slab_close(&shelf->open, number);
    haki_slab_leave(&pool->all, number);
    pool->nslabs -= span->slabs;
    pool->nempty -= span->slabs;
    pool->allow->slabs -= (int64_t)(span->slabs * HAK_SLAB_SIZE);
    HAK_ASSERT(pool->allow->slabs >= 0);
    if (shelf->last == number) {
        shelf->last = HAK_NO_SLAB;
    }
    haki_range_slabs_give(number, span->slabs, HAK_LANE_POOL);
    HAK_WALK(haki_pool_walk_due());
}

/* ---- refill ----------------------------------------------------------------- */

/* Checks whether the last span that was used up has been written to. */
static void pool_probe(struct hak_pool_shelf *shelf)
{
    const struct hak_slab *span;
    size_t used, resident;

    if (shelf->last == HAK_NO_SLAB || shelf->use == HAK_POOL_FULL) {
        return;
    }
    span = haki_range_slab(shelf->last);
    used = (size_t)__builtin_popcountll(span->ready) * span->block;
    resident = haki_os_resident(haki_range_slab_start(shelf->last),
                                haki_round_up(used, HAK_PAGE));
    shelf->use = resident >= used - used / 8 ? HAK_POOL_FULL : HAK_POOL_PARTS;
}

/*
 * How many more bytes to make resident in a span that has `have`; 0: leave it
 * to faults. In a class's first span this doubles, beginning with a page.
 */
static size_t pool_ladder_step(const struct hak_pool *pool, unsigned class,
                               size_t have)
{
    size_t block = haki_pool_classes[class].block;

    if (haki_range_resident_bytes() < LADDER_FROM) {
        return 0;
    }
    if (pool->shelves[class].use == HAK_POOL_FULL) {
        return LADDER_MORE;
    }
    if (block > SMALL) {
        return 0;
    }
    return pool->shelves[class].last == HAK_NO_SLAB
               ? haki_min(haki_max(have, HAK_PAGE), LADDER_FIRST)
               : LADDER_FIRST;
}

/*
 * Makes more blocks of a span ready: as many as the next step of the ladder
 * brings, or, if its pages are left to faults, as many again as there are.
 */
static bool pool_span_ready(struct hak_pool *pool, uint32_t number)
{
    struct hak_slab *span = haki_range_slab(number);
    unsigned class = haki_span_class(span);
    uint32_t have = (uint32_t)__builtin_popcountll(span->ready);
    size_t step =
        pool_ladder_step(pool, class,
                         haki_round_up((size_t)have * span->block, HAK_PAGE));
    uint32_t left = haki_pool_classes[class].count - have;
    size_t ahead = step > 0 ? step : haki_max(have * span->block, HAK_PAGE);
    uint32_t more = (uint32_t)haki_min(left, haki_max(ahead / span->block, 1));

    HAK_ASSERT(left > 0 && span->ready == haki_span_first_bits(have));
    if (!haki_range_ready(number, span->slabs, (have + more) * span->block,
                          step)) {
        return false;
    }
    span->bits |= haki_span_first_bits(have + more) & ~span->ready;
    span->ready = haki_span_first_bits(have + more);
    return true;
}

/*
 * The first open span, made to have a free block. HAK_NO_SLAB: out of memory.
 */
static uint32_t pool_open_ready(struct hak_pool *pool, unsigned class)
{
    struct hak_pool_shelf *shelf = &pool->shelves[class];
    uint32_t number;

    haki_pool_collect(pool);
    number = shelf->open;
    if (number == HAK_NO_SLAB) {
        pool_probe(shelf);
        number = pool_span_take(pool, class);
    }
    if (number == HAK_NO_SLAB || (haki_range_slab(number)->bits == 0 &&
                                  !pool_span_ready(pool, number))) {
        return HAK_NO_SLAB;
    }
    return number;
}

/* Hardened build: puts blocks into random order. */
HAK_INLINE void pool_shuffle(void **blocks, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t other = haki_hard_below(i + 1);
        void *block = blocks[i];

        blocks[i] = blocks[other];
        blocks[other] = block;
    }
}

/*
 * The most blocks that a refill takes: half of what may be kept. A thread's
 * heap takes as much as if it kept little, since the blocks come from a span
 * that is in use from now on anyway, and taking them singly costs three times
 * as much.
 */
static int32_t pool_refill_most(const struct hak_pool *pool, unsigned class)
{
    const struct hak_allowance *allow = pool->allow;
    size_t least = haki_is_frugal(allow) ? 0 : allow->least;
    size_t bytes = haki_max((size_t)haki_may_keep(allow) / 2, least);
    uint32_t blocks = haki_stack_blocks(bytes, class);
    size_t most =
        haki_min((size_t)haki_stack_budget(pool, class), HAK_STACK_REFILL_MOST);

    return (int32_t)haki_max(haki_min(blocks, most), 1);
}

/* Moves blocks of the first open span into the empty bin. */
static bool pool_fill(struct hak_pool *pool, unsigned class)
{
    uint32_t number = pool_open_ready(pool, class);
    struct hak_pool_shelf *shelf = &pool->shelves[class];
    struct hak_slab *span = haki_range_slab(number);
    int32_t most = pool_refill_most(pool, class);
    void *blocks[HAK_STACK_REFILL_MOST];
    uint64_t before;
    int32_t n = 0;

    if (number == HAK_NO_SLAB) {
        return false;
    }
    before = span->bits;
    HAK_ASSERT((before & ~span->ready) == 0 && most < (int32_t)pool->places);
    HAK_ASSERT(haki_stack_count(pool, class) == 0);
    pool->nempty -= span->bits == span->ready ? span->slabs : 0;
    for (; n < most && span->bits != 0; n++) {
        unsigned index = (unsigned)__builtin_ctzll(span->bits);

        blocks[n] = haki_range_slab_start(number) + (size_t)index * span->block;
        span->bits &= span->bits - 1;
    }
    haki_pool_take(pool, class, n);
    haki_keep_took(pool->allow, (size_t)n * span->block);
    if (HAK_UNLIKELY(pool->swept)) {
        haki_pool_wake(pool, number, before & ~span->bits);
    }
    if (HAK_HARD) {
        pool_shuffle(blocks, (uint32_t)n);
    }
    /* The lowest address is popped first. */
    while (n > 0) {
        haki_pool_note(blocks[n - 1], class, true);
        *pool->top[class]++ = blocks[--n];
    }
    if (haki_span_is_full(span)) {
        haki_slab_close(&shelf->open, number);
        shelf->last = number;
        HAK_WALK(haki_pool_walk_due());
    }
    return true;
}

void *haki_pool_refill(struct hak_pool *pool, unsigned class)
{
    void *p = NULL;

    if (HAK_UNLIKELY(haki_pool_must_draw(pool, pool->until[class]))) {
        p = haki_pool_pop_drawn(pool, class);
        if (p != NULL) {
            return p;
        }
    }
    haki_pool_busy(pool, true);
    if (HAK_UNLIKELY(pool->places == HAK_POOL_STACK_SHORT &&
                     haki_pool_is_grown(pool))) {
        haki_pool_flush(pool);
        pool_lay_out(pool, HAK_POOL_STACK);
    }
    if (HAK_LIKELY(pool_fill(pool, class))) {
        p = haki_pool_pop(pool, class);
        haki_stack_grant_here(pool, class);
        haki_keep_height(pool->allow);
    }
    haki_pool_tick_within(pool);
    haki_pool_busy(pool, false);
    if (HAK_UNLIKELY(p == NULL) && pool->until[class] < 0) {
        p = haki_pool_pop_drawn(pool, class); /* the first one is a sample */
    }
    return p;
}

/* ---- flush ------------------------------------------------------------------- */

/* Takes back n blocks of a span, those of `bits`. */
void haki_span_put(struct hak_pool *pool, uint32_t number, uint64_t bits,
                   int64_t n)
{
    struct hak_slab *span = haki_range_slab(number);
    struct hak_pool_shelf *shelf = &pool->shelves[haki_span_class(span)];

    HAK_ASSERT((bits & span->bits) == 0 && (bits & ~span->ready) == 0);
    HAK_ASSERT(__builtin_popcountll(bits) == n);
    if (haki_span_is_full(span)) {
        haki_slab_open(&shelf->open, number);
        HAK_WALK(haki_pool_walk_due());
    }
    span->bits |= bits;
    haki_pool_take(pool, haki_span_class(span), -n);
    if (span->bits == span->ready) {
        bool only = haki_slab_is_alone(number);
        bool few = haki_pool_may_keep_empty(pool, span->slabs);

        pool->nempty += span->slabs;
        if (!only || !few) {
            haki_span_give(pool, number);
        }
    }
}

/* Ends the program: p was freed and should not have been. */
HAK_COLD void haki_pool_misuse(const void *p, enum hak_pool_state state)
{
    haki_fatal("free(%p): %s", p,
               state == HAK_POOL_FREE ? "a block that is free already"
                                      : "an address that was never given out");
}

/* Returns the n blocks that have been in the bin longest to their spans. */
void haki_stack_flush(struct hak_pool *pool, unsigned class, int32_t n)
{
    void **stack = haki_stack_bottom(pool, class) + 1;

    HAK_ASSERT(stack[-1] == NULL && n <= haki_stack_count(pool, class));
    for (int32_t i = 0; i < n; i++) {
        uint32_t number = haki_pool_span(stack[i]);
        uint64_t bit = haki_pool_bit(stack[i], class);

        enum hak_pool_state state;

        haki_pool_note(stack[i], class, false);
        state = haki_span_state(haki_range_slab(number), bit);
        if (HAK_UNLIKELY(state != HAK_POOL_USED)) {
            haki_pool_misuse(stack[i], state);
        }
        haki_span_put(pool, number, bit, 1);
    }
    memmove(stack, stack + n,
            (size_t)(haki_stack_count(pool, class) - n) * sizeof(*stack));
    pool->top[class] -= n;
}

/* ---- queries ------------------------------------------------------------- */

HAK_RACY_READER uint64_t haki_pool_live(const struct hak_pool *pool,
                                        unsigned class)
{
    int64_t live = pool->shelves[class].taken - haki_stack_count(pool, class);

    return live > 0 ? (uint64_t)live : 0;
}

enum hak_pool_state haki_pool_state(const void *p)
{
    unsigned class = haki_pool_class_at(p);
    uint32_t number = haki_pool_span(p);

    return haki_pool_is_start(p, class)
               ? haki_span_state(haki_range_slab(number),
                                 haki_pool_bit(p, class))
               : HAK_POOL_MIDDLE;
}
