/*
 * alloc.c - hak_malloc, hak_free and their kin, on the thread's heap.
 *
 * The hot paths are in hot.h; what they leave goes to the *_slow functions,
 * to the lanes, and behind them to the system allocator.
 */
#include <errno.h>
#include <string.h>

#include "background.h"
#include "hot.h"
#include "msg.h"
#include "os.h"
#include "relief.h"

static HAK_NOINLINE void *malloc_slow(size_t size);
static HAK_NOINLINE void free_slow(void *p, size_t asked, const char *caller);

void *hak_malloc(size_t size)
{
    void *p = hak_hot_malloc(size);

    return HAK_LIKELY(p != NULL) ? p : malloc_slow(size);
}

void hak_free(void *p)
{
    if (HAK_UNLIKELY(!hak_hot_free(p, 0))) {
        free_slow(p, 0, "hak_free");
    }
}

HAK_INSIDE(hak_inside_free, hak_free);

void hak_free_sized(void *p, size_t size)
{
    if (HAK_UNLIKELY(!hak_hot_free(p, size))) {
        free_slow(p, size, "hak_free_sized");
    }
}

/* ---- the lanes ------------------------------------------------------------- */

static HAK_NOINLINE void tick_slow(struct hak_heap *heap)
{
    uint32_t now = hak_os_tick();

    if (heap != NULL) {
        hak_tiny_heed(&heap->tiny);
    }
    if (heap != NULL && heap->pool != NULL) {
        hak_pool_heed(heap->pool);
        hak_ace_cache_tick(heap->runs, now);
    }
    hak_relief_round(heap, now, 0);
    hak_ace_tick(now);
    hak_range_tick(now);
}

/* Whether memory waits to go back in any lane. */
static bool is_waiting(void)
{
    return hak_range_waiting() ||
           atomic_load_explicit(&hak_ace_due, memory_order_relaxed) != 0 ||
           hak_relief_wanted(0);
}

void hak_heap_tick(struct hak_heap *heap)
{
    if (HAK_UNLIKELY(is_waiting())) {
        tick_slow(heap);
    }
}

void hak_heap_look_around(struct hak_heap *heap)
{
    if (is_waiting() || heap->tiny.nslabs > HAK_TINY_LARGE) {
        tick_slow(heap);
    }
}

void hak_heap_look(struct hak_heap *heap, struct hak_bin *bin)
{
    hak_heap_look_bin(heap, bin);
    if (heap->tiny.looks == 0) { /* if not, it is busy and has just looked */
        hak_heap_look_around(heap);
    }
    hak_background_mind();
}

