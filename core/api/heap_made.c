/*
 * heap_made.c - heaps made by hand: the public hak_heap_* functions.
 *
 * One thread at a time uses such a heap; what other threads freed of
 * it comes in through the inbox.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/inside.h"
#include "api/stats.h"
#include "upkeep/background.h"
#include "heap/heap.h"
#include "front/lane.h"
#include "base/msg.h"
#include "front/behind.h"
#include "front/check.h"
#include "front/large.h"
#include "upkeep/look.h"
#include "upkeep/relief.h"

HAK_STATS_AT_END;

hak_heap *hak_heap_new(const hak_heap_config *config)
{
    struct hak_heap *heap;

    if (config != NULL && config->size != sizeof(*config)) {
        errno = EINVAL;
        return NULL;
    }
    heap = hak_heap_create(HAK_HEAP_MADE);
    if (heap == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    if (config != NULL) {
        if (config->limit != 0) {
            heap->limit = heap->gate = config->limit;
        }
        snprintf(heap->name, sizeof(heap->name), "%s",
                 config->name != NULL ? config->name : "");
    }
    return heap;
}

void hak_heap_delete(hak_heap *heap)
{
    if (heap == NULL) {
        return;
    }
    if (atomic_load(&heap->other_bytes) != 0) {
        hak_large_free_owner(heap);
        hak_system_free_owner(heap);
    }
    hak_heap_destroy(heap);
    hak_background_mind();
}

/* Bytes in live blocks, without what other threads freed. */
static size_t live_bytes(const struct hak_heap *heap)
{
    return heap->live - heap->tiny.remote_bytes -
           (heap->pool != NULL ? heap->pool->remote_bytes : 0) +
           atomic_load_explicit(&heap->other_bytes, memory_order_relaxed);
}

size_t hak_heap_live(const hak_heap *heap)
{
    return live_bytes(heap);
}

/* Brings `live` and `gate` up to date with what others freed. */
static void settle(struct hak_heap *heap)
{
    struct hak_pool *pool = heap->pool;
    size_t other;

    hak_tiny_collect(&heap->tiny);
    hak_tiny_seal_collect(&heap->tiny);
    heap->live -= heap->tiny.remote_bytes;
    heap->tiny.remote_bytes = 0;
    if (pool != NULL) {
        hak_pool_collect(pool);
        heap->live -= pool->remote_bytes;
        pool->remote_bytes = 0;
    }
    other = atomic_load_explicit(&heap->other_bytes, memory_order_relaxed);
    if (heap->limit != SIZE_MAX) {
        heap->gate = heap->limit > other ? heap->limit - other : 0;
    }
}

/* Whether `size` more bytes fit under the limit; counts a refusal. */
static HAK_NOINLINE bool admit_slow(struct hak_heap *heap, size_t size)
{
    settle(heap);
    if (heap->live <= heap->gate && size <= heap->gate - heap->live) {
        return true;
    }
    hak_heap_collect(heap); /* who is at the limit needs what it keeps least */
    heap->limit_refused++;
    return false;
}

static bool admit(struct hak_heap *heap, size_t size)
{
    return HAK_LIKELY(heap->live + size <= heap->gate) ||
           admit_slow(heap, size);
}

/* From the system, for this heap. */
static void *heap_system(struct hak_heap *heap, size_t size,
                         enum hak_reason reason)
{
    void *p = NULL;

