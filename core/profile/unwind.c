/*
 * unwind.c - C frames, by libgcc's unwinder: see stacks.h.
 *
 * Declared here as the C++ ABI for Itanium has it, which all compilers share.
 *
 * Tested by tests/unit/profile/profile.c.
 */
#include <dlfcn.h>

#include "profile/stacks.h"

struct _Unwind_Context;
typedef int (*unwind_step)(struct _Unwind_Context *context, void *arg);
enum { UNWIND_GO_ON = 0, UNWIND_STOP = 5 };

typedef int (*unwind_backtrace)(unwind_step step, void *arg);
typedef uintptr_t (*unwind_get_pc)(struct _Unwind_Context *context);

/* Weak: a static program need not have them. */
extern __typeof__(dlopen) dlopen __attribute__((weak));
extern __typeof__(dlsym) dlsym __attribute__((weak));

static _Atomic(unwind_backtrace) unwind_run;
static _Atomic(unwind_get_pc) unwind_pc;

struct unwind_walk {
    uintptr_t *pc;
    unsigned count, most;
    unwind_get_pc get;
};

static int unwind_note(struct _Unwind_Context *context, void *arg)
{
    struct unwind_walk *walk = arg;
    uintptr_t pc = walk->get(context);

    if (pc == 0 || walk->count == walk->most) {
        return UNWIND_STOP;
    }
    walk->pc[walk->count++] = pc;
    return UNWIND_GO_ON;
}

void haki_unwind_begin(void)
{
    void *library, *run = NULL, *get = NULL;

    if (atomic_load(&unwind_run) != NULL || dlsym == NULL || dlopen == NULL ||
        dlsym(RTLD_DEFAULT, "_dl_find_object") == NULL) {
        return;
    }
    library = dlopen("libgcc_s.so.1", RTLD_NOW);
    if (library != NULL) {
        run = dlsym(library, "_Unwind_Backtrace");
        get = dlsym(library, "_Unwind_GetIP");
    }
    if (run != NULL && get != NULL) {
        struct unwind_walk walk = {NULL, 0, 0, (unwind_get_pc)(uintptr_t)get};

        /* Once here: the first walk may initialise something. */
        ((unwind_backtrace)(uintptr_t)run)(unwind_note, &walk);
        atomic_store(&unwind_pc, (unwind_get_pc)(uintptr_t)get);
        atomic_store(&unwind_run, (unwind_backtrace)(uintptr_t)run);
    }
}

unsigned haki_unwind(uintptr_t *pc, unsigned most)
{
    unwind_backtrace run =
        atomic_load_explicit(&unwind_run, memory_order_acquire);
    struct unwind_walk walk = {pc, 0, most, NULL};

    if (run == NULL) {
        return 0;
    }
    walk.get = atomic_load_explicit(&unwind_pc, memory_order_relaxed);
    run(unwind_note, &walk);
    return walk.count;
}
