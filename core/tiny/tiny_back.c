/*
 * tiny_back.c - the Tiny lane: returns blocks to their slabs, and bounds what
 * all bins keep (allowance.h).
 *
 * Every function is called by the one thread that uses the heap.
 */
#include "os/os.h"
#include "range/pressure.h"
#include "range/purge.h"
#include "tiny/tiny_bin.h"
#include "tiny/tiny_seal.h"
#include "tiny/tiny_slab.h"

/*
 * While free memory waits to go back, a bin is looked at every GRANT_WAITING
 * pushes, and in a large heap at least every GRANT_LARGE, so that the time
 * when it is due does not pass unnoticed (refills look at the time only once in
 * TICK_REFILLS). Every half HAKMEM_PURGE_DELAY, spare lists and heads of more
 * than IDLE_MOST bytes go back to the slabs. A large heap whose looks are
 * QUIET_TIME milliseconds apart has little to do: from then on
 * HAK_BIN_GRANT_QUIET pushes bring the next look, so that what a busy time has
 * left behind goes back during the idle time that follows.
 */
#define QUIET_TIME 50

/*
 * A heap whose looks at the time are less than TINY_BUSY_TIME milliseconds
 * apart is busy: it then skips TINY_BUSY_SKIPS of them. What its bins hold is
 * bounded, and not idle.
 */
#define TINY_BUSY_TIME 10
#define TINY_BUSY_SKIPS 15
#define IDLE_MOST (64 * HAK_KIB)

/* How many blocks of stale lists are counted then. */
#define IDLE_COUNT 1000

HAK_NOINLINE void haki_bin_grant(struct hak_tiny *tiny, unsigned class,
                                 int32_t pushes)
{
    haki_bin_note(tiny, class);
    haki_bin_set_left(tiny, class,
                      (int32_t)haki_min((size_t)pushes,
                                        haki_bin_most_pushes(tiny, class)));
}

HAK_NOINLINE void haki_bin_set(struct hak_tiny *tiny, unsigned class,
                               struct hak_block *list, uint32_t count)
{
    int32_t cap = haki_bin_budget(tiny, class);

    /*
     * At least half the budget stays open for pushes: a bin that was just
     * filled to the brim would overflow at once and be refilled in turn.
     */
    tiny->bins[class].head = list;
    tiny->shelves[class].base = (uint32_t)haki_bin_pops(tiny, class) + count +
                                (uint32_t)tiny->bins[class].left;
    haki_bin_grant(tiny, class,
                   (int32_t)haki_max((size_t)cap / 2,
                                     cap - haki_min(count, (size_t)cap)));
}

/* ---- flush -------------------------------------------------------------- */

/* Empties a bin into the slabs. */
static void tiny_bin_flush(struct hak_tiny *tiny, unsigned class)
{
    struct hak_block *head = tiny->bins[class].head;
    struct hak_block *spare = tiny->bins[class].spare;

    tiny->bins[class].spare = NULL;
    tiny->shelves[class].spare_count = 0;
    haki_bin_set(tiny, class, NULL, 0);
    HAK_ASSERT(tiny->shelves[class].seen == 0);
    haki_tiny_slab_put_list(tiny, head);
    haki_tiny_slab_put_list(tiny, spare);
}

/* Notes what all bins hold. */
static void tiny_note_all(struct hak_tiny *tiny)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        haki_bin_note(tiny, c);
    }
}

/* Returns the spare list to the slabs. */
static void tiny_spare_flush(struct hak_tiny *tiny, unsigned class)
{
    struct hak_block *spare = tiny->bins[class].spare;

    HAK_ASSERT((spare == NULL) == (tiny->shelves[class].spare_count == 0));
    tiny->bins[class].spare = NULL;
    tiny->shelves[class].spare_count = 0;
    haki_bin_note(tiny, class);
    haki_tiny_slab_put_list(tiny, spare);
}

/*
 * Makes everything except the block just pushed the spare list, after returning
 * the old spare list to the slabs.
 */
static void tiny_spill(struct hak_tiny *tiny, unsigned class)
{
    struct hak_bin *bin = &tiny->bins[class];
    struct hak_shelf *shelf = &tiny->shelves[class];
    struct hak_block *last = bin->head;
    struct hak_block *cold = bin->spare;

    HAK_ASSERT(last != NULL && haki_bin_count(tiny, class) > 0);
    tiny->flushes++;
    bin->spare = haki_link_get(last);
    shelf->spare_count = haki_bin_count(tiny, class) - 1;
    haki_link_set(last, NULL);
    haki_bin_set(tiny, class, last, 1);
    haki_tiny_slab_put_list(tiny, cold);
}

