/*
 * heap.c - creating and destroying heaps, their counts, sweeps of sparse ones.
 */
#include "heap/heap.h"

#include <string.h>

#include "os/os.h"
#include "range/slots.h"
#include "tiny/remote.h"
#include "tiny/tiny_seal.h"

/*
 * When a heap is swept: see haki_heap_sweep_sparse. Worth a sweep are, in a
 * small heap, SMALL_LEAST bytes and 1/SMALL_PART of what is in use; in others
 * SPARSE_LEAST bytes and as much as is in use, which is more than a garbage
 * collection usually leaves, and at most one in SPARSE_PART + 1 of the slabs'
 * bytes may be in use. With half of that a heap is falling.
 */
#define HEAP_SMALL_MOST ((int64_t)(32 * HAK_KIB))
#define SMALL_LEAST ((int64_t)HAK_KIB)
#define SMALL_PART 16
#define SPARSE_LEAST ((int64_t)(16 * HAK_KIB))
#define SPARSE_PART 3

/* So many falls that begin no lower than one before, each within FALL_TIME ms of the
 * last, are free; see heap.h. */
#define FALLS_FREE 4
#define PRICE_MOST ((int64_t)(256 * HAK_KIB))
#define FALL_TIME 100

struct hak_heap_past haki_heap_past;

struct hak_heap *haki_heap_create(enum hak_heap_state state)
{
    struct hak_heap *heap;
    uint32_t id = 0;

    heap = haki_range_init() ? haki_range_heap_take(&id)
                             : haki_os_map(HAK_HEAP_SLOT);
    if (heap == NULL) {
        return NULL;
    }
    haki_tiny_init(&heap->tiny, id, state == HAK_HEAP_EXPLICIT);
    memset((char *)heap + sizeof(heap->tiny), 0, HAK_PAGE - sizeof(heap->tiny));
    HAK_ASSERT(state == HAK_HEAP_OWNED || state == HAK_HEAP_EXPLICIT);
    heap->limit = heap->gate = SIZE_MAX;
    heap->keeper = haki_lock_self.number;
    atomic_store(&heap->state, state);
    return heap;
}

void haki_heap_use_large(struct hak_heap *heap)
{
    struct hak_heap_large *large = (void *)((char *)heap + HAK_HEAP_LARGE_AT);

    if (heap->pool == NULL) {
        memset(&large->runs, 0, sizeof(large->runs));
        large->runs.allow = &heap->tiny.allow;
        haki_pool_init(&large->pool, &heap->tiny.allow, heap->tiny.id,
                       haki_is_frugal(&heap->tiny.allow));
        large->pool.sampling = haki_tiny_sampling(&heap->tiny);
        large->pool.who = haki_tiny_sampler(&heap->tiny);
        heap->runs = &large->runs;
        /* Last: another thread may fork, and copy the heap, right here. */
        __atomic_store_n(&heap->pool, &large->pool, __ATOMIC_RELEASE);
    }
}

void haki_heap_trim(struct hak_heap *heap)
{
    haki_tiny_trim(&heap->tiny);
    if (heap->pool != NULL) {
        HAK_ASSERT(heap->runs != NULL);
        haki_ace_cache_flush(heap->runs);
        haki_pool_trim(heap->pool);
    }
}

void haki_heap_trim_used(struct hak_heap *heap)
{
    if (haki_heap_use(heap) != heap->trimmed_use) {
        haki_heap_trim(heap);
        heap->trimmed_use = haki_heap_use(heap);
    }
}

/*
 * Shortens the stacks of Pool's bins, which are empty, if the heap has shrunk.
 * Returns the bytes beyond them.
 */
