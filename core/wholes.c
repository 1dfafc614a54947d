/*
 * wholes.c - superslabs taken whole, one or many side by side.
 */
#include "supers.h"

/* Marks superslabs as taken; what is warm among them. */
static uint32_t hold(uint32_t first, uint32_t count, uint8_t state,
                     enum hak_lane lane)
{
    uint32_t warm = 0;

    HAK_HELD(&hak_supers.lock);
    for (uint32_t i = first; i < first + count; i++) {
        struct hak_super *super = &hak_supers.at[i];

        atomic_fetch_sub(&hak_supers_populated, hak_super_resident(i));
        warm |= super->warm;
        super->used = HAK_ALL_SLABS;
        super->warm = 0;
        super->described = false;
        super->state = i == first ? state : HAK_SUPER_BODY;
        hak_super_changed(i);
    }
    hak_super_account(lane, (int64_t)(count * HAK_SUPER_SIZE));
    return warm;
}

uint32_t hak_range_super_take(enum hak_lane lane, uint32_t *warm)
{
    uint32_t i;

    if (hak_range.size == 0) {
        return HAK_NO_SUPER;
    }
    hak_lock_take(&hak_supers.lock);
    i = hak_super_find_whole();
    if (i < hak_supers.limit && hak_super_commit(i, 1)) {
        *warm = hold(i, 1, HAK_SUPER_WHOLE, lane);
    } else {
        i = HAK_NO_SUPER;
    }
    hak_lock_drop(&hak_supers.lock);
    return i;
}

/* Whether superslabs first .. first + count - 1 are free as a whole. */
static bool all_free(uint32_t first, uint32_t count)
{
    HAK_HELD(&hak_supers.lock);
    return hak_map_next(hak_supers.held_map, first, first + count) ==
           first + count;
}

/* The last superslab from `first` to `end` - 1 that is held, or `end`. */
static uint32_t held_in(uint32_t first, uint32_t end)
{
    for (uint32_t i = end; i > first; i = (i - 1) / 64 * 64) {
        uint64_t word = hak_supers.held_map[(i - 1) / 64]
                        << (63 - (i - 1) % 64);

        if (word != 0) {
            uint32_t held = i - 1 - (uint32_t)__builtin_clzll(word);

            return held >= first ? held : end;
        }
    }
    return end;
}

/* The highest place for `count` superslabs, or HAK_NO_SUPER. */
static uint32_t find_place(uint32_t count, uint32_t align)
{
    uint64_t base = hak_range.base / HAK_SUPER_SIZE;
    uint32_t end = hak_supers.limit;

    HAK_HELD(&hak_supers.lock);
    while (end > count) {
        uint64_t at = (base + end - count) & ~((uint64_t)align - 1);
        uint32_t first = (uint32_t)(at - base), held;

        if (at <= base) {
            break;
        }
        held = held_in(first, first + count);
        if (held == first + count) {
            return first;
        }
        end = held;
    }
    return HAK_NO_SUPER;
}

uint32_t hak_range_supers_take(uint32_t count, uint32_t align,
                               enum hak_lane lane, bool *zero)
{
    uint32_t first;

    if (hak_range.size == 0) {
        return HAK_NO_SUPER;
    }
    hak_lock_take(&hak_supers.lock);
    first = find_place(count, align);
    if (first != HAK_NO_SUPER && hak_super_commit(first, count)) {
        *zero = hold(first, count, HAK_SUPER_WHOLE, lane) == 0;
    } else {
        first = HAK_NO_SUPER;
    }
    hak_lock_drop(&hak_supers.lock);
    return first;
}

bool hak_range_supers_grow(uint32_t first, uint32_t count, uint32_t more,
                           enum hak_lane lane, bool *zero)
{
    uint32_t from = first + count;
    bool done;

    hak_lock_take(&hak_supers.lock);
    done = more <= hak_supers.limit - from && all_free(from, more) &&
           hak_super_commit(from, more);
    if (done) {
        *zero = hold(from, more, HAK_SUPER_BODY, lane) == 0;
    }
    hak_lock_drop(&hak_supers.lock);
    return done;
}

void hak_range_supers_give(uint32_t first, uint32_t count, enum hak_lane lane,
                           uint32_t warm)
{
    hak_lock_take(&hak_supers.lock);
    for (uint32_t i = first; i < first + count; i++) {
        struct hak_super *super = &hak_supers.at[i];

        super->used = 0;
        super->warm = warm;
        super->state = HAK_SUPER_COMMITTED;
        hak_super_changed(i);
        hak_super_may_start(i);
        if (warm != 0) {
            hak_purge_wanted(i);
        }
        atomic_fetch_add(&hak_supers_populated, hak_super_resident(i));
    }
    hak_super_account(lane, -(int64_t)(count * HAK_SUPER_SIZE));
    hak_lock_drop(&hak_supers.lock);
}

uint32_t hak_range_super_head(uint32_t super)
{
    uint32_t i = super;

    hak_lock_take(&hak_supers.lock);
    while (hak_supers.at[i].state == HAK_SUPER_BODY) {
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
