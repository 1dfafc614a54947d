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

#endif /* HAK_TINY_GRAIN_BITS_H */
