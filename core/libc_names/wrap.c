/*
 * wrap.c - malloc, free and their kin under the C library's names.
 *
 * malloc, calloc and free are the hot way and a jump to the slow one. What
 * they do where the standards leave a choice is what glibc 2.36 does.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "api/stats.h"
#include "base/msg.h"
#include "front/behind.h"
#include "heap/account.h"
#include "libc_names/wrap.h"

HAK_STATS_AT_END;

/* <stdlib.h> and <malloc.h> would say the same without visibility. */
HAK_API HAK_HOT void *malloc(size_t size);
HAK_API void *calloc(size_t count, size_t size);
HAK_API void *realloc(void *p, size_t size);
HAK_API void *reallocarray(void *p, size_t count, size_t size);
HAK_API HAK_HOT void free(void *p);
HAK_API int posix_memalign(void **out, size_t alignment, size_t size);
HAK_API void *aligned_alloc(size_t alignment, size_t size);
HAK_API void *memalign(size_t alignment, size_t size);
HAK_API void *valloc(size_t size);
HAK_API void *pvalloc(size_t size);
HAK_API size_t malloc_usable_size(void *p);

static void *no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

/* ---- the slow way ------------------------------------------------------- */

void *hak_wrap_alloc(size_t alignment, size_t size, bool zero)
{
    enum hak_reason reason = HAK_REASON_MEMORY;
    void *p = NULL;

    if (size > PTRDIFF_MAX) {
        return no_memory();
    }
    if (hak_wrap_enter(size, &reason)) {
        p = hak_lane_alloc(alignment, size, zero, &reason);
        hak_wrap_leave();
    }
    return HAK_LIKELY(p != NULL)
               ? p
               : hak_wrap_fallback(alignment, size, zero, reason);
}

/* p is outside the range: of hak_malloc's fallback, or the C library's. */
static void free_foreign(void *p)
{
    int saved = errno;
    struct hak_heap *owner;
    size_t size;

    hak_system_count_foreign();
    if (!hak_system_may_know(p) || !hak_system_free(p, &owner, &size)) {
        hak_libc_free(p);
    } else if (owner != NULL) {
        hak_account_discharge_other(owner, size);
    }
    errno = saved;
}

void hak_wrap_free(void *p)
{
    if (p == NULL) {
        return;
    }
    if (!hak_range_owns(p)) {
        free_foreign(p);
    } else if (HAK_UNLIKELY((hak_wrap_flags & HAK_WRAP_INSIDE) != 0)) {
        hak_wrap_defer(p);
    } else {
        hak_wrap_flags |= HAK_WRAP_INSIDE;
        hak_lane_free(p, "free");
        hak_wrap_leave();
    }
}

/* Resizes a block outside the range; it stays outside. */
static void *realloc_foreign(void *p, size_t size)
{
    struct hak_heap *owner;
    size_t old;
    void *moved;

    hak_system_count_foreign();
    if (!hak_system_may_know(p) || !hak_system_find(p, &owner, &old)) {
        return hak_libc_realloc(p, size);
    }
    moved = hak_system_resize(p, size);
    if (moved != NULL && owner != NULL) {
        hak_account_resize_other(owner, old, size);
    }
    return moved;
}

/* Resizes a block of ours; if the lanes refuse, it goes to the C library. */
static void *realloc_own(void *p, size_t size)
{
    enum hak_reason reason = HAK_REASON_MEMORY;
    void *moved = NULL;

    if (size > PTRDIFF_MAX) {
        return no_memory();
    }
    if (hak_wrap_enter(size, &reason)) {
        moved = hak_lane_realloc(p, size, &reason, "realloc");
        hak_wrap_leave();
    }
    if (HAK_LIKELY(moved != NULL)) {
        return moved;
    }
    moved = hak_wrap_fallback(HAK_LANE_ALIGN, size, false, reason);
    if (moved != NULL) {
        memcpy(moved, p, hak_min(hak_lane_usable(p, "realloc"), size));
        hak_wrap_free(p);
    }
    return moved;
}

/* Between the hot and the slow way: larger blocks that are at hand. */
static HAK_HOT HAK_NOINLINE void *malloc_larger(size_t size)
{
    void *p = hak_hot_run(size);

    return HAK_LIKELY(p != NULL) ? p
                                 : hak_wrap_alloc(HAK_LANE_ALIGN, size, false);
}

static HAK_HOT HAK_NOINLINE void free_larger(void *p)
{
    if (HAK_UNLIKELY(!hak_hot_run_free(p))) {
        hak_wrap_free(p);
    }
}

/* ---- the names ---------------------------------------------------------- */

