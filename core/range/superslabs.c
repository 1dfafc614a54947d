/*
 * superslabs.c - superslabs taken whole, one or many side by side.
 */
#include <string.h>

#include "range/purge.h"
#include "range/rooms.h"
#include "range/range_walk.h"
#include "range/supers.h"
#include "range/superslabs.h"

/* Marks superslabs as taken; returns which of their slabs are resident. */
static uint32_t superslabs_hold(uint32_t first, uint32_t count, uint8_t state,
                                enum hak_lane lane)
{
    uint32_t resident = 0;
    size_t bytes = 0;

    HAK_HELD(&haki_supers.lock);
    for (uint32_t i = first; i < first + count; i++) {
        struct hak_super *super = &haki_supers.at[i];

        HAK_CHECK(super->used == 0 || super->state == HAK_SUPER_ROOM);
        bytes += haki_super_resident(i);
        resident |= super->resident;
        super->used = HAK_ALL_SLABS;
        super->resident = 0;
        super->described = false;
        super->state = i == first ? state : HAK_SUPER_BODY;
        haki_super_changed(i);
    }
    atomic_fetch_sub(&haki_supers_resident, bytes);
    haki_super_account(lane, (int64_t)(count * HAK_SUPER_SIZE));
    return resident;
}

uint32_t haki_range_super_take(enum hak_lane lane, uint32_t *resident)
{
    uint32_t i;

    if (HAK_LOAD(haki_range.size) == 0) {
        return HAK_NO_SUPER;
    }
    haki_lock_take(&haki_supers.lock);
    i = haki_super_open();
    if (i != HAK_NO_SUPER) {
        *resident = superslabs_hold(i, 1, HAK_SUPER_WHOLE, lane);
    }
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
    return i;
}

/* How much is mapped for a run of `bytes` bytes. */
static size_t superslabs_to_map(size_t bytes)
{
    return haki_range_limited() ? bytes : haki_round_up(bytes, HAK_SUPER_SIZE);
}

/*
 * Claims a place for a run. Where memory is refused, free superslabs elsewhere
 * are unmapped for it.
 */
static uint32_t superslabs_claim_place(size_t bytes, uint32_t align,
                                       uint32_t *room)
{
    bool again = true;

    for (;;) {
        uint32_t first = haki_super_place(haki_supers_for(bytes), align, room);
        enum hak_os_claim claim;

        if (first == HAK_NO_SUPER) {
            return HAK_NO_SUPER;
        }
        haki_super_check_limit(first, haki_supers_for(bytes));
        claim = haki_super_claim(first, superslabs_to_map(bytes));
        if (claim == HAK_OS_CLAIMED) {
            return first;
        }
        if (claim == HAK_OS_REFUSED) {
            if (haki_super_unmap_unused() == 0 || !again) {
                return HAK_NO_SUPER;
            }
            again = false;
        }
    }
}

uint32_t haki_range_run_take(size_t bytes, uint32_t align, enum hak_lane lane,
                             uint32_t *room, bool *zero)
{
    uint32_t count = haki_supers_for(bytes);
    uint32_t first;

    if (HAK_LOAD(haki_range.size) == 0) {
        return HAK_NO_SUPER;
    }
    haki_lock_take(&haki_supers.lock);
    first = superslabs_claim_place(bytes, align, room);
    if (first != HAK_NO_SUPER) {
        *zero = superslabs_hold(first, count, HAK_SUPER_WHOLE, lane) == 0;
        *room = haki_super_keep_room(first + count, *room);
    }
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
    return first;
}

uint32_t haki_range_supers_take(uint32_t count, uint32_t align,
                                enum hak_lane lane, bool *zero)
{
    uint32_t none = 0;

    return haki_range_run_take(count * HAK_SUPER_SIZE, align, lane, &none,
                               zero);
}

/*
 * Whether `more` superslabs from `from` on are the run's room or free. At the
 * end of the extent a run moves instead: otherwise it would drag the end along.
 */
static bool superslabs_may_grow(uint32_t from, uint32_t room, uint32_t more)
{
    return more <= room || (more <= haki_supers.limit - from &&
                            haki_super_all_free(from + room, more - room));
}

