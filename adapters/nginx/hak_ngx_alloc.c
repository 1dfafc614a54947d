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

#include "hak_ngx.h"
#include "hak_ngx_names.h"
#include "hot.h"

/* Sizes up to this are the core's, and those of Pool's hot path. */
static size_t most = HAK_LANE_TINY_MAX;
static size_t most_hot = HAK_LANE_TINY_MAX;

/* Counted on slow paths alone. */
static _Atomic(uint64_t) large, refused, foreign;

void hak_ngx_set_lanes(hak_ngx_lanes lanes)
{
    most = lanes == HAK_NGX_ALL ? HAK_LANE_HUGE_MAX : HAK_LANE_TINY_MAX;
    most_hot = lanes == HAK_NGX_ALL ? HAK_LANE_POOL_MAX : HAK_LANE_TINY_MAX;
}

static void count(_Atomic(uint64_t) *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- bytes asked for ------------------------------------------------------ */

/*
 * Counted in the rest of each thread's heap, which hot paths have at hand and
 * which is zero when the heap is made. Threads that end leave theirs behind,
 * to be adopted with what it has counted.
 */
HAK_INLINE uint64_t *asked_of(struct hak_heap *heap)
{
    return (uint64_t *)((char *)heap + HAK_HEAP_EXTRA_AT);
}

/* After a block was taken of its bins, the thread has a heap. */
HAK_INLINE void count_hot(size_t size)
{
    *asked_of(hak_self) += size;
}

static void count_asked(size_t size)
{
    if (HAK_LIKELY(hak_thread_has_heap())) {
        count_hot(size);
    }
}

HAK_RACY_READER uint64_t hak_ngx_asked(void)
{
    uint64_t sum = 0;
    uint32_t heaps = hak_range.size != 0 ? hak_range_heap_count() : 0;

    for (uint32_t id = 1; id <= heaps; id++) {
        struct hak_heap *heap = hak_range_heap(id);
        uint32_t state = atomic_load(&heap->state);

        if (state == HAK_HEAP_OWNED || state == HAK_HEAP_PARKED) {
            sum += *asked_of(heap);
        }
    }
    return sum;
}

void hak_ngx_get_figures(hak_ngx_figures *figures)
{
    figures->asked = hak_ngx_asked();
    figures->large = atomic_load(&large);
    figures->refused = atomic_load(&refused);
    figures->foreign = atomic_load(&foreign);
}

/* ---- the thread, forks ---------------------------------------------------- */

bool hak_ngx_start(void)
{
    enum hak_reason reason;

    return hak_thread_heap(&reason) != NULL;
}

void hak_ngx_tick(void)
{
    if (hak_thread_has_heap()) {
        hak_heap_look_around(hak_self);
    }
}

static __thread struct hak_heap *aside
    __attribute__((tls_model("initial-exec")));

/*
 * Another object's fork handlers may allocate while the core's locks are held
 * and must not wait for them: meanwhile the thread looks as if it had ended,
 * and libc serves it. Registered before the core's own handlers (thread.c):
 * hence begun after them and undone before.
 */
static void fork_begins(void)
{
    aside = hak_self;
    hak_self = (struct hak_heap *)&hak_heap_exited;
}

static void fork_ends(void)
{
    hak_self = aside;
}

__attribute__((constructor(101))) static void watch_forks(void)
{
    pthread_atfork(fork_begins, fork_ends, fork_ends);
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
    if (size > most || (alignment > most && most < HAK_LANE_HUGE_MAX)) {
        count(&large);
        count_asked(size);
        return from_libc(alignment, size, zero);
    }
    p = hak_lane_alloc(alignment, size, zero, &reason);
    if (HAK_UNLIKELY(p == NULL)) {
        count(&refused);
        p = from_libc(alignment, size, zero);
    }
    count_asked(size);
    return p;
}

static HAK_NOINLINE void *malloc_slow(size_t size)
{
    void *p = size <= most ? hak_hot_run(size) : NULL;

    if (p != NULL) {
        count_hot(size);
        return p;
    }
    return alloc_slow(HAK_LANE_ALIGN, size, false);
}

static HAK_NOINLINE void free_slow(void *p)
{
    int saved;

    if (p == NULL || hak_hot_run_free(p)) {
        return;
    }
    if (hak_range_owns(p)) {
        hak_lane_free(p, "free");
        return;
    }
    saved = errno;
    count(&foreign);
    free(p);
    errno = saved;
}

/* ---- malloc, free, calloc -------------------------------------------------- */

/* A block of a bin, or NULL: another size, an empty bin, no heap yet. */
HAK_INLINE void *take_hot(size_t size)
{
    size_t need = hak_hard_grow(size);
    void *p;

    if (HAK_LIKELY(need <= HAK_LANE_TINY_MAX)) {
        p = hak_hot_tiny(need, size);
    } else if (need <= most_hot) {
        p = hak_hot_pool(need, size);
    } else {
        return NULL;
    }
    if (HAK_LIKELY(p != NULL)) {
        count_hot(size);
    }
    return p;
}

void *hak_ngx_malloc(size_t size)
{
    void *p = take_hot(size);

    return HAK_LIKELY(p != NULL) ? p : malloc_slow(size);
}

void hak_ngx_free(void *p)
{
    if (HAK_UNLIKELY(!hak_hot_free(p, 0))) {
        free_slow(p);
    }
}

void *hak_ngx_calloc(size_t items, size_t size)
{
    size_t bytes;
    void *p;

    if (HAK_UNLIKELY(__builtin_mul_overflow(items, size, &bytes))) {
        return no_memory();
    }
    p = take_hot(bytes);
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
    count_asked(size);
    if (size > most) {
        count(&large);
        return move_out(p, size);
    }
    moved = hak_lane_realloc(p, size, &reason, "realloc");
    if (HAK_UNLIKELY(moved == NULL)) {
        count(&refused);
        return move_out(p, size);
    }
    return moved;
}

/* A block of libc's stays there. */
static void *realloc_foreign(void *p, size_t size)
{
    count(&foreign);
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
    return HAK_LIKELY(hak_range_owns(p)) ? realloc_own(p, size)
                                         : realloc_foreign(p, size);
}

void *hak_ngx_reallocarray(void *p, size_t items, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(items, size, &bytes)) {
        return no_memory();
    }
    return hak_ngx_realloc(p, bytes);
}

/* ---- aligned blocks -------------------------------------------------------- */

void *hak_ngx_aligned_alloc(size_t alignment, size_t size)
{
    if (alignment <= HAK_LANE_ALIGN) {
        return hak_ngx_malloc(size);
    }
    if (alignment > SIZE_MAX / 2 + 1) {
        errno = EINVAL;
        return NULL;
    }
    if (!hak_is_pow2(alignment)) {
        /* As glibc: the next power of two. */
        alignment = (size_t)1 << (64 - __builtin_clzl(alignment));
    }
    if (size > PTRDIFF_MAX || alignment > PTRDIFF_MAX - size) {
        return no_memory();
    }
    return alloc_slow(alignment, size, false);
}

static HAK_NOINLINE int posix_memalign_slow(void **out, size_t alignment,
                                            size_t size)
{
    int saved = errno;
    void *p;

    if (alignment < sizeof(void *) || !hak_is_pow2(alignment)) {
        return EINVAL;
    }
    p = hak_ngx_aligned_alloc(alignment, size);
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
    void *p = HAK_LIKELY(alignment == HAK_LANE_ALIGN) ? take_hot(size) : NULL;

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
    return hak_range_owns(p) ? hak_lane_usable(p, "malloc_usable_size")
                             : malloc_usable_size(p);
}
