/*
 * ace.c - the ACE lane: runs, giving memory back, forks.
 */
#include "ace/ace_holes.h"
#include "ace/ace_walk.h"

#include "os/os.h"
#include "range/purge.h"

/*
 * Holes of PURGE_LEAST pages or more are purged after the delay, smaller ones
 * LONG_WAIT times later: a call to the system costs as much for one page as for
 * many.
 */
#define PURGE_LEAST (256 * HAK_KIB / HAK_PAGE)
#define LONG_WAIT 8

/* ---- runs --------------------------------------------------------------------- */

static void ace_describe(uint32_t page, struct hak_ace_run *run)
{
    run->bytes = haki_ace_length(page) * HAK_PAGE;
    run->owner = haki_ace_super(page)->owner[haki_ace_at(page) / 8];
}

static void *ace_alloc_locked(uint32_t pages, uint32_t align, uint32_t owner,
                              bool *zero)
{
    uint32_t hole, page, end;
    enum hak_os_claim claim;

    while ((hole = haki_ace_find_hole(pages + align - 1)) != 0) {
        page = (hole + align - 1) & ~(align - 1);
        HAK_ASSERT(page + pages <= hole + haki_ace_hole(hole)->pages);
        claim = haki_ace_claim(page, pages);
        if (claim == HAK_OS_REFUSED) {
            return NULL;
        }
        if (claim == HAK_OS_TAKEN) {
            haki_ace_bury(hole);
            continue;
        }
        if (!haki_limit_charge(HAK_ACE_CHARGED, haki_ace_fresh(page, pages))) {
            return NULL;
        }
        end = hole + haki_ace_hole(hole)->pages;
        *zero = haki_ace_cut(hole, page, pages, owner);
        if (page > hole) {
            haki_ace_shed(hole);
        }
        if (page + pages < end) {
            haki_ace_shed(page + pages);
        }
        haki_ace.counts.allocs++;
        haki_ace_count(pages);
        HAK_ASSERT(haki_ace_run_at(haki_ace_address(page)) == page);
        return haki_ace_address(page);
    }
    return NULL;
}

void *haki_ace_alloc(size_t pages, size_t align, uint32_t owner, bool *zero)
{
    void *p;

    haki_lock_take(&haki_ace.lock);
    p = ace_alloc_locked((uint32_t)haki_max(pages, HAK_ACE_LEAST),
                         (uint32_t)(align / HAK_PAGE), owner, zero);
    HAK_WALK(haki_ace_walk(false));
    haki_lock_drop(&haki_ace.lock);
    return p;
}

/* Gives a hole's pages back; the bytes that may have been resident. */
static size_t ace_purge_hole(uint32_t page)
{
    struct hak_ace_super *super = haki_ace_super(page);
    uint32_t pages = haki_ace_hole(page)->pages;
    uint32_t at = haki_ace_at(page);

    HAK_HELD(&haki_ace.lock);
    HAK_CHECK(
        haki_ace_is_hole(page)); /* otherwise it would lose its contents */
    if (haki_ace_any_gone(page, pages)) {
        return haki_ace_unmap(page, pages);
    }
    if (!haki_bits_any(super->resident, at, pages) ||
        !haki_os_purge(haki_ace_address(page), pages * HAK_PAGE)) {
        return 0;
    }
    haki_ace_clean(page, pages);
    return pages * HAK_PAGE;
}

/*
 * The same for the hole that contains `page`, which was freed, if that still
 * exists: its superslab may have been given back.
 */
static void ace_purge_around(uint32_t page)
{
    uint32_t slab = page / (uint32_t)(HAK_SLAB_SIZE / HAK_PAGE);
    uint32_t at = haki_ace_at(page);

    if (haki_range_tag((size_t)slab << HAK_SLAB_SHIFT) ==
        HAK_TAG_SHARED(HAK_TAG_ACE)) {
        page =
            page - at + haki_bits_before(haki_ace_super(page)->starts, at + 1);
        haki_range_purged(ace_purge_hole(page));
    }
}

