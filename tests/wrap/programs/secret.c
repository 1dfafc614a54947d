/*
 * secret.c - to be run with the rights of another user: it then says nothing,
 * whatever HAKMEM_* may be set (it carries libhakmem.a).
 */
#include "program.h"

int main(void)
{
    for (size_t i = 0; i < 100; i++) {
        free(malloc(i * 1000));
    }
    return geteuid() == getuid();
}
