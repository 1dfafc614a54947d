/*
 * wrap.c - the malloc family under the C library's names: family.h with the
 * policy of wrap.h.
 *
 * Tested by tests/wrap/behaviour.c and tests/wrap/refused.c.
 */
#include "api/stats.h"
#include "base/msg.h"
#include "heap/account.h"
#include "libc_names/wrap.h"

HAK_STATS_AT_END(wrap);

/* <stdlib.h> and <malloc.h> declare the same, but without visibility. */
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

#include "libc_names/family_names.h"

/* ---- blocks outside the range: of hak_malloc's fallback, or libc's --------- */

void haki_policy_free_foreign(void *p)
{
    int saved = errno;
    struct hak_heap *owner;
    size_t size;

    haki_system_count_foreign();
    if (!haki_system_may_know(p) || !haki_system_free(p, &owner, &size)) {
        haki_libc_free(p);
    } else if (owner != NULL) {
        haki_account_discharge_other(owner, size);
    }
    errno = saved;
}

/* It stays outside the range. */
void *haki_policy_realloc_foreign(void *p, size_t size)
{
    struct hak_heap *owner;
    size_t old;
    void *moved;

    haki_system_count_foreign();
    if (!haki_system_may_know(p) || !haki_system_find(p, &owner, &old)) {
        return haki_libc_realloc(p, size);
    }
    moved = haki_system_resize(p, size);
    if (moved != NULL && owner != NULL) {
        haki_account_resize_other(owner, old, size);
    }
    return moved;
}

/* ---- more names --------------------------------------------------------- */

/* Programs linked with glibc before 2.26 may call it. */
void cfree(void *p)
{
    free(p);
}

void *memalign(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

#ifdef __GLIBC__
/*
 * glibc's own names for malloc, which programs that wrap it may call. These are
 * the two that take a block, and that may be ours.
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
 * C23's functions, which C libraries before glibc 2.43 don't have. A size
 * larger than the block is fatal; in the hardened build, which knows the size
 * asked for, so is any other size. Weak: a program linked with libhakmem.a may
 * define its own for older compilers.
 */
#define WRAP_WEAK __attribute__((weak))

static HAK_NOINLINE void wrap_free_sized_slow(void *p, size_t size,
                                              const char *caller)
{
    size_t usable;

    /*
     * In a signal handler the thread may already hold the locks that this
     * takes.
     */
    if (p != NULL && haki_range_owns(p) &&
        (haki_wrap_flags & HAK_WRAP_INSIDE) == 0) {
        usable = haki_lane_usable(p, caller);
        if (size > usable || (HAK_HARD && size != usable)) {
            haki_fatal("%s(%p, %zu): the block has %zu bytes", caller, p, size,
                       usable);
        }
    }
    free(p);
}

WRAP_WEAK void free_sized(void *p, size_t size)
{
    if (HAK_HARD || HAK_UNLIKELY(!haki_hot_free(p, size))) {
        wrap_free_sized_slow(p, size, "free_sized");
    }
}

/* 0 is accepted as an alignment, as in aligned_alloc. */
WRAP_WEAK void free_aligned_sized(void *p, size_t alignment, size_t size)
{
    if (HAK_UNLIKELY(alignment != 0 && ((uintptr_t)p & (alignment - 1)) != 0)) {
        haki_fatal("free_aligned_sized(%p, %zu, %zu): not aligned to that", p,
                   alignment, size);
    }
    if (HAK_HARD || HAK_UNLIKELY(!haki_hot_free(p, size))) {
        wrap_free_sized_slow(p, size, "free_aligned_sized");
    }
}
