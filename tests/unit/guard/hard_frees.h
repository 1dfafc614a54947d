/*
 * hard_frees.h - frees by another thread: for hard.c and hard_guards.c.
 */
#ifndef HARD_FREES_H
#define HARD_FREES_H

#include "unit.h"

UNIT void *free_in_thread(void *p)
{
    hak_free(p);
    return NULL;
}

UNIT void free_elsewhere(void *p)
{
    unit_in_thread(free_in_thread, p);
}

#endif
