/*
 * thread.c - thread heaps: first use, exit, adoption, fork.
 */
#include "heap/thread.h"

#include "ace/ace.h"
#include "huge/huge.h"
#include "heap/lend.h"
#include "heap/outspan.h"
#include "os/lock.h"
#include "base/msg.h"
#include "settings/options.h"
#include "os/os.h"
#include "range/purge.h"
#include "range/slabs.h"
#include "range/slots.h"
#include "tiny/remote.h"
#include "tiny/tiny_seal.h"

/* Tags hold ids up to HAK_HEAP_ID_MAX: these two match no slab's. */
#define NO_HEAP_TAG 0xffffff00u

const struct hak_heap haki_heap_none = {.tiny = {.tag = NO_HEAP_TAG}};
const struct hak_heap haki_heap_exited = {.tiny = {.tag = NO_HEAP_TAG}};

__thread struct hak_heap *haki_self __attribute__((tls_model("initial-exec"))) =
    (struct hak_heap *)&haki_heap_none;

/* The heap that the thread owns, lent or not, or NULL. */
static __thread struct hak_heap *thread_own_heap
    __attribute__((tls_model("initial-exec")));

static void thread_mend(void);

static hak_lock thread_lock = HAK_LOCK_INIT(thread_mend);

/* Under `thread_lock`. */
static uint32_t thread_parked; /* first parked heap's id */

static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static bool thread_usable; /* the key exists: after `thread_once` */

#ifdef __GLIBC__
#if !__GLIBC_PREREQ(2, 34)
/*
 * Of such a glibc a program without shared libraries has only what it names, and
 * libgcc takes one with pthread_key_create for one that has these, too.
 */
static void (*const thread_needed[])(void) __attribute__((used)) = {
    (void (*)(void))pthread_mutex_lock, (void (*)(void))pthread_mutex_unlock,
    (void (*)(void))pthread_getspecific, (void (*)(void))pthread_once};
#endif
#endif
static atomic_bool thread_closed;
static atomic_bool thread_seal_forks; /* as if HAKMEM_SEAL_FORK=1 */

/* ---- a thread ends ------------------------------------------------------ */

/* Puts a heap at the front of the list of parked heaps. */
static void thread_list_add(struct hak_heap *heap)
{
    HAK_HELD(&thread_lock);
    HAK_ASSERT(heap->tiny.id != 0 && heap->tiny.id != thread_parked);
    heap->parked_prev = 0;
    heap->parked_next = thread_parked;
    if (thread_parked != 0) {
        ((struct hak_heap *)haki_range_heap(thread_parked))->parked_prev =
            heap->tiny.id;
    }
    thread_parked = heap->tiny.id;
}

static void thread_list_drop(struct hak_heap *heap)
{
    struct hak_heap *next = haki_range_heap(heap->parked_next);
    struct hak_heap *before = haki_range_heap(heap->parked_prev);

    HAK_HELD(&thread_lock);
    HAK_ASSERT(heap->parked_prev != 0 ? before->parked_next == heap->tiny.id
                                      : thread_parked == heap->tiny.id);
    if (heap->parked_next != 0) {
        next->parked_prev = heap->parked_prev;
    }
    if (heap->parked_prev != 0) {
        before->parked_next = heap->parked_next;
    } else {
        thread_parked = heap->parked_next;
    }
}

/*
 * A parked heap was collected. If it has no block in use it has no slab, and
 * nobody can send it anything, so it ends. (Whoever has just sent its last
 * block still reads its state, in a slot that stays mapped.)
 */
static bool thread_end_if_empty(struct hak_heap *heap)
{
    HAK_HELD(&thread_lock);
    if (!haki_heap_is_empty(heap)) {
        return false;
    }
    haki_heap_destroy(heap);
    return true;
}

/*
 * Something was sent to the heap. If its thread has ended, takes it in for that
 * thread and returns true.
 */
static bool thread_tell_parked(struct hak_heap *heap)
{
    if (HAK_LIKELY(atomic_load(&heap->state) != HAK_HEAP_PARKED)) {
        return false;
    }
    HAK_POINT("sent");
    haki_lock_take(&thread_lock);
    if (atomic_load(&heap->state) == HAK_HEAP_PARKED) {
        haki_heap_trim(heap);
        if (haki_heap_is_empty(heap)) {
            thread_list_drop(heap);
            thread_end_if_empty(heap);
        }
    }
    haki_lock_drop(&thread_lock);
    return true;
}

