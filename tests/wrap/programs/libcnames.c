/*
 * libcnames.c - a program that wraps glibc's malloc by the names glibc has for
 * itself, and gets blocks from functions that it does not wrap.
 */
#include "program.h"

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *p);

#ifdef PROGRAM_WRAPS
static size_t calls;

void *malloc(size_t size)
{
    calls++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    calls++;
    return __libc_calloc(count, size);
}

void *realloc(void *p, size_t size)
{
    calls++;
    return __libc_realloc(p, size);
}

void free(void *p)
{
    calls++;
    __libc_free(p);
}
#endif

int main(void)
{
    for (size_t size = 1; size < 3000000; size = size * 3 + 1) {
        void *p = NULL;

        free(__libc_malloc(size));
        free(__libc_calloc(2, size));
        free(__libc_memalign(64, size));
        free(__libc_realloc(malloc(hide(size)), size * 2));
        free(realloc(__libc_malloc(size), hide(size + 300)));
        __libc_free(malloc(hide(size)));
        __libc_free(__libc_realloc(NULL, size));
        __libc_free(realloc(hide_pointer(NULL), size));
        NEED(posix_memalign(&p, 4096, size) == 0);
        p = realloc(p, size + 5000);
        NEED(p != NULL);
        free(p);
        __libc_free(aligned_alloc(64, size));
        __libc_free(strdup("a text"));
    }
    __libc_free(NULL);
#ifdef PROGRAM_WRAPS
    NEED(calls > 100);
#endif
    puts("well");
    return 0;
}
