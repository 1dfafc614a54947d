/*
 * links.c - which malloc does the program have? Compiled in ways in which
 * nothing in it refers to malloc: PROGRAM_NO_MALLOC leaves that to the C
 * library.
 */
#include "program.h"

int main(void)
{
    FILE *file = fopen("/dev/zero", "r");
    char *line = NULL;
    size_t room = 0;

    NEED(file != NULL && getdelim(&line, &room, 0, file) == 1);
    printf("owned: %d", owned(line));
#ifndef PROGRAM_NO_MALLOC
    char *p = malloc(hide(100));

    printf(" %d", owned(p));
    p = realloc(p, hide(100000));
    printf(" %d", owned(p));
    free(p);
    free(line);
#endif
    puts("");
    return 0;
}
