/*
 * tiny.c - the Tiny lane's slow path: refill.
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
#include "tiny/tiny_seal.h"
#include "tiny/tiny_slab.h"

/*
 * Bytes carved at a time: doubled each time, so that a short-lived heap dirties
 * few cache lines and a growing one is rarely refilled.
 */
#define CARVE_FIRST 512

/* The ladder below huge pages: 16 KB a call in a class's first slabs. */
#define LADDER_STEP (16 * HAK_KIB)
#define LADDER_SLABS 8

/* A heap with this many bytes of other slabs has outgrown its packed ones. */
#define PACKED_FROM ((int64_t)(512 * HAK_KIB))

/* Usual number of pushes until a bin's next look: see tiny_back.c. */
#define GRANT_WAITING 32
#define GRANT_LARGE 512

/* How many refills pass between two looks at the time. */
#define TICK_REFILLS 8

void haki_tiny_set_kind(struct hak_tiny *tiny, bool is_explicit)
{
    tiny->sent_at_once = tiny->accounted = is_explicit;
    haki_allowance_init(&tiny->allow, is_explicit);
}

void haki_tiny_init(struct hak_tiny *tiny, uint32_t id, bool is_explicit)
{
    HAK_ASSERT(id <= HAK_HEAP_ID_MAX);
    memset(tiny, 0, sizeof(*tiny));
    tiny->id = id;
    tiny->tag = id << HAK_TAG_CLASS_BITS;
    tiny->share = HAK_BIN_SHARE;
    tiny->grant_waiting = GRANT_WAITING;
    tiny->grant_large = GRANT_LARGE;
    tiny->allow.share = HAK_BIN_SHARE;
    tiny->freed_from = HAK_UNITS;
    tiny->packed_low = UINT16_MAX;
    tiny->swept_low = INT64_MAX;
    haki_tiny_set_kind(tiny, is_explicit);
    if (!is_explicit) {
        memset(haki_tiny_outbox(tiny, 0), 0,
               HAK_OUTBOXES * sizeof(struct hak_outbox));
    }
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        tiny->bins[c].magic = haki_tiny_magic[c];
        tiny->bins[c].until = HAK_NEVER;
        haki_bin_grant(tiny, c, haki_bin_budget(tiny, c));
        tiny->shelves[c].step = CARVE_FIRST;
    }
}

/* ---- refill ------------------------------------------------------------- */

/* Takes the whole free list of the first open slab. */
static void tiny_take_open(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];
    uint32_t number = shelf->open;
    uint32_t count;

    if (HAK_UNLIKELY(haki_range_slab(number)->nfree == 0)) {
        haki_tiny_slab_wake(tiny, number);
    }
    count = haki_range_slab(number)->nfree;
    HAK_ASSERT(count > 0);
    tiny->nempty -= count + haki_range_slab(number)->ngone ==
                    haki_range_slab(number)->carved;
    haki_slab_close(&shelf->open, number);
    if (HAK_UNLIKELY(haki_range_slab(number)->ngone > 0)) {
        haki_slab_open_last(&shelf->open, number);
    }
    haki_tiny_take(tiny, class, count);
    haki_keep_took(&tiny->allow, count * haki_tiny_size[class]);
    haki_bin_set(tiny, class, haki_tiny_slab_take_free(number), count);
    HAK_WALK(haki_tiny_walk_due());
}

/*
 * How many more bytes to make resident in a slab that has `have`: the first
 * slabs of a class (`before` have been filled) double what they have with each
 * call, starting with a page that is left to its fault; later ones go by 16 KB,
 * then by the whole slab.
 */
static size_t tiny_ladder_step(size_t have, uint32_t before)
{
    if (before == 0) {
        return have;
    }
    return before < LADDER_SLABS ? LADDER_STEP : HAK_SLAB_SIZE;
}

/* Carves new blocks from the fresh slab, or from a slab taken for it. */
static bool tiny_carve(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];
    size_t size = haki_tiny_size[class];
    struct hak_slab *slab;
    uint32_t count;
    char *start;

    if (shelf->fresh == HAK_NO_SLAB) {
        shelf->fresh = haki_tiny_slab_take(tiny, class, class);
    }
    if (shelf->fresh == HAK_NO_SLAB) {
        return false;
    }
    slab = haki_range_slab(shelf->fresh);
    HAK_ASSERT(slab->class == class && slab->carved < slab->capacity);
    HAK_ASSERT(shelf->step <= HAK_TINY_CARVE_MOST);
    count = (uint32_t)haki_max(shelf->step / size, 1);
    count = (uint32_t)haki_min(count, slab->capacity - slab->carved);
    if (!haki_range_ready(shelf->fresh, 1, (slab->carved + count) * size,
                          tiny_ladder_step(slab->resident, shelf->filled))) {
        return false;
    }
    start = haki_range_slab_start(shelf->fresh) + slab->carved * size;
    haki_tiny_take(tiny, class, count);
    haki_keep_took(&tiny->allow, count * size);
    haki_bin_set(tiny, class, haki_tiny_link_new(start, size, count), count);
    slab->carved += count;
    HAK_ASSERT(slab->carved <= slab->capacity);
    shelf->step = (uint16_t)haki_min(shelf->step * 2u, HAK_TINY_CARVE_MOST);
    if (slab->carved == slab->capacity) {
        shelf->fresh = HAK_NO_SLAB;
        shelf->filled += shelf->filled < UINT16_MAX;
    }
    return true;
}

