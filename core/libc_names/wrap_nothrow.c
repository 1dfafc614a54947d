/*
 * wrap_nothrow.c - operator new and delete with std::nothrow.
 *
 * Only in libhakmem.so. When there is no memory the C++ library's own form is
 * called: it tries again through our throwing new and catches what a
 * new-handler throws, which C can't do.
 *
 * Tested by tests/wrap/behaviour.c.
 */
#include "libc_names/wrap_new.h"

void *_ZnwmRKSt9nothrow_t(size_t size, const void *nothrow)
{
    return haki_operator_new_nothrow(size, nothrow,
                                     (hak_function *)_ZnwmRKSt9nothrow_t);
}

void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                         const void *nothrow)
{
    return haki_operator_new_aligned_nothrow(
        size, alignment, nothrow,
        (hak_function *)_ZnwmSt11align_val_tRKSt9nothrow_t);
}

void _ZdlPvRKSt9nothrow_t(void *p, const void *nothrow)
{
    (void)nothrow;
    haki_family_free(p);
}

void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t alignment,
                                         const void *nothrow)
{
    (void)alignment;
    (void)nothrow;
    haki_family_free(p);
}

HAK_WRAP_SAME(_ZnamRKSt9nothrow_t, _ZnwmRKSt9nothrow_t);
HAK_WRAP_SAME(_ZnamSt11align_val_tRKSt9nothrow_t,
              _ZnwmSt11align_val_tRKSt9nothrow_t);
HAK_WRAP_SAME(_ZdaPvRKSt9nothrow_t, _ZdlPvRKSt9nothrow_t);
HAK_WRAP_SAME(_ZdaPvSt11align_val_tRKSt9nothrow_t,
              _ZdlPvSt11align_val_tRKSt9nothrow_t);
