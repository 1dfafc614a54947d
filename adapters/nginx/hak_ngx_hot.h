/*
 * hak_ngx_hot.h - the hot path of every request: a block of a bin. Compiled
 * into malloc, calloc, posix_memalign and operator new.
 */
#ifndef HAK_NGX_HOT_H
#define HAK_NGX_HOT_H

#include "hak_ngx.h"
#include "embed.h"

/* Sizes up to this are the core's, and those of Pool's hot path. */
extern size_t hak_ngx_most, hak_ngx_most_hot;

/*
 * A thread's figures lie in the rest of its heap, which hot paths have at hand
 * and which is zero when the heap is made. A thread that ends leaves the heap
 * behind, to be adopted with what was counted.
 */
HAK_INLINE hak_ngx_figures *hak_ngx_figures_of(struct hak_heap *heap)
{
    return hak_embed_extra(heap);
}

/* A block of a bin, or NULL: another size, an empty bin, no heap yet. */
HAK_INLINE void *hak_ngx_take(size_t size)
{
    size_t need = hak_hard_grow(size);
    void *p;

    if (HAK_LIKELY(need <= HAK_LANE_TINY_MAX)) {
        p = hak_hot_tiny(need, size);
    } else if (need <= hak_ngx_most_hot) {
        p = hak_hot_pool(need, size);
    } else {
        return NULL;
    }
    if (HAK_LIKELY(p != NULL)) {
        hak_ngx_figures_of(hak_thread_self())->asked += size;
    }
    return p;
}

/* What is left to do when that was NULL; errno is ENOMEM if this is, too. */
HAK_NOINLINE void *hak_ngx_malloc_slow(size_t size);

#endif /* HAK_NGX_HOT_H */
