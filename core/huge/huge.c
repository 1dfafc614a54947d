/*
 * huge.c - the Huge lane.
 */
#include "huge/huge.h"

#include <string.h>

#include "os/lock.h"
#include "os/os.h"
#include "range/pressure.h"
#include "range/purge.h"
#include "range/rooms.h"
#include "range/superslabs.h"

/*
 * Blocks above KEEP_BLOCK, and what would make more than KEEP_ALL bytes of
 * free superslabs with contents, go back to the system when they are freed.
 */
#define KEEP_BLOCK (32 * HAK_MIB)
#define KEEP_ALL (128 * HAK_MIB)

/* The same where address space is limited. */
#define KEEP_LIMITED (8 * HAK_MIB)

/* A block of this size gets room to grow even before it has grown. */
#define ROOM_FROM (64 * HAK_MIB)

/* Blocks count in full: their owners may touch all of them at any time. */
#define CHARGED (&haki_pressure.charged[HAK_CHARGED_HUGE])

/* How much of a block's end is examined when it grows. */
#define PROBE (256 * HAK_KIB)

/* Kept in the space of the descriptors of a block's first superslab. */
struct huge {
    size_t size;
    uint32_t supers;
    uint32_t room; /* superslabs behind them, kept for it to grow into */
    uint32_t owner;
    uint32_t next, prev; /* first superslabs of other blocks */
};

_Static_assert(sizeof(struct huge) <= HAK_SUPER_META,
               "it lies over the superslab's descriptors");

static void huge_mend(void);

static hak_lock huge_lock = HAK_LOCK_INIT(huge_mend);

/* Under `huge_lock`. */
static uint32_t huge_blocks; /* first of all */
static struct hak_lane_counts huge_counts;

static struct huge *huge_at(uint32_t super)
{
    return haki_range_super_meta(super);
}

static void huge_set_tag(uint32_t super, uint32_t tag)
{
    haki_range_set_tag(super * (uint32_t)HAK_SUPER_SLABS, tag);
}

static uint32_t huge_supers_for(size_t size)
{
    return (uint32_t)(haki_round_up(size, HAK_SUPER_SIZE) / HAK_SUPER_SIZE);
}

/* The first superslab of the block p, or HAK_NO_SUPER. */
static uint32_t huge_super_of(const void *p)
{
    size_t offset = haki_range_offset(p);

    HAK_HELD(&huge_lock);
    if (offset % HAK_SUPER_SIZE != 0 ||
        haki_range_tag(offset) != HAK_TAG_SHARED(HAK_TAG_HUGE)) {
        return HAK_NO_SUPER;
    }
    return (uint32_t)(offset / HAK_SUPER_SIZE);
}

/* ---- the list; caller holds the lock ----------------------------------------- */

static void huge_list_add(uint32_t super)
{
    struct huge *huge = huge_at(super);

    HAK_HELD(&huge_lock);
    HAK_ASSERT(super != HAK_NO_SUPER && super != huge_blocks);
    huge->prev = HAK_NO_SUPER;
    huge->next = huge_blocks;
    if (huge_blocks != HAK_NO_SUPER) {
        huge_at(huge_blocks)->prev = super;
    }
    huge_blocks = super;
    haki_lock_step();
    huge_set_tag(super, HAK_TAG_SHARED(HAK_TAG_HUGE));
    huge_counts.live_bytes += huge->size;
    huge_counts.peak_bytes =
        haki_max(huge_counts.peak_bytes, huge_counts.live_bytes);
}

static void huge_list_drop(uint32_t super)
{
    struct huge *huge = huge_at(super);

    HAK_HELD(&huge_lock);
    HAK_CHECK((huge->prev != HAK_NO_SUPER ? huge_at(huge->prev)->next
                                          : huge_blocks) == super);
    HAK_ASSERT(huge_counts.live_bytes >= huge->size);
    if (huge->prev != HAK_NO_SUPER) {
        huge_at(huge->prev)->next = huge->next;
    } else {
        huge_blocks = huge->next;
    }
    if (huge->next != HAK_NO_SUPER) {
        HAK_ASSERT(huge_at(huge->next)->prev == super);
        huge_at(huge->next)->prev = huge->prev;
    }
    huge_set_tag(super, 0);
    haki_lock_step();
    huge_counts.live_bytes -= huge->size;
}

/* ---- allocating and freeing --------------------------------------------------- */

static void huge_want_huge_pages(uint32_t super, uint32_t count)
{
    if (haki_option(HAK_OPT_huge_pages) == HAK_THP_ALWAYS &&
        !haki_pressure_near()) {
        haki_os_want_huge(haki_range_super_start(super),
                          count * HAK_SUPER_SIZE);
    }
}

