/*
 * libc_real.c - the C library's own allocator, in a program where malloc is
 * ours.
 *
 * glibc exports it as __libc_malloc and so on; of these __libc_free and
 * __libc_realloc are ours as well (wrap.c), and the real ones are looked up.
 * The references are weak: a static program has no second allocator, since the
 * linker takes only one malloc. There every block is a mapping of its own, with
 * its bounds in front of it; that is slow and wastes most of a page, but serves
 * only what the lanes refuse. With musl, whose allocator has no other names,
 * every program does that.
 *
 * Tested by tests/wrap/guards.c and tests/wrap/life.c.
 */
#include "system/libc.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "settings/options.h"
#include "os/os.h"
#include "range/range.h"

#define LIBC_WEAK __attribute__((weak))

#ifdef __GLIBC__
LIBC_WEAK void *__libc_malloc(size_t size);
LIBC_WEAK void *__libc_calloc(size_t count, size_t size);
LIBC_WEAK void *__libc_memalign(size_t alignment, size_t size);
/* These are ours. */
LIBC_WEAK void __libc_free(void *p);
LIBC_WEAK void *__libc_realloc(void *p, size_t size);
/*
 * Its r_map is the program, as a handle for dlsym. dlopen would give one too,
 * but using it makes the linker warn in static programs.
 */
extern __typeof__(_r_debug) _r_debug LIBC_WEAK;
#endif
/* Weak, so that a static program doesn't get it because of us. */
extern __typeof__(dlsym) dlsym LIBC_WEAK;

/* ---- without a C library's allocator ------------------------------------ */

struct bounds {
    char *start;
    size_t mapped;
};

_Static_assert(sizeof(struct bounds) == 16, "blocks stay 16-byte aligned");

static struct bounds *libc_bounds_of(void *p)
{
    return (struct bounds *)p - 1;
}

static size_t libc_own_usable(void *p)
{
    const struct bounds *bounds = libc_bounds_of(p);

    return (size_t)(bounds->start + bounds->mapped - (char *)p);
}

static void *libc_own_alloc(size_t alignment, size_t size)
{
    size_t mapped;
    char *start = NULL;
    void *p;

    if (!__builtin_add_overflow(size, alignment + HAK_PAGE, &mapped) &&
        mapped <= PTRDIFF_MAX) {
        mapped &= ~(HAK_PAGE - 1);
        start = haki_os_map(mapped);
    }
    if (start == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    p = (void *)haki_round_up((uintptr_t)start + sizeof(struct bounds),
                              alignment);
    libc_bounds_of(p)->start = start;
    libc_bounds_of(p)->mapped = mapped;
    return p;
}

static void libc_own_free(void *p)
{
    int saved = errno;

    if (p != NULL) {
        haki_os_unmap(libc_bounds_of(p)->start, libc_bounds_of(p)->mapped);
    }
    errno = saved;
}

static void *libc_own_realloc(void *p, size_t size)
{
    void *moved;

    if (p != NULL && size <= libc_own_usable(p) &&
        size > libc_own_usable(p) / 2) {
        return p;
    }
    moved = libc_own_alloc(16, size);
    if (p != NULL && moved != NULL) {
        memcpy(moved, p, haki_min(libc_own_usable(p), size));
        libc_own_free(p);
    }
    return moved;
}

hak_function *haki_libc_next(const char *name)
{
    return __extension__(hak_function *)(dlsym != NULL ? dlsym(RTLD_NEXT, name)
                                                       : NULL);
}

#ifdef __GLIBC__

/* ---- with it ------------------------------------------------------------ */

/*
 * A function to be looked up: `ours` is our own of that name, `usual` the name
 * by which programs call it.
 */
struct libc_next {
    const char *name, *usual;
    hak_function *ours;
    _Atomic(hak_function *) found;
    hak_function
        *programs; /* see libc_ask_program; NULL: ours, or the one found */
};

static struct libc_next libc_next_free = {.name = "__libc_free",
                                          .usual = "free",
                                          .ours = (hak_function *)__libc_free},
                        libc_next_realloc = {.name = "__libc_realloc",
                                             .usual = "realloc",
                                             .ours = (hak_function *)
                                                 __libc_realloc},
                        libc_next_usable = {.name = "malloc_usable_size",
                                            .usual = "malloc_usable_size"};

/* The thread is handing a block on to the program's function. */
static __thread bool libc_passing;

/*
 * The library that has __libc_malloc has the others as well: usually the C
 * library, which is the next. A program with an allocator that defines all of
 * these names comes first.
 */
static hak_function *libc_look_up(const struct libc_next *next)
{
    hak_function *found = NULL;

    if (next->ours != NULL && &_r_debug != NULL && _r_debug.r_map != NULL &&
        haki_libc_next("__libc_malloc") != (hak_function *)__libc_malloc) {
        found = __extension__(hak_function *) dlsym(_r_debug.r_map, next->name);
    }
    return found != NULL && found != next->ours ? found
                                                : haki_libc_next(next->name);
}

/*
 * dlsym frees the error message of the previous dlsym, which may be a block of
 * the C library's: while we are looking for its free, that block is leaked.
 */
static hak_function *libc_next_of(struct libc_next *next)
{
    static __thread bool looking;
    hak_function *found =
        atomic_load_explicit(&next->found, memory_order_relaxed);

    if (HAK_UNLIKELY(found == NULL && !looking)) {
        looking = true;
        found = libc_look_up(next);
        looking = false;
        atomic_store_explicit(&next->found, found, memory_order_relaxed);
    }
    return found;
}

/* The function that the program calls by a name. */
static hak_function *libc_of_program(const char *name)
{
    return __extension__(hak_function *) dlsym(_r_debug.r_map, name);
}

/*
 * Whether the program's malloc is somebody else's and does not lead to us: we
 * were loaded while it ran, or it brings its own. A test block tells, unless we
 * hand everything on ourselves.
 */
static bool libc_is_bystander(void)
{
    hak_function *found = libc_of_program("malloc");
    void (*give_back)(void *);
    void *p;
    bool others;

    if (found == NULL || found == (hak_function *)malloc ||
        haki_option(HAK_OPT_force_libc_alloc)) {
        return false;
    }
    give_back = (void (*)(void *))libc_of_program("free");
    if (give_back == NULL) {
        return false;
    }
    p = ((void *(*)(size_t))found)(1);
    others = p != NULL && !haki_range_owns(p);
    give_back(p);
    return others;
}

/*
 * As a bystander we hand foreign blocks to the program's functions, since they
 * may belong to another, preloaded copy of this library. If they come back to
 * us from there they go to the C library's.
 */
static void libc_ask_program(void)
{
    struct libc_next *const all[] = {&libc_next_free, &libc_next_realloc,
                                     &libc_next_usable};

    if (&_r_debug == NULL || _r_debug.r_map == NULL || !libc_is_bystander()) {
        return;
    }
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        all[i]->programs = libc_of_program(all[i]->usual);
    }
}

