/*
 * tiny_class.h - the size classes of the Tiny lane.
 *
 * 40 classes: steps of 8 B up to 128, then 8 steps between each two powers of
 * two, so at most 12.5 % of a block above 128 B is wasted. Two tables lead from
 * a size to a class:
 *   - haki_tiny_class_8 uses every class: in a Lua heap 24 B take 24. Sizes
 *     that are multiples of 16 get blocks that are multiples of 16.
 *   - haki_tiny_class_16 uses the multiples of 16, for malloc: 16-aligned for
 *     every size, as glibc promises, at most 15 B of waste up to 128 B.
 * Slabs begin at 64 KB boundaries, so a block is as aligned as its size.
 *
 * The band (0..7) groups classes by powers of two: 8, 16, 32 .. 1024.
 */
#ifndef HAK_TINY_CLASS_H
#define HAK_TINY_CLASS_H

#include "base/base.h"
#include "guard/hard.h"

#define HAK_TINY_MAX_SIZE ((size_t)1024)
/*
 * Classes are steps of 8 B up to 128 B: class c has blocks of 8 * (c + 1)
 * bytes. In the hardened build class 0 has blocks of 16 B as well: see hard.h.
 */
#define HAK_TINY_STEP 8
#define HAK_TINY_STEP_MAX 128

#define HAK_TINY_CLASSES 40
#define HAK_TINY_INDEXES (1024 / 8 + 1)

extern HAK_HIDDEN const uint8_t haki_tiny_class_8[HAK_TINY_INDEXES];
extern HAK_HIDDEN const uint8_t haki_tiny_class_16[HAK_TINY_INDEXES];

/* Block size of each class, in bytes. */
extern HAK_HIDDEN const uint16_t haki_tiny_size[HAK_TINY_CLASSES];

/*
 * ceil(2^32 / size). An offset n below 2^16 is a multiple of size exactly if
 * (uint32_t)(n * magic) < magic (Lemire, Kaser, Kurz: "Faster remainder by
 * direct computation", 2019).
 */
extern HAK_HIDDEN const uint32_t haki_tiny_magic[HAK_TINY_CLASSES];

/* Index into the size tables, for a size of at most HAK_TINY_MAX_SIZE. */
HAK_INLINE size_t haki_tiny_index(size_t size)
{
    return (size + 7) >> 3;
}

HAK_INLINE bool haki_tiny_is_start(size_t offset, uint32_t magic)
{
    return (uint32_t)((uint32_t)(offset & 0xffff) * magic) < magic;
}

/* The band a class lies in: ceil(log2(block size)) - 3. */
HAK_INLINE unsigned haki_tiny_band(unsigned class)
{
    return 29u - (unsigned)__builtin_clz((uint32_t)haki_tiny_size[class] - 1u);
}

#endif /* HAK_TINY_CLASS_H */
