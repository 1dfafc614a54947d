/*
 * libwraps.c - to be preloaded beside libhakmem.so: wraps dlopen and dlsym as a
 * tracer does, and says at the end, if PROGRAM_CALLS is set, how often each was
 * called. Not dlsym with RTLD_NEXT or RTLD_DEFAULT: that goes by who calls.
 */
#include "program.h"

static _Atomic(int) opens, lookups;

/* The C library's: how a tracer finds what is next. */
static void *find(const char *name)
{
#ifdef __x86_64__
    static const char version[] = "GLIBC_2.2.5";
#else
    static const char version[] = "GLIBC_2.17";
#endif
    static void *(*first)(void *, const char *);

    *(void **)&first = dlvsym(RTLD_NEXT, "dlsym", version);
    NEED(first != NULL);
    return first(RTLD_NEXT, name);
}

void *dlopen(const char *file, int mode)
{
    void *(*next)(const char *, int);

    *(void **)&next = find("dlopen");
    opens++;
    return next(file, mode);
}

void *dlsym(void *handle, const char *name)
{
    void *(*next)(void *, const char *);

    if (handle == RTLD_NEXT) {
        return find(name);
    }
    *(void **)&next = find("dlsym");
    lookups++;
    return next(handle, name);
}

__attribute__((destructor)) static void say(void)
{
    if (getenv("PROGRAM_CALLS") != NULL && opens + lookups > 0) {
        fprintf(stderr, "opens %d, lookups %d\n", opens, lookups);
    }
}
