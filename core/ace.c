/*
 * ace.c - the ACE lane: runs and holes.
 */
#include "ace.h"

#include "ace_bits.h"
#include "lock.h"
#include "options.h"
#include "os.h"

/*
 * Holes that fill a superslab stay here, up to SPARE_MOST of them, so that a
 * program that frees and allocates does not take and give superslabs all the
 * time. Holes of PURGE_LEAST pages or more are purged after the delay, smaller
 * ones LONG_WAIT times later: a call to the system costs as much for one page
 * as for many.
 */
#define SPARE_MOST 4
#define PURGE_LEAST (256 * HAK_KIB / HAK_PAGE)
#define LONG_WAIT 8

_Atomic(uint32_t) hak_ace_due;

static void mend(void);

static hak_lock lock = HAK_LOCK_INIT(mend);

/* Under `lock`. */
static struct hak_holes holes;
static uint32_t spares; /* holes that fill a superslab */
static uint32_t top;    /* no superslab from here on was ever the lane's */
static struct hak_lane_figures figures;

/* ---- holes ------------------------------------------------------------------ */

static char *address(uint32_t page)
{
    return (char *)hak_range.base + (size_t)page * HAK_PAGE;
}

static uint32_t delay(void)
{
    return (uint32_t)hak_option(HAK_OPT_purge_delay);
}

/* Sees to it that holes are looked at when their time has come. */
static void want_tick(uint32_t now)
{
    if (atomic_load_explicit(&hak_ace_due, memory_order_relaxed) == 0) {
        atomic_store_explicit(&hak_ace_due, hak_some_time(now + delay()),
                              memory_order_relaxed);
    }
}

/* The pages from `page` on are a hole now. */
static void hole_add(uint32_t page, uint32_t pages, uint32_t stamp)
{
    struct hak_ace_super *super = hak_ace_super(page);
    struct hak_hole *hole = hak_ace_hole(page);

    HAK_HELD(&lock);
    hak_bits_set(super->starts, hak_ace_at(page), 1, true);
    hak_lock_step();
    hak_bits_set(super->holes, hak_ace_at(page), 1, true);
    hole->pages = pages;
    hole->stamp = stamp;
    hak_hole_insert(&holes, page);
    spares += pages == HAK_ACE_PAGES;
}

/* The hole is none any more; its start is still one. */
static void hole_drop(uint32_t page)
{
    HAK_HELD(&lock);
    hak_hole_remove(&holes, page);
    hak_bits_set(hak_ace_super(page)->holes, hak_ace_at(page), 1, false);
    hak_lock_step();
    spares -= hak_ace_hole(page)->pages == HAK_ACE_PAGES;
}

static bool is_hole(uint32_t page)
{
    return hak_bits_get(hak_ace_super(page)->holes, hak_ace_at(page));
}

static void set_tags(uint32_t super, uint32_t tag)
{
    uint32_t first = super * (uint32_t)HAK_SUPER_SLABS;

    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        hak_range_set_tag(first + n, tag);
    }
}

/* Takes a superslab; it is one hole. False: out of memory. */
static bool super_add(void)
{
    uint32_t warm;
    uint32_t super = hak_range_super_take(HAK_LANE_ACE, &warm);
    uint32_t now = hak_os_tick();
    struct hak_ace_super *meta;

    if (super == HAK_NO_SUPER) {
        return false;
    }
    top = (uint32_t)hak_max(top, super + 1);
    hak_lock_step();
    meta = hak_range_super_meta(super);
    hak_bits_set(meta->starts, 0, HAK_ACE_PAGES, false);
    hak_bits_set(meta->holes, 0, HAK_ACE_PAGES, false);
    hak_bits_set(meta->dirty, 0, HAK_ACE_PAGES, false);
    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        if ((warm >> n & 1) != 0) {
            hak_bits_set(meta->dirty, n * (HAK_SLAB_SIZE / HAK_PAGE),
                         HAK_SLAB_SIZE / HAK_PAGE, true);
        }
    }
    hak_lock_step();
    set_tags(super, HAK_TAG_SHARED(HAK_TAG_ACE));
    hak_lock_step();
    hole_add(super * (uint32_t)HAK_ACE_PAGES, HAK_ACE_PAGES, now);
    if (warm != 0) { /* what is not used of it shall not stay so */
        want_tick(now);
    }
    return true;
}

