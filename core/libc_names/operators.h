/*
 * operators.h - C++'s operator new over the policy of family.h; every operator
 * delete is haki_family_free. Written in C, so that no C program loads a C++
 * library because of us.
 *
 * In their mangled names nw is new, na new[], dl delete, da delete[]; m is a
 * size_t, Pv a pointer. What C++ demands of a failing new (call the
 * new-handler, throw std::bad_alloc, catch it for std::nothrow) is left to the
 * C++ library's own operator, which calls malloc again and then does it. The
 * policy adds:
 *
 *   hak_function *haki_policy_next_new(name, self)
 *       the operator that would serve if ours, `self`, were not there; or NULL
 *   void *haki_policy_new_failed(alignment, size)
 *       does what C++ demands if there is none; must not return NULL
 *
 * new[] may be the same function as new.
 */
#ifndef HAK_OPERATORS_H
#define HAK_OPERATORS_H

#include <dlfcn.h>

#include "libc_names/family.h"

/*
 * For haki_policy_next_new, which has found `first` or NULL: a C++ library may
 * be out of sight, when a module that was opened with RTLD_LOCAL (as Python's
 * are) has brought it along.
 */
HAK_INLINE hak_function *
haki_operator_next(hak_function *first, const char *name, hak_function *self)
{
    static const char *const libraries[] = {"libstdc++.so.6", "libc++.so.1"};
    hak_function *found = first != self ? first : NULL;

    for (int i = 0; i < 2 && found == NULL; i++) {
        void *library = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD);

        found =
            __extension__(hak_function *)(library != NULL ? dlsym(library, name)
                                                          : NULL);
    }
    return found != self ? found : NULL;
}

/* A block for the aligned forms; NULL: no memory, or not a power of two. */
HAK_INLINE void *operator_block(size_t size, size_t alignment)
{
    void *p;

    if (!haki_is_pow2(alignment) || alignment > PTRDIFF_MAX ||
        size > PTRDIFF_MAX - alignment) {
        return NULL;
    }
    p = alignment > HAK_LANE_ALIGN ? haki_policy_take_aligned(alignment, size)
                                   : NULL;
    return HAK_LIKELY(p != NULL)
               ? p
               : haki_family_alloc(haki_max(alignment, HAK_LANE_ALIGN), size,
                                   false);
}

/*
 * The size to ask the C++ library's aligned operators for: libstdc++ rounds it
 * up to the alignment, and SIZE_MAX to 0, which would succeed.
 */
HAK_INLINE size_t operator_size(size_t size)
{
    return haki_min(size, PTRDIFF_MAX);
}

/* Not every file that includes this uses all of them. */
#define OPERATOR_SLOW static __attribute__((noinline, unused))

/* ---- operators that throw ------------------------------------------------ */

OPERATOR_SLOW void *operator_new_slow(size_t size, hak_function *self)
{
    void *p = haki_family_malloc_slow(size);
    void *(*next)(size_t);

    if (HAK_LIKELY(p != NULL)) {
        return p;
    }
    next = (void *(*)(size_t))haki_policy_next_new("_Znwm", self);
    return next != NULL ? next(size)
                        : haki_policy_new_failed(HAK_LANE_ALIGN, size);
}

HAK_INLINE void *haki_operator_new(size_t size, hak_function *self)
{
    void *p = haki_policy_take(size);

    return HAK_LIKELY(p != NULL) ? p : operator_new_slow(size, self);
}

HAK_INLINE void *haki_operator_new_aligned(size_t size, size_t alignment,
                                           hak_function *self)
{
    void *p = operator_block(size, alignment);
    void *(*next)(size_t, size_t);

    if (HAK_LIKELY(p != NULL)) {
        return p;
    }
    next =
        (void *(*)(size_t, size_t))haki_policy_next_new("_ZnwmSt11align_val_t",
                                                        self);
    return next != NULL ? next(operator_size(size), alignment)
                        : haki_policy_new_failed(alignment, size);
}

/* ---- operators that don't ------------------------------------------------ */

OPERATOR_SLOW void *operator_nothrow_slow(size_t size, const void *nothrow,
                                          hak_function *self)
{
    void *p = haki_family_malloc_slow(size);
    void *(*next)(size_t, const void *);

    if (HAK_LIKELY(p != NULL)) {
        return p;
    }
    next = (void *(*)(size_t,
                      const void *))haki_policy_next_new("_ZnwmRKSt9nothrow_t",
                                                         self);
    return next != NULL ? next(size, nothrow) : NULL;
}

HAK_INLINE void *haki_operator_new_nothrow(size_t size, const void *nothrow,
                                           hak_function *self)
{
    void *p = haki_policy_take(size);

    return HAK_LIKELY(p != NULL) ? p
                                 : operator_nothrow_slow(size, nothrow, self);
}

HAK_INLINE void *haki_operator_new_aligned_nothrow(size_t size,
                                                   size_t alignment,
                                                   const void *nothrow,
                                                   hak_function *self)
{
    void *p = operator_block(size, alignment);
    void *(*next)(size_t, size_t, const void *);

    if (HAK_LIKELY(p != NULL)) {
        return p;
    }
    next = (void *(*)(size_t, size_t, const void *))
        haki_policy_next_new("_ZnwmSt11align_val_tRKSt9nothrow_t", self);
    return next != NULL ? next(operator_size(size), alignment, nothrow) : NULL;
}

#endif /* HAK_OPERATORS_H */
