/*
 * tiny_bin.h - a bin of the Tiny lane: what it holds, and when it is looked at.
 *
 * For tiny*.c alone; called by the heap's one user.
 */
#ifndef HAK_TINY_BIN_H
#define HAK_TINY_BIN_H

#include "tiny/tiny.h"

/*
 * A bin may keep HAK_BIN_LEAST bytes, or 1/2^share of the heap's slabs if that
 * is more, and once again as much in its spare list, as long as all bins
 * together keep what allowance.h says. Measured: fixed small budgets lose the
 * batch and wave cases, none keeps memory from going back.
 */
#define HAK_BIN_LEAST (16 * HAK_KIB)
#define HAK_BIN_MOST HAK_GIB
#define HAK_BIN_SHARE 4
#define HAK_BIN_BLOCKS 8

/* In a packed heap, but for what its other slabs allow. */
#define HAK_BIN_LEAST_PACKED HAK_KIB
#define HAK_BIN_BLOCKS_PACKED 4

#define HAK_BIN_SPARSE_PART 16
/*
 * The most that a bin that does not grow takes until it is looked at again: what it
 * may hold too much of when a program begins to free. A thread's heap is given
 * back when it sleeps, an explicit one by nobody else.
 */
#define HAK_BIN_STEADY_MOST (256 * HAK_KIB)
#define HAK_BIN_STEADY_MOST_MADE (64 * HAK_KIB)

/* Pushes to the next look in a large heap where little happens. */
#define HAK_BIN_QUIET_PUSHES 8

/* The fewest blocks that a bin may take before it is looked at. */
HAK_INLINE size_t haki_bin_blocks(const struct hak_tiny *tiny)
{
    return tiny->packed ? HAK_BIN_BLOCKS_PACKED : HAK_BIN_BLOCKS;
}

HAK_INLINE int32_t haki_bin_budget(const struct hak_tiny *tiny, unsigned class)
{
    size_t held =
        tiny->packed ? (size_t)tiny->allow.slabs : tiny->nslabs * HAK_SLAB_SIZE;
    size_t least = tiny->packed ? HAK_BIN_LEAST_PACKED : HAK_BIN_LEAST;
    size_t bytes = haki_min(haki_max(held >> tiny->share, least), HAK_BIN_MOST);
    /* bytes / block size, by multiplication: this runs for every new heap. */
    size_t blocks = bytes * haki_tiny_magic[class] >> 32;

    return (int32_t)haki_max(blocks, haki_bin_blocks(tiny));
}

/* How many blocks head holds, after settle. */
HAK_INLINE uint32_t haki_bin_count(const struct hak_tiny *tiny, unsigned class)
{
    return tiny->shelves[class].base - (uint32_t)haki_bin_pops(tiny, class);
}

/* Counts pushes since the last look in. */
HAK_INLINE void haki_bin_settle(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];

    HAK_ASSERT(shelf->grant >= tiny->bins[class].left);
    shelf->base += (uint32_t)(shelf->grant - tiny->bins[class].left);
    shelf->grant = tiny->bins[class].left;
}

/* Notes what the bin, which is settled, holds; the blocks. */
HAK_INLINE uint32_t haki_bin_note(struct hak_tiny *tiny, unsigned class)
{
    struct hak_shelf *shelf = &tiny->shelves[class];
    uint32_t now = haki_bin_count(tiny, class) + shelf->spare_count;
    int64_t more = (int64_t)now - (int64_t)shelf->seen;

    /* A ghost's bin, caught between two counters, may lack one. */
    HAK_ASSERT((int32_t)haki_bin_count(tiny, class) >= -1);
    haki_keep_note(&tiny->allow, HAK_KEEPS_TINY, more * haki_tiny_size[class]);
    shelf->seen = now;
    return now;
}

/* `blocks` of the class come out of slabs, or (below 0) go back. */
HAK_INLINE void haki_tiny_take(struct hak_tiny *tiny, unsigned class,
                               int64_t blocks)
{
    tiny->taken[class] += blocks;
    HAK_ASSERT(tiny->taken[class] >= 0);
    haki_keep_taken(&tiny->allow, blocks * haki_tiny_size[class]);
}

/*
 * The most pushes until a bin that grows, noted just now, is looked at again:
 * it must not take much more than all bins may keep. In a sparse heap it is
 * looked at whenever 1/HAK_BIN_SPARSE_PART of what is in use of the class was freed, so
 * at last with the last block.
 */
HAK_INLINE size_t haki_bin_most_pushes(const struct hak_tiny *tiny,
                                       unsigned class)
{
    const struct hak_shelf *shelf = &tiny->shelves[class];
    size_t bytes = haki_min(haki_keep_step(&tiny->allow), HAK_BIN_MOST);
    size_t pushes =
        haki_max(bytes * haki_tiny_magic[class] >> 32, haki_bin_blocks(tiny));

    if (HAK_UNLIKELY(haki_is_heeded(&tiny->allow))) {
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
        pushes = (int32_t)haki_min((size_t)pushes, HAK_BIN_QUIET_PUSHES);
    } else if (tiny->alert && tiny->looks == 0) {
        pushes = (int32_t)haki_min((size_t)pushes, tiny->pushes);
    } else if (tiny->nslabs > HAK_TINY_LARGE) {
        pushes = (int32_t)haki_min((size_t)pushes, tiny->seldom);
    }
    tiny->bins[class].left = tiny->shelves[class].grant = pushes;
}

/* The next look at a bin, which is settled, comes after so many pushes. */
HAK_INLINE void haki_bin_grant(struct hak_tiny *tiny, unsigned class,
                               int32_t pushes)
{
    haki_bin_note(tiny, class);
    haki_bin_set_left(tiny, class,
                      (int32_t)haki_min((size_t)pushes,
                                        haki_bin_most_pushes(tiny, class)));
}

/* The same for a bin that has not grown since the last look. */
HAK_INLINE void haki_bin_grant_steady(struct hak_tiny *tiny, unsigned class,
                                      int32_t pushes)
{
    size_t bytes =
        tiny->direct ? HAK_BIN_STEADY_MOST_MADE : HAK_BIN_STEADY_MOST;
    size_t most = bytes * haki_tiny_magic[class] >> 32;

    haki_bin_set_left(tiny, class, (int32_t)haki_min((size_t)pushes, most));
}

/* Puts a list of `count` blocks into an empty head. */
HAK_INLINE void haki_bin_set(struct hak_tiny *tiny, unsigned class,
                             struct hak_block *list, uint32_t count)
{
    int32_t cap = haki_bin_budget(tiny, class);

    /*
     * At least half the budget stays open for pushes: a bin that was just
     * filled to the brim would overflow at once and be refilled in turn.
     */
    tiny->bins[class].head = list;
    tiny->shelves[class].base = (uint32_t)haki_bin_pops(tiny, class) + count;
    haki_bin_grant(tiny, class,
                   (int32_t)haki_max((size_t)cap / 2,
                                     cap - haki_min(count, (size_t)cap)));
}

/* All of all bins goes back to the slabs. */
void haki_tiny_bins_empty(struct hak_tiny *tiny);

/* What is due while memory waits to go back, for who is in a slow path. */
void haki_tiny_heed_within(struct hak_tiny *tiny);

#endif /* HAK_TINY_BIN_H */
