/*
 * pool_class.h - the size classes of the Pool lane.
 *
 * Layer 4. 45 classes from 1152 B to 52 KB, 8 steps between each two powers of
 * two: at most 12.5 % of a block is waste. Blocks of a class lie side by side
 * in a span of 1 to 8 slabs, so many that at most 2.5 % of the span is left
 * over and at most 64 blocks fit: a bit each.
 */
#ifndef HAK_POOL_CLASS_H
#define HAK_POOL_CLASS_H

#include "base.h"

#define HAK_POOL_MIN_SIZE ((size_t)1025)
#define HAK_POOL_MAX_SIZE (52 * HAK_KIB)
#define HAK_POOL_CLASSES 45

/* Block sizes are multiples of this. */
#define HAK_POOL_UNIT 128

struct hak_pool_class {
    uint32_t block; /* bytes */
    uint32_t magic; /* ceil(2^32 / (block / HAK_POOL_UNIT)) */
    uint8_t slabs;  /* of a span */
    uint8_t count;  /* blocks in it */
};

extern HAK_HIDDEN const struct hak_pool_class hak_pool_classes[];

/* The class for a size from HAK_POOL_MIN_SIZE to HAK_POOL_MAX_SIZE. */
HAK_INLINE unsigned hak_pool_class_of(size_t size)
{
    uint32_t n = (uint32_t)size - 1;
    unsigned top = 31u - (unsigned)__builtin_clz(n); /* 10 .. 15 */

    return (top - 10) * 8 + ((n >> (top - 3)) & 7);
}

/*
 * The number of the block that begins `offset` bytes into a span, or one that
 * no span has (64 or more) if none begins there. Exact for offsets below
 * 2^19 (see hak_tiny_magic).
 */
HAK_INLINE uint32_t hak_pool_index(size_t offset, unsigned class)
{
    uint32_t magic = hak_pool_classes[class].magic;
    uint64_t product = (uint64_t)(offset / HAK_POOL_UNIT) * magic;

    if (offset % HAK_POOL_UNIT != 0 || (uint32_t)product >= magic) {
        return UINT32_MAX;
    }
    return (uint32_t)(product >> 32);
}

#endif /* HAK_POOL_CLASS_H */
