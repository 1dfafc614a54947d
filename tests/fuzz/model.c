/*
 * model.c - the shadow model of the fuzzer, see model.h.
 */
#include "model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct model model;

/* Blocks of up to this many bytes are filled and checked in full. */
#define WHOLE ((size_t)4096)
/* Of larger ones: so many bytes at both ends, and in some pages between. */
#define END ((size_t)256)
#define MIDDLE ((size_t)16)
#define MIDDLES ((size_t)16)
#define PAGE ((size_t)4096)

/* More heaps of ended threads than ever ran at once are heaps lost. */
#define PARKED_MOST 8

void model_begin(void)
{
    model.count = 0;
    model.bytes = 0;
    model.seeds = 0;
    model.operation = "begin";
    model.step = 0;
    memset(model.heaps, 0, sizeof(model.heaps));
    for (size_t i = 0; i < MODEL_BLOCKS; i++) {
        model.unused[i] = (uint16_t)(MODEL_BLOCKS - 1 - i);
    }
}

void model_fail(const char *format, ...)
{
    char text[400];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fprintf(stderr, "fuzz: operation %zu (%s): %s\n", model.step,
            model.operation, text);
    fflush(stderr);
    abort();
}

bool model_room(size_t size)
{
    return model.count < MODEL_BLOCKS && size <= MODEL_BYTES - model.bytes;
}

/* ---- contents ----------------------------------------------------------- */

/* What stands at offset 8 * i of a block. */
static uint64_t word(uint64_t seed, size_t i)
{
    return (seed + i) * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

static unsigned char byte(uint64_t seed, size_t offset)
{
    return (unsigned char)(word(seed, offset / 8) >> (offset % 8 * 8));
}

static void fill(unsigned char *p, size_t from, size_t to, uint64_t seed)
{
    for (size_t i = from; i < to;) {
        uint64_t value = word(seed, i / 8);

        if (i % 8 == 0 && to - i >= 8) {
            memcpy(p + i, &value, 8);
            i += 8;
        } else {
            p[i] = byte(seed, i);
            i++;
        }
    }
}

/* The first offset at which the pattern is broken, or `to`. */
static size_t broken(const unsigned char *p, size_t from, size_t to,
                     uint64_t seed)
{
    for (size_t i = from; i < to;) {
        uint64_t value = word(seed, i / 8);

        if (i % 8 == 0 && to - i >= 8 && memcmp(p + i, &value, 8) == 0) {
            i += 8;
        } else if (p[i] == byte(seed, i)) {
            i++;
        } else {
            return i;
        }
    }
    return to;
}

/* A part of a block that is filled. */
struct part {
    size_t from, to;
};

/* Part number i of `size` bytes; false: there are no more. */
static bool part_of(size_t size, size_t i, struct part *part)
{
    size_t step = (size / MIDDLES + PAGE - 1) / PAGE * PAGE;

    if (size <= WHOLE) {
        *part = (struct part){0, size};
        return i == 0;
    }
    if (i == 0) {
        *part = (struct part){0, END};
        return true;
    }
    if (i == 1) {
        *part = (struct part){size - END, size};
        return true;
    }
    part->from = (i - 1) * step;
    part->to = part->from + MIDDLE;
    return part->to <= size - END;
}

static void fill_block(const struct model_block *block)
{
    struct part part;

    for (size_t i = 0; part_of(block->filled, i, &part); i++) {
        fill(block->p, part.from, part.to, block->seed);
    }
}

void model_kept(const struct model_block *old, const void *p, size_t bytes)
{
    struct part part;

    for (size_t i = 0; part_of(old->filled, i, &part); i++) {
        size_t to = part.to < bytes ? part.to : bytes;
        size_t at = part.from < to ? broken(p, part.from, to, old->seed) : to;

        if (at < to) {
            model_fail("block %p of %zu bytes: byte %zu is %#x, should be %#x",
                       p, old->size, at, ((const unsigned char *)p)[at],
                       byte(old->seed, at));
        }
    }
}

static void need_zero(const unsigned char *p, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        if (p[i] != 0) {
            model_fail("block %p: byte %zu is %#x, should be zero",
                       (const void *)p, i, p[i]);
        }
    }
}

/* Small blocks in full; of larger ones the ends and the begin of pages. */
static void check_zero(const unsigned char *p, size_t size)
{
    size_t step = (size / 128 + PAGE - 1) / PAGE * PAGE;
    size_t first = PAGE - (uintptr_t)p % PAGE;

    if (size <= 4 * PAGE) {
        need_zero(p, 0, size);
        return;
    }
    need_zero(p, 0, END);
    need_zero(p, size - END, size);
    for (size_t i = 0; i + END <= size; i += step) {
        need_zero(p, i, i + MIDDLE);
    }
    for (size_t i = first; i + END <= size; i += step) {
        need_zero(p, i, i + MIDDLE);
    }
}