static size_t heap_shorten(struct hak_heap *heap)
{
    size_t bytes = sizeof(struct hak_heap_large) - HAK_PAGE;

    if (heap->pool->places == HAK_POOL_STACK_SHORT ||
        !haki_is_frugal(&heap->tiny.allow) || haki_pool_is_grown(heap->pool) ||
        heap->tiny.nstale > 0) {
        return 0;
    }
    HAK_ASSERT(!haki_heap_is_busy(heap));
    haki_pool_rest(heap->pool);
    haki_os_purge((char *)heap + HAK_HEAP_LARGE_AT + HAK_PAGE, bytes);
    return bytes;
}

/* Remembers what the lanes above Tiny have counted. */
static void heap_remember_large(const struct hak_heap_counts *counts)
{
    atomic_fetch_add(&haki_heap_past.pool_allocs, counts->pool.allocs);
    atomic_fetch_add(&haki_heap_past.runs_taken, counts->runs_taken);
}

/* Drops the state of the lanes above Tiny, of which nothing is in use. */
static void heap_drop_large(struct hak_heap *heap)
{
    struct hak_heap_counts counts;

    haki_heap_count(heap, &counts);
    heap_remember_large(&counts);
    heap->tiny.was_sampled |= heap->pool->was_sampled;
    heap->tiny.remote_frees += heap->pool->remote_frees;
    heap->tiny.remote_bytes += heap->pool->remote_bytes;
    heap->pool = NULL;
    heap->runs = NULL;
}

/* In a small heap with no Pool block in use, Pool's page goes. */
static size_t heap_drop_unused(struct hak_heap *heap)
{
    if (!heap->tiny.packed || heap->pool->all != HAK_NO_SLAB ||
        heap->runs->held != 0) {
        return 0;
    }
    heap_drop_large(heap);
    haki_os_purge((char *)heap + HAK_HEAP_LARGE_AT, HAK_PAGE);
    return HAK_PAGE;
}

size_t haki_heap_sweep(struct hak_heap *heap)
{
    size_t bytes;

    haki_heap_trim(heap);
    haki_tiny_busy(&heap->tiny, true);
    bytes = haki_tiny_sweep(&heap->tiny);
    haki_tiny_busy(&heap->tiny, false);
    if (heap->pool != NULL) {
        haki_pool_busy(heap->pool, true);
        bytes += haki_pool_sweep(heap->pool, true);
        haki_pool_busy(heap->pool, false);
        bytes += heap_shorten(heap);
        bytes += heap_drop_unused(heap);
    }
    return bytes;
}

/* Bytes of the heap's slabs that are not in use. */
static int64_t heap_unused_bytes(const struct hak_tiny *tiny)
{
    return tiny->allow.slabs + (int64_t)haki_tiny_grain_resident(tiny) -
           haki_in_use(&tiny->allow);
}

/* How many freed bytes are worth a sweep. */
static int64_t heap_worth_a_sweep(int64_t use)
{
    return use < HEAP_SMALL_MOST ? SMALL_LEAST + use / SMALL_PART
                                 : SPARSE_LEAST + use;
}

/* Whether what is in use is less than at any sweep before, or fall. */
static bool heap_is_lowest(const struct hak_tiny *tiny, int64_t use)
{
    return use + heap_worth_a_sweep(use) <= tiny->swept_low;
}

/* So many bytes must have been freed, where falls repeat. */
static int64_t heap_fall_price(const struct hak_tiny *tiny, int64_t use)
{
    int64_t most = 2 * use > PRICE_MOST ? 2 * use : PRICE_MOST;

    if (tiny->falls < FALLS_FREE || heap_is_lowest(tiny, use)) {
        return 0;
    }
    return tiny->fall_price < most ? tiny->fall_price : most;
}

/* Whether a fall begins, `fell` bytes below what was in use before. */
static bool heap_is_fall(const struct hak_tiny *tiny, int64_t use, int64_t fell)
{
    return fell > heap_worth_a_sweep(use) / 2 &&
           ((fell > 2 * (int64_t)tiny->allow.extra &&
             fell > heap_fall_price(tiny, use)) ||
            haki_os_tick() - tiny->fell_at >= FALL_TIME);
}

