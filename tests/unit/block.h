/*
 * block.h - the real size of a block, and of the system's blocks.
 *
 * hak_usable_size returns the same, except in the hardened build, where it
 * returns what was asked for in blocks of threads' heaps.
 */
#ifndef BLOCK_H
#define BLOCK_H

#include "front/lane.h"
#include "front/large.h"
#include "unit.h"

/* All the bytes of the block p, in the range; of NULL 0. */
UNIT size_t unit_block(const void *p)
{
    uint32_t tag, owner;

    if (p == NULL) {
        return 0;
    }
    tag = haki_range_tag_of(p);
    return haki_tag_is_large(tag) ? haki_large_find(p, &owner)
                                  : haki_tiny_bytes_of(p, tag);
}

/* A block of the system's, as the core has it for what no lane serves. */
UNIT char *unit_from_system(size_t size)
{
    char *p = haki_system_alloc(16, size, NULL, HAK_REASON_MEMORY);

    cr_assert_not_null(p);
    return p;
}

#endif /* BLOCK_H */
