/*
 * pool.c - the Pool lane's slow half: refill, flush, spans.
 *
 * Every function but hak_pool_remote_free and the questions about a pointer
 * is called by the one thread that uses the heap.
 */
#include "pool.h"

#include <string.h>

#include "lock.h"
#include "msg.h"
#include "options.h"
#include "os.h"

/*
 * A bin may keep BUDGET_LEAST bytes, up to BUDGET_MOST if that is at most
 * 1/2^BUDGET_SHIFT of the pool's slabs, or 1/2^BUDGET_SHIFT_LARGE of them if
 * that is more, in BLOCKS_LEAST blocks or more; a refill takes at most
 * REFILL_MOST of a span. A batch of blocks of 1 to 8 KB, 4 MB of them, then
 * comes from the bins alone: 7.9 ns each instead of 16.7.
 */
#define BUDGET_LEAST (256 * HAK_KIB)
#define BUDGET_SHIFT 2
#define BUDGET_MOST HAK_MIB
#define BUDGET_SHIFT_LARGE 5
#define BLOCKS_LEAST 4
#define REFILL_MOST 16

/*
 * The page-fault ladder. A span is left to page faults while the process is
 * small or its users may not write to all of what they ask for: that is
 * measured, on the last span that was used up (probe). Blocks of SMALL bytes
 * or fewer, which are written to throughout as a rule, are taken to be.
 */
#define LADDER_FROM HAK_MIB
#define LADDER_FIRST (16 * HAK_KIB)
#define GROWN 16 /* slabs that a heap has when its stacks get longer */
#define LADDER_MORE HAK_SLAB_SIZE
#define SMALL HAK_PAGE

/* As in tiny.c: how often bins are looked at while memory waits to go back. */
#define ALERT_PUSHES 16

_Static_assert(HAK_POOL_STACK_SHORT - 1 <= BLOCKS_LEAST,
               "a short stack is full before the budget is used up");

/* The most blocks that a bin of the class may hold. */
static int32_t budget(const struct hak_pool *pool, unsigned class)
{
    size_t held = pool->nslabs * HAK_SLAB_SIZE;
    size_t bytes = hak_min(held >> BUDGET_SHIFT, BUDGET_MOST);
    size_t blocks;

    if (pool->places == HAK_POOL_STACK_SHORT) { /* every new heap comes here */
        return HAK_POOL_STACK_SHORT - 1;
    }
    bytes = hak_max(hak_max(bytes, BUDGET_LEAST), held >> BUDGET_SHIFT_LARGE);
    blocks = bytes / hak_pool_classes[class].block;
    return (int32_t)hak_min(hak_max(blocks, BLOCKS_LEAST), pool->places - 1);
}

/* The bottom of a bin's stack, which is NULL. */
static HAK_RACY_READER void **bottom(const struct hak_pool *pool,
                                     unsigned class)
{
    return (void **)&pool->stacks[class * pool->places];
}

/* Blocks in the bin. */
static HAK_RACY_READER int32_t count(const struct hak_pool *pool,
                                     unsigned class)
{
    return (int32_t)(pool->top[class] - bottom(pool, class)) - 1;
}

/* The next look at a bin comes when it is full, or sooner. */
static void grant(struct hak_pool *pool, unsigned class)
{
    int32_t pushes = budget(pool, class) - count(pool, class);

    if (pool->alert && pushes > ALERT_PUSHES) {
        pushes = ALERT_PUSHES;
    }
    pool->left[class] = pool->grant[class] = pushes > 1 ? pushes - 1 : 0;
}

/* Gives the empty bins stacks of so many places. */
static void lay_out(struct hak_pool *pool, uint32_t places)
{
    pool->places = places;
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        /* Beyond short stacks no bottom was ever anything else. */
        if (c * places < HAK_POOL_CLASSES * HAK_POOL_STACK_SHORT) {
            *bottom(pool, c) = NULL;
        }
        pool->top[c] = bottom(pool, c) + 1;
        grant(pool, c);
    }
}

void hak_pool_init(struct hak_pool *pool, uint32_t id, bool small)
{
    memset(pool, 0, offsetof(struct hak_pool, stacks));
    pool->tag = id << HAK_TAG_CLASS_BITS | HAK_TAG_POOL;
    lay_out(pool, small ? HAK_POOL_STACK_SHORT : HAK_POOL_STACK);
}

void hak_pool_release(struct hak_pool *pool)
{
    uint32_t all = pool->all;

    pool->all = HAK_NO_SLAB;
    pool->nslabs = pool->nsealed = 0;
    if (all != HAK_NO_SLAB) {
        hak_range_list_give(all, HAK_LANE_POOL);
    }
}

