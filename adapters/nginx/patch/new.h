/*
 * new.h - C++'s operator new (libc_names/operators.h), as patched objects call
 * it: hak_ngx_ and the mangled name. new[] uses the same functions, and every
 * operator delete is hak_ngx_free, which ignores further arguments.
 */
#ifndef HAK_NGX_NEW_H
#define HAK_NGX_NEW_H

#include <stddef.h>

void *hak_ngx_Znwm(size_t size);
void *hak_ngx_ZnwmSt11align_val_t(size_t size, size_t alignment);

/* With std::nothrow, whose address is ignored. */
void *hak_ngx_ZnwmRKSt9nothrow_t(size_t size, const void *nothrow);
void *hak_ngx_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                                const void *nothrow);

#endif /* HAK_NGX_NEW_H */
