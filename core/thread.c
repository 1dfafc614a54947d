/*
 * thread.c - thread heaps: first use, exit, adoption, fork.
 */
#include "thread.h"

#include "ace.h"
#include "huge.h"
#include "lock.h"
#include "msg.h"
#include "options.h"

/* Tags hold ids up to HAK_HEAP_ID_MAX: these two match no slab. */
#define NO_HEAP_TAG 0xffffff00u

const struct hak_heap hak_heap_none = {.tiny = {.tag = NO_HEAP_TAG}};
const struct hak_heap hak_heap_exited = {.tiny = {.tag = NO_HEAP_TAG}};

__thread struct hak_heap *hak_self __attribute__((tls_model("initial-exec"))) =
    (struct hak_heap *)&hak_heap_none;

static void mend(void);

static hak_lock lock = HAK_LOCK_INIT(mend);

/* Under `lock`. */
static uint32_t parked; /* first parked heap's id */

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool usable; /* the key exists: after `once` */
static atomic_bool closed;
static atomic_bool seal_forks; /* as if HAKMEM_SEAL_FORK=1 */

/* ---- a thread ends ------------------------------------------------------ */

static void send_all(struct hak_heap *heap)
{
    for (unsigned i = 0; i < HAK_OUTBOXES; i++) {
        uint32_t sent;

        hak_tiny_busy(&heap->tiny, true);
        sent = hak_remote_send(&heap->tiny, i);
        hak_tiny_busy(&heap->tiny, false);
        hak_heap_sent(sent);
    }
}

/* Caller holds `lock`. */
static void park_locked(struct hak_heap *heap)
{
    HAK_HELD(&lock);
    HAK_POINT("park");
    atomic_store(&heap->state, HAK_HEAP_PARKED);
    /* What was sent before others could see that we are gone. */
    hak_heap_collect(heap);
    heap->parked_next = parked;
    parked = heap->tiny.id;
}

static void park(struct hak_heap *heap)
{
    hak_lock_take(&lock);
    park_locked(heap);
    hak_lock_drop(&lock);
}

/*
 * Not `arg`: another namespace's C library (dlmopen) keeps what its thread keys
 * hold in the same place, so that it may be a heap of a core's there.
 */
static void thread_exit(void *arg)
{
    struct hak_heap *heap = hak_self;

    (void)arg;
    if (!hak_thread_has_heap()) {
        return;
    }
    hak_self = (struct hak_heap *)&hak_heap_exited;
    send_all(heap);
    park(heap);
}

void hak_heap_sent_slow(uint32_t id)
{
    struct hak_heap *heap = hak_range_heap(id);

    if (HAK_LIKELY(atomic_load(&heap->state) != HAK_HEAP_PARKED)) {
        return;
    }
    HAK_POINT("sent");
    hak_lock_take(&lock);
    if (atomic_load(&heap->state) == HAK_HEAP_PARKED) {
        hak_heap_collect(heap);
    }
    hak_lock_drop(&lock);
}

/* ---- fork: see lock.h ----------------------------------------------------- */

/* Whether the heap was caught in a slow path: its lists may be half done. */
static bool is_caught(struct hak_heap *heap)
{
    return atomic_load(&heap->tiny.busy) ||
           (heap->pool != NULL && atomic_load(&heap->pool->busy));
}

void hak_thread_seal_forks(void)
{
    atomic_store(&seal_forks, true);
}

static bool wants_seal(const struct hak_heap *heap, uint32_t state)
{
    return state == HAK_HEAP_MADE
               ? heap->seal_at_fork
               : atomic_load(&seal_forks) || hak_option(HAK_OPT_seal_fork) != 0;
}

/*
 * In the child, before it allocates: heaps that are to be sealed. Free slabs
 * have their pages dropped, as the parent's are no better than fresh ones.
 */
static void fork_seal(void)
{
    bool any = false;

    for (uint32_t id = 0; (id = hak_range_heap_next(id)) != 0;) {
        struct hak_heap *heap = hak_range_heap(id);
        uint32_t state = atomic_load(&heap->state);

        if (state == HAK_HEAP_FREE || state == HAK_HEAP_LOST ||
            is_caught(heap) || !wants_seal(heap, state)) {
            continue;
        }
        hak_heap_seal_slabs(heap);
        any = true;
    }
    if (any) {
        hak_range_purge();
        hak_range_start_small();
    }
}

/* Whether the heap, of a ghost, can be used; it is lost if not. */
static bool is_sound(struct hak_heap *heap)
{
    if (is_caught(heap)) {
        atomic_store(&heap->state, HAK_HEAP_LOST);
        return false;
    }
    if (heap->runs != NULL) {
        hak_ace_cache_mend(heap->runs);
    }
    return true;
}

/* The heaps of threads that do not exist here are parked. */
static void park_ghosts(void)
{
    for (uint32_t id = 0; (id = hak_range_heap_next(id)) != 0;) {
        struct hak_heap *heap = hak_range_heap(id);

        if (heap != hak_self && atomic_load(&heap->state) == HAK_HEAP_OWNED &&
            hak_lock_is_ghost(heap->keeper) && is_sound(heap)) {
            park_locked(heap);
        }
    }
}

/*
 * A ghost held `lock`: the list is made anew. A heap that it was at work on is
 * lost; one that it was about to adopt, or had just, is as it was.
 */
