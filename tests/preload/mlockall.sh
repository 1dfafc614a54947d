#!/bin/bash
# mlockall - a program that locks all its memory, and may lock 1 GB (another
# user's than root, who may lock any).
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >locked.c <<'CODE'
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
int main(void)
{
    struct rlimit limit = {1UL << 30, 1UL << 30};
    free(malloc(10));
    if (setrlimit(RLIMIT_MEMLOCK, &limit)) {
        printf("1 GB may not be locked here\n");
        return 0;
    }
    if (getuid() == 0 && setuid(65534))
        return 2;
    int failed = mlockall(MCL_CURRENT | MCL_FUTURE);
    printf("mlockall %s\n", failed ? strerror(errno) : "ok");
    char *block = malloc(100000);
    char *large = malloc(30 << 20);
    printf("malloc %s %s\n", block ? "ok" : "fails", large ? "ok" : "fails");
    return 0;
}
CODE
gcc -O1 -fno-builtin -o locked locked.c
chmod 711 .
under ./locked
