/*
 * tiny_seal.h - sealed slabs, from which their heap no longer allocates.
 *
 * A heap can be sealed, usually around a fork: it gives up the free blocks of
 * its slabs, so that parent and child go on sharing their pages, and allocates
 * from fresh slabs. A free into a sealed slab does not touch the block, and so
 * no page of the slab:
 *
 *     the heap's own free --nfree + 1--------------------> descriptor
 *     another thread's --remote + 1--> descriptor, inbox of slabs --'
 *
 * When nfree == carved no block is in use, and the slab is given back. Until
 * then its free blocks are not used. Blocks that were in bins must be counted
 * as well, which means reading them all; that is not done at the fork. Instead
 * these lists become "stale", and each free into a sealed slab counts a few of
 * their blocks.
 */
#ifndef HAK_TINY_SEAL_H
#define HAK_TINY_SEAL_H

#include "tiny/tiny.h"

/*
 * Seals every slab that has or may have a block in use. No block is touched.
 * O(slabs).
 */
void haki_tiny_seal(struct hak_tiny *tiny);

/*
 * The stale lists, at the end of the heap's slot; the last one is counted next.
 */
#define HAK_TINY_STALE (4 * HAK_TINY_CLASSES)

HAK_INLINE struct hak_block **haki_tiny_stale(struct hak_tiny *tiny)
{
    char *end = (char *)tiny + HAK_HEAP_SLOT;

    return (struct hak_block **)(void *)end - HAK_TINY_STALE;
}

/*
 * Counts up to `most` blocks of the stale lists. The caller marks itself as
 * busy.
 */
void haki_tiny_seal_count(struct hak_tiny *tiny, uint32_t most);

/* Takes back a block of a sealed slab of the heap's own. */
void haki_tiny_seal_put(struct hak_tiny *tiny, struct hak_block *block);

/* haki_remote_free for a block of a sealed slab, self's or another heap's. */
uint32_t haki_tiny_seal_free(struct hak_tiny *self, void *p, uint32_t tag);

/* Takes in what other threads freed into sealed slabs. */
void haki_tiny_seal_collect(struct hak_tiny *tiny);

#endif /* HAK_TINY_SEAL_H */
