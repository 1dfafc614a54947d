/*
 * superslabs.c - superslabs taken whole, one or many side by side.
 */
#include <string.h>

#include "range/purge.h"
#include "range/rooms.h"
#include "range/range_walk.h"
#include "range/supers.h"
#include "range/superslabs.h"

/* Marks superslabs as taken; what is warm among them. */
static uint32_t hold(uint32_t first, uint32_t count, uint8_t state,
                     enum hak_lane lane)
{
    uint32_t warm = 0;
    size_t resident = 0;

    HAK_HELD(&hak_supers.lock);
    for (uint32_t i = first; i < first + count; i++) {
        struct hak_super *super = &hak_supers.at[i];

        HAK_CHECK(super->used == 0 || super->state == HAK_SUPER_ROOM);
        resident += hak_super_resident(i);
        warm |= super->warm;
        super->used = HAK_ALL_SLABS;
        super->warm = 0;
        super->described = false;
        super->state = i == first ? state : HAK_SUPER_BODY;
        hak_super_changed(i);
    }
    atomic_fetch_sub(&hak_supers_resident, resident);
    hak_super_account(lane, (int64_t)(count * HAK_SUPER_SIZE));
    return warm;
}

uint32_t hak_range_super_take(enum hak_lane lane, uint32_t *warm)
{
    uint32_t i;

    if (HAK_LOAD(hak_range.size) == 0) {
        return HAK_NO_SUPER;
    }
    hak_lock_take(&hak_supers.lock);
    i = hak_super_open();
    if (i != HAK_NO_SUPER) {
        *warm = hold(i, 1, HAK_SUPER_WHOLE, lane);
    }
    HAK_WALK(hak_range_walk(false));
    hak_lock_drop(&hak_supers.lock);
    return i;
}

/* What is mapped for a run of `bytes` bytes. */
static size_t to_map(size_t bytes)
{
    return hak_range_limited() ? bytes : hak_round_up(bytes, HAK_SUPER_SIZE);
}

/*
 * A claimed place for a run. Where memory is refused, what is free and mapped
 * elsewhere is unmapped for it.
 */
static uint32_t claim_place(size_t bytes, uint32_t align, uint32_t *room)
{
    bool again = true;

    for (;;) {
        uint32_t first = hak_super_place(hak_supers_for(bytes), align, room);
        enum hak_os_claim claim;

        if (first == HAK_NO_SUPER) {
            return HAK_NO_SUPER;
        }
        hak_super_heed_limit(first, hak_supers_for(bytes));
        claim = hak_super_claim(first, to_map(bytes));
        if (claim == HAK_OS_CLAIMED) {
            return first;
        }
        if (claim == HAK_OS_REFUSED) {
            if (hak_super_unmap_spare() == 0 || !again) {
                return HAK_NO_SUPER;
            }
            again = false;
        }
    }
}

uint32_t hak_range_run_take(size_t bytes, uint32_t align, enum hak_lane lane,
                            uint32_t *room, bool *zero)
{
    uint32_t count = hak_supers_for(bytes);
    uint32_t first;

    if (HAK_LOAD(hak_range.size) == 0) {
        return HAK_NO_SUPER;
    }
    hak_lock_take(&hak_supers.lock);
    first = claim_place(bytes, align, room);
    if (first != HAK_NO_SUPER) {
        *zero = hold(first, count, HAK_SUPER_WHOLE, lane) == 0;
        *room = hak_super_keep_room(first + count, *room);
    }
    HAK_WALK(hak_range_walk(false));
    hak_lock_drop(&hak_supers.lock);
    return first;
}

uint32_t hak_range_supers_take(uint32_t count, uint32_t align,
                               enum hak_lane lane, bool *zero)
{
    uint32_t none = 0;

    return hak_range_run_take(count * HAK_SUPER_SIZE, align, lane, &none, zero);
}

/*
 * Whether `more` superslabs from `from` on are the run's room or free. At the
 * end of the extent a run moves instead: it would take the end along.
 */
static bool may_grow(uint32_t from, uint32_t room, uint32_t more)
{
    return more <= room || (more <= hak_supers.limit - from &&
                            hak_super_all_free(from + room, more - room));
}

