/*
 * wrap_new.h - operator new and delete by their mangled names, and what the
 * two files that define them share.
 *
 * In the names, w is new, a new[], l delete, a delete[]; m is a
 * size_t, Pv a pointer.
 */
#ifndef HAK_WRAP_NEW_H
#define HAK_WRAP_NEW_H

#include "libc_names/wrap.h"

HAK_API void *_Znwm(size_t size);
HAK_API void *_Znam(size_t size);
HAK_API void *_ZnwmSt11align_val_t(size_t size, size_t alignment);
HAK_API void *_ZnamSt11align_val_t(size_t size, size_t alignment);
HAK_API void _ZdlPv(void *p);
HAK_API void _ZdaPv(void *p);
HAK_API void _ZdlPvm(void *p, size_t size);
HAK_API void _ZdaPvm(void *p, size_t size);
HAK_API void _ZdlPvSt11align_val_t(void *p, size_t alignment);
HAK_API void _ZdaPvSt11align_val_t(void *p, size_t alignment);
HAK_API void _ZdlPvmSt11align_val_t(void *p, size_t size, size_t alignment);
HAK_API void _ZdaPvmSt11align_val_t(void *p, size_t size, size_t alignment);

/* The same with std::nothrow; its address says nothing. */
HAK_API void *_ZnwmRKSt9nothrow_t(size_t size, const void *nothrow);
HAK_API void *_ZnamRKSt9nothrow_t(size_t size, const void *nothrow);
HAK_API void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                                 const void *nothrow);
HAK_API void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                                 const void *nothrow);
HAK_API void _ZdlPvRKSt9nothrow_t(void *p, const void *nothrow);
HAK_API void _ZdaPvRKSt9nothrow_t(void *p, const void *nothrow);
HAK_API void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t alignment,
                                                 const void *nothrow);
HAK_API void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, size_t alignment,
                                                 const void *nothrow);

/*
 * The C++ library's definition of an operator, which would serve if ours,
 * `self`, were not there. NULL: none is found.
 */
hak_function *hak_wrap_next_new(const char *name, hak_function *self);

/* A block for the aligned forms; NULL: no memory, or not a power of two. */
HAK_INLINE void *hak_wrap_aligned_new(size_t size, size_t alignment)
{
    if (!hak_is_pow2(alignment) || alignment > PTRDIFF_MAX ||
        size > PTRDIFF_MAX - alignment) {
        return NULL;
    }
    return hak_wrap_alloc(hak_max(alignment, 16), size, false);
}

#endif /* HAK_WRAP_NEW_H */
