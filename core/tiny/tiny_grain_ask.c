/*
 * tiny_grain_ask.c - packed slabs: what block an address lies in. Any thread.
 *
 * The owner alone writes the maps (tiny_grain.c). Others may ask for the size of a
 * block in use: its own bits stay, and the grain before it is either unused or the
 * last of a block, at any moment.
 *
 * Tested by tests/unit/tiny/tiny_packed.c.
 */
#include "range/slots.h"
#include "tiny/tiny_grain_bits.h"
#include "tiny/tiny_slab.h"

/* The highest grain up to `grain` that is the first of a block. */
static uint32_t tiny_first_of(const struct hak_unit *units, uint32_t grain)
{
    while (grain % HAK_SLAB_GRAINS != 0) {
        uint32_t before = grain - 1, bit = before % HAK_UNIT_GRAINS;
        const struct hak_unit *unit = &units[before / HAK_UNIT_GRAINS];
        uint64_t ends = (haki_grain_last(unit) | ~haki_grain_used(unit))
                        << (63 - bit);

        if (ends != 0) {
            return grain - (uint32_t)__builtin_clzll(ends);
        }
        grain -= bit + 1;
    }
    return grain;
}

/* The first grain from `grain` on that is the last of a block. */
static uint32_t tiny_last_of(const struct hak_unit *units, uint32_t grain)
{
    uint32_t end = (grain / HAK_SLAB_GRAINS + 1) * HAK_SLAB_GRAINS;
    uint64_t last = haki_grain_last(&units[grain / HAK_UNIT_GRAINS]) >>
                    grain % HAK_UNIT_GRAINS;

    while (last == 0 &&
           grain + HAK_UNIT_GRAINS - grain % HAK_UNIT_GRAINS < end) {
        grain += HAK_UNIT_GRAINS - grain % HAK_UNIT_GRAINS;
        last = haki_grain_last(&units[grain / HAK_UNIT_GRAINS]);
    }
    return grain + (last != 0 ? (uint32_t)__builtin_ctzll(last) : 0);
}

/* The first grain of the block that p, in a packed slab with this tag, lies in,
 * and how many it has; 0: in none. */
static uint32_t tiny_block_at(const void *p, uint32_t tag, uint32_t *n)
{
    const struct hak_tiny *owner = haki_range_heap(HAK_TAG_HEAP(tag));
    const struct hak_unit *units = haki_tiny_units(owner);
    uint32_t grain = haki_grain_of(owner, p, haki_range_number(p)), first;

    *n = 0;
    if (grain >= owner->units * HAK_UNIT_GRAINS ||
        (haki_grain_used(&units[grain / HAK_UNIT_GRAINS]) >>
             grain % HAK_UNIT_GRAINS &
         1) == 0) {
        return grain;
    }
    first = tiny_first_of(units, grain);
    *n = tiny_last_of(units, grain) + 1 - first;
    return first;
}

HAK_RACY_READER unsigned haki_tiny_grain_class(const void *p, uint32_t tag)
{
    uint32_t n;

    tiny_block_at(p, tag, &n);
    if (n == 0) {
        return HAK_TINY_NONE;
    }
    return n * HAK_GRAIN <= HAK_TINY_MAX_SIZE
               ? haki_tiny_class_8[haki_tiny_index(n * HAK_GRAIN)]
               : HAK_TINY_LARGER;
}

HAK_RACY_READER size_t haki_tiny_grain_bytes(const void *p, uint32_t tag)
{
    uint32_t n;

    tiny_block_at(p, tag, &n);
    return n * HAK_GRAIN;
}

HAK_RACY_READER bool haki_tiny_grain_is_block(const void *p, uint32_t tag)
{
    const struct hak_tiny *owner = haki_range_heap(HAK_TAG_HEAP(tag));
    uint32_t n, first = tiny_block_at(p, tag, &n);

    return n != 0 && (uintptr_t)p % HAK_GRAIN == 0 &&
           first == haki_grain_of(owner, p, haki_range_number(p));
}