void haki_thread_send(struct hak_heap *heap)
{
    for (unsigned i = 0; i < HAK_OUTBOXES + HAK_OUTSPANS; i++) {
        uint32_t sent;

        haki_tiny_busy(&heap->tiny, true);
        sent = i < HAK_OUTBOXES ? haki_remote_send(&heap->tiny, i)
                                : haki_outspan_send(heap, i - HAK_OUTBOXES);
        haki_tiny_busy(&heap->tiny, false);
        if (sent != 0) {
            thread_tell_parked(haki_range_heap(sent));
        }
    }
}

/* Caller holds `thread_lock`. */
static void thread_park_locked(struct hak_heap *heap)
{
    HAK_HELD(&thread_lock);
    HAK_POINT("park");
    HAK_ASSERT(!haki_heap_is_busy(heap));
    atomic_store(&heap->state, HAK_HEAP_PARKED);
    /* Takes in what was sent before others could see that we are gone. */
    haki_heap_trim(heap);
    haki_purge_thread_ended(haki_heap_most_slabs(heap));
    if (!thread_end_if_empty(heap)) {
        haki_heap_rest(heap);
        thread_list_add(heap);
    }
}

static void thread_park(struct hak_heap *heap)
{
    haki_lock_take(&thread_lock);
    thread_park_locked(heap);
    haki_lock_drop(&thread_lock);
}

/* The thread's heap is or was lent: gets it back. NULL: it was lost. */
static struct hak_heap *thread_take_back(void)
{
    if (thread_own_heap != NULL && !haki_lend_return(thread_own_heap)) {
        thread_own_heap = NULL;
    }
    return thread_own_heap;
}

/* The thread's heap; NULL: it has none. */
static struct hak_heap *thread_own_now(void)
{
    struct hak_heap *heap = haki_thread_own();

    return heap != NULL ? heap : thread_take_back();
}

/* From now on the thread has no heap, only one of the two empty ones. */
static void thread_disown(const struct hak_heap *none)
{
    HAK_ASSERT(thread_own_heap != NULL);
    haki_lend_end(thread_own_heap);
    thread_own_heap = NULL;
    __atomic_store_n(&haki_self, (struct hak_heap *)none, __ATOMIC_RELAXED);
}

/*
 * `arg` is not used: the C library of another namespace (dlmopen) keeps its
 * thread keys' values in the same place, so it may be the heap of a core in
 * there.
 */
static void thread_exit(void *arg)
{
    struct hak_heap *heap = thread_own_now();

    (void)arg;
    if (heap == NULL) {
        return;
    }
    thread_disown(&haki_heap_exited);
    haki_thread_send(heap);
    thread_park(heap);
}

/*
 * The heap to which this thread has sent last, how often since it looked, and
 * how much that heap had taken in then. If after MAIL_MOST times it has taken
 * in nothing more, its owner may be asleep, and its inbox would grow: this
 * thread then tries to borrow the heap. If the owner is awake it is busy and is
 * not asked again for MAIL_PAUSE ms: asking costs both threads the time of some
 * 1,000 blocks.
 */
static __thread struct {
    uint32_t id, times;
    uint64_t taken;
    uint32_t not_before; /* haki_os_tick(), or 0 */
} thread_mail __attribute__((tls_model("initial-exec")));

#define MAIL_MOST 64
#define MAIL_PAUSE 20

static void thread_take_mail(struct hak_heap *heap)
{
    haki_tiny_busy(&heap->tiny, true);
    haki_tiny_collect(&heap->tiny);
    haki_tiny_seal_collect(&heap->tiny);
    haki_tiny_busy(&heap->tiny, false);
    if (heap->pool != NULL) {
        haki_pool_busy(heap->pool, true);
        haki_pool_collect(heap->pool);
        haki_pool_busy(heap->pool, false);
    }
}

static HAK_RACY_READER uint64_t thread_mail_taken(const struct hak_heap *heap)
{
    const struct hak_pool *pool =
        __atomic_load_n(&heap->pool, __ATOMIC_ACQUIRE);
    const volatile uint64_t *tiny = &heap->tiny.remote_frees;
    const volatile uint64_t *pools = pool != NULL ? &pool->remote_frees : tiny;

    return 3 * *tiny + *pools;
}

/*
 * Takes in what was sent to the heap, unless its owner was awake a moment ago.
 */
static void thread_take_in(struct hak_heap *heap)
{
    uint32_t now = haki_os_tick();

    if (thread_mail.not_before == 0 ||
        haki_tick_reached(now, thread_mail.not_before)) {
        thread_mail.not_before = haki_lend(heap, thread_take_mail)
                                     ? 0
                                     : haki_some_time(now + MAIL_PAUSE);
    }
}

