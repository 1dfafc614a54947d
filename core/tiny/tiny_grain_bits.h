/*
 * tiny_grain_bits.h - the maps of packed slabs: two bits per grain, 64 grains
 * per unit.
 *
 * tiny_grain.c explains them. Only the owner writes them; others may read them
 * at any time.
 */
#ifndef HAK_TINY_GRAIN_BITS_H
#define HAK_TINY_GRAIN_BITS_H

#include "base/assert.h"
#include "tiny/tiny.h"

#define HAK_UNIT_GRAINS 64u
#define HAK_GRAIN_NOWHERE UINT32_MAX
#define HAK_SLAB_GRAINS (HAK_SLAB_UNITS * HAK_UNIT_GRAINS)

/* The slab of the packed ones that has this number: 0 or 1, .. */
HAK_INLINE uint32_t haki_grain_index(const struct hak_tiny *tiny,
                                     uint32_t number)
{
    uint32_t i = 0;

    while (i < HAK_PACKED_SLABS - 1 && tiny->packed_at[i] != number) {
        i++;
    }
    return i;
}

/* The grain that p, in slab `number`, lies in, of the heap's row. */
HAK_INLINE uint32_t haki_grain_of(const struct hak_tiny *tiny, const void *p,
                                  uint32_t number)
{
    uint32_t at = (uint32_t)((uintptr_t)p & (HAK_SLAB_SIZE - 1));

    return haki_grain_index(tiny, number) * HAK_SLAB_GRAINS +
           at / (uint32_t)HAK_GRAIN;
}

HAK_INLINE uint64_t haki_grain_used(const struct hak_unit *unit)
{
    return atomic_load_explicit(&unit->used, memory_order_relaxed);
}

HAK_INLINE uint64_t haki_grain_last(const struct hak_unit *unit)
{
    return atomic_load_explicit(&unit->last, memory_order_relaxed);
}

/* The bits from..from+n-1; n is 1 to 64 - from. */
HAK_INLINE uint64_t haki_grain_bits(uint32_t from, uint32_t n)
{
    return UINT64_MAX >> (HAK_UNIT_GRAINS - n) << from;
}

/* Sets or clears the bits of n grains. */
HAK_INLINE void haki_grain_mark(struct hak_unit *units, uint32_t grain,
                                uint32_t n, bool on)
{
    while (n > 0) {
        struct hak_unit *unit = &units[grain / HAK_UNIT_GRAINS];
        uint32_t from = grain % HAK_UNIT_GRAINS;
        uint32_t count = (uint32_t)haki_min(n, HAK_UNIT_GRAINS - from);
        uint64_t bits = haki_grain_bits(from, count),
                 used = haki_grain_used(unit);

        HAK_ASSERT((used & bits) == (on ? 0 : bits));
        atomic_store_explicit(&unit->used, on ? used | bits : used & ~bits,
                              memory_order_relaxed);
        grain += count;
        n -= count;
    }
}

HAK_INLINE void haki_grain_mark_last(struct hak_unit *units, uint32_t grain,
                                     bool on)
{
    struct hak_unit *unit = &units[grain / HAK_UNIT_GRAINS];
    uint64_t bit = (uint64_t)1 << (grain % HAK_UNIT_GRAINS),
             last = haki_grain_last(unit);

    atomic_store_explicit(&unit->last, on ? last | bit : last & ~bit,
                          memory_order_relaxed);
}

/*
 * Makes n grains a block, or a block's grains free. All the while others see
 * that the grain before the next block is unused or the last of a block.
 */
HAK_INLINE void haki_grain_mark_block(struct hak_unit *units, uint32_t grain,
                                      uint32_t n, bool on)
{
    if (on) {
        haki_grain_mark_last(units, grain + n - 1, true);
        atomic_signal_fence(memory_order_seq_cst);
        haki_grain_mark(units, grain, n, true);
    } else {
        haki_grain_mark(units, grain, n, false);
        atomic_signal_fence(memory_order_seq_cst);
        haki_grain_mark_last(units, grain + n - 1, false);
    }
}

/* The grains of a unit where n (1 to 64) unused grains begin that end in it. */
HAK_INLINE uint64_t haki_grain_room(uint64_t used, uint32_t n)
{
    uint64_t room = ~used;

    for (uint32_t have = 1; have < n;) {
        uint32_t more = (uint32_t)haki_min(have, n - have);

        room &= room >> more;
        have += more;
    }
    return room;
}

