/*
 * rooms.c - where superslabs taken whole go, and the room behind them.
 *
 * Tested by tests/unit/range/claims.c and tests/unit/together/meet_locks.c.
 */
#include "range/rooms.h"
#include "range/supers.h"
#include "range/superslabs.h"

/*
 * A run that grows gets room: free addresses behind it, ROOM_TIMES as many as
 * it has bytes and at least ROOM_LEAST. Into these it grows without a copy and
 * without a second mapping beside the first, which a limit on address space may
 * not allow. All rooms together take at most half of the window, and a single
 * one at most 1/ROOM_SHARE of what is left of that half. A window smaller than
 * ROOM_WINDOW gives no room.
 */
#define ROOM_LEAST (16 * HAK_GIB)
#define ROOM_TIMES 4
#define ROOM_SHARE 16
#define ROOM_WINDOW (64 * HAK_GIB)

bool haki_super_all_free(uint32_t first, uint32_t count)
{
    HAK_HELD(&haki_supers.lock);
    return haki_map_next(HAK_MAP_HELD, first, first + count) == first + count;
}

/* The last superslab from `first` to `end` - 1 that is held, or `end`. */
static uint32_t rooms_held_in(uint32_t first, uint32_t end)
{
    for (uint32_t i = end; i > first; i = (i - 1) / 64 * 64) {
        uint64_t word = *haki_map_word(HAK_MAP_HELD, i - 1)
                        << (63 - (i - 1) % 64);

        if (word != 0) {
            uint32_t held = i - 1 - (uint32_t)__builtin_clzll(word);

            return held >= first ? held : end;
        }
    }
    return end;
}

/* The highest place for `count` superslabs, or HAK_NO_SUPER. */
static uint32_t rooms_find_place(uint32_t count, uint32_t align)
{
    uint64_t base = HAK_LOAD(haki_range.base) / HAK_SUPER_SIZE;
    uint32_t end = haki_supers.limit;

    HAK_HELD(&haki_supers.lock);
    while (end > count) {
        uint64_t at = (base + end - count) & ~((uint64_t)align - 1);
        uint32_t first = (uint32_t)(at - base), held;

        if (at < base + haki_supers.tags) {
            break;
        }
        held = rooms_held_in(first, first + count);
        if (held == first + count) {
            return first;
        }
        end = held;
    }
    return HAK_NO_SUPER;
}

/* The same, extending the extent if need be. */
static uint32_t rooms_make_place(uint32_t count, uint32_t align)
{
    uint32_t first = rooms_find_place(count, align);

    if (first == HAK_NO_SUPER && haki_super_extend(count + align - 1)) {
        first = rooms_find_place(count, align);
    }
    return first;
}

uint32_t haki_super_place(uint32_t count, uint32_t align, uint32_t *room)
{
    uint32_t first = HAK_NO_SUPER;

    if (*room > 0) {
        first = rooms_make_place(count + *room, align);
    }
    if (first == HAK_NO_SUPER) {
        *room = 0;
        first = rooms_make_place(count, align);
    }
    return first;
}

uint32_t haki_super_keep_room(uint32_t first, uint32_t count)
{
    uint32_t i = first;

    HAK_ASSERT(haki_super_all_free(first, count));
    for (; i < first + count && haki_super_unmap(i, 1); i++) {
        HAK_ASSERT(haki_supers.at[i].state == HAK_SUPER_FRESH);
        haki_supers.at[i].state = HAK_SUPER_ROOM;
        haki_supers.at[i].used = HAK_ALL_SLABS;
        haki_super_changed(i);
    }
    haki_supers.rooms += i - first;
    return i - first;
}

void haki_super_give_room(uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        if (haki_supers.at[i].state == HAK_SUPER_ROOM) {
            /* A claim that was broken off may have mapped it. */
            haki_supers.at[i].state = haki_supers.at[i].claimed != 0
                                          ? HAK_SUPER_OPEN
                                          : HAK_SUPER_FRESH;
            haki_supers.at[i].used = 0;
            haki_super_changed(i);
            haki_super_may_start(i);
        }
    }
    HAK_ASSERT(haki_supers.rooms >= count);
    haki_supers.rooms -= count;
}

void haki_range_room_give(uint32_t first, uint32_t room)
{
    if (room > 0) {
        haki_lock_take(&haki_supers.lock);
        haki_super_give_room(first, room);
        haki_lock_drop(&haki_supers.lock);
    }
}

uint32_t haki_range_room_for(size_t bytes)
{
    size_t wish = haki_max(ROOM_LEAST, ROOM_TIMES * bytes) / HAK_SUPER_SIZE;
    size_t half, left;

    if (haki_range.window < ROOM_WINDOW) {
        return 0;
    }
    haki_lock_take(&haki_supers.lock);
    half = haki_supers.most / 2;
    left = half - haki_min(haki_supers.rooms, half);
    haki_lock_drop(&haki_supers.lock);
    return (uint32_t)haki_min(left / ROOM_SHARE, wish);
}
