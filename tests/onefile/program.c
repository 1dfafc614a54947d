/*
 * program.c - what a program does with the core compiled as one file: hak_* from
 * threads, an explicit heap with a limit, and with -DHAKMEM_MALLOC=1 malloc's names.
 *
 * Prints "ok", or exits with 1 and says what is wrong.
 */
#include <errno.h>
#include <hakmem.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEED(x) ((x) ? (void)0 : (printf("not so: %s\n", #x), exit(1)))

enum { BLOCKS = 2000, THREADS = 4 };

static const size_t sizes[] = {1, 24, 1000, 5000, 60000, 3000000};

static void *work(void *arg)
{
    static const size_t kinds = sizeof(sizes) / sizeof(sizes[0]);
    unsigned char *blocks[BLOCKS];

    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size = sizes[i % (i % 500 == 0 ? kinds : 4)];

        blocks[i] = hak_malloc(size);
        NEED(blocks[i] != NULL);
        blocks[i][0] = blocks[i][size - 1] = (unsigned char)i;
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        NEED(blocks[i][0] == (unsigned char)i);
        hak_free(blocks[i]);
    }
    return arg;
}

static void use_a_heap(void)
{
    hak_heap_config config = {.size = sizeof config, .limit = 1 << 20};
    hak_heap *heap = hak_heap_new(&config);
    size_t given = 0;

    NEED(heap != NULL);
    while (hak_heap_malloc(heap, 1000) != NULL) {
        given++;
    }
    NEED(errno == ENOMEM && given > 900 && given <= 1049);
    hak_heap_delete(heap);
}

int main(void)
{
    pthread_t threads[THREADS];
    hak_stats_t stats;

    for (int i = 0; i < THREADS; i++) {
        NEED(pthread_create(&threads[i], NULL, work, NULL) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
    use_a_heap();
#ifdef HAKMEM_MALLOC
    char *copy = strdup("the C library's own requests, too");

    NEED(copy != NULL && hak_usable_size(copy) >= strlen(copy) + 1);
    free(copy);
#endif
    stats.size = sizeof stats;
    hak_stats(&stats);
    NEED(stats.tiny_allocs >= THREADS * BLOCKS / 4);
    puts("ok");
    return 0;
}