/* Takes superslabs for `size` bytes, with room behind them; or HAK_NO_SUPER. */
static uint32_t huge_take(size_t size, size_t align, uint32_t *room, bool *zero)
{
    uint32_t first;

    if (size > haki_range.window || align > haki_range.window) {
        return HAK_NO_SUPER;
    }
    first =
        haki_range_run_take(size, (uint32_t)haki_max(align / HAK_SUPER_SIZE, 1),
                            HAK_LANE_HUGE, room, zero);
    if (first != HAK_NO_SUPER) {
        huge_want_huge_pages(first, huge_supers_for(size));
    }
    return first;
}

/* Whether superslabs with contents may wait for the next block. */
static bool huge_may_keep(size_t bytes)
{
    size_t most = haki_range_limited() ? KEEP_LIMITED : KEEP_ALL;

    return !haki_pressure_near() && bytes <= KEEP_BLOCK &&
           bytes + haki_range_unused() <= most;
}

/* Gives back superslabs with contents, now or after the delay. */
static void huge_give(uint32_t first, uint32_t count)
{
    size_t bytes = count * HAK_SUPER_SIZE;

    if (huge_may_keep(bytes)) {
        haki_range_supers_give(first, count, HAK_LANE_HUGE, HAK_ALL_SLABS);
    } else {
        haki_range_purged(bytes);
        haki_range_supers_drop(first, count, HAK_LANE_HUGE);
    }
}

void *haki_huge_alloc(size_t size, size_t align, uint32_t owner, bool *zero)
{
    uint32_t room = size >= ROOM_FROM ? haki_range_room_for(size) : 0;
    struct huge *huge;
    uint32_t first;

    size = haki_round_up(haki_max(size, 1), HAK_PAGE);
    if (!haki_limit_charge(CHARGED, size)) {
        return NULL;
    }
    first = huge_take(size, align, &room, zero);
    if (first == HAK_NO_SUPER) {
        haki_limit_uncharge(CHARGED, size);
        return NULL;
    }
    HAK_ASSERT(haki_range_super_head(first) == first);
    huge = huge_at(first);
    huge->size = size;
    huge->supers = huge_supers_for(size);
    huge->room = room;
    huge->owner = owner;
    haki_lock_take(&huge_lock);
    huge_counts.allocs++;
    huge_list_add(first);
    HAK_WALK(haki_huge_walk(false));
    haki_lock_drop(&huge_lock);
    return haki_range_super_start(first);
}

/* The first superslab of the block that begins at p, and what it is; or
 * HAK_NO_SUPER. Caller holds the lock. */
static uint32_t huge_look_up(const void *p, struct hak_huge_block *block)
{
    uint32_t first = huge_super_of(p);

    if (first != HAK_NO_SUPER) {
        block->size = huge_at(first)->size;
        block->owner = huge_at(first)->owner;
    }
    return first;
}

bool haki_huge_free(void *p, struct hak_huge_block *block)
{
    uint32_t first, count = 0, room = 0;

    haki_lock_take(&huge_lock);
    first = huge_look_up(p, block);
    if (first != HAK_NO_SUPER) {
        count = huge_at(first)->supers;
        room = huge_at(first)->room;
        huge_counts.frees++;
        huge_list_drop(first);
    }
    HAK_WALK(haki_huge_walk(false));
    haki_lock_drop(&huge_lock);
    if (first != HAK_NO_SUPER) {
        haki_limit_uncharge(CHARGED, block->size);
        haki_range_room_give(first + count, room);
        huge_give(first, count);
    }
    return first != HAK_NO_SUPER;
}

bool haki_huge_find(const void *p, struct hak_huge_block *block)
{
    uint32_t first;

    haki_lock_take(&huge_lock);
    first = huge_look_up(p, block);
    haki_lock_drop(&huge_lock);
    return first != HAK_NO_SUPER;
}

void haki_huge_mark(const void *p, bool sampled)
{
    uint32_t first;

    haki_lock_take(&huge_lock);
    first = huge_super_of(p);
    HAK_ASSERT(first != HAK_NO_SUPER);
    huge_at(first)->owner =
        HAK_OWNER(huge_at(first)->owner) | (sampled ? HAK_OWNER_SAMPLED : 0);
    haki_lock_drop(&huge_lock);
}

