/*
 * hak_ngx_alloc.c - malloc, free and their kin, as patched objects call them.
 *
 * A request is the core's or libc's by its size; the core serves it from the
 * calling thread's heap. What it refuses goes to libc, too. Hot paths are a bin
 * of Tiny's or Pool's (hot.h), the rest are tail calls.
 *
 * libc is called by its usual names: our own object's slots stay as they are.
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "embed.h"
#include "hak_ngx_hot.h"
#include "hak_ngx_names.h"

HAK_STATS_AT_END;

size_t hak_ngx_most = HAK_LANE_TINY_MAX;
size_t hak_ngx_most_hot = HAK_LANE_TINY_MAX;

void hak_ngx_set_lanes(hak_ngx_lanes lanes)
{
    bool all = lanes == HAK_NGX_ALL;

    hak_ngx_most = all ? HAK_LANE_HUGE_MAX : HAK_LANE_TINY_MAX;
    hak_ngx_most_hot = all ? HAK_LANE_POOL_MAX : HAK_LANE_TINY_MAX;
}

/* ---- figures --------------------------------------------------------------- */

/* The calling thread's; NULL: it has no heap, its calls are not counted. */
HAK_INLINE hak_ngx_figures *figures_here(void)
{
    struct hak_heap *heap = hak_thread_own();

    return HAK_LIKELY(heap != NULL) ? hak_ngx_figures_of(heap) : NULL;
}

static void count_asked(size_t size)
{
    hak_ngx_figures *figures = figures_here();

    if (figures != NULL) {
        figures->asked += size;
    }
}

static void count_large(size_t size)
{
    hak_ngx_figures *figures = figures_here();

    if (figures != NULL) {
        figures->asked += size;
        figures->fallback_large++;
    }
}

static void count_refused(size_t size)
{
    hak_ngx_figures *figures = figures_here();

    if (figures != NULL) {
        figures->asked += size;
        figures->fallback_memory++;
    }
}

static void count_foreign(void)
{
    hak_ngx_figures *figures = figures_here();

    if (figures != NULL) {
        figures->foreign_frees++;
    }
}

_Static_assert(sizeof(hak_ngx_figures) == HAK_EMBED_COUNTERS * sizeof(uint64_t),
               "all of them are kept when a heap ends");

/* What heaps had counted that have ended. */
static hak_ngx_figures figures_past(void)
{
    return (hak_ngx_figures){
        .asked = hak_embed_past(0),
        .fallback_large = hak_embed_past(1),
        .fallback_memory = hak_embed_past(2),
        .foreign_frees = hak_embed_past(3),
    };
}

/* Each is a whole word, which its thread may be changing. */
HAK_RACY_READER void hak_ngx_get_figures(hak_ngx_figures *figures)
{
    struct hak_heap *heap;

    *figures = figures_past();
    for (uint32_t id = 0; (id = hak_embed_next(id, &heap)) != 0;) {
        if (hak_embed_is_threads(heap)) {
            const hak_ngx_figures *part = hak_ngx_figures_of(heap);

            figures->asked += part->asked;
            figures->fallback_large += part->fallback_large;
            figures->fallback_memory += part->fallback_memory;
            figures->foreign_frees += part->foreign_frees;
        }
    }
}

uint64_t hak_ngx_asked(void)
{
    hak_ngx_figures figures;

    hak_ngx_get_figures(&figures);
    return figures.asked;
}

/* ---- the thread ----------------------------------------------------------- */

bool hak_ngx_start(void)
{
    enum hak_reason reason;

    hak_background_close(); /* a worker has timers */
    return hak_thread_heap(&reason) != NULL;
}

void hak_ngx_tick(void)
{
    struct hak_heap *heap = hak_thread_own();

    if (heap != NULL) {
        hak_heap_look_around(heap);
    }
}

/* ---- slow paths ----------------------------------------------------------- */

static void *no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

static void *from_libc(size_t alignment, size_t size, bool zero)
{
    if (alignment > HAK_LANE_ALIGN) {
        return memalign(alignment, size);
    }
    return zero ? calloc(1, size) : malloc(size);
}

/* `alignment` is a power of two, at least 16. NULL: errno is ENOMEM. */
static HAK_NOINLINE void *alloc_slow(size_t alignment, size_t size, bool zero)
{
    enum hak_reason reason;
    void *p;

    if (size > PTRDIFF_MAX) {
        return no_memory();
    }
    if (size > hak_ngx_most ||
        (alignment > HAK_LANE_TINY_MAX && hak_ngx_most == HAK_LANE_TINY_MAX)) {
        count_large(size);
        return from_libc(alignment, size, zero);
    }
    p = hak_lane_alloc(alignment, size, zero, &reason);
    if (HAK_UNLIKELY(p == NULL)) {
        if (hak_reason_is_short(reason) && hak_limit_refuses(size)) {
            return no_memory();
        }
        count_refused(size);
        return from_libc(alignment, size, zero);
    }
    count_asked(size);
    return p;
}

void *hak_ngx_malloc_slow(size_t size)
{
    void *p;

    if (size > hak_ngx_most) {
        if (size > PTRDIFF_MAX) { /* libc would say the same */
            return no_memory();
        }
        count_large(size);
        return malloc(size);
    }
    p = hak_hot_run(size);
    if (p != NULL) {
        count_asked(size);
        return p;
    }
    return alloc_slow(HAK_LANE_ALIGN, size, false);
}

static HAK_NOINLINE void free_own(void *p)
{
    if (!hak_hot_run_free(p)) {
        hak_lane_free(p, "free");
    }
}

/* Since 2.33 glibc's own free keeps errno. */
#if __GLIBC_PREREQ(2, 33)
#define free_keeping free
#else
static void free_keeping(void *p)
{
    int saved = errno;

    free(p);
    errno = saved;
}
#endif

