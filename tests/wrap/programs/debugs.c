/*
 * debugs.c - glibc's own means to look at allocations, in a program that uses
 * them: mtrace, mcheck, and a cancelled mtrace.
 */
#include <mcheck.h>

#include "program.h"

static void use(void)
{
    for (size_t i = 0; i < 200; i++) {
        char *p = malloc(hide(i * 40)), *q = calloc(2, hide(i * 20));

        NEED(p != NULL && q != NULL && malloc_usable_size(p) >= i * 40);
        fill(p, i * 40, 1);
        p = realloc(p, hide(i * 60 + 1));
        NEED(p != NULL);
        free(p);
        free(q);
        free(memalign(64, i + 1));
        free(strdup("a text"));
    }
}

int main(void)
{
    mcheck(NULL);
    use();
    mtrace();
    use();
    muntrace();
    use();
    puts("well");
    return 0;
}