static void ace_free_locked(uint32_t page)
{
    uint32_t pages = haki_ace_length(page);
    uint32_t now = haki_os_tick();

    HAK_ASSERT(pages >= HAK_ACE_LEAST && !haki_ace_is_hole(page));
    HAK_ASSERT(haki_ace_super(page)->pages[haki_ace_at(page) / 8] == pages);
    haki_range_ask_limit(now);
    haki_ace.counts.frees++;
    haki_ace_count(-(int64_t)pages);
    haki_ace_join(page, pages, now);
    if (pages >= PURGE_LEAST && haki_pressure_near()) {
        ace_purge_around(page);
    }
    haki_ace_want_tick(now);
    haki_range_count_freed(&haki_range_freed.runs, pages * HAK_PAGE);
}

bool haki_ace_free(void *p, struct hak_ace_run *run)
{
    uint32_t page;

    haki_lock_take(&haki_ace.lock);
    page = haki_ace_run_at(p);
    if (page != 0) {
        ace_describe(page, run);
        ace_free_locked(page);
    }
    HAK_WALK(haki_ace_walk(false));
    haki_lock_drop(&haki_ace.lock);
    return page != 0;
}

void haki_ace_purge_run(void *p)
{
    uint32_t page;

    haki_lock_take(&haki_ace.lock);
    page = haki_ace_run_at(p);
    HAK_HELD(&haki_ace.lock);
    if (page != 0) {
        /*
         * It stays marked as resident: its heap's cache may hand it to the next
         * user.
         */
        (void)haki_os_purge(p, haki_ace_length(page) * HAK_PAGE);
    }
    haki_lock_drop(&haki_ace.lock);
}

bool haki_ace_find(const void *p, struct hak_ace_run *run)
{
    uint32_t page = haki_ace_run_at(p);

    if (page != 0) {
        ace_describe(page, run);
    }
    return page != 0;
}

bool haki_ace_around(const void *p, struct hak_ace_run *run)
{
    uint32_t page = (uint32_t)(haki_range_offset(p) / HAK_PAGE);
    uint32_t at = haki_ace_at(page);
    bool in_run;

    haki_lock_take(&haki_ace.lock);
    page = page - at + haki_bits_before(haki_ace_super(page)->starts, at + 1);
    in_run = !haki_ace_is_hole(page) && !haki_ace_is_cached(page);
    if (in_run) {
        ace_describe(page, run);
    }
    haki_lock_drop(&haki_ace.lock);
    return in_run;
}

/* Cuts the tail of a run off. */
static void ace_shrink(uint32_t page, uint32_t old, uint32_t pages)
{
    uint32_t now = haki_os_tick();

    HAK_ASSERT(pages >= HAK_ACE_LEAST && pages < old);
    haki_bits_set(haki_ace_super(page)->starts, haki_ace_at(page) + pages, 1,
                  true);
    haki_ace_join(page + pages, old - pages, now);
    haki_ace_want_tick(now);
}

/* Takes what is missing from the hole behind a run. */
static bool ace_grow(uint32_t page, uint32_t old, uint32_t pages)
{
    struct hak_ace_super *super = haki_ace_super(page);
    uint32_t hole = page + old;
    uint32_t room, stamp;

    if (haki_ace_at(page) + pages > HAK_ACE_PAGES || !haki_ace_is_hole(hole)) {
        return false;
    }
    room = old + haki_ace_hole(hole)->pages;
    stamp = haki_ace_hole(hole)->stamp;
    if (room < pages || haki_ace_claim(hole, pages - old) != HAK_OS_CLAIMED ||
        !haki_limit_charge(HAK_ACE_CHARGED,
                           haki_ace_fresh(hole, pages - old))) {
        return false;
    }
    haki_ace_hole_drop(hole);
    haki_bits_set(super->starts, haki_ace_at(hole), 1, false);
    haki_bits_set(super->resident, haki_ace_at(page), pages, true);
    if (room > pages) {
        haki_ace_hole_add(page + pages, room - pages, stamp);
    }
    return true;
}

