/*
 * stats.c - the figures of the process: summed, as text, as JSON.
 *
 * Layer 7. The table of figures is include/hakmem_stats.def.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "thread.h"

/* Adds what one heap has counted. */
static HAK_RACY_READER void add_heap(hak_stats_t *stats,
                                     const struct hak_heap *heap)
{
    struct hak_heap_counts counts;

    hak_heap_count(heap, &counts);
    stats->tiny_allocs += counts.tiny.allocs;
    stats->tiny_frees += counts.tiny.frees;
    stats->tiny_live_bytes += counts.tiny.live_bytes;
    stats->refills += heap->tiny.refills;
    stats->flushes += heap->tiny.flushes;
    stats->remote_frees += counts.remote_frees;
    stats->limit_refused += heap->limit_refused;
}

static HAK_RACY_READER void add_heaps(hak_stats_t *stats)
{
    uint32_t count = hak_range_heap_count();

    for (uint32_t id = 1; id <= count; id++) {
        const struct hak_heap *heap = hak_range_heap(id);
        uint32_t state = atomic_load(&heap->state);

        if (state == HAK_HEAP_FREE) {
            continue;
        }
        stats->heaps += state != HAK_HEAP_PARKED;
        stats->heaps_parked += state == HAK_HEAP_PARKED;
        add_heap(stats, heap);
    }
}

static void add_past(hak_stats_t *stats)
{
    stats->tiny_allocs += atomic_load(&hak_heap_past.allocs);
    stats->tiny_frees += atomic_load(&hak_heap_past.allocs);
    stats->refills += atomic_load(&hak_heap_past.refills);
    stats->flushes += atomic_load(&hak_heap_past.flushes);
    stats->remote_frees += atomic_load(&hak_heap_past.remote_frees);
    stats->limit_refused += atomic_load(&hak_heap_past.refused);
}

static void add_layers(hak_stats_t *stats)
{
    struct hak_system_figures system;
    struct hak_range_figures range;

    hak_system_figures(&system);
    stats->fallback_large = system.fallback[HAK_REASON_LARGE];
    stats->fallback_aligned = system.fallback[HAK_REASON_ALIGNED];
    stats->fallback_memory = system.fallback[HAK_REASON_MEMORY];
    stats->fallback_exited = system.fallback[HAK_REASON_EXITED];
    stats->system_live = system.live;
    stats->system_live_bytes = system.live_bytes;
    hak_range_figures(&range);
    stats->slabs = range.slabs_used;
    stats->range_bytes = hak_range.size;
    stats->committed_bytes = range.committed;
    stats->populated_bytes = range.populated;
    stats->purged_bytes = range.purged;
}

int hak_stats(hak_stats_t *stats)
{
    hak_stats_t all = {.version = HAK_STATS_VERSION};
    size_t size = hak_min(stats->size, sizeof(all));

    if (size < offsetof(hak_stats_t, reserved)) {
        errno = EINVAL;
        return -1;
    }
    add_heaps(&all);
    add_past(&all);
    add_layers(&all);
    all.size = size;
    memcpy(stats, &all, size);
    return 0;
}

/* ---- text --------------------------------------------------------------- */

struct figure {
    const char *name, *unit, *help;
    size_t at;
};

static const struct figure figures[] = {
#define HAK_STAT(name, unit, help)                                             \
    {#name, unit, help, offsetof(hak_stats_t, name)},
#include <hakmem_stats.def>
#undef HAK_STAT
};

#define FIGURES (sizeof(figures) / sizeof(figures[0]))

/* A text that grows behind the end of its buffer without being written. */
struct text {
    char *buf;
    size_t len, used;
};

static HAK_PRINTF(2, 3) void add(struct text *text, const char *format, ...)
{
    bool room = text->used < text->len;
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(room ? text->buf + text->used : NULL,
                  room ? text->len - text->used : 0, format, args);
    va_end(args);
    text->used += n > 0 ? (size_t)n : 0;
}

static unsigned long long value(const hak_stats_t *stats, size_t i)
{
    uint64_t value;

    memcpy(&value, (const char *)stats + figures[i].at, sizeof(value));
    return value;
}

size_t hak_stats_text(char *buf, size_t len)
{
    struct text text = {buf, len, 0};
    hak_stats_t stats = {.size = sizeof(stats)};

    hak_stats(&stats);
    for (size_t i = 0; i < FIGURES; i++) {
        add(&text, "%-18s %15llu %-5s  %s\n", figures[i].name, value(&stats, i),
            figures[i].unit, figures[i].help);
    }
    return text.used;
}

size_t hak_stats_json(char *buf, size_t len)
{
    struct text text = {buf, len, 0};
    hak_stats_t stats = {.size = sizeof(stats)};

    hak_stats(&stats);
    add(&text, "{\"version\":%u", (unsigned)stats.version);
    for (size_t i = 0; i < FIGURES; i++) {
        add(&text, ",\"%s\":%llu", figures[i].name, value(&stats, i));
    }
    add(&text, "}");
    return text.used;
}