static bool superslabs_grow_locked(uint32_t first, uint32_t count,
                                   uint32_t *room, size_t bytes,
                                   enum hak_lane lane, bool *zero)
{
    uint32_t last = first + count - 1, from = first + count;
    uint32_t more = haki_supers_for(bytes) - count;
    enum hak_os_claim claim;
    size_t want;

    if (!superslabs_may_grow(from, *room, more)) {
        return false;
    }
    haki_super_check_limit(from, more);
    want = superslabs_to_map(bytes - (count - 1) * HAK_SUPER_SIZE);
    claim = haki_super_claim(last, want);
    if (claim == HAK_OS_REFUSED && haki_super_unmap_unused() > 0) {
        claim = haki_super_claim(last, want);
    }
    if (claim == HAK_OS_TAKEN) { /* the room ends there: better move */
        haki_super_give_room(from, *room);
        *room = 0;
    }
    if (claim != HAK_OS_CLAIMED) {
        return false;
    }
    *zero = superslabs_hold(from, more, HAK_SUPER_BODY, lane) == 0;
    HAK_ASSERT(haki_supers.rooms >= haki_min(more, *room));
    haki_supers.rooms -= (uint32_t)haki_min(more, *room);
    *room -= (uint32_t)haki_min(more, *room);
    return true;
}

bool haki_range_run_grow(uint32_t first, uint32_t count, uint32_t *room,
                         size_t bytes, enum hak_lane lane, bool *zero)
{
    bool done;

    haki_lock_take(&haki_supers.lock);
    done = superslabs_grow_locked(first, count, room, bytes, lane, zero);
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
    return done;
}

/* ---- a run moves ----------------------------------------------------------- */

/* The bytes that are mapped of superslab i, and of a run. */
static size_t superslabs_mapped(uint32_t i)
{
    return haki_supers.at[i].claimed * HAK_PAGE;
}

static size_t superslabs_run_mapped(uint32_t first, uint32_t count)
{
    return (count - 1) * HAK_SUPER_SIZE + superslabs_mapped(first + count - 1);
}

/*
 * Makes sure that nothing of a free run is mapped and that its descriptors are.
 */
static bool superslabs_make_bare(uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        if (haki_super_claim_meta(i) != HAK_OS_CLAIMED) {
            return false;
        }
    }
    return haki_super_unmap(first, count);
}

/* Takes a run with nothing mapped. HAK_NO_SUPER: there is none. */
static uint32_t superslabs_take_bare(uint32_t count, enum hak_lane lane,
                                     uint32_t *room)
{
    uint32_t first;

    haki_lock_take(&haki_supers.lock);
    first = haki_super_place(count, 1, room);
    if (first != HAK_NO_SUPER && !superslabs_make_bare(first, count)) {
        first = HAK_NO_SUPER;
    }
    if (first != HAK_NO_SUPER) {
        superslabs_hold(first, count, HAK_SUPER_WHOLE, lane);
        *room = haki_super_keep_room(first + count, *room);
    }
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
    return first;
}

/* Counts `bytes` bytes of the run `first` that are mapped by now. */
static void superslabs_count_bare(uint32_t first, size_t bytes)
{
    haki_lock_take(&haki_supers.lock);
    HAK_HELD(&haki_supers.lock);
    haki_supers.counts.committed += bytes;
    for (uint32_t i = first; i < first + haki_supers_for(bytes); i++) {
        haki_supers.at[i].claimed =
            (uint16_t)(haki_min(bytes - (i - first) * HAK_SUPER_SIZE,
                                HAK_SUPER_SIZE) /
                       HAK_PAGE);
    }
    haki_lock_drop(&haki_supers.lock);
}

/*
 * Gives back a run with nothing mapped. If the system would not unmap some of
 * it, that is left alone for good.
 */
static void superslabs_give_bare(uint32_t first, uint32_t count,
                                 enum hak_lane lane, bool is_bare)
{
    haki_lock_take(&haki_supers.lock);
    for (uint32_t i = first; i < first + count; i++) {
        haki_supers.at[i].used = is_bare ? 0 : HAK_ALL_SLABS;
        haki_supers.at[i].state = is_bare ? HAK_SUPER_FRESH : HAK_SUPER_FOREIGN;
        haki_super_changed(i);
        haki_super_may_start(i);
    }
    haki_supers.foreign += is_bare ? 0 : count;
    haki_super_account(lane, -(int64_t)(count * HAK_SUPER_SIZE));
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
}

