/*
 * hak_py_slow.c - requests and frees that the hot paths can't serve.
 *
 * `heap` is the GIL's, and NULL where every thread works on its own: raw, or
 * more than one GIL (the thread_* functions come first then). An installed
 * domain that is off hands requests to the saved allocator and still takes our
 * blocks back.
 */
#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <time.h>

#include "hak_py.h"

/* How many refills of the GIL's heap pass between two samples for the peak. */
#define SAMPLE_EVERY 64
/*
 * Memory goes back only while something happens here: looks at a bin, refills
 * and one in ASK_EVERY frees of Pool blocks ask for the time, and when
 * LOOK_AROUND_EVERY milliseconds have passed everything that may have been idle
 * is looked at.
 */
#define ASK_EVERY 4
#define LOOK_AROUND_EVERY 50
/* Blocks of at least this size are sampled individually. */
#define SAMPLE_LARGE HAK_MIB

/* Growing blocks of mem of at least this size get 1/ROOM more. */
#define ROOM_LEAST (8 * HAK_KIB)
#define ROOM 4

/*
 * The heap that d works on; NULL: the thread's. The GIL's heap also serves mem
 * and obj while a limit sends them through here.
 */
static struct hak_heap *heap_of(const struct hak_py_domain *d)
{
    struct hak_heap *heap = NULL;

    if (d->which != HAK_PY_RAW) {
        heap = hak_py_heap();
        if (HAK_UNLIKELY(heap == NULL)) {
            hak_py_retire();
        }
    }
    return heap;
}

