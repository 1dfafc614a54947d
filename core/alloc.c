/*
 * alloc.c - hak_malloc, hak_free and their kin, on the thread's heap.
 *
 * The hot paths of hak_malloc and hak_free are the first two functions; what
 * they leave goes to the *_slow functions below.
 */
#include <errno.h>
#include <string.h>

#include "lane.h"
#include "msg.h"
#include "thread.h"

static HAK_NOINLINE void *malloc_slow(size_t size);
static HAK_NOINLINE void free_slow(void *p, size_t asked, const char *caller);
static HAK_NOINLINE void *refill_slow(size_t size);

void *hak_malloc(size_t size)
{
    unsigned class;
    void *p;

    if (HAK_UNLIKELY(size > HAK_LANE_TINY_MAX)) {
        return malloc_slow(size);
    }
    class = hak_tiny_class_16[hak_tiny_index(size)];
    p = hak_bin_pop(&hak_self->tiny.bins[class]);
    return HAK_LIKELY(p != NULL) ? p : refill_slow(size);
}

/* `asked`: the size the caller says it asked for, 0 if it says nothing. */
HAK_INLINE void free_block(void *p, size_t asked, const char *caller)
{
    struct hak_tiny *tiny = &hak_self->tiny;
    size_t offset = hak_range_offset(p);
    uint32_t class;

    if (HAK_UNLIKELY(offset >= hak_range.size)) {
        free_slow(p, asked, caller);
        return;
    }
    class = hak_range_tag(offset) ^ tiny->tag;
    if (HAK_UNLIKELY(class >= HAK_TINY_CLASSES ||
                     !hak_tiny_is_start(offset, tiny->bins[class].magic) ||
                     (asked != 0 && asked > hak_tiny_size[class]))) {
        free_slow(p, asked, caller);
        return;
    }
    hak_tiny_free(tiny, class, p);
}

void hak_free(void *p)
{
    free_block(p, 0, "hak_free");
}

void hak_free_sized(void *p, size_t size)
{
    free_block(p, size, "hak_free_sized");
}

/* ---- what the hot path leaves ------------------------------------------- */

/* An empty bin: the thread's first request, or time to refill. */
static HAK_NOINLINE void *refill_slow(size_t size)
{
    enum hak_reason reason = HAK_REASON_MEMORY;
    unsigned class = hak_tiny_class_16[hak_tiny_index(size)];
    void *p = hak_thread_refill(class, &reason);

    return p != NULL ? p : hak_system_alloc(16, size, NULL, reason);
}