static void busy(struct hak_pool *pool, bool on)
{
    hak_pool_busy(pool, on);
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

/* Whether all of a span's blocks are taken, and it belongs in no list. */
static bool is_full(const struct hak_slab *span)
{
    return span->bits == 0 &&
           span->ready == first_bits(hak_pool_classes[class_of(span)].count);
}

/* A new span, open, with no block ready. */
static uint32_t span_take(struct hak_pool *pool, unsigned class)
{
    uint8_t slabs = hak_pool_classes[class].slabs;
    uint32_t number =
        hak_range_slabs_take(slabs, HAK_LANE_POOL,
                             (uint8_t)(HAK_TAG_POOL + class),
                             pool->shelves[class].use == HAK_POOL_WHOLE);
    struct hak_slab *span;

    if (number == HAK_NO_SLAB) {
        return HAK_NO_SLAB;
    }
    span = hak_range_slab(number);
    span->bits = span->ready = 0;
    span->held = 0;
    atomic_store_explicit(&span->remote, 0, memory_order_relaxed);
    span->block = hak_pool_classes[class].block;
    span->class = (uint8_t)(HAK_TAG_POOL + class);
    span->slabs = slabs;
    for (uint8_t i = 0; i < slabs; i++) {
        hak_range_set_back(number + i, i);
        hak_range_set_tag(number + i, pool->tag + class);
    }
    hak_slab_join(&pool->all, number);
    hak_slab_open(&pool->shelves[class].open, number);
    pool->nslabs += slabs;
    return number;
}

/* Gives back a span of which no block is taken. */
static void span_give(struct hak_pool *pool, uint32_t number)
{
    struct hak_slab *span = hak_range_slab(number);
    struct hak_pool_shelf *shelf = &pool->shelves[class_of(span)];

    hak_slab_close(&shelf->open, number);
    hak_slab_leave(&pool->all, number);
    pool->nslabs -= span->slabs;
    if (shelf->last == number) {
        shelf->last = HAK_NO_SLAB;
    }
    hak_range_slabs_give(number, span->slabs, HAK_LANE_POOL);
}

/* ---- refill ----------------------------------------------------------------- */

/* Looks whether the last span that was used up has been written to. */
static void probe(struct hak_pool_shelf *shelf)
{
    const struct hak_slab *span;
    size_t used, resident;

    if (shelf->last == HAK_NO_SLAB || shelf->use == HAK_POOL_WHOLE) {
        return;
    }
    span = hak_range_slab(shelf->last);
    used = (size_t)__builtin_popcountll(span->ready) * span->block;
    resident = hak_os_resident(hak_range_slab_start(shelf->last),
                               hak_round_up(used, HAK_PAGE));
    shelf->use = resident >= used - used / 8 ? HAK_POOL_WHOLE : HAK_POOL_PARTS;
}

/*
 * How many bytes more to make resident in a span that has `have`; 0: leave it
 * to faults. What a class's first span has doubles from a page on.
 */
static size_t ladder_step(const struct hak_pool *pool, unsigned class,
                          size_t have)
{
    size_t block = hak_pool_classes[class].block;

    if (hak_range_populated() < LADDER_FROM) {
        return 0;
    }
    if (pool->shelves[class].use == HAK_POOL_WHOLE) {
        return LADDER_MORE;
    }
    if (block > SMALL) {
        return 0;
    }
    return pool->shelves[class].last == HAK_NO_SLAB
               ? hak_min(hak_max(have, HAK_PAGE), LADDER_FIRST)
               : LADDER_FIRST;
}

/*
 * Makes more blocks of a span ready: as many as the next step of the ladder
 * brings, or if its pages are left to faults as many again as there are.
 */
static bool span_ready(struct hak_pool *pool, uint32_t number)
{
    struct hak_slab *span = hak_range_slab(number);
    unsigned class = class_of(span);
    uint32_t have = (uint32_t)__builtin_popcountll(span->ready);
    size_t step =
        ladder_step(pool, class,
                    hak_round_up((size_t)have * span->block, HAK_PAGE));
    uint32_t left = hak_pool_classes[class].count - have;
    size_t ahead = step > 0 ? step : hak_max(have * span->block, HAK_PAGE);
    uint32_t more = (uint32_t)hak_min(left, hak_max(ahead / span->block, 1));

    if (!hak_range_ready(number, span->slabs, (have + more) * span->block,
                         step)) {
        return false;
    }
    span->bits |= first_bits(have + more) & ~span->ready;
    span->ready = first_bits(have + more);
    return true;
}

/* The first open span, with a free block. HAK_NO_SLAB: out of memory. */
static uint32_t open_ready(struct hak_pool *pool, unsigned class)
{
    struct hak_pool_shelf *shelf = &pool->shelves[class];
    uint32_t number;

    hak_pool_collect(pool);
    number = shelf->open;
    if (number == HAK_NO_SLAB) {
        probe(shelf);
        number = span_take(pool, class);
    }
    if (number == HAK_NO_SLAB ||
        (hak_range_slab(number)->bits == 0 && !span_ready(pool, number))) {
        return HAK_NO_SLAB;
    }
    return number;
}

/* Hardened: into random order. */
HAK_INLINE void shuffle(void **blocks, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t other = hak_hard_below(i + 1);
        void *block = blocks[i];

        blocks[i] = blocks[other];
        blocks[other] = block;
    }
}

