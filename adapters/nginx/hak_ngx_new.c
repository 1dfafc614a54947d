/*
 * hak_ngx_new.c - C++'s operator new.
 *
 * What C++ asks of a failing new (call the new-handler, throw std::bad_alloc)
 * is left to the C++ library's own operator, found when it is needed; what that
 * returns is foreign, or ours if the C++ library is patched.
 */
#include <dlfcn.h>

#include "hak_ngx_hot.h"
#include "hak_ngx_names.h"
#include "hak_ngx_new.h"
#include "embed.h"

/* The C++ library's operator of that name; without one nobody can throw. */
static hak_ngx_function *own(const char *name)
{
    static const char *const libraries[] = {"libstdc++.so.6", "libc++.so.1"};
    void *found = dlsym(RTLD_DEFAULT, name);

    for (int i = 0; i < 2 && found == NULL; i++) {
        void *library = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD);

        found = library != NULL ? dlsym(library, name) : NULL;
    }
    if (found == NULL) {
        hak_fatal("operator new: out of memory, and there is no C++ library "
                  "to throw std::bad_alloc");
    }
    return __extension__(hak_ngx_function *) found;
}

typedef void *plain(size_t size);
typedef void *aligned(size_t size, size_t alignment);
typedef void *quiet(size_t size, const void *nothrow);
typedef void *aligned_quiet(size_t size, size_t alignment, const void *nothrow);

static HAK_NOINLINE void *new_slow(size_t size, const char *name)
{
    void *p = hak_ngx_malloc_slow(size);

    return HAK_LIKELY(p != NULL) ? p : ((plain *)own(name))(size);
}

void *hak_ngx_Znwm(size_t size)
{
    void *p = hak_ngx_take(size);

    return HAK_LIKELY(p != NULL) ? p : new_slow(size, "_Znwm");
}

void *hak_ngx_Znam(size_t size)
{
    void *p = hak_ngx_take(size);

    return HAK_LIKELY(p != NULL) ? p : new_slow(size, "_Znam");
}

void *hak_ngx_ZnwmSt11align_val_t(size_t size, size_t alignment)
{
    void *p = hak_ngx_aligned_alloc(alignment, size);

    return HAK_LIKELY(p != NULL)
               ? p
               : ((aligned *)own("_ZnwmSt11align_val_t"))(size, alignment);
}

void *hak_ngx_ZnamSt11align_val_t(size_t size, size_t alignment)
{
    void *p = hak_ngx_aligned_alloc(alignment, size);

    return HAK_LIKELY(p != NULL)
               ? p
               : ((aligned *)own("_ZnamSt11align_val_t"))(size, alignment);
}

void *hak_ngx_ZnwmRKSt9nothrow_t(size_t size, const void *nothrow)
{
    void *p = hak_ngx_malloc(size);

    return HAK_LIKELY(p != NULL)
               ? p
               : ((quiet *)own("_ZnwmRKSt9nothrow_t"))(size, nothrow);
}

void *hak_ngx_ZnamRKSt9nothrow_t(size_t size, const void *nothrow)
{
    void *p = hak_ngx_malloc(size);

    return HAK_LIKELY(p != NULL)
               ? p
               : ((quiet *)own("_ZnamRKSt9nothrow_t"))(size, nothrow);
}

void *hak_ngx_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                                const void *nothrow)
{
    void *p = hak_ngx_aligned_alloc(alignment, size);

    return HAK_LIKELY(p != NULL)
               ? p
               : ((aligned_quiet *)own("_ZnwmSt11align_val_tRKSt9nothrow_t"))(
                     size, alignment, nothrow);
}

void *hak_ngx_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t alignment,
                                                const void *nothrow)
{
    void *p = hak_ngx_aligned_alloc(alignment, size);

    return HAK_LIKELY(p != NULL)
               ? p
               : ((aligned_quiet *)own("_ZnamSt11align_val_tRKSt9nothrow_t"))(
                     size, alignment, nothrow);
}
