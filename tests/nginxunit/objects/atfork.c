/*
 * atfork.c - a library that is loaded before the program's own constructors
 * run, so that its handler is the last one before a fork.
 */
#include <pthread.h>
#include <stddef.h>

extern __attribute__((visibility("default"))) void (*atfork_call)(void);

void (*atfork_call)(void);

static void call(void)
{
    if (atfork_call != NULL) {
        atfork_call();
    }
}

__attribute__((constructor)) static void watch(void)
{
    pthread_atfork(call, NULL, NULL);
}
