/*
 * tiny_class.c - tests of the size classes: every size, offset and band.
 */
#include "tiny/tiny_class.h"

#include "unit.h"

TestSuite(tiny_class, .timeout = 300);

Test(tiny_class, sizes_ascend_in_steps_of_8)
{
    cr_assert_eq(haki_tiny_size[0], HAK_HARD ? 16 : 8);
    cr_assert_eq(haki_tiny_size[HAK_TINY_CLASSES - 1], HAK_TINY_MAX_SIZE);
    for (unsigned c = 1; c < HAK_TINY_CLASSES; c++) {
        cr_assert(haki_tiny_size[c] > haki_tiny_size[c - 1] ||
                  (HAK_HARD && c == 1));
        cr_assert_eq(haki_tiny_size[c] % 8, 0);
    }
}

/* The bound on what a size of at least 1 may waste in its block. */
static void check_waste(size_t size, size_t block, size_t small_waste)
{
    cr_assert_leq(size, block);
    if (block <= 128) {
        cr_assert_leq(block - size, small_waste, "size %zu", size);
    } else {
        cr_assert_leq((block - size) * 8, block, "size %zu", size);
    }
}

Test(tiny_class, table_of_8_has_the_smallest_block_for_every_size)
{
    for (size_t size = 0; size <= 1024; size++) {
        unsigned class = haki_tiny_class_8[haki_tiny_index(size)];

        cr_assert_lt(class, HAK_TINY_CLASSES);
        cr_assert_geq(haki_tiny_size[class], size);
        cr_assert(class <= HAK_HARD || haki_tiny_size[class - 1] < size,
                  "size %zu", size);
        if (size > 0) {
            check_waste(size, haki_tiny_size[class],
                        HAK_HARD && size <= 8 ? 15 : 7);
        }
        if (size > 0 && size % 16 == 0) {
            cr_assert_eq(haki_tiny_size[class] % 16, 0, "size %zu", size);
        }
    }
}

/* The smallest block of a multiple of 16 bytes. */
static size_t block_16(size_t size)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        if (haki_tiny_size[c] >= size && haki_tiny_size[c] % 16 == 0) {
            return haki_tiny_size[c];
        }
    }
    return 0;
}

Test(tiny_class, table_of_16_has_the_smallest_aligned_block_for_every_size)
{
    for (size_t size = 0; size <= 1024; size++) {
        unsigned class = haki_tiny_class_16[haki_tiny_index(size)];

        cr_assert_lt(class, HAK_TINY_CLASSES);
        cr_assert_eq(haki_tiny_size[class], block_16(size), "size %zu", size);
        cr_assert_eq(haki_tiny_size[class] % 16, 0, "size %zu", size);
        if (size > 0) {
            check_waste(size, haki_tiny_size[class], 15);
        }
    }
}

Test(tiny_class, both_tables_end_at_the_lane_s_bound)
{
    cr_assert_eq(HAK_TINY_MAX_SIZE, HAK_TINY_MAX);
    cr_assert_eq(haki_tiny_index(1024), HAK_TINY_INDEXES - 1);
    cr_assert_eq(haki_tiny_index(1023), HAK_TINY_INDEXES - 1);
    cr_assert_eq(haki_tiny_index(1025), HAK_TINY_INDEXES);
    cr_assert_eq(haki_tiny_class_8[HAK_TINY_INDEXES - 1], HAK_TINY_CLASSES - 1);
    cr_assert_eq(haki_tiny_class_16[HAK_TINY_INDEXES - 1],
                 HAK_TINY_CLASSES - 1);
}

Test(tiny_class, magic_tells_the_multiples_for_every_offset)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        uint64_t size = haki_tiny_size[c];

        cr_assert_eq(haki_tiny_magic[c],
                     ((UINT64_C(1) << 32) + size - 1) / size);
        for (size_t offset = 0; offset <= 65535; offset++) {
            if (haki_tiny_is_start(offset, haki_tiny_magic[c]) !=
                (offset % size == 0)) {
                cr_assert_fail("size %u, offset %zu", (unsigned)size, offset);
            }
        }
    }
}

/* Only the place within the slab counts. */
Test(tiny_class, magic_looks_at_the_low_16_bits)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        size_t size = haki_tiny_size[c];

        for (size_t slab = 1; slab < ((size_t)1 << 24); slab = slab * 3 + 1) {
            cr_assert(haki_tiny_is_start(slab << 16, haki_tiny_magic[c]));
            cr_assert(haki_tiny_is_start((slab << 16) + size,
                                         haki_tiny_magic[c]));
            cr_assert_not(haki_tiny_is_start((slab << 16) + size + 1,
                                             haki_tiny_magic[c]));
        }
    }
}

Test(tiny_class, bands_end_at_powers_of_two)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        unsigned band = 0;

        while (((size_t)8 << band) < haki_tiny_size[c]) {
            band++;
        }
        cr_assert_eq(haki_tiny_band(c), band, "class %u", c);
        cr_assert_leq(band, 7);
    }
}
