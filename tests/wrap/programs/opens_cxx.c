/*
 * opens_cxx.c LIBCXX - a C program that opens a library written in C++ for
 * itself alone: the C++ library is then hidden from everyone else.
 */
#include "program.h"

int main(int argc, char **argv)
{
    void *library;
    int (*test)(void);

    NEED(argc > 1);
    NEED(dlsym(RTLD_DEFAULT, "_ZSt15get_new_handlerv") == NULL);
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    NEED(library != NULL);
    *(void **)&test = dlsym(library, "cxx_test");
    NEED(test != NULL);
    printf("caught: %d\n", test());
    return 0;
}
