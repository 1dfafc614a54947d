/*
 * wrap_dl.c - dlopen, dlmopen and dlsym, where they would bypass us.
 *
 * In a program whose malloc is ours, there are two ways to reach the C
 * library's free, which aborts when it gets a block of ours:
 *
 *   RTLD_DEEPBIND   a library opened with it (PHP's extensions are) looks
 *                   names up in itself and what it needs, the C library
 *                   included, before the program; the flag is dropped, unless
 *                   HAKMEM_DEEPBIND=keep.
 *   a handle        dlsym(handle, "free"), which is what Python's ctypes and
 *                   Ruby's Fiddle do, finds the C library's own. They get
 *                   ours. Another library's own free is left alone.
 *
 * Everything else is left to the real function, which is jumped to, not called:
 * its return address tells it the caller's RUNPATH and namespace, and what
 * RTLD_NEXT and RTLD_DEFAULT mean. RTLD_NEXT is left alone for another reason
 * too: whoever asks for the next malloc wraps ours, or is wrapped by us.
 *
 * dlvsym is left as it is, since it finds the real functions. All of this may
 * be called before any constructor of ours has run. The definitions are weak:
 * in libhakmem.a they yield to the program's.
 *
 * Tested by tests/wrap/whose.c and tests/wrap/cores.c.
 */
#include <dlfcn.h>
#include <features.h>

#include "settings/options.h"
#include "base/stub.h"
#include "libc_names/wrap.h"

#if defined(__GLIBC__) && HAK_HAS_STUBS

#include <gnu/lib-names.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define WRAP_DL_WEAK __attribute__((weak))

/* ---- the real functions ------------------------------------------------- */

enum function { DLOPEN, DLMOPEN, DLSYM, FUNCTIONS };

/* The names in a static program; they exist if it needs them. */
WRAP_DL_WEAK void *___dlopen(const char *file, int mode);
WRAP_DL_WEAK void *___dlmopen(Lmid_t space, const char *file, int mode);
WRAP_DL_WEAK void *___dlsym(void *handle, const char *name);
#if __GLIBC_PREREQ(2, 34)
extern __typeof__(dlvsym) dlvsym WRAP_DL_WEAK;
#define HAS_DLVSYM (dlvsym != NULL)
#else
#define HAS_DLVSYM true /* then it is in libdl, which must be linked */
#endif

/* The symbol version of dlsym since its beginning. */
#ifdef __x86_64__
#define DLSYM_VERSION "GLIBC_2.2.5"
#else
#define DLSYM_VERSION "GLIBC_2.17"
#endif

/*
 * The C library's own dlsym finds the next definition, which may be another
 * library's.
 */
static hak_function *wrap_look_up(enum function which)
{
    static const char *const names[FUNCTIONS] = {
        [DLOPEN] = "dlopen", [DLMOPEN] = "dlmopen", [DLSYM] = "dlsym"};
    hak_function *const linked[FUNCTIONS] = {
        [DLOPEN] = (hak_function *)___dlopen,
        [DLMOPEN] = (hak_function *)___dlmopen,
        [DLSYM] = (hak_function *)___dlsym,
    };
    void *(*find)(void *, const char *);

    if (linked[which] != NULL || !HAS_DLVSYM) {
        return linked[which];
    }
    *(void **)&find = dlvsym(RTLD_NEXT, "dlsym", DLSYM_VERSION);
    return __extension__(hak_function *)(find != NULL
                                             ? find(RTLD_NEXT, names[which])
                                             : NULL);
}

/* The function that comes after ours; NULL: a static program without it. */
static hak_function *wrap_real(enum function which)
{
    static _Atomic(hak_function *) found[FUNCTIONS];
    hak_function *function =
        atomic_load_explicit(&found[which], memory_order_relaxed);

    if (function == NULL) {
        function = wrap_look_up(which);
        atomic_store_explicit(&found[which], function, memory_order_relaxed);
    }
    return function;
}

static void *wrap_real_dlopen(const char *file, int mode)
{
    return ((void *(*)(const char *, int))wrap_real(DLOPEN))(file, mode);
}

static void *wrap_real_dlsym(void *handle, const char *name)
{
    return ((void *(*)(void *, const char *))wrap_real(DLSYM))(handle, name);
}

/* ---- what is ours ------------------------------------------------------- */

static const struct wrap_owned {
    const char *name;
    hak_function *ours;
} wrap_owned[] = {
#define OWNED(name)                                                            \
    {                                                                          \
#name, (hak_function *)(name)                                          \
    }
    OWNED(malloc),
    OWNED(free),
    OWNED(calloc),
    OWNED(realloc),
    OWNED(reallocarray),
    OWNED(posix_memalign),
    OWNED(aligned_alloc),
    OWNED(memalign),
    OWNED(valloc),
    OWNED(pvalloc),
    OWNED(cfree),
    OWNED(malloc_usable_size),
    OWNED(malloc_trim),
    OWNED(malloc_stats),
    OWNED(mallinfo2),
    OWNED(free_sized),
    OWNED(free_aligned_sized),
#undef OWNED
};

static const struct wrap_owned *wrap_find_owned(const char *name)
{
    for (size_t i = 0; i < sizeof(wrap_owned) / sizeof(wrap_owned[0]); i++) {
        if (strcmp(name, wrap_owned[i].name) == 0) {
            return &wrap_owned[i];
        }
    }
    return NULL;
}

