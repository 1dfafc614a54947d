/*
 * tiny.c - the Tiny lane's slow half: refill.
 *
 * Every function is called by the one thread that uses the heap.
 */
#include "tiny/tiny.h"

#include <string.h>

#include "base/msg.h"
#include "os/os.h"
#include "range/pressure.h"
#include "range/slabs.h"
#include "tiny/tiny_bin.h"
#include "tiny/tiny_slab.h"

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

/* Pushes to a bin's next look, as a rule: see tiny_back.c. */
#define ALERT_PUSHES 32
#define LARGE_PUSHES 512

/* Slow paths that bring blocks look at the time once in so many. */
#define HEED_REFILLS 8

void hak_tiny_init(struct hak_tiny *tiny, uint32_t id, bool direct)
{
    HAK_ASSERT(id <= HAK_HEAP_ID_MAX);
    memset(tiny, 0, sizeof(*tiny));
    tiny->id = id;
    tiny->tag = id << HAK_TAG_CLASS_BITS;
    tiny->direct = direct;
    tiny->share = HAK_BIN_SHARE;
    tiny->pushes = ALERT_PUSHES;
    tiny->seldom = LARGE_PUSHES;
    tiny->allow.share = HAK_BIN_SHARE;
    hak_allowance_init(&tiny->allow, direct);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        tiny->bins[c].magic = hak_tiny_magic[c];
        hak_bin_grant(tiny, c, hak_bin_budget(tiny, c));
        tiny->shelves[c].step = CARVE_FIRST;
    }
}

/* ---- refill ------------------------------------------------------------- */

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
    HAK_ASSERT(count > 0);
    tiny->nempty -=
        count + hak_range_slab(number)->ngone == hak_range_slab(number)->carved;
    hak_slab_close(&shelf->open, number);
    if (HAK_UNLIKELY(hak_range_slab(number)->ngone > 0)) {
        hak_slab_open_last(&shelf->open, number);
    }
    hak_tiny_take(tiny, class, count);
    hak_keep_took(&tiny->allow, count * hak_tiny_size[class]);
    hak_bin_set(tiny, class, hak_tiny_slab_empty(number), count);
    HAK_WALK(hak_tiny_walk_due());
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
    HAK_ASSERT(slab->class == class && slab->carved < slab->capacity);
    count = (uint32_t)hak_max(shelf->step / size, 1);
    count = (uint32_t)hak_min(count, slab->capacity - slab->carved);
    if (!hak_range_ready(shelf->fresh, 1, (slab->carved + count) * size,
                         ladder_step(slab->populated, shelf->filled))) {
        return false;
    }
    start = hak_range_slab_start(shelf->fresh) + slab->carved * size;
    hak_tiny_take(tiny, class, count);
    hak_keep_took(&tiny->allow, count * size);
    hak_bin_set(tiny, class, hak_tiny_link_new(start, size, count), count);
    slab->carved += count;
    HAK_ASSERT(slab->carved <= slab->capacity);
    shelf->step = (uint16_t)hak_min(shelf->step * 2u, HAK_TINY_CARVE_MOST);
    if (slab->carved == slab->capacity) {
        shelf->fresh = HAK_NO_SLAB;
        shelf->filled += shelf->filled < UINT16_MAX;
    }
    return true;
}

/*
 * The starter slab, ready for `units` more units; false if it can't be. What
 * is resident of it grows by a page at first, then by STARTER_STEP.
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
                           have <= STARTER_STEP ? HAK_PAGE : STARTER_STEP);
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
    HAK_ASSERT(first + units <= HAK_STARTER_UNITS && count > 0);
    memset(&tiny->starter_class[first], (int)class, units);
    tiny->starter_class[first] |= HAK_STARTER_RUN;
    start = hak_range_slab_start(tiny->starter) + first * HAK_STARTER_UNIT;
    hak_tiny_take(tiny, class, count);
    hak_bin_set(tiny, class, hak_tiny_link_new(start, size, count), count);
    step = hak_min(2 * units * HAK_STARTER_UNIT, CARVE_PACKED_MOST);
    shelf->step = (uint16_t)hak_max(shelf->step, step);
    return true;
}

/* What was flushed of the starter slab. */
static void take_loose(struct hak_tiny *tiny, unsigned class)
{
    struct hak_block *list = hak_tiny_loose(tiny, class);
    uint32_t count = tiny->shelves[class].nloose;

    HAK_ASSERT(list != NULL && count > 0);
    tiny->shelves[class].nloose = 0;
    hak_tiny_take(tiny, class, count);
    hak_keep_took(&tiny->allow, count * hak_tiny_size[class]);
    hak_bin_set(tiny, class, list, count);
}

