/*
 * embed_heap.h - heaps for adapters: made for a purpose; their statistics.
 */
#ifndef HAK_EMBED_HEAP_H
#define HAK_EMBED_HEAP_H

#include "base/base.h"

struct hak_heap;

/*
 * What a heap is for: this decides how many small blocks wait in bins, and
 * where.
 */
enum hak_embed_kind {
    /*
     * For a script's state: there are many, most of them small, and a garbage
     * collection frees half of what there is, with many pushes.
     */
    HAK_EMBED_STATE,
    /* For a server's memory pool: there are many, and each ends as a whole. */
    HAK_EMBED_POOL,
    /*
     * For everything behind a runtime's one big lock, as long as the process
     * lives. Never deleted, so other threads may hold back what they free.
     */
    HAK_EMBED_ONE_LOCK
};

/*
 * Makes an explicit heap; `name`, for statistics and messages, may be NULL.
 * Returns NULL if out of memory (errno is ENOMEM), or for HAK_EMBED_ONE_LOCK if
 * there is no range. Delete it with haki_inside_heap_delete.
 */
struct hak_heap *haki_embed_new(enum hak_embed_kind kind, const char *name);

/*
 * Whether the heap is explicit rather than a thread's (ended or not). Any
 * thread.
 */
bool haki_embed_is_explicit(const struct hak_heap *heap);
bool haki_embed_is_threads(const struct hak_heap *heap);

/*
 * Makes `page`, HAK_PAGE zeros, look like a heap with empty bins to which no
 * block belongs: for hot paths that should find nothing.
 */
void haki_embed_stand_in(void *page);

/* Whether p, any address, is in one of the heap's blocks or slabs. */
bool haki_embed_has(const struct hak_heap *heap, const void *p);

/* What a heap holds. Any thread, until it is deleted. */
struct hak_embed_held {
    size_t slabs,
        sealed;   /* slabs that it allocates from; slabs that it does not */
    size_t other; /* bytes in blocks outside these slabs */
};
void haki_embed_held(const struct hak_heap *heap, struct hak_embed_held *held);

/*
 * Bytes in blocks in use: the heap's own in Tiny and Pool, everybody's in ACE
 * and Huge, and everybody's that are samples or guarded. For a heap that owns nearly
 * all blocks of the process.
 */
size_t haki_embed_live(const struct hak_heap *heap);

/*
 * A number that changes with practically every block that the heap gives out or
 * takes back. For the heap's user.
 */
uint64_t haki_embed_activity(const struct hak_heap *heap);

/*
 * Whether its cache has ACE runs. Any thread; the answer may be a moment old.
 */
bool haki_embed_keeps_runs(const struct hak_heap *heap);

/* How many Tiny blocks the heap has given out and taken back. Any thread. */
void haki_embed_tiny_counts(const struct hak_heap *heap, uint64_t *allocs,
                            uint64_t *frees);

/*
 * How many blocks of one Tiny class it has given out, and how many are in use.
 */
uint64_t haki_embed_class_allocs(const struct hak_heap *heap, unsigned class);
uint64_t haki_embed_class_live(const struct hak_heap *heap, unsigned class);

/* The sum of word i of haki_embed_extra over all heaps that have ended. */
uint64_t haki_embed_past(unsigned i);

#endif /* HAK_EMBED_HEAP_H */
