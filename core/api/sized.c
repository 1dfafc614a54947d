/*
 * sized.c - hakmem.h's functions that return a block's size, or are given it.
 */
#include <errno.h>

#include "api/heap_explicit.h"
#include "api/stats.h"
#include "front/behind.h"
#include "front/large.h"

HAK_STATS_AT_END(sized);

/* The size of the block for `size` bytes, less `more` bytes that are ours. */
static size_t sized_block(size_t size, size_t more)
{
    size_t need = size + more;

    if (size > PTRDIFF_MAX) {
        return size; /* no block is that large */
    }
    return (need <= HAK_LANE_TINY_MAX
                ? haki_tiny_size[haki_tiny_class_16[haki_tiny_index(need)]]
                : haki_large_bytes(need)) -
           more;
}

/* ---- the calling thread's heap --------------------------------------------- */

size_t hak_good_size(size_t size)
{
    return sized_block(size, HAK_GUARD_BYTES);
}

void *hak_alloc_at_least(size_t size, size_t *actual)
{
    void *p;

    size = hak_good_size(size);
    p = hak_malloc(size);
    *actual = p != NULL ? size : 0;
    return p;
}

void *hak_realloc_sized(void *p, size_t old_size, size_t size)
{
    if (p != NULL) {
        haki_made_need(p, old_size,
                       haki_lane_any_usable(p, "hak_realloc_sized"),
                       "hak_realloc_sized");
    }
    return hak_realloc(p, size);
}

void hak_free_aligned_sized(void *p, size_t alignment, size_t size)
{
    if (HAK_UNLIKELY(!haki_is_pow2(alignment) ||
                     (uintptr_t)p % alignment != 0)) {
        haki_fatal("hak_free_aligned_sized(%p, %zu, %zu): not aligned to that",
                   p, alignment, size);
    }
    hak_free_sized(p, size);
}

/* ---- explicit heaps, whose blocks have no guards ------------------------- */

size_t hak_heap_good_size(const hak_heap *heap, size_t size)
{
    (void)heap;
    return sized_block(size, 0);
}

void *hak_heap_alloc_at_least(hak_heap *heap, size_t size, size_t *actual)
{
    void *p;

    size = hak_heap_good_size(heap, size);
    p = hak_heap_malloc(heap, size);
    *actual = p != NULL ? size : 0;
    return p;
}

size_t hak_heap_usable_size(hak_heap *heap, const void *p)
{
    return p != NULL ? haki_made_size(heap, p, "hak_heap_usable_size") : 0;
}

void *hak_heap_realloc_sized(hak_heap *heap, void *p, size_t old_size,
                             size_t size)
{
    size_t usable;

    if (p == NULL) {
        return hak_heap_malloc(heap, size);
    }
    usable = haki_made_size(heap, p, "hak_heap_realloc_sized");
    haki_made_need(p, old_size, usable, "hak_heap_realloc_sized");
    return haki_made_resize(heap, p, usable, old_size, size);
}
