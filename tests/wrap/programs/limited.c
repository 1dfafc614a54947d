/*
 * limited.c - takes memory by every name until there is none, under a
 * HAKMEM_LIMIT of 40 MB: each time NULL with ENOMEM (posix_memalign returns
 * it), never much more than the limit resident, and all of it can be had anew.
 */
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MB = 1 << 20, LIMIT = 40 * MB, BLOCKS = 1 << 20 };

static char *blocks[BLOCKS];

static void *by_malloc(size_t size)
{
    return malloc(size);
}

static void *by_calloc(size_t size)
{
    return calloc(1, size);
}

static void *by_realloc(size_t size)
{
    void *p = malloc(size / 2);
    void *moved = realloc(p, size);

    if (moved == NULL) {
        free(p);
        errno = ENOMEM;
    }
    return moved;
}

static void *by_memalign(size_t size)
{
    void *p = NULL;

    errno = posix_memalign(&p, 64, size);
    return p;
}

static void *by_aligned(size_t size)
{
    return aligned_alloc(4096, size);
}

static void *(*const ways[])(size_t) = {by_malloc, by_calloc, by_realloc,
                                        by_memalign, by_aligned};

/* Without stdio, which would need memory where there is none. */
static size_t resident(void)
{
    unsigned long all, pages = 0;
    char text[100] = "";
    int fd = open("/proc/self/statm", O_RDONLY);

    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0 ||
        sscanf(text, "%lu %lu", &all, &pages) != 2) {
        abort();
    }
    close(fd);
    return pages * (size_t)getpagesize();
}

/* Whether it took as much as there is, and no more. */
static int fills(void *(*take)(size_t), size_t size, size_t before)
{
    size_t n = 0, taken, peak;

    while (n < BLOCKS && (blocks[n] = take(size)) != NULL) {
        memset(blocks[n++], 1, size);
    }
    if (errno != ENOMEM) {
        printf("errno %d\n", errno);
        return 0;
    }
    peak = resident();
    taken = n * size;
    while (n > 0) {
        free(blocks[--n]);
    }
    if (taken < LIMIT / 4 * 3 || taken > LIMIT ||
        peak > before + LIMIT + 4 * MB) {
        printf("%zu bytes in blocks of %zu, %zu resident before, %zu then\n",
               taken, size, before, peak);
        return 0;
    }
    return 1;
}

int main(void)
{
    static const size_t sizes[] = {100, 3000, 40000, 300000, 5000000};
    size_t before;

    memset(blocks, 1, sizeof(blocks));
    before = resident();
    for (size_t way = 0; way < sizeof(ways) / sizeof(ways[0]); way++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            /* A page each: small ones are too few. */
            if (ways[way] == by_aligned && sizes[i] < 4000) {
                continue;
            }
            if (!fills(ways[way], sizes[i], before)) {
                printf("way %zu\n", way);
                return 1;
            }
        }
    }
    printf("well\n");
    return 0;
}