static bool ace_resize_locked(uint32_t page, uint32_t pages)
{
    uint32_t old = haki_ace_length(page);

    HAK_HELD(&haki_ace.lock);
    HAK_ASSERT(haki_ace_super(page)->pages[haki_ace_at(page) / 8] == old);
    if (pages < old) {
        ace_shrink(page, old, pages);
    } else if (pages > old && !ace_grow(page, old, pages)) {
        return false;
    }
    haki_ace_super(page)->pages[haki_ace_at(page) / 8] = (uint16_t)pages;
    haki_ace_count((int64_t)pages - old);
    HAK_ASSERT(haki_ace_length(page) == pages);
    return true;
}

bool haki_ace_resize(void *p, size_t pages)
{
    uint32_t page;
    bool done;

    haki_lock_take(&haki_ace.lock);
    page = haki_ace_run_at(p);
    done = page != 0 &&
           ace_resize_locked(page, (uint32_t)haki_max(pages, HAK_ACE_LEAST));
    HAK_WALK(haki_ace_walk(false));
    haki_lock_drop(&haki_ace.lock);
    return done;
}

/*
 * Where the next run or hole begins after `page`, which may have been freed and
 * joined with holes; behind the superslab if that was given back.
 */
static uint32_t ace_after(uint32_t page)
{
    uint32_t slab = page / (uint32_t)(HAK_SLAB_SIZE / HAK_PAGE);

    return HAK_TAG_CLASS(haki_range_tag((size_t)slab << HAK_SLAB_SHIFT)) ==
                   HAK_TAG_ACE
               ? page + haki_ace_length(page)
               : page + (uint32_t)HAK_ACE_PAGES;
}

void haki_ace_mark(const void *p, bool sampled)
{
    uint32_t page = haki_ace_run_at(p);
    uint32_t *owner = &haki_ace_super(page)->owner[haki_ace_at(page) / 8];

    HAK_ASSERT(page != 0);
    haki_lock_take(&haki_ace.lock); /* others may walk over it */
    *owner = HAK_OWNER(*owner) | (sampled ? HAK_OWNER_SAMPLED : 0);
    haki_lock_drop(&haki_ace.lock);
}

void haki_ace_free_owner(uint32_t owner)
{
    haki_lock_take(&haki_ace.lock);
    for (uint32_t super = 0; super < haki_ace.top; super++) {
        uint32_t first = super * (uint32_t)HAK_SUPER_SLABS;
        uint32_t page = super * (uint32_t)HAK_ACE_PAGES;
        uint32_t end = page + (uint32_t)HAK_ACE_PAGES;

        while (HAK_TAG_CLASS(haki_range_tag((size_t)first << HAK_SLAB_SHIFT)) ==
                   HAK_TAG_ACE &&
               page < end) {
            if (!haki_ace_is_hole(page) &&
                HAK_OWNER(haki_ace_super(page)->owner[haki_ace_at(page) / 8]) ==
                    owner) {
                ace_free_locked(page);
            }
            page = ace_after(page);
        }
    }
    HAK_WALK(haki_ace_walk(false));
    haki_lock_drop(&haki_ace.lock);
}

/* The owner's first run in an ACE superslab that begins above `at`; 0: none. */
static uint32_t ace_next_in(uint32_t super, uint32_t owner, const char *at)
{
    uint32_t page = super * (uint32_t)HAK_ACE_PAGES;
    uint32_t end = page + (uint32_t)HAK_ACE_PAGES;

    HAK_HELD(&haki_ace.lock);
    for (; page < end; page += haki_ace_length(page)) {
        if (!haki_ace_is_hole(page) && haki_ace_address(page) > at &&
            HAK_OWNER(haki_ace_super(page)->owner[haki_ace_at(page) / 8]) ==
                owner) {
            return page;
        }
    }
    return 0;
}

