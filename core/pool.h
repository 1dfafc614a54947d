/*
 * pool.h - the Pool lane: requests of 1025 B to 52 KB.
 *
 * Layer 4. Blocks of one class in spans of slabs; which of a span's blocks are
 * free says a word of bits in its descriptor, so that a free block's memory is
 * never written to: a link in it would make a page resident that its user may
 * never have touched. There are no bins: taking the lowest bit and setting a
 * bit is all there is.
 *
 *     span --lowest bit of the first open span--> user --bit set--> span
 *     span with all bits set --unless it is the class's only open one--> range
 *
 * A block that another thread frees sets its bit in the span's `remote` word;
 * whoever sets the first one puts the span into the owner's inbox, a list
 * linked by inbox_next. So a span's remote frees are taken in with one
 * exchange, however many they are, and nothing is held back by the sender.
 *
 * Invariants, for each class of a heap:
 *   - bits is a subset of ready; a block is free, in use, or in remote;
 *   - a span is in the open list exactly if bits != 0 or ready has not got
 *     all of the span's blocks (but see hak_pool_repair);
 *   - a span is in the inbox, or about to be, exactly if remote != 0.
 * The owner works on all but remote, inbox_next and the inbox.
 */
#ifndef HAK_POOL_H
#define HAK_POOL_H

#include "base.h"
#include "pool_class.h"
#include "range.h"

struct hak_pool {
    uint32_t open[HAK_POOL_CLASSES]; /* first span with free blocks */
    uint32_t all;                    /* first of all spans */
    uint32_t nslabs;
    uint8_t filled[HAK_POOL_CLASSES]; /* spans ever used up, at most 255 */
    /* any thread */
    _Atomic(uint32_t) inbox; /* spans with remote frees */
    _Atomic(bool) busy;      /* in a slow path, see hak_tiny_busy */
    /* owner */
    uint32_t tag; /* id << 8 | HAK_TAG_POOL, or 0: never used */
    uint64_t allocs, frees, remote_frees;
    uint64_t live_bytes;   /* of blocks in use or in remote words */
    uint64_t remote_bytes; /* freed by others since it was last set to 0 */
};

/* Makes the state of heap `id` usable. */
void hak_pool_init(struct hak_pool *pool, uint32_t id);

/* Gives every span back, whatever is still in use. O(spans). */
void hak_pool_release(struct hak_pool *pool);

/* A block of the class. NULL: out of memory. */
void *hak_pool_alloc(struct hak_pool *pool, unsigned class);

/*
 * Frees p, an address in a slab of this pool. False: it is not the start of a
 * block, or the block is free already.
 */
bool hak_pool_free(struct hak_pool *pool, void *p);

/*
 * The same from another thread than the owner's. Whether the owner was told
 * of a first free block of the span: see hak_heap_sent.
 */
bool hak_pool_remote_free(struct hak_pool *owner, void *p, bool *told);

/* Takes in what other threads freed. */
void hak_pool_collect(struct hak_pool *pool);

/* Collects and gives back every span of which no block is in use. */
void hak_pool_trim(struct hak_pool *pool);

/*
 * In a forked child, on the heap of a thread that is not there: takes full
 * spans out of the open lists, which the hot paths may have been about to do.
 */
void hak_pool_repair(struct hak_pool *pool);

/* Bytes of the block p, an address in one of Pool's slabs. */
size_t hak_pool_size(const void *p);

/* What p is, an address in one of Pool's slabs. */
enum hak_pool_state {
    HAK_POOL_USED, /* a block in use, or freed by another thread just now */
    HAK_POOL_FREE,
    HAK_POOL_MIDDLE, /* of a block */
    HAK_POOL_NEVER   /* given out */
};
enum hak_pool_state hak_pool_state(const void *p);

#endif /* HAK_POOL_H */
