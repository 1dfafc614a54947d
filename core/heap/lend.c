/*
 * lend.c - lends sleeping threads' heaps to threads that give memory back.
 */
#include "heap/lend.h"

#include "base/msg.h"
#include "os/os.h"
#include "heap/thread.h"
#include "range/purge.h"
#include "range/slots.h"

/*
 * How often an unused heap whose owner is never found asleep, or a heap in use,
 * is looked at; after that it is left until it changes.
 */
#define TRIES_MOST 4

/* Milliseconds until haki_lend_used asks again whether an owner sleeps. */
#define LEND_PAUSE 10

static hak_lock lend_lock = HAK_LOCK_INIT(NULL);
static atomic_bool lend_closed;

void haki_lend_close(void)
{
    atomic_store(&lend_closed, true);
}

void haki_lend_begin(struct hak_heap *heap)
{
    heap->lend.thread = haki_os_thread_id();
    heap->lend.signals = haki_os_blocked_signals();
    heap->lend.tries = 0;
    atomic_store(&heap->lend.self_at, &haki_self);
}

/* No heap in use has the self_at of a thread that is gone: see thread_exit. */
void haki_lend_end(struct hak_heap *heap)
{
    haki_lock_take(&lend_lock);
    atomic_store(&heap->lend.self_at, NULL);
    haki_lock_drop(&lend_lock);
}

static void lend_set_self(struct hak_heap **self, const struct hak_heap *heap)
{
    __atomic_store_n(self, (struct hak_heap *)heap, __ATOMIC_SEQ_CST);
}

bool haki_lend_return(struct hak_heap *heap)
{
    bool sound = true;

    haki_lock_take(&lend_lock);
    HAK_POINT("return");
    if (haki_thread_self() !=
        heap) { /* its borrower was left behind by a fork */
        sound = haki_lend_forked(heap);
    }
    haki_lock_drop(&lend_lock);
    return sound;
}

bool haki_lend_forked(struct hak_heap *heap)
{
    bool sound = !haki_heap_is_busy(heap);

    if (sound) {
        lend_set_self(&haki_self, heap);
    } else {
        atomic_store(&heap->state, HAK_HEAP_LOST);
    }
    return sound;
}

/*
 * Whether, as far as this heap is concerned, no thread is at a point where it
 * may sleep in the middle of something of ours.
 */
static bool lend_is_calm(void *arg)
{
    return !haki_heap_is_busy(arg) && !haki_lock_any_waits() &&
           !haki_os_any_reads() && !haki_msg_any_writes();
}

/*
 * The haki_self of the thread that owns the heap. NULL: the heap may not be
 * lent, and `lend` is not ours to write. Stays so while the lock is held: see
 * haki_lend_end.
 */
static struct hak_heap **lend_owner_self(struct hak_heap *heap)
{
    HAK_HELD(&lend_lock);
    return atomic_load(&heap->state) == HAK_HEAP_OWNED
               ? atomic_load(&heap->lend.self_at)
               : NULL;
}

static bool lend_locked(struct hak_heap *heap,
                        void (*work)(struct hak_heap *heap))
{
    struct hak_heap **self_at = lend_owner_self(heap);
    bool lent;

    if (self_at == NULL || self_at == &haki_self) {
        return false;
    }
    lend_set_self(self_at, &haki_heap_none);
    HAK_POINT("lend");
    lent = haki_os_thread_waits(heap->lend.thread, heap->lend.signals,
                                lend_is_calm, heap);
    if (lent) {
        work(heap);
        HAK_ASSERT(!haki_heap_is_busy(heap));
    }
    HAK_ASSERT(__atomic_load_n(self_at, __ATOMIC_RELAXED) == &haki_heap_none);
    lend_set_self(self_at, heap);
    return lent;
}

bool haki_lend(struct hak_heap *heap, void (*work)(struct hak_heap *heap))
{
    bool lent;

    if (atomic_load(&lend_closed)) {
        return false;
    }
    haki_lock_take(&lend_lock);
    lent = lend_locked(heap, work);
    haki_lock_drop(&lend_lock);
    return lent;
}

void haki_lend_all(void (*work)(struct hak_heap *heap))
{
    for (uint32_t id = 0; (id = haki_range_heap_next(id)) != 0;) {
        struct hak_heap *heap = haki_range_heap(id);

        if (atomic_load(&heap->state) == HAK_HEAP_OWNED) {
            haki_lend(heap, work);
        }
    }
}

/* The owner was not asleep: it is not asked again for a while. */
static bool lend_soon_again(struct hak_heap *heap, uint32_t now)
{
    return heap->lend_not_before == 0 ||
           haki_tick_reached(now, heap->lend_not_before);
}

static void lend_if_used(struct hak_heap *heap,
                         void (*work)(struct hak_heap *heap), uint32_t now)
{
    HAK_HELD(&lend_lock);
    if (lend_owner_self(heap) == NULL ||
        haki_heap_use(heap) == heap->trimmed_use ||
        !lend_soon_again(heap, now)) {
        return;
    }
    heap->lend_not_before =
        lend_locked(heap, work) ? 0 : haki_some_time(now + LEND_PAUSE);
}

void haki_lend_used(void (*work)(struct hak_heap *heap))
{
    uint32_t now = haki_os_tick();

    if (atomic_load(&lend_closed)) {
        return;
    }
    for (uint32_t id = 0; (id = haki_range_heap_next(id)) != 0;) {
        struct hak_heap *heap = haki_range_heap(id);

        if (atomic_load(&heap->state) == HAK_HEAP_OWNED) {
            haki_lock_take(&lend_lock);
            lend_if_used(heap, work, now);
            haki_lock_drop(&lend_lock);
        }
    }
}

/* False: the heap needs no further look until it is used again. */
static bool lend_if_idle(struct hak_heap *heap,
                         void (*work)(struct hak_heap *heap))
{
    uint64_t use;

    if (lend_owner_self(heap) == NULL) {
        return false;
    }
    use = haki_heap_use(heap);
    if (use != heap->lend.use) {
        heap->lend.use = use;
        heap->lend.tries = 0;
        return true;
    }
    if (heap->lend.tries >= TRIES_MOST) {
        return false;
    }
    heap->lend.tries++;
    if (lend_locked(heap, work)) {
        heap->lend.tries = TRIES_MOST;
        heap->lend.use = haki_heap_use(heap);
    }
    return heap->lend.tries < TRIES_MOST;
}

bool haki_lend_idle(void (*work)(struct hak_heap *heap))
{
    bool more = false;

    if (atomic_load(&lend_closed)) {
        return false;
    }
    for (uint32_t id = 0; (id = haki_range_heap_next(id)) != 0;) {
        struct hak_heap *heap = haki_range_heap(id);

        if (atomic_load(&heap->state) == HAK_HEAP_OWNED) {
            haki_lock_take(&lend_lock);
            more = lend_if_idle(heap, work) || more;
            haki_lock_drop(&lend_lock);
        }
    }
    return more;
}