    if (hak_reason_is_short(reason) && hak_limit_refuses(size)) {
        errno = ENOMEM;
        return NULL;
    }
    if (size <= PTRDIFF_MAX && admit_slow(heap, size)) {
        p = hak_system_alloc(16, size, heap, reason);
    }
    if (p == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    atomic_fetch_add(&heap->other_bytes, size);
    settle(heap);
    return p;
}

/* From a packed heap's slabs, or NULL. */
static void *heap_larger(struct hak_heap *heap, size_t size)
{
    void *p = NULL;

    if (heap->tiny.packed && size <= HAK_TINY_LARGER_MOST) {
        size = hak_round_up(size, HAK_LANE_ALIGN);
        p = admit(heap, size) ? hak_tiny_larger_alloc(&heap->tiny, size) : NULL;
        heap->live += p != NULL ? size : 0;
    }
    return p;
}

/* From the lanes above Tiny, or the system. */
static HAK_NOINLINE void *heap_large(struct hak_heap *heap, size_t size)
{
    enum hak_reason reason = HAK_REASON_MEMORY;
    size_t bytes = hak_large_bytes(size);
    bool zero;
    void *p = heap_larger(heap, size);

    if (p != NULL) {
        return p;
    }
    if (HAK_UNLIKELY(!admit(heap, bytes))) {
        errno = ENOMEM;
        return NULL;
    }
    p = hak_large_alloc(heap, 16, size, &zero, &reason);
    if (HAK_UNLIKELY(p == NULL) && hak_relief(heap, size)) {
        p = hak_large_alloc(heap, 16, size, &zero, &reason);
    }
    if (HAK_UNLIKELY(p == NULL)) {
        return heap_system(heap, size, reason);
    }
    if (size <= HAK_LANE_POOL_MAX) {
        heap->live += bytes;
    } else {
        settle(heap);
    }
    return p;
}

void *hak_heap_malloc(hak_heap *heap, size_t size)
{
    unsigned class;
    void *p;

    if (HAK_UNLIKELY(size > HAK_TINY_MAX_SIZE)) {
        return heap_large(heap, size);
    }
    class = hak_tiny_class_16[hak_tiny_index(size)];
    if (HAK_UNLIKELY(!admit(heap, hak_tiny_size[class]))) {
        errno = ENOMEM;
        return NULL;
    }
    p = hak_tiny_alloc(&heap->tiny, class);
    if (HAK_UNLIKELY(p == NULL) && hak_relief(heap, size)) {
        p = hak_tiny_alloc(&heap->tiny, class);
    }
    if (HAK_UNLIKELY(p == NULL)) {
        return heap_system(heap, size, HAK_REASON_MEMORY);
    }
    heap->live += hak_tiny_size[class];
    return p;
}

/* The size of p, outside the range; fatal if it is no block of heap's. */
static size_t system_size(struct hak_heap *heap, const void *p,
                          const char *caller)
{
    struct hak_heap *owner;
    size_t size;

    if (!hak_system_find(p, &owner, &size)) {
        hak_fatal("%s(%p): not a block of HAKMEM", caller, p);
    }
    if (owner != heap) {
        hak_fatal("%s(%p): a block of another heap", caller, p);
    }
    return size;
}

static HAK_NOINLINE void free_system(struct hak_heap *heap, void *p)
{
    if (p != NULL) {
        system_size(heap, p, "hak_heap_free");
        hak_lane_free_system(p, "hak_heap_free");
    }
}

/* The size of p, of a lane above Tiny; fatal if it is no block of heap's. */
static size_t large_size(struct hak_heap *heap, const void *p,
                         const char *caller)
{
    uint32_t owner;
    size_t size = hak_large_find(p, &owner);

    if (size == 0) {
        hak_lane_misuse(p, caller);
    }
    if (owner != heap->tiny.id) {
        hak_fatal("%s(%p): a block of another heap", caller, p);
    }
    return size;
}

static HAK_NOINLINE void free_large(struct hak_heap *heap, void *p)
{
    size_t size = large_size(heap, p, "hak_heap_free");

    if (size <= HAK_LANE_POOL_MAX) {
        heap->live -= size;
    }
    hak_large_free(heap, p);
    if (size > HAK_LANE_POOL_MAX) {
        settle(heap);
    }
}

static bool is_large(const void *p)
{
    return hak_tag_is_large(hak_range_tag_of(p));
}

/* Ends the program unless p, of this heap and class, is the start of a block. */
static void check_start(const void *p, unsigned class, const char *caller)
{
    if (HAK_UNLIKELY(!hak_tiny_is_start((uintptr_t)p, hak_tiny_magic[class]))) {
        hak_lane_check(p, caller);
    }
    hak_tiny_refuse(p);
}

/*
 * The class of p, in a Tiny slab of whose tag the hot paths made nothing; fatal
 * if it is neither a sealed slab of heap's nor a packed one.
 */
static unsigned class_slow(struct hak_heap *heap, void *p, const char *caller)
{
    uint32_t tag = hak_range_tag_of(p);
    uint32_t byte = (tag ^ heap->tiny.tag) & ~HAK_TAG_SEALED;
    unsigned class;

    if (byte == HAK_TAG_PACKED) {
        class = hak_tiny_class_of(p, tag);
        if (class == HAK_TINY_NONE || !hak_tiny_is_block(p, tag, class)) {
            hak_lane_check(p, caller);
        }
        hak_tiny_refuse(p);
        return class;
    }
    if (byte >= HAK_TAG_TINY_END) {
        hak_lane_check(p, caller);
        hak_fatal("%s(%p): a block of another heap", caller, p);
    }
    check_start(p, byte / HAK_TAG_TINY, caller);
    return byte / HAK_TAG_TINY;
}

/* Frees p, of the class, in a slab that is not sealed. */
HAK_INLINE void push(struct hak_heap *heap, unsigned class, void *p)
{
    if (HAK_UNLIKELY(!hak_bin_push(&heap->tiny.bins[class], p))) {
        hak_heap_look(heap, &heap->tiny.bins[class]);
    }
}

static HAK_NOINLINE void free_slow(struct hak_heap *heap, void *p)
{
    unsigned class = class_slow(heap, p, "hak_heap_free");
    uint32_t tag = hak_range_tag_of(p);

    heap->live -= hak_tiny_bytes_of(p, tag);
    if ((tag & HAK_TAG_SEALED) != 0) {
        hak_tiny_seal_free(&heap->tiny, p, tag);
    } else if (class == HAK_TINY_LARGER) {
        hak_tiny_larger_free(&heap->tiny, p);
    } else {
        push(heap, class, p);
    }
}

void hak_heap_free(hak_heap *heap, void *p)
{
    unsigned class;
    uint32_t byte;

    if (HAK_UNLIKELY(!hak_range_owns(p))) {
        free_system(heap, p);
        return;
    }
    if (HAK_UNLIKELY(is_large(p))) {
        free_large(heap, p);
        return;
    }
    byte = hak_range_tag_of(p) ^ heap->tiny.tag;
    if (HAK_UNLIKELY(byte >= HAK_TAG_TINY_END)) {
        free_slow(heap, p);
        return;
    }
    class = byte / HAK_TAG_TINY;
    check_start(p, class, "hak_heap_free");
    heap->live -= hak_tiny_size[class];
    push(heap, class, p);
}

/* The usable size of p, a block of this heap. */
static size_t size_of(struct hak_heap *heap, void *p)
{
    unsigned class;
    uint32_t byte;

    if (!hak_range_owns(p)) {
        return system_size(heap, p, "hak_heap_realloc");
    }
    if (is_large(p)) {
        return large_size(heap, p, "hak_heap_realloc");
    }
    byte = hak_range_tag_of(p) ^ heap->tiny.tag;
    class = byte / HAK_TAG_TINY;
    if (HAK_UNLIKELY(byte >= HAK_TAG_TINY_END)) {
        class_slow(heap, p, "hak_heap_realloc");
        return hak_tiny_bytes_of(p, hak_range_tag_of(p));
    }
    check_start(p, class, "hak_heap_realloc");
    return hak_tiny_size[class];
}

/* Resizes a block of ACE's or Huge's without copying, or NULL. */
static void *resize_large(struct hak_heap *heap, void *p, size_t old,
                          size_t size)
{
    size_t bytes = hak_large_bytes(size);
    void *moved = NULL;

    if (bytes <= old || admit(heap, bytes - old)) {
        moved = hak_large_resize(p, size);
    }
    settle(heap);
    return moved;
}

void *hak_heap_realloc(hak_heap *heap, void *p, size_t size)
{
    void *moved;
    size_t old;

    if (p == NULL) {
        return hak_heap_malloc(heap, size);
    }
    old = size_of(heap, p);
    if (hak_fits_as_is(old, size) && hak_range_owns(p)) {
        return p;
    }
    if (old > HAK_LANE_POOL_MAX && size > HAK_LANE_POOL_MAX &&
        hak_range_owns(p)) {
        moved = resize_large(heap, p, old, size);
        if (moved != NULL) {
            return moved;
        }
    }
    moved = hak_heap_malloc(heap, size);
    if (moved == NULL) {
        return size <= old ? p : NULL; /* a shrink never fails */
    }
    memcpy(moved, p, hak_min(old, size));
    hak_heap_free(heap, p);
    return moved;
}

size_t hak_heap_trim(hak_heap *heap)
{
    size_t bytes;

    hak_heap_seal_count(heap);
    bytes = hak_heap_sweep(heap);
    settle(heap);
    return bytes + hak_ace_trim() + hak_range_purge();
}

HAK_INSIDE(hak_inside_heap_new, hak_heap_new);
HAK_INSIDE(hak_inside_heap_delete, hak_heap_delete);
HAK_INSIDE(hak_inside_heap_trim, hak_heap_trim);
