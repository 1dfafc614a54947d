/*
 * ace_holes.c - ACE's superslabs and their holes: cut, joined, unmapped.
 *
 * The caller of every function holds the lane's lock.
 */
#include "ace/ace_holes.h"

#include "os/os.h"
#include "range/purge.h"
#include "range/superslabs.h"

/* Under a limit on address space holes from here on are unmapped at once. */
#define SHED_LEAST (128 * HAK_KIB / HAK_PAGE)

_Atomic(uint32_t) hak_ace_due;

struct hak_ace_lane hak_ace = {.lock = HAK_LOCK_INIT(hak_ace_mend)};

/* ---- holes ---------------------------------------------------------------- */

uint32_t hak_ace_delay(void)
{
    return hak_purge_delay();
}

/* Sees to it that holes are looked at when their time has come. */
void hak_ace_want_tick(uint32_t now)
{
    if (atomic_load_explicit(&hak_ace_due, memory_order_relaxed) == 0) {
        atomic_store_explicit(&hak_ace_due,
                              hak_some_time(now + hak_ace_delay()),
                              memory_order_relaxed);
    }
}

/* The pages from `page` on are a hole now. */
void hak_ace_hole_add(uint32_t page, uint32_t pages, uint32_t stamp)
{
    struct hak_ace_super *super = hak_ace_super(page);
    struct hak_hole *hole = hak_ace_hole(page);

    HAK_HELD(&hak_ace.lock);
    HAK_ASSERT(pages > 0 && hak_ace_at(page) + pages <= HAK_ACE_PAGES);
    hak_bits_set(super->starts, hak_ace_at(page), 1, true);
    hak_lock_step();
    hak_bits_set(super->holes, hak_ace_at(page), 1, true);
    hole->pages = pages;
    hole->stamp = stamp;
    hak_hole_insert(&hak_ace.holes, page);
    hak_ace.spares += pages == HAK_ACE_PAGES;
}

/* The hole is none any more; its start is still one. */
void hak_ace_hole_drop(uint32_t page)
{
    HAK_HELD(&hak_ace.lock);
    HAK_CHECK(hak_ace_is_hole(page));
    HAK_ASSERT(hak_ace_hole(page)->pages == hak_ace_length(page));
    hak_hole_remove(&hak_ace.holes, page);
    hak_bits_set(hak_ace_super(page)->holes, hak_ace_at(page), 1, false);
    hak_lock_step();
    HAK_ASSERT(hak_ace.spares > 0 || hak_ace_hole(page)->pages < HAK_ACE_PAGES);
    hak_ace.spares -= hak_ace_hole(page)->pages == HAK_ACE_PAGES;
}

bool hak_ace_is_hole(uint32_t page)
{
    return hak_bits_get(hak_ace_super(page)->holes, hak_ace_at(page));
}

void hak_ace_set_tags(uint32_t super, uint32_t tag)
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
    hak_ace.top = (uint32_t)hak_max(hak_ace.top, super + 1);
    hak_lock_step();
    meta = hak_range_super_meta(super);
    HAK_ASSERT(hak_range_tag((size_t)super << HAK_SUPER_SHIFT) == 0);
    hak_bits_set(meta->starts, 0, HAK_ACE_PAGES, false);
    hak_bits_set(meta->holes, 0, HAK_ACE_PAGES, false);
    hak_bits_set(meta->dirty, 0, HAK_ACE_PAGES, false);
    hak_bits_set(meta->gone, 0, HAK_ACE_PAGES, false);
    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        if ((warm >> n & 1) != 0) {
            hak_bits_set(meta->dirty, n * (HAK_SLAB_SIZE / HAK_PAGE),
                         HAK_SLAB_SIZE / HAK_PAGE, true);
            atomic_fetch_add(HAK_ACE_CHARGED, HAK_SLAB_SIZE);
        }
    }
    hak_lock_step();
    hak_ace_set_tags(super, HAK_TAG_SHARED(HAK_TAG_ACE));
    hak_lock_step();
    hak_ace_hole_add(super * (uint32_t)HAK_ACE_PAGES, HAK_ACE_PAGES, now);
    if (warm != 0) { /* what is not used of it shall not stay so */
        hak_ace_want_tick(now);
    }
    return true;
}

/* A bit for each slab of the superslab that may have contents. */
static uint32_t warm_slabs(const struct hak_ace_super *meta)
{
    uint32_t warm = 0;

    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        if (hak_bits_any(meta->dirty, n * (HAK_SLAB_SIZE / HAK_PAGE),
                         HAK_SLAB_SIZE / HAK_PAGE)) {
            warm |= (uint32_t)1 << n;
        }
    }
    return warm;
}

/*
 * Gives back the superslab that the hole at `page` fills. False: it was mapped
 * in part and the system would not unmap the rest; it stays a hole.
 */
bool hak_ace_super_give(uint32_t page)
{
    const struct hak_ace_super *meta = hak_ace_super(page);
    uint32_t super = page / (uint32_t)HAK_ACE_PAGES;
    bool bare = hak_ace_any_gone(page, HAK_ACE_PAGES);

    HAK_CHECK(hak_ace_is_hole(page) &&
              hak_ace_hole(page)->pages == HAK_ACE_PAGES);
    if (bare) {
        hak_ace_unmap(page, HAK_ACE_PAGES);
        if (!hak_bits_all(meta->gone, 0, HAK_ACE_PAGES)) {
            return false;
        }
    }
    hak_ace_hole_drop(page);
    hak_ace_set_tags(super, 0);
    if (bare) {
        hak_range_super_gone(super, HAK_LANE_ACE);
    } else {
        uint32_t warm = warm_slabs(meta);

        hak_ace_clean(page, HAK_ACE_PAGES);
        hak_range_supers_give(super, 1, HAK_LANE_ACE, warm);
    }
    return true;
}