/*
 * Finds n unused grains side by side from grain `from` on and below `end`, all
 * in one slab, beginning at an even one if `even`; or HAK_GRAIN_NOWHERE. Takes
 * some 20 instructions per unit, however many blocks it holds.
 */
static inline uint32_t haki_grain_find(const struct hak_unit *units,
                                       uint32_t from, uint32_t end, uint32_t n,
                                       uint32_t even)
{
    uint64_t places = even ? UINT64_MAX / 3 : UINT64_MAX;
    uint32_t start = (from + even) & ~even;
    uint32_t unit = from / HAK_UNIT_GRAINS;
    uint64_t used =
        haki_grain_used(&units[unit]) & (UINT64_MAX << from % HAK_UNIT_GRAINS);

    while (start + n <= end) {
        if (used != 0) {
            uint32_t first = (uint32_t)__builtin_ctzll(used);
            uint32_t base = unit * HAK_UNIT_GRAINS;
            uint64_t room = 0;

            if (base + first >= start + n) {
                return start;
            }
            if (n < HAK_UNIT_GRAINS) { /* between two blocks of the unit */
                room = haki_grain_room(used, n) & places & UINT64_MAX << first;
            }
            if (room != 0) {
                return base + (uint32_t)__builtin_ctzll(room);
            }
            start = (base + HAK_UNIT_GRAINS - (uint32_t)__builtin_clzll(used) +
                     even) &
                    ~even;
        }
        unit++;
        if (unit * HAK_UNIT_GRAINS >= start + n) {
            return start;
        }
        if (unit * HAK_UNIT_GRAINS >= end) {
            break;
        }
        used = haki_grain_used(&units[unit]);
    }
    return HAK_GRAIN_NOWHERE;
}

/* ---- many at a time: blocks of less than a unit --------------------------- */

/*
 * Takes the lowest places for n grains that lie in the unit as a whole, `most` at
 * most, the even ones if `even`: the bits of their first grains.
 */
HAK_INLINE uint64_t haki_grain_take_in(struct hak_unit *unit, uint32_t n,
                                       uint32_t even, uint32_t most)
{
    uint64_t used = haki_grain_used(unit), last = haki_grain_last(unit);
    uint64_t room = haki_grain_room(used, n);
    uint64_t first = 0;

    room &= even ? UINT64_MAX / 3 : UINT64_MAX;
    if (room == 0) {
        return 0;
    }
    for (; room != 0 && most > 0; most--) {
        uint32_t at = (uint32_t)__builtin_ctzll(room);
        uint64_t end = (uint64_t)1 << (at + n - 1);

        first |= room & -room;
        used |= haki_grain_bits(at, n);
        last |= end;
        room &= ~(2 * end - 1); /* where none of these begins */
    }
    /* As haki_grain_mark_block. */
    atomic_store_explicit(&unit->last, last, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&unit->used, used, memory_order_relaxed);
    return first;
}

/* Takes n grains that begin in the unit and end in the next one: the grain in
 * the unit, or HAK_UNIT_GRAINS: there is no place. */
HAK_INLINE uint32_t haki_grain_take_across(struct hak_unit *unit, uint32_t n,
                                           uint32_t even)
{
    uint64_t used = haki_grain_used(unit), next = haki_grain_used(unit + 1);
    uint32_t from =
        used != 0 ? HAK_UNIT_GRAINS - (uint32_t)__builtin_clzll(used) : 0;
    uint32_t free =
        next != 0 ? (uint32_t)__builtin_ctzll(next) : HAK_UNIT_GRAINS;

    from = (uint32_t)haki_max((from + even) & ~even,
                              (HAK_UNIT_GRAINS - n + 1 + even) & ~even);
    if (from >= HAK_UNIT_GRAINS || HAK_UNIT_GRAINS - from + free < n) {
        return HAK_UNIT_GRAINS;
    }
    haki_grain_mark_block(unit, from, n, true);
    return from;
}

/* `used` and `last` of a unit lose these bits, of whole blocks. */
HAK_INLINE void haki_grain_clear(struct hak_unit *unit, uint64_t used,
                                 uint64_t last)
{
    HAK_ASSERT((haki_grain_used(unit) & used) == used &&
               (haki_grain_last(unit) & last) == last);
    atomic_store_explicit(&unit->used, haki_grain_used(unit) & ~used,
                          memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&unit->last, haki_grain_last(unit) & ~last,
                          memory_order_relaxed);
}

#endif /* HAK_TINY_GRAIN_BITS_H */
