/* core.c - a program on hak_malloc. */
#include <hakmem.h>
#include <stdio.h>

int main(void)
{
    void *p = hak_malloc(100);

    puts(hak_owns(p) ? hak_version() : "the block is another's");
    hak_free(p);
    return 0;
}
