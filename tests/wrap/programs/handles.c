/*
 * handles.c - looks the malloc family up in the C library itself, as Python's
 * ctypes and other runtimes do, and mixes what it finds with blocks that the C
 * library's functions hand out and with the program's own.
 */
#include <gnu/lib-names.h>

#include "program.h"

static void *libc;

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*reallocarray)(void *, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*memalign)(size_t, size_t);
    void *(*valloc)(size_t);
    void *(*pvalloc)(size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void (*free)(void *);
    void (*cfree)(void *);
    size_t (*usable)(void *);
    int (*trim)(size_t);
    char *(*strdup)(const char *);
} by;

static void *find(const char *name)
{
    void *found = dlsym(libc, name);

    NEED(found != NULL);
    return found;
}

static void find_all(void)
{
    *(void **)&by.malloc = find("malloc");
    *(void **)&by.calloc = find("calloc");
    *(void **)&by.realloc = find("realloc");
    *(void **)&by.reallocarray = find("reallocarray");
    *(void **)&by.aligned_alloc = find("aligned_alloc");
    *(void **)&by.memalign = find("memalign");
    *(void **)&by.valloc = find("valloc");
    *(void **)&by.pvalloc = find("pvalloc");
    *(void **)&by.posix_memalign = find("posix_memalign");
    *(void **)&by.free = find("free");
    *(void **)&by.usable = find("malloc_usable_size");
    *(void **)&by.trim = find("malloc_trim");
    *(void **)&by.strdup = find("strdup");
    /* Not every machine's glibc has it. */
    *(void **)&by.cfree = dlsym(libc, "cfree");
    if (by.cfree == NULL) {
        by.cfree = by.free;
    }
}

static void *one(size_t i, size_t size)
{
    void *p = NULL;

    switch (i % 10) {
    case 0: return by.malloc(size);
    case 1: return by.calloc(3, size);
    case 2: return by.realloc(malloc(hide(size)), size + 500);
    case 3: return by.reallocarray(NULL, 2, size);
    case 4: return by.aligned_alloc(64, size);
    case 5: return by.memalign(4096, size);
    case 6: return by.valloc(size);
    case 7: return by.pvalloc(size);
    case 8: return by.posix_memalign(&p, 256, size) == 0 ? p : NULL;
    default: return malloc(hide(size));
    }
}

static void mix(void)
{
    for (size_t i = 0; i < 300; i++) {
        size_t size = 1 + i * i * 50;
        void *p = one(i, size), *q = one(i / 10, size);

        NEED(p != NULL && q != NULL);
        NEED(by.usable(p) >= size && malloc_usable_size(q) >= size);
        fill(p, size, (unsigned)i);
        p = i & 1 ? realloc(p, size + 3000) : by.realloc(p, size + 3000);
        NEED(p != NULL && filled_of(p, size, size, (unsigned)i));
        i & 2 ? by.free(p) : free(p);
        i & 4 ? by.cfree(q) : by.free(q);
    }
    by.free(by.strdup("of the C library's"));
    free(by.strdup("of the C library's"));
    by.free(strdup("of the program's"));
    by.free(NULL);
    NEED(by.trim(0) >= 0);
}

/* What is not there is said as ever; where a search begins matters. */
static void the_rest(void)
{
    void *self = dlopen(NULL, RTLD_LAZY), *program, *next;

    NEED(dlsym(libc, "no_such_name") == NULL);
    NEED(strstr(dlerror(), "no_such_name") != NULL);
    NEED(dlerror() == NULL);
    NEED(dlsym(RTLD_DEFAULT, "no_such_name") == NULL && dlerror() != NULL);
    program = dlsym(RTLD_DEFAULT, "malloc");
    NEED(program == dlsym(self, "malloc") && program == (void *)malloc);
#ifndef PROGRAM_NAMES_MALLOC
    NEED(!has_hakmem() || dlsym(libc, "malloc") == program ||
         getenv("HAKMEM_FORCE_LIBC_ALLOC") != NULL);
#endif
    next = dlsym(RTLD_NEXT, "malloc");
    NEED(next != NULL);
    NEED(dlvsym(libc, "strlen", "GLIBC_0") == NULL && dlerror() != NULL);
}

int main(void)
{
    libc = dlopen(LIBC_SO, RTLD_LAZY);
    NEED(libc != NULL);
    find_all();
    mix();
    the_rest();
    puts("well");
    return 0;
}
