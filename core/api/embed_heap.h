/*
 * embed_heap.h - heaps for adapters: made for a purpose, asked for sums.
 */
#ifndef HAK_EMBED_HEAP_H
#define HAK_EMBED_HEAP_H

#include "base/base.h"

struct hak_heap;

/* What a heap is for; it says how many small blocks wait in bins, and where. */
enum hak_embed_kind {
    /* A script's state: there are many, most of them small, and a collection
     * frees half of what there is, with many pushes. */
    HAK_EMBED_STATE,
    /* A pool of a server's: there are many, each ends as a whole. */
    HAK_EMBED_POOL,
    /* All that is behind a runtime's one big lock, for as long as the process
     * lives; never deleted, and other threads may hold back what they free. */
    HAK_EMBED_ONE_LOCK
};

/*
 * An explicit heap; `name` is for statistics and messages, or NULL. NULL: out of
 * memory, and errno is ENOMEM; or it is to be HAK_EMBED_ONE_LOCK and there is no
 * range. It ends with haki_inside_heap_delete.
 */
struct hak_heap *haki_embed_new(enum hak_embed_kind kind, const char *name);

/* Whether it is explicit, or a thread's (of one that has ended, too). Any thread. */
bool haki_embed_is_explicit(const struct hak_heap *heap);
bool haki_embed_is_threads(const struct hak_heap *heap);

/*
 * Makes `page`, HAK_PAGE zeros, look like a heap without a bin that is not empty
 * and to which no block belongs: for hot paths that are to find nothing.
 */
void haki_embed_stand_in(void *page);

/* Whether p, an address of any kind, is in a block of the heap's, or a slab. */
bool haki_embed_has(const struct hak_heap *heap, const void *p);

/* What a heap holds. Any thread, as long as it is not deleted. */
struct hak_embed_held {
    size_t slabs,
        sealed;   /* slabs that it allocates from, and that it does not */
    size_t other; /* bytes in blocks that lie in none of these */
};
void haki_embed_held(const struct hak_heap *heap, struct hak_embed_held *held);

/*
 * Bytes in blocks in use where nearly all of them are this heap's: its own of Tiny
 * and Pool, everybody's of ACE and Huge.
 */
size_t haki_embed_live(const struct hak_heap *heap);

/*
 * A number that changes with every block that the heap gives out or takes back,
 * as good as. For its user.
 */
uint64_t haki_embed_activity(const struct hak_heap *heap);

/* Whether its cache has runs of ACE's; any thread, and a moment old. */
bool haki_embed_keeps_runs(const struct hak_heap *heap);

/* Blocks of Tiny's that the heap has given out and taken back. Any thread. */
void haki_embed_tiny_counts(const struct hak_heap *heap, uint64_t *allocs,
                            uint64_t *frees);

/* Blocks of one class of Tiny's that it has given out, and those in use. */
uint64_t haki_embed_class_allocs(const struct hak_heap *heap, unsigned class);
uint64_t haki_embed_class_live(const struct hak_heap *heap, unsigned class);

/* What the words of heaps' rest (haki_embed_extra) were that have ended, summed. */
uint64_t haki_embed_past(unsigned i);

#endif /* HAK_EMBED_HEAP_H */
