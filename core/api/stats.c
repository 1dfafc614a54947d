/*
 * stats.c - sums up the statistics of the process.
 *
 * The table of statistics is include/hakmem_stats.def; stats_text.c formats
 * them.
 */
#include <errno.h>
#include <string.h>

#include "api/stats.h"

#include "ace/ace.h"
#include "huge/huge.h"
#include "profile/guarded.h"
#include "profile/profile.h"
#include "range/pressure.h"
#include "heap/thread.h"
#include "range/purge.h"
#include "range/slots.h"

/* ---- the lanes ---------------------------------------------------------- */

/*
 * A lane's statistics have the same order in hak_stats_t as in hak_lane_counts.
 */
#define LANE_AT(lane) offsetof(hak_stats_t, lane##_allocs)
#define LANE_FITS(lane)                                                        \
    _Static_assert(offsetof(hak_stats_t, lane##_held_bytes) - LANE_AT(lane) == \
                       offsetof(struct hak_lane_counts, held_bytes),           \
                   "five figures a lane, in this order")
LANE_FITS(tiny);
LANE_FITS(pool);
LANE_FITS(ace);
LANE_FITS(huge);

/* Adds what a heap has counted to the statistics of Tiny and Pool. */
static void stats_add_counts(struct hak_lane_counts *lanes,
                             const struct hak_heap *heap)
{
    struct hak_heap_counts counts;

    haki_heap_count(heap, &counts);
    lanes[HAK_LANE_TINY].allocs += counts.tiny.allocs;
    lanes[HAK_LANE_TINY].frees += counts.tiny.frees;
    lanes[HAK_LANE_TINY].live_bytes += counts.tiny.live_bytes;
    lanes[HAK_LANE_POOL].allocs += counts.pool.allocs;
    lanes[HAK_LANE_POOL].frees += counts.pool.frees;
    lanes[HAK_LANE_POOL].live_bytes += counts.pool.live_bytes;
    /* The lane counts runs in a cache as in use. */
    lanes[HAK_LANE_ACE].allocs += counts.runs_taken;
    lanes[HAK_LANE_ACE].frees += counts.runs_taken + counts.runs_held;
    lanes[HAK_LANE_ACE].live_bytes -= counts.runs_bytes;
}

/* Adds what heaps that no longer exist had counted. */
static void stats_add_past_counts(struct hak_lane_counts *lanes)
{
    uint64_t tiny = atomic_load(&haki_heap_past.allocs);
    uint64_t pool = atomic_load(&haki_heap_past.pool_allocs);
    uint64_t runs = atomic_load(&haki_heap_past.runs_taken);

    lanes[HAK_LANE_TINY].allocs += tiny;
    lanes[HAK_LANE_TINY].frees += tiny;
    lanes[HAK_LANE_POOL].allocs += pool;
    lanes[HAK_LANE_POOL].frees += pool;
    lanes[HAK_LANE_ACE].allocs += runs;
    lanes[HAK_LANE_ACE].frees += runs;
}

/* Adds the blocks of Tiny's and Pool's sizes that a profile has sampled. */
static void stats_add_samples(struct hak_lane_counts *lanes)
{
    struct hak_profile_counts counts;

    haki_profile_counts(&counts);
    for (int i = 0; i < 2; i++) {
        enum hak_lane lane = i == 0 ? HAK_LANE_TINY : HAK_LANE_POOL;

        lanes[lane].allocs += counts.allocs[i];
        lanes[lane].frees += counts.frees[i];
        lanes[lane].live_bytes += counts.live_bytes[i];
    }
}

static HAK_COLD HAK_RACY_READER void
stats_lane_figures(struct hak_lane_counts *lanes)
{
    struct hak_range_counts range;

    haki_ace_counts(&lanes[HAK_LANE_ACE]);
    haki_huge_counts(&lanes[HAK_LANE_HUGE]);
    for (uint32_t id = 0; (id = haki_range_heap_next(id)) != 0;) {
        const struct hak_heap *heap = haki_range_heap(id);

        if (atomic_load(&heap->state) != HAK_HEAP_FREE) {
            stats_add_counts(lanes, heap);
        }
    }
    stats_add_past_counts(lanes);
    stats_add_samples(lanes);
    haki_range_counts(&range);
    for (int i = 0; i < HAK_LANES; i++) {
        lanes[i].held_bytes = range.held[i];
        if (i == HAK_LANE_TINY || i == HAK_LANE_POOL) {
            lanes[i].peak_bytes = range.held_peak[i];
        }
    }
}

static void stats_add_lanes(hak_stats_t *stats)
{
    static const size_t at[HAK_LANES] = {LANE_AT(tiny), LANE_AT(pool),
                                         LANE_AT(ace), LANE_AT(huge)};
    struct hak_lane_counts lanes[HAK_LANES] = {{0}};

    stats_lane_figures(lanes);
    for (size_t i = 0; i < HAK_LANES; i++) {
        memcpy((char *)stats + at[i], &lanes[i], sizeof(lanes[i]));
    }
}

/* ---- classes of sizes ---------------------------------------------------- */

_Static_assert(HAK_TAG_POOL == HAK_TAG_TINY * HAK_TINY_CLASSES,
               "class bytes are in the order of classes");

/* The class of a slab with this tag, among both lanes'; too high: it has none. */
static unsigned stats_class_of(uint32_t tag)
{
    unsigned byte = HAK_TAG_CLASS(tag);

    if (tag == 0) {
        return HAK_CLASSES;
    }
    return byte < HAK_TAG_POOL ? byte / HAK_TAG_TINY
                               : HAK_TINY_CLASSES + byte - HAK_TAG_POOL;
}

HAK_RACY_READER void haki_stats_classes(struct hak_class_counts *classes)
{
    size_t slabs = haki_range.size >> HAK_SLAB_SHIFT;

    for (unsigned c = 0; c < HAK_CLASSES; c++) {
        classes[c].block = c < HAK_TINY_CLASSES
                               ? haki_tiny_size[c]
                               : haki_pool_classes[c - HAK_TINY_CLASSES].block;
    }
    for (uint32_t id = 0; (id = haki_range_heap_next(id)) != 0;) {
        const struct hak_heap *heap = haki_range_heap(id);

        if (atomic_load(&heap->state) != HAK_HEAP_FREE) {
            haki_heap_add_classes(heap, classes);
        }
    }
    for (size_t i = 0; i < slabs; i++) {
        unsigned class = stats_class_of(haki_range_tag(i << HAK_SLAB_SHIFT));

        if (class < HAK_CLASSES) {
            classes[class].slabs++;
        }
    }
}

/* ---- the rest ----------------------------------------------------------- */

/* Adds what one heap has counted. */
static HAK_RACY_READER void stats_add_heap(hak_stats_t *stats,
                                           const struct hak_heap *heap)
{
    struct hak_heap_counts counts;

    haki_heap_count(heap, &counts);
    stats->refills += heap->tiny.refills;
    stats->flushes += heap->tiny.flushes;
    stats->remote_frees += counts.remote_frees;
    stats->limit_refusals += heap->limit_refusals;
    stats->sealed_bytes += counts.sealed_bytes;
    stats->kept_bytes += counts.kept_bytes;
}

static HAK_COLD HAK_RACY_READER void stats_add_heaps(hak_stats_t *stats)
{
    for (uint32_t id = 0; (id = haki_range_heap_next(id)) != 0;) {
        const struct hak_heap *heap = haki_range_heap(id);
        uint32_t state = atomic_load(&heap->state);

        if (state == HAK_HEAP_FREE) {
            continue;
        }
        stats->heaps += state != HAK_HEAP_PARKED;
        stats->heaps_parked += state == HAK_HEAP_PARKED;
        if (state == HAK_HEAP_PARKED) { /* see haki_heap_rest */
            stats->heaps_parked_bytes +=
                heap->pool != NULL ? 2 * HAK_PAGE : HAK_PAGE;
        }
        stats_add_heap(stats, heap);
    }
}

static void stats_add_past(hak_stats_t *stats)
{
    stats->refills += atomic_load(&haki_heap_past.refills);
    stats->flushes += atomic_load(&haki_heap_past.flushes);
    stats->remote_frees += atomic_load(&haki_heap_past.remote_frees);
    stats->limit_refusals += atomic_load(&haki_heap_past.refused);
}

static void stats_add_fallbacks(hak_stats_t *stats)
{
    struct hak_system_counts system;
    uint64_t *const counts[HAK_REASONS] = {
        [HAK_REASON_INIT] = &stats->fallback_init,
        [HAK_REASON_RECURSION] = &stats->fallback_recursion,
        [HAK_REASON_FORCED] = &stats->fallback_forced,
        [HAK_REASON_LARGE] = &stats->fallback_large,
        [HAK_REASON_ALIGNED] = &stats->fallback_aligned,
        [HAK_REASON_MEMORY] = &stats->fallback_memory,
        [HAK_REASON_EXITED] = &stats->fallback_exited,
    };

    haki_system_counts(&system);
    for (int i = 0; i < HAK_REASONS; i++) {
        *counts[i] = system.fallback[i];
    }
    stats->foreign_frees = system.foreign;
    stats->system_live = system.live;
    stats->system_live_bytes = system.live_bytes;
}

static void stats_add_range(hak_stats_t *stats)
{
    struct hak_range_counts range;

    haki_range_counts(&range);
    stats->slabs = range.slabs_used;
    stats->range_bytes = haki_range.window;
    stats->committed_bytes = range.committed;
    stats->resident_bytes = range.resident;
    stats->purged_bytes = range.purged;
    stats->purges = range.purges;
    stats->heaps_kept_bytes = range.heaps_kept;
    stats->due_bytes = haki_range_due_bytes() + haki_ace_due_bytes();
}

static void stats_add_pressure(hak_stats_t *stats)
{
    struct hak_pressure_counts counts;

    haki_pressure_counts(&counts);
    stats->limit_bytes = counts.limit;
    stats->limit_used_bytes = haki_limit_used();
    stats->pressure_events = counts.events;
    stats->limit_purges = counts.purges;
    stats->limit_refusals += counts.refusals;
}

static void stats_add_guards(hak_stats_t *stats)
{
    stats->guards = atomic_load(&haki_guarded_count.made);
    stats->guards_missed = atomic_load(&haki_guarded_count.missed);
}

int hak_stats(hak_stats_t *stats)
{
    hak_stats_t all = {.version = HAK_STATS_VERSION};
    size_t size = haki_min(stats->size, sizeof(all));

    if (size < offsetof(hak_stats_t, reserved)) {
        errno = EINVAL;
        return -1;
    }
    stats_add_lanes(&all);
    stats_add_heaps(&all);
    stats_add_past(&all);
    stats_add_fallbacks(&all);
    stats_add_range(&all);
    stats_add_pressure(&all);
    stats_add_guards(&all);
    all.size = size;
    memcpy(stats, &all, size);
    return 0;
}

HAK_INSIDE(haki_inside_stats, hak_stats);