/* Gives back the superslab that the hole at `page` fills. */
static void super_give(uint32_t page)
{
    const struct hak_ace_super *meta = hak_ace_super(page);
    uint32_t warm = 0;

    hole_drop(page);
    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        if (hak_bits_any(meta->dirty, n * (HAK_SLAB_SIZE / HAK_PAGE),
                         HAK_SLAB_SIZE / HAK_PAGE)) {
            warm |= (uint32_t)1 << n;
        }
    }
    set_tags(page / HAK_ACE_PAGES, 0);
    hak_range_supers_give(page / HAK_ACE_PAGES, 1, HAK_LANE_ACE, warm);
}

/*
 * Makes `pages` pages at `page`, inside the hole at `hole`, a run; what is
 * left of the hole on either side stays one. True: they are all zero.
 */
static bool cut(uint32_t hole, uint32_t page, uint32_t pages, uint32_t owner)
{
    struct hak_ace_super *super = hak_ace_super(page);
    uint32_t end = hole + hak_ace_hole(hole)->pages;
    uint32_t stamp = hak_ace_hole(hole)->stamp;
    bool zero = !hak_bits_any(super->dirty, hak_ace_at(page), pages);

    hole_drop(hole);
    if (page > hole) {
        hole_add(hole, page - hole, stamp);
    }
    if (page + pages < end) {
        hole_add(page + pages, end - page - pages, stamp);
    }
    hak_bits_set(super->starts, hak_ace_at(page), 1, true);
    hak_bits_set(super->dirty, hak_ace_at(page), pages, true);
    super->owner[hak_ace_at(page) / 8] = owner;
    super->pages[hak_ace_at(page) / 8] = (uint16_t)pages;
    if (HAK_HARD) {
        hak_ace_note(address(page), false);
    }
    return zero;
}

/*
 * The pages from `page` on, whose start is set but which are neither run nor
 * hole, become a hole, with those on both sides.
 */
static void join(uint32_t page, uint32_t pages, uint32_t now)
{
    struct hak_ace_super *super = hak_ace_super(page);
    uint32_t at = hak_ace_at(page);
    uint32_t next = page + pages;

    if (at + pages < HAK_ACE_PAGES && is_hole(next)) {
        hole_drop(next);
        pages += hak_ace_hole(next)->pages;
        hak_bits_set(super->starts, hak_ace_at(next), 1, false);
    }
    if (at > 0) {
        uint32_t before = page - at + hak_bits_before(super->starts, at);

        if (is_hole(before)) {
            hole_drop(before);
            pages += page - before;
            hak_bits_set(super->starts, at, 1, false);
            page = before;
        }
    }
    hole_add(page, pages, now);
    if (pages == HAK_ACE_PAGES && spares > SPARE_MOST) {
        super_give(page);
    }
}

/* ---- runs --------------------------------------------------------------------- */

static void count_bytes(int64_t pages)
{
    HAK_HELD(&lock);
    figures.live_bytes += (uint64_t)(pages * (int64_t)HAK_PAGE);
    figures.peak_bytes = hak_max(figures.peak_bytes, figures.live_bytes);
}

static void describe(uint32_t page, struct hak_ace_run *run)
{
    run->bytes = hak_ace_length(page) * HAK_PAGE;
    run->owner = hak_ace_super(page)->owner[hak_ace_at(page) / 8];
}

