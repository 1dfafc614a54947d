/*
 * policy.h - the policy (libc_names/family.h) for patched objects: a request
 * goes to the lanes or to libc by its size, and is counted.
 *
 * libc is called by its usual names, as our own object's slots are left alone.
 */
#ifndef HAK_NGX_POLICY_H
#define HAK_NGX_POLICY_H

#include <malloc.h>
#include <stdlib.h>

#include "embed.h"
#include "patch.h"

/* The lanes serve sizes up to the first, Pool's hot path up to the second. */
extern size_t hak_ngx_most, hak_ngx_most_hot;

/* ---- statistics ------------------------------------------------------------ */

/*
 * A thread's statistics are kept in the rest of its heap, which hot paths have
 * at hand and which is zero when the heap is made. A thread that ends leaves
 * the heap behind, to be adopted along with its counts.
 */
HAK_INLINE hak_ngx_stats *hak_ngx_stats_of(struct hak_heap *heap)
{
    return haki_embed_extra(heap);
}

/* Counts a request; requests of threads without a heap are not counted. */
HAK_INLINE void hak_ngx_count(size_t asked, bool large, bool memory,
                              bool foreign)
{
    struct hak_heap *heap = haki_thread_own();
    hak_ngx_stats *stats;

    if (HAK_LIKELY(heap != NULL)) {
        stats = hak_ngx_stats_of(heap);
        stats->asked += asked;
        stats->fallback_large += large;
        stats->fallback_memory += memory;
        stats->foreign_frees += foreign;
    }
}

/* ---- the policy ------------------------------------------------------------ */

#define HAK_FAMILY(name) hak_ngx_##name

HAK_INLINE void *haki_policy_take_for(size_t need, size_t size)
{
    void *p;

    if (HAK_LIKELY(need <= HAK_LANE_TINY_MAX)) {
        p = haki_hot_tiny(need, size);
    } else if (need <= hak_ngx_most_hot) {
        p = haki_hot_pool(need, size);
    } else {
        return NULL;
    }
    if (HAK_LIKELY(p != NULL)) {
        hak_ngx_stats_of(haki_thread_self())->asked += size;
    }
    return p;
}

HAK_INLINE bool haki_policy_serves(size_t alignment, size_t size)
{
    return size <= hak_ngx_most &&
           (alignment <= HAK_LANE_TINY_MAX || hak_ngx_most > HAK_LANE_TINY_MAX);
}

HAK_INLINE bool haki_policy_enter(size_t size, enum hak_reason *reason)
{
    (void)size;
    (void)reason;
    return true;
}

HAK_INLINE bool haki_policy_enter_free(void *p)
{
    (void)p;
    return true;
}

HAK_INLINE void haki_policy_leave(void)
{
}

HAK_INLINE void haki_policy_served(size_t size)
{
    hak_ngx_count(size, false, false, false);
}

HAK_INLINE void *haki_policy_fallback(size_t alignment, size_t size, bool zero,
                                      enum hak_reason reason)
{
    bool large = reason == HAK_REASON_LARGE;

    hak_ngx_count(size, large, !large, false);
    if (alignment > HAK_LANE_ALIGN) {
        return memalign(alignment, size);
    }
    return zero ? calloc(1, size) : malloc(size);
}

/* Since 2.33 glibc's own free keeps errno. */
HAK_INLINE void hak_ngx_libc_free(void *p)
{
#if __GLIBC_PREREQ(2, 33)
    free(p);
#else
    int saved = errno;

    free(p);
    errno = saved;
#endif
}

HAK_INLINE void haki_policy_free_foreign(void *p)
{
    hak_ngx_count(0, false, false, true);
    hak_ngx_libc_free(p);
}

/* A block of libc's stays with libc. */
HAK_INLINE void *haki_policy_realloc_foreign(void *p, size_t size)
{
    hak_ngx_count(size, false, false, true);
    return realloc(p, size);
}

#include "libc_names/family.h"

#endif /* HAK_NGX_POLICY_H */