/*
 * Moves the first n superslabs of `to` back to `from`, which is still mapped.
 */
static bool superslabs_move_back(uint32_t from, uint32_t to, uint32_t n)
{
    bool bare = true;

    for (uint32_t k = 0; k < n; k++) {
        char *target = haki_range_super_start(to + k);

        memcpy(haki_range_super_start(from + k), target,
               superslabs_mapped(from + k));
        bare = haki_os_unmap(target, superslabs_mapped(from + k)) && bare;
    }
    return bare;
}

/*
 * Moves each superslab by itself, since the kernel moves one mapping at a time.
 * What it does not move is copied. False: refused, nothing has moved; *bare:
 * nothing is mapped at `to`.
 */
static bool superslabs_move_each(uint32_t from, uint32_t to, uint32_t count,
                                 bool *bare)
{
    for (uint32_t k = 0; k < count; k++) {
        char *source = haki_range_super_start(from + k);
        char *target = haki_range_super_start(to + k);
        size_t bytes = superslabs_mapped(from + k);

        if (haki_os_move(source, target, bytes)) {
            continue;
        }
        if (haki_os_claim(target, bytes) != HAK_OS_CLAIMED) {
            *bare = superslabs_move_back(from, to, k);
            return false;
        }
        memcpy(target, source, bytes);
    }
    return true;
}

/*
 * Moves the pages of the run `from` to `to`, where nothing is mapped, and maps
 * what is missing there up to `bytes` bytes. False: refused, `from` is
 * unchanged; *bare: nothing is mapped at `to`.
 */
static bool superslabs_move_pages(uint32_t from, uint32_t count, uint32_t to,
                                  size_t bytes, bool *bare)
{
    size_t old = superslabs_run_mapped(from, count);
    char *target = haki_range_super_start(to);

    *bare = true;
    if (bytes > old &&
        haki_os_claim(target + old, bytes - old) != HAK_OS_CLAIMED) {
        return false;
    }
    if (haki_os_move(haki_range_super_start(from), target, old) ||
        superslabs_move_each(from, to, count, bare)) {
        haki_os_name(target, bytes, "hakmem");
        return true;
    }
    if (bytes > old) {
        *bare = haki_os_unmap(target + old, bytes - old) && *bare;
    }
    return false;
}

/* A new run with a copy of the run `from`. */
static uint32_t superslabs_copy_run(uint32_t from, uint32_t count, size_t bytes,
                                    enum hak_lane lane, uint32_t *room)
{
    bool zero;
    uint32_t to = haki_range_run_take(bytes, 1, lane, room, &zero);

    if (to != HAK_NO_SUPER) {
        memcpy(haki_range_super_start(to), haki_range_super_start(from),
               haki_min(superslabs_run_mapped(from, count), bytes));
    }
    return to;
}

uint32_t haki_range_run_move(uint32_t from, uint32_t count, size_t bytes,
                             enum hak_lane lane, uint32_t *room)
{
    size_t most =
        haki_max(superslabs_to_map(bytes), superslabs_run_mapped(from, count));
    uint32_t wished = *room;
    uint32_t to = superslabs_take_bare(haki_supers_for(most), lane, room);
    bool bare;

    if (to != HAK_NO_SUPER &&
        superslabs_move_pages(from, count, to, most, &bare)) {
        superslabs_count_bare(to, most);
        return to;
    }
    if (to != HAK_NO_SUPER) {
        superslabs_give_bare(to, haki_supers_for(most), lane, bare);
        haki_range_room_give(to + haki_supers_for(most), *room);
    }
    *room = wished;
    return superslabs_copy_run(from, count, bytes, lane, room);
}

/* ---- back ------------------------------------------------------------------ */

/*
 * A run's last superslab is free and partly mapped: it is unmapped, or else
 * mapped in full; if the system refuses both it is left alone for good.
 */
static void superslabs_complete(uint32_t i)
{
    struct hak_super *super = &haki_supers.at[i];

    if (super->claimed == HAK_SUPER_PAGES || super->claimed == 0 ||
        haki_super_unmap(i, 1) ||
        haki_super_claim(i, HAK_SUPER_SIZE) == HAK_OS_CLAIMED) {
        return;
    }
    atomic_fetch_sub(&haki_supers_resident, haki_super_resident(i));
    super->used = HAK_ALL_SLABS;
    super->resident = 0;
    super->state = HAK_SUPER_FOREIGN;
    haki_super_changed(i);
    haki_supers.foreign++;
}

