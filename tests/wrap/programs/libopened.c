/*
 * libopened.c - a library to be opened and closed: it allocates in its
 * constructor, hands blocks out and takes them, and frees in its destructor.
 */
#include "program.h"

static void *own[100];

__attribute__((constructor)) static void load(void)
{
    for (size_t i = 0; i < 100; i++) {
        own[i] = malloc(i * 50);
        fill(own[i], i * 50, (unsigned)i);
    }
}

__attribute__((destructor)) static void unload(void)
{
    for (size_t i = 0; i < 100; i++) {
        NEED(filled(own[i], i * 50, (unsigned)i));
        free(own[i]);
    }
}

char *opened_give(size_t size)
{
    return strdup("a block of the library's") == NULL ? NULL : malloc(size);
}

void opened_take(void *p)
{
    free(p);
}
