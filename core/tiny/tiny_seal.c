/*
 * tiny_seal.c - the fork seal in the Tiny lane: seals slabs, and counts blocks
 * freed into sealed slabs.
 *
 * Tested by tests/unit/api/seal.c and tests/unit/api/seal_threads.c.
 */
#include "os/lock.h"
#include "range/slabs.h"
#include "range/slots.h"
#include "tiny/remote.h"
#include "tiny/tiny_seal.h"
#include "tiny/tiny_slab.h"

/* How many blocks of stale lists each free counts. */
#define COUNT_STEP 2

/* Counts n blocks of a sealed slab as free. */
static void tiny_count(struct hak_tiny *tiny, uint32_t number, uint32_t n)
{
    struct hak_slab *slab = haki_range_slab(number);

    if (slab->class == HAK_TAG_PACKED) {
        return; /* it stays until the heap ends */
    }
    HAK_CHECK(n <= slab->carved - slab->nfree);
    HAK_ASSERT(haki_range_sealed((size_t)number << HAK_SLAB_SHIFT));
    slab->nfree += n;
    if (slab->nfree == slab->carved) {
        HAK_ASSERT(tiny->nsealed > 0);
        haki_slab_leave(&tiny->all, number);
        tiny->nsealed--;
        haki_range_slabs_give(number, 1, HAK_LANE_TINY);
        HAK_WALK(haki_tiny_walk_due());
    }
}

void haki_tiny_seal_count(struct hak_tiny *tiny, uint32_t most)
{
    struct hak_block **lists = haki_tiny_stale(tiny);

    HAK_ASSERT(atomic_load(&tiny->busy) && tiny->nstale <= HAK_TINY_STALE);
    for (; tiny->nstale > 0 && most > 0; most--) {
        struct hak_block **list = &lists[tiny->nstale - 1];
        struct hak_block *block = *list;

        HAK_ASSERT(block != NULL); /* empty lists are not kept */
        *list = haki_link_get(block);
        tiny->nstale -= *list == NULL;
        tiny_count(tiny, haki_range_number(block), 1);
    }
}

/* How many slabs are neither sealed nor packed. */
static uint32_t tiny_open_slabs(const struct hak_tiny *tiny)
{
    uint32_t packed = 0;

    for (uint32_t i = 0; i < HAK_PACKED_SLABS; i++) {
        packed += tiny->packed && tiny->packed_at[i] != HAK_NO_SLAB;
    }
    return tiny->nslabs - packed;
}

HAK_COLD void haki_tiny_seal(struct hak_tiny *tiny)
{
    haki_tiny_busy(tiny, true);
    if (tiny->nstale > HAK_TINY_STALE - 2 * HAK_TINY_CLASSES) {
        haki_tiny_seal_count(tiny, UINT32_MAX);
    }
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        haki_tiny_slab_trim(tiny, c);
    }
    HAK_ASSERT(tiny->nempty == 0);
    tiny->allow.slabs -= (int64_t)(tiny_open_slabs(tiny) * HAK_SLAB_SIZE);
    HAK_ASSERT(tiny->allow.slabs >= 0);
    for (uint32_t n = tiny->all; n != HAK_NO_SLAB;
         n = haki_range_slab(n)->all_next) {
        struct hak_slab *slab = haki_range_slab(n);

        if (slab->class != HAK_TAG_PACKED && slab->ngone > 0) {
            slab->nfree += slab->ngone; /* from here on it is only counted */
            slab->ngone = 0;
        }
        haki_range_seal(n);
    }
    tiny->nsealed += tiny->nslabs;
    tiny->nslabs = 0;
    tiny->packed = false;
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        haki_tiny_seal_class(tiny, c);
    }
    haki_tiny_collect(tiny);
    haki_tiny_seal_collect(tiny);
    HAK_WALK(haki_tiny_walk_due());
    haki_tiny_busy(tiny, false);
}

void haki_tiny_seal_put(struct hak_tiny *tiny, struct hak_block *block)
{
    unsigned class = haki_tiny_class_at(block);

    HAK_ASSERT(haki_range_sealed(haki_range_offset(block)));
    if (class == HAK_TINY_LARGER) {
        haki_tiny_larger_put(tiny, block);
        return;
    }
    HAK_ASSERT(tiny->taken[class] > 0);
    tiny->taken[class]--;
    haki_keep_taken(&tiny->allow, -(int64_t)haki_tiny_size[class]);
    tiny_count(tiny, haki_range_number(block), 1);
}

/*
 * Whether `remote` and what the owner has counted add up to all of a slab's
 * blocks. While the owner is counting this may be false too long; the next
 * caller sees it.
 */
static HAK_RACY_READER bool tiny_is_done(const struct hak_slab *slab,
                                         uint64_t remote)
{
    const volatile uint32_t *nfree = &slab->nfree, *carved = &slab->carved;

    return remote + *nfree >= *carved;
}

/*
 * Frees a block of another heap; returns as haki_remote_free. If the owner's
 * thread has ended, it is not worth acting for it before the slab is free.
 */
static uint32_t tiny_send(struct hak_tiny *owner, const void *p)
{
    uint32_t number = haki_range_number(p);
    struct hak_slab *slab = haki_range_slab(number);
    uint64_t before =
        atomic_fetch_add_explicit(&slab->remote, 1, memory_order_acq_rel);

    if (before == 0) {
        haki_slab_tell(&owner->sealed_inbox, number);
    }
    return tiny_is_done(slab, before + 1) ? owner->id : 0;
}

uint32_t haki_tiny_seal_free(struct hak_tiny *self, void *p, uint32_t tag)
{
    struct hak_tiny *owner = haki_range_heap(HAK_TAG_HEAP(tag));

    haki_tiny_refuse(p);
    if (owner != self) {
        if (HAK_TAG_CLASS(tag) == HAK_TAG_PACKED) { /* it has several classes */
            return haki_remote_free(self, p, tag);
        }
        haki_link_mark(p);
        return tiny_send(owner, p);
    }
    haki_tiny_busy(self, true);
    haki_link_mark(p);
    haki_tiny_seal_put(self, p);
    haki_tiny_seal_count(self, COUNT_STEP);
    haki_tiny_busy(self, false);
    return 0;
}

void haki_tiny_seal_collect(struct hak_tiny *tiny)
{
    uint32_t number;

    /* seq_cst: as in haki_tiny_collect. */
    if (HAK_LIKELY(atomic_load_explicit(&tiny->sealed_inbox,
                                        memory_order_seq_cst) == HAK_NO_SLAB)) {
        return;
    }
    number = atomic_exchange_explicit(&tiny->sealed_inbox, HAK_NO_SLAB,
                                      memory_order_acquire);
    while (number != HAK_NO_SLAB) {
        struct hak_slab *slab = haki_range_slab(number);
        uint32_t next = slab->inbox_next;
        /* From here on the slab may be put into the inbox again. */
        uint32_t n = (uint32_t)atomic_exchange_explicit(&slab->remote, 0,
                                                        memory_order_acq_rel);

        HAK_POINT("seal");
        HAK_ASSERT(n > 0 && tiny->taken[slab->class] >= n);
        tiny->remote_frees += n;
        tiny->remote_bytes += (uint64_t)n * slab->block;
        tiny->taken[slab->class] -= n;
        haki_keep_taken(&tiny->allow, -(int64_t)n * slab->block);
        tiny_count(tiny, number, n);
        number = next;
    }
}
