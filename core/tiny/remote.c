/*
 * remote.c - blocks freed by a thread other than their heap's.
 *
 * The freeing thread links such blocks into an outbox per owner and sends them
 * in batches, each with one compare-and-swap; the owner takes its whole inbox
 * with one exchange (haki_tiny_collect). There is no lock.
 *
 * An outbox holds at most HAK_OUTBOX_MOST blocks and is sent when full, when another
 * owner needs its place, at the thread's end and by hak_trim. Nothing is held
 * back for an explicit heap (`sent_at_once`), which may be deleted at any time.
 */
#include "range/purge.h"
#include "range/slots.h"
#include "tiny/remote.h"
#include "tiny/tiny.h"

/* Puts the list head..tail into owner's inbox. */
static void remote_push(struct hak_tiny *owner, struct hak_block *head,
                        struct hak_block *tail)
{
    struct hak_block *old =
        atomic_load_explicit(&owner->inbox, memory_order_relaxed);

    /* seq_cst: the sender then reads whether the owner is gone. */
    do {
        haki_link_set(tail, old);
    } while (!atomic_compare_exchange_weak_explicit(&owner->inbox, &old, head,
                                                    memory_order_seq_cst,
                                                    memory_order_relaxed));
}

uint32_t haki_remote_send(struct hak_tiny *self, unsigned i)
{
    struct hak_outbox *box = haki_tiny_outbox(self, i);
    uint32_t id = box->id;

    HAK_ASSERT(box->count <= HAK_OUTBOX_MOST && (box->count == 0 || id != 0));
    HAK_ASSERT((box->count == 0) == (box->head == NULL));
    if (box->count > 0) {
        /* Counted as if all were as large as the last. */
        haki_range_count_sent(box->count *
                              haki_tiny_bytes_of(box->head,
                                                 haki_range_tag_of(box->head)));
        remote_push(haki_range_heap(id), box->head, box->tail);
    }
    box->id = 0;
    box->count = 0;
    box->head = box->tail = NULL;
    return id;
}

/* Adds a block to the outbox for heap `id`; returns as haki_remote_free. */
static uint32_t remote_collect(struct hak_tiny *self, uint32_t id,
                               struct hak_block *block)
{
    unsigned i = id % HAK_OUTBOXES;
    struct hak_outbox *box = haki_tiny_outbox(self, i);
    uint32_t sent = 0;

    HAK_ASSERT(HAK_TAG_HEAP(haki_range_tag_of(block)) == id);
    if (box->id != id) {
        sent = haki_remote_send(self, i);
        box->id = id;
    }
    haki_link_set(block, box->head);
    box->head = block;
    if (box->count++ == 0) {
        box->tail = block;
    }
    return box->count < HAK_OUTBOX_MOST ? sent : haki_remote_send(self, i);
}

uint32_t haki_remote_free(struct hak_tiny *self, void *p, uint32_t tag)
{
    uint32_t id = HAK_TAG_HEAP(tag);
    struct hak_tiny *owner = haki_range_heap(id);

    haki_tiny_refuse(p);
    if (self == NULL || owner->sent_at_once) {
        remote_push(owner, p, p);
        return id;
    }
    haki_tiny_busy(self, true);
    id = remote_collect(self, id, p);
    haki_tiny_busy(self, false);
    return id;
}
