/*
 * secret.c - run with another user's privileges: then it prints nothing,
 * whatever HAKMEM_* variables are set (it contains libhakmem.a).
 */
#include "program.h"

int main(void)
{
    for (size_t i = 0; i < 100; i++) {
        free(malloc(i * 1000));
    }
    return geteuid() == getuid();
}