/* The list is in no order: by the tags all of an owner's blocks take one pass. */
char *haki_huge_next(uint32_t owner, const char *at, size_t *bytes)
{
    uint32_t super =
        at != NULL ? haki_range_number(at) / HAK_SUPER_SLABS + 1 : 1;
    uint32_t end = (uint32_t)(HAK_LOAD(haki_range.size) / HAK_SUPER_SIZE);
    char *next = NULL;

    haki_lock_take(&huge_lock);
    end = huge_blocks != HAK_NO_SUPER ? end : 0;
    for (; super < end && next == NULL; super++) {
        if (haki_range_tag((size_t)super << HAK_SUPER_SHIFT) ==
                HAK_TAG_SHARED(HAK_TAG_HUGE) &&
            HAK_OWNER(huge_at(super)->owner) == owner) {
            next = haki_range_super_start(super);
            *bytes = huge_at(super)->size;
        }
    }
    haki_lock_drop(&huge_lock);
    return next;
}

void haki_huge_free_owner(uint32_t owner)
{
    struct hak_huge_block block;
    char *at = NULL;
    size_t bytes;

    while ((at = haki_huge_next(owner, at, &bytes)) != NULL) {
        haki_huge_free(at, &block);
    }
}

/* ---- resizing ------------------------------------------------------------------- */

static void huge_set_size(uint32_t super, size_t size, uint32_t room)
{
    struct huge *huge = huge_at(super);

    haki_lock_take(&huge_lock);
    HAK_HELD(&huge_lock);
    HAK_ASSERT(huge_super_of(haki_range_super_start(super)) == super);
    HAK_ASSERT(size > 0 && size % HAK_PAGE == 0);
    huge_counts.live_bytes += size - huge->size;
    huge_counts.peak_bytes =
        haki_max(huge_counts.peak_bytes, huge_counts.live_bytes);
    huge->size = size;
    huge->supers = huge_supers_for(size);
    huge->room = room;
    HAK_WALK(haki_huge_walk(false));
    haki_lock_drop(&huge_lock);
}

/* Moves the block `old` to a new place of `size` bytes with room to grow. */
static void *huge_move(uint32_t old, size_t size)
{
    uint32_t count = huge_at(old)->supers, old_room = huge_at(old)->room;
    uint32_t room = haki_range_room_for(size);
    uint32_t first =
        haki_range_run_move(old, count, size, HAK_LANE_HUGE, &room);

    if (first == HAK_NO_SUPER) {
        return NULL;
    }
    HAK_ASSERT(haki_range_super_head(first) == first);
    huge_want_huge_pages(first, huge_supers_for(size));
    haki_lock_take(&huge_lock);
    huge_list_drop(old);
    huge_at(first)->owner = huge_at(old)->owner;
    huge_at(first)->size = size;
    huge_at(first)->supers = huge_supers_for(size);
    huge_at(first)->room = room;
    huge_list_add(first);
    HAK_WALK(haki_huge_walk(false));
    haki_lock_drop(&huge_lock);
    haki_range_room_give(old + count, old_room);
    haki_range_supers_drop(old, count, HAK_LANE_HUGE);
    return haki_range_super_start(first);
}

/* Whether the end of a block has been written to. */
static bool huge_tail_is_filled(char *p, size_t size)
{
    size_t tail = haki_min(size, PROBE);

    return haki_os_resident(p + size - tail, tail) >= tail - tail / 8;
}

/*
 * A program that has filled a block and makes it larger is about to write
 * there: half as much again is populated with one call, at a tenth of the cost
 * of page faults.
 */
static void huge_populate_ahead(char *p, size_t old, size_t size)
{
    if (size > old) {
        (void)haki_os_populate(p + old,
                               haki_min(size - old,
                                        haki_round_up(old / 2, HAK_PAGE)));
    }
}

/* Makes the block of superslab `super` `size` bytes long, in whole pages. */
static void *huge_block_resize(uint32_t super, size_t size)
{
    uint32_t have = huge_at(super)->supers, room = huge_at(super)->room;
    uint32_t need = huge_supers_for(size);
    bool zero;

    if (size > huge_at(super)->size &&
        !haki_range_run_grow(super, have, &room, size, HAK_LANE_HUGE, &zero)) {
        huge_at(super)->room = room;
        return huge_move(super, size);
    }
    if (need < have) { /* a shorter block has no room behind it */
        haki_range_room_give(super + have, room);
        room = 0;
    }
    huge_set_size(super, size, room);
    if (need < have) {
        huge_give(super + need, have - need);
    }
    return haki_range_super_start(super);
}