/* A fall begins: how far the next one must go. */
static void heap_count_fall(struct hak_tiny *tiny, int64_t use, int64_t fell)
{
    uint32_t now = haki_os_tick();

    if (heap_is_lowest(tiny, use)) {
        tiny->falls = 0;
        tiny->fall_price = 0;
        tiny->swept_low =
            use >= HEAP_SMALL_MOST ? use : tiny->swept_low; /* sweeps do */
    } else if (now - tiny->fell_at >= FALL_TIME) {
        tiny->falls -= tiny->falls > 0;
    } else {
        tiny->falls += tiny->falls < FALLS_FREE;
        tiny->fall_price =
            2 * fell > tiny->fall_price ? 2 * fell : tiny->fall_price;
    }
    tiny->fell_at = now;
}

void haki_heap_fall_dear(struct hak_heap *heap, uint32_t now)
{
    heap->tiny.falls = FALLS_FREE;
    heap->tiny.swept_low = 0;
    heap->tiny.fell_at = now;
}

static void heap_sweep_sparse(struct hak_heap *heap)
{
    struct hak_tiny *tiny = &heap->tiny;
    int64_t use = haki_in_use(&tiny->allow);

    tiny->swept_low = use < tiny->swept_low ? use : tiny->swept_low;
    HAK_TEST_SWEEP();
    haki_heap_sweep(heap);
    tiny->allow.height = haki_in_use(&tiny->allow);
}

static void heap_fall(struct hak_heap *heap, int64_t use, int64_t fell)
{
    heap_count_fall(&heap->tiny, use, fell);
    haki_keep_idle(&heap->tiny.allow);
    heap->tiny.allow.falling = true;
    haki_tiny_busy(&heap->tiny, true);
    haki_tiny_grant_all(&heap->tiny);
    haki_tiny_busy(&heap->tiny, false);
    if (heap->pool != NULL) {
        haki_pool_busy(heap->pool, true);
        haki_pool_grant_all(heap->pool);
        haki_pool_busy(heap->pool, false);
    }
}

void haki_heap_sweep_sparse(struct hak_heap *heap)
{
    struct hak_tiny *tiny = &heap->tiny;
    int64_t use = haki_in_use(&tiny->allow);
    int64_t fell;
    bool sparse;

    if (tiny->packed) {
        haki_tiny_busy(tiny, true);
        haki_tiny_grain_sweep_sparse(tiny);
        haki_tiny_busy(tiny, false);
        /* Not each time in a heap that goes on: it would soon come again. */
        if (heap->pool != NULL &&
            (tiny->allow.slabs == 0 || tiny->allow.falling)) {
            heap_drop_unused(heap);
        }
    }
    haki_keep_height(&tiny->allow);
    fell = tiny->allow.height - use;
    sparse = heap_unused_bytes(tiny) / SPARSE_PART >= use;
    if (!tiny->allow.falling && (sparse || fell >= tiny->allow.height / 2) &&
        heap_is_fall(tiny, use, fell)) {
        heap_fall(heap, use, fell);
    }
    if (tiny->allow.falling && sparse && fell >= heap_worth_a_sweep(use)) {
        heap_sweep_sparse(heap);
    }
}

void haki_heap_shed(struct hak_heap *heap)
{
    if (heap->pool != NULL) {
        haki_ace_cache_shed(heap->runs);
        haki_pool_shed(heap->pool);
    }
    haki_tiny_shed(&heap->tiny);
    heap->tiny.allow.over = false;
}

void haki_heap_seal_slabs(struct hak_heap *heap)
{
    if (heap->tiny.id == 0) { /* there is no range */
        return;
    }
    haki_tiny_seal(&heap->tiny);
    HAK_ASSERT(heap->tiny.nslabs == 0);
    if (heap->pool != NULL) {
        haki_ace_cache_flush(heap->runs);
        haki_pool_seal(heap->pool);
    }
}

