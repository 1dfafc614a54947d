/*
 * misuse.c WHAT - frees or resizes something that is not a block; or changes
 * standard error, to see where messages at exit go; or has the statistics
 * printed.
 */
#include <fcntl.h>

#include "program.h"

int main(int argc, char **argv)
{
    char *p = malloc(100), *q = malloc(100);
    const char *what = argc > 1 ? argv[1] : "";

    NEED(p != NULL && q != NULL);
    if (strcmp(what, "free") == 0) {
        free(hide_pointer(p + 16));
    } else if (strcmp(what, "realloc") == 0) {
        p = realloc(hide_pointer(p + 16), 200);
    } else if (strcmp(what, "usable") == 0) {
        printf("%zu\n", malloc_usable_size(hide_pointer(p + 16)));
    } else if (strcmp(what, "stats") == 0) {
        malloc_stats();
    } else if (strcmp(what, "close") == 0) {
        close(STDERR_FILENO);
    } else if (strcmp(what, "replace") == 0 && argc > 2) {
        /* The next file gets the number of standard error. */
        close(STDERR_FILENO);
        NEED(open(argv[2], O_WRONLY | O_CREAT, 0600) == STDERR_FILENO);
    } else if (strcmp(what, "close all") == 0 && argc > 2) {
        for (int fd = STDERR_FILENO; fd < 300; fd++) {
            close(fd);
        }
        for (int fd = STDERR_FILENO; fd < 300; fd++) {
            NEED(open(argv[2], O_WRONLY | O_CREAT, 0600) == fd);
        }
    }
    free(q);
    return 0;
}
