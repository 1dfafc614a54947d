/*
 * ace_holes.c - ACE's superslabs and their holes: cut, joined, unmapped.
 *
 * The caller of every function holds the lane's lock.
 *
 * Tested by tests/unit/ace/ace.c and tests/unit/ace/ace_gone.c.
 */
#include "ace/ace_holes.h"

#include "os/os.h"
#include "range/purge.h"
#include "range/superslabs.h"

/*
 * Under a limit on address space holes of at least this length are unmapped at
 * once.
 */
#define SHED_LEAST (128 * HAK_KIB / HAK_PAGE)

_Atomic(uint32_t) haki_ace_due;

struct hak_ace_lane haki_ace = {.lock = HAK_LOCK_INIT(haki_ace_mend)};

/* ---- holes ---------------------------------------------------------------- */

uint32_t haki_ace_delay(void)
{
    return haki_purge_delay();
}

/* Makes sure that holes are looked at when they are due. */
void haki_ace_want_tick(uint32_t now)
{
    if (atomic_load_explicit(&haki_ace_due, memory_order_relaxed) == 0) {
        atomic_store_explicit(&haki_ace_due,
                              haki_some_time(now + haki_ace_delay()),
                              memory_order_relaxed);
    }
}

/* Makes the pages from `page` on a hole. */
void haki_ace_hole_add(uint32_t page, uint32_t pages, uint32_t stamp)
{
    struct hak_ace_super *super = haki_ace_super(page);
    struct hak_hole *hole = haki_ace_hole(page);

    HAK_HELD(&haki_ace.lock);
    HAK_ASSERT(pages > 0 && haki_ace_at(page) + pages <= HAK_ACE_PAGES);
    haki_bits_set(super->starts, haki_ace_at(page), 1, true);
    haki_lock_step();
    haki_bits_set(super->holes, haki_ace_at(page), 1, true);
    hole->pages = pages;
    hole->stamp = stamp;
    haki_hole_insert(&haki_ace.holes, page);
    haki_ace.full_holes += pages == HAK_ACE_PAGES;
}

/* The hole is no longer a hole; its start stays marked. */
void haki_ace_hole_drop(uint32_t page)
{
    HAK_HELD(&haki_ace.lock);
    HAK_CHECK(haki_ace_is_hole(page));
    HAK_ASSERT(haki_ace_hole(page)->pages == haki_ace_length(page));
    haki_hole_remove(&haki_ace.holes, page);
    haki_bits_set(haki_ace_super(page)->holes, haki_ace_at(page), 1, false);
    haki_lock_step();
    HAK_ASSERT(haki_ace.full_holes > 0 ||
               haki_ace_hole(page)->pages < HAK_ACE_PAGES);
    haki_ace.full_holes -= haki_ace_hole(page)->pages == HAK_ACE_PAGES;
}

bool haki_ace_is_hole(uint32_t page)
{
    return haki_bits_get(haki_ace_super(page)->holes, haki_ace_at(page));
}

void haki_ace_set_tags(uint32_t super, uint32_t tag)
{
    uint32_t first = super * (uint32_t)HAK_SUPER_SLABS;

    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        haki_range_set_tag(first + n, tag);
    }
}

