/*
 * tiny.c - the Tiny lane's slow half: refill, flush, memory on its way back.
 *
 * Every function is called by the one thread that uses the heap.
 */
#include "tiny.h"

#include <string.h>

#include "msg.h"
#include "options.h"
#include "os.h"
#include "tiny_slab.h"

/*
 * A bin may keep BUDGET_LEAST bytes, or 1/2^share of the heap's slabs if that
 * is more, and once again as much in its spare list. Measured: fixed small
 * budgets lose the batch and wave cases, none keeps memory from going back.
 */
#define BUDGET_LEAST (16 * HAK_KIB)
#define BUDGET_MOST HAK_GIB
#define BUDGET_SHARE 4
#define BUDGET_BLOCKS 8

/*
 * Bytes carved at a time: doubling, so that a short-lived heap dirties few
 * cache lines and a growing one is refilled seldom.
 */
#define CARVE_FIRST 512
#define CARVE_PACKED_MOST HAK_KIB

/* The ladder below huge pages: 16 KB a call in a class's first slabs. */
#define LADDER_STEP (16 * HAK_KIB)
#define LADDER_SLABS 8
#define STARTER_STEP (8 * HAK_KIB)

/*
 * While free memory waits to go back, a bin is looked at every ALERT_PUSHES
 * pushes, in a large heap every LARGE_PUSHES at least, so that its time does
 * not pass unnoticed (refills ask for the time only once in HEED_REFILLS); and
 * every half HAKMEM_PURGE_DELAY the spare lists and heads of more than
 * IDLE_MOST bytes go back to the slabs. A large heap whose looks are QUIET_TIME
 * milliseconds apart has little to do: from then on QUIET_PUSHES bring the next
 * one, so that what a busy time has left behind goes back during the idle time
 * that follows.
 */
#define ALERT_PUSHES 32
#define LARGE_PUSHES 512
#define QUIET_PUSHES 8
#define QUIET_TIME 50
#define HEED_REFILLS 8
#define IDLE_MOST (64 * HAK_KIB)

/* Blocks of stale lists that are counted then. */
#define IDLE_COUNT 1000

static int32_t budget(const struct hak_tiny *tiny, unsigned class)
{
    size_t share = (tiny->nslabs * HAK_SLAB_SIZE) >> tiny->share;
    size_t bytes = hak_min(hak_max(share, BUDGET_LEAST), BUDGET_MOST);
    /* bytes / block size, by multiplication: this runs for every new heap. */
    size_t blocks = bytes * hak_tiny_magic[class] >> 32;

    return (int32_t)hak_max(blocks, BUDGET_BLOCKS);
}

/* The next look at a bin comes after so many pushes. */
static void grant(struct hak_tiny *tiny, unsigned class, int32_t pushes)
{
    if (tiny->quiet) {
        pushes = (int32_t)hak_min((size_t)pushes, QUIET_PUSHES);
    } else if (tiny->alert) {
        pushes = (int32_t)hak_min((size_t)pushes, tiny->pushes);
    } else if (tiny->nslabs > HAK_TINY_LARGE) {
        pushes = (int32_t)hak_min((size_t)pushes, tiny->seldom);
    }
    tiny->bins[class].left = tiny->shelves[class].grant = pushes;
}

/* Counts the pushes since the last look in. */
static void settle(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];

    shelf->base += shelf->grant - tiny->bins[class].left;
    shelf->grant = tiny->bins[class].left;
}

/* How many blocks head holds, after settle. */
static int64_t head_count(const struct hak_tiny *tiny, unsigned class)
{
    return tiny->shelves[class].base - (int64_t)tiny->bins[class].pops;
}

void hak_tiny_init(struct hak_tiny *tiny, uint32_t id, bool direct)
{
    memset(tiny, 0, sizeof(*tiny));
    tiny->id = id;
    tiny->tag = id << HAK_TAG_CLASS_BITS;
    tiny->direct = direct;
    tiny->share = BUDGET_SHARE;
    tiny->pushes = ALERT_PUSHES;
    tiny->seldom = LARGE_PUSHES;
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        tiny->bins[c].magic = hak_tiny_magic[c];
        grant(tiny, c, budget(tiny, c));
        tiny->shelves[c].step = CARVE_FIRST;
    }
}

