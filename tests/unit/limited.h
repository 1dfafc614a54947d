/*
 * limited.h - explicit heaps with a limit, and the system's blocks in them.
 */
#ifndef LIMITED_H
#define LIMITED_H

#include "heap/heap.h"
#include "front/lane.h"
#include "front/large.h"
#include "os/os.h"
#include "unit.h"

UNIT hak_heap *limited(size_t limit)
{
    hak_heap_config config = {.size = sizeof(config), .limit = limit};
    hak_heap *heap = hak_heap_new(&config);

    cr_assert_not_null(heap);
    return heap;
}

/*
 * A block that the heap takes from the system, the range having none: of 2 MB
 * or more, whose superslabs can't be committed.
 */
UNIT char *from_system(hak_heap *heap, size_t size)
{
    char *p;

    /* The registry's own table shall be there. */
    hak_free(haki_system_alloc(16, 10, NULL, HAK_REASON_MEMORY));
    haki_os_test_refuse(1, true);
    p = hak_heap_malloc(heap, size);
    haki_os_test_refuse(0, false);
    cr_assert(p != NULL && !hak_owns(p));
    return p;
}

/* What a block for `size` bytes takes. */
UNIT size_t whole(size_t size)
{
    return size <= HAK_TINY_MAX
               ? haki_tiny_size[haki_tiny_class_16[haki_tiny_index(size)]]
               : haki_large_bytes(size);
}

#endif