void hak_heap_look_pool(struct hak_heap *heap, unsigned class)
{
    hak_pool_look(heap->pool, class);
    if (HAK_UNLIKELY(heap->tiny.allow.over)) {
        hak_heap_shed(heap);
    }
    if (heap->tiny.direct) {
        hak_heap_heed_sparse(heap);
    }
    if (heap->pool->looks == 0) {
        hak_heap_look_around(heap);
    }
    hak_background_mind();
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

/*
 * Fills a block with zeros. What a caller asks for in the Huge lane it may not
 * touch all of: its pages go back, and come as zeros when they are.
 */
static void *make_zero(void *p, size_t size)
{
    if (size >= HAK_LANE_HUGE_MIN &&
        hak_os_purge(p, hak_round_up(size, HAK_PAGE))) {
        return p;
    }
    return memset(p, 0, size);
}

/* hak_lane_alloc but for the seal: `size` has room for it. */
HAK_INLINE void *place(size_t alignment, size_t size, bool zero,
                       enum hak_reason *reason)
{
    struct hak_heap *heap;
    bool is_zero = false;
    void *p;

    if (size <= HAK_LANE_TINY_MAX && alignment <= HAK_LANE_TINY_MAX) {
        unsigned class = alignment <= HAK_LANE_ALIGN
                             ? hak_tiny_class_16[hak_tiny_index(size)]
                             : aligned_class(alignment, size);

        hak_heap_tick(hak_thread_own());
        hak_background_mind();
        *reason = HAK_REASON_MEMORY;
        p = hak_thread_alloc(class, reason);
    } else {
        heap = hak_thread_heap(reason);
        p = heap != NULL
                ? hak_large_alloc(heap, alignment, size, &is_zero, reason)
                : NULL;
    }
    return p != NULL && zero && !is_zero ? make_zero(p, size) : p;
}

/* Whether p, in a slab with this tag, is surely the start of a Tiny block. */
static bool is_tiny_start(const void *p, uint32_t tag)
{
    unsigned class = HAK_TAG_CLASS(tag) / HAK_TAG_TINY;

    return tag != 0 && class < HAK_TINY_CLASSES &&
           hak_tiny_is_start(hak_range_offset(p), hak_tiny_magic[class]);
}

/*
 * The heap of a thread that frees. One that has none gets one, so that what it
 * frees goes back in batches; NULL: it can't have one.
 */
static struct hak_heap *heap_to_free(void)
{
    enum hak_reason reason;

    return hak_thread_heap(&reason);
}

/* There was no memory: once more, when all that is free has gone back. */
static HAK_COLD void *at_last(size_t alignment, size_t size, bool zero,
                              enum hak_reason *reason)
{
    void *p = NULL;

    if (*reason == HAK_REASON_MEMORY && hak_relief(NULL, size)) {
        p = place(alignment, hak_hard_grow(size), zero, reason);
    }
    return hak_lane_close(p, size);
}

void *hak_lane_alloc(size_t alignment, size_t size, bool zero,
                     enum hak_reason *reason)
{
    void *p = place(alignment, hak_hard_grow(size), zero, reason);

    return HAK_LIKELY(p != NULL) ? hak_lane_close(p, size)
                                 : at_last(alignment, size, zero, reason);
}

/* hak_lane_free of a block whose seal was looked at, or has none. */
static void lane_free(void *p, const char *caller)
{
    struct hak_heap *heap = heap_to_free();
    uint32_t tag = hak_range_tag_of(p);

    if (hak_tag_is_large(tag)) {
        if (HAK_UNLIKELY(!hak_large_free(heap, p))) {
            hak_lane_misuse(p, caller);
        }
        return;
    }
    if (HAK_UNLIKELY(!is_tiny_start(p, tag))) {
        hak_lane_check(p, caller);
    }
    if (HAK_UNLIKELY((tag & HAK_TAG_SEALED) != 0)) {
        hak_heap_sent(hak_tiny_seal_free(heap != NULL ? &heap->tiny : NULL, p,
                                         tag));
        return;
    }
    hak_heap_sent(hak_remote_free(heap != NULL ? &heap->tiny : NULL, p, tag));
    hak_background_mind();
}

void hak_lane_free(void *p, const char *caller)
{
    if (HAK_HARD) {
        hak_lane_check(p, caller);
        hak_lane_open(p, 0, caller);
    }
    lane_free(p, caller);
}

/* All the bytes of the block p, in the range; fatal as hak_lane_usable. */
static size_t block_size(const void *p, const char *caller);

size_t hak_lane_usable(const void *p, const char *caller)
{
    return hak_lane_open(p, block_size(p, caller), caller);
}

static size_t block_size(const void *p, const char *caller)
{
    uint32_t tag = hak_range_tag_of(p);
    uint32_t owner;
    size_t size;

    if (hak_tag_is_large(tag)) {
        size = hak_large_find(p, &owner);
        if (size == 0) {
            hak_lane_misuse(p, caller);
        }
        return size;
    }
    hak_lane_check(p, caller);
    return hak_tiny_size[hak_tiny_class_of(p, tag)];
}

/* A copy of p, which has `old` bytes, of `size` bytes. */
static void *lane_copy(void *p, size_t old, size_t size,
                       enum hak_reason *reason)
{
    size_t n = hak_min(old, size);
    struct hak_heap *heap;
    void *to = hak_hot_malloc(size - HAK_HARD_SEAL);

    if (HAK_UNLIKELY(to == NULL)) {
        if (size > HAK_LANE_TINY_MAX) {
            heap = hak_thread_heap(reason);
            return heap != NULL ? hak_large_copy(heap, p, old, size, reason)
                                : NULL;
        }
        to = place(HAK_LANE_ALIGN, size, false, reason);
    }
    __asm__("" : "+r"(n)); /* gcc would write out a slow copy of a short n */
    return to != NULL ? memcpy(to, p, n) : NULL;
}

/*
 * What is smaller now but got no block of that size: it stays, and gives back
 * what it can of its own.
 */
static void *keep(void *p, size_t old, size_t size)
{
    size_t least =
        old > HAK_LANE_HUGE_MIN ? HAK_LANE_HUGE_MIN : HAK_LANE_ACE_MIN;

    if (old > least) {
        (void)hak_large_resize(p, hak_max(size, least));
    }
    return p;
}

/* hak_lane_realloc but for the seal: p has `old` bytes, `size` room for it. */
static void *resize(void *p, size_t old, size_t size, enum hak_reason *reason,
                    const char *caller)
{
    void *moved;

    if (hak_fits_as_is(old, size)) {
        return p;
    }
    if (old > HAK_LANE_TINY_MAX && size > HAK_LANE_TINY_MAX) {
        moved = hak_large_resize(p, size);
        if (moved != NULL) {
            return moved;
        }
    }
    moved = lane_copy(p, old, size, reason);
    if (moved == NULL) {
        return size <= old ? keep(p, old, size) : NULL;
    }
    /* The seal, which hak_large_copy may have thrown away, was looked at. */
    if (!hak_hot_free(p, 0) && (HAK_HARD || !hak_hot_run_free(p))) {
        lane_free(p, caller);
    }
    return moved;
}

void *hak_lane_realloc(void *p, size_t size, enum hak_reason *reason,
                       const char *caller)
{
    uint32_t tag = hak_range_tag_of(p);
    size_t old = is_tiny_start(p, tag)
                     ? hak_tiny_size[HAK_TAG_CLASS(tag) / HAK_TAG_TINY]
                     : block_size(p, caller);
    void *moved;

    hak_lane_open(p, old, caller);
    moved = resize(p, old, hak_hard_grow(size), reason, caller);
    if (HAK_UNLIKELY(moved == NULL) && *reason == HAK_REASON_MEMORY &&
        hak_relief(NULL, size)) {
        moved = resize(p, old, hak_hard_grow(size), reason, caller);
    }
    return hak_lane_close(moved, size);
}

/* ---- behind them the system ------------------------------------------------- */

/* What the lanes refused. */
static void *from_system(size_t alignment, size_t size, enum hak_reason reason)
{
    if (size > PTRDIFF_MAX ||
        (hak_reason_is_short(reason) && hak_limit_refuses(size))) {
        errno = ENOMEM;
        return NULL;
    }
    return hak_system_alloc(hak_max(alignment, 16), size, NULL, reason);
}

static HAK_NOINLINE void *malloc_slow(size_t size)
{
    enum hak_reason reason;
    void *p = hak_hot_run(size);

    if (HAK_LIKELY(p != NULL)) {
        return p;
    }
    p = hak_lane_alloc(HAK_LANE_ALIGN, size, false, &reason);
    return HAK_LIKELY(p != NULL) ? p
                                 : from_system(HAK_LANE_ALIGN, size, reason);
}

void hak_lane_free_system(void *p, const char *caller)
{
    struct hak_heap *owner;
    size_t size;

    if (!hak_system_free(p, &owner, &size)) {
        hak_fatal("%s(%p): not a block of HAKMEM", caller, p);
    }
    if (owner != NULL) {
        atomic_fetch_sub(&owner->other_bytes, size);
    }
}

/* The usable size of p; fatal if it is no block. */
static size_t size_of(const void *p, const char *caller)
{
    struct hak_heap *owner;
    size_t size;

    if (hak_range_owns(p)) {
        return hak_lane_usable(p, caller);
    }
    if (!hak_system_find(p, &owner, &size)) {
        hak_fatal("%s(%p): not a block of HAKMEM", caller, p);
    }
    return size;
}

/* NULL, a larger block, another heap's, the system's, or none at all. */
static HAK_NOINLINE void free_slow(void *p, size_t asked, const char *caller)
{
    if (p == NULL || (asked == 0 && hak_hot_run_free(p))) {
        return;
    }
    if (asked != 0 && asked > size_of(p, caller)) {
        hak_fatal("%s(%p, %zu): the block has only %zu bytes", caller, p, asked,
                  size_of(p, caller));
    }
    if (hak_range_owns(p)) {
        hak_lane_free(p, caller);
    } else {
        hak_lane_free_system(p, caller);
    }
}

/* ---- the rest of the family --------------------------------------------------- */

void *hak_calloc(size_t count, size_t size)
{
    enum hak_reason reason;
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    p = hak_hot_malloc(bytes);
    if (HAK_LIKELY(p != NULL)) {
        return memset(p, 0, bytes);
    }
    p = hak_lane_alloc(HAK_LANE_ALIGN, bytes, true, &reason);
    if (HAK_UNLIKELY(p == NULL)) {
        p = from_system(HAK_LANE_ALIGN, bytes, reason);
        p = p != NULL ? memset(p, 0, bytes) : NULL;
    }
    return p;
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
        atomic_fetch_add(&owner->other_bytes, size - old);
    }
    return moved;
}