/* ---- refill ------------------------------------------------------------- */

/* Puts a list of `count` blocks into an empty head. */
static void head_set(struct hak_tiny *tiny, unsigned class,
                     struct hak_block *list, uint32_t count)
{
    int32_t cap = budget(tiny, class);

    /*
     * At least half the budget stays open for pushes: a bin that was just
     * filled to the brim would overflow at once and be refilled in turn.
     */
    tiny->bins[class].head = list;
    tiny->shelves[class].base = (int64_t)tiny->bins[class].pops + count;
    grant(tiny, class,
          (int32_t)hak_max((size_t)cap / 2, cap - hak_min(count, (size_t)cap)));
}

/* The whole free list of the first open slab. */
static void take_open(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];
    uint32_t number = shelf->open;
    uint32_t count;

    if (HAK_UNLIKELY(hak_range_slab(number)->nfree == 0)) {
        hak_tiny_slab_wake(tiny, number);
    }
    count = hak_range_slab(number)->nfree;
    hak_slab_close(&shelf->open, number);
    if (HAK_UNLIKELY(hak_range_slab(number)->ngone > 0)) {
        hak_slab_open_last(&shelf->open, number);
    }
    head_set(tiny, class, hak_tiny_slab_empty(number), count);
    shelf->taken += count;
}

/*
 * How many bytes more to make resident in a slab that has `have`: the first
 * slabs of a class (`before` have been filled) double what they have with each
 * call, from a page that is left to its fault, later ones go by 16 KB, then by
 * the whole slab.
 */
static size_t ladder_step(size_t have, uint32_t before)
{
    if (before == 0) {
        return have;
    }
    return before < LADDER_SLABS ? LADDER_STEP : HAK_SLAB_SIZE;
}

/* New blocks from the fresh slab, or from a slab taken for it. */
static bool carve(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];
    size_t size = hak_tiny_size[class];
    struct hak_slab *slab;
    uint32_t count;
    char *start;

    if (shelf->fresh == HAK_NO_SLAB) {
        shelf->fresh = hak_tiny_slab_take(tiny, class, class);
    }
    if (shelf->fresh == HAK_NO_SLAB) {
        return false;
    }
    slab = hak_range_slab(shelf->fresh);
    count = (uint32_t)hak_max(shelf->step / size, 1);
    count = (uint32_t)hak_min(count, slab->capacity - slab->carved);
    if (!hak_range_ready(shelf->fresh, 1, (slab->carved + count) * size,
                         ladder_step(slab->populated, shelf->filled))) {
        return false;
    }
    start = hak_range_slab_start(shelf->fresh) + slab->carved * size;
    head_set(tiny, class, hak_tiny_link_new(start, size, count), count);
    slab->carved += count;
    shelf->taken += count;
    shelf->step = (uint16_t)hak_min(shelf->step * 2u, HAK_TINY_CARVE_MOST);
    if (slab->carved == slab->capacity) {
        shelf->fresh = HAK_NO_SLAB;
        shelf->filled += shelf->filled < UINT16_MAX;
    }
    return true;
}

/*
 * The starter slab, ready for `units` more units; false if it can't be. What
 * is resident of it doubles from a page on, by STARTER_STEP at most.
 */
static bool starter_ready(struct hak_tiny *tiny, unsigned class, size_t units)
{
    size_t end = tiny->starter_used + units;
    size_t have = hak_round_up(tiny->starter_used * HAK_STARTER_UNIT, HAK_PAGE);

    if (tiny->starter == HAK_NO_SLAB) {
        tiny->starter = hak_tiny_slab_take(tiny, class, HAK_TAG_PACKED);
        memset(tiny->starter_class, 0xff, sizeof(tiny->starter_class));
    }
    return tiny->starter != HAK_NO_SLAB && end <= HAK_STARTER_UNITS &&
           hak_range_ready(tiny->starter, 1, end * HAK_STARTER_UNIT,
                           hak_min(have, STARTER_STEP));
}

