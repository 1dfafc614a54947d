/*
 * cancels.c - threads that were cancelled allocate and have the statistics
 * printed. That must not end them, since they may hold locks of the
 * allocator's. They end where they reach a cancellation point of their own, and
 * others go on.
 */
#include "program.h"

static pthread_barrier_t sent;
static int reached;

/* Sizes of many slabs: with HAKMEM_TRACE=1 each prints a line. */
static void allocate(void)
{
    void *blocks[200];

    for (size_t i = 0; i < 200; i++) {
        blocks[i] = malloc(hide(16 + i * 300));
        NEED(blocks[i] != NULL);
    }
    for (size_t i = 0; i < 200; i++) {
        free(blocks[i]);
    }
}

static void *cancelled(void *arg)
{
    pthread_barrier_wait(&sent);
    allocate();
    malloc_stats();
    malloc_trim(0);
    NEED(mallinfo2().arena != 0);
    reached++;
    pthread_testcancel();
    reached = -100;
    return arg;
}

int main(void)
{
    NEED(pthread_barrier_init(&sent, NULL, 2) == 0);
    for (int i = 0; i < 5; i++) {
        pthread_t thread;
        void *end;

        NEED(pthread_create(&thread, NULL, cancelled, NULL) == 0);
        NEED(pthread_cancel(thread) == 0);
        pthread_barrier_wait(&sent);
        NEED(pthread_join(thread, &end) == 0 && end == PTHREAD_CANCELED);
        allocate();
    }
    malloc_stats();
    printf("reached: %d\n", reached);
    return 0;
}
