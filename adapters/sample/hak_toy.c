/*
 * hak_toy.c - the adapter: a realloc-like function with sizes, on an explicit
 * heap.
 *
 * Its own state is kept behind the heap's, so that `ud` leads to both without a
 * load. The hot path, a block that is in its bin, is compiled into the adapter;
 * the rest is in hakmem.h. A block is recognised by its address: outside our
 * addresses it belongs to the toy's former allocator.
 *
 * Tested by tests/sample/toy.c.
 */
#include "hak_toy.h"

#include <errno.h>
#include <string.h>

#include "embed.h"

struct hak_toy_heap {
    uint64_t calls, foreign_frees;
    toy_alloc before; /* a switched toy's former one, or NULL */
    void *before_ud;
};

_Static_assert(sizeof(struct hak_toy_heap) <= HAK_EMBED_EXTRA,
               "it fits behind its heap");

HAK_INLINE struct hak_heap *toy_core(const struct hak_toy_heap *toy)
{
    return haki_embed_heap(toy);
}

hak_toy_heap *hak_toy_heap_new(size_t limit)
{
    hak_heap_config config = {
        .size = sizeof(config), .limit = limit, .name = "toy"};
    struct hak_heap *heap = haki_inside_heap_new(&config);

    return heap != NULL ? haki_embed_extra(heap) : NULL;
}

void hak_toy_heap_delete(hak_toy_heap *toy)
{
    if (toy != NULL) {
        haki_inside_heap_delete(toy_core(toy));
    }
}

/*
 * A block that is in its bin and fits under the limit; otherwise the long way.
 */
HAK_INLINE void *toy_malloc(struct hak_heap *heap, size_t size)
{
    void *p = haki_embed_charged_alloc(heap, size);

    return HAK_LIKELY(p != NULL) ? p : hak_heap_malloc(heap, size);
}

/* The same for a free, whose size tells when the short way can't work. */
HAK_INLINE void toy_free_block(struct hak_heap *heap, void *p, size_t osize)
{
    if (HAK_UNLIKELY(osize > HAK_LANE_TINY_MAX ||
                     !haki_embed_charged_free(heap, p))) {
        hak_heap_free_sized(heap, p, osize);
    }
}

/*
 * Whether p is not ours: neither in our range nor from the system through us.
 */
HAK_INLINE bool toy_is_foreign(const struct hak_toy_heap *toy, const void *p)
{
    struct hak_heap *owner;
    size_t size;

    return HAK_UNLIKELY(toy->before != NULL) && !haki_embed_owns(p) &&
           !(haki_system_may_know(p) && haki_system_find(p, &owner, &size));
}

/* Resizes a block of the former allocator; when it grows it becomes ours. */
static HAK_NOINLINE void *toy_foreign(struct hak_toy_heap *toy, void *p,
                                      size_t osize, size_t nsize)
{
    void *moved = NULL;

    toy->foreign_frees++;
    if (nsize > osize) {
        moved = toy_malloc(toy_core(toy), nsize);
        if (moved == NULL) {
            return NULL;
        }
        memcpy(moved, p, osize);
        nsize = 0;
    }
    p = toy->before(toy->before_ud, p, osize, nsize);
    return moved != NULL ? moved : p;
}

void *hak_toy_alloc(void *ud, void *p, size_t osize, size_t nsize)
{
    struct hak_toy_heap *toy = ud;
    struct hak_heap *heap = toy_core(toy);

    toy->calls++;
    if (p == NULL) {
        return nsize != 0 ? toy_malloc(heap, nsize) : NULL;
    }
    if (HAK_UNLIKELY(toy_is_foreign(toy, p))) {
        return toy_foreign(toy, p, osize, nsize);
    }
    if (nsize == 0) {
        toy_free_block(heap, p, osize);
        return NULL;
    }
    return hak_heap_realloc_sized(heap, p, osize, nsize);
}

void hak_toy_switch(struct toy *toy, hak_toy_heap *heap)
{
    heap->before = toy_get_alloc(toy, &heap->before_ud);
    toy_set_alloc(toy, hak_toy_alloc, heap);
}

int hak_toy_heap_stats(const hak_toy_heap *toy, hak_toy_stats *stats)
{
    hak_heap_stats_t core = {.size = sizeof(core)};

    if (stats->size != sizeof(*stats)) {
        errno = EINVAL;
        return -1;
    }
    hak_heap_stats(toy_core(toy), &core);
    *stats = (hak_toy_stats){.size = sizeof(*stats),
                             .limit = core.limit,
                             .live_bytes = core.live_bytes,
                             .peak_bytes = core.peak_bytes,
                             .held_bytes = core.held_bytes,
                             .calls = toy->calls,
                             .tiny_allocs = core.tiny_allocs,
                             .larger_allocs = core.larger_allocs,
                             .fallback = core.fallback,
                             .foreign_frees = toy->foreign_frees,
                             .limit_refusals = core.limit_refusals};
    return 0;
}
