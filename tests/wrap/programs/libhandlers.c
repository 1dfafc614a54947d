/*
 * libhandlers.c - a library that registers fork handlers when it is loaded,
 * before a preloaded library can; what they do is the program's.
 */
#include "program.h"

void (*handlers_prepare)(void), (*handlers_parent)(void),
    (*handlers_child)(void);

static void prepare(void)
{
    if (handlers_prepare != NULL) {
        handlers_prepare();
    }
}

static void parent(void)
{
    if (handlers_parent != NULL) {
        handlers_parent();
    }
}

static void child(void)
{
    if (handlers_child != NULL) {
        handlers_child();
    }
}

__attribute__((constructor)) static void load(void)
{
    NEED(pthread_atfork(prepare, parent, child) == 0);
}
