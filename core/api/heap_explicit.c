/*
 * heap_explicit.c - explicit heaps: their life, malloc, realloc and free.
 *
 * One thread at a time uses such a heap; blocks that other threads free come in
 * through the inbox. sized.c has the functions that take or return a size.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/heap_explicit.h"
#include "api/inside.h"
#include "api/stats.h"
#include "upkeep/background.h"
#include "heap/haste.h"
#include "heap/heap.h"
#include "front/lane.h"
#include "base/msg.h"
#include "front/behind.h"
#include "front/check.h"
#include "front/large.h"
#include "range/purge.h"
#include "tiny/tiny_seal.h"
#include "upkeep/look.h"
#include "upkeep/relief.h"

HAK_STATS_AT_END(heap);

hak_heap *hak_heap_new(const hak_heap_config *config)
{
    struct hak_heap *heap;

    if (config != NULL && config->size != sizeof(*config)) {
        errno = EINVAL;
        return NULL;
    }
    heap = haki_heap_create(HAK_HEAP_EXPLICIT);
    if (heap == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    if (config != NULL) {
        if (config->limit != 0) {
            heap->limit = config->limit;
        }
        snprintf(heap->name, sizeof(heap->name), "%s",
                 config->name != NULL ? config->name : "");
    }
    haki_account_update(heap);
    HAK_ASSERT(heap->live == 0 && haki_account_other(heap) == 0);
    return heap;
}

void hak_heap_delete(hak_heap *heap)
{
    if (heap == NULL) {
        return;
    }
    HAK_ASSERT(atomic_load(&heap->state) == HAK_HEAP_EXPLICIT);
    HAK_ASSERT(!haki_heap_is_busy(heap)); /* its one user is here */
    haki_large_free_owner(heap);
    if (haki_account_other(heap) != 0) {
        haki_system_free_owner(heap);
    }
    haki_haste_end(heap);
    haki_heap_destroy(heap);
    haki_background_check();
}