/* Makes the spare list of a class its head. */
static bool tiny_take_spare(struct hak_tiny *tiny, unsigned class)
{
    struct hak_bin *bin = &tiny->bins[class];
    struct hak_shelf *shelf = &tiny->shelves[class];
    struct hak_block *list = bin->spare;

    HAK_ASSERT((list == NULL) == (shelf->spare_count == 0));
    if (list == NULL) {
        return false;
    }
    bin->spare = NULL;
    haki_bin_set(tiny, class, list, shelf->spare_count);
    shelf->spare_count = 0;
    return true;
}

/*
 * Whether to pack blocks: in a heap that has grown large the free space of its
 * packed slabs is searched only if there is much of it.
 */
static bool tiny_is_worth_packing(const struct hak_tiny *tiny)
{
    return tiny->allow.slabs < PACKED_FROM ||
           tiny->packed_bytes < HAK_UNITS * HAK_UNIT / 2;
}

/* Fills the bin with free blocks of slabs that need no further page. */
static bool tiny_fill_free(struct hak_tiny *tiny, unsigned class)
{
    uint32_t open = tiny->shelves[class].open;

    if (tiny->packed && tiny_is_worth_packing(tiny) &&
        haki_tiny_grain_fill(tiny, class, false)) {
        return true;
    }
    if (open != HAK_NO_SLAB && haki_range_slab(open)->nfree > 0) {
        tiny_take_open(tiny, class);
        return true;
    }
    return false;
}

static bool tiny_fill(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];

    HAK_ASSERT(tiny->bins[class].head == NULL);
    if (tiny_take_spare(tiny, class)) {
        return true;
    }
    haki_tiny_collect(tiny); /* which may bring a spare list */
    if (tiny_take_spare(tiny, class) || tiny_fill_free(tiny, class) ||
        (tiny->packed && haki_tiny_grain_fill(tiny, class, true))) {
        return true;
    }
    /* The first open slab's free blocks are all on pages that are gone. */
    if (shelf->open != HAK_NO_SLAB && shelf->fresh == HAK_NO_SLAB) {
        tiny_take_open(tiny, class);
        return true;
    }
    return tiny_carve(tiny, class);
}

void *haki_tiny_refill(struct hak_tiny *tiny, unsigned class)
{
    void *p = NULL;

    if (HAK_UNLIKELY(haki_tiny_must_draw(tiny, tiny->bins[class].until))) {
        p = haki_tiny_pop_drawn(tiny, class);
        if (p != NULL) {
            return p;
        }
    }
    haki_tiny_busy(tiny, true);
    tiny->refills++;
    if (HAK_LIKELY(tiny_fill(tiny, class))) {
        haki_keep_height(&tiny->allow);
        p = haki_bin_pop(&tiny->bins[class]);
    }
    if (tiny->refills % TICK_REFILLS == 0) {
        haki_tiny_tick_within(tiny);
    }
    haki_tiny_busy(tiny, false);
    if (HAK_UNLIKELY(p == NULL) && tiny->bins[class].head != NULL) {
        p = haki_tiny_pop_drawn(tiny, class); /* the first one is a sample */
    }
    return p;
}

/* ---- release, queries ---------------------------------------------------- */

/* Puts aside a list of free blocks of sealed slabs. */
static void tiny_give_up(struct hak_tiny *tiny, struct hak_block *list)
{
    if (list != NULL) {
        HAK_ASSERT(tiny->nstale < HAK_TINY_STALE);
        haki_tiny_stale(tiny)[tiny->nstale++] = list;
    }
}

void haki_tiny_seal_class(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];

    haki_tiny_take(tiny, class, -(int64_t)haki_bin_note(tiny, class));
    tiny_give_up(tiny, tiny->bins[class].head);
    tiny_give_up(tiny, tiny->bins[class].spare);
    shelf->open = shelf->fresh = HAK_NO_SLAB;
    shelf->step = CARVE_FIRST;
    shelf->filled = 0;
    tiny->bins[class].spare = NULL;
    shelf->spare_count = 0;
    haki_bin_set(tiny, class, NULL, 0);
}

void haki_tiny_hold(struct hak_tiny *tiny)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        int32_t more = INT32_MAX / 2 - tiny->bins[c].left;

        tiny->bins[c].left += more;
        tiny->shelves[c].base += (uint32_t)more;
    }
    tiny->allow.extra = INT32_MAX; /* Pool's blocks stay as well, unswept */
}

HAK_RACY_READER uint64_t haki_tiny_live(const struct hak_tiny *tiny,
                                        unsigned class)
{
    const struct hak_shelf *shelf = &tiny->shelves[class];
    const struct hak_bin *bin = &tiny->bins[class];
    uint32_t head = shelf->base - (uint32_t)bin->left -
                    (uint32_t)haki_bin_pops(tiny, class);
    int64_t live = tiny->taken[class] - (int64_t)head - shelf->spare_count;

    return live > 0 ? (uint64_t)live : 0; /* a racing reader may see less */
}
