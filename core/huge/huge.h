/*
 * huge.h - the Huge lane: requests of 2 MB and more.
 *
 * A block is a run of whole superslabs at the high end of the range.
 * It grows in place when the superslabs behind it are free; otherwise its pages
 * are moved (mremap) to a place with room behind it, so that it usually moves
 * only once, and contents are not copied. What is known about a block is kept
 * in the space of the descriptors of its first superslab; the tag of its first
 * slab is HAK_TAG_HUGE, all its other tags are 0. The blocks are in one list
 * under one lock.
 *
 * A freed block's pages go back at once if it is large or enough is already
 * waiting for reuse (KEEP_BLOCK, KEEP_ALL); otherwise after the delay, like any
 * free slab's.
 */
#ifndef HAK_HUGE_H
#define HAK_HUGE_H

#include "base/assert.h"
#include "base/base.h"
#include "profile/profile.h"
#include "range/range.h"

/*
 * `size` bytes aligned to `align` (a power of two) for the heap with this id,
 * HAK_ID_SHARED for threads. *zero: their contents are zero. NULL: out of
 * memory or addresses.
 */
void *haki_huge_alloc(size_t size, size_t align, uint32_t owner, bool *zero);

/* What is known about a block. */
struct hak_huge_block {
    size_t size;    /* bytes, whole pages */
    uint32_t owner; /* with HAK_OWNER_SAMPLED if that is so */
};

/* Frees p and fills in what it was. False: no block begins there. */
bool haki_huge_free(void *p, struct hak_huge_block *block);

/* Describes p. False: no block begins there. */
bool haki_huge_find(const void *p, struct hak_huge_block *block);

/*
 * Makes the block p at least `size` bytes (2 MB or more), in place or
 * elsewhere, without copying if the kernel can; returns its address. NULL: out
 * of memory, p is untouched.
 */
void *haki_huge_resize(void *p, size_t size);

/* The block p is a sample, or none any more; by who has it. */
void haki_huge_mark(const void *p, bool sampled);

/* Frees every block of a heap. */
void haki_huge_free_owner(uint32_t owner);

/*
 * The first block of a heap that begins above the address `at`, and its length;
 * NULL: there is none. It may have been freed by the time the caller uses the
 * answer.
 */
char *haki_huge_next(uint32_t owner, const char *at, size_t *bytes);

void haki_huge_counts(struct hak_lane_counts *counts);

/* In a forked child: see haki_lock_settle. */
bool haki_huge_forked(void);

/*
 * Walks the list of blocks and checks the invariants above; only if HAK_WALKS.
 * The caller holds the lane's lock, or no other thread uses the lane. `quiet`:
 * the latter, in a process without ghosts (lock.h).
 */
struct hak_huge_sums {
    size_t blocks, supers, bytes;
};
struct hak_huge_sums haki_huge_walk(bool quiet);

#endif /* HAK_HUGE_H */
