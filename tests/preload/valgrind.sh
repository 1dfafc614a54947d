#!/bin/bash
# valgrind - of a program that has the library: with memcheck's malloc in place of the
# library's, with the library's own, and with no tool at all.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >program.c <<'CODE'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void)
{
    unsigned long sum = 0;
    char *kept[500] = {0};
    for (int i = 0; i < 20000; i++) {
        char **slot = &kept[i * 7919 % 500];
        size_t size = 1 + (size_t)i * 31 % (i % 100 ? 900 : 90000);
        if (i % 3)
            free(*slot), *slot = malloc(size);
        else
            *slot = realloc(*slot, size);
        memset(*slot, i, size);
        sum += (unsigned char)(*slot)[size / 2];
    }
    for (int i = 0; i < 500; i++)
        free(kept[i]);
    printf("%lu\n", sum);
    return 0;
}
CODE
gcc -g -O1 -o program program.c
unserved valgrind -q --error-exitcode=9 --leak-check=full ./program
AS=memcheck under valgrind -q --error-exitcode=9 \
    --soname-synonyms=somalloc=nouserintercepts ./program
AS=none under valgrind -q --tool=none ./program
