/*
 * outspan.c - Pool blocks of other heaps are collected and sent.
 *
 * Tested by tests/unit/heap/outspan.c.
 */
#include "heap/outspan.h"

#include "heap/thread.h"
#include "range/purge.h"
#include "range/slots.h"

/* What a box holds at the most; larger blocks are not held back. */
#define OUTSPAN_BYTES ((uint32_t)(64 * HAK_KIB))

static struct hak_heap *outspan_heap(uint32_t id)
{
    return haki_range_heap(id);
}

uint32_t haki_outspan_send(struct hak_heap *heap, unsigned i)
{
    struct hak_outspan *box = haki_heap_outspan(heap, i);
    uint32_t number = box->span, id = 0;

    if (box->bits != 0) {
        id = HAK_TAG_HEAP(haki_range_tag((size_t)number << HAK_SLAB_SHIFT));
        if (haki_pool_remote_put(outspan_heap(id)->pool, number, box->bits)) {
            haki_range_count_sent(HAK_SLAB_SIZE);
        } else {
            id = 0;
        }
    }
    *box = (struct hak_outspan){0, 0, 0};
    return id;
}

static bool outspan_at_once(uint32_t id, void *p)
{
    bool told;

    if (!haki_pool_remote_free(outspan_heap(id)->pool, p, &told)) {
        return false;
    }
    if (told) {
        haki_range_count_sent(HAK_SLAB_SIZE);
        haki_heap_sent(id);
    }
    return true;
}

/* Puts a block into box i, after what is in there of another span was sent. */
static uint32_t outspan_collect(struct hak_heap *heap, unsigned i,
                                uint32_t number, uint64_t bit, uint32_t most)
{
    struct hak_outspan *box = haki_heap_outspan(heap, i);
    uint32_t sent = 0;

    if (box->span != number) {
        sent = haki_outspan_send(heap, i);
        *box = (struct hak_outspan){number, most, 0};
    }
    HAK_ASSERT(box->left > 0 && (box->bits & bit) == 0);
    box->bits |= bit;
    box->left--;
    return box->left > 0 ? sent : haki_outspan_send(heap, i);
}

/*
 * Whether blocks of `owner` may be held back: it would take them in only when it
 * is told to, if its thread has ended.
 */
static bool outspan_may_wait(const struct hak_heap *heap,
                             const struct hak_heap *owner, uint32_t most)
{
    return !HAK_HARD && heap != NULL && !heap->tiny.accounted &&
           !heap->tiny.packed && most > 1 && !owner->tiny.sent_at_once &&
           atomic_load_explicit(&owner->state, memory_order_relaxed) !=
               HAK_HEAP_PARKED;
}

bool haki_outspan_free(struct hak_heap *heap, uint32_t id, void *p)
{
    unsigned class = haki_pool_class_at(p), i = class % HAK_OUTSPANS;
    uint32_t most = OUTSPAN_BYTES / haki_pool_classes[class].block;
    uint32_t number = haki_pool_span(p), sent;
    const struct hak_outspan *box;
    uint64_t bit;

    if (!outspan_may_wait(heap, outspan_heap(id), most)) {
        return outspan_at_once(id, p);
    }
    if (!haki_pool_is_taken(p)) {
        return false;
    }
    box = haki_heap_outspan(heap, i);
    bit = haki_pool_bit(p, class);
    if (box->span == number && (box->bits & bit) != 0) {
        return false; /* it is in the box already */
    }
    haki_tiny_busy(&heap->tiny, true);
    sent = outspan_collect(heap, i, number, bit, most);
    haki_tiny_busy(&heap->tiny, false);
    haki_heap_sent(sent);
    return true;
}
