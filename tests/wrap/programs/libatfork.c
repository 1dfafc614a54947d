/*
 * libatfork.c - a library that registers fork handlers when it is loaded,
 * before a preloaded library can: its child handler is the first one. They ask
 * for memory and free it.
 */
#include "program.h"

enum { BLOCKS = 3000 };

static void *blocks[BLOCKS];
static unsigned calls;

/* Frees what the last call asked for, and asks for more. */
static void churn(void)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size = 16 + (i * 37 + calls * 11) % 2000;

        free(blocks[i]);
        blocks[i] = i % 7 == 0 ? calloc(1, size) : malloc(size);
        NEED(blocks[i] != NULL);
        if (i % 5 == 0) {
            blocks[i] = realloc(blocks[i], 2 * size);
            NEED(blocks[i] != NULL);
        }
        fill(blocks[i], size, (unsigned)i);
    }
    calls++;
}

__attribute__((constructor)) static void load(void)
{
    NEED(pthread_atfork(churn, churn, churn) == 0);
}

void atfork_churn(void)
{
    churn();
}
