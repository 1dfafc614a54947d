/*
 * libc_real.c - the C library's own allocator, in a program where malloc is
 * ours.
 *
 * glibc shows it as __libc_malloc and so on. The references are weak: a static
 * program has no second allocator, since the linker takes one malloc. There
 * every block is a mapping of its own, with its bounds in front of it; that
 * is slow and wastes most of a page, but it is only for what the lanes refuse.
 */
#include "libc.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "os.h"

#define WEAK __attribute__((weak))

WEAK void *__libc_malloc(size_t size);
WEAK void *__libc_calloc(size_t count, size_t size);
WEAK void *__libc_realloc(void *p, size_t size);
WEAK void *__libc_memalign(size_t alignment, size_t size);
WEAK void __libc_free(void *p);
/* Weak: a static program that does not ask for it shall not get it. */
extern __typeof__(dlsym) dlsym WEAK;

/* ---- without a C library's allocator ------------------------------------ */

struct bounds {
    char *start;
    size_t mapped;
};

_Static_assert(sizeof(struct bounds) == 16, "blocks stay 16-byte aligned");

static struct bounds *bounds_of(void *p)
{
    return (struct bounds *)p - 1;
}

static size_t own_usable(void *p)
{
    const struct bounds *bounds = bounds_of(p);

    return (size_t)(bounds->start + bounds->mapped - (char *)p);
}

static void *own_alloc(size_t alignment, size_t size)
{
    size_t mapped;
    char *start = NULL;
    void *p;

    if (!__builtin_add_overflow(size, alignment + HAK_PAGE, &mapped) &&
        mapped <= PTRDIFF_MAX) {
        mapped &= ~(HAK_PAGE - 1);
        start = hak_os_map(mapped);
    }
    if (start == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    p = (void *)hak_round_up((uintptr_t)start + sizeof(struct bounds),
                             alignment);
    bounds_of(p)->start = start;
    bounds_of(p)->mapped = mapped;
    return p;
}

static void own_free(void *p)
{
    int saved = errno;

    if (p != NULL) {
        hak_os_unmap(bounds_of(p)->start, bounds_of(p)->mapped);
    }
    errno = saved;
}

static void *own_realloc(void *p, size_t size)
{
    void *moved;

    if (p != NULL && size <= own_usable(p) && size > own_usable(p) / 2) {
        return p;
    }
    moved = own_alloc(16, size);
    if (p != NULL && moved != NULL) {
        memcpy(moved, p, hak_min(own_usable(p), size));
        own_free(p);
    }
    return moved;
}

/* ---- with it ------------------------------------------------------------ */

void hak_libc_start(void)
{
    static atomic_bool started;
    int state;

    if (!atomic_load_explicit(&started, memory_order_acquire) &&
        __libc_malloc != NULL) {
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
        __libc_free(__libc_malloc(1));
        atomic_store_explicit(&started, true, memory_order_release);
        pthread_setcancelstate(state, NULL);
    }
}

void *hak_libc_malloc(size_t size)
{
    hak_libc_start();
    return __libc_malloc != NULL ? __libc_malloc(size) : own_alloc(16, size);
}

void *hak_libc_zalloc(size_t size)
{
    hak_libc_start();
    return __libc_calloc != NULL ? __libc_calloc(1, size) : own_alloc(16, size);
}

void *hak_libc_realloc(void *p, size_t size)
{
    hak_libc_start();
    return __libc_realloc != NULL ? __libc_realloc(p, size)
                                  : own_realloc(p, size);
}

void hak_libc_free(void *p)
{
    if (__libc_free != NULL) {
        __libc_free(p);
    } else {
        own_free(p);
    }
}

void *hak_libc_memalign(size_t alignment, size_t size)
{
    hak_libc_start();
    return __libc_memalign != NULL ? __libc_memalign(alignment, size)
                                   : own_alloc(alignment, size);
}

hak_function *hak_libc_next(const char *name)
{
    return __extension__(hak_function *)(dlsym != NULL ? dlsym(RTLD_NEXT, name)
                                                       : NULL);
}

/* The one that glibc has under no second name. */
size_t hak_libc_usable_size(void *p)
{
    typedef size_t usable_size(void *);
    static _Atomic(usable_size *) next;
    usable_size *found = atomic_load_explicit(&next, memory_order_relaxed);

    if (p == NULL || __libc_malloc == NULL) {
        return p != NULL ? own_usable(p) : 0;
    }
    if (found == NULL) {
        found = (usable_size *)hak_libc_next("malloc_usable_size");
        atomic_store_explicit(&next, found, memory_order_relaxed);
    }
    return found != NULL ? found(p) : 0;
}
