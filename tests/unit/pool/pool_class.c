/*
 * pool_class.c - tests of the Pool lane's size classes: every entry of the
 * table worked out again, every size, every place in a span.
 */
#include "pool/pool_class.h"
#include "unit.h"

/* Block sizes: 1152 .. 2048 by 128, to 4096 by 256 and so on, up to 52 KB. */
Test(pool_class, block_sizes_are_eight_steps_between_powers_of_two)
{
    size_t size = 1024, step = 128;

    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        size += step;
        cr_assert_eq(haki_pool_classes[c].block, size, "class %u", c);
        cr_assert_eq(size % HAK_POOL_UNIT, 0);
        if (haki_is_pow2(size)) {
            step = size / 8;
        }
    }
    cr_assert_eq(size, HAK_POOL_MAX_SIZE);
}

Test(pool_class, magic_is_the_reciprocal_rounded_up)
{
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        uint64_t block = haki_pool_classes[c].block;
        uint64_t magic = UINT64_MAX / block + 1;

        cr_assert_eq(haki_pool_tables.magic[c], magic, "class %u", c);
        cr_assert_eq(haki_pool_tables.count[c], haki_pool_classes[c].count);
    }
}

/* What spans of n slabs leave over, per mille, and 2 for each slab. */
static size_t cost(size_t block, size_t slabs)
{
    size_t bytes = slabs * 65536;

    return 1000 * (bytes % block) / bytes + 2 * (slabs - 1);
}

Test(pool_class, spans_hold_at_most_64_blocks_and_leave_little_over)
{
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        const struct hak_pool_class *class = &haki_pool_classes[c];
        size_t bytes = class->slabs * (size_t)65536;

        cr_assert(class->slabs >= 1 && class->slabs <= 8, "class %u", c);
        cr_assert_eq(class->count, bytes / class->block, "class %u", c);
        cr_assert(class->count >= 6 && class->count <= 64, "class %u", c);
        cr_assert_leq(1000 * (bytes - class->count * class->block), 25 * bytes,
                      "class %u leaves more than 2.5 %% over", c);
        /* No other length with as many blocks at least is clearly better. */
        for (size_t n = 1; n <= 8; n++) {
            size_t count = n * 65536 / class->block;

            cr_assert(count < 6 || count > 64 ||
                          cost(class->block, class->slabs) <=
                              cost(class->block, n) + 1,
                      "class %u: %zu slabs", c, n);
        }
    }
}

Test(pool_class, every_size_has_the_smallest_class_that_holds_it)
{
    for (size_t size = HAK_POOL_MIN_SIZE; size <= HAK_POOL_MAX_SIZE; size++) {
        unsigned class = haki_pool_class_for(size);
        size_t block = haki_pool_classes[class].block;

        cr_assert_lt(class, HAK_POOL_CLASSES);
        cr_assert_geq(block, size);
        cr_assert(class == 0 || haki_pool_classes[class - 1].block < size,
                  "size %zu fits a smaller class than %u", size, class);
        cr_assert_leq((block - size) * 1000, 125 * block, "size %zu", size);
    }
}

/* Exact for every offset that a span can have, and a little beyond. */
Test(pool_class, index_is_exact_for_every_offset_below_2_to_the_19)
{
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        size_t block = haki_pool_classes[c].block;
        size_t next = 0, wrong = 0;
        uint32_t number = 0;

        for (size_t offset = 0; offset < (size_t)1 << 19; offset++) {
            uint32_t index = haki_pool_index(offset, c);

            if (offset == next) {
                wrong += index != number;
                next += block;
                number++;
            } else {
                wrong += index < 64;
            }
        }
        cr_assert_eq(wrong, 0, "class %u: %zu offsets", c, wrong);
    }
}