char *haki_ace_next(uint32_t owner, const char *at, size_t *bytes)
{
    uint32_t super = at != NULL ? haki_range_number(at) / HAK_SUPER_SLABS : 0;
    uint32_t page = 0;

    haki_lock_take(&haki_ace.lock);
    for (; super < haki_ace.top && page == 0; super++) {
        uint32_t tag = haki_range_tag((size_t)super << HAK_SUPER_SHIFT);

        page = HAK_TAG_CLASS(tag) == HAK_TAG_ACE ? ace_next_in(super, owner, at)
                                                 : 0;
    }
    *bytes = page != 0 ? haki_ace_length(page) * HAK_PAGE : 0;
    haki_lock_drop(&haki_ace.lock);
    return page != 0 ? haki_ace_address(page) : NULL;
}

/* ---- memory back ----------------------------------------------------------------- */

/*
 * Whether a hole is old enough to go back; *next becomes the earliest time when
 * another one will be.
 */
static bool ace_hole_old(const struct hak_hole *hole, uint32_t now,
                         uint32_t *next)
{
    uint32_t wait =
        haki_ace_delay() * (hole->pages >= PURGE_LEAST ? 1 : LONG_WAIT);
    uint32_t at = haki_some_time(hole->stamp + wait);

    if (haki_tick_reached(now, at)) {
        return true;
    }
    if (*next == 0 || haki_tick_reached(*next, at)) {
        *next = at;
    }
    return false;
}

/* Purges the holes below `page` that are old, or all of them (`next` NULL). */
static size_t ace_purge_tree(uint32_t page, uint32_t now, uint32_t *next)
{
    size_t bytes = 0;

    while (page != 0) {
        struct hak_hole *hole = haki_ace_hole(page);

        bytes += ace_purge_tree(hole->left, now, next);
        if (haki_bits_any(haki_ace_super(page)->resident, haki_ace_at(page),
                          hole->pages) &&
            (next == NULL || ace_hole_old(hole, now, next))) {
            bytes += ace_purge_hole(page);
        }
        page = hole->right;
    }
    return bytes;
}

static size_t ace_purge_all(uint32_t now, uint32_t *next)
{
    size_t bytes = 0;

    HAK_HELD(&haki_ace.lock);
    for (uint32_t pages = 1; pages <= HAK_ACE_PAGES; pages++) {
        bytes += ace_purge_tree(haki_ace.holes.roots[pages], now, next);
    }
    haki_range_purged(bytes);
    return bytes;
}

void haki_ace_tick(uint32_t now)
{
    uint32_t due = atomic_load_explicit(&haki_ace_due, memory_order_relaxed);
    uint32_t next = 0;

    if (due == 0 || !haki_tick_reached(now, due)) {
        return;
    }
    haki_lock_take(&haki_ace.lock);
    ace_purge_all(now, &next);
    atomic_store_explicit(&haki_ace_due, next, memory_order_relaxed);
    HAK_WALK(haki_ace_walk(false));
    haki_lock_drop(&haki_ace.lock);
}

size_t haki_ace_trim(void)
{
    size_t bytes;

    haki_lock_take(&haki_ace.lock);
    bytes = ace_purge_all(0, NULL);
    while (haki_ace.full_holes > 0 &&
           haki_ace_super_give(haki_hole_best(&haki_ace.holes,
                                              HAK_ACE_PAGES))) {
    }
    atomic_store_explicit(&haki_ace_due, 0, memory_order_relaxed);
    HAK_WALK(haki_ace_walk(false));
    haki_lock_drop(&haki_ace.lock);
    return bytes;
}

