/*
 * hak_py_spare.c - what limits allow.
 *
 * The last part of a HAKMEM_LIMIT is kept back, because CPython ends the
 * program if there is no memory for the MemoryError itself. So requests that
 * need the last part are refused at first; from then on small blocks may use
 * it, until there is more room again.
 */
#include "hak_py.h"

#define SHARE 32 /* of the limit */
#define LEAST (64 * HAK_KIB)
#define MOST HAK_MIB

bool hak_py_limit_spares(struct hak_heap *heap, size_t size)
{
    static atomic_bool met;
    size_t limit = haki_embed_limit();
    size_t spare = haki_min(haki_max(limit / SHARE, LEAST), MOST);
    size_t room = haki_limit_room();

    if (room < 2 * spare) {
        if (atomic_load(&met) && size <= HAK_LANE_TINY_MAX) {
            return true;
        }
        if (room < spare && haki_relief(heap, size)) {
            room = haki_limit_room();
        }
    }
    atomic_store(&met, room < spare);
    return room >= spare;
}

/*
 * Not the core's account (heap/account.h): that is of one heap, which one thread
 * uses. This limit is of all that Python has, of every heap, the threads' too, and
 * of the allocators that were there before (whole), so it is one sum for all
 * threads; the heaps' own are not kept.
 */
bool hak_py_admit(struct hak_py_domain *d, size_t size)
{
    size_t live = atomic_load_explicit(&hak_py.live, memory_order_relaxed);
    bool met = atomic_load_explicit(&hak_py.met, memory_order_relaxed);
    size_t most = hak_py.limit +
                  (met && size <= hak_py.reserve_most ? hak_py.reserve : 0);

    if (haki_account_within(live, size, most)) {
        if (met && live + hak_py.reserve < hak_py.limit) {
            atomic_store(&hak_py.met, false);
        }
        return true;
    }
    atomic_fetch_add_explicit(&d->refused, 1, memory_order_relaxed);
    atomic_store(&hak_py.met, true);
    return false;
}

size_t hak_py_bytes_of(const void *p)
{
    uint32_t tag = haki_embed_tag(p);
    uint32_t owner;

    return haki_tag_is_large(tag) ? haki_large_find(p, &owner)
                                  : haki_embed_block_bytes(p, tag);
}