/* ---- the blocks in the order of addresses ------------------------------- */

/* How many live blocks begin below p. */
static size_t below(const unsigned char *p)
{
    size_t low = 0, high = model.count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if ((uintptr_t)model.blocks[model.sorted[middle]].p < (uintptr_t)p) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

size_t model_position(uint16_t at)
{
    return below(model.blocks[at].p);
}

/* Even a block of no bytes is somewhere. */
static uintptr_t end_of(const struct model_block *block)
{
    return (uintptr_t)block->p + (block->usable > 0 ? block->usable : 1);
}

static void need_apart(const struct model_block *low,
                       const struct model_block *high)
{
    if (end_of(low) > (uintptr_t)high->p) {
        model_fail("blocks overlap: %p of %zu bytes (%zu usable), %p of %zu",
                   (void *)low->p, low->size, low->usable, (void *)high->p,
                   high->size);
    }
}

static void link_block(uint16_t at)
{
    struct model_block *block = &model.blocks[at];
    size_t i = below(block->p);

    if (i > 0) {
        need_apart(&model.blocks[model.sorted[i - 1]], block);
    }
    if (i < model.count) {
        need_apart(block, &model.blocks[model.sorted[i]]);
    }
    memmove(&model.sorted[i + 1], &model.sorted[i],
            (model.count - i) * sizeof(model.sorted[0]));
    model.sorted[i] = at;
    model.live[model.count] = at;
    block->rank = (uint16_t)model.count;
    model.count++;
}

static void unlink_block(uint16_t at)
{
    size_t i = model_position(at);
    uint16_t last;

    model.count--;
    memmove(&model.sorted[i], &model.sorted[i + 1],
            (model.count - i) * sizeof(model.sorted[0]));
    last = model.live[model.count];
    model.live[model.blocks[at].rank] = last;
    model.blocks[last].rank = model.blocks[at].rank;
}

/* ---- blocks come and go ------------------------------------------------- */

static void check_owned(const struct model_block *block)
{
    bool owned = hak_owns(block->p);

    if (block->size > 0 && hak_owns(block->p + block->size - 1) != owned) {
        model_fail("block %p of %zu bytes: hak_owns says %d at its begin, "
                   "%d at its end",
                   (void *)block->p, block->size, owned, !owned);
    }
}

static void check_new(const struct model_block *block, size_t alignment)
{
    size_t least = block->size > 8 ? 16 : 8;

    if (block->p == NULL) {
        model_fail("no memory for %zu bytes, %zu are in use", block->size,
                   model.bytes);
    }
    if (alignment < least) {
        alignment = least;
    }
    if ((uintptr_t)block->p % alignment != 0) {
        model_fail("block %p of %zu bytes is not aligned to %zu",
                   (void *)block->p, block->size, alignment);
    }
    if (block->usable < block->size) {
        model_fail("block %p of %zu bytes: only %zu usable", (void *)block->p,
                   block->size, block->usable);
    }
    check_owned(block);
}

uint16_t model_add(void *p, size_t size, size_t alignment, int heap,
                   bool zeroed, bool brim)
{
    uint16_t at = model.unused[MODEL_BLOCKS - 1 - model.count];
    struct model_block *block = &model.blocks[at];

    block->p = p;
    block->size = size;
    block->usable = hak_usable_size(p);
    block->filled = brim ? block->usable : size;
    block->seed = ++model.seeds << 20;
    block->heap = heap;
    check_new(block, alignment);
    link_block(at);
    model.bytes += size;
    if (heap != MODEL_NO_HEAP) {
        model.heaps[heap].bytes += size;
        model.heaps[heap].usable += block->usable;
        model.heaps[heap].blocks++;
    }
    if (zeroed) {
        check_zero(block->p, size);
    }
    fill_block(block);
    return at;
}

void model_check(uint16_t at)
{
    const struct model_block *block = &model.blocks[at];
    size_t usable = hak_usable_size(block->p);

    if (usable != block->usable) {
        model_fail("block %p of %zu bytes: %zu usable, it was %zu",
                   (void *)block->p, block->size, usable, block->usable);
    }
    check_owned(block);
    model_kept(block, block->p, block->filled);
}

void model_check_all(void)
{
    for (size_t i = 0; i < model.count; i++) {
        model_check(model.live[i]);
    }
}

struct model_block model_remove(uint16_t at)
{
    struct model_block block = model.blocks[at];

    model_check(at);
    unlink_block(at);
    model.unused[MODEL_BLOCKS - 1 - model.count] = at;
    model.bytes -= block.size;
    if (block.heap != MODEL_NO_HEAP) {
        model.heaps[block.heap].bytes -= block.size;
        model.heaps[block.heap].usable -= block.usable;
        model.heaps[block.heap].blocks--;
    }
    return block;
}

/* ---- statistics ------------------------------------------------------------ */

struct figure {
    const char *name;
    uint64_t value;
};

#define HAK_STAT(name, kind, unit, help) +1
enum {
    FIGURES = 0
#include <hakmem_stats.def>
};
#undef HAK_STAT

static void read_figures(struct figure figures[FIGURES])
{
    hak_stats_t stats = {.size = sizeof(stats)};
    size_t n = 0;

    if (hak_stats(&stats) != 0) {
        model_fail("hak_stats fails");
    }
#define HAK_STAT(name, kind, unit, help)                                       \
    figures[n++] = (struct figure){#name, stats.name};
#include <hakmem_stats.def>
#undef HAK_STAT
    if (stats.size != sizeof(stats) || stats.version != HAK_STATS_VERSION ||
        stats.resident_bytes > stats.committed_bytes ||
        stats.committed_bytes > stats.range_bytes) {
        model_fail("hak_stats: version %u, populated %llu, committed %llu, "
                   "range %llu",
                   (unsigned)stats.version,
                   (unsigned long long)stats.resident_bytes,
                   (unsigned long long)stats.committed_bytes,
                   (unsigned long long)stats.range_bytes);
    }
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

/* The lanes' live bytes together: every statistic of such a name. */
void model_check_figures(void)
{
    struct figure figures[FIGURES];
    uint64_t live = 0;

    read_figures(figures);
    for (size_t i = 0; i < FIGURES; i++) {
        if (ends_with(figures[i].name, "_live_bytes")) {
            live += figures[i].value;
        }
    }
    if (live < model.bytes) {
        model_fail("figures: %llu bytes live, but the blocks have %zu",
                   (unsigned long long)live, model.bytes);
    }
}

/* The statistic NAME_frees must be what NAME_allocs is. */
static void check_pair(const struct figure figures[FIGURES], size_t allocs)
{
    size_t stem = strlen(figures[allocs].name) - strlen("allocs");

    for (size_t i = 0; i < FIGURES; i++) {
        if (strncmp(figures[i].name, figures[allocs].name, stem) == 0 &&
            strcmp(figures[i].name + stem, "frees") == 0 &&
            figures[i].value != figures[allocs].value) {
            model_fail("all is freed, but %s is %llu and %s is %llu",
                       figures[allocs].name,
                       (unsigned long long)figures[allocs].value,
                       figures[i].name, (unsigned long long)figures[i].value);
        }
    }
}

/* After a trim, when all blocks are freed and all other threads have ended. */
void model_check_end(void)
{
    struct figure figures[FIGURES];

    read_figures(figures);
    for (size_t i = 0; i < FIGURES; i++) {
        const char *name = figures[i].name;
        uint64_t most = UINT64_MAX;

        if (ends_with(name, "_live") || ends_with(name, "_live_bytes") ||
            ends_with(name, "_held_bytes") || strcmp(name, "slabs") == 0 ||
            strcmp(name, "resident_bytes") == 0) {
            most = 0;
        } else if (strcmp(name, "heaps") == 0) {
            most = 1; /* this thread's */
        } else if (strcmp(name, "heaps_parked") == 0) {
            most = PARKED_MOST;
        } else if (ends_with(name, "_allocs")) {
            check_pair(figures, i);
        }
        if (figures[i].value > most) {
            model_fail("all is freed, but %s is %llu", name,
                       (unsigned long long)figures[i].value);
        }
    }
}

/* After hak_heap_trim: a heap counts whole blocks, which may have an edge. */
void model_check_heap(int at)
{
    const struct model_heap *heap = &model.heaps[at];
    size_t live = hak_heap_live(heap->heap);
    size_t most = heap->usable + heap->usable / 4 + 16 * heap->blocks;

    if (live < heap->bytes || live > most) {
        model_fail("hak_heap_live says %zu, its %zu blocks have %zu bytes "
                   "(%zu usable)",
                   live, heap->blocks, heap->bytes, heap->usable);
    }
}
