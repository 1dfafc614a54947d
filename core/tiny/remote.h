/*
 * remote.h - Tiny blocks freed by a thread other than their heap's.
 *
 *     free --outbox for the owner, in the freer's state--> a batch --> inbox
 */
#ifndef HAK_REMOTE_H
#define HAK_REMOTE_H

#include "base/base.h"

struct hak_tiny;

/* Blocks of one other heap, on their way back to it. */
struct hak_outbox {
    uint32_t id; /* the owner's heap id; 0: unused */
    uint32_t count;
    struct hak_block *head;
    struct hak_block *tail;
};

#define HAK_OUTBOXES 4
#define HAK_OUTBOX_MOST 64 /* blocks; then it is sent */

/*
 * Frees p, a block of the heap that `tag` names, from a thread
 * whose own state is `self` (NULL: it has none). Blocks are collected per owner
 * and sent in batches. Returns the id of a heap to which something was sent
 * (its owner may be gone, see haki_heap_sent), or 0.
 */
uint32_t haki_remote_free(struct hak_tiny *self, void *p, uint32_t tag);

/* Sends outbox i of self; returns the id of the heap it went to, or 0. */
uint32_t haki_remote_send(struct hak_tiny *self, unsigned i);

#endif /* HAK_REMOTE_H */
