/*
 * misuse.h - every function that takes a block, called with a pointer that is none:
 * for the lanes' tests of misuse. The program must end, with one line.
 */
#ifndef MISUSE_H
#define MISUSE_H

#include "unit.h"

struct call {
    void *p;
    size_t
        size; /* what it is said to have, by the functions that take a size */
    hak_heap *heap;
};

/* What is asked for to resize it. */
enum { MISUSE_RESIZED = 777777 };

UNIT void call_free(void *arg)
{
    hak_free(((struct call *)arg)->p);
}

UNIT void call_free_sized(void *arg)
{
    hak_free_sized(((struct call *)arg)->p, ((struct call *)arg)->size);
}

UNIT void call_realloc(void *arg)
{
    NEED(hak_realloc(((struct call *)arg)->p, MISUSE_RESIZED) == arg);
}

UNIT void call_usable_size(void *arg)
{
    NEED(hak_usable_size(((struct call *)arg)->p) == 77);
}

UNIT void call_heap_free(void *arg)
{
    hak_heap_free(((struct call *)arg)->heap, ((struct call *)arg)->p);
}

UNIT void call_heap_realloc(void *arg)
{
    const struct call *call = arg;

    NEED(hak_heap_realloc(call->heap, call->p, MISUSE_RESIZED) == arg);
}

static const struct {
    const char *name;
    void (*run)(void *);
} calls[] = {
    {"hak_free", call_free},           {"hak_free_sized", call_free_sized},
    {"hak_realloc", call_realloc},     {"hak_usable_size", call_usable_size},
    {"hak_heap_free", call_heap_free}, {"hak_heap_realloc", call_heap_realloc},
};

/* From HEAPS on those that take a heap, too. */
enum { ALL = 0, HEAPS = 4, CALLS = sizeof(calls) / sizeof(calls[0]) };

/*
 * From the first-th on they must name themselves, p and the reason, and abort. The
 * block is said to have `size` bytes.
 */
UNIT void expect_fatal_sized(size_t first, void *p, size_t size,
                             const char *reason)
{
    struct call call = {unit_pointer(p), size, hak_heap_new(NULL)};

    for (size_t i = first; i < CALLS; i++) {
        unit_expect_fatal(calls[i].run, &call, "hakmem: fatal: %s(%p): %s\n",
                          calls[i].name, p, reason);
    }
    hak_heap_delete(call.heap);
}

#endif
