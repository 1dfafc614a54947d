/*
 * early.c - memory from before the C library's start (libearly.so), and asked
 * for after the thread's last destructor and in exit handlers.
 */
#include "program.h"

extern void *early_blocks[3];

static pthread_key_t key;
static char *kept;

/*
 * Destructors run in rounds as long as keys are set again: in the last of
 * them the allocator's own destructor has long run.
 */
static void destroy(void *arg)
{
    static __thread int round;
    char *p = malloc(50), *q = calloc(1, 3000);

    NEED(p != NULL && q != NULL);
    fill(p, 50, 1);
    p = realloc(p, 4000);
    NEED(p != NULL && filled(p, 50, 1));
    free(p);
    free(q);
    if (++round < 4) {
        NEED(pthread_setspecific(key, arg) == 0);
    } else {
        free(arg); /* made when the thread had a heap */
    }
}

static void *thread(void *arg)
{
    void *own = malloc(200);

    fill(own, 200, 2);
    NEED(pthread_setspecific(key, own) == 0);
    return arg;
}

static void at_exit(void)
{
    char *p = malloc(100);

    NEED(p != NULL && filled(kept, 1000, 3));
    free(kept);
    free(p);
    if (write(STDOUT_FILENO, "at exit\n", 8) != 8) {
        _exit(1);
    }
}

__attribute__((destructor)) static void at_end(void)
{
    char *p = malloc(100);

    NEED(p != NULL);
    free(p);
    if (write(STDOUT_FILENO, "at the end\n", 11) != 11) {
        _exit(1);
    }
}

int main(void)
{
    pthread_t threads[4];

    printf("early: %d %d %d\n", owned(early_blocks[0]), owned(early_blocks[1]),
           owned(early_blocks[2]));
    for (int i = 0; i < 3; i++) {
        NEED(malloc_usable_size(early_blocks[i]) >= 100);
        early_blocks[i] = realloc(early_blocks[i], 6000);
        NEED(early_blocks[i] != NULL);
        free(early_blocks[i]);
    }
    NEED(pthread_key_create(&key, destroy) == 0);
    for (int i = 0; i < 4; i++) {
        NEED(pthread_create(&threads[i], NULL, thread, NULL) == 0);
    }
    for (int i = 0; i < 4; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
    kept = malloc(1000);
    fill(kept, 1000, 3);
    NEED(atexit(at_exit) == 0);
    return fflush(stdout) == 0 ? 0 : 1;
}