static void mend(void)
{
    parked = 0;
    for (uint32_t id = 0; (id = hak_range_heap_next(id)) != 0;) {
        struct hak_heap *heap = hak_range_heap(id);

        if (atomic_load(&heap->state) == HAK_HEAP_PARKED && is_sound(heap)) {
            heap->parked_next = parked;
            parked = id;
        }
    }
}

/*
 * If a signal's handler forked while this thread held a lock, which may be
 * needed for the rest, the rest is left undone: other threads' heaps stay as
 * they are, and the child of a later fork may find and park them.
 */
static void fork_child(void)
{
    bool none;

    hak_lock_forked();
    none = hak_system_forked();
    none = hak_range_forked() && none;
    none = hak_huge_forked() && none;
    none = hak_ace_forked() && none;
    none = hak_lock_settle(&lock) && none;
    if (none) {
        hak_lock_take(&lock);
        fork_seal();
        park_ghosts();
        hak_lock_drop(&lock);
    }
}

/* ---- a thread's first use ----------------------------------------------- */

/*
 * Without it (or in a child of _Fork) locks are mended when they are needed,
 * but the memory of other threads' heaps stays out of use.
 */
__attribute__((constructor)) static void watch_forks(void)
{
    if (pthread_atfork(NULL, NULL, fork_child) != 0) {
        hak_warn("pthread_atfork failed: forked children will not use again "
                 "what other threads had free");
    }
}

static void init_once(void)
{
    usable = pthread_key_create(&key, thread_exit) == 0;
    if (!usable) {
        hak_warn("no thread key is left (PTHREAD_KEYS_MAX): "
                 "all requests go to the system allocator");
    }
}

void hak_thread_close(void)
{
    atomic_store(&closed, true);
}

static struct hak_heap *adopt_locked(void)
{
    struct hak_heap *heap = NULL;

    HAK_HELD(&lock);
    HAK_POINT("adopt");
    if (parked != 0) {
        heap = hak_range_heap(parked);
        parked = heap->parked_next;
        heap->keeper = hak_lock_self.number;
        atomic_store(&heap->state, HAK_HEAP_OWNED);
    }
    return heap;
}

static struct hak_heap *adopt(void)
{
    struct hak_heap *heap;

    hak_lock_take(&lock);
    heap = adopt_locked();
    hak_lock_drop(&lock);
    return heap;
}

/* The heap, which nobody else has, becomes the thread's; false: it can't. */
static bool own(struct hak_heap *heap)
{
    hak_self = heap;
    if (pthread_setspecific(key, heap) != 0) {
        thread_exit(heap);
        hak_self = (struct hak_heap *)&hak_heap_none;
        return false;
    }
    return true;
}

void hak_thread_adopt(struct hak_heap *heap)
{
    struct hak_heap *before = hak_self;

    heap->tiny.direct = false;
    hak_allowance_init(&heap->tiny.allow, false);
    pthread_once(&once, init_once);
    if (before == &hak_heap_exited || !usable) {
        park(heap);
        return;
    }
    if (hak_thread_has_heap()) {
        send_all(before);
        park(before);
    }
    heap->keeper = hak_lock_number();
    atomic_store(&heap->state, HAK_HEAP_OWNED);
    own(heap);
}

struct hak_heap *hak_thread_heap(enum hak_reason *reason)
{
    struct hak_heap *heap = hak_self;

    if (hak_thread_has_heap()) {
        return heap;
    }
    if (heap == &hak_heap_exited) {
        *reason = HAK_REASON_EXITED;
        return NULL;
    }
    if (atomic_load_explicit(&closed, memory_order_relaxed)) {
        *reason = HAK_REASON_FORCED;
        return NULL;
    }
    *reason = HAK_REASON_MEMORY;
    pthread_once(&once, init_once);
    if (!usable || !hak_range_init()) {
        return NULL;
    }
    heap = adopt();
    if (heap == NULL) {
        heap = hak_heap_create(HAK_HEAP_OWNED);
    }
    return heap != NULL && own(heap) ? heap : NULL;
}

void *hak_thread_refill(unsigned class, enum hak_reason *reason)
{
    struct hak_heap *heap = hak_thread_heap(reason);

    return heap != NULL ? hak_tiny_alloc(&heap->tiny, class) : NULL;
}

/* Works on the thread's heap, what it holds for others sent, and on parked ones. */
static void each_idle(void (*work)(struct hak_heap *heap))
{
    if (hak_thread_has_heap()) {
        send_all(hak_self);
        work(hak_self);
    }
    hak_lock_take(&lock);
    for (uint32_t id = parked; id != 0;) {
        struct hak_heap *heap = hak_range_heap(id);

        HAK_HELD(&lock);
        work(heap);
        id = heap->parked_next;
    }
    hak_lock_drop(&lock);
}

static void trim(struct hak_heap *heap)
{
    hak_heap_seal_count(heap);
    hak_heap_sweep(heap);
}

static void seal(struct hak_heap *heap)
{
    hak_heap_seal_slabs(heap);
    hak_heap_seal_count(heap);
}

void hak_thread_trim(void)
{
    each_idle(trim);
}

void hak_thread_seal(void)
{
    each_idle(seal);
}
