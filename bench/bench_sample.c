/*
 * bench_sample.c - the toy runtime at work: bench_sample libc|hakmem.
 */
#include <hak_toy.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *libc_alloc(void *ud, void *p, size_t osize, size_t nsize)
{
    (void)ud;
    (void)osize;
    if (nsize == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, nsize);
}

int main(int argc, char **argv)
{
    static const char work[] =
        "list 300 { 'abc dup cat dup cat add 7 add dup } 250 { drop }";
    int on_hakmem = argc == 2 && strcmp(argv[1], "hakmem") == 0;

    if (argc != 2 || (!on_hakmem && strcmp(argv[1], "libc") != 0)) {
        fprintf(stderr, "usage: %s libc|hakmem\n", argv[0]);
        return 2;
    }
    for (int i = 0; i < 5; i++) {
        hak_toy_heap *heap = on_hakmem ? hak_toy_heap_new(0) : NULL;
        struct toy *toy = toy_new(on_hakmem ? hak_toy_alloc : libc_alloc, heap);

        if (toy == NULL || toy_run(toy, work) != TOY_OK) {
            return 1;
        }
        if (on_hakmem) {
            hak_toy_heap_delete(heap);
        } else {
            toy_free(toy);
        }
    }
    return 0;
}