void *malloc(size_t size)
{
    void *p = hak_hot_malloc(size);

    return HAK_LIKELY(p != NULL) ? p : malloc_larger(size);
}

void free(void *p)
{
    if (HAK_UNLIKELY(!hak_hot_free(p, 0))) {
        free_larger(p);
    }
}

/* Programs linked with glibc before 2.26 may ask for it. */
void cfree(void *p)
{
    free(p);
}

void *calloc(size_t count, size_t size)
{
    size_t bytes;
    void *p;

    if (HAK_UNLIKELY(__builtin_mul_overflow(count, size, &bytes))) {
        return no_memory();
    }
    p = hak_hot_malloc(bytes);
    return HAK_LIKELY(p != NULL) ? memset(p, 0, bytes)
                                 : hak_wrap_alloc(HAK_LANE_ALIGN, bytes, true);
}

void *realloc(void *p, size_t size)
{
    if (p == NULL) {
        return malloc(size);
    }
    if (size == 0) {
        free(p);
        return NULL;
    }
    return HAK_LIKELY(hak_range_owns(p)) ? realloc_own(p, size)
                                         : realloc_foreign(p, size);
}

void *reallocarray(void *p, size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        return no_memory();
    }
    return realloc(p, bytes);
}

#ifdef __GLIBC__
/*
 * glibc's malloc by its own names, for programs that wrap it by these: of them
 * the two that are given a block. It may be ours.
 */
void __libc_free(void *p)
{
    free(p);
}

void *__libc_realloc(void *p, size_t size)
{
    return realloc(p, size);
}
#endif

/* ---- with the size ------------------------------------------------------ */

/*
 * C23's, of which C libraries before glibc 2.43 know nothing. A size that is
 * larger than the block is fatal; in the hardened build, which knows what was
 * asked for, any other. Weak: a program linked with libhakmem.a may have its
 * own, which a compiler's age made necessary.
 */
#define WEAK __attribute__((weak))

static HAK_NOINLINE void free_sized_slow(void *p, size_t size,
                                         const char *caller)
{
    size_t usable;

    /* In a signal's handler its thread may hold the locks that it takes. */
    if (p != NULL && hak_range_owns(p) &&
        (hak_wrap_flags & HAK_WRAP_INSIDE) == 0) {
        usable = hak_lane_usable(p, caller);
        if (size > usable || (HAK_HARD && size != usable)) {
            hak_fatal("%s(%p, %zu): the block has %zu bytes", caller, p, size,
                      usable);
        }
    }
    free(p);
}

WEAK void free_sized(void *p, size_t size)
{
    if (HAK_HARD || HAK_UNLIKELY(!hak_hot_free(p, size))) {
        free_sized_slow(p, size, "free_sized");
    }
}

/* aligned_alloc's 0 counts as an alignment, too. */
WEAK void free_aligned_sized(void *p, size_t alignment, size_t size)
{
    if (HAK_UNLIKELY(alignment != 0 && ((uintptr_t)p & (alignment - 1)) != 0)) {
        hak_fatal("free_aligned_sized(%p, %zu, %zu): not aligned so", p,
                  alignment, size);
    }
    if (HAK_HARD || HAK_UNLIKELY(!hak_hot_free(p, size))) {
        free_sized_slow(p, size, "free_aligned_sized");
    }
}

/* ---- aligned blocks ----------------------------------------------------- */

void *aligned_alloc(size_t alignment, size_t size)
{
    int error;

    if (alignment <= 16) {
        return malloc(size);
    }
    error = hak_lane_align_as_glibc(&alignment, size);
    if (error != 0) {
        errno = error;
        return NULL;
    }
    return hak_wrap_alloc(alignment, size, false);
}

void *memalign(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    int saved = errno;
    void *p;

    if (alignment < sizeof(void *) || !hak_is_pow2(alignment)) {
        return EINVAL;
    }
    p = aligned_alloc(alignment, size);
    errno = saved;
    if (p == NULL) {
        return ENOMEM;
    }
    *out = p;
    return 0;
}

void *valloc(size_t size)
{
    return aligned_alloc((size_t)getpagesize(), size);
}

void *pvalloc(size_t size)
{
    size_t page = (size_t)getpagesize();

    if (size > PTRDIFF_MAX) {
        return no_memory();
    }
    return aligned_alloc(page, hak_round_up(size, page));
}

size_t malloc_usable_size(void *p)
{
    if (p == NULL) {
        return 0;
    }
    return hak_range_owns(p) ? hak_lane_usable(p, "malloc_usable_size")
                             : hak_libc_usable_size(p);
}
