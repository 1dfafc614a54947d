/*
 * new.c - C++'s operator new. The C++ library's own operators return foreign
 * blocks, or ours if the C++ library is patched.
 */
#include "new.h"

#include <dlfcn.h>

#include "policy.h"

static hak_function *haki_policy_next_new(const char *name, hak_function *self);
static void *haki_policy_new_failed(size_t alignment, size_t size);

#include "libc_names/operators.h"

/* Ours have other names, so the lookup never finds them. */
static hak_function *haki_policy_next_new(const char *name, hak_function *self)
{
    void *found = dlsym(RTLD_DEFAULT, name);

    return haki_operator_next(__extension__(hak_function *) found, name, self);
}

static void *haki_policy_new_failed(size_t alignment, size_t size)
{
    (void)alignment;
    haki_fatal(
        "operator new(%zu): out of memory, and there is no C++ library to "
        "throw std::bad_alloc",
        size);
}

void *hak_ngx_Znwm(size_t size)
{
    return haki_operator_new(size, NULL);
}

void *hak_ngx_ZnwmSt11align_val_t(size_t size, size_t alignment)
{
    return haki_operator_new_aligned(size, alignment, NULL);
}

void *hak_ngx_ZnwmRKSt9nothrow_t(size_t size, const void *nothrow)
{
    return haki_operator_new_nothrow(size, nothrow, NULL);
}

void *hak_ngx_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                                const void *nothrow)
{
    return haki_operator_new_aligned_nothrow(size, alignment, nothrow, NULL);
}