/* Takes a superslab; it is one hole. False: out of memory. */
static bool ace_super_add(void)
{
    uint32_t resident;
    uint32_t super = haki_range_super_take(HAK_LANE_ACE, &resident);
    uint32_t now = haki_os_tick();
    struct hak_ace_super *meta;

    if (super == HAK_NO_SUPER) {
        return false;
    }
    haki_ace.top = (uint32_t)haki_max(haki_ace.top, super + 1);
    haki_lock_step();
    meta = haki_range_super_meta(super);
    HAK_ASSERT(haki_range_tag((size_t)super << HAK_SUPER_SHIFT) == 0);
    haki_bits_set(meta->starts, 0, HAK_ACE_PAGES, false);
    haki_bits_set(meta->holes, 0, HAK_ACE_PAGES, false);
    haki_bits_set(meta->resident, 0, HAK_ACE_PAGES, false);
    haki_bits_set(meta->gone, 0, HAK_ACE_PAGES, false);
    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        if ((resident >> n & 1) != 0) {
            haki_bits_set(meta->resident, n * (HAK_SLAB_SIZE / HAK_PAGE),
                          HAK_SLAB_SIZE / HAK_PAGE, true);
            atomic_fetch_add(HAK_ACE_CHARGED, HAK_SLAB_SIZE);
        }
    }
    haki_lock_step();
    haki_ace_set_tags(super, HAK_TAG_SHARED(HAK_TAG_ACE));
    haki_lock_step();
    haki_ace_hole_add(super * (uint32_t)HAK_ACE_PAGES, HAK_ACE_PAGES, now);
    if (resident != 0) { /* so that what stays unused goes back */
        haki_ace_want_tick(now);
    }
    return true;
}

/* A bit for each slab of the superslab that may have contents. */
static uint32_t ace_resident_slabs(const struct hak_ace_super *meta)
{
    uint32_t resident = 0;

    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        if (haki_bits_any(meta->resident, n * (HAK_SLAB_SIZE / HAK_PAGE),
                          HAK_SLAB_SIZE / HAK_PAGE)) {
            resident |= (uint32_t)1 << n;
        }
    }
    return resident;
}

/*
 * Gives back the superslab that the hole at `page` fills. False: it was mapped
 * in part and the system would not unmap the rest; it stays a hole.
 */
bool haki_ace_super_give(uint32_t page)
{
    const struct hak_ace_super *meta = haki_ace_super(page);
    uint32_t super = page / (uint32_t)HAK_ACE_PAGES;
    bool bare = haki_ace_any_gone(page, HAK_ACE_PAGES);

    HAK_CHECK(haki_ace_is_hole(page) &&
              haki_ace_hole(page)->pages == HAK_ACE_PAGES);
    if (bare) {
        haki_ace_unmap(page, HAK_ACE_PAGES);
        if (!haki_bits_all(meta->gone, 0, HAK_ACE_PAGES)) {
            return false;
        }
    }
    haki_ace_hole_drop(page);
    haki_ace_set_tags(super, 0);
    if (bare) {
        haki_range_super_gone(super, HAK_LANE_ACE);
    } else {
        uint32_t resident = ace_resident_slabs(meta);

        haki_ace_clean(page, HAK_ACE_PAGES);
        haki_range_supers_give(super, 1, HAK_LANE_ACE, resident);
    }
    return true;
}

/* Under a limit on address space, unmaps the hole if it is long enough. */
void haki_ace_shed(uint32_t page)
{
    if (haki_ace_hole(page)->pages >= SHED_LEAST && haki_range_limited()) {
        haki_ace_unmap(page, haki_ace_hole(page)->pages);
    }
}

/*
 * Makes `pages` pages at `page`, inside the hole at `hole`, a run; what is left
 * of the hole on either side stays a hole. True: the pages are all zero.
 */
bool haki_ace_cut(uint32_t hole, uint32_t page, uint32_t pages, uint32_t owner)
{
    struct hak_ace_super *super = haki_ace_super(page);
    uint32_t end = hole + haki_ace_hole(hole)->pages;
    uint32_t stamp = haki_ace_hole(hole)->stamp;
    bool zero = !haki_bits_any(super->resident, haki_ace_at(page), pages);

    HAK_ASSERT(hole <= page && page + pages <= end && pages >= HAK_ACE_LEAST);
    HAK_ASSERT(!haki_ace_any_gone(page, pages));
    haki_ace_hole_drop(hole);
    if (page > hole) {
        haki_ace_hole_add(hole, page - hole, stamp);
    }
    if (page + pages < end) {
        haki_ace_hole_add(page + pages, end - page - pages, stamp);
    }
    haki_bits_set(super->starts, haki_ace_at(page), 1, true);
    haki_bits_set(super->resident, haki_ace_at(page), pages, true);
    super->owner[haki_ace_at(page) / 8] = owner;
    super->pages[haki_ace_at(page) / 8] = (uint16_t)pages;
    if (HAK_HARD) {
        haki_ace_note(haki_ace_address(page), false);
    }
    return zero;
}