void haki_heap_seal_count(struct hak_heap *heap)
{
    haki_tiny_busy(&heap->tiny, true);
    haki_tiny_seal_count(&heap->tiny, UINT32_MAX);
    haki_tiny_busy(&heap->tiny, false);
}

/*
 * Whether two readings of a running thread's words can be of the same moment.
 */
static bool heap_near(uint64_t a, uint64_t b)
{
    return a - b + 16 <= 32;
}

/*
 * Counts what was popped of a class and what is live. Both are computed from
 * several words: a reader that is interrupted between two of them, or finds the
 * owner in a slow path, could be wrong by thousands of blocks. It tries again
 * until it has read the same twice, but not for ever, as the owner may have
 * been interrupted in a slow path as well.
 */
static HAK_RACY_READER void heap_count_class(const struct hak_tiny *tiny,
                                             unsigned c, uint64_t *pops,
                                             uint64_t *live)
{
    bool busy;

    for (int tries = 0; tries < 1000; tries++) {
        *pops = haki_bin_pops(tiny, c);
        *live = haki_tiny_live(tiny, c);
        busy = atomic_load(&tiny->busy);
        if (!busy && heap_near(haki_tiny_live(tiny, c), *live) &&
            heap_near(haki_bin_pops(tiny, c), *pops)) {
            break;
        }
    }
}

/* Blocks that have left slabs but are not in use. */
static uint64_t heap_rest(int64_t taken, uint64_t live)
{
    return taken > (int64_t)live ? (uint64_t)taken - live : 0;
}

/* The heap may be deleted meanwhile: pointers into its slot are read once. */
HAK_RACY_READER void haki_heap_count(const struct hak_heap *heap,
                                     struct hak_heap_counts *counts)
{
    const struct hak_pool *pool =
        __atomic_load_n(&heap->pool, __ATOMIC_RELAXED);
    const struct hak_ace_cache *runs =
        __atomic_load_n(&heap->runs, __ATOMIC_RELAXED);

    memset(counts, 0, sizeof(*counts));
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        uint64_t live, pops;

        heap_count_class(&heap->tiny, c, &pops, &live);
        counts->tiny.allocs += pops;
        counts->tiny.frees += pops > live ? pops - live : 0;
        counts->tiny.live_bytes += live * haki_tiny_size[c];
        counts->kept_bytes +=
            heap_rest(heap->tiny.taken[c], live) * haki_tiny_size[c];
    }
    counts->tiny.live_bytes += heap->tiny.larger_bytes;
    counts->remote_frees = heap->tiny.remote_frees;
    counts->sealed_bytes = heap->tiny.nsealed * HAK_SLAB_SIZE;
    for (unsigned c = 0; pool != NULL && c < HAK_POOL_CLASSES; c++) {
        uint64_t live = haki_pool_live(pool, c);
        uint64_t pops = haki_pool_pops(pool, c);

        counts->pool.allocs += pops;
        counts->pool.frees += pops > live ? pops - live : 0;
        counts->pool.live_bytes += live * haki_pool_classes[c].block;
        counts->kept_bytes += heap_rest(pool->shelves[c].taken, live) *
                              haki_pool_classes[c].block;
    }
    if (pool != NULL) {
        counts->remote_frees += pool->remote_frees;
        counts->sealed_bytes += pool->nsealed * HAK_SLAB_SIZE;
    }
    if (runs != NULL) {
        counts->runs_taken = runs->takes;
        for (unsigned i = 0; i < HAK_ACE_CACHE; i++) {
            counts->runs_held += runs->pages[i] != 0;
        }
        counts->runs_bytes = runs->held * HAK_PAGE;
        counts->kept_bytes += counts->runs_bytes;
    }
}