/* Adds 1; returns the former value. */
static uint64_t add(_Atomic(uint64_t) *counter)
{
    return atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* Does what is due from time to time: see ASK_EVERY. */
static HAK_NOINLINE void now_and_then(struct hak_heap *heap)
{
    static uint64_t next;
    struct timespec time;
    uint64_t now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
    now = (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
    if (HAK_UNLIKELY(now >= next)) {
        next = now + LOOK_AROUND_EVERY;
        haki_heap_tick_all(heap);
        hak_py_idle_check();
    }
    hak_py_idle_notice();
}

/* ---- the limit ------------------------------------------------------------- */

static bool is_limited(void)
{
    return HAK_UNLIKELY(hak_py.limit != HAK_PY_NO_LIMIT);
}

/* Counts p in or out. */
static void count_in(const void *p)
{
    if (is_limited()) {
        atomic_fetch_add(&hak_py.live, hak_py_bytes_of(p));
    }
}

static void count_out(const void *p)
{
    if (is_limited()) {
        atomic_fetch_sub(&hak_py.live, hak_py_bytes_of(p));
    }
}

/* ---- blocks of ours -------------------------------------------------------- */

static void *gil_tiny(struct hak_heap *heap, size_t size)
{
    void *p = haki_guarded_fit(haki_embed_alloc(heap, hak_py_class(size)),
                               HAK_LANE_ALIGN, size);

    now_and_then(heap);
    if (HAK_UNLIKELY(haki_embed_refills(heap) % SAMPLE_EVERY == 0)) {
        hak_py_sample();
    }
    return p;
}

static void *gil_large(struct hak_heap *heap, size_t size, bool *zero)
{
    enum hak_reason reason;
    void *p = haki_guarded_fit(haki_large_alloc(heap, HAK_LANE_ALIGN, size,
                                                zero, &reason),
                               HAK_LANE_ALIGN, size);

    if (HAK_UNLIKELY(size >= SAMPLE_LARGE)) {
        hak_py_sample();
    }
    return p;
}

/* A block of the calling thread's heap. */
static void *thread_new(size_t size, bool *zero)
{
    enum hak_reason reason;
    void *p = haki_hot_malloc(size);

    if (p == NULL) {
        p = haki_hot_run(size);
    }
    if (p != NULL) {
        *zero = false;
        return p;
    }
    p = haki_lane_alloc(HAK_LANE_ALIGN, size, *zero, &reason);
    if (HAK_UNLIKELY(size <= HAK_LANE_TINY_MAX
                         ? haki_embed_refills(haki_self) % SAMPLE_EVERY == 1
                         : size >= SAMPLE_LARGE)) {
        hak_py_sample();
    }
    return p;
}

/*
 * A Tiny or Pool block for d from a bin of the thread's heap, when each thread
 * has its own; or NULL.
 */
HAK_INLINE void *thread_pop(struct hak_py_domain *d, size_t size)
{
    void *p;

    if (HAK_UNLIKELY(!hak_py_is_threads(d) || size > hak_py.most)) {
        return NULL;
    }
    p = haki_hot_malloc(size);
    if (HAK_LIKELY(p != NULL)) {
        hak_py_count(haki_self, d, size);
    }
    return p;
}

/* Likewise: takes p back if it is a Tiny block of the thread's heap. */
HAK_INLINE bool thread_push(void *p, uint32_t tag)
{
    uint32_t byte = haki_embed_byte(haki_self, tag);
    struct hak_bin *bin;

    if (HAK_HARD || HAK_UNLIKELY(byte >= HAK_EMBED_TINY)) {
        return false;
    }
    bin = haki_embed_bin_at(haki_self, byte);
    if (HAK_UNLIKELY(!haki_embed_push(bin, p))) {
        haki_heap_look(haki_self, bin);
        hak_py_idle_notice();
    }
    return true;
}

/* Likewise: resizes p to `size`, or returns NULL. */
static void *thread_resize(struct hak_py_domain *d, void *p, size_t size)
{
    uint32_t tag = haki_embed_tag(p);
    uint32_t byte = haki_embed_byte(haki_self, tag);
    size_t old;
    void *moved;

    if (HAK_HARD || byte >= HAK_EMBED_TINY) {
        return NULL;
    }
    old = haki_embed_bytes_at(byte);
    if (haki_fits_as_is(old, size)) {
        return p;
    }
    moved = thread_pop(d, size);
    if (HAK_LIKELY(moved != NULL)) {
        memcpy(moved, p, haki_min(old, size));
        thread_push(p, tag);
    }
    return moved;
}

/*
 * A block of our lanes for domain d, or NULL; not checked against the limit.
 * *zero: whether it is wanted all zero; becomes whether it is.
 */
static void *new_block(struct hak_py_domain *d, size_t size, bool *zero)
{
    struct hak_heap *heap = heap_of(d);
    void *p;

    if (HAK_UNLIKELY(size > PTRDIFF_MAX)) {
        return NULL;
    }
    if (heap == NULL) {
        p = thread_new(size, zero);
        heap = haki_self;
    } else if (size <= HAK_LANE_TINY_MAX) {
        *zero = false;
        p = gil_tiny(heap, size);
    } else {
        p = gil_large(heap, size, zero);
    }
    if (HAK_LIKELY(p != NULL)) {
        hak_py_count(heap, d, size);
        count_in(p);
    }
    return p;
}

/* Frees p, in our range. */
static void free_block(struct hak_py_domain *d, void *p)
{
    struct hak_heap *heap = heap_of(d);

    count_out(p);
    if (heap != NULL) {
        uint32_t tag = haki_embed_tag(p);
        uint32_t byte = haki_embed_byte(heap, tag);

        if (byte < HAK_EMBED_TINY) {
            struct hak_bin *bin = haki_embed_bin_at(heap, byte);

            if (HAK_UNLIKELY(!haki_embed_push(bin, p))) {
                haki_heap_look(heap, bin);
            }
            return;
        }
        if (haki_embed_is_sealed(byte)) {
            haki_embed_free_sealed(heap, p, tag);
            return;
        }
        if (haki_tag_is_large(tag) && haki_large_free(heap, p)) {
            return;
        }
    }
    hak_free(p);
}

/* ---- new blocks ------------------------------------------------------------- */

/* Whether a request of d's is for our lanes; if not, *reason says why. */
static bool is_ours(const struct hak_py_domain *d, size_t size,
                    enum hak_py_reason *reason)
{
    if (HAK_UNLIKELY(!d->on)) {
        *reason = HAK_PY_OFF;
        return false;
    }
    *reason = size <= hak_py.most ? HAK_PY_MEMORY : HAK_PY_LARGE;
    return size <= hak_py.most;
}

static HAK_NOINLINE void *from_saved(struct hak_py_domain *d, size_t size,
                                     bool zero, enum hak_py_reason reason)
{
    add(&d->fallback[reason]);
    return zero ? hak_py_saved_calloc(d, size)
                : d->saved.malloc(d->saved.ctx, size);
}

/*
 * A block when neither our lanes nor the saved allocator had memory: tries
 * again after giving back to the system what bins and lanes keep free.
 */
static HAK_COLD void *at_last(struct hak_py_domain *d, size_t size, bool *zero)
{
    struct hak_heap *heap = heap_of(d);

    if (heap != NULL) {
        haki_embed_trim(heap);
    }
    hak_trim();
    return new_block(d, size, zero);
}

/* Counts a refusal, if it is HAKMEM_LIMIT's; NULL. */
static HAK_COLD void *count_refusal(struct hak_py_domain *d, size_t size)
{
    if (haki_limit_refuses(size)) {
        add(&d->refused);
    }
    return NULL;
}

/* A new block, of ours or the saved allocator's; NULL: out of memory. */
static void *new_any(struct hak_py_domain *d, size_t size, bool zero)
{
    enum hak_py_reason reason;
    bool is_zero = zero;
    void *p;

    if (HAK_UNLIKELY(!is_ours(d, size, &reason))) {
        return from_saved(d, size, zero, reason);
    }
    if (is_limited() && !hak_py_admit(d, size)) {
        return NULL;
    }
    if (haki_limit_is_set() && !hak_py_limit_spares(heap_of(d), size)) {
        return count_refusal(d, size);
    }
    p = new_block(d, size, &is_zero);
    if (HAK_UNLIKELY(p == NULL)) {
        p = haki_limit_is_set() ? NULL
                                : from_saved(d, size, zero, HAK_PY_MEMORY);
        if (p != NULL) {
            return p;
        }
        is_zero = zero;
        p = at_last(d, size, &is_zero);
    }
    if (HAK_UNLIKELY(p == NULL)) {
        return count_refusal(d, size);
    }
    return zero && !is_zero ? memset(p, 0, size) : p;
}

void *hak_py_malloc(struct hak_py_domain *d, size_t size)
{
    struct hak_heap *heap = hak_py_hot(d);
    void *p;

    if (HAK_LIKELY(size - HAK_LANE_POOL_MIN <=
                       HAK_LANE_POOL_MAX - HAK_LANE_POOL_MIN &&
                   heap != NULL && haki_embed_has_pool(heap) &&
                   size <= hak_py.most)) {
        p = haki_embed_pool_pop(heap, haki_embed_pool_class(size));

        if (HAK_LIKELY(p != NULL)) {
            hak_py_count(heap, d, size);
            return p;
        }
    }
    p = thread_pop(d, size);
    return HAK_LIKELY(p != NULL) ? p : new_any(d, size, false);
}

void *hak_py_calloc(struct hak_py_domain *d, size_t count, size_t size)
{
    size_t bytes;
    void *p;

    if (HAK_UNLIKELY(__builtin_mul_overflow(count, size, &bytes))) {
        return NULL;
    }
    if (d->which == HAK_PY_RAW) {
        hak_py_suspect(bytes);
    }
    p = thread_pop(d, bytes);
    return HAK_LIKELY(p != NULL) ? memset(p, 0, bytes)
                                 : new_any(d, bytes, true);
}

/* ---- frees ------------------------------------------------------------------- */

void hak_py_look(struct hak_bin *bin)
{
    haki_embed_look(hak_py.heap, bin);
    now_and_then(hak_py.heap);
}

static HAK_NOINLINE void free_foreign(struct hak_py_domain *d, void *p)
{
    uint64_t before = add(&d->foreign);

    d->saved.free(d->saved.ctx, p);
    if (HAK_UNLIKELY(before % HAK_PY_NOTICE_FOREIGN == 0)) {
        hak_py_idle_notice();
    }
}

/* Frees p, whose tag is that of a Pool class of `heap`, the GIL's. */
static HAK_NOINLINE void free_pool(struct hak_py_domain *d,
                                   struct hak_heap *heap, void *p,
                                   uint32_t class)
{
    static unsigned frees;
    bool looked;

    if (HAK_UNLIKELY(!haki_embed_pool_push(heap, class, p, &looked))) {
        free_block(d, p);
        return;
    }
    if (HAK_UNLIKELY(looked)) {
        hak_py_idle_notice();
    }
    if (HAK_UNLIKELY(++frees % ASK_EVERY == 0)) {
        now_and_then(heap);
    }
}

void hak_py_free(struct hak_py_domain *d, void *p)
{
    struct hak_heap *heap = hak_py_hot(d);
    uint32_t tag, class;

    if (HAK_UNLIKELY(!haki_embed_owns(p))) {
        if (p != NULL) {
            free_foreign(d, p);
        }
        return;
    }
    tag = haki_embed_tag(p);
    class = haki_embed_pool_at(haki_embed_byte(heap, tag));
    if (HAK_LIKELY(class < HAK_EMBED_POOLS)) {
        free_pool(d, heap, p, class);
    } else if (!hak_py_is_threads(d) || !thread_push(p, tag)) {
        free_block(d, p);
        hak_py_idle_notice();
    }
}

/* ---- realloc ------------------------------------------------------------------ */

/* Resizes a block of the larger lanes without copying, or returns NULL. */
static void *resize_large(struct hak_py_domain *d, void *p, size_t old,
                          size_t size)
{
    void *moved = NULL;

    if (old <= HAK_LANE_TINY_MAX || size <= HAK_LANE_TINY_MAX ||
        size > hak_py.most || !d->on || HAK_HARD) {
        return NULL;
    }
    count_out(p);
    moved = haki_large_resize(p, size);
    count_in(moved != NULL ? moved : p);
    return moved;
}

/*
 * The size to ask for when a block of d has grown to `size`. Lists and buffers,
 * which are mem's, grow by an eighth at a time: without room each step would be
 * a copy. Strings, which are obj's, leave room themselves, and ACE blocks grow
 * in place.
 */
static size_t with_room(const struct hak_py_domain *d, size_t old, size_t size)
{
    if (d->which != HAK_PY_MEM || size <= old || size < ROOM_LEAST ||
        size > HAK_LANE_POOL_MAX) {
        return size;
    }
    return haki_min(size + size / ROOM, HAK_LANE_ACE_MIN);
}

/*
 * Copies p to a new block in the lanes above Tiny; NULL: there is none. Blocks
 * from Pool are copied here, faster than elsewhere.
 */
static void *copy_large(struct hak_py_domain *d, void *p, size_t old,
                        size_t size)
{
    struct hak_heap *heap = heap_of(d);
    size_t ask = with_room(d, old, size);
    enum hak_reason reason;
    enum hak_py_reason why;
    void *moved;
    bool zero;

    if (size <= HAK_LANE_TINY_MAX || HAK_HARD || !is_ours(d, size, &why)) {
        return NULL;
    }
    heap = heap != NULL ? heap : haki_thread_heap(&reason);
    if (heap == NULL || size > PTRDIFF_MAX) {
        return NULL;
    }
    if (haki_min(old, size) <= HAK_LANE_POOL_MAX) {
        moved = haki_large_alloc(heap, HAK_LANE_ALIGN, ask, &zero, &reason);
        if (moved != NULL) {
            hak_py_copy(moved, p, haki_min(old, size));
        }
    } else {
        moved = haki_large_copy(heap, p, old, size, &reason);
    }
    if (moved != NULL) {
        hak_py_count(heap, d, size);
        count_in(moved);
    }
    if (HAK_UNLIKELY(size >= SAMPLE_LARGE)) {
        hak_py_sample();
    }
    return moved;
}

/* Resizes p, a block of ours with `old` bytes, by moving it. */
static void *move(struct hak_py_domain *d, void *p, size_t old, size_t size)
{
    void *moved;

    if (is_limited() && size > old && d->on && !hak_py_admit(d, size - old)) {
        return NULL;
    }
    moved = resize_large(d, p, old, size);
    if (moved != NULL) {
        return moved;
    }
    moved = copy_large(d, p, old, size);
    if (moved == NULL) {
        moved = new_any(d, size, false);
        if (HAK_UNLIKELY(moved == NULL)) {
            return size <= old ? p : NULL; /* a shrink never fails */
        }
        memcpy(moved, p, haki_min(old, size));
    }
    free_block(d, p);
    hak_py_idle_notice();
    return moved;
}

/* A growing block of the C library's, with `old` bytes, under a limit for all
 * memory: it becomes ours, and is counted. */
static void *take_over(struct hak_py_domain *d, void *p, size_t old,
                       size_t size)
{
    void *moved = new_any(d, size, false);

    if (HAK_LIKELY(moved != NULL)) {
        memcpy(moved, p, old);
        d->saved.free(d->saved.ctx, p);
    }
    return moved;
}

/* A block that is not ours stays with its allocator: its size is unknown. */
static HAK_NOINLINE void *resize_foreign(struct hak_py_domain *d, void *p,
                                         size_t size)
{
    add(&d->foreign);
    if (HAK_UNLIKELY(hak_py.libc != NULL && d->saved.malloc == hak_py.libc)) {
        size_t old = malloc_usable_size(p);

        if (size > old) {
            return take_over(d, p, old, size);
        }
    }
    return d->saved.realloc(d->saved.ctx, p, size);
}

void *hak_py_realloc(struct hak_py_domain *d, void *p, size_t size)
{
    void *moved;
    size_t old;

    if (p == NULL) {
        return hak_py_malloc(d, size);
    }
    if (HAK_UNLIKELY(!haki_embed_owns(p))) {
        return resize_foreign(d, p, size);
    }
    if (hak_py_is_threads(d)) {
        moved = thread_resize(d, p, size);
        if (HAK_LIKELY(moved != NULL)) {
            return moved;
        }
    }
    old = haki_lane_usable(p, "realloc");
    if (size <= old && haki_fits_as_is(old, size)) {
        return p;
    }
    return move(d, p, old, size);
}