void haki_tiny_bins_flush(struct hak_tiny *tiny)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        if (tiny->bins[c].head != NULL || tiny->bins[c].spare != NULL) {
            tiny_bin_flush(tiny, c);
        }
    }
}

static size_t tiny_seen_bytes(const struct hak_tiny *tiny, unsigned class)
{
    return (size_t)tiny->shelves[class].seen * haki_tiny_size[class];
}

/* The class whose bin holds the most bytes. */
static unsigned tiny_fullest(const struct hak_tiny *tiny)
{
    unsigned most = 0;

    for (unsigned c = 1; c < HAK_TINY_CLASSES; c++) {
        if (tiny_seen_bytes(tiny, c) > tiny_seen_bytes(tiny, most)) {
            most = c;
        }
    }
    return most;
}

/*
 * Empties the fullest bins until Tiny's share is met: three quarters of what
 * may be kept, or what Pool leaves of that, but at least half of it.
 */
static void tiny_shed(struct hak_tiny *tiny)
{
    struct hak_allowance *allow = &tiny->allow;
    int64_t before = allow->kept[HAK_KEEPS_TINY];
    int64_t most = haki_may_keep(allow), others = haki_kept(allow) - before;

    most -= (int64_t)haki_min((size_t)others, (size_t)most / 2);
    most -= most / 4;
    allow->over = others > most || most == 0; /* Pool may hold more now */
    while (allow->kept[HAK_KEEPS_TINY] > most) {
        unsigned class = tiny_fullest(tiny);

        HAK_ASSERT(tiny_seen_bytes(tiny, class) > 0); /* so this ends */
        if (tiny->bins[class].spare != NULL) {
            tiny_spare_flush(tiny, class);
        } else {
            tiny_bin_flush(tiny, class);
        }
    }
    tiny->flushes += before != allow->kept[HAK_KEEPS_TINY];
    if (before > allow->kept[HAK_KEEPS_TINY]) {
        haki_keep_gave(allow, (size_t)(before - allow->kept[HAK_KEEPS_TINY]));
    }
}

/* Notes what all bins hold; if that is too much it goes back. */
static void tiny_shed_surplus(struct hak_tiny *tiny)
{
    tiny_note_all(tiny);
    if (haki_kept(&tiny->allow) > haki_may_keep(&tiny->allow)) {
        tiny_shed(tiny);
    }
}

/* After a look: makes sure that all bins together do not hold too much. */
static void tiny_bound(struct hak_tiny *tiny)
{
    if (HAK_UNLIKELY(tiny->nempty >
                     haki_may_keep_empty(&tiny->allow, tiny->nslabs))) {
        for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
            haki_tiny_slab_trim(tiny, c);
        }
    }
    if (HAK_UNLIKELY(haki_kept(&tiny->allow) > haki_keep_most(&tiny->allow))) {
        tiny_shed_surplus(tiny);
    }
}

void haki_tiny_shed(struct hak_tiny *tiny)
{
    haki_tiny_busy(tiny, true);
    tiny_shed_surplus(tiny);
    haki_tiny_busy(tiny, false);
}

/* Nothing may be kept: empties the bin that grew. */
static void tiny_give_class(struct hak_tiny *tiny, unsigned class)
{
    size_t bytes = tiny_seen_bytes(tiny, class);

    tiny->flushes++;
    tiny_bin_flush(tiny, class);
    haki_keep_gave(&tiny->allow, bytes);
}

static void tiny_tick_slow(struct hak_tiny *tiny, bool look);