static bool grow_locked(uint32_t first, uint32_t count, uint32_t *room,
                        size_t bytes, enum hak_lane lane, bool *zero)
{
    uint32_t last = first + count - 1, from = first + count;
    uint32_t more = hak_supers_for(bytes) - count;
    enum hak_os_claim claim;
    size_t want;

    if (!may_grow(from, *room, more)) {
        return false;
    }
    hak_super_heed_limit(from, more);
    want = to_map(bytes - (count - 1) * HAK_SUPER_SIZE);
    claim = hak_super_claim(last, want);
    if (claim == HAK_OS_REFUSED && hak_super_unmap_spare() > 0) {
        claim = hak_super_claim(last, want);
    }
    if (claim == HAK_OS_TAKEN) { /* the room ends there: elsewhere is better */
        hak_super_give_room(from, *room);
        *room = 0;
    }
    if (claim != HAK_OS_CLAIMED) {
        return false;
    }
    *zero = hold(from, more, HAK_SUPER_BODY, lane) == 0;
    HAK_ASSERT(hak_supers.rooms >= hak_min(more, *room));
    hak_supers.rooms -= (uint32_t)hak_min(more, *room);
    *room -= (uint32_t)hak_min(more, *room);
    return true;
}

bool hak_range_run_grow(uint32_t first, uint32_t count, uint32_t *room,
                        size_t bytes, enum hak_lane lane, bool *zero)
{
    bool done;

    hak_lock_take(&hak_supers.lock);
    done = grow_locked(first, count, room, bytes, lane, zero);
    HAK_WALK(hak_range_walk(false));
    hak_lock_drop(&hak_supers.lock);
    return done;
}

/* ---- a run moves ----------------------------------------------------------- */

/* The bytes that are mapped of superslab i, and of a run. */
static size_t mapped(uint32_t i)
{
    return hak_supers.at[i].claimed * HAK_PAGE;
}

static size_t run_mapped(uint32_t first, uint32_t count)
{
    return (count - 1) * HAK_SUPER_SIZE + mapped(first + count - 1);
}

/* Whether nothing is mapped of a free run and its descriptors are. */
static bool make_bare(uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        if (hak_super_claim_meta(i) != HAK_OS_CLAIMED) {
            return false;
        }
    }
    return hak_super_unmap(first, count);
}

/* Takes a run of which nothing is mapped. HAK_NO_SUPER: there is none. */
static uint32_t take_bare(uint32_t count, enum hak_lane lane, uint32_t *room)
{
    uint32_t first;

    hak_lock_take(&hak_supers.lock);
    first = hak_super_place(count, 1, room);
    if (first != HAK_NO_SUPER && !make_bare(first, count)) {
        first = HAK_NO_SUPER;
    }
    if (first != HAK_NO_SUPER) {
        hold(first, count, HAK_SUPER_WHOLE, lane);
        *room = hak_super_keep_room(first + count, *room);
    }
    HAK_WALK(hak_range_walk(false));
    hak_lock_drop(&hak_supers.lock);
    return first;
}

/* `bytes` bytes of the run `first` are mapped by now. */
static void count_bare(uint32_t first, size_t bytes)
{
    hak_lock_take(&hak_supers.lock);
    HAK_HELD(&hak_supers.lock);
    hak_supers.counts.committed += bytes;
    for (uint32_t i = first; i < first + hak_supers_for(bytes); i++) {
        hak_supers.at[i].claimed =
            (uint16_t)(hak_min(bytes - (i - first) * HAK_SUPER_SIZE,
                               HAK_SUPER_SIZE) /
                       HAK_PAGE);
    }
    hak_lock_drop(&hak_supers.lock);
}

/*
 * Gives back a run of which nothing is mapped; or if something is that the
 * system would not unmap, leaves it alone for good.
 */
static void give_bare(uint32_t first, uint32_t count, enum hak_lane lane,
                      bool is_bare)
{
    hak_lock_take(&hak_supers.lock);
    for (uint32_t i = first; i < first + count; i++) {
        hak_supers.at[i].used = is_bare ? 0 : HAK_ALL_SLABS;
        hak_supers.at[i].state = is_bare ? HAK_SUPER_FRESH : HAK_SUPER_FOREIGN;
        hak_super_changed(i);
        hak_super_may_start(i);
    }
    hak_supers.foreign += is_bare ? 0 : count;
    hak_super_account(lane, -(int64_t)(count * HAK_SUPER_SIZE));
    HAK_WALK(hak_range_walk(false));
    hak_lock_drop(&hak_supers.lock);
}

