/*
 * libowner.c - a library that takes its caller's blocks: it resizes them, keeps
 * them, and frees them in a thread of its own or at the end. For owners.c.
 */
#include "program.h"

void owner_take(void *p);
void *owner_resize(void *p, size_t size);
void *owner_make(size_t size);
void owner_end(void);

enum { KEPT = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *kept[KEPT];
static size_t nkept;

static void free_kept(void)
{
    pthread_mutex_lock(&lock);
    while (nkept > 0) {
        free(kept[--nkept]);
    }
    pthread_mutex_unlock(&lock);
}

static void *thread(void *arg)
{
    free_kept();
    return arg;
}

void owner_take(void *p)
{
    size_t now;

    pthread_mutex_lock(&lock);
    NEED(nkept < KEPT);
    kept[nkept++] = p;
    now = nkept;
    pthread_mutex_unlock(&lock);
    if (now % 100 == 0) {
        pthread_t id;

        NEED(pthread_create(&id, NULL, thread, NULL) == 0);
        NEED(pthread_join(id, NULL) == 0);
    }
}

void *owner_resize(void *p, size_t size)
{
    return realloc(p, size);
}

void *owner_make(size_t size)
{
    return malloc(size);
}

void owner_end(void)
{
    free_kept();
}

__attribute__((destructor)) static void at_the_end(void)
{
    free_kept();
}
