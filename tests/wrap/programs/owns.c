/*
 * owns.c - which allocator serves a request: asks for some sizes, again after
 * freeing them, and says whether each block is in HAKMEM's range.
 */
#include "program.h"

int main(void)
{
    static const size_t sizes[] = {1, 100, 1024};

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            void *p = malloc(hide(sizes[i])), *q = calloc(1, hide(sizes[i]));
            void *r = realloc(hide_pointer(NULL), hide(sizes[i])), *s = NULL;

            NEED(posix_memalign(&s, 64, hide(sizes[i])) == 0);
            printf("%zu: %d %d %d %d\n", sizes[i], owned(p), owned(q), owned(r),
                   owned(s));
            free(p);
            free(q);
            free(r);
            free(s);
        }
    }
    return 0;
}