static HAK_NOINLINE void free_foreign(void *p)
{
    if (p != NULL) {
        count_foreign();
        free_keeping(p);
    }
}

static HAK_NOINLINE void free_slow(void *p)
{
    if (hak_embed_owns(p)) {
        free_own(p);
    } else { /* a mapping of somebody else's amid ours */
        free_foreign(p);
    }
}

/* ---- malloc, free, calloc -------------------------------------------------- */

void *hak_ngx_malloc(size_t size)
{
    void *p = hak_ngx_take(size);

    return HAK_LIKELY(p != NULL) ? p : hak_ngx_malloc_slow(size);
}

void hak_ngx_free(void *p)
{
    if (HAK_UNLIKELY(!hak_embed_covers(p))) {
        free_foreign(p);
    } else if (HAK_UNLIKELY(!hak_hot_free(p, 0))) {
        free_slow(p);
    }
}

void hak_ngx_any_free(void *p)
{
    if (HAK_LIKELY(!hak_embed_covers(p))) {
        free_keeping(p);
    } else {
        hak_ngx_free(p);
    }
}

void *hak_ngx_calloc(size_t items, size_t size)
{
    size_t bytes;
    void *p;

    if (HAK_UNLIKELY(__builtin_mul_overflow(items, size, &bytes))) {
        return no_memory();
    }
    p = hak_ngx_take(bytes);
    return HAK_LIKELY(p != NULL) ? memset(p, 0, bytes)
                                 : alloc_slow(HAK_LANE_ALIGN, bytes, true);
}

/* ---- realloc --------------------------------------------------------------- */

/* To libc: a size that is not ours, or no memory. */
static void *move_out(void *p, size_t size)
{
    void *moved = malloc(size);

    if (moved != NULL) {
        memcpy(moved, p, hak_min(hak_lane_usable(p, "realloc"), size));
        hak_ngx_free(p);
    }
    return moved;
}

static void *realloc_own(void *p, size_t size)
{
    enum hak_reason reason;
    void *moved;

    if (size > PTRDIFF_MAX) {
        return no_memory();
    }
    if (size > hak_ngx_most) {
        count_large(size);
        return move_out(p, size);
    }
    moved = hak_lane_realloc(p, size, &reason, "realloc");
    if (HAK_UNLIKELY(moved == NULL)) {
        if (hak_reason_is_short(reason) && hak_limit_refuses(size)) {
            return no_memory();
        }
        count_refused(size);
        return move_out(p, size);
    }
    count_asked(size);
    return moved;
}

/* A block of libc's stays there. */
static void *realloc_foreign(void *p, size_t size)
{
    count_foreign();
    count_asked(size);
    return realloc(p, size);
}

void *hak_ngx_realloc(void *p, size_t size)
{
    if (p == NULL) {
        return hak_ngx_malloc(size);
    }
    if (size == 0) {
        hak_ngx_free(p);
        return NULL;
    }
    return HAK_LIKELY(hak_embed_owns(p)) ? realloc_own(p, size)
                                         : realloc_foreign(p, size);
}

void *hak_ngx_any_realloc(void *p, size_t size)
{
    return hak_embed_owns(p) ? hak_ngx_realloc(p, size) : realloc(p, size);
}

void *hak_ngx_reallocarray(void *p, size_t items, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(items, size, &bytes)) {
        return no_memory();
    }
    return hak_ngx_realloc(p, bytes);
}

void *hak_ngx_any_reallocarray(void *p, size_t items, size_t size)
{
    return hak_embed_owns(p) ? hak_ngx_reallocarray(p, items, size)
                             : reallocarray(p, items, size);
}

/* ---- aligned blocks -------------------------------------------------------- */

void *hak_ngx_aligned_alloc(size_t alignment, size_t size)
{
    int error;

    if (alignment <= HAK_LANE_ALIGN) {
        return hak_ngx_malloc(size);
    }
    error = hak_lane_align_as_glibc(&alignment, size);
    if (error != 0) {
        errno = error;
        return NULL;
    }
    return alloc_slow(alignment, size, false);
}

static HAK_NOINLINE int posix_memalign_slow(void **out, size_t alignment,
                                            size_t size)
{
    int saved;
    void *p;

    if (alignment < sizeof(void *) || !hak_is_pow2(alignment)) {
        return EINVAL;
    }
    saved = errno;
    p = alignment <= HAK_LANE_ALIGN ? hak_ngx_malloc_slow(size)
                                    : hak_ngx_aligned_alloc(alignment, size);
    errno = saved;
    if (p == NULL) {
        return ENOMEM;
    }
    *out = p;
    return 0;
}

/* nginx's pools are made with an alignment of 16. */
int hak_ngx_posix_memalign(void **out, size_t alignment, size_t size)
{
    void *p =
        HAK_LIKELY(alignment == HAK_LANE_ALIGN) ? hak_ngx_take(size) : NULL;

    if (HAK_UNLIKELY(p == NULL)) {
        return posix_memalign_slow(out, alignment, size);
    }
    *out = p;
    return 0;
}

void *hak_ngx_valloc(size_t size)
{
    return hak_ngx_aligned_alloc((size_t)getpagesize(), size);
}

void *hak_ngx_pvalloc(size_t size)
{
    size_t page = (size_t)getpagesize();

    if (size > PTRDIFF_MAX) {
        return no_memory();
    }
    return hak_ngx_aligned_alloc(page, hak_round_up(size, page));
}

size_t hak_ngx_malloc_usable_size(void *p)
{
    if (p == NULL) {
        return 0;
    }
    return hak_embed_owns(p) ? hak_lane_usable(p, "malloc_usable_size")
                             : malloc_usable_size(p);
}