bool haki_tiny_look(struct hak_tiny *tiny, struct hak_bin *bin)
{
    unsigned class = (unsigned)(bin - tiny->bins);
    const struct hak_shelf *shelf = &tiny->shelves[class];
    int32_t cap = haki_bin_budget(tiny, class);
    bool more = true;
    int64_t count;

    HAK_ASSERT(class < HAK_TINY_CLASSES && bin->left < 0 && bin->head != NULL);
    haki_tiny_busy(tiny, true);
    if (HAK_UNLIKELY(haki_tiny_must_draw(tiny, 0))) {
        haki_tiny_draw_round(tiny);
    }
    count = haki_bin_count(tiny, class);
    if (count >= cap && tiny->packed && tiny->allow.slabs == 0 &&
        tiny->allow.extra == 0) {
        tiny_bin_flush(tiny, class);
        haki_keep_gave(&tiny->allow, (size_t)count * haki_tiny_size[class]);
        tiny_bound(tiny);
    } else if (count >= cap) {
        if (tiny->packed && shelf->spare_count > 0) {
            haki_keep_gave(&tiny->allow,
                           (size_t)shelf->spare_count * haki_tiny_size[class]);
        }
        tiny_spill(tiny, class);
        tiny_bound(tiny);
    } else if (count + shelf->spare_count > shelf->seen) {
        haki_bin_grant(tiny, class,
                       (int32_t)haki_max((size_t)cap / 2,
                                         (size_t)(cap - count)));
        if (haki_may_keep(&tiny->allow) ==
            0) { /* the others usually are already */
            tiny_give_class(tiny, class);
        }
        tiny_bound(tiny);
    } else {
        haki_bin_grant_steady(tiny, class, cap - (int32_t)count);
        more = false;
    }
    if (tiny->nslabs > HAK_TINY_LARGE) {
        tiny_tick_slow(tiny, true);
    } else {
        haki_tiny_tick_within(tiny);
    }
    haki_tiny_busy(tiny, false);
    return more;
}

/* ---- memory on its way back ---------------------------------------------- */

/* Bins that hold much give back what nobody seems to need. */
static void tiny_give_idle(struct hak_tiny *tiny)
{
    haki_tiny_seal_collect(tiny);
    haki_tiny_seal_count(tiny, IDLE_COUNT);
    haki_keep_idle(&tiny->allow);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        if ((size_t)haki_bin_count(tiny, c) * haki_tiny_size[c] > IDLE_MOST) {
            tiny_bin_flush(tiny, c);
        } else {
            tiny_spare_flush(tiny, c);
        }
        haki_tiny_slab_trim(tiny, c);
    }
    tiny_bound(tiny);
}

void haki_tiny_grant_all(struct hak_tiny *tiny)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        haki_bin_grant(tiny, c, (int32_t)haki_max(tiny->bins[c].left, 0));
    }
}

/* Works out how busy the heap is from the times of its looks. */
static void tiny_tick_pace(struct hak_tiny *tiny, uint32_t now)
{
    uint32_t since = tiny->ticked_at != 0 ? now - tiny->ticked_at : 0;
    bool quiet = tiny->nslabs > HAK_TINY_LARGE && since >= QUIET_TIME;
    bool was = tiny->quiet;

    tiny->skips =
        tiny->ticked_at != 0 && since < TINY_BUSY_TIME ? TINY_BUSY_SKIPS : 0;
    tiny->ticked_at = haki_some_time(now);
    tiny->quiet = quiet;
    if (quiet && !was) {
        haki_tiny_grant_all(tiny);
    }
}

static void tiny_tick_slow(struct hak_tiny *tiny, bool look)
{
    uint32_t now = haki_os_tick();
    uint32_t later = now + haki_idle_delay();
    bool waiting = haki_range_waiting();

    if (look) {
        tiny_tick_pace(tiny, now);
    }
    if (tiny->idle_at == 0 || (waiting && !tiny->waiting)) {
        tiny->waiting = waiting;
        tiny->idle_at = haki_some_time(later);
        haki_tiny_grant_all(tiny);
    } else if (haki_tick_reached(now, tiny->idle_at)) {
        tiny->idle_at = haki_some_time(later);
        if (tiny->skips == 0 || haki_pressure_near()) {
            tiny_give_idle(tiny);
            haki_tiny_sweep_begin(tiny, now);
        }
    }
    if (tiny->skips == 0) {
        haki_tiny_sweep_slice(tiny, now);
    }
    tiny->waiting = waiting;
    haki_range_tick(now);
}

void haki_tiny_tick(struct hak_tiny *tiny)
{
    haki_tiny_busy(tiny, true);
    tiny_tick_slow(tiny, false);
    haki_tiny_busy(tiny, false);
}

/* Called on every slow path: gives back what has been idle for long. */
void haki_tiny_tick_within(struct hak_tiny *tiny)
{
    if (HAK_UNLIKELY(haki_range_waiting())) {
        if (tiny->skips > 0) {
            tiny->skips--;
        } else {
            tiny_tick_slow(tiny, true);
        }
    } else if (tiny->waiting || tiny->quiet || tiny->skips > 0) {
        tiny->skips = 0; /* other threads read this line: no needless writes */
        tiny->waiting = tiny->quiet = false;
    }
}

