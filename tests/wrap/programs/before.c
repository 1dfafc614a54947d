/*
 * before.c - blocks that others made are given to free, realloc and
 * malloc_usable_size: the C library's own, and what hak_malloc took from it
 * (HAKMEM_FORCE_LIBC_ALLOC=1), which a registry knows.
 */
#include <hakmem.h>

#include "program.h"

void *__libc_malloc(size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void cfree(void *p); /* in no header since glibc 2.26 */

static void libc_blocks(void)
{
    for (size_t size = 0; size < 300000; size = size * 3 + 1) {
        unsigned char *p = __libc_malloc(hide(size));
        void *q = __libc_memalign(256, hide(size));

        NEED(p != NULL && q != NULL && !owned(p) && !owned(q));
        NEED(malloc_usable_size(p) >= size && malloc_usable_size(q) >= size);
        fill(p, size, 6);
        p = realloc(p, 2 * size + 10);
        NEED(p != NULL && filled(p, size, 6));
        p = realloc(p, size / 2 + 1);
        NEED(p != NULL && filled_of(p, size / 2, size, 6));
        errno = 77;
        free(p);
        NEED(realloc(q, hide(0)) == NULL);
        NEED(errno == 77);
    }
}

static hak_stats_t stats_now(void)
{
    hak_stats_t stats = {.size = sizeof(stats)};

    NEED(hak_stats(&stats) == 0);
    return stats;
}

static void registered_blocks(void)
{
    size_t live = stats_now().system_live;

    for (size_t size = 1; size < 300000; size = size * 3 + 1) {
        unsigned char *p = hak_malloc(hide(size)), *q = hak_malloc(hide(size));

        NEED(!owned(p) && !owned(q));
        NEED(stats_now().system_live == live + 2);
        fill(p, size, 4);
        NEED(malloc_usable_size(p) >= size);
        p = realloc(p, 3 * size);
        NEED(filled(p, size, 4));
        NEED(stats_now().system_live == live + 2);
        NEED(hak_usable_size(p) >= 3 * size);
        free(p);
        NEED(stats_now().system_live == live + 1);
        NEED(realloc(q, hide(0)) == NULL);
        NEED(stats_now().system_live == live);
    }
}

int main(void)
{
    const char *force = getenv("HAKMEM_FORCE_LIBC_ALLOC");

    libc_blocks();
    if (force != NULL && *force == '1') {
        registered_blocks();
    } else {
        void *p = malloc(100);

        /* The other way round: what malloc gave is a block of the range. */
        NEED(owned(p));
        hak_free(p);
        free(hak_malloc(100));
        cfree(malloc(100));
        cfree(__libc_malloc(100));
    }
    puts("well");
    return 0;
}