/* Moves blocks of the first open span into the empty bin. */
static bool fill(struct hak_pool *pool, unsigned class)
{
    uint32_t number = open_ready(pool, class);
    struct hak_pool_shelf *shelf = &pool->shelves[class];
    struct hak_slab *span = hak_range_slab(number);
    int32_t most = (int32_t)hak_min((size_t)budget(pool, class), REFILL_MOST);
    void *blocks[REFILL_MOST];
    uint64_t before;
    int32_t n = 0;

    if (number == HAK_NO_SLAB) {
        return false;
    }
    before = span->bits;
    for (; n < most && span->bits != 0; n++) {
        unsigned index = (unsigned)__builtin_ctzll(span->bits);

        blocks[n] = hak_range_slab_start(number) + (size_t)index * span->block;
        span->bits &= span->bits - 1;
    }
    shelf->taken += n;
    if (HAK_UNLIKELY(pool->swept)) {
        hak_pool_wake(pool, number, before & ~span->bits);
    }
    if (HAK_HARD) {
        shuffle(blocks, (uint32_t)n);
    }
    /* The lowest address is popped first. */
    while (n > 0) {
        hak_pool_note(blocks[n - 1], class, true);
        *pool->top[class]++ = blocks[--n];
    }
    if (is_full(span)) {
        hak_slab_close(&shelf->open, number);
        shelf->last = number;
    }
    return true;
}

static void heed(struct hak_pool *pool);
static void empty(struct hak_pool *pool);

void *hak_pool_refill(struct hak_pool *pool, unsigned class)
{
    void *p = NULL;

    busy(pool, true);
    if (HAK_UNLIKELY(pool->places == HAK_POOL_STACK_SHORT &&
                     pool->nslabs > GROWN)) {
        empty(pool);
        lay_out(pool, HAK_POOL_STACK);
    }
    if (HAK_LIKELY(fill(pool, class))) {
        p = hak_pool_pop(pool, class);
        grant(pool, class);
    }
    heed(pool);
    busy(pool, false);
    return p;
}

/* ---- flush ------------------------------------------------------------------- */

/* n blocks of a span, those of `bits`, are free again. */
static void put(struct hak_pool *pool, uint32_t number, uint64_t bits,
                int64_t n)
{
    struct hak_slab *span = hak_range_slab(number);
    struct hak_pool_shelf *shelf = &pool->shelves[class_of(span)];

    if (is_full(span)) {
        hak_slab_open(&shelf->open, number);
    }
    span->bits |= bits;
    shelf->taken -= n;
    if (span->bits == span->ready && !hak_slab_is_alone(number)) {
        span_give(pool, number);
    }
}

