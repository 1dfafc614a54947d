/*
 * blocks.c - the pools of hakmem_ngx.h, without nginx: see the header.
 */
#include "blocks.h"

#include <errno.h>
#include <hakmem.h>
#include <stdio.h>
#include <string.h>

#include "embed.h"

#define FEW_FIRST 16 /* the table's first length */
#define NOT_FOUND UINT32_MAX

/* Notes why there is no block; returns NULL. */
static HAK_COLD void *none(struct hak_ngx_blocks *pool, bool at_limit)
{
    pool->at_limit = at_limit;
    pool->limit_refusals += at_limit;
    errno = ENOMEM;
    return NULL;
}

/* ---- beginning and end --------------------------------------------------- */

void hak_ngx_blocks_init(struct hak_ngx_blocks *pool, size_t limit,
                         const char *name)
{
    memset(pool, 0, sizeof(*pool));
    pool->limit = limit != 0 ? limit : SIZE_MAX;
    snprintf(pool->name, sizeof(pool->name), "%s", name != NULL ? name : "");
}

void hak_ngx_blocks_end(struct hak_ngx_blocks *pool)
{
    for (uint32_t i = 0; i < pool->room; i++) {
        hak_free(pool->few[i]);
    }
    hak_free(pool->few);
    hak_heap_delete(pool->heap);
    pool->few = NULL;
    pool->heap = NULL;
    pool->nfew = pool->room = 0;
    pool->few_bytes = 0;
}

/* Gives the heap the part of the limit that the few leave. */
static void share_limit(struct hak_ngx_blocks *pool)
{
    size_t few = haki_min(pool->limit, pool->few_bytes);

    if (pool->heap != NULL) {
        haki_embed_set_limit(pool->heap, pool->limit != SIZE_MAX
                                             ? pool->limit - few
                                             : SIZE_MAX);
    }
}

/* Gives a pool with many blocks a heap of its own, if possible. */
static bool open_heap(struct hak_ngx_blocks *pool)
{
    pool->heap = haki_embed_new(HAK_EMBED_POOL, pool->name);
    if (pool->heap == NULL) {
        return false;
    }
    share_limit(pool);
    return true;
}

/* ---- the few ------------------------------------------------------------- */

/* The usable size of p, a block of a thread's heap or of the system's. */
HAK_INLINE size_t usable(const void *p)
{
    uint32_t byte;

    if (!HAK_HARD && HAK_LIKELY(haki_embed_owns(p))) {
        byte = haki_embed_tag_byte(haki_embed_tag(p));
        if (HAK_LIKELY(byte < HAK_EMBED_TINY)) {
            return haki_embed_bytes_at(byte);
        }
    }
    return hak_usable_size(p);
}

/* The place of p in a table of `room` places. */
HAK_INLINE uint32_t few_home(const void *p, uint32_t room)
{
    return (uint32_t)(((uintptr_t)p / 16 * 0x9e3779b97f4a7c15) >> 40) &
           (room - 1);
}

HAK_INLINE void few_put(void **few, uint32_t room, void *p)
{
    uint32_t i = few_home(p, room);

    while (few[i] != NULL) {
        i = (i + 1) & (room - 1);
    }
    few[i] = p;
}

/* Makes room for one more block in the table, a quarter of which stays free. */
static HAK_NOINLINE bool few_grow(struct hak_ngx_blocks *pool)
{
    uint32_t room = pool->room != 0 ? 2 * pool->room : FEW_FIRST;
    void **few = hak_calloc(room, sizeof(*few));

    if (few == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < pool->room; i++) {
        if (pool->few[i] != NULL) {
            few_put(few, room, pool->few[i]);
        }
    }
    hak_free(pool->few);
    pool->few = few;
    pool->room = room;
    return true;
}

HAK_INLINE uint32_t few_find(const struct hak_ngx_blocks *pool, const void *p)
{
    uint32_t i = few_home(p, pool->room);

    if (HAK_UNLIKELY(pool->room == 0 || p == NULL)) {
        return NOT_FOUND;
    }
    while (pool->few[i] != p) {
        if (pool->few[i] == NULL) {
            return NOT_FOUND;
        }
        i = (i + 1) & (pool->room - 1);
    }
    return i;
}