static void thread_check_mail(struct hak_heap *heap)
{
    uint64_t taken = thread_mail_taken(heap);

    if (thread_mail.id != heap->tiny.id || thread_mail.taken != taken) {
        thread_mail.id = heap->tiny.id;
        thread_mail.taken = taken;
        thread_mail.times = 0;
    }
    thread_mail.times++;
    if (thread_mail.times == MAIL_MOST) {
        thread_mail.times = 0;
        thread_take_in(heap);
    }
}

void haki_heap_sent_slow(uint32_t id)
{
    struct hak_heap *heap = haki_range_heap(id);

    if (!thread_tell_parked(heap) &&
        atomic_load(&heap->state) == HAK_HEAP_OWNED) {
        thread_check_mail(heap);
    }
}

/* ---- fork: see lock.h ----------------------------------------------------- */

void haki_thread_seal_forks(void)
{
    atomic_store(&thread_seal_forks, true);
}

static bool thread_wants_seal(const struct hak_heap *heap, uint32_t state)
{
    return state == HAK_HEAP_EXPLICIT ? heap->seal_at_fork
                                      : atomic_load(&thread_seal_forks) ||
                                            haki_option(HAK_OPT_seal_fork) != 0;
}

/*
 * In the child, before it allocates: seals heaps where that is wanted. The
 * pages of free slabs are dropped, as the parent's are no better than fresh
 * ones.
 */
static void thread_fork_seal(void)
{
    bool any = false;

    for (uint32_t id = 0; (id = haki_range_heap_next(id)) != 0;) {
        struct hak_heap *heap = haki_range_heap(id);
        uint32_t state = atomic_load(&heap->state);

        if (state == HAK_HEAP_FREE || state == HAK_HEAP_LOST ||
            haki_heap_is_busy(heap) || !thread_wants_seal(heap, state)) {
            continue;
        }
        haki_heap_seal_slabs(heap);
        any = true;
    }
    if (any) {
        haki_range_purge();
        haki_range_start_small();
    }
}

/* Whether a ghost's heap can be used; if not, it is lost. */
static bool thread_is_sound(struct hak_heap *heap)
{
    if (haki_heap_is_busy(heap)) {
        atomic_store(&heap->state, HAK_HEAP_LOST);
        return false;
    }
    if (heap->runs != NULL) {
        haki_ace_cache_mend(heap->runs);
    }
    return true;
}

/* Parks the heaps of threads that do not exist in this process. */
static void thread_park_ghosts(void)
{
    for (uint32_t id = 0; (id = haki_range_heap_next(id)) != 0;) {
        struct hak_heap *heap = haki_range_heap(id);

        if (heap != thread_own_heap &&
            atomic_load(&heap->state) == HAK_HEAP_OWNED &&
            haki_lock_is_ghost(heap->keeper) && thread_is_sound(heap)) {
            thread_park_locked(heap);
        }
    }
}

/*
 * A ghost held `thread_lock`: makes the list again. A heap that it was working
 * on is lost; one that it was about to adopt, or had just adopted, is unharmed.
 */
static void thread_mend(void)
{
    thread_parked = 0;
    for (uint32_t id = 0; (id = haki_range_heap_next(id)) != 0;) {
        struct hak_heap *heap = haki_range_heap(id);

        if (atomic_load(&heap->state) == HAK_HEAP_PARKED &&
            thread_is_sound(heap)) {
            thread_list_add(heap);
        }
    }
}

/* Sees to the heap of the thread that forked. */
static void thread_heap_forked(void)
{
    if (haki_thread_own() == NULL && !haki_lend_forked(thread_own_heap)) {
        thread_own_heap = NULL;
        return;
    }
    thread_own_heap->lend.thread = haki_os_thread_id();
}

/*
 * If a signal handler forked while this thread held a lock, which the rest may
 * need, the rest is not done: other threads' heaps stay as they are, and the
 * child of a later fork may find and park them.
 */
static HAK_COLD void thread_fork_child(void)
{
    bool none;

    haki_lock_forked();
    if (thread_own_heap != NULL) {
        thread_heap_forked();
    }
    none = haki_profile_forked();
    none = haki_system_forked() && none;
    none = haki_range_forked() && none;
    none = haki_huge_forked() && none;
    none = haki_ace_forked() && none;
    none = haki_lock_settle(&thread_lock) && none;
    if (none) {
        haki_lock_take(&thread_lock);
        thread_fork_seal();
        thread_park_ghosts();
        haki_lock_drop(&thread_lock);
    }
}

/* ---- a thread's first use ----------------------------------------------- */

/*
 * Without it (or in a child of _Fork) locks are mended when they are needed,
 * but the memory of other threads' heaps stays unused.
 */