/*
 * `units` units of the starter slab, or `least` of them, for a run of the class;
 * the first. HAK_STARTER_UNITS: it is full, or out of memory.
 */
static uint32_t starter_take(struct hak_tiny *tiny, unsigned class,
                             uint32_t least, uint32_t *units)
{
    uint32_t first = HAK_STARTER_UNITS;

    if (HAK_UNLIKELY(tiny->holes)) {
        first = hak_tiny_starter_hole(tiny, *units);
        if (first == HAK_STARTER_UNITS && least < *units) {
            *units = least;
            first = hak_tiny_starter_hole(tiny, least);
        }
    }
    if (first == HAK_STARTER_UNITS && starter_ready(tiny, class, *units)) {
        first = tiny->starter_used;
        tiny->starter_used += *units;
    }
    return first;
}

/*
 * A run of new blocks from the starter slab. False: it is full, or out of
 * memory; from then on the heap takes slabs of one class.
 */
static bool carve_packed(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];
    size_t size = hak_tiny_size[class];
    size_t left = (HAK_STARTER_UNITS - tiny->starter_used) * HAK_STARTER_UNIT;
    size_t step = hak_min(shelf->step, CARVE_PACKED_MOST);
    size_t least = hak_round_up(size, HAK_STARTER_UNIT);
    uint32_t units =
        (uint32_t)(hak_max(hak_min(step, left), least) / HAK_STARTER_UNIT);
    uint32_t first =
        starter_take(tiny, class, (uint32_t)(least / HAK_STARTER_UNIT), &units);
    uint32_t count = (uint32_t)(units * HAK_STARTER_UNIT / size);
    char *start;

    if (first == HAK_STARTER_UNITS) {
        tiny->packed = false;
        return false;
    }
    memset(&tiny->starter_class[first], (int)class, units);
    tiny->starter_class[first] |= HAK_STARTER_RUN;
    start = hak_range_slab_start(tiny->starter) + first * HAK_STARTER_UNIT;
    shelf->taken += count;
    head_set(tiny, class, hak_tiny_link_new(start, size, count), count);
    step = hak_min(2 * units * HAK_STARTER_UNIT, CARVE_PACKED_MOST);
    shelf->step = (uint16_t)hak_max(shelf->step, step);
    return true;
}

/* What was flushed of the starter slab. */
static void take_loose(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];

    head_set(tiny, class, shelf->loose, shelf->nloose);
    shelf->taken += shelf->nloose;
    shelf->loose = NULL;
    shelf->nloose = 0;
}

static void heed(struct hak_tiny *tiny);
static void heed_slow(struct hak_tiny *tiny);

/* The spare list of a class becomes its head. */
static bool take_spare(struct hak_tiny *tiny, unsigned class)
{
    struct hak_bin *bin = &tiny->bins[class];
    struct hak_shelf *shelf = &tiny->shelves[class];
    struct hak_block *list = bin->spare;

    if (list == NULL) {
        return false;
    }
    bin->spare = NULL;
    head_set(tiny, class, list, shelf->spare_count);
    shelf->spare_count = 0;
    return true;
}

static bool fill(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];

    if (take_spare(tiny, class)) {
        return true;
    }
    hak_tiny_collect(tiny); /* which may bring a spare list */
    if (take_spare(tiny, class)) {
        return true;
    }
    if (shelf->loose != NULL) {
        take_loose(tiny, class);
        return true;
    }
    if (tiny->packed && carve_packed(tiny, class)) {
        return true;
    }
    /* One without a list but pages that are gone comes behind the fresh one. */
    if (shelf->open != HAK_NO_SLAB && (hak_range_slab(shelf->open)->nfree > 0 ||
                                       shelf->fresh == HAK_NO_SLAB)) {
        take_open(tiny, class);
        return true;
    }
    return carve(tiny, class);
}

void *hak_tiny_refill(struct hak_tiny *tiny, unsigned class)
{
    void *p = NULL;

    hak_tiny_busy(tiny, true);
    tiny->refills++;
    if (HAK_LIKELY(fill(tiny, class))) {
        p = hak_bin_pop(&tiny->bins[class]);
    }
    if (tiny->refills % HEED_REFILLS == 0) {
        heed(tiny);
    }
    hak_tiny_busy(tiny, false);
    return p;
}