/*
 * Early, because later another thread that waits for us may hold the dynamic
 * linker's lock. Functions needed before this are looked up at that time.
 */
__attribute__((constructor(101))) static void libc_load(void)
{
    if (__libc_malloc != NULL) {
        libc_next_of(&libc_next_free);
        libc_next_of(&libc_next_realloc);
        libc_next_of(&libc_next_usable);
        libc_ask_program();
    }
}

/* The function that a foreign block is handed on to; ends with passed. */
static hak_function *libc_pass_to(struct libc_next *next)
{
    if (HAK_UNLIKELY(next->programs != NULL && !libc_passing)) {
        libc_passing = true;
        return next->programs;
    }
    return libc_next_of(next);
}

void haki_libc_start(void)
{
    static _Atomic(void *) first; /* the first block, which it keeps */
    int state;

    if (atomic_load_explicit(&first, memory_order_acquire) == NULL &&
        __libc_malloc != NULL) {
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
        atomic_store_explicit(&first, __libc_malloc(1), memory_order_release);
        pthread_setcancelstate(state, NULL);
    }
}

void *haki_libc_malloc(size_t size)
{
    haki_libc_start();
    return __libc_malloc != NULL ? __libc_malloc(size)
                                 : libc_own_alloc(16, size);
}

void *haki_libc_zalloc(size_t size)
{
    haki_libc_start();
    return __libc_calloc != NULL ? __libc_calloc(1, size)
                                 : libc_own_alloc(16, size);
}

void *haki_libc_realloc(void *p, size_t size)
{
    void *(*next)(void *, size_t);
    bool outer = libc_passing;

    if (__libc_malloc == NULL) {
        return libc_own_realloc(p, size);
    }
    haki_libc_start();
    next = (void *(*)(void *, size_t))libc_pass_to(&libc_next_realloc);
    if (next == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    p = next(p, size);
    libc_passing = outer;
    return p;
}

void haki_libc_free(void *p)
{
    void (*next)(void *);
    bool outer = libc_passing;

    if (__libc_malloc == NULL) {
        libc_own_free(p);
        return;
    }
    next = (void (*)(void *))libc_pass_to(&libc_next_free);
    if (next != NULL) {
        next(p);
    }
    libc_passing = outer;
}

void *haki_libc_memalign(size_t alignment, size_t size)
{
    haki_libc_start();
    return __libc_memalign != NULL ? __libc_memalign(alignment, size)
                                   : libc_own_alloc(alignment, size);
}

size_t haki_libc_usable_size(void *p)
{
    size_t (*next)(void *);
    bool outer = libc_passing;
    size_t size;

    if (p == NULL || __libc_malloc == NULL) {
        return p != NULL ? libc_own_usable(p) : 0;
    }
    next = (size_t(*)(void *))libc_pass_to(&libc_next_usable);
    size = next != NULL ? next(p) : 0;
    libc_passing = outer;
    return size;
}

#else

/* ---- musl --------------------------------------------------------------- */

void haki_libc_start(void)
{
}

void *haki_libc_malloc(size_t size)
{
    return libc_own_alloc(16, size);
}

void *haki_libc_zalloc(size_t size)
{
    return libc_own_alloc(16, size);
}

void *haki_libc_realloc(void *p, size_t size)
{
    return libc_own_realloc(p, size);
}

void haki_libc_free(void *p)
{
    libc_own_free(p);
}

void *haki_libc_memalign(size_t alignment, size_t size)
{
    return libc_own_alloc(alignment, size);
}

size_t haki_libc_usable_size(void *p)
{
    return p != NULL ? libc_own_usable(p) : 0;
}

#endif /* __GLIBC__ */