/* The spare list of a class becomes its head. */
static bool take_spare(struct hak_tiny *tiny, unsigned class)
{
    struct hak_bin *bin = &tiny->bins[class];
    struct hak_shelf *shelf = &tiny->shelves[class];
    struct hak_block *list = bin->spare;

    HAK_ASSERT((list == NULL) == (shelf->spare_count == 0));
    if (list == NULL) {
        return false;
    }
    bin->spare = NULL;
    hak_bin_set(tiny, class, list, shelf->spare_count);
    shelf->spare_count = 0;
    return true;
}

static bool fill(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];

    HAK_ASSERT(tiny->bins[class].head == NULL);
    if (take_spare(tiny, class)) {
        return true;
    }
    hak_tiny_collect(tiny); /* which may bring a spare list */
    if (take_spare(tiny, class)) {
        return true;
    }
    if (shelf->nloose != 0) {
        take_loose(tiny, class);
        return true;
    }
    if (shelf->open != HAK_NO_SLAB && hak_range_slab(shelf->open)->nfree > 0) {
        take_open(tiny, class);
        return true;
    }
    if (tiny->packed && carve_packed(tiny, class)) {
        return true;
    }
    /* One whose free blocks are all on pages that are gone. */
    if (shelf->open != HAK_NO_SLAB && shelf->fresh == HAK_NO_SLAB) {
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
        hak_tiny_heed_within(tiny);
    }
    hak_tiny_busy(tiny, false);
    return p;
}

/* ---- the end, questions -------------------------------------------------- */

/* A list of free blocks of sealed slabs. */
static void give_up(struct hak_tiny *tiny, struct hak_block *list)
{
    if (list != NULL) {
        HAK_ASSERT(tiny->nstale < HAK_TINY_STALE);
        hak_tiny_stale(tiny)[tiny->nstale++] = list;
    }
}

void hak_tiny_seal_class(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];

    hak_bin_settle(tiny, class);
    hak_tiny_take(tiny, class, -(int64_t)hak_bin_note(tiny, class));
    give_up(tiny, tiny->bins[class].head);
    give_up(tiny, tiny->bins[class].spare);
    shelf->open = shelf->fresh = HAK_NO_SLAB;
    shelf->step = CARVE_FIRST;
    shelf->filled = 0;
    shelf->nloose = 0;
    tiny->bins[class].spare = NULL;
    shelf->spare_count = 0;
    hak_bin_set(tiny, class, NULL, 0);
}

void hak_tiny_hold(struct hak_tiny *tiny)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        tiny->bins[c].left += INT32_MAX / 2;
        tiny->shelves[c].grant += INT32_MAX / 2;
    }
    tiny->allow.extra = INT32_MAX; /* Pool's blocks stay as well, unswept */
}

HAK_RACY_READER uint64_t hak_tiny_live(const struct hak_tiny *tiny,
                                       unsigned class)
{
    const struct hak_shelf *shelf = &tiny->shelves[class];
    const struct hak_bin *bin = &tiny->bins[class];
    uint32_t head = shelf->base + (uint32_t)(shelf->grant - bin->left) -
                    (uint32_t)bin->pops;
    int64_t live = shelf->taken - (int64_t)head - shelf->spare_count;

    return live > 0 ? (uint64_t)live : 0; /* a racing reader may see less */
}