size_t haki_ace_due_bytes(void)
{
    size_t resident, runs;

    haki_lock_take(&haki_ace.lock);
    resident = atomic_load(HAK_ACE_CHARGED);
    runs =
        (size_t)haki_ace.counts.live_bytes; /* all of it counts as resident */
    haki_lock_drop(&haki_ace.lock);
    return resident - haki_min(resident, runs);
}

/* ---- statistics and fork -------------------------------------------------------------- */

void haki_ace_counts(struct hak_lane_counts *out)
{
    haki_lock_take(&haki_ace.lock);
    HAK_POINT("ace");
    *out = haki_ace.counts;
    haki_lock_drop(&haki_ace.lock);
}

bool haki_ace_forked(void)
{
    return haki_lock_settle(&haki_ace.lock);
}

/*
 * After a ghost, a superslab is what its maps say, so the maps are written in a
 * certain order: a bit of `holes` is set last and cleared first. Whatever the
 * ghost was working on (a run being made or freed, a hole being cut, joined or
 * given back, the tail cut off a run) then looks like runs, which are lost.
 * None of their pages counts as zero. Two things may be irregular: a piece may
 * be too short for a run, then it is nobody's, and two holes may be neighbours.
 */
static bool ace_mend_piece(uint32_t page, uint32_t pages)
{
    struct hak_ace_super *super = haki_ace_super(page);
    uint32_t at = haki_ace_at(page);

    if (haki_ace_is_hole(page)) {
        return true;
    }
    haki_bits_set(super->resident, at, pages, true);
    if (pages < HAK_ACE_LEAST) {
        haki_bits_set(super->holes, at, 1, true);
        return true;
    }
    super->pages[at / 8] = (uint16_t)pages;
    haki_ace.counts.live_bytes += pages * HAK_PAGE;
    return false;
}

/* Repairs the runs and holes of the superslab that begins with `page`. */
static void ace_mend_super(uint32_t page, uint32_t now)
{
    struct hak_ace_super *super = haki_ace_super(page);
    uint32_t hole = 0; /* where the hole before `page` begins */
    uint32_t end = page + (uint32_t)HAK_ACE_PAGES;

    while (page < end) {
        uint32_t pages = haki_ace_length(page);

        if (!ace_mend_piece(page, pages)) {
            if (hole != 0) {
                haki_ace_hole_add(hole, page - hole, now);
            }
            hole = 0;
        } else if (hole == 0) {
            hole = page;
        } else {
            haki_bits_set(super->holes, haki_ace_at(page), 1, false);
            haki_lock_step();
            haki_bits_set(super->starts, haki_ace_at(page), 1, false);
        }
        page += pages;
    }
    if (hole != 0) {
        haki_ace_hole_add(hole, end - hole, now);
    }
}

/*
 * A ghost held the lock: computes everything except the maps and the owners
 * again.
 */
HAK_COLD void haki_ace_mend(void)
{
    uint32_t now = haki_os_tick();

    haki_ace.holes = (struct hak_holes){{0}, {0}};
    haki_ace.full_holes = 0;
    haki_ace.counts.live_bytes = 0;
    atomic_store(HAK_ACE_CHARGED, 0);
    for (uint32_t super = 0; super < haki_ace.top; super++) {
        uint32_t page = super * (uint32_t)HAK_ACE_PAGES;

        if (haki_range_tag((size_t)super << HAK_SUPER_SHIFT) !=
            HAK_TAG_SHARED(HAK_TAG_ACE)) {
            continue;
        }
        if (haki_bits_get(haki_ace_super(page)->starts, 0)) {
            ace_mend_super(page, now);
            atomic_fetch_add(HAK_ACE_CHARGED,
                             HAK_SUPER_SIZE -
                                 haki_ace_fresh(page, HAK_ACE_PAGES));
        } else { /* it had only just been taken, and is lost */
            haki_ace_set_tags(super, 0);
        }
    }
    haki_ace.counts.peak_bytes =
        haki_max(haki_ace.counts.peak_bytes, haki_ace.counts.live_bytes);
    haki_ace_want_tick(now);
}