/* ---- flush -------------------------------------------------------------- */

/* All of a bin goes back to the slabs. */
static void bin_empty(struct hak_tiny *tiny, unsigned class)
{
    struct hak_block *head = tiny->bins[class].head;
    struct hak_block *spare = tiny->bins[class].spare;

    tiny->bins[class].spare = NULL;
    tiny->shelves[class].spare_count = 0;
    head_set(tiny, class, NULL, 0);
    hak_tiny_slab_put_list(tiny, head);
    hak_tiny_slab_put_list(tiny, spare);
}

/*
 * All but the block just pushed become the spare list; what was the spare
 * list goes back to the slabs.
 */
static void spill(struct hak_tiny *tiny, unsigned class)
{
    struct hak_bin *bin = &tiny->bins[class];
    struct hak_block *last = bin->head;
    struct hak_block *cold = bin->spare;

    tiny->flushes++;
    bin->spare = hak_link_get(last);
    tiny->shelves[class].spare_count = (uint32_t)(head_count(tiny, class) - 1);
    hak_link_set(last, NULL);
    head_set(tiny, class, last, 1);
    hak_tiny_slab_put_list(tiny, cold);
}

void hak_tiny_look(struct hak_tiny *tiny, struct hak_bin *bin)
{
    unsigned class = (unsigned)(bin - tiny->bins);
    int32_t cap = budget(tiny, class);
    int64_t count;

    hak_tiny_busy(tiny, true);
    settle(tiny, class);
    count = head_count(tiny, class);
    if (count >= cap) {
        spill(tiny, class);
    } else {
        grant(tiny, class,
              (int32_t)hak_max((size_t)cap / 2, (size_t)(cap - count)));
    }
    if (tiny->nslabs > HAK_TINY_LARGE) {
        heed_slow(tiny);
    } else {
        heed(tiny);
    }
    hak_tiny_busy(tiny, false);
}

/* ---- memory on its way back ---------------------------------------------- */

/* Bins that hold much are relieved of what nobody seems to need. */
static void relieve(struct hak_tiny *tiny)
{
    hak_tiny_seal_collect(tiny);
    hak_tiny_seal_count(tiny, IDLE_COUNT);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        struct hak_block *spare = tiny->bins[c].spare;

        settle(tiny, c);
        if ((size_t)head_count(tiny, c) * hak_tiny_size[c] > IDLE_MOST) {
            bin_empty(tiny, c);
        } else if (spare != NULL) {
            tiny->bins[c].spare = NULL;
            tiny->shelves[c].spare_count = 0;
            hak_tiny_slab_put_list(tiny, spare);
        }
    }
}

/* Every bin's next look comes as the state of the heap says. */
static void grant_anew(struct hak_tiny *tiny)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        settle(tiny, c);
        grant(tiny, c, hak_max(tiny->bins[c].left, 0));
    }
}

/* Whether little happens in a large heap, as far as looks tell. */
static void heed_quiet(struct hak_tiny *tiny, uint32_t now)
{
    bool quiet = tiny->nslabs > HAK_TINY_LARGE &&
                 now - tiny->looked_at >= QUIET_TIME && tiny->looked_at != 0;
    bool was = tiny->quiet;

    tiny->looked_at = hak_some_time(now);
    tiny->quiet = quiet;
    if (quiet && !was) {
        grant_anew(tiny);
    }
}

static void heed_slow(struct hak_tiny *tiny)
{
    uint32_t now = hak_os_tick();
    uint32_t later = now + (uint32_t)hak_option(HAK_OPT_purge_delay) / 2;
    bool waiting = hak_range_waiting();

    heed_quiet(tiny, now);
    if (tiny->idle_at == 0 || (waiting && !tiny->alert)) {
        tiny->alert = waiting;
        tiny->idle_at = hak_some_time(later);
        grant_anew(tiny);
    } else if (hak_tick_reached(now, tiny->idle_at)) {
        tiny->idle_at = hak_some_time(later);
        relieve(tiny);
        hak_tiny_sweep_begin(tiny, now);
    }
    hak_tiny_sweep_slice(tiny, now);
    tiny->alert = waiting;
    hak_range_tick(now);
}

