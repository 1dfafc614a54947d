/*
 * pool_class.h - the size classes of the Pool lane.
 *
 * 45 classes from 1152 B to 52 KB, 8 steps between each two powers of
 * two: at most 12.5 % of a block is wasted. Blocks of a class lie side by side
 * in a span of 1 to 8 slabs, chosen so that at most 2.5 % of the span is left
 * over and at most 64 blocks fit: one bit each.
 */
#ifndef HAK_POOL_CLASS_H
#define HAK_POOL_CLASS_H

#include "base/base.h"

#define HAK_POOL_MIN_SIZE ((size_t)1025)
#define HAK_POOL_MAX_SIZE (52 * HAK_KIB)
#define HAK_POOL_CLASSES 45

/* Block sizes are multiples of this. */
#define HAK_POOL_UNIT 128

struct hak_pool_class {
    uint32_t block; /* bytes */
    uint8_t slabs;  /* of a span */
    uint8_t count;  /* blocks in it */
};

extern HAK_HIDDEN const struct hak_pool_class haki_pool_classes[];

/* What the hot paths look up. */
struct hak_pool_tables {
    uint64_t magic[HAK_POOL_CLASSES]; /* ceil(2^64 / block) */
    uint8_t count[HAK_POOL_CLASSES];  /* as in haki_pool_classes */
    /* by (size - 1) / HAK_POOL_UNIT; unused for Tiny's sizes */
    uint8_t class_of[HAK_POOL_MAX_SIZE / HAK_POOL_UNIT];
};

extern HAK_HIDDEN const struct hak_pool_tables haki_pool_tables;

/* The class for a size from HAK_POOL_MIN_SIZE to HAK_POOL_MAX_SIZE. */
HAK_INLINE unsigned haki_pool_class_for(size_t size)
{
    return haki_pool_tables.class_of[(size - 1) / HAK_POOL_UNIT];
}

/*
 * The number of the block that begins `offset` bytes into a span, or 64 or
 * more, which no block has, if none begins there. Exact for offsets below 2^19
 * (see haki_tiny_magic).
 */
HAK_INLINE uint32_t haki_pool_index(size_t offset, unsigned class)
{
    uint64_t magic = haki_pool_tables.magic[class];
    hak_u128 product = (hak_u128)offset * magic;

    return (uint64_t)product < magic ? (uint32_t)(product >> 64) : UINT32_MAX;
}

#endif /* HAK_POOL_CLASS_H */