static HAK_NOINLINE void *malloc_slow(size_t size)
{
    if (size > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    return hak_system_alloc(16, size, NULL, HAK_REASON_LARGE);
}

void hak_lane_check(const void *p, const char *caller)
{
    uint32_t tag = hak_range_tag(hak_range_offset(p));
    unsigned class;

    if (HAK_TAG_HEAP(tag) == 0) {
        hak_fatal("%s(%p): an address that was never given out", caller, p);
    }
    class = hak_tiny_class_of(p, tag);
    if (!hak_tiny_is_carved(p, tag, class)) {
        hak_fatal("%s(%p): an address that was never given out", caller, p);
    }
    if (!hak_tiny_is_block(p, tag, class)) {
        hak_fatal("%s(%p): the middle of a block of %u bytes", caller, p,
                  (unsigned)hak_tiny_size[class]);
    }
}

void hak_lane_free_system(void *p, const char *caller)
{
    struct hak_heap *owner;
    size_t size;

    if (!hak_system_free(p, &owner, &size)) {
        hak_fatal("%s(%p): not a block of HAKMEM", caller, p);
    }
    if (owner != NULL) {
        atomic_fetch_sub(&owner->system_bytes, size);
    }
}

/* The usable size of p; fatal if it is no block. */
static size_t size_of(const void *p, const char *caller)
{
    struct hak_heap *owner;
    size_t size;

    if (hak_range_owns(p)) {
        hak_lane_check(p, caller);
        return hak_tiny_size[hak_tiny_class_at(p)];
    }
    if (!hak_system_find(p, &owner, &size)) {
        hak_fatal("%s(%p): not a block of HAKMEM", caller, p);
    }
    return size;
}

/* NULL, a block of the system's, another heap's block, or none at all. */
static HAK_NOINLINE void free_slow(void *p, size_t asked, const char *caller)
{
    uint32_t sent;

    if (p == NULL) {
        return;
    }
    if (asked != 0 && asked > size_of(p, caller)) {
        hak_fatal("%s(%p, %zu): the block has only %zu bytes", caller, p, asked,
                  size_of(p, caller));
    }
    if (!hak_range_owns(p)) {
        hak_lane_free_system(p, caller);
        return;
    }
    hak_lane_check(p, caller);
    sent = hak_remote_free(hak_thread_has_heap() ? &hak_self->tiny : NULL, p,
                           hak_range_tag(hak_range_offset(p)));
    hak_heap_sent(sent);
}

/* ---- the rest of the family --------------------------------------------- */

void *hak_calloc(size_t count, size_t size)
{
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    p = hak_malloc(bytes);
    return p != NULL ? memset(p, 0, bytes) : NULL;
}

/* Whether a block with `usable` bytes is the one that `size` would get. */
static bool fits_as_is(size_t usable, size_t size)
{
    return size <= HAK_LANE_TINY_MAX &&
           usable == hak_tiny_size[hak_tiny_class_16[hak_tiny_index(size)]];
}

/* Resizes a block of the system's; its heap, if it has one, is told. */
static void *resize_system(void *p, size_t size)
{
    struct hak_heap *owner = NULL;
    size_t old = 0;
    void *moved;

    hak_system_find(p, &owner, &old);
    moved = hak_system_resize(p, size);
    if (moved != NULL && owner != NULL) {
        atomic_fetch_add(&owner->system_bytes, size - old);
    }
    return moved;
}

void *hak_realloc(void *p, size_t size)
{
    size_t old;
    void *moved;

    if (p == NULL) {
        return hak_malloc(size);
    }
    old = size_of(p, "hak_realloc");
    if (hak_range_owns(p) && fits_as_is(old, size)) {
        return p;
    }
    if (size > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    if (size > HAK_LANE_TINY_MAX && !hak_range_owns(p)) {
        return resize_system(p, size);
    }
    moved = hak_malloc(size);
    if (moved == NULL) {
        return size <= old ? p : NULL; /* a shrink never fails */
    }
    memcpy(moved, p, hak_min(old, size));
    hak_free(p);
    return moved;
}

/* The smallest class of blocks that are a multiple of `alignment`, or none. */
static unsigned aligned_class(size_t alignment, size_t size)
{
    unsigned class = hak_tiny_class_16[hak_tiny_index(size)];

    while (class < HAK_TINY_CLASSES && hak_tiny_size[class] % alignment != 0) {
        class += 1;
    }
    return class;
}

/* A power of two up to 1024 always divides the largest class. */
static void *aligned_small(size_t alignment, size_t size)
{
    enum hak_reason reason = HAK_REASON_MEMORY;
    void *p = hak_thread_alloc(aligned_class(alignment, size), &reason);

    return p != NULL
               ? p
               : hak_system_alloc(hak_max(alignment, 16), size, NULL, reason);
}

void *hak_aligned_alloc(size_t alignment, size_t size)
{
    if (!hak_is_pow2(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    if (size > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    if (size > HAK_LANE_TINY_MAX || alignment > HAK_LANE_TINY_MAX) {
        return hak_system_alloc(hak_max(alignment, 16), size, NULL,
                                size > HAK_LANE_TINY_MAX ? HAK_REASON_LARGE
                                                         : HAK_REASON_ALIGNED);
    }
    return aligned_small(alignment, size);
}

size_t hak_usable_size(const void *p)
{
    return p != NULL ? size_of(p, "hak_usable_size") : 0;
}

bool hak_owns(const void *p)
{
    return hak_range_owns(p);
}

size_t hak_trim(void)
{
    hak_thread_trim();
    return hak_range.size != 0 ? hak_range_purge() : 0;
}

const char *hak_version(void)
{
    return HAK_VERSION_STRING;
}
