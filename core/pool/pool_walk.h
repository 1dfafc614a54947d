/*
 * pool_walk.h - walks a Pool state and checks the invariants of pool.h.
 *
 * Exists only if HAK_WALKS (assert.h); called by the heap's user.
 */
#ifndef HAK_POOL_WALK_H
#define HAK_POOL_WALK_H

#include "base/assert.h"
#include "pool/pool_class.h"

struct hak_pool;

/* Sums over the spans. */
struct hak_pool_sums {
    size_t spans, slabs, remote; /* spans with remote frees */
    size_t sealed;               /* slabs; `slabs` are the others */
    size_t empty; /* of `slabs`: in spans without a block taken */
    size_t in_class[HAK_POOL_CLASSES];
    size_t open[HAK_POOL_CLASSES];
    size_t taken[HAK_POOL_CLASSES]; /* blocks */
    size_t bins[HAK_POOL_CLASSES];  /* blocks in them */
    size_t live_bytes;              /* in use, or in remote words */
};

/* `quiet`: no other thread frees its blocks meanwhile. As haki_tiny_walk. */
struct hak_pool_sums haki_pool_walk(const struct hak_pool *pool, bool quiet);

/* As for Tiny. */
void haki_pool_walk_due(void);
void haki_pool_walk_if_due(const struct hak_pool *pool);

#endif /* HAK_POOL_WALK_H */