/*
 * Makes the pages from `page` on, whose start is set but which are neither a
 * run nor a hole, a hole, joined with those on both sides.
 */
void haki_ace_join(uint32_t page, uint32_t pages, uint32_t now)
{
    struct hak_ace_super *super = haki_ace_super(page);
    uint32_t at = haki_ace_at(page);
    uint32_t next = page + pages;

    HAK_CHECK(haki_bits_get(super->starts, at) && !haki_ace_is_hole(page));
    HAK_ASSERT(at + pages == HAK_ACE_PAGES ||
               haki_bits_get(super->starts, at + pages));
    if (at + pages < HAK_ACE_PAGES && haki_ace_is_hole(next)) {
        haki_ace_hole_drop(next);
        pages += haki_ace_hole(next)->pages;
        haki_bits_set(super->starts, haki_ace_at(next), 1, false);
    }
    if (at > 0) {
        uint32_t before = page - at + haki_bits_before(super->starts, at);

        if (haki_ace_is_hole(before)) {
            haki_ace_hole_drop(before);
            pages += page - before;
            haki_bits_set(super->starts, at, 1, false);
            page = before;
        }
    }
    haki_ace_hole_add(page, pages, now);
    if (pages < HAK_ACE_PAGES ||
        (haki_ace.full_holes <= HAK_ACE_FULL_HOLES && !haki_range_limited()) ||
        !haki_ace_super_give(page)) {
        haki_ace_shed(page);
    }
}

void haki_ace_count(int64_t pages)
{
    HAK_HELD(&haki_ace.lock);
    HAK_ASSERT(pages >= 0 || haki_ace.counts.live_bytes >=
                                 (uint64_t)(-pages * (int64_t)HAK_PAGE));
    haki_ace.counts.live_bytes += (uint64_t)(pages * (int64_t)HAK_PAGE);
    haki_ace.counts.peak_bytes =
        haki_max(haki_ace.counts.peak_bytes, haki_ace.counts.live_bytes);
}

/* ---- a place for a run ------------------------------------------------------ */

/* Unmaps the holes below `page` in its tree; the bytes. */
static size_t ace_shed_tree(uint32_t page)
{
    size_t bytes = 0;

    for (; page != 0; page = haki_ace_hole(page)->right) {
        bytes += ace_shed_tree(haki_ace_hole(page)->left);
        bytes += haki_ace_unmap(page, haki_ace_hole(page)->pages);
    }
    return bytes;
}

/* Unmaps holes from before there was a limit on address space. */
static bool ace_shed_all(void)
{
    size_t bytes = 0;

    for (uint32_t n = SHED_LEAST; n <= HAK_ACE_PAGES && haki_range_limited();
         n++) {
        bytes += ace_shed_tree(haki_ace.holes.roots[n]);
    }
    return bytes != 0;
}

/* Finds a hole in which a run of `pages` fits; 0: out of memory. */
uint32_t haki_ace_find_hole(uint32_t pages)
{
    uint32_t hole =
        haki_hole_best(&haki_ace.holes, haki_min(pages, HAK_ACE_PAGES));

    if (hole == 0 && (ace_super_add() || (ace_shed_all() && ace_super_add()))) {
        hole = haki_hole_best(&haki_ace.holes, HAK_ACE_PAGES);
    }
    return hole;
}

/* Somebody else has mapped something in a hole: it is left alone for good. */
void haki_ace_bury(uint32_t hole)
{
    struct hak_ace_super *super = haki_ace_super(hole);
    uint32_t pages = haki_ace_hole(hole)->pages;

    haki_ace_hole_drop(hole);
    super->owner[haki_ace_at(hole) / 8] = 0;
    super->pages[haki_ace_at(hole) / 8] = (uint16_t)pages;
    haki_ace.counts.allocs++;
    haki_ace_count(pages);
}