void *haki_huge_resize(void *p, size_t size)
{
    uint32_t super = (uint32_t)(haki_range_offset(p) / HAK_SUPER_SIZE);
    size_t old = huge_at(super)->size;
    bool filled = size > old && huge_tail_is_filled(p, old);
    void *moved;

    if (size > haki_range.window) {
        return NULL;
    }
    size = haki_round_up(size, HAK_PAGE);
    haki_pressure_tick(haki_os_tick(), size > old ? size - old : 0);
    if (size > old && !haki_limit_charge(CHARGED, size - old)) {
        return NULL;
    }
    moved = huge_block_resize(super, size);
    if (moved == NULL || size < old) {
        haki_limit_uncharge(CHARGED, size > old ? size - old : old - size);
    }
    if (moved != NULL && filled && !haki_pressure_near()) {
        huge_populate_ahead(moved, old, size);
    }
    return moved;
}

/* ---- statistics and fork --------------------------------------------------------------- */

void haki_huge_counts(struct hak_lane_counts *out)
{
    haki_lock_take(&huge_lock);
    HAK_POINT("huge");
    *out = huge_counts;
    haki_lock_drop(&huge_lock);
}

bool haki_huge_forked(void)
{
    bool settled = haki_lock_settle(&huge_lock);

    if (settled) { /* what ghosts were taking or giving back */
        atomic_store(CHARGED, huge_counts.live_bytes);
    }
    return settled;
}

/*
 * A ghost held the lock: the list and its sum are made again from the blocks
 * that have their tag. A block that was being freed or moved counts as in use,
 * or has lost its tag and is lost; one that was growing has its former size.
 */
static void huge_mend(void)
{
    huge_blocks = HAK_NO_SUPER;
    huge_counts.live_bytes = 0;
    for (size_t at = 0; at < HAK_LOAD(haki_range.size); at += HAK_SUPER_SIZE) {
        uint32_t super = (uint32_t)(at / HAK_SUPER_SIZE);

        if (haki_range_tag(at) == HAK_TAG_SHARED(HAK_TAG_HUGE)) {
            struct huge *huge = huge_at(super);

            huge->size =
                haki_min(huge->size, (size_t)huge->supers * HAK_SUPER_SIZE);
            huge_list_add(super);
        }
    }
}

#if HAK_WALKS

/* The tag of the first slab of a block, and the others, which are 0. */
static void huge_walk_tags(uint32_t super)
{
    uint32_t first = super * (uint32_t)HAK_SUPER_SLABS;
    uint32_t count = huge_at(super)->supers * (uint32_t)HAK_SUPER_SLABS;

    HAK_PROVE(haki_range_tag((size_t)first << HAK_SLAB_SHIFT) ==
              HAK_TAG_SHARED(HAK_TAG_HUGE));
    for (uint32_t n = first + 1; n < first + count; n++) {
        HAK_PROVE(haki_range_tag((size_t)n << HAK_SLAB_SHIFT) == 0);
    }
}

/* One block, whose list leads to it from `before`. */
static void huge_walk_block(uint32_t super, uint32_t before)
{
    const struct huge *huge = huge_at(super);

    HAK_PROVE(huge->prev == before);
    HAK_PROVE(huge->size > 0 && huge->size % HAK_PAGE == 0);
    HAK_PROVE(huge->supers >= huge_supers_for(huge->size));
    for (uint32_t n = 0; n < huge->supers; n++) {
        HAK_PROVE(haki_range_super_head(super + n) == super);
    }
    huge_walk_tags(super);
}

/* A ghost (lock.h) may have counted blocks that are lost with it. */
static void huge_walk_counts(const struct hak_huge_sums *sums)
{
    struct hak_range_counts range;

    haki_range_counts(&range);
    HAK_PROVE(range.held[HAK_LANE_HUGE] == sums->supers * HAK_SUPER_SIZE);
    HAK_PROVE(huge_counts.allocs - huge_counts.frees == sums->blocks);
}

struct hak_huge_sums haki_huge_walk(bool quiet)
{
    struct hak_huge_sums sums = {0};
    uint32_t before = HAK_NO_SUPER;

    for (uint32_t super = huge_blocks; super != HAK_NO_SUPER;) {
        huge_walk_block(super, before);
        HAK_PROVE(!quiet || huge_at(super)->supers ==
                                huge_supers_for(huge_at(super)->size));
        sums.blocks++;
        sums.supers += huge_at(super)->supers;
        sums.bytes += huge_at(super)->size;
        HAK_PROVE(sums.blocks <= HAK_LOAD(haki_range.size) / HAK_SUPER_SIZE);
        before = super;
        super = huge_at(super)->next;
    }
    HAK_PROVE(huge_counts.live_bytes == sums.bytes);
    HAK_PROVE(huge_counts.peak_bytes >= huge_counts.live_bytes);
    if (quiet) {
        huge_walk_counts(&sums);
    }
    return sums;
}

#endif /* HAK_WALKS */
