/*
 * libpages.c - a kernel with pages of 16 KB, as far as AT_PAGESZ tells.
 */
#include <dlfcn.h>
#include <sys/auxv.h>

unsigned long getauxval(unsigned long type)
{
    unsigned long (*next)(unsigned long) =
        (unsigned long (*)(unsigned long))dlsym(RTLD_NEXT, "getauxval");

    return type == AT_PAGESZ ? 16384 : next(type);
}
