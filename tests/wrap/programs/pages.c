/*
 * pages.c - blocks of every lane, half of them freed, while memory goes back:
 * what stays keeps its contents, and what is zeroed is zero.
 *
 * HAKMEM_PURGE_DELAY should be short. Says "well", or which block was damaged.
 */
#include <time.h>

#include "program.h"

enum { BLOCKS = 6000, ROUNDS = 4, LIGHT = 25 };

struct block {
    unsigned char *p;
    size_t size;
    unsigned char byte;
};

static struct block blocks[BLOCKS];
static unsigned state = 1;

static unsigned some(unsigned below)
{
    state = state * 1103515245u + 12345u;
    return state / 65536 % below;
}

/* Of all lanes, the larger ones seldom. */
static size_t some_size(void)
{
    unsigned kind = some(200);

    return kind == 0   ? 2000000 + some(2000) * 1000u
           : kind < 8  ? 50000 + some(300) * 1000u
           : kind < 60 ? 1000 + some(32000)
                       : 1 + some(1024);
}

static void renew(struct block *block, unsigned char byte)
{
    block->size = some_size();
    block->byte = byte;
    block->p = some(3) == 0 ? calloc(1, block->size) : malloc(block->size);
    NEED(block->p != NULL);
    memset(block->p, byte, block->size);
}

static void check(const struct block *block, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (block->p[i] != block->byte) {
            printf("byte %zu of %zu is damaged\n", i, block->size);
            exit(1);
        }
    }
}

/* Whether calloc's blocks are zero, where pages have gone and come. */
static void check_zero(void)
{
    size_t size = some_size();
    unsigned char *p = calloc(1, size);

    NEED(p != NULL);
    for (size_t i = 0; i < size; i++) {
        if (p[i] != 0) {
            printf("byte %zu of %zu is not zero\n", i, size);
            exit(1);
        }
    }
    memset(p, 0xa5, size);
    free(p);
}

static void resize(struct block *block)
{
    size_t size = some_size(), old = block->size;
    unsigned char *p = realloc(block->p, size);

    NEED(p != NULL);
    block->p = p;
    block->size = size;
    check(block, size < old ? size : old);
    memset(p, block->byte, size);
}

/* Little happens for a while, so that free memory goes back. */
static void light_work(void)
{
    size_t (*trim)(void) = NULL;

    *(void **)&trim = dlsym(RTLD_DEFAULT, "hak_trim");
    for (int i = 0; i < LIGHT; i++) {
        struct timespec nap = {0, 20000000};

        for (int k = 0; k < 40; k++) {
            check_zero();
        }
        for (int k = 0; k < 500; k++) {
            void *volatile p = malloc(1 + some(8000));

            free(p);
        }
        nanosleep(&nap, NULL);
    }
    if (trim != NULL) {
        trim();
    }
}

int main(void)
{
    for (int i = 0; i < BLOCKS; i++) {
        renew(&blocks[i], (unsigned char)(i % 251 + 1));
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            if (some(2) == 0) {
                free(blocks[i].p);
                blocks[i].p = NULL;
            } else if (some(8) == 0) {
                resize(&blocks[i]);
            }
        }
        light_work();
        for (int i = 0; i < BLOCKS; i++) {
            if (blocks[i].p != NULL) {
                check(&blocks[i], blocks[i].size);
            } else {
                renew(&blocks[i], (unsigned char)((i + round) % 251 + 1));
            }
        }
    }
    puts("well");
    return 0;
}
