/*
 * blocks.h - the pools of hakmem_ngx.h, without nginx.
 *
 * A pool begins small: its blocks come from the thread's heap and are listed in
 * a table, so that pools share pages. With more than HAK_NGX_BLOCKS_FEW blocks
 * at a time it gets a heap of its own, from which all further blocks come:
 *
 *     few: a table --more than HAK_NGX_BLOCKS_FEW--> a heap, the few until freed
 *      ^--------------trim, nothing in the heap-----'
 *
 * A heap is freed slab by slab, the few one by one. But a heap has a partly
 * used page for each class of sizes, which is worth it only for large pools:
 * 5,000 pools with 10 objects of 982 B in all took 1,350 B each in a table,
 * 8,300 B on heaps; 100 pools with 500 objects of 170 B took 100 KB in a table,
 * 230 to 300 KB on heaps.
 *
 * Invariants:
 *   - few has `room` places, a power of two or 0; the nfew that are not NULL
 *     are the blocks in use of threads' heaps, each with no NULL between its
 *     home (its address, hashed) and itself; nfew < room;
 *   - few_bytes is the sum of their usable sizes;
 *   - nothing is added to few while there is a heap;
 *   - heap's limit is the pool's less few_bytes;
 *   - few_bytes + hak_heap_live(heap) <= limit, unless the limit was set below.
 */
#ifndef HAK_NGX_BLOCKS_H
#define HAK_NGX_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HAK_NGX_BLOCKS_FEW 1024
#define HAK_NGX_BLOCKS_NAME 32

struct hak_heap;

struct hak_ngx_blocks {
    struct hak_heap *heap; /* NULL: the table will do */
    void **few;
    uint32_t nfew, room;
    size_t few_bytes;
    size_t limit;            /* SIZE_MAX: none */
    uint64_t allocs, frees;  /* blocks given out and freed */
    uint64_t limit_refusals; /* requests refused by the limit */
    bool at_limit;           /* the last NULL with ENOMEM was such a request */
    char name[HAK_NGX_BLOCKS_NAME];
};

/* Makes a pool; limit 0 and name NULL: none. Nothing is allocated. */
void hak_ngx_blocks_init(struct hak_ngx_blocks *pool, size_t limit,
                         const char *name);

/* Frees all blocks of the pool. */
void hak_ngx_blocks_end(struct hak_ngx_blocks *pool);

/* NULL and ENOMEM: no memory, or the limit: see at_limit. */
void *hak_ngx_blocks_alloc(struct hak_ngx_blocks *pool, size_t size);
void *hak_ngx_blocks_calloc(struct hak_ngx_blocks *pool, size_t size);

/* The same, with p untouched; NULL and EINVAL: p is not the pool's. */
void *hak_ngx_blocks_realloc(struct hak_ngx_blocks *pool, void *p, size_t size);

/* False: p is not the pool's. */
bool hak_ngx_blocks_free(struct hak_ngx_blocks *pool, void *p);

/* Bytes in blocks, and in slabs that the pool has for itself. */
size_t hak_ngx_blocks_live(const struct hak_ngx_blocks *pool);
size_t hak_ngx_blocks_held(const struct hak_ngx_blocks *pool);

/* Sets the limit (0: none); returns the previous one. */
size_t hak_ngx_blocks_limit(struct hak_ngx_blocks *pool, size_t limit);

/* Gives idle memory back to the system, including the calling thread's. */
size_t hak_ngx_blocks_trim(struct hak_ngx_blocks *pool);

#endif /* HAK_NGX_BLOCKS_H */
