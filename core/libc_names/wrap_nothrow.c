/*
 * wrap_nothrow.c - operator new and delete with std::nothrow.
 *
 * Only in libhakmem.so. When there is no memory the C++ library's own form is
 * asked: it tries again through our throwing new and catches what a
 * new-handler throws, which C can't.
 */
#include "libc_names/wrap_new.h"

/* ---- new ---------------------------------------------------------------- */

static HAK_NOINLINE void *new_slow(size_t size, const void *nothrow)
{
    void *p = hak_wrap_alloc(HAK_LANE_ALIGN, size, false);
    void *(*next)(size_t, const void *);

    if (HAK_LIKELY(p != NULL)) {
        return p;
    }
    next = (void *(*)(size_t, const void *))hak_wrap_next_new(
        "_ZnwmRKSt9nothrow_t", (hak_function *)_ZnwmRKSt9nothrow_t);
    return next != NULL ? next(size, nothrow) : NULL;
}

void *_ZnwmRKSt9nothrow_t(size_t size, const void *nothrow)
{
    void *p = hak_hot_malloc(size);

    return HAK_LIKELY(p != NULL) ? p : new_slow(size, nothrow);
}

void *_ZnamRKSt9nothrow_t(size_t size, const void *nothrow)
{
    void *p = hak_hot_malloc(size);

    return HAK_LIKELY(p != NULL) ? p : new_slow(size, nothrow);
}

void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                         const void *nothrow)
{
    void *p = hak_wrap_aligned_new(size, alignment);
    void *(*next)(size_t, size_t, const void *);

    if (HAK_LIKELY(p != NULL)) {
        return p;
    }
    next = (void *(*)(size_t, size_t, const void *))
        hak_wrap_next_new("_ZnwmSt11align_val_tRKSt9nothrow_t",
                          (hak_function *)_ZnwmSt11align_val_tRKSt9nothrow_t);
    return next != NULL ? next(size, alignment, nothrow) : NULL;
}

void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                         const void *nothrow)
{
    return _ZnwmSt11align_val_tRKSt9nothrow_t(size, alignment, nothrow);
}

/* ---- delete ------------------------------------------------------------- */

HAK_INLINE void delete_any(void *p)
{
    if (HAK_UNLIKELY(!hak_hot_free(p, 0))) {
        hak_wrap_free(p);
    }
}

void _ZdlPvRKSt9nothrow_t(void *p, const void *nothrow)
{
    (void)nothrow;
    delete_any(p);
}

void _ZdaPvRKSt9nothrow_t(void *p, const void *nothrow)
{
    (void)nothrow;
    delete_any(p);
}

void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t alignment,
                                         const void *nothrow)
{
    (void)alignment;
    (void)nothrow;
    delete_any(p);
}

void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, size_t alignment,
                                         const void *nothrow)
{
    (void)alignment;
    (void)nothrow;
    delete_any(p);
}