static void superslabs_give_locked(uint32_t first, uint32_t count,
                                   enum hak_lane lane, uint32_t resident)
{
    size_t bytes = 0;

    HAK_HELD(&haki_supers.lock);
    for (uint32_t i = first; i < first + count; i++) {
        struct hak_super *super = &haki_supers.at[i];

        HAK_CHECK(super->state >= HAK_SUPER_WHOLE); /* it is taken */
        super->used = 0;
        super->resident = resident;
        super->state = HAK_SUPER_OPEN;
        haki_super_changed(i);
        bytes += haki_super_resident(i);
    }
    atomic_fetch_add(&haki_supers_resident, bytes);
    haki_super_account(lane, -(int64_t)(count * HAK_SUPER_SIZE));
    if (resident != 0) {
        haki_range_count_freed(&haki_range_freed.slabs, count * HAK_SUPER_SIZE);
    }
    if (resident == 0 ||
        (haki_supers.unused > HAK_UNUSED_LIMITED && haki_range_limited())) {
        haki_super_unmap(first, count);
    }
    superslabs_complete(first + count - 1);
    for (uint32_t i = first; i < first + count; i++) {
        haki_super_may_start(i);
        if (haki_supers.at[i].resident != 0) {
            haki_purge_wanted(i);
        }
    }
}

void haki_range_supers_give(uint32_t first, uint32_t count, enum hak_lane lane,
                            uint32_t resident)
{
    haki_lock_take(&haki_supers.lock);
    superslabs_give_locked(first, count, lane, resident);
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
}

void haki_range_super_gone(uint32_t super, enum hak_lane lane)
{
    haki_lock_take(&haki_supers.lock);
    HAK_ASSERT(haki_supers.at[super].state == HAK_SUPER_WHOLE);
    haki_super_forget(super);
    haki_super_drop_meta(super, 1);
    haki_supers.at[super].used = 0;
    haki_super_changed(super);
    haki_super_may_start(super);
    haki_super_account(lane, -(int64_t)HAK_SUPER_SIZE);
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
}

/* Purges superslabs with contents, free by now, that could not be unmapped. */
static void superslabs_purge_left(uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        struct hak_super *super = &haki_supers.at[i];

        if (super->claimed != 0 && !haki_os_purge(haki_range_super_start(i),
                                                  super->claimed * HAK_PAGE)) {
            super->resident = HAK_ALL_SLABS;
            haki_super_changed(i);
            haki_super_may_start(i);
            haki_purge_wanted(i);
            atomic_fetch_add(&haki_supers_resident, haki_super_resident(i));
        }
    }
    superslabs_complete(first + count - 1);
}

void haki_range_supers_drop(uint32_t first, uint32_t count, enum hak_lane lane)
{
    haki_lock_take(&haki_supers.lock);
    for (uint32_t i = first; i < first + count; i++) {
        HAK_CHECK(haki_supers.at[i].state >= HAK_SUPER_WHOLE);
        haki_supers.at[i].used = 0;
        haki_supers.at[i].state = HAK_SUPER_OPEN;
        haki_super_changed(i);
        haki_super_may_start(i);
    }
    haki_super_account(lane, -(int64_t)(count * HAK_SUPER_SIZE));
    if (!haki_super_unmap(first, count)) {
        superslabs_purge_left(first, count);
    }
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
}

uint32_t haki_range_super_head(uint32_t super)
{
    uint32_t i = super;

    haki_lock_take(&haki_supers.lock);
    while (haki_supers.at[i].state == HAK_SUPER_BODY) {
        HAK_ASSERT(i > haki_supers.tags);
        i--;
    }
    if (haki_supers.at[i].state != HAK_SUPER_WHOLE) {
        i = HAK_NO_SUPER;
    }
    haki_lock_drop(&haki_supers.lock);
    return i;
}

size_t haki_range_unused(void)
{
    size_t bytes;

    haki_lock_take(&haki_supers.lock);
    bytes = haki_supers.unused * HAK_SUPER_SIZE;
    haki_lock_drop(&haki_supers.lock);
    return bytes;
}
