/*
 * libc_plain.c - the system allocator under its usual names.
 *
 * Calls whatever malloc the process has: the C library's, or another that
 * replaced it (a preloaded libhakmem.so too, which is then another copy of the
 * core with a range of its own).
 *
 * Tested by tests/unit/system/system.c.
 */
#include "system/libc.h"

#include <malloc.h>
#include <stdlib.h>

void *haki_libc_malloc(size_t size)
{
    return malloc(size);
}

void *haki_libc_realloc(void *p, size_t size)
{
    return realloc(p, size);
}

void haki_libc_free(void *p)
{
    free(p);
}

void *haki_libc_zalloc(size_t size)
{
    return calloc(1, size);
}

void *haki_libc_memalign(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

size_t haki_libc_usable_size(void *p)
{
    return malloc_usable_size(p);
}