/* Its owner may be at work, but not on the bit of a block in use. */
static HAK_RACY_READER enum hak_pool_state state_of(const struct hak_slab *span,
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

/* Ends the program: p was freed and should not have been. */
static HAK_COLD void misuse(const void *p, enum hak_pool_state state)
{
    hak_fatal("free(%p): %s", p,
              state == HAK_POOL_FREE ? "a block that is free already"
                                     : "an address that was never given out");
}

/* The n blocks that have been in the bin for longest go back to their spans. */
static void flush(struct hak_pool *pool, unsigned class, int32_t n)
{
    void **stack = bottom(pool, class) + 1;

    for (int32_t i = 0; i < n; i++) {
        uint32_t number = hak_pool_span(stack[i]);
        uint64_t bit = hak_pool_bit(stack[i], class);

        enum hak_pool_state state;

        hak_pool_note(stack[i], class, false);
        state = state_of(hak_range_slab(number), bit);
        if (HAK_UNLIKELY(state != HAK_POOL_USED)) {
            misuse(stack[i], state);
        }
        put(pool, number, bit, 1);
    }
    memmove(stack, stack + n,
            (size_t)(count(pool, class) - n) * sizeof(*stack));
    pool->top[class] -= n;
}

void hak_pool_look(struct hak_pool *pool, unsigned class)
{
    busy(pool, true);
    if (count(pool, class) >= budget(pool, class) - 1) {
        flush(pool, class, (count(pool, class) + 1) / 2);
    }
    grant(pool, class);
    heed(pool);
    busy(pool, false);
}

/* ---- blocks that other threads free --------------------------------------------- */

bool hak_pool_remote_free(struct hak_pool *owner, void *p, bool *told)
{
    unsigned class = hak_pool_class_at(p);
    uint32_t number = hak_pool_span(p);
    struct hak_slab *span = hak_range_slab(number);
    uint64_t bit, old;

    *told = false;
    if (!hak_pool_is_start(p, class)) {
        return false;
    }
    bit = hak_pool_bit(p, class);
    if (state_of(span, bit) != HAK_POOL_USED) {
        return false;
    }
    old = atomic_fetch_or_explicit(&span->remote, bit, memory_order_acq_rel);
    if ((old & bit) != 0) {
        return false;
    }
    if (old == 0) {
        hak_slab_tell(&owner->inbox, number);
        *told = true;
    }
    return true;
}

/* Blocks that are known to be free. */
static uint64_t free_bits(const struct hak_slab *span)
{
    return HAK_HARD ? span->bits | span->held : span->bits;
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
        uint64_t n = (uint64_t)__builtin_popcountll(bits);

        HAK_POINT("pool");
        if (HAK_UNLIKELY((bits & free_bits(span)) != 0)) {
            misuse(hak_range_slab_start(number) +
                       (size_t)__builtin_ctzll(bits & free_bits(span)) *
                           span->block,
                   HAK_POOL_FREE);
        }
        pool->remote_frees += n;
        pool->remote_bytes += n * span->block;
        if (hak_range_sealed((size_t)number << HAK_SLAB_SHIFT)) {
            hak_pool_seal_put(pool, number, bits, (int64_t)n);
        } else {
            put(pool, number, bits, (int64_t)n);
        }
        number = next;
    }
}

/* ---- memory back ------------------------------------------------------------------ */

/* Empties the bins; gives back the spans that this leaves without a block. */
static void empty(struct hak_pool *pool)
{
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        flush(pool, c, count(pool, c));
        grant(pool, c);
    }
}

/* Empties the bins and gives back every span without a block in use. */
static void give_idle(struct hak_pool *pool)
{
    empty(pool);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        uint32_t number = pool->shelves[c].open;

        while (number != HAK_NO_SLAB) {
            uint32_t next = hak_range_slab(number)->open_next;

            if (hak_range_slab(number)->bits == hak_range_slab(number)->ready) {
                span_give(pool, number);
            }
            number = next;
        }
    }
}

void hak_pool_trim(struct hak_pool *pool)
{
    busy(pool, true);
    hak_pool_collect(pool);
    give_idle(pool);
    busy(pool, false);
}

static void heed_slow(struct hak_pool *pool)
{
    uint32_t now = hak_os_tick();
    uint32_t delay = (uint32_t)hak_option(HAK_OPT_purge_delay);

    if (!pool->alert) {
        pool->alert = true;
        pool->idle_at = now + delay / 2;
        for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
            grant(pool, c);
        }
    } else if (hak_tick_reached(now, pool->idle_at)) {
        pool->idle_at = now + delay / 2;
        give_idle(pool);
        hak_pool_sweep(pool, false);
    }
    hak_range_tick(now);
}

/* On every slow path: what has been idle for long goes back. */
static void heed(struct hak_pool *pool)
{
    if (HAK_UNLIKELY(hak_range_waiting())) {
        heed_slow(pool);
    } else {
        pool->alert = false;
    }
}

void hak_pool_heed(struct hak_pool *pool)
{
    busy(pool, true);
    heed(pool);
    busy(pool, false);
}

/* ---- questions ---------------------------------------------------------------------- */

HAK_RACY_READER uint64_t hak_pool_live(const struct hak_pool *pool,
                                       unsigned class)
{
    int64_t live = pool->shelves[class].taken - count(pool, class);

    return live > 0 ? (uint64_t)live : 0;
}

enum hak_pool_state hak_pool_state(const void *p)
{
    unsigned class = hak_pool_class_at(p);
    uint32_t number = hak_pool_span(p);

    return hak_pool_is_start(p, class)
               ? state_of(hak_range_slab(number), hak_pool_bit(p, class))
               : HAK_POOL_MIDDLE;
}
