/*
 * hak_toy.h - HAKMEM for the toy runtime: the adapter's public side.
 */
#ifndef HAK_TOY_H
#define HAK_TOY_H

#include <hakmem.h>

#include "toy.h"

/* A heap for one toy, used by one thread at a time. */
typedef struct hak_toy_heap hak_toy_heap;

typedef struct hak_toy_stats {
    size_t size;  /* set to sizeof(hak_toy_stats) before the call */
    size_t limit; /* bytes, 0: none */
    size_t live_bytes, peak_bytes, held_bytes;
    uint64_t calls;          /* of hak_toy_alloc */
    uint64_t tiny_allocs;    /* of them served by the Tiny lane */
    uint64_t larger_allocs;  /* by the lanes above it */
    uint64_t fallback;       /* by the system allocator */
    uint64_t foreign_frees;  /* frees and resizes of the former allocator's */
    uint64_t limit_refusals; /* refused by the limit */
} hak_toy_stats;

/*
 * Makes a heap with a limit in bytes of live blocks (0: none). The caller owns
 * it. Errors: NULL with ENOMEM.
 */
hak_toy_heap *hak_toy_heap_new(size_t limit);

/* Frees it with all its blocks: after toy_free, or instead of it. */
void hak_toy_heap_delete(hak_toy_heap *heap);

/* A toy_alloc; ud is a hak_toy_heap. */
void *hak_toy_alloc(void *ud, void *p, size_t osize, size_t nsize);

/*
 * Moves a running toy to the heap. Its older blocks go back one by one to its
 * former allocator, so end such a toy with toy_free.
 */
void hak_toy_switch(struct toy *toy, hak_toy_heap *heap);

/* Fills *stats. Returns 0, or -1 with EINVAL if stats->size is wrong. */
int hak_toy_heap_stats(const hak_toy_heap *heap, hak_toy_stats *stats);

#endif /* HAK_TOY_H */