/* The first n superslabs of `to` go back to `from`, which is mapped still. */
static bool move_back(uint32_t from, uint32_t to, uint32_t n)
{
    bool bare = true;

    for (uint32_t k = 0; k < n; k++) {
        char *target = hak_range_super_start(to + k);

        memcpy(hak_range_super_start(from + k), target, mapped(from + k));
        bare = hak_os_unmap(target, mapped(from + k)) && bare;
    }
    return bare;
}

/*
 * Each superslab by itself: the kernel moves one mapping at a time. What it does
 * not move is copied. False: refused, nothing has moved; *bare: nor is anything
 * mapped.
 */
static bool move_each(uint32_t from, uint32_t to, uint32_t count, bool *bare)
{
    for (uint32_t k = 0; k < count; k++) {
        char *source = hak_range_super_start(from + k);
        char *target = hak_range_super_start(to + k);
        size_t bytes = mapped(from + k);

        if (hak_os_move(source, target, bytes)) {
            continue;
        }
        if (hak_os_claim(target, bytes) != HAK_OS_CLAIMED) {
            *bare = move_back(from, to, k);
            return false;
        }
        memcpy(target, source, bytes);
    }
    return true;
}

/*
 * Moves the pages of the run `from` to `to`, of which nothing is mapped, and
 * maps what is missing there to `bytes` bytes. False: refused, `from` is as it
 * was; *bare: nothing is mapped of `to`.
 */
static bool move_pages(uint32_t from, uint32_t count, uint32_t to, size_t bytes,
                       bool *bare)
{
    size_t old = run_mapped(from, count);
    char *target = hak_range_super_start(to);

    *bare = true;
    if (bytes > old &&
        hak_os_claim(target + old, bytes - old) != HAK_OS_CLAIMED) {
        return false;
    }
    if (hak_os_move(hak_range_super_start(from), target, old) ||
        move_each(from, to, count, bare)) {
        hak_os_name(target, bytes, "hakmem");
        return true;
    }
    if (bytes > old) {
        *bare = hak_os_unmap(target + old, bytes - old) && *bare;
    }
    return false;
}

/* A new run with a copy of the run `from`. */
static uint32_t copy_run(uint32_t from, uint32_t count, size_t bytes,
                         enum hak_lane lane, uint32_t *room)
{
    bool zero;
    uint32_t to = hak_range_run_take(bytes, 1, lane, room, &zero);

    if (to != HAK_NO_SUPER) {
        memcpy(hak_range_super_start(to), hak_range_super_start(from),
               hak_min(run_mapped(from, count), bytes));
    }
    return to;
}

uint32_t hak_range_run_move(uint32_t from, uint32_t count, size_t bytes,
                            enum hak_lane lane, uint32_t *room)
{
    size_t most = hak_max(to_map(bytes), run_mapped(from, count));
    uint32_t wished = *room;
    uint32_t to = take_bare(hak_supers_for(most), lane, room);
    bool bare;

    if (to != HAK_NO_SUPER && move_pages(from, count, to, most, &bare)) {
        count_bare(to, most);
        return to;
    }
    if (to != HAK_NO_SUPER) {
        give_bare(to, hak_supers_for(most), lane, bare);
        hak_range_room_give(to + hak_supers_for(most), *room);
    }
    *room = wished;
    return copy_run(from, count, bytes, lane, room);
}

/* ---- back ------------------------------------------------------------------ */

/*
 * A run's last superslab is free and mapped in part: it becomes fresh, or whole,
 * or if the system refuses both is left alone for good.
 */
static void complete(uint32_t i)
{
    struct hak_super *super = &hak_supers.at[i];

    if (super->claimed == HAK_SUPER_PAGES || super->claimed == 0 ||
        hak_super_unmap(i, 1) ||
        hak_super_claim(i, HAK_SUPER_SIZE) == HAK_OS_CLAIMED) {
        return;
    }
    atomic_fetch_sub(&hak_supers_resident, hak_super_resident(i));
    super->used = HAK_ALL_SLABS;
    super->warm = 0;
    super->state = HAK_SUPER_FOREIGN;
    hak_super_changed(i);
    hak_supers.foreign++;
}

