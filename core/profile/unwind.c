/*
 * unwind.c - C frames, by recipes (recipes.h) or by libgcc's unwinder: see stacks.h.
 *
 * libgcc's is declared as the C++ ABI for Itanium has it, which all compilers share.
 *
 * Tested by tests/unit/profile/profile.c.
 */
#include <dlfcn.h>
#include <string.h>

#include "base/assert.h"
#include "profile/recipes.h"
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
static atomic_bool unwind_prepared; /* there are recipes */

/* See haki_unwind_runtime. */
static struct hak_code unwind_loop, unwind_silent[HAK_UNWIND_SILENT];
static atomic_bool unwind_known;

struct unwind_walk {
    uintptr_t *pc;
    unsigned count, most;
    unsigned skip; /* frames of this file, told by none */
    unwind_get_pc get;
    bool told; /* the runtime has told its frames */
    bool lost; /* it ends at a frame that can't be true */
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

/* A frame that goes on at pc, 0 behind the last one; false: no more are wanted. */
static bool unwind_take(struct unwind_walk *walk, uintptr_t pc)
{
    if (pc == 0 || walk->count == walk->most ||
        (walk->told && unwind_is_in(&unwind_loop, pc))) {
        return false;
    }
    if (walk->skip > 0) {
        walk->skip--;
    } else if (!walk->told || !unwind_is_silent(pc)) {
        walk->pc[walk->count++] = pc;
    }
    return true;
}

static int unwind_note(struct _Unwind_Context *context, void *arg)
{
    struct unwind_walk *walk = arg;

    return unwind_take(walk, walk->get(context)) ? UNWIND_GO_ON : UNWIND_STOP;
}

void haki_unwind_begin(void)
{
    void *library, *open, *find, *run = NULL, *get = NULL;

    if (atomic_load(&unwind_run) != NULL || dlsym == NULL) {
        return;
    }
    find = dlsym(RTLD_DEFAULT, "_dl_find_object");
    if (find == NULL) {
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
        haki_recipes_begin(find);
        atomic_store(&unwind_pc, (unwind_get_pc)(uintptr_t)get);
        atomic_store(&unwind_run, (unwind_backtrace)(uintptr_t)run);
    }
}

void haki_unwind_prepare(void)
{
    void *find = dlsym != NULL ? dlsym(RTLD_DEFAULT, "_dl_find_object") : NULL;
    void *open;

    if (find == NULL) {
        return;
    }
    if (HAK_RECIPES) {
        haki_recipes_begin(find);
        atomic_store(&unwind_prepared, true);
        return;
    }
    open = dlsym(RTLD_DEFAULT, "dlopen");
    if (open != NULL &&
        ((unwind_open)(uintptr_t)open)("libgcc_s.so.1",
                                       RTLD_NOW | RTLD_NOLOAD) != NULL) {
        haki_unwind_begin();
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

/* By recipes, all that can be walked; false: there is a frame without one. */
static HAK_NOINLINE bool unwind_quick(struct unwind_walk *walk)
{
    struct hak_walk at = {0};

    HAK_WALK_HERE(&at);
    do {
        if (!haki_recipes_step(&at)) {
            walk->lost = at.lost;
            return at.lost;
        }
    } while (unwind_take(walk, at.pc));
    return true;
}

/* By libgcc, whose first frame is this one. */
static HAK_NOINLINE void unwind_full(struct unwind_walk *walk)
{
    walk->skip++;
    atomic_load_explicit(&unwind_run, memory_order_relaxed)(unwind_note, walk);
    __asm__ volatile(""); /* no jump but a call: there is such a frame */
}

/* Whether both say the same. */
static HAK_NOINLINE bool unwind_agrees(const struct unwind_walk *quick)
{
    uintptr_t pc[HAK_STACK_PCS];
    struct unwind_walk full = *quick;

    full.pc = pc;
    full.count = 0;
    full.skip = 2; /* this one, and haki_unwind */
    unwind_full(&full);
    return full.count == quick->count &&
           memcmp(pc, quick->pc, full.count * sizeof(*pc)) == 0;
}

HAK_NOINLINE unsigned haki_unwind(uintptr_t *pc, unsigned most, bool told)
{
    struct unwind_walk walk = {.pc = pc, .most = most, .skip = 1};

    bool full = atomic_load_explicit(&unwind_run, memory_order_acquire) != NULL;

    if (!full &&
        !atomic_load_explicit(&unwind_prepared, memory_order_acquire)) {
        return 0;
    }
    walk.get = atomic_load_explicit(&unwind_pc, memory_order_relaxed);
    walk.told =
        told && atomic_load_explicit(&unwind_known, memory_order_acquire);
    if (unwind_quick(&walk)) {
        HAK_ASSERT(!full || walk.lost || unwind_agrees(&walk));
        return walk.count;
    }
    if (full) {
        walk.count = 0;
        walk.skip = 1;
        unwind_full(&walk);
    }
    return walk.count;
}

#ifdef HAK_TESTING
HAK_NOINLINE unsigned haki_unwind_test(uintptr_t *pc, unsigned most, bool quick)
{
    struct unwind_walk walk = {.pc = pc, .most = most, .skip = 1};

    walk.get = atomic_load(&unwind_pc);
    if (quick) {
        return unwind_quick(&walk) ? walk.count : 0;
    }
    unwind_full(&walk);
    return walk.count;
}
#endif
