/*
 * wrap_new.c - C++'s operator new and delete, by their mangled names.
 *
 * In C, so that no C program loads a C++ library for our sake. What C++ asks
 * of a failing new (call the new-handler, throw std::bad_alloc) is left to the
 * C++ library's own operator, which asks malloc again and then does it.
 *
 * The nothrow forms are wrap_nothrow.c: not in libhakmem.a, where the C++
 * library may be linked statically too, and only its own can catch.
 */
#include "libc_names/wrap_new.h"

#include <dlfcn.h>

#include "base/msg.h"

#define WEAK __attribute__((weak))

/* std::get_new_handler, std::__throw_bad_alloc. */
#ifdef HAK_STATIC_NEW
/* Whoever takes this file from libhakmem.a is C++ and has both. */
void (*_ZSt15get_new_handlerv(void))(void);
_Noreturn void _ZSt17__throw_bad_allocv(void);
#define CXX_IS_LINKED true

hak_function *hak_wrap_next_new(const char *name, hak_function *self)
{
    (void)name;
    (void)self;
    return NULL;
}
#else
WEAK void (*_ZSt15get_new_handlerv(void))(void);
WEAK _Noreturn void _ZSt17__throw_bad_allocv(void);
#define CXX_IS_LINKED                                                          \
    (_ZSt15get_new_handlerv != NULL && _ZSt17__throw_bad_allocv != NULL)

/*
 * A C++ library may be out of our sight: a module that was opened for itself
 * (Python's are) has it beside itself.
 */
static hak_function *from_hidden(const char *name)
{
    static const char *const libraries[] = {"libstdc++.so.6", "libc++.so.1"};
    void *found = NULL;

    for (int i = 0; i < 2 && found == NULL; i++) {
        void *library = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD);

        found = library != NULL ? dlsym(library, name) : NULL;
    }
    return __extension__(hak_function *) found;
}

hak_function *hak_wrap_next_new(const char *name, hak_function *self)
{
    hak_function *next = hak_libc_next(name);

    if (next == NULL || next == self) {
        next = from_hidden(name);
    }
    return next != self ? next : NULL;
}
#endif

/* ---- new ---------------------------------------------------------------- */

/* What C++ asks for, with the C++ library that is linked with us. */
static void *try_again(size_t alignment, size_t size)
{
    void *p;

    if (!CXX_IS_LINKED) {
        hak_fatal("operator new(%zu): out of memory, and there is no C++ "
                  "library to throw std::bad_alloc",
                  size);
    }
    do {
        void (*handler)(void) = _ZSt15get_new_handlerv();

        if (handler == NULL) {
            _ZSt17__throw_bad_allocv();
        }
        handler();
        p = hak_wrap_alloc(alignment, size, false);
    } while (p == NULL);
    return p;
}

static HAK_NOINLINE void *new_slow(size_t size)
{
    void *p = hak_wrap_alloc(HAK_LANE_ALIGN, size, false);
    void *(*next)(size_t);

    if (HAK_LIKELY(p != NULL)) {
        return p;
    }
    next = (void *(*)(size_t))hak_wrap_next_new("_Znwm", (hak_function *)_Znwm);
    return next != NULL ? next(size) : try_again(HAK_LANE_ALIGN, size);
}

void *_Znwm(size_t size)
{
    void *p = hak_hot_malloc(size);

    return HAK_LIKELY(p != NULL) ? p : new_slow(size);
}

void *_Znam(size_t size)
{
    void *p = hak_hot_malloc(size);

    return HAK_LIKELY(p != NULL) ? p : new_slow(size);
}

void *_ZnwmSt11align_val_t(size_t size, size_t alignment)
{
    void *p = hak_wrap_aligned_new(size, alignment);
    void *(*next)(size_t, size_t);

    if (HAK_LIKELY(p != NULL)) {
        return p;
    }
    next = (void *(*)(size_t, size_t))hak_wrap_next_new(
        "_ZnwmSt11align_val_t", (hak_function *)_ZnwmSt11align_val_t);
    return next != NULL ? next(size, alignment) : try_again(alignment, size);
}

void *_ZnamSt11align_val_t(size_t size, size_t alignment)
{
    return _ZnwmSt11align_val_t(size, alignment);
}

/* ---- delete ------------------------------------------------------------- */

HAK_INLINE void delete_any(void *p)
{
    if (HAK_UNLIKELY(!hak_hot_free(p, 0))) {
        hak_wrap_free(p);
    }
}

void _ZdlPv(void *p)
{
    delete_any(p);
}

void _ZdaPv(void *p)
{
    delete_any(p);
}

void _ZdlPvm(void *p, size_t size)
{
    (void)size;
    delete_any(p);
}

void _ZdaPvm(void *p, size_t size)
{
    (void)size;
    delete_any(p);
}

void _ZdlPvSt11align_val_t(void *p, size_t alignment)
{
    (void)alignment;
    delete_any(p);
}

void _ZdaPvSt11align_val_t(void *p, size_t alignment)
{
    (void)alignment;
    delete_any(p);
}

void _ZdlPvmSt11align_val_t(void *p, size_t size, size_t alignment)
{
    (void)size;
    (void)alignment;
    delete_any(p);
}

void _ZdaPvmSt11align_val_t(void *p, size_t size, size_t alignment)
{
    (void)size;
    (void)alignment;
    delete_any(p);
}