/* Under a limit on address space a hole of some length is unmapped. */
void hak_ace_shed(uint32_t page)
{
    if (hak_ace_hole(page)->pages >= SHED_LEAST && hak_range_limited()) {
        hak_ace_unmap(page, hak_ace_hole(page)->pages);
    }
}

/*
 * Makes `pages` pages at `page`, inside the hole at `hole`, a run; what is
 * left of the hole on either side stays one. True: they are all zero.
 */
bool hak_ace_cut(uint32_t hole, uint32_t page, uint32_t pages, uint32_t owner)
{
    struct hak_ace_super *super = hak_ace_super(page);
    uint32_t end = hole + hak_ace_hole(hole)->pages;
    uint32_t stamp = hak_ace_hole(hole)->stamp;
    bool zero = !hak_bits_any(super->dirty, hak_ace_at(page), pages);

    HAK_ASSERT(hole <= page && page + pages <= end && pages >= HAK_ACE_LEAST);
    HAK_ASSERT(!hak_ace_any_gone(page, pages));
    hak_ace_hole_drop(hole);
    if (page > hole) {
        hak_ace_hole_add(hole, page - hole, stamp);
    }
    if (page + pages < end) {
        hak_ace_hole_add(page + pages, end - page - pages, stamp);
    }
    hak_bits_set(super->starts, hak_ace_at(page), 1, true);
    hak_bits_set(super->dirty, hak_ace_at(page), pages, true);
    super->owner[hak_ace_at(page) / 8] = owner;
    super->pages[hak_ace_at(page) / 8] = (uint16_t)pages;
    if (HAK_HARD) {
        hak_ace_note(hak_ace_address(page), false);
    }
    return zero;
}

/*
 * The pages from `page` on, whose start is set but which are neither run nor
 * hole, become a hole, with those on both sides.
 */
void hak_ace_join(uint32_t page, uint32_t pages, uint32_t now)
{
    struct hak_ace_super *super = hak_ace_super(page);
    uint32_t at = hak_ace_at(page);
    uint32_t next = page + pages;

    HAK_CHECK(hak_bits_get(super->starts, at) && !hak_ace_is_hole(page));
    HAK_ASSERT(at + pages == HAK_ACE_PAGES ||
               hak_bits_get(super->starts, at + pages));
    if (at + pages < HAK_ACE_PAGES && hak_ace_is_hole(next)) {
        hak_ace_hole_drop(next);
        pages += hak_ace_hole(next)->pages;
        hak_bits_set(super->starts, hak_ace_at(next), 1, false);
    }
    if (at > 0) {
        uint32_t before = page - at + hak_bits_before(super->starts, at);

        if (hak_ace_is_hole(before)) {
            hak_ace_hole_drop(before);
            pages += page - before;
            hak_bits_set(super->starts, at, 1, false);
            page = before;
        }
    }
    hak_ace_hole_add(page, pages, now);
    if (pages < HAK_ACE_PAGES ||
        (hak_ace.spares <= HAK_ACE_SPARES && !hak_range_limited()) ||
        !hak_ace_super_give(page)) {
        hak_ace_shed(page);
    }
}

void hak_ace_count(int64_t pages)
{
    HAK_HELD(&hak_ace.lock);
    HAK_ASSERT(pages >= 0 || hak_ace.counts.live_bytes >=
                                 (uint64_t)(-pages * (int64_t)HAK_PAGE));
    hak_ace.counts.live_bytes += (uint64_t)(pages * (int64_t)HAK_PAGE);
    hak_ace.counts.peak_bytes =
        hak_max(hak_ace.counts.peak_bytes, hak_ace.counts.live_bytes);
}

/* ---- a place for a run ------------------------------------------------------ */

/* Unmaps the holes below `page` in its tree; the bytes. */
static size_t shed_tree(uint32_t page)
{
    size_t bytes = 0;

    for (; page != 0; page = hak_ace_hole(page)->right) {
        bytes += shed_tree(hak_ace_hole(page)->left);
        bytes += hak_ace_unmap(page, hak_ace_hole(page)->pages);
    }
    return bytes;
}

/* Holes from before there was a limit on address space. */
static bool shed_all(void)
{
    size_t bytes = 0;

    for (uint32_t n = SHED_LEAST; n <= HAK_ACE_PAGES && hak_range_limited();
         n++) {
        bytes += shed_tree(hak_ace.holes.roots[n]);
    }
    return bytes != 0;
}

/* A hole in which a run of `pages` fits, or 0: out of memory. */
uint32_t hak_ace_find_hole(uint32_t pages)
{
    uint32_t hole =
        hak_hole_best(&hak_ace.holes, hak_min(pages, HAK_ACE_PAGES));

    if (hole == 0 && (super_add() || (shed_all() && super_add()))) {
        hole = hak_hole_best(&hak_ace.holes, HAK_ACE_PAGES);
    }
    return hole;
}

/* Somebody else has mapped something in a hole: it is left alone for good. */
void hak_ace_bury(uint32_t hole)
{
    struct hak_ace_super *super = hak_ace_super(hole);
    uint32_t pages = hak_ace_hole(hole)->pages;

    hak_ace_hole_drop(hole);
    super->owner[hak_ace_at(hole) / 8] = 0;
    super->pages[hak_ace_at(hole) / 8] = (uint16_t)pages;
    hak_ace.counts.allocs++;
    hak_ace_count(pages);
}