/* Takes out the block at place i and moves later ones up. */
HAK_INLINE void few_take(struct hak_ngx_blocks *pool, uint32_t gap)
{
    uint32_t mask = pool->room - 1;
    uint32_t i = gap;

    while (pool->few[i = (i + 1) & mask] != NULL) {
        /* May it move to the gap, not before its home? */
        if (((i - few_home(pool->few[i], pool->room)) & mask) >=
            ((i - gap) & mask)) {
            pool->few[gap] = pool->few[i];
            gap = i;
        }
    }
    pool->few[gap] = NULL;
}

/* The most bytes that a block for `size` can have. */
static size_t block_bytes(size_t size)
{
    return size <= HAK_LANE_TINY_MAX
               ? haki_embed_class_bytes(haki_embed_class_16(size))
               : haki_large_bytes(size);
}

/* Whether the limit admits a block for `size` bytes beside `others`. */
HAK_INLINE bool few_admit(const struct hak_ngx_blocks *pool, size_t others,
                          size_t size)
{
    return HAK_LIKELY(pool->limit == SIZE_MAX) ||
           size > PTRDIFF_MAX || /* no block is that large */
           haki_account_within(others, block_bytes(size), pool->limit);
}

HAK_INLINE void *few_alloc(struct hak_ngx_blocks *pool, size_t size, bool zero)
{
    void *p;

    if (!few_admit(pool, pool->few_bytes, size)) {
        return none(pool, true);
    }
    if (HAK_UNLIKELY(pool->nfew >= pool->room / 4 * 3) && !few_grow(pool)) {
        return none(pool, false);
    }
    p = zero ? hak_calloc(1, size) : haki_hot_malloc(size);
    if (!zero && HAK_UNLIKELY(p == NULL)) {
        p = hak_malloc(size);
    }
    if (HAK_UNLIKELY(p == NULL)) {
        return none(pool, false);
    }
    few_put(pool->few, pool->room, p);
    pool->nfew++;
    pool->few_bytes += usable(p);
    pool->allocs++;
    return p;
}

static void *few_realloc(struct hak_ngx_blocks *pool, uint32_t i, size_t size)
{
    size_t old = usable(pool->few[i]);
    void *p;

    if (size > old && !few_admit(pool, hak_ngx_blocks_live(pool) - old, size)) {
        return none(pool, true);
    }
    p = hak_realloc(pool->few[i], size);
    if (p == NULL) {
        return none(pool, false);
    }
    if (p != pool->few[i]) {
        few_take(pool, i);
        few_put(pool->few, pool->room, p);
    }
    pool->few_bytes += usable(p) - old;
    share_limit(pool);
    return p;
}

HAK_INLINE void few_free(struct hak_ngx_blocks *pool, uint32_t i)
{
    void *p = pool->few[i];

    pool->few_bytes -= usable(p);
    few_take(pool, i);
    pool->nfew--;
    pool->frees++;
    if (HAK_UNLIKELY(!haki_hot_free(p, 0))) {
        hak_free(p);
    }
    if (HAK_UNLIKELY(pool->heap != NULL)) {
        share_limit(pool);
    }
}

/* ---- the heap ------------------------------------------------------------ */

/*
 * Notes why if the heap returned NULL for `size`; `refused` was its former
 * count.
 */
HAK_INLINE void *heap_gave(struct hak_ngx_blocks *pool, void *p, size_t size,
                           uint64_t refused)
{
    return HAK_LIKELY(p != NULL)
               ? p
               : none(pool, size <= PTRDIFF_MAX &&
                                haki_embed_refusals(pool->heap) != refused);
}

static HAK_NOINLINE void *heap_alloc(struct hak_ngx_blocks *pool, size_t size)
{
    uint64_t refused = haki_embed_refusals(pool->heap);
    void *p = hak_heap_malloc(pool->heap, size);

    pool->allocs += p != NULL;
    return heap_gave(pool, p, size, refused);
}

/* A Tiny block from its bin, or NULL. */
HAK_INLINE void *heap_hot_alloc(struct hak_ngx_blocks *pool, size_t size)
{
    void *p = haki_embed_charged_alloc(pool->heap, size);

    if (HAK_LIKELY(p != NULL)) {
        pool->allocs++;
    }
    return p;
}

