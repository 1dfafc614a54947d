/*
 * tiny_bin.h - a Tiny bin: what it holds, and when it is looked at.
 *
 * For tiny*.c only; called by the heap's user.
 */
#ifndef HAK_TINY_BIN_H
#define HAK_TINY_BIN_H

#include "tiny/tiny.h"

/*
 * A bin may keep HAK_BIN_LEAST bytes, or 1/2^share of the heap's slabs if that
 * is more, and once again as much in its spare list, as long as all bins
 * together keep what allowance.h says. Measured: fixed small budgets are slow
 * in the benchmark's batch and wave rows, and no budget keeps memory from going
 * back.
 */
#define HAK_BIN_LEAST (16 * HAK_KIB)
#define HAK_BIN_MOST HAK_GIB
#define HAK_BIN_SHARE 4
#define HAK_BIN_BLOCKS 8

/* In a packed heap, but for what its other slabs allow, and a quarter of what it may
 * keep extra. */
#define HAK_BIN_LEAST_PACKED HAK_KIB
#define HAK_BIN_BLOCKS_PACKED 4

#define HAK_BIN_SPARSE_PART 16
/*
 * The most that a bin which does not grow takes in before it is looked at
 * again, and so the excess that it may hold when a program begins to free. What
 * a thread's heap keeps goes back when the thread sleeps; nobody does that for
 * an explicit heap.
 */
#define HAK_BIN_STEADY_MOST (256 * HAK_KIB)
#define HAK_BIN_STEADY_MOST_FRUGAL (64 * HAK_KIB)

/* Pushes until the next look in a large heap where little happens. */
#define HAK_BIN_GRANT_QUIET 8

/* The least number of blocks that a bin may take in before it is looked at. */
HAK_INLINE size_t haki_bin_blocks(const struct hak_tiny *tiny)
{
    return tiny->packed ? HAK_BIN_BLOCKS_PACKED : HAK_BIN_BLOCKS;
}

/* What a bin of any class may hold, in bytes. */
HAK_INLINE size_t haki_bin_bytes(const struct hak_tiny *tiny)
{
    size_t held =
        tiny->packed ? (size_t)tiny->allow.slabs : tiny->nslabs * HAK_SLAB_SIZE;
    size_t least = tiny->packed
                       ? haki_max(HAK_BIN_LEAST_PACKED, tiny->allow.extra / 4)
                       : HAK_BIN_LEAST;

    return haki_min(haki_max(held >> tiny->share, least), HAK_BIN_MOST);
}

HAK_INLINE int32_t haki_bin_budget(const struct hak_tiny *tiny, unsigned class)
{
    /* bytes / block size, by multiplication: this runs for every new heap. */
    size_t blocks = haki_bin_bytes(tiny) * haki_tiny_magic[class] >> 32;

    return (int32_t)haki_max(blocks, haki_bin_blocks(tiny));
}

/* How many blocks head holds. */
HAK_INLINE uint32_t haki_bin_count(const struct hak_tiny *tiny, unsigned class)
{
    return tiny->shelves[class].base - (uint32_t)tiny->bins[class].left -
           (uint32_t)haki_bin_pops(tiny, class);
}

/* Notes what the bin holds; returns the number of blocks. */
HAK_INLINE uint32_t haki_bin_note(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];
    uint32_t now = haki_bin_count(tiny, class) + shelf->spare_count;
    int64_t more = (int64_t)now - (int64_t)shelf->seen;

    /*
     * A ghost's bin may be one short if the ghost was stopped between two
     * counters.
     */
    HAK_ASSERT((int32_t)haki_bin_count(tiny, class) >= -1);
    haki_keep_note(&tiny->allow, HAK_KEEPS_TINY, more * haki_tiny_size[class]);
    shelf->seen = now;
    return now;
}

/* `blocks` of the class come out of slabs, or, if negative, go back. */
HAK_INLINE void haki_tiny_take(struct hak_tiny *tiny, unsigned class,
                               int64_t blocks)
{
    if (HAK_UNLIKELY(tiny->sampled) && tiny->taken[class] == 0) {
        haki_tiny_draw_first(tiny, class);
    }
    tiny->taken[class] += blocks;
    HAK_ASSERT(tiny->taken[class] >= 0);
    haki_keep_taken(&tiny->allow, blocks * haki_tiny_size[class]);
}

/*
 * The most pushes until a growing bin, noted just now, is looked at again: it
 * must not take in much more than all bins may keep. In a sparse heap it is
 * looked at whenever 1/HAK_BIN_SPARSE_PART of what is in use of the class was
 * freed, and so at the latest with the last block.
 */
HAK_INLINE size_t haki_bin_most_pushes(const struct hak_tiny *tiny,
                                       unsigned class)
{
    const struct hak_shelf *shelf = &tiny->shelves[class];
    size_t bytes = haki_min(haki_keep_step(&tiny->allow), HAK_BIN_MOST);
    size_t pushes =
        haki_max(bytes * haki_tiny_magic[class] >> 32, haki_bin_blocks(tiny));

    if (HAK_UNLIKELY(haki_is_watched(&tiny->allow))) {
        pushes = haki_min(pushes, (size_t)(tiny->taken[class] - shelf->seen) /
                                      HAK_BIN_SPARSE_PART);
    }
    return pushes;
}

/* Sets when the bin is looked at next. */
HAK_INLINE void haki_bin_set_left(struct hak_tiny *tiny, unsigned class,
                                  int32_t pushes)
{
    if (tiny->quiet) {
        pushes = (int32_t)haki_min((size_t)pushes, HAK_BIN_GRANT_QUIET);
    } else if (tiny->waiting && tiny->skips == 0) {
        pushes = (int32_t)haki_min((size_t)pushes, tiny->grant_waiting);
    } else if (tiny->nslabs > HAK_TINY_LARGE) {
        pushes = (int32_t)haki_min((size_t)pushes, tiny->grant_large);
    }
    tiny->shelves[class].base += (uint32_t)(pushes - tiny->bins[class].left);
    tiny->bins[class].left = pushes;
}

/* The next look at a bin comes after so many pushes. */
void haki_bin_grant(struct hak_tiny *tiny, unsigned class, int32_t pushes);

/* The same for a bin that has not grown since the last look. */
HAK_INLINE void haki_bin_grant_steady(struct hak_tiny *tiny, unsigned class,
                                      int32_t pushes)
{
    size_t bytes = haki_is_frugal(&tiny->allow) ? HAK_BIN_STEADY_MOST_FRUGAL
                                                : HAK_BIN_STEADY_MOST;
    size_t most = bytes * haki_tiny_magic[class] >> 32;

    haki_bin_set_left(tiny, class, (int32_t)haki_min((size_t)pushes, most));
}

/* Puts a list of `count` blocks into an empty head. */
void haki_bin_set(struct hak_tiny *tiny, unsigned class, struct hak_block *list,
                  uint32_t count);

/* Empties all bins into the slabs. */
void haki_tiny_bins_flush(struct hak_tiny *tiny);

/*
 * Does what is due while memory waits to go back; for callers in a slow path.
 */
void haki_tiny_tick_within(struct hak_tiny *tiny);

#endif /* HAK_TINY_BIN_H */