void hak_tiny_heed(struct hak_tiny *tiny)
{
    hak_tiny_busy(tiny, true);
    heed_slow(tiny);
    hak_tiny_busy(tiny, false);
}

/* On every slow path: what has been idle for long goes back. */
static void heed(struct hak_tiny *tiny)
{
    if (HAK_UNLIKELY(hak_range_waiting())) {
        heed_slow(tiny);
    } else {
        tiny->alert = tiny->quiet = false;
    }
}

/*
 * A block that another thread freed: into the spare list, where it is at hand
 * for the next refill, or if that has enough into its slab.
 */
static void take_in(struct hak_tiny *tiny, unsigned class,
                    struct hak_block *block)
{
    struct hak_shelf *shelf = &tiny->shelves[class];

    if (shelf->spare_count >= (uint32_t)budget(tiny, class)) {
        hak_tiny_slab_put(tiny, block);
        return;
    }
    hak_link_set(block, tiny->bins[class].spare);
    tiny->bins[class].spare = block;
    shelf->spare_count++;
}

void hak_tiny_collect(struct hak_tiny *tiny)
{
    struct hak_block *list;

    /* seq_cst: who parks a heap first says so, then looks here for the last. */
    if (HAK_LIKELY(atomic_load_explicit(&tiny->inbox, memory_order_seq_cst) ==
                   NULL)) {
        return;
    }
    list = atomic_exchange_explicit(&tiny->inbox, NULL, memory_order_acquire);
    while (list != NULL) {
        struct hak_block *next = hak_link_get(list);
        unsigned class = hak_tiny_class_at(list);

        tiny->remote_frees++;
        tiny->remote_bytes += hak_tiny_size[class];
        if (HAK_UNLIKELY(tiny->nsealed > 0) &&
            hak_range_sealed(hak_range_offset(list))) {
            hak_tiny_seal_put(tiny, list);
        } else {
            take_in(tiny, class, list);
        }
        list = next;
    }
}

void hak_tiny_trim(struct hak_tiny *tiny)
{
    hak_tiny_busy(tiny, true);
    hak_tiny_collect(tiny);
    hak_tiny_seal_collect(tiny);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        bin_empty(tiny, c);
        hak_tiny_slab_trim(tiny, c);
    }
    hak_tiny_busy(tiny, false);
}

/* A list of free blocks of sealed slabs. */
static void give_up(struct hak_tiny *tiny, struct hak_block *list)
{
    if (list != NULL) {
        hak_tiny_stale(tiny)[tiny->nstale++] = list;
    }
}

void hak_tiny_seal_class(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];

    settle(tiny, class);
    shelf->taken -= head_count(tiny, class) + shelf->spare_count;
    give_up(tiny, tiny->bins[class].head);
    give_up(tiny, tiny->bins[class].spare);
    shelf->open = shelf->fresh = HAK_NO_SLAB;
    shelf->step = CARVE_FIRST;
    shelf->filled = 0;
    shelf->loose = NULL;
    shelf->nloose = 0;
    tiny->bins[class].spare = NULL;
    shelf->spare_count = 0;
    head_set(tiny, class, NULL, 0);
}

void hak_tiny_hold(struct hak_tiny *tiny)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        tiny->bins[c].left += INT32_MAX / 2;
        tiny->shelves[c].grant += INT32_MAX / 2;
    }
}

HAK_RACY_READER uint64_t hak_tiny_live(const struct hak_tiny *tiny,
                                       unsigned class)
{
    const struct hak_shelf *shelf = &tiny->shelves[class];
    const struct hak_bin *bin = &tiny->bins[class];
    int64_t head =
        shelf->base + (shelf->grant - bin->left) - (int64_t)bin->pops;
    int64_t live = shelf->taken - head - shelf->spare_count;

    return live > 0 ? (uint64_t)live : 0; /* a racing reader may see less */
}