/* Frees a Tiny block of the heap into its bin. False: nothing was done. */
HAK_INLINE bool heap_hot_free(struct hak_ngx_blocks *pool, void *p)
{
    if (HAK_UNLIKELY(!haki_embed_charged_free(pool->heap, p))) {
        return false;
    }
    pool->frees++;
    return true;
}

/* ---- the interface ------------------------------------------------------- */

/*
 * Whether the pool's blocks come from its heap, which may have to be made now.
 */
HAK_INLINE bool has_heap(struct hak_ngx_blocks *pool)
{
    return HAK_LIKELY(pool->heap != NULL) ||
           (HAK_UNLIKELY(pool->nfew >= HAK_NGX_BLOCKS_FEW) && open_heap(pool));
}

void *hak_ngx_blocks_alloc(struct hak_ngx_blocks *pool, size_t size)
{
    void *p;

    if (!has_heap(pool)) {
        return few_alloc(pool, size, false);
    }
    p = heap_hot_alloc(pool, size);
    return HAK_LIKELY(p != NULL) ? p : heap_alloc(pool, size);
}

void *hak_ngx_blocks_calloc(struct hak_ngx_blocks *pool, size_t size)
{
    void *p;

    if (!has_heap(pool)) {
        return few_alloc(pool, size, true);
    }
    p = hak_ngx_blocks_alloc(pool, size);
    return p != NULL ? memset(p, 0, size) : NULL;
}

void *hak_ngx_blocks_realloc(struct hak_ngx_blocks *pool, void *p, size_t size)
{
    uint64_t refused;
    uint32_t i;

    if (p == NULL) {
        return hak_ngx_blocks_alloc(pool, size);
    }
    if (pool->heap != NULL && haki_embed_has(pool->heap, p)) {
        refused = haki_embed_refusals(pool->heap);
        return heap_gave(pool, hak_heap_realloc(pool->heap, p, size), size,
                         refused);
    }
    i = few_find(pool, p);
    if (i == NOT_FOUND) {
        errno = EINVAL;
        return NULL;
    }
    return few_realloc(pool, i, size);
}

static HAK_NOINLINE bool free_few(struct hak_ngx_blocks *pool, void *p)
{
    uint32_t i = few_find(pool, p);

    if (i == NOT_FOUND) {
        return false;
    }
    few_free(pool, i);
    return true;
}

static HAK_NOINLINE bool free_slow(struct hak_ngx_blocks *pool, void *p)
{
    if (!haki_embed_has(pool->heap, p)) {
        return free_few(pool, p);
    }
    hak_heap_free(pool->heap, p);
    pool->frees++;
    return true;
}

bool hak_ngx_blocks_free(struct hak_ngx_blocks *pool, void *p)
{
    if (pool->heap == NULL) {
        return free_few(pool, p);
    }
    return heap_hot_free(pool, p) || free_slow(pool, p);
}

size_t hak_ngx_blocks_live(const struct hak_ngx_blocks *pool)
{
    return pool->few_bytes +
           (pool->heap != NULL ? hak_heap_live(pool->heap) : 0);
}

size_t hak_ngx_blocks_held(const struct hak_ngx_blocks *pool)
{
    struct hak_embed_held held;

    if (pool->heap == NULL) {
        return 0;
    }
    haki_embed_held(pool->heap, &held);
    return held.slabs * HAK_EMBED_SLAB;
}

size_t hak_ngx_blocks_limit(struct hak_ngx_blocks *pool, size_t limit)
{
    size_t before = pool->limit == SIZE_MAX ? 0 : pool->limit;

    pool->limit = limit != 0 ? limit : SIZE_MAX;
    share_limit(pool);
    return before;
}

size_t hak_ngx_blocks_trim(struct hak_ngx_blocks *pool)
{
    size_t bytes = 0;

    if (pool->heap != NULL && hak_heap_live(pool->heap) == 0) {
        hak_heap_delete(pool->heap);
        pool->heap = NULL;
    }
    if (pool->heap != NULL) {
        bytes = hak_heap_trim(pool->heap);
    }
    return bytes + hak_trim();
}
