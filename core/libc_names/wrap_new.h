/*
 * wrap_new.h - operator new and delete by their mangled names, see operators.h.
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

/* The same with std::nothrow, whose address is ignored. */
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

/* Many forms, among them all of those for arrays, are the same function. */
#define HAK_WRAP_SAME(name, as)                                                \
    extern __typeof__(name) name __attribute__((alias(#as)))

/* The policy of operators.h. */
hak_function *haki_policy_next_new(const char *name, hak_function *self);
void *haki_policy_new_failed(size_t alignment, size_t size);

#include "libc_names/operators.h"

#endif /* HAK_WRAP_NEW_H */