/*
 * What one haki_tiny_collect has taken in, noted when it is at its end: `frees`
 * blocks of `bytes` bytes, `kept` bytes of them into spare lists, at most `room`
 * and `each` in a class, and `gave` into slabs.
 */
struct tiny_intake {
    int64_t room, kept;
    size_t each, gave;
    uint64_t frees, bytes;
};

/*
 * Takes in a block that another thread freed: into the spare list, where the
 * next refill finds it, or, if that is full, into its slab.
 */
HAK_INLINE void tiny_take_in(struct hak_tiny *tiny, struct tiny_intake *intake,
                             unsigned class, struct hak_block *block)
{
    struct hak_shelf *shelf = &tiny->shelves[class];
    size_t size = haki_tiny_size[class];

    intake->bytes += size;
    if (HAK_UNLIKELY(intake->kept > intake->room) ||
        (HAK_UNLIKELY(shelf->spare_count * size >= intake->each) &&
         shelf->spare_count >= haki_bin_blocks(tiny))) {
        haki_tiny_slab_put(tiny, block);
        intake->gave += size;
        return;
    }
    haki_link_set(block, tiny->bins[class].spare);
    tiny->bins[class].spare = block;
    shelf->spare_count++;
    shelf->seen++;
    intake->kept += (int64_t)size;
}

/* The same for a block of a packed slab or a sealed one. */
static HAK_NOINLINE void tiny_take_in_other(struct hak_tiny *tiny,
                                            struct tiny_intake *intake,
                                            struct hak_block *block,
                                            uint32_t tag)
{
    unsigned class = haki_tiny_class_at_tag(block, tag);

    HAK_CHECK(HAK_TAG_HEAP(tag) == tiny->id);
    if (class != HAK_TINY_LARGER && (tag & HAK_TAG_SEALED) == 0) {
        tiny_take_in(tiny, intake, class, block);
        return;
    }
    intake->bytes += haki_tiny_bytes_of(block, tag);
    if (class == HAK_TINY_LARGER) {
        haki_tiny_larger_put(tiny, block);
    } else {
        haki_tiny_seal_put(tiny, block);
    }
}

static void tiny_take_in_list(struct hak_tiny *tiny, struct hak_block *list)
{
    struct tiny_intake intake = {.room = haki_may_keep(&tiny->allow) -
                                         haki_kept(&tiny->allow),
                                 .each = haki_bin_bytes(tiny)};

    while (list != NULL) {
        struct hak_block *next = haki_link_get(list);
        uint32_t tag = haki_range_tag_of(list);
        unsigned class = (tag ^ tiny->tag) / HAK_TAG_TINY;

        intake.frees++;
        if (HAK_LIKELY(class < HAK_TINY_CLASSES)) {
            tiny_take_in(tiny, &intake, class, list);
        } else {
            tiny_take_in_other(tiny, &intake, list, tag);
        }
        list = next;
    }
    tiny->remote_frees += intake.frees;
    tiny->remote_bytes += intake.bytes;
    haki_keep_note(&tiny->allow, HAK_KEEPS_TINY, intake.kept);
    if (intake.gave > 0) {
        haki_keep_gave(&tiny->allow, intake.gave);
    }
}

void haki_tiny_collect(struct hak_tiny *tiny)
{
    struct hak_block *list;

    /*
     * seq_cst: a thread that parks a heap first says so, then looks here a last
     * time.
     */
    if (HAK_LIKELY(atomic_load_explicit(&tiny->inbox, memory_order_seq_cst) ==
                   NULL)) {
        return;
    }
    list = atomic_exchange_explicit(&tiny->inbox, NULL, memory_order_acquire);
    if (haki_kept(&tiny->allow) > haki_may_keep(&tiny->allow)) {
        tiny_note_all(tiny); /* what was noted may be long out of date */
    }
    tiny_take_in_list(tiny, list);
    tiny_bound(tiny);
}

void haki_tiny_trim(struct hak_tiny *tiny)
{
    haki_tiny_busy(tiny, true);
    haki_tiny_collect(tiny);
    haki_tiny_seal_collect(tiny);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        tiny_bin_flush(tiny, c);
        haki_tiny_slab_trim(tiny, c);
    }
    HAK_ASSERT(tiny->nempty == 0);
    haki_tiny_grain_trim(tiny);
    haki_keep_idle(&tiny->allow);
    haki_tiny_busy(tiny, false);
}