HAK_RACY_READER void haki_heap_add_classes(const struct hak_heap *heap,
                                           struct hak_class_counts *classes)
{
    const struct hak_pool *pool =
        __atomic_load_n(&heap->pool, __ATOMIC_RELAXED);
    uint64_t live, pops;

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++, classes++) {
        heap_count_class(&heap->tiny, c, &pops, &live);
        classes->allocs += pops;
        classes->live += live;
        classes->kept += heap_rest(heap->tiny.taken[c], live);
    }
    for (unsigned c = 0; pool != NULL && c < HAK_POOL_CLASSES; c++, classes++) {
        live = haki_pool_live(pool, c);
        classes->allocs += haki_pool_pops(pool, c);
        classes->live += live;
        classes->kept += heap_rest(pool->shelves[c].taken, live);
    }
}

/* The same for what an adapter counts in a thread's heap. */
static void heap_remember_extra(const struct hak_heap *heap)
{
    const uint64_t *extra =
        (const void *)((const char *)heap + HAK_HEAP_EXTRA_AT);

    for (unsigned i = 0; i < HAK_HEAP_COUNTERS; i++) {
        atomic_fetch_add(&haki_heap_past.extra[i], extra[i]);
    }
}

/* Remembers what a heap has counted. */
static void heap_remember(const struct hak_heap *heap)
{
    struct hak_heap_counts counts;

    haki_heap_count(heap, &counts);
    heap_remember_large(&counts);
    atomic_fetch_add(&haki_heap_past.allocs, counts.tiny.allocs);
    atomic_fetch_add(&haki_heap_past.remote_frees, counts.remote_frees);
    atomic_fetch_add(&haki_heap_past.refills, heap->tiny.refills);
    atomic_fetch_add(&haki_heap_past.flushes, heap->tiny.flushes);
    atomic_fetch_add(&haki_heap_past.refused, heap->limit_refusals);
    if (atomic_load(&heap->state) != HAK_HEAP_EXPLICIT) {
        heap_remember_extra(heap);
    }
}

/* Whether it holds nothing for other heaps, as only a ghost's may when it ended. */
static bool heap_has_sent(const struct hak_heap *heap)
{
    uint64_t held = 0;

    for (unsigned i = 0; i < HAK_OUTBOXES; i++) {
        held |= haki_tiny_outbox(&heap->tiny, i)->count;
    }
    for (unsigned i = 0; i < HAK_OUTSPANS; i++) {
        held |= haki_heap_outspan(heap, i)->bits;
    }
    return held == 0;
}

bool haki_heap_is_empty(const struct hak_heap *heap)
{
    const struct hak_tiny *tiny = &heap->tiny;

    if (!heap_has_sent(heap)) { /* for whoever adopts it */
        return false;
    }
    return tiny->all == HAK_NO_SLAB &&
           (heap->pool == NULL ||
            (heap->pool->all == HAK_NO_SLAB && heap->runs->held == 0));
}

/* The same for the lanes above Tiny, added to `sum`. */
static HAK_RACY_READER uint64_t heap_use_of_large(const struct hak_heap *heap,
                                                  uint64_t sum)
{
    const struct hak_pool *pool =
        __atomic_load_n(&heap->pool, __ATOMIC_ACQUIRE);

    if (pool == NULL) {
        return sum;
    }
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        sum = 3 * sum + (uint64_t)pool->until[c];
        sum = 3 * sum + (uint32_t)pool->left[c];
    }
    sum = 3 * sum + pool->remote_frees + atomic_load(&pool->inbox);
    return heap->runs != NULL
               ? 3 * sum + heap->runs->takes + 31 * (uint64_t)heap->runs->held
               : sum;
}

HAK_RACY_READER uint64_t haki_heap_use(const struct hak_heap *heap)
{
    const struct hak_tiny *tiny = &heap->tiny;
    uint64_t sum = tiny->flushes + tiny->remote_frees;

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        sum = 3 * sum + (uint64_t)tiny->bins[c].until;
        sum = 3 * sum + (uint32_t)tiny->bins[c].left;
    }
    for (unsigned i = 0; !tiny->accounted && i < HAK_OUTBOXES; i++) {
        sum = 3 * sum + haki_tiny_outbox(tiny, i)->count;
    }
    for (unsigned i = 0; !tiny->accounted && i < HAK_OUTSPANS; i++) {
        sum = 3 * sum + haki_heap_outspan(heap, i)->bits;
    }
    sum = 3 * sum + (uintptr_t)atomic_load(&tiny->inbox);
    sum = 3 * sum + atomic_load(&tiny->sealed_inbox);
    return heap_use_of_large(heap, sum);
}

