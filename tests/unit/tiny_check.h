/*
 * tiny_check.h - core/tiny/tiny_walk.c's walk of a Tiny state, and of the tags.
 *
 * Used by the tests that work on a heap's lists. Call it from the thread that
 * uses the heap while nobody sends it blocks. The first broken promise ends
 * the process with a line naming it.
 */
#ifndef TINY_CHECK_H
#define TINY_CHECK_H

#include "unit.h"
#include "pool/pool_class.h"
#include "range/slots.h"
#include "range/supers.h"
#include "tiny/tiny.h"
#include "tiny/tiny_walk.h"

UNIT uint32_t tiny_number(const void *p)
{
    return haki_range_number(p);
}

/*
 * No slab outside the heap's list may carry its tag; what else is the heap's
 * must be a slab of Pool's.
 */
UNIT void tiny_check_tags(const struct hak_tiny *tiny)
{
    size_t count = 0;

    for (size_t n = 0; n < haki_range.size / HAK_SLAB_SIZE; n++) {
        uint32_t tag;

        if (haki_supers.at[n / HAK_SUPER_SLABS].state == HAK_SUPER_FRESH) {
            n += HAK_SUPER_SLABS - 1;
            continue;
        }
        tag = haki_range_tag(n << HAK_SLAB_SHIFT);
        if (HAK_TAG_HEAP(tag) == tiny->id) {
            count += HAK_TAG_CLASS(tag) < HAK_TAG_TINY_END;
            NEED(HAK_TAG_CLASS(tag) < HAK_TAG_TINY_END ||
                 HAK_TAG_CLASS(tag) - HAK_TAG_POOL < HAK_POOL_CLASSES);
        }
    }
    NEED(count == tiny->nslabs + tiny->nsealed);
}

UNIT void tiny_check(const struct hak_tiny *tiny)
{
    NEED(!atomic_load(&tiny->busy));
    haki_tiny_walk(tiny, true);
    tiny_check_tags(tiny);
}

/* ---- Tiny states without a heap around them ------------------------------ */

/*
 * A Tiny state in a heap slot of its own (so that others find it by its id),
 * not marked as a thread's or as explicit.
 */
UNIT struct hak_tiny *tiny_new(bool is_explicit)
{
    struct hak_tiny *tiny;
    uint32_t id;

    NEED(haki_range_init());
    tiny = haki_range_heap_take(&id);
    NEED(tiny != NULL);
    haki_tiny_init(tiny, id, is_explicit);
    return tiny;
}

UNIT void tiny_delete(struct hak_tiny *tiny)
{
    haki_tiny_release(tiny);
    haki_range_heap_give(tiny->id);
}

#endif /* TINY_CHECK_H */