static void *alloc_locked(uint32_t pages, uint32_t align, uint32_t owner,
                          bool *zero)
{
    uint32_t room = pages + align - 1;
    uint32_t hole = hak_hole_best(&holes, hak_min(room, HAK_ACE_PAGES));
    uint32_t page;

    if (hole == 0) {
        if (!super_add()) {
            return NULL;
        }
        hole = hak_hole_best(&holes, HAK_ACE_PAGES);
    }
    page = (hole + align - 1) & ~(align - 1);
    *zero = cut(hole, page, pages, owner);
    figures.allocs++;
    count_bytes(pages);
    return address(page);
}

void *hak_ace_alloc(size_t pages, size_t align, uint32_t owner, bool *zero)
{
    void *p;

    hak_lock_take(&lock);
    p = alloc_locked((uint32_t)hak_max(pages, HAK_ACE_LEAST),
                     (uint32_t)(align / HAK_PAGE), owner, zero);
    hak_lock_drop(&lock);
    return p;
}

static void free_locked(uint32_t page)
{
    uint32_t pages = hak_ace_length(page);
    uint32_t now = hak_os_tick();

    figures.frees++;
    count_bytes(-(int64_t)pages);
    join(page, pages, now);
    want_tick(now);
}

bool hak_ace_free(void *p, struct hak_ace_run *run)
{
    uint32_t page;

    hak_lock_take(&lock);
    page = hak_ace_run_at(p);
    if (page != 0) {
        describe(page, run);
        free_locked(page);
    }
    hak_lock_drop(&lock);
    return page != 0;
}

void hak_ace_empty(void *p)
{
    uint32_t page;

    hak_lock_take(&lock);
    page = hak_ace_run_at(p);
    if (page != 0) {
        /* It stays dirty: its heap's cache may give it to the next user. */
        (void)hak_os_purge(p, hak_ace_length(page) * HAK_PAGE);
    }
    hak_lock_drop(&lock);
}

bool hak_ace_find(const void *p, struct hak_ace_run *run)
{
    uint32_t page = hak_ace_run_at(p);

    if (page != 0) {
        describe(page, run);
    }
    return page != 0;
}

bool hak_ace_around(const void *p, struct hak_ace_run *run)
{
    uint32_t page = (uint32_t)(hak_range_offset(p) / HAK_PAGE);
    uint32_t at = hak_ace_at(page);
    bool in_run;

    hak_lock_take(&lock);
    page = page - at + hak_bits_before(hak_ace_super(page)->starts, at + 1);
    in_run = !is_hole(page) && !hak_ace_is_cached(page);
    if (in_run) {
        describe(page, run);
    }
    hak_lock_drop(&lock);
    return in_run;
}

/* Cuts the tail of a run off. */
static void shrink(uint32_t page, uint32_t old, uint32_t pages)
{
    uint32_t now = hak_os_tick();

    hak_bits_set(hak_ace_super(page)->starts, hak_ace_at(page) + pages, 1,
                 true);
    join(page + pages, old - pages, now);
    want_tick(now);
}

/* Takes what is missing from the hole behind a run. */
static bool grow(uint32_t page, uint32_t old, uint32_t pages)
{
    struct hak_ace_super *super = hak_ace_super(page);
    uint32_t hole = page + old;
    uint32_t room, stamp;

    if (hak_ace_at(page) + pages > HAK_ACE_PAGES || !is_hole(hole)) {
        return false;
    }
    room = old + hak_ace_hole(hole)->pages;
    stamp = hak_ace_hole(hole)->stamp;
    if (room < pages) {
        return false;
    }
    hole_drop(hole);
    hak_bits_set(super->starts, hak_ace_at(hole), 1, false);
    hak_bits_set(super->dirty, hak_ace_at(page), pages, true);
    if (room > pages) {
        hole_add(page + pages, room - pages, stamp);
    }
    return true;
}

static bool resize_locked(uint32_t page, uint32_t pages)
{
    uint32_t old = hak_ace_length(page);

    if (pages < old) {
        shrink(page, old, pages);
    } else if (pages > old && !grow(page, old, pages)) {
        return false;
    }
    hak_ace_super(page)->pages[hak_ace_at(page) / 8] = (uint16_t)pages;
    count_bytes((int64_t)pages - old);
    return true;
}