/* A block from the system, for this heap. */
static void *heap_made_system(struct hak_heap *heap, size_t alignment,
                              size_t size, enum hak_reason reason)
{
    void *p = NULL;

    if (haki_reason_is_short(reason) && haki_limit_refuses(size)) {
        errno = ENOMEM;
        return NULL;
    }
    if (size <= PTRDIFF_MAX && haki_account_admit_slow(heap, size)) {
        p = haki_system_alloc(alignment, size, heap, reason);
    }
    if (p == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    heap->fallback++;
    haki_account_charge_other(heap, size);
    haki_account_update(heap);
    return p;
}

/* A block from a packed heap's slabs, or NULL. */
static void *heap_made_larger(struct hak_heap *heap, size_t alignment,
                              size_t size)
{
    size_t asked = size;
    void *p = NULL;

    if (heap->tiny.packed && alignment <= HAK_LANE_ALIGN &&
        size <= HAK_TINY_LARGER_MOST) {
        size = haki_round_up(haki_max(size, HAK_LANE_POOL_MIN), HAK_LANE_ALIGN);
        p = haki_account_admit(heap, size)
                ? haki_tiny_larger_alloc(&heap->tiny, size)
                : NULL;
        haki_account_charge(heap, p != NULL ? size : 0);
    }
    return haki_guarded_fit(p, HAK_LANE_ALIGN, asked);
}

/*
 * Charges p, a new block of a lane above Tiny for which `bytes` were admitted:
 * an aligned block may be larger, and must fit as well.
 */
static void *heap_made_charge(struct hak_heap *heap, void *p, size_t bytes)
{
    uint32_t owner;
    size_t block = haki_large_find(p, &owner);
    bool whole = block > HAK_LANE_POOL_MAX; /* large.c has charged it */
    bool fits = true;

    HAK_ASSERT(block != 0 && owner == heap->tiny.id);
    if (HAK_UNLIKELY(block > bytes)) {
        if (whole) {
            haki_account_discharge_other(heap, block);
        }
        fits = haki_account_admit(heap, block);
        if (whole) {
            haki_account_charge_other(heap, block);
        }
    }
    if (HAK_UNLIKELY(!fits)) {
        haki_large_free(heap, p);
        errno = ENOMEM;
        return NULL;
    }
    if (whole) {
        heap->other_allocs++;
        haki_account_update(heap);
    } else {
        haki_account_charge(heap, block);
    }
    return p;
}

/*
 * A block from the lanes above Tiny, or the system; *zero: the contents are
 * zero.
 */
static HAK_NOINLINE void *heap_made_large(struct hak_heap *heap,
                                          size_t alignment, size_t size,
                                          bool *zero)
{
    enum hak_reason reason = HAK_REASON_MEMORY;
    size_t bytes = haki_large_bytes(size), peak = heap->peak;
    void *p = heap_made_larger(heap, alignment, size);

    if (p != NULL) {
        *zero = false;
        return p;
    }
    if (HAK_UNLIKELY(!haki_account_admit(heap, bytes))) {
        errno = ENOMEM;
        return NULL;
    }
    p = haki_large_alloc(heap, alignment, size, zero, &reason);
    if (HAK_UNLIKELY(p == NULL) && haki_relief(heap, size)) {
        p = haki_large_alloc(heap, alignment, size, zero, &reason);
    }
    if (HAK_UNLIKELY(p == NULL)) {
        *zero = false;
        p = heap_made_system(heap, alignment, size, reason);
        if (p == NULL) {
            haki_account_undo(heap, peak);
        }
        return p;
    }
    if (HAK_LIKELY(alignment == HAK_LANE_ALIGN && size <= HAK_LANE_POOL_MAX)) {
        haki_account_charge(heap, bytes);
        return haki_guarded_fit(p, alignment, size);
    }
    if (size > HAK_LANE_POOL_MAX) { /* large.c has charged it */
        heap->other_allocs++;
        haki_account_update(heap);
        return p;
    }
    return heap_made_charge(heap, p, bytes);
}

/* A block from Pool's bin, or NULL: then heap_made_large looks elsewhere. */
HAK_INLINE void *heap_made_pool(struct hak_heap *heap, size_t size)
{
    struct hak_pool *pool = heap->pool;
    unsigned class;
    size_t bytes;
    void *p;

    if (pool == NULL || size > HAK_LANE_POOL_MAX || heap->tiny.packed) {
        return NULL;
    }
    class = haki_pool_class_for(size);
    bytes = haki_pool_classes[class].block;
    p = haki_account_fits(heap, bytes) ? haki_pool_pop(pool, class) : NULL;
    haki_account_charge(heap, p != NULL ? bytes : 0);
    return p;
}

/* A block larger than Tiny's. */
static HAK_NOINLINE void *heap_made_above(struct hak_heap *heap, size_t size)
{
    bool zero;
    void *p = heap_made_pool(heap, size);

    return p != NULL ? p : heap_made_large(heap, HAK_LANE_ALIGN, size, &zero);
}

/* A block of the class that is in no bin, or NULL. */
static HAK_NOINLINE void *heap_made_refill(struct hak_heap *heap,
                                           unsigned class, size_t alignment,
                                           size_t size)
{
    void *p = haki_tiny_refill(&heap->tiny, class);

    if (HAK_UNLIKELY(p == NULL) && haki_relief(heap, size)) {
        p = haki_tiny_alloc(&heap->tiny, class);
    }
    return haki_guarded_fit(p, haki_max(alignment, HAK_LANE_ALIGN), size);
}

/* A block of the class, for `size` bytes; from the system if there is none. */
HAK_INLINE void *heap_made_tiny(struct hak_heap *heap, unsigned class,
                                size_t alignment, size_t size)
{
    void *p;

    if (HAK_UNLIKELY(!haki_account_admit(heap, haki_tiny_size[class]))) {
        errno = ENOMEM;
        return NULL;
    }
    p = haki_bin_pop(&heap->tiny.bins[class]);
    if (HAK_UNLIKELY(p == NULL)) {
        p = heap_made_refill(heap, class, alignment, size);
    }
    if (HAK_UNLIKELY(p == NULL)) {
        return heap_made_system(heap, alignment, size, HAK_REASON_MEMORY);
    }
    haki_account_charge(heap, haki_tiny_size[class]);
    return p;
}

void *hak_heap_malloc(hak_heap *heap, size_t size)
{
    if (HAK_UNLIKELY(size > HAK_TINY_MAX_SIZE)) {
        return heap_made_above(heap, size);
    }
    return heap_made_tiny(heap, haki_tiny_class_16[haki_tiny_index(size)],
                          HAK_LANE_ALIGN, size);
}

void *hak_heap_calloc(hak_heap *heap, size_t count, size_t size)
{
    bool zero = false;
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    p = bytes > HAK_TINY_MAX_SIZE
            ? heap_made_large(heap, HAK_LANE_ALIGN, bytes, &zero)
            : hak_heap_malloc(heap, bytes);
    return p != NULL && !zero ? haki_lane_make_zero(p, bytes) : p;
}

void *hak_heap_aligned_alloc(hak_heap *heap, size_t alignment, size_t size)
{
    unsigned class = HAK_TINY_CLASSES;
    bool zero;

    if (!haki_is_pow2(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    if (alignment <= HAK_LANE_ALIGN) {
        return hak_heap_malloc(heap, size);
    }
    if (alignment <= HAK_LANE_TINY_MAX && size <= HAK_LANE_TINY_MAX &&
        !heap->tiny
             .packed) { /* whose first blocks may lie at any multiple of 8 */
        class = haki_lane_aligned_class(alignment, size);
    }
    return class < HAK_TINY_CLASSES
               ? heap_made_tiny(heap, class, alignment, size)
               : heap_made_large(heap, alignment,
                                 haki_max(size, HAK_LANE_POOL_MIN), &zero);
}

/* The size of p, outside the range; fatal if it is not a block of the heap's. */
static size_t heap_made_system_size(struct hak_heap *heap, const void *p,
                                    const char *caller)
{
    struct hak_heap *owner;
    size_t size = haki_lane_system_usable(p, caller, &owner);

    if (owner != heap) {
        haki_fatal("%s(%p): a block of another heap", caller, p);
    }
    return size;
}

static HAK_NOINLINE void heap_made_free_system(struct hak_heap *heap, void *p,
                                               size_t asked, const char *caller)
{
    if (p != NULL) {
        haki_made_need(p, asked, heap_made_system_size(heap, p, caller),
                       caller);
        haki_lane_free_system(p, caller);
    }
}

/*
 * The size of p, of a lane above Tiny; fatal if it is not a block of the
 * heap's.
 */
static size_t heap_made_large_size(struct hak_heap *heap, const void *p,
                                   const char *caller)
{
    uint32_t owner;
    size_t size = haki_large_find(p, &owner);

    if (size == 0) {
        haki_lane_misuse(p, caller);
    }
    if (owner != heap->tiny.id) {
        haki_fatal("%s(%p): a block of another heap", caller, p);
    }
    return size;
}

static HAK_NOINLINE void heap_made_free_large(struct hak_heap *heap, void *p,
                                              size_t asked, const char *caller)
{
    size_t size = heap_made_large_size(heap, p, caller);

    haki_made_need(p, asked, size, caller);
    if (size <= HAK_LANE_POOL_MAX) {
        haki_account_discharge(heap, haki_large_charged(p, size));
    }
    haki_large_free(heap, p); /* the gate may stay: whoever reaches it checks */
}

/*
 * The Pool class of a block in an unsealed span of this heap; at least
 * HAK_POOL_CLASSES if it is not in one.
 */
HAK_INLINE unsigned heap_made_pool_class(const struct hak_heap *heap,
                                         const void *p)
{
    return haki_range_tag_of(p) - (heap->tiny.tag | HAK_TAG_POOL);
}

static HAK_NOINLINE void heap_made_free_pool(struct hak_heap *heap, void *p,
                                             size_t asked, const char *caller)
{
    unsigned class = heap_made_pool_class(heap, p);
    size_t size = haki_pool_classes[class].block;

    if (HAK_UNLIKELY(!haki_pool_is_used(p, class))) {
        haki_lane_misuse(p, caller);
    }
    haki_made_need(p, asked, size, caller);
    haki_account_discharge(heap, size);
    if (HAK_UNLIKELY(!haki_pool_push(heap->pool, class, p))) {
        haki_heap_look_pool(heap, class);
    }
}

static bool heap_made_is_large(const void *p)
{
    return haki_tag_is_large(haki_range_tag_of(p));
}

/* Ends the program unless p, of this heap and class, is the start of a block. */
static void heap_made_check_start(const void *p, unsigned class,
                                  const char *caller)
{
    if (HAK_UNLIKELY(!haki_tiny_is_start((uintptr_t)p,
                                         haki_tiny_magic[class]))) {
        haki_lane_check(p, caller);
    }
    haki_tiny_refuse(p);
}

/*
 * The class of p, in a Tiny slab whose tag the hot paths did not recognise;
 * fatal if it is neither a sealed nor a packed slab of the heap's.
 */
static unsigned heap_made_class_slow(struct hak_heap *heap, const void *p,
                                     const char *caller)
{
    uint32_t tag = haki_range_tag_of(p);
    uint32_t byte = (tag ^ heap->tiny.tag) & ~HAK_TAG_SEALED;
    unsigned class;

    if (byte == HAK_TAG_PACKED) {
        class = haki_tiny_class_at_tag(p, tag);
        if (class == HAK_TINY_NONE || !haki_tiny_is_block(p, tag, class)) {
            haki_lane_check(p, caller);
        }
        haki_tiny_refuse(p);
        return class;
    }
    if (byte >= HAK_TAG_TINY_END) {
        haki_lane_check(p, caller);
        haki_fatal("%s(%p): a block of another heap", caller, p);
    }
    heap_made_check_start(p, byte / HAK_TAG_TINY, caller);
    return byte / HAK_TAG_TINY;
}

/* Frees p, a block of the class in a slab that is not sealed. */
HAK_INLINE void heap_made_push(struct hak_heap *heap, unsigned class, void *p)
{
    if (HAK_UNLIKELY(!haki_bin_push(&heap->tiny.bins[class], p))) {
        haki_heap_look(heap, &heap->tiny.bins[class]);
    }
}

static HAK_NOINLINE void heap_made_free_slow(struct hak_heap *heap, void *p,
                                             size_t asked, const char *caller)
{
    unsigned class = heap_made_class_slow(heap, p, caller);
    uint32_t tag = haki_range_tag_of(p);

    haki_made_need(p, asked, haki_tiny_bytes_of(p, tag), caller);
    haki_account_discharge(heap, haki_tiny_bytes_of(p, tag));
    if ((tag & HAK_TAG_SEALED) != 0) {
        haki_tiny_seal_free(&heap->tiny, p, tag);
    } else if (class == HAK_TINY_LARGER) {
        haki_tiny_larger_free(&heap->tiny, p);
    } else {
        heap_made_push(heap, class, p);
    }
}

/* Frees p, of at least `asked` bytes. */
HAK_INLINE void heap_made_free(struct hak_heap *heap, void *p, size_t asked,
                               const char *caller)
{
    unsigned class;
    uint32_t byte;

    if (HAK_UNLIKELY(!haki_range_owns(p))) {
        heap_made_free_system(heap, p, asked, caller);
        return;
    }
    if (HAK_UNLIKELY(heap_made_is_large(p))) {
        if (heap_made_pool_class(heap, p) < HAK_POOL_CLASSES) {
            heap_made_free_pool(heap, p, asked, caller);
        } else {
            heap_made_free_large(heap, p, asked, caller);
        }
        return;
    }
    byte = haki_range_tag_of(p) ^ heap->tiny.tag;
    if (HAK_UNLIKELY(byte >= HAK_TAG_TINY_END)) {
        heap_made_free_slow(heap, p, asked, caller);
        return;
    }
    class = byte / HAK_TAG_TINY;
    heap_made_check_start(p, class, caller);
    haki_made_need(p, asked, haki_tiny_size[class], caller);
    haki_account_discharge(heap, haki_tiny_size[class]);
    heap_made_push(heap, class, p);
}

void hak_heap_free(hak_heap *heap, void *p)
{
    heap_made_free(heap, p, 0, "hak_heap_free");
}

void hak_heap_free_sized(hak_heap *heap, void *p, size_t size)
{
    heap_made_free(heap, p, size, "hak_heap_free_sized");
}

size_t haki_made_size(struct hak_heap *heap, const void *p, const char *caller)
{
    unsigned class;
    uint32_t byte;

    if (!haki_range_owns(p)) {
        return heap_made_system_size(heap, p, caller);
    }
    if (heap_made_is_large(p)) {
        return heap_made_large_size(heap, p, caller);
    }
    byte = haki_range_tag_of(p) ^ heap->tiny.tag;
    class = byte / HAK_TAG_TINY;
    if (HAK_UNLIKELY(byte >= HAK_TAG_TINY_END)) {
        heap_made_class_slow(heap, p, caller);
        return haki_tiny_bytes_of(p, haki_range_tag_of(p));
    }
    heap_made_check_start(p, class, caller);
    return haki_tiny_size[class];
}

/* Resizes a block of ACE or Huge without copying, or returns NULL. */
static void *heap_made_resize_large(struct hak_heap *heap, void *p, size_t old,
                                    size_t size)
{
    size_t bytes = haki_large_bytes(size);
    void *moved = NULL;

    if (bytes <= old || haki_account_admit(heap, bytes - old)) {
        moved = haki_large_resize(p, size);
    }
    haki_account_update(heap);
    return moved;
}

/*
 * Copies p to a larger ACE or Huge block for `size` bytes with room behind it,
 * since a block that grew once is likely to grow again. NULL: not possible.
 */
static void *heap_made_grow(struct hak_heap *heap, void *p, size_t keep,
                            size_t size)
{
    enum hak_reason reason;
    void *to = NULL;

    if (size <= PTRDIFF_MAX &&
        haki_account_admit(heap, haki_large_bytes(size))) {
        to = haki_large_copy(heap, p, keep, size, &reason);
    }
    heap->other_allocs += to != NULL;
    return to;
}

void *haki_made_resize(struct hak_heap *heap, void *p, size_t old, size_t keep,
                       size_t size)
{
    size_t peak = heap->peak;
    void *moved;

    HAK_ASSERT(keep <= old);
    if (haki_fits_as_is(old, size) && haki_range_owns(p)) {
        return p;
    }
    if (old > HAK_LANE_POOL_MAX && size > HAK_LANE_POOL_MAX &&
        haki_range_owns(p)) {
        moved = heap_made_resize_large(heap, p, old, size);
        if (moved != NULL) {
            return moved;
        }
    }
    if (size > HAK_LANE_POOL_MAX && size > old) {
        moved = heap_made_grow(heap, p, keep, size);
        if (moved != NULL) {
            hak_heap_free(heap, p);
            haki_account_update(heap);
            return moved;
        }
    }
    moved = hak_heap_malloc(heap, size);
    if (moved == NULL) {
        haki_account_undo(heap, peak);
        return size <= old ? p : NULL; /* a shrink never fails */
    }
    memcpy(moved, p, haki_min(keep, size));
    hak_heap_free(heap, p);
    return moved;
}

void *hak_heap_realloc(hak_heap *heap, void *p, size_t size)
{
    size_t old;

    if (p == NULL) {
        return hak_heap_malloc(heap, size);
    }
    old = haki_made_size(heap, p, "hak_heap_realloc");
    return haki_made_resize(heap, p, old, old, size);
}

size_t hak_heap_trim(hak_heap *heap)
{
    size_t bytes;

    haki_heap_seal_count(heap);
    bytes = haki_heap_sweep(heap);
    haki_account_update(heap);
    return bytes + haki_ace_trim() + haki_range_purge();
}

HAK_INSIDE(haki_inside_heap_new, hak_heap_new);
HAK_INSIDE(haki_inside_heap_delete, hak_heap_delete);
HAK_INSIDE(haki_inside_heap_trim, hak_heap_trim);