/*
 * What the program calls by this name. RTLD_DEFAULT would not do: linked with
 * -Bsymbolic, we would find our own.
 */
static void *wrap_of_program(const char *name)
{
    void *program = wrap_real(DLOPEN) != NULL && wrap_real(DLSYM) != NULL
                        ? wrap_real_dlopen(NULL, RTLD_LAZY)
                        : NULL;

    return program != NULL ? wrap_real_dlsym(program, name) : NULL;
}

/*
 * Whether the program's malloc leads to us. A different address does not mean
 * that it doesn't: in a program that is not position independent it may be an
 * entry of its linkage table. Then a test block decides.
 */
static bool wrap_is_ours(void)
{
    void *(*call)(size_t);
    void (*give_back)(void *);
    void *found = wrap_of_program("malloc"), *gives = wrap_of_program("free"),
         *p;
    bool ours;

    if (found == (void *)(uintptr_t)malloc || found == NULL || gives == NULL) {
        return found != NULL;
    }
    memcpy(&call, &found, sizeof(call));
    memcpy(&give_back, &gives, sizeof(give_back));
    p = call(1);
    ours = p != NULL && haki_range_owns(p);
    give_back(p);
    return ours;
}

/*
 * Whether we serve the process's blocks: not if the program brings its own
 * malloc, nor if everything goes to the C library. The program's own malloc may
 * call dlsym when it is first used, and so come here: then malloc is not ours.
 */
static bool wrap_serves(void)
{
    enum { UNKNOWN, YES, NO };
    static _Atomic(int) known;
    static __thread bool asking __attribute__((tls_model("initial-exec")));
    int answer = atomic_load_explicit(&known, memory_order_relaxed);

    if (answer == UNKNOWN) {
        if (asking || (haki_wrap_flags & HAK_WRAP_INSIDE) != 0) {
            return false;
        }
        asking = true;
        answer = wrap_is_ours() ? YES : NO;
        asking = false;
        /* Before our start a test block proves nothing. */
        if (answer == YES ||
            atomic_load(&haki_wrap_state) > HAK_WRAP_STARTING) {
            atomic_store_explicit(&known, answer, memory_order_relaxed);
        }
    }
    return answer == YES && !haki_option(HAK_OPT_force_libc_alloc);
}

/* Whether the C library's own definition of a name is at p. */
static bool wrap_is_libcs(const char *name, const void *p)
{
    static _Atomic(void *) handle;
    void *libc = atomic_load_explicit(&handle, memory_order_relaxed);

    if (libc == NULL) {
        libc = wrap_real(DLOPEN) != NULL
                   ? wrap_real_dlopen(LIBC_SO, RTLD_LAZY | RTLD_NOLOAD)
                   : NULL;
        atomic_store_explicit(&handle, libc, memory_order_relaxed);
    }
    return libc != NULL && wrap_real_dlsym(libc, name) == p;
}

/* ---- the stubs' decisions ----------------------------------------------- */

HAK_STUB_ONLY hak_function *haki_wrap_dlopen(uintptr_t *args);
HAK_STUB_ONLY hak_function *haki_wrap_dlmopen(uintptr_t *args);
HAK_STUB_ONLY hak_function *haki_wrap_dlsym(uintptr_t *args);

static hak_function *wrap_pass_on(enum function which, uintptr_t *args)
{
    hak_function *function = wrap_real(which);

    if (function == NULL) {
        args[0] = 0;
    }
    return function;
}

static uintptr_t wrap_without_deepbind(uintptr_t mode)
{
    if ((mode & RTLD_DEEPBIND) != 0 &&
        haki_option(HAK_OPT_deepbind) == HAK_DEEPBIND_DROP && wrap_serves()) {
        mode &= ~(uintptr_t)RTLD_DEEPBIND;
    }
    return mode;
}

hak_function *haki_wrap_dlopen(uintptr_t *args)
{
    args[1] = wrap_without_deepbind(args[1]);
    return wrap_pass_on(DLOPEN, args);
}

/* Another namespace has its own C library, and so its own malloc. */
hak_function *haki_wrap_dlmopen(uintptr_t *args)
{
    if (args[0] == LM_ID_BASE) {
        args[2] = wrap_without_deepbind(args[2]);
    }
    return wrap_pass_on(DLMOPEN, args);
}

hak_function *haki_wrap_dlsym(uintptr_t *args)
{
    void *handle = (void *)args[0];
    const char *name = (const char *)args[1];
    const struct wrap_owned *known;
    void *found;

    if (handle == RTLD_DEFAULT || handle == RTLD_NEXT || name == NULL ||
        wrap_real(DLSYM) == NULL || (known = wrap_find_owned(name)) == NULL ||
        !wrap_serves()) {
        return wrap_pass_on(DLSYM, args);
    }
    found = wrap_real_dlsym(handle, name);
    if (found != NULL && wrap_is_libcs(name, found)) {
        args[0] = (uintptr_t)known->ours;
    } else {
        args[0] = (uintptr_t)found;
    }
    return NULL;
}

/* ---- the stubs ---------------------------------------------------------- */

HAK_STUB(".weak dlopen", "dlopen", "haki_wrap_dlopen");
HAK_STUB(".weak dlmopen", "dlmopen", "haki_wrap_dlmopen");
HAK_STUB(".weak dlsym", "dlsym", "haki_wrap_dlsym");

#endif /* a processor with stubs */
