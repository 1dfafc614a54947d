/*
 * wrap_need.c - a reference to malloc.
 *
 * An object of its own that libhakmem.a, a script for the linker,
 * names before the archive: without it nobody might ask for malloc, and the
 * archive's would be left out without a word. A compiler that optimises when
 * it links does not say that it will call malloc, and a program may leave that
 * to shared libraries.
 *
 * Tested by tests/wrap/behaviour.c.
 */
#include <stdlib.h>

__attribute__((used)) static void *(*const wrap_need)(size_t) = malloc;
