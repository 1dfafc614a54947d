/*
 * wrap_new.c - C++'s operator new and delete, by their mangled names.
 *
 * The nothrow forms are in wrap_nothrow.c, which is not in libhakmem.a: there
 * the C++ library may be linked statically too, and only its own forms can
 * catch.
 *
 * Tested by tests/wrap/behaviour.c.
 */
#include "libc_names/wrap_new.h"

#include "base/msg.h"

#define WRAP_NEW_WEAK __attribute__((weak))

/* std::get_new_handler, std::__throw_bad_alloc. */
#ifdef HAK_STATIC_NEW
/* A program that takes this file from libhakmem.a is C++ and has both. */
void (*_ZSt15get_new_handlerv(void))(void);
_Noreturn void _ZSt17__throw_bad_allocv(void);
#define CXX_IS_LINKED true

hak_function *haki_policy_next_new(const char *name, hak_function *self)
{
    (void)name;
    (void)self;
    return NULL;
}
#else
WRAP_NEW_WEAK void (*_ZSt15get_new_handlerv(void))(void);
WRAP_NEW_WEAK _Noreturn void _ZSt17__throw_bad_allocv(void);
#define CXX_IS_LINKED                                                          \
    (_ZSt15get_new_handlerv != NULL && _ZSt17__throw_bad_allocv != NULL)

hak_function *haki_policy_next_new(const char *name, hak_function *self)
{
    return haki_operator_next(haki_libc_next(name), name, self);
}
#endif

/* Uses the C++ library that we are linked with. */
void *haki_policy_new_failed(size_t alignment, size_t size)
{
    void *p;

    if (!CXX_IS_LINKED) {
        haki_fatal("operator new(%zu): out of memory, and there is no C++ "
                   "library to throw std::bad_alloc",
                   size);
    }
    do {
        void (*handler)(void) = _ZSt15get_new_handlerv();

        if (handler == NULL) {
            _ZSt17__throw_bad_allocv();
        }
        handler();
        p = haki_family_alloc(alignment, size, false);
    } while (p == NULL);
    return p;
}

/* ---- new ---------------------------------------------------------------- */

void *_Znwm(size_t size)
{
    return haki_operator_new(size, (hak_function *)_Znwm);
}

void *_ZnwmSt11align_val_t(size_t size, size_t alignment)
{
    return haki_operator_new_aligned(size, alignment,
                                     (hak_function *)_ZnwmSt11align_val_t);
}

HAK_WRAP_SAME(_Znam, _Znwm);
HAK_WRAP_SAME(_ZnamSt11align_val_t, _ZnwmSt11align_val_t);

/* ---- delete ------------------------------------------------------------- */

void _ZdlPv(void *p)
{
    haki_family_free(p);
}

void _ZdlPvm(void *p, size_t size)
{
    (void)size;
    haki_family_free(p);
}

void _ZdlPvmSt11align_val_t(void *p, size_t size, size_t alignment)
{
    (void)size;
    (void)alignment;
    haki_family_free(p);
}

HAK_WRAP_SAME(_ZdaPv, _ZdlPv);
HAK_WRAP_SAME(_ZdaPvm, _ZdlPvm);
HAK_WRAP_SAME(_ZdaPvmSt11align_val_t, _ZdlPvmSt11align_val_t);
HAK_WRAP_SAME(_ZdlPvSt11align_val_t, _ZdlPvm);
HAK_WRAP_SAME(_ZdaPvSt11align_val_t, _ZdlPvm);
