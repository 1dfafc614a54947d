/*
 * account.c - the account of a heap: the paths beyond the gate.
 */
#include "heap/account.h"
#include "tiny/tiny_seal.h"

/* How exactly the peak is known: to 4 KB, or 1/16 of it if that is more. */
#define STEP_LEAST ((size_t)4096)
#define STEP_SHARE 16

HAK_RACY_READER size_t haki_account_live(const struct hak_heap *heap)
{
    const struct hak_pool *pool =
        __atomic_load_n(&heap->pool, __ATOMIC_RELAXED);

    /*
     * In this order, see account_take_off: otherwise the sum could be below 0.
     */
    size_t live = __atomic_load_n(&heap->live, __ATOMIC_ACQUIRE);
    size_t remote = heap->tiny.remote_bytes;

    remote += pool != NULL ? pool->remote_bytes : 0;
    if (HAK_UNLIKELY(haki_heap_was_sampled(heap))) {
        remote += atomic_load(&haki_tiny_sampling(&heap->tiny)->samples_freed);
    }
    return live - haki_min(live, remote) + haki_account_other(heap);
}

/*
 * What others freed, and was counted in *remote, is not live any more. An adapter
 * that has an account of its own charges nothing here: `live` is 0 and stays so.
 */
static void account_take_off(struct hak_heap *heap, uint64_t *remote)
{
    uint64_t bytes = haki_min(*remote, heap->live);

    HAK_ASSERT(bytes == *remote || heap->live == 0);
    __atomic_store_n(remote, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&heap->live, heap->live - bytes, __ATOMIC_RELEASE);
}

/* What `live` may rise to as far as the limit is concerned. */
static size_t account_ceiling(const struct hak_heap *heap)
{
    size_t other = haki_account_other(heap);

    return heap->limit == SIZE_MAX ? SIZE_MAX
                                   : heap->limit - haki_min(heap->limit, other);
}

/* Notes a peak, if `size` bytes more make one, and sets the gate. */
static void account_note(struct hak_heap *heap, size_t size)
{
    size_t other = haki_account_other(heap);
    size_t now = haki_account_live(heap) + size;
    size_t most;

    heap->peak = haki_max(heap->peak, now);
    most =
        haki_max(heap->peak - haki_min(heap->peak, other), heap->live + size) +
        haki_max(heap->peak / STEP_SHARE, STEP_LEAST);
    HAK_ASSERT(most >= heap->live + size); /* no overflow */
    heap->gate = haki_min(account_ceiling(heap), most);
}

/* Takes in what others freed. */
static void account_collect(struct hak_heap *heap)
{
    struct hak_pool *pool = heap->pool;

    haki_tiny_collect(&heap->tiny);
    if (heap->tiny.nsealed > 0) {
        haki_tiny_seal_collect(&heap->tiny);
    }
    account_take_off(heap, &heap->tiny.remote_bytes);
    if (HAK_UNLIKELY(haki_heap_was_sampled(heap))) {
        heap->live -=
            atomic_exchange(&haki_tiny_sampling(&heap->tiny)->samples_freed, 0);
    }
    if (pool != NULL) {
        haki_pool_collect(pool);
        account_take_off(heap, &pool->remote_bytes);
    }
}

void haki_account_update(struct hak_heap *heap)
{
    account_collect(heap);
    account_note(heap, 0);
}

void haki_account_undo(struct hak_heap *heap, size_t peak)
{
    HAK_ASSERT(peak <= heap->peak); /* it was noted since */
    heap->peak = peak;
    haki_account_update(heap);
}

/* Whether the limit leaves room for `size` bytes more. */
static bool account_fits(const struct hak_heap *heap, size_t size)
{
    return haki_account_within(heap->live, size, account_ceiling(heap));
}

HAK_NOINLINE bool haki_account_admit_slow(struct hak_heap *heap, size_t size)
{
    if (!account_fits(heap, size)) {
        account_collect(heap);
    }
    if (account_fits(heap, size)) {
        account_note(heap, size <= PTRDIFF_MAX ? size : 0);
        HAK_ASSERT(size > PTRDIFF_MAX || haki_account_fits(heap, size));
        return true;
    }
    haki_heap_trim_used(heap); /* at the limit a heap keeps nothing */
    heap->limit_refusals++;
    return false;
}

void haki_account_set_limit(struct hak_heap *heap, size_t limit)
{
    __atomic_store_n(&heap->limit, limit, __ATOMIC_RELAXED);
    haki_account_update(heap);
}