static void give_locked(uint32_t first, uint32_t count, enum hak_lane lane,
                        uint32_t warm)
{
    size_t resident = 0;

    HAK_HELD(&hak_supers.lock);
    for (uint32_t i = first; i < first + count; i++) {
        struct hak_super *super = &hak_supers.at[i];

        HAK_CHECK(super->state >= HAK_SUPER_WHOLE); /* it is taken */
        super->used = 0;
        super->warm = warm;
        super->state = HAK_SUPER_OPEN;
        hak_super_changed(i);
        resident += hak_super_resident(i);
    }
    atomic_fetch_add(&hak_supers_resident, resident);
    hak_super_account(lane, -(int64_t)(count * HAK_SUPER_SIZE));
    if (warm != 0) {
        hak_range_count_freed(&hak_range_freed.slabs, count * HAK_SUPER_SIZE);
    }
    if (warm == 0 ||
        (hak_supers.spare > HAK_SPARE_LIMITED && hak_range_limited())) {
        hak_super_unmap(first, count);
    }
    complete(first + count - 1);
    for (uint32_t i = first; i < first + count; i++) {
        hak_super_may_start(i);
        if (hak_supers.at[i].warm != 0) {
            hak_purge_wanted(i);
        }
    }
}

void hak_range_supers_give(uint32_t first, uint32_t count, enum hak_lane lane,
                           uint32_t warm)
{
    hak_lock_take(&hak_supers.lock);
    give_locked(first, count, lane, warm);
    HAK_WALK(hak_range_walk(false));
    hak_lock_drop(&hak_supers.lock);
}

void hak_range_super_gone(uint32_t super, enum hak_lane lane)
{
    hak_lock_take(&hak_supers.lock);
    HAK_ASSERT(hak_supers.at[super].state == HAK_SUPER_WHOLE);
    hak_super_forget(super);
    hak_super_drop_meta(super, 1);
    hak_supers.at[super].used = 0;
    hak_super_changed(super);
    hak_super_may_start(super);
    hak_super_account(lane, -(int64_t)HAK_SUPER_SIZE);
    HAK_WALK(hak_range_walk(false));
    hak_lock_drop(&hak_supers.lock);
}

/* What could not be unmapped of superslabs with contents, free by now. */
static void purge_left(uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        struct hak_super *super = &hak_supers.at[i];

        if (super->claimed != 0 && !hak_os_purge(hak_range_super_start(i),
                                                 super->claimed * HAK_PAGE)) {
            super->warm = HAK_ALL_SLABS;
            hak_super_changed(i);
            hak_super_may_start(i);
            hak_purge_wanted(i);
            atomic_fetch_add(&hak_supers_resident, hak_super_resident(i));
        }
    }
    complete(first + count - 1);
}

void hak_range_supers_drop(uint32_t first, uint32_t count, enum hak_lane lane)
{
    hak_lock_take(&hak_supers.lock);
    for (uint32_t i = first; i < first + count; i++) {
        HAK_CHECK(hak_supers.at[i].state >= HAK_SUPER_WHOLE);
        hak_supers.at[i].used = 0;
        hak_supers.at[i].state = HAK_SUPER_OPEN;
        hak_super_changed(i);
        hak_super_may_start(i);
    }
    hak_super_account(lane, -(int64_t)(count * HAK_SUPER_SIZE));
    if (!hak_super_unmap(first, count)) {
        purge_left(first, count);
    }
    HAK_WALK(hak_range_walk(false));
    hak_lock_drop(&hak_supers.lock);
}

uint32_t hak_range_super_head(uint32_t super)
{
    uint32_t i = super;

    hak_lock_take(&hak_supers.lock);
    while (hak_supers.at[i].state == HAK_SUPER_BODY) {
        HAK_ASSERT(i > hak_supers.tags);
        i--;
    }
    if (hak_supers.at[i].state != HAK_SUPER_WHOLE) {
        i = HAK_NO_SUPER;
    }
    hak_lock_drop(&hak_supers.lock);
    return i;
}

size_t hak_range_spare(void)
{
    size_t bytes;

    hak_lock_take(&hak_supers.lock);
    bytes = hak_supers.spare * HAK_SUPER_SIZE;
    hak_lock_drop(&hak_supers.lock);
    return bytes;
}