__attribute__((constructor)) static void thread_watch_forks(void)
{
    if (pthread_atfork(NULL, NULL, thread_fork_child) != 0) {
        haki_warn("pthread_atfork failed: forked children will not use again "
                  "what other threads had free");
    }
}

static void thread_init_once(void)
{
    thread_usable = pthread_key_create(&thread_key, thread_exit) == 0;
    if (!thread_usable) {
        haki_warn("no thread key is left (PTHREAD_KEYS_MAX): "
                  "all requests go to the system allocator");
    }
}

void haki_thread_close(void)
{
    atomic_store(&thread_closed, true);
}

static struct hak_heap *thread_adopt_locked(void)
{
    struct hak_heap *heap = NULL;

    HAK_HELD(&thread_lock);
    HAK_POINT("adopt");
    if (thread_parked != 0) {
        heap = haki_range_heap(thread_parked);
        HAK_ASSERT(atomic_load(&heap->state) == HAK_HEAP_PARKED);
        HAK_ASSERT(!haki_heap_is_busy(heap));
        thread_list_drop(heap);
        haki_heap_forget_most(heap);
        heap->keeper = haki_lock_self.number;
        atomic_store(&heap->state, HAK_HEAP_OWNED);
    }
    return heap;
}

static struct hak_heap *thread_adopt(void)
{
    struct hak_heap *heap;

    haki_lock_take(&thread_lock);
    heap = thread_adopt_locked();
    haki_lock_drop(&thread_lock);
    return heap;
}

/* Makes a heap that nobody else has the thread's own; false: it can't. */
static bool thread_own(struct hak_heap *heap)
{
    HAK_ASSERT(thread_own_heap == NULL && heap->tiny.id != 0);
    thread_own_heap = heap;
    __atomic_store_n(&haki_self, heap, __ATOMIC_RELAXED);
    if (pthread_setspecific(thread_key, heap) != 0) {
        thread_disown(&haki_heap_none);
        thread_park(heap);
        return false;
    }
    haki_lend_begin(heap);
    return true;
}

void haki_thread_adopt(struct hak_heap *heap)
{
    struct hak_heap *before = thread_own_now();

    haki_tiny_set_kind(&heap->tiny, false);
    if (heap->pool != NULL) {
        heap->pool->who = haki_tiny_sampler(&heap->tiny);
    }
    pthread_once(&thread_once, thread_init_once);
    if (haki_thread_self() == &haki_heap_exited || !thread_usable) {
        thread_park(heap);
        return;
    }
    if (before != NULL) {
        thread_disown(&haki_heap_none);
        haki_thread_send(before);
        thread_park(before);
    }
    heap->keeper = haki_lock_number();
    atomic_store(&heap->state, HAK_HEAP_OWNED);
    thread_own(heap);
}

struct hak_heap *haki_thread_heap(enum hak_reason *reason)
{
    struct hak_heap *heap = haki_thread_own();

    if (HAK_LIKELY(heap != NULL)) {
        return heap;
    }
    heap = thread_take_back();
    if (heap != NULL) {
        return heap;
    }
    if (haki_thread_self() == &haki_heap_exited) {
        *reason = HAK_REASON_EXITED;
        return NULL;
    }
    if (atomic_load_explicit(&thread_closed, memory_order_relaxed)) {
        *reason = HAK_REASON_FORCED;
        return NULL;
    }
    *reason = HAK_REASON_MEMORY;
    pthread_once(&thread_once, thread_init_once);
    if (!thread_usable || !haki_range_init()) {
        return NULL;
    }
    haki_purge_thread_began();
    heap = thread_adopt();
    if (heap == NULL) {
        heap = haki_heap_create(HAK_HEAP_OWNED);
    }
    return heap != NULL && thread_own(heap) ? heap : NULL;
}

void *haki_thread_refill(unsigned class, enum hak_reason *reason)
{
    struct hak_heap *heap = haki_thread_heap(reason);

    return heap != NULL ? haki_tiny_alloc(&heap->tiny, class) : NULL;
}

void haki_thread_each(void (*work)(struct hak_heap *heap))
{
    struct hak_heap *own = thread_own_now();

    if (own != NULL) {
        haki_thread_send(own);
        work(own);
    }
    haki_lock_take(&thread_lock);
    for (uint32_t id = thread_parked; id != 0;) {
        struct hak_heap *heap = haki_range_heap(id);

        HAK_HELD(&thread_lock);
        id = heap->parked_next;
        work(heap);
        if (haki_heap_is_empty(heap)) {
            thread_list_drop(heap);
            thread_end_if_empty(heap);
        }
    }
    haki_lock_drop(&thread_lock);
}