bool hak_ace_resize(void *p, size_t pages)
{
    uint32_t page;
    bool done;

    hak_lock_take(&lock);
    page = hak_ace_run_at(p);
    done = page != 0 &&
           resize_locked(page, (uint32_t)hak_max(pages, HAK_ACE_LEAST));
    hak_lock_drop(&lock);
    return done;
}

/*
 * Where the next run or hole begins after `page`, which may have been freed and
 * have joined holes; behind the superslab if that was given back.
 */
static uint32_t after(uint32_t page)
{
    uint32_t slab = page / (uint32_t)(HAK_SLAB_SIZE / HAK_PAGE);

    return HAK_TAG_CLASS(hak_range_tag((size_t)slab << HAK_SLAB_SHIFT)) ==
                   HAK_TAG_ACE
               ? page + hak_ace_length(page)
               : page + (uint32_t)HAK_ACE_PAGES;
}

void hak_ace_free_owner(uint32_t owner)
{
    hak_lock_take(&lock);
    for (uint32_t super = 0; super < top; super++) {
        uint32_t first = super * (uint32_t)HAK_SUPER_SLABS;
        uint32_t page = super * (uint32_t)HAK_ACE_PAGES;
        uint32_t end = page + (uint32_t)HAK_ACE_PAGES;

        while (HAK_TAG_CLASS(hak_range_tag((size_t)first << HAK_SLAB_SHIFT)) ==
                   HAK_TAG_ACE &&
               page < end) {
            if (!is_hole(page) &&
                hak_ace_super(page)->owner[hak_ace_at(page) / 8] == owner) {
                free_locked(page);
            }
            page = after(page);
        }
    }
    hak_lock_drop(&lock);
}

/* ---- memory back ----------------------------------------------------------------- */

/* Gives a hole's pages back; the bytes that may have been resident. */
static size_t purge_hole(uint32_t page)
{
    struct hak_ace_super *super = hak_ace_super(page);
    uint32_t pages = hak_ace_hole(page)->pages;
    uint32_t at = hak_ace_at(page);

    HAK_HELD(&lock);
    if (!hak_bits_any(super->dirty, at, pages) ||
        !hak_os_purge(address(page), pages * HAK_PAGE)) {
        return 0;
    }
    hak_bits_set(super->dirty, at, pages, false);
    return pages * HAK_PAGE;
}

/* When a hole may go; *next becomes the earliest such time to come. */
static bool hole_old(const struct hak_hole *hole, uint32_t now, uint32_t *next)
{
    uint32_t wait = delay() * (hole->pages >= PURGE_LEAST ? 1 : LONG_WAIT);
    uint32_t at = hak_some_time(hole->stamp + wait);

    if (hak_tick_reached(now, at)) {
        return true;
    }
    if (*next == 0 || hak_tick_reached(*next, at)) {
        *next = at;
    }
    return false;
}

/* Purges the holes below `page` that are old, or all of them (`next` NULL). */
static size_t purge_tree(uint32_t page, uint32_t now, uint32_t *next)
{
    size_t bytes = 0;

    while (page != 0) {
        struct hak_hole *hole = hak_ace_hole(page);

        bytes += purge_tree(hole->left, now, next);
        if (hak_bits_any(hak_ace_super(page)->dirty, hak_ace_at(page),
                         hole->pages) &&
            (next == NULL || hole_old(hole, now, next))) {
            bytes += purge_hole(page);
        }
        page = hole->right;
    }
    return bytes;
}

static size_t purge_all(uint32_t now, uint32_t *next)
{
    size_t bytes = 0;

    HAK_HELD(&lock);
    for (uint32_t pages = 1; pages <= HAK_ACE_PAGES; pages++) {
        bytes += purge_tree(holes.roots[pages], now, next);
    }
    hak_range_purged(bytes);
    return bytes;
}

