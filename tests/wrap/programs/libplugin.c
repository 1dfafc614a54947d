/*
 * libplugin.c - a library that hands blocks out and takes them. With
 * PLUGIN_PRIVATE it has a malloc and a free of its own for that; with
 * PLUGIN_OPENS it opens another library, which its RUNPATH alone leads to.
 */
#include "program.h"

#ifdef PLUGIN_PRIVATE
static char arena[4096] __attribute__((aligned(16)));
static size_t used;

void *malloc(size_t size)
{
    void *p = arena + used;

    used += (size + 15) & ~(size_t)15;
    return p;
}

void free(void *p)
{
    NEED(p == NULL || ((char *)p >= arena && (char *)p < arena + used));
}
#endif

void *plugin_give(size_t size)
{
    return malloc(size);
}

void plugin_take(void *p)
{
    free(p);
}

#ifdef PLUGIN_OPENS
void *plugin_open(const char *name)
{
    return dlopen(name, RTLD_NOW | RTLD_DEEPBIND);
}

/* What comes after this library, which is what its return address tells. */
void *plugin_next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}
#endif