/* What the lanes refused goes to the system, with its contents. */
static void *move_to_system(void *p, size_t size, enum hak_reason reason)
{
    void *moved = from_system(HAK_LANE_ALIGN, size, reason);

    if (moved != NULL) {
        memcpy(moved, p, hak_min(size, hak_lane_usable(p, "hak_realloc")));
        hak_inside_free(p);
    }
    return moved;
}

void *hak_realloc(void *p, size_t size)
{
    enum hak_reason reason;
    void *moved;

    if (p == NULL) {
        return hak_malloc(size);
    }
    if (HAK_LIKELY(hak_range_owns(p))) {
        moved = hak_lane_realloc(p, size, &reason, "hak_realloc");
        return moved != NULL ? moved : move_to_system(p, size, reason);
    }
    size_of(p, "hak_realloc");
    if (size > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    return resize_system(p, size);
}

void *hak_aligned_alloc(size_t alignment, size_t size)
{
    enum hak_reason reason;
    void *p;

    if (!hak_is_pow2(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    p = hak_lane_alloc(alignment, size, false, &reason);
    return p != NULL ? p : from_system(alignment, size, reason);
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
    size_t bytes = hak_thread_trim();

    if (hak_range.size != 0) {
        bytes += hak_ace_trim();
        bytes += hak_range_purge();
    }
    return bytes;
}

const char *hak_version(void)
{
    return HAK_VERSION_STRING;
}
