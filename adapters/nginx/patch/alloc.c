/*
 * alloc.c - the malloc family as patched objects call it: family.h with the
 * policy of policy.h.
 */
#include "names.h"
#include "policy.h"

#include "libc_names/family_names.h"

HAK_STATS_AT_END(patch);

size_t hak_ngx_most = HAK_LANE_TINY_MAX;
size_t hak_ngx_most_hot = HAK_LANE_TINY_MAX;

void hak_ngx_set_lanes(hak_ngx_lanes lanes)
{
    bool all = lanes == HAK_NGX_ALL;

    hak_ngx_most = all ? HAK_LANE_HUGE_MAX : HAK_LANE_TINY_MAX;
    hak_ngx_most_hot = all ? HAK_LANE_POOL_MAX : HAK_LANE_TINY_MAX;
}

/* ---- statistics --------------------------------------------------------- */

_Static_assert(sizeof(hak_ngx_stats) == HAK_EMBED_COUNTERS * sizeof(uint64_t),
               "all of them are kept when a heap ends");

/* What heaps that have ended had counted. */
static hak_ngx_stats stats_past(void)
{
    return (hak_ngx_stats){
        .asked = haki_embed_past(0),
        .fallback_large = haki_embed_past(1),
        .fallback_memory = haki_embed_past(2),
        .foreign_frees = haki_embed_past(3),
    };
}

/* Each number is one word, which its thread may be changing. */
HAK_RACY_READER void hak_ngx_get_stats(hak_ngx_stats *stats)
{
    struct hak_heap *heap;

    *stats = stats_past();
    for (uint32_t id = 0; (id = haki_embed_next(id, &heap)) != 0;) {
        if (haki_embed_is_threads(heap)) {
            const hak_ngx_stats *part = hak_ngx_stats_of(heap);

            stats->asked += part->asked;
            stats->fallback_large += part->fallback_large;
            stats->fallback_memory += part->fallback_memory;
            stats->foreign_frees += part->foreign_frees;
        }
    }
}

uint64_t hak_ngx_asked(void)
{
    hak_ngx_stats stats;

    hak_ngx_get_stats(&stats);
    return stats.asked;
}

/* ---- the thread ----------------------------------------------------------- */

bool hak_ngx_start(void)
{
    enum hak_reason reason;

    haki_background_close(); /* a worker has timers */
    return haki_thread_heap(&reason) != NULL;
}

void hak_ngx_tick(void)
{
    struct hak_heap *heap = haki_thread_own();

    if (heap != NULL) {
        haki_heap_tick_all(heap);
    }
}

/* ---- in objects that are not served -------------------------------------- */

void hak_ngx_any_free(void *p)
{
    if (HAK_LIKELY(!haki_embed_covers(p))) {
        hak_ngx_libc_free(p);
    } else {
        hak_ngx_free(p);
    }
}

void *hak_ngx_any_realloc(void *p, size_t size)
{
    return haki_embed_owns(p) ? hak_ngx_realloc(p, size) : realloc(p, size);
}

void *hak_ngx_any_reallocarray(void *p, size_t count, size_t size)
{
    return haki_embed_owns(p) ? hak_ngx_reallocarray(p, count, size)
                              : reallocarray(p, count, size);
}
