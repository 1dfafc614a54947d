/*
 * works.c - blocks of every lane, from several threads, across a fork: a
 * program for musl, which Criterion is not there for.
 *
 * Compiled with -DCORE it asks hak_malloc and the like, without it malloc; then
 * the first argument says whether the blocks must be HAKMEM's ("ours").
 */
#include <hakmem.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef CORE
#define malloc hak_malloc
#define calloc hak_calloc
#define realloc hak_realloc
#define free hak_free
#define OURS(p, argc) ((void)(argc), hak_owns(p))
#else
#define OURS(p, argc) ((argc) == 1 || (hak_owns != NULL && hak_owns(p)))
/* It may run on HAKMEM without being linked with it. */
extern __typeof__(hak_owns) hak_owns __attribute__((weak));
#endif

enum { THREADS = 4, BLOCKS = 400, ROUNDS = 20 };

static const size_t sizes[] = {1, 24, 200, 1024, 5000, 60000, 300000, 3000000};

static void fail(const char *what)
{
    fprintf(stderr, "works: %s\n", what);
    _exit(1);
}

/* A block of `size` bytes for p, which may be NULL; its first byte is kept. */
static unsigned char *renew(unsigned char *p, size_t size, int resize)
{
    int first = p != NULL ? *p : -1;

    if (resize) {
        p = realloc(p, size);
    } else {
        free(p);
        p = calloc(1, size);
    }
    if (p == NULL) {
        fail("no memory");
    }
    if (resize ? first >= 0 && *p != first : *p != 0 || p[size - 1] != 0) {
        fail(resize ? "realloc lost what there was" : "not of zeros");
    }
    return p;
}

static void *churn(void *arg)
{
    unsigned char *blocks[BLOCKS] = {NULL};
    size_t number = (size_t)(uintptr_t)arg;

    for (int i = 0; i < BLOCKS * ROUNDS; i++) {
        size_t at = (size_t)i * 7919 % BLOCKS;
        size_t size = sizes[(size_t)i % (i % 50 == 0 ? 8 : 6)];

        if (blocks[at] != NULL && *blocks[at] != (unsigned char)(at + number)) {
            fail("a block was overwritten");
        }
        blocks[at] = renew(blocks[at], size, i % 3 == 0);
        memset(blocks[at], (int)(at + number), size);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
    return NULL;
}

static void in_threads(void)
{
    pthread_t threads[THREADS];

    for (size_t i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, churn, (void *)i) != 0) {
            fail("no thread");
        }
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

int main(int argc, char **argv)
{
    void *p = calloc(1, 100);
    int status;
    pid_t child;

    (void)argv;
    if (p == NULL || !OURS(p, argc)) {
        fail("the block is another's");
    }
    in_threads();
    child = fork();
    if (child == 0) {
        free(p);
        in_threads();
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status != 0) {
        fail("the child");
    }
    free(p);
    puts("works");
    return 0;
}