/* It takes no part in a profile until it is used again; the page for that goes. */
static void heap_stop_sampling(struct hak_heap *heap)
{
    haki_tiny_busy(&heap->tiny, true);
    haki_tiny_draw_never(&heap->tiny);
    haki_tiny_busy(&heap->tiny, false);
    if (heap->pool != NULL) {
        haki_pool_busy(heap->pool, true);
        haki_pool_draw_never(heap->pool);
        haki_pool_busy(heap->pool, false);
    }
    if (haki_heap_was_sampled(heap)) {
        haki_os_purge((char *)heap + HAK_SAMPLING_AT, HAK_PAGE);
        heap->tiny.was_sampled = false;
        if (heap->pool != NULL) {
            heap->pool->was_sampled = false;
        }
    }
}

void haki_heap_rest(struct hak_heap *heap)
{
    size_t from = HAK_PAGE, end = HAK_HEAP_SLOT;

    HAK_ASSERT(atomic_load(&heap->state) == HAK_HEAP_PARKED);
    heap_stop_sampling(heap);
    if (heap->pool == NULL) {
        return;
    }
    if (heap->pool->all == HAK_NO_SLAB && heap->runs->held == 0) {
        heap_drop_large(heap);
    } else {
        haki_pool_rest(heap->pool);
        from = HAK_HEAP_LARGE_AT + HAK_PAGE;
    }
    if (heap->tiny.nstale > 0) { /* they lie at the slot's end */
        end -= HAK_PAGE;
    }
    haki_os_purge((char *)heap + from, end - from);
}

/*
 * Gives back the pages of the slot that most heaps never touch: long stacks of
 * Pool's bins, what a seal has put aside. The one for a profile, while there is one,
 * is cleared, and stays for the next heap as the kept ones do.
 */
static void heap_drop_far_pages(struct hak_heap *heap)
{
    const struct hak_pool *pool = heap->pool;
    bool was_sampled = haki_heap_was_sampled(heap);
    bool profiled =
        atomic_load_explicit(&haki_profile.draw, memory_order_relaxed) != 0;

    if (heap->tiny.nstale > 0 || heap->tiny.nsealed > 0 ||
        (was_sampled && !profiled) ||
        (pool != NULL && pool->places != HAK_POOL_STACK_SHORT)) {
        haki_os_purge((char *)heap + HAK_HEAP_KEPT * HAK_PAGE,
                      HAK_HEAP_SLOT - HAK_HEAP_KEPT * HAK_PAGE);
    } else if (was_sampled) {
        memset(haki_tiny_sampling(&heap->tiny), 0, sizeof(struct hak_sampling));
    }
}

void haki_heap_destroy(struct hak_heap *heap)
{
    uint32_t id = heap->tiny.id;

    HAK_CHECK(atomic_load(&heap->state) != HAK_HEAP_FREE);
    HAK_ASSERT(!haki_heap_is_busy(heap));
    heap_remember(heap);
    atomic_store(&heap->state, HAK_HEAP_FREE);
    heap_drop_far_pages(heap);
    haki_tiny_release(&heap->tiny);
    if (heap->pool != NULL) {
        haki_ace_cache_flush(heap->runs);
        haki_pool_release(heap->pool);
        heap->pool = NULL;
        heap->runs = NULL;
    }
    HAK_ASSERT(heap->tiny.all == HAK_NO_SLAB && heap->pool == NULL);
    if (id != 0) {
        haki_range_heap_give(id);
    } else {
        haki_os_unmap(heap, HAK_HEAP_SLOT);
    }
}
