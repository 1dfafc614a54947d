/*
 * wrap_need.c - a reference to malloc.
 *
 * An object of its own, which libhakmem.a (a linker script) names before the
 * archive: without it there might be no reference to malloc, and the archive's
 * would silently be left out. A compiler that optimises at link time does not
 * say that it will call malloc, and a program may leave calling it to shared
 * libraries.
 *
 * Tested by tests/wrap/behaviour.c.
 */
#include <stdlib.h>

__attribute__((used)) static void *(*const wrap_need)(size_t) = malloc;
