/*
 * heap.h - heaps: the Tiny state, and what a heap made by hand adds to it.
 *
 * Layer 5. A heap lives in a slot of one page (range.h), found from its id by
 * arithmetic; what the struct leaves of the page is its maker's (an adapter
 * keeps its own state there: hak_heap_extra).
 *
 *     free --take--> owned (a thread's) --thread ends--> parked --adopt--> owned
 *     free --new---> made (by hand) ----delete--> free
 *     owned --fork, in the child--> parked, or lost if it was in a slow path
 */
#ifndef HAK_HEAP_H
#define HAK_HEAP_H

#include <hakmem.h>

#include "base.h"
#include "system.h"
#include "tiny.h"

enum hak_heap_state {
    HAK_HEAP_FREE,
    HAK_HEAP_OWNED,
    HAK_HEAP_PARKED,
    HAK_HEAP_MADE,
    HAK_HEAP_LOST
};

#define HAK_HEAP_NAME 32

struct hak_heap {
    struct hak_tiny tiny; /* first: a heap's id leads here */
    /* any thread */
    _Atomic(uint32_t) state;
    _Atomic(size_t) system_bytes; /* in the system's blocks (made by hand) */
    /* under the heaps' lock */
    uint32_t parked_next; /* id, 0: last */
    /* the user of a heap made by hand */
    size_t live;  /* bytes in Tiny blocks, less those freed by others */
    size_t gate;  /* `live` may rise to this: the limit less system_bytes */
    size_t limit; /* SIZE_MAX: none */
    uint64_t limit_refused;
    char name[HAK_HEAP_NAME];
};

#define HAK_HEAP_EXTRA_AT ((sizeof(struct hak_heap) + 63) & ~(size_t)63)
#define HAK_HEAP_EXTRA (HAK_HEAP_SLOT - HAK_HEAP_EXTRA_AT)

_Static_assert(sizeof(struct hak_heap) <= HAK_HEAP_SLOT - 512,
               "a heap leaves its maker 512 bytes of the slot");

/* The rest of the heap's page, HAK_HEAP_EXTRA bytes, zeroed by hak_heap_new. */
HAK_INLINE void *hak_heap_extra(struct hak_heap *heap)
{
    return (char *)heap + HAK_HEAP_EXTRA_AT;
}

/*
 * Takes a slot for a heap. Without a range the heap is a page of its own with
 * id 0, whose bins are never filled. NULL: out of memory.
 */
struct hak_heap *hak_heap_create(enum hak_heap_state state);

/* Gives back the slabs and the slot. */
void hak_heap_destroy(struct hak_heap *heap);

/* Sums of what heaps had counted when they were destroyed, for stats. */
struct hak_heap_past {
    _Atomic(uint64_t) allocs, frees, refills, flushes, remote_frees, refused;
};
extern struct hak_heap_past hak_heap_past;

/* What one heap has counted. */
struct hak_heap_counts {
    uint64_t allocs, frees, live_bytes;
};
void hak_heap_count(const struct hak_heap *heap,
                    struct hak_heap_counts *counts);

#endif /* HAK_HEAP_H */
