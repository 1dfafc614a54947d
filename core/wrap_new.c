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
#include "wrap_new.h"

#include <dlfcn.h>

#include "msg.h"

#define WEAK __attribute__((weak))

/* std::get_new_handler, std::__throw_bad_alloc. */
WEAK void (*_ZSt15get_new_handlerv(void))(void);
#ifdef HAK_STATIC_NEW
/* Whoever takes this file from libhakmem.a is C++ and has it. */
_Noreturn void _ZSt17__throw_bad_allocv(void);
#define THROW_IS_LINKED 1
#else
WEAK _Noreturn void _ZSt17__throw_bad_allocv(void);
#define THROW_IS_LINKED (&_ZSt17__throw_bad_allocv != NULL)
#endif

/* Weak as in libc_real.c. */
extern __typeof__(dlsym) dlsym WEAK;
extern __typeof__(dladdr) dladdr WEAK;
extern __typeof__(dlopen) dlopen WEAK;

/*
 * A library that was opened with its own C++ library beside it, out of our
 * sight (Python's modules are): asked through the object that called.
 */
static hak_function *from_caller(const char *name, const void *caller)
{
    Dl_info info;
    void *handle;

    if (dlsym == NULL || dladdr == NULL || dlopen == NULL ||
        dladdr(caller, &info) == 0) {
        return NULL;
    }
    handle = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    return __extension__(hak_function *)(handle != NULL ? dlsym(handle, name)
                                                        : NULL);
}

hak_function *hak_wrap_next_new(const char *name, hak_function *self,
                                const void *caller)
{
    hak_function *next = hak_libc_next(name);

    if (next == NULL || next == self) {
        next = from_caller(name, caller);
    }
    return next != self ? next : NULL;
}

/* ---- new ---------------------------------------------------------------- */

/* What C++ asks for, as far as the C++ library is linked with us. */
static void *try_again(size_t alignment, size_t size)
{
    for (;;) {
        void (*handler)(void) =
            _ZSt15get_new_handlerv != NULL ? _ZSt15get_new_handlerv() : NULL;
        void *p;

        if (handler == NULL && THROW_IS_LINKED) {
            _ZSt17__throw_bad_allocv();
        }
        if (handler == NULL) {
            hak_fatal("operator new(%zu): out of memory, and there is no C++ "
                      "library to throw std::bad_alloc",
                      size);
        }
        handler();
        p = hak_wrap_alloc(alignment, size, false);
        if (p != NULL) {
            return p;
        }
    }
}

static HAK_COLD void *new_failed(size_t size, const void *caller)
{
    void *(*next)(size_t) =
        (void *(*)(size_t))hak_wrap_next_new("_Znwm", (hak_function *)_Znwm,
                                             caller);

    return next != NULL ? next(size) : try_again(16, size);
}

static HAK_COLD void *aligned_failed(size_t size, size_t alignment,
                                     const void *caller)
{
    void *(*next)(size_t, size_t) = (void *(*)(size_t, size_t))
        hak_wrap_next_new("_ZnwmSt11align_val_t",
                          (hak_function *)_ZnwmSt11align_val_t, caller);

    return next != NULL ? next(size, alignment) : try_again(alignment, size);
}

static HAK_NOINLINE void *new_slow(size_t size, const void *caller)
{
    void *p = hak_wrap_alloc(16, size, false);

    return HAK_LIKELY(p != NULL) ? p : new_failed(size, caller);
}

HAK_INLINE void *new_plain(size_t size, const void *caller)
{
    void *p = hak_hot_malloc(size);

    return HAK_LIKELY(p != NULL) ? p : new_slow(size, caller);
}

HAK_INLINE void *new_aligned(size_t size, size_t alignment, const void *caller)
{
    void *p = hak_wrap_aligned_new(size, alignment);

    return HAK_LIKELY(p != NULL) ? p : aligned_failed(size, alignment, caller);
}

void *_Znwm(size_t size)
{
    return new_plain(size, __builtin_return_address(0));
}

void *_Znam(size_t size)
{
    return new_plain(size, __builtin_return_address(0));
}

void *_ZnwmSt11align_val_t(size_t size, size_t alignment)
{
    return new_aligned(size, alignment, __builtin_return_address(0));
}

void *_ZnamSt11align_val_t(size_t size, size_t alignment)
{
    return new_aligned(size, alignment, __builtin_return_address(0));
}

/* ---- delete ------------------------------------------------------------- */

HAK_INLINE void delete_any(void *p)
{
    if (HAK_UNLIKELY(!hak_hot_free(p))) {
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
