/*
 * unwind.c - C frames, by libgcc's unwinder: see stacks.h.
 *
 * Declared here as the C++ ABI for Itanium has it, which all compilers share.
 *
 * Tested by tests/unit/profile/profile.c.
 */
#include <dlfcn.h>
#include <string.h>

#include "profile/stacks.h"

struct _Unwind_Context;
typedef int (*unwind_step)(struct _Unwind_Context *context, void *arg);
enum { UNWIND_GO_ON = 0, UNWIND_STOP = 5 };

typedef int (*unwind_backtrace)(unwind_step step, void *arg);
typedef uintptr_t (*unwind_get_pc)(struct _Unwind_Context *context);

/* Weak: a static program need not have it. (It has no dlopen that it may be linked
 * with: that is asked for by its name.) */
extern __typeof__(dlsym) dlsym __attribute__((weak));
typedef void *(*unwind_open)(const char *file, int flags);

static _Atomic(unwind_backtrace) unwind_run;
static _Atomic(unwind_get_pc) unwind_pc;

/* See haki_unwind_runtime. */
static struct hak_code unwind_loop, unwind_silent[HAK_UNWIND_SILENT];
static atomic_bool unwind_known;

struct unwind_walk {
    uintptr_t *pc;
    unsigned count, most;
    unwind_get_pc get;
    bool told; /* the runtime has told its frames */
};

static bool unwind_is_in(const struct hak_code *code, uintptr_t pc)
{
    return pc >= code->from && pc < code->to;
}

static bool unwind_is_silent(uintptr_t pc)
{
    for (unsigned i = 0; i < HAK_UNWIND_SILENT; i++) {
        if (unwind_is_in(&unwind_silent[i], pc)) {
            return true;
        }
    }
    return false;
}

static int unwind_note(struct _Unwind_Context *context, void *arg)
{
    struct unwind_walk *walk = arg;
    uintptr_t pc = walk->get(context);

    if (pc == 0 || walk->count == walk->most ||
        (walk->told && unwind_is_in(&unwind_loop, pc))) {
        return UNWIND_STOP;
    }
    if (!walk->told || !unwind_is_silent(pc)) {
        walk->pc[walk->count++] = pc;
    }
    return UNWIND_GO_ON;
}

void haki_unwind_begin(void)
{
    void *library, *open, *run = NULL, *get = NULL;

    if (atomic_load(&unwind_run) != NULL || dlsym == NULL ||
        dlsym(RTLD_DEFAULT, "_dl_find_object") == NULL) {
        return;
    }
    open = dlsym(RTLD_DEFAULT, "dlopen");
    if (open == NULL) {
        return;
    }
    library = ((unwind_open)(uintptr_t)open)("libgcc_s.so.1", RTLD_NOW);
    if (library != NULL) {
        run = dlsym(library, "_Unwind_Backtrace");
        get = dlsym(library, "_Unwind_GetIP");
    }
    if (run != NULL && get != NULL) {
        struct unwind_walk walk = {.get = (unwind_get_pc)(uintptr_t)get};

        /* Once here: the first walk may initialise something. */
        ((unwind_backtrace)(uintptr_t)run)(unwind_note, &walk);
        atomic_store(&unwind_pc, (unwind_get_pc)(uintptr_t)get);
        atomic_store(&unwind_run, (unwind_backtrace)(uintptr_t)run);
    }
}

void haki_unwind_runtime(struct hak_code loop, const struct hak_code *silent)
{
    if (!atomic_load(&unwind_known)) {
        unwind_loop = loop;
        memcpy(unwind_silent, silent, sizeof(unwind_silent));
        atomic_store(&unwind_known, true);
    }
}

unsigned haki_unwind(uintptr_t *pc, unsigned most, bool told)
{
    unwind_backtrace run =
        atomic_load_explicit(&unwind_run, memory_order_acquire);
    struct unwind_walk walk = {.pc = pc, .most = most};

    if (run == NULL) {
        return 0;
    }
    walk.get = atomic_load_explicit(&unwind_pc, memory_order_relaxed);
    walk.told =
        told && atomic_load_explicit(&unwind_known, memory_order_acquire);
    run(unwind_note, &walk);
    return walk.count;
}