void hak_ace_tick(uint32_t now)
{
    uint32_t due = atomic_load_explicit(&hak_ace_due, memory_order_relaxed);
    uint32_t next = 0;

    if (due == 0 || !hak_tick_reached(now, due)) {
        return;
    }
    hak_lock_take(&lock);
    purge_all(now, &next);
    atomic_store_explicit(&hak_ace_due, next, memory_order_relaxed);
    hak_lock_drop(&lock);
}

size_t hak_ace_trim(void)
{
    size_t bytes;

    hak_lock_take(&lock);
    bytes = purge_all(0, NULL);
    while (spares > 0) {
        super_give(hak_hole_best(&holes, HAK_ACE_PAGES));
    }
    atomic_store_explicit(&hak_ace_due, 0, memory_order_relaxed);
    hak_lock_drop(&lock);
    return bytes;
}

/* ---- figures and fork -------------------------------------------------------------- */

void hak_ace_figures(struct hak_lane_figures *out)
{
    hak_lock_take(&lock);
    HAK_POINT("ace");
    *out = figures;
    hak_lock_drop(&lock);
}

bool hak_ace_forked(void)
{
    return hak_lock_settle(&lock);
}

/*
 * What a ghost has left of a superslab is what its maps say, so the writes to
 * them have an order: a bit of `holes` is set last and cleared first. What the
 * ghost was at looks like runs, which are lost: a run being made or freed, a
 * hole being cut, joined or given back, the tail of a run that is cut off. Not
 * a page of them is known to be zero. Two things are not as they should be: a
 * piece may be too short for a run, then it is nobody's, and two holes may be
 * neighbours.
 */
static bool mend_piece(uint32_t page, uint32_t pages)
{
    struct hak_ace_super *super = hak_ace_super(page);
    uint32_t at = hak_ace_at(page);

    if (is_hole(page)) {
        return true;
    }
    hak_bits_set(super->dirty, at, pages, true);
    if (pages < HAK_ACE_LEAST) {
        hak_bits_set(super->holes, at, 1, true);
        return true;
    }
    super->pages[at / 8] = (uint16_t)pages;
    figures.live_bytes += pages * HAK_PAGE;
    return false;
}

/* The runs and holes of the superslab that begins with `page`. */
static void mend_super(uint32_t page, uint32_t now)
{
    struct hak_ace_super *super = hak_ace_super(page);
    uint32_t hole = 0; /* where the hole before `page` begins */
    uint32_t end = page + (uint32_t)HAK_ACE_PAGES;

    while (page < end) {
        uint32_t pages = hak_ace_length(page);

        if (!mend_piece(page, pages)) {
            if (hole != 0) {
                hole_add(hole, page - hole, now);
            }
            hole = 0;
        } else if (hole == 0) {
            hole = page;
        } else {
            hak_bits_set(super->holes, hak_ace_at(page), 1, false);
            hak_lock_step();
            hak_bits_set(super->starts, hak_ace_at(page), 1, false);
        }
        page += pages;
    }
    if (hole != 0) {
        hole_add(hole, end - hole, now);
    }
}

/* A ghost held the lock: all but the maps and the owners is made anew. */
static void mend(void)
{
    uint32_t now = hak_os_tick();

    holes = (struct hak_holes){{0}, {0}};
    spares = 0;
    figures.live_bytes = 0;
    for (uint32_t super = 0; super < top; super++) {
        uint32_t page = super * (uint32_t)HAK_ACE_PAGES;

        if (hak_range_tag((size_t)super << HAK_SUPER_SHIFT) !=
            HAK_TAG_SHARED(HAK_TAG_ACE)) {
            continue;
        }
        if (hak_bits_get(hak_ace_super(page)->starts, 0)) {
            mend_super(page, now);
        } else { /* it was only just taken, and is lost */
            set_tags(super, 0);
        }
    }
    want_tick(now);
}
