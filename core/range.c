/*
 * range.c - the address range, its superslabs and the shared pool of slabs.
 */
#include "range.h"

#include "msg.h"
#include "options.h"
#include "os.h"

struct hak_range hak_range = {.base = HAK_NO_BASE};

/* Both masks have a bit for each slab of the superslab. */
struct super {
    uint32_t free;
    uint32_t warm;
};

_Static_assert(HAK_SUPER_SLABS == 32, "a superslab's slabs fill a mask");

/* Descriptors and heap slots are committed in steps of this many bytes. */
#define META_STEP (64 * HAK_KIB)

/* The ladder below huge pages: 16 KB a call in a class's first slabs. */
#define LADDER_STEP (16 * HAK_KIB)
#define LADDER_SLABS 8

/*
 * Its top: from this much resident memory a superslab may come as one huge
 * page, populated at once. That costs 1/4 to 1/8 of populating small pages
 * where the machine has a huge page ready, but where it must first be put
 * together (compaction, a hypervisor that backs memory at first touch) it was
 * measured at 6 times as much. So both are timed: a huge page that costs more
 * than its small ones makes us pass up the next HUGE_SKIP superslabs, then
 * twice as many, and so on.
 */
#define HUGE_FROM (8 * HAK_MIB)
#define HUGE_SKIP 4
#define HUGE_SKIP_MOST 1024

/* A slot a heap has left holds the id of the next free one. */
struct free_slot {
    uint32_t next;
};

static hak_lock lock = HAK_LOCK_INIT;

/* Constant after init. */
static struct super *supers;
static uint64_t *warm_map; /* a bit for each superslab with warm slabs */
static uint64_t *free_map; /* a bit for each superslab with free slabs */
static uint32_t super_limit;
static uint32_t heap_limit;

/* Under `lock`. */
static bool tried;           /* init has run */
static uint32_t super_count; /* superslabs of tags and those committed */
static size_t slab_meta;     /* bytes of descriptors committed */
static size_t heap_meta;     /* bytes of heap slots committed */
static uint32_t heap_count;  /* heap slots ever taken */
static uint32_t heap_free;   /* first free slot, 0: none */
static struct hak_range_figures figures;

static uint32_t huge_pass; /* superslabs to pass up */
static uint32_t huge_skip; /* how many at the next dear one */

/* Any thread: bytes resident, as far as we made them so. */
static _Atomic(size_t) populated;

/* Any thread: what the last populated small pages cost, ns per superslab. */
static _Atomic(uint64_t) small_cost;

/* ---- the reservation ---------------------------------------------------- */

/* Sizes of the parts for a range of `size` bytes. */
struct layout {
    size_t supers, map, slabs, heaps, before_base, tags;
};

static void plan(struct layout *layout, size_t size)
{
    size_t slab_total = size / HAK_SLAB_SIZE;
    size_t super_total = size / HAK_SUPER_SIZE;
    size_t heap_total = hak_min(size / 32 / HAK_HEAP_SLOT, HAK_HEAP_ID_MAX);

    layout->supers = hak_round_up(super_total * sizeof(struct super), HAK_PAGE);
    layout->map = hak_round_up(super_total / 8 + sizeof(uint64_t), HAK_PAGE);
    layout->slabs =
        hak_round_up(slab_total * sizeof(struct hak_slab), META_STEP);
    layout->heaps = hak_round_up(heap_total * HAK_HEAP_SLOT, META_STEP);
    layout->before_base = hak_round_up(layout->supers + 2 * layout->map +
                                           layout->slabs + layout->heaps,
                                       HAK_SUPER_SIZE);
    layout->tags = hak_round_up(slab_total * sizeof(uint32_t), HAK_PAGE);
}

/* Points the variables at the parts that begin at `start`. */
static void lay_out(char *start, const struct layout *layout, size_t size)
{
    supers = (struct super *)(void *)start;
    warm_map = (uint64_t *)(void *)(start + layout->supers);
    free_map = (uint64_t *)(void *)((char *)warm_map + layout->map);
    hak_range.slabs =
        (struct hak_slab *)(void *)((char *)free_map + layout->map);
    hak_range.heap_slots = (char *)hak_range.slabs + layout->slabs;
    super_limit = (uint32_t)(size / HAK_SUPER_SIZE);
    super_count =
        (uint32_t)(hak_round_up(layout->tags, HAK_SUPER_SIZE) / HAK_SUPER_SIZE);
    slab_meta = (size_t)super_count * HAK_SUPER_SLABS *
                sizeof(struct hak_slab) / META_STEP * META_STEP;
    heap_limit = (uint32_t)(layout->heaps / HAK_HEAP_SLOT);
    hak_range.base = (uintptr_t)start + layout->before_base;
    hak_range.size = size;
}

/* Reserves a range of `size` bytes and lays it out. */
static bool reserve(size_t size)
{
    struct layout layout;
    char *start;

    plan(&layout, size);
    start = hak_os_reserve(layout.before_base + size, HAK_SUPER_SIZE);
    if (start == NULL) {
        return false;
    }
    if (!hak_os_commit(start, layout.supers + 2 * layout.map) ||
        !hak_os_commit(start + layout.before_base, layout.tags)) {
        hak_os_unmap(start, layout.before_base + size);
        return false;
    }
    lay_out(start, &layout, size);
    return true;
}

/* Tries the wished size, then halves it, leaving the program its share. */
static void reserve_some(void)
{
    size_t limit = hak_os_address_limit();
    size_t size = hak_option(HAK_OPT_range) & ~(HAK_SUPER_SIZE - 1);

    for (; size >= HAK_GIB; size = (size / 2) & ~(HAK_SUPER_SIZE - 1)) {
        if (size <= limit / 2 && reserve(size)) {
            return;
        }
    }
    hak_warn("no address range of 1 GB or more could be reserved (ulimit -v?); "
             "all requests go to the system allocator");
}

bool hak_range_init(void)
{
    if (HAK_LIKELY(hak_range.size != 0)) {
        return true;
    }
    hak_lock_take(&lock);
    if (!tried) {
        tried = true;
        reserve_some();
    }
    hak_lock_drop(&lock);
    return hak_range.size != 0;
}

/* ---- the shared pool ---------------------------------------------------- */

static void map_set(uint64_t *map, uint32_t i, bool on)
{
    uint64_t bit = (uint64_t)1 << (i & 63);

    map[i / 64] = on ? map[i / 64] | bit : map[i / 64] & ~bit;
}

/* The lowest superslab whose bit is set, or super_count. */
static uint32_t map_first(const uint64_t *map)
{
    for (uint32_t word = 0; word <= (super_count / 64); word++) {
        if (map[word] != 0) {
            return word * 64 + (uint32_t)__builtin_ctzll(map[word]);
        }
    }
    return super_count;
}

static void super_changed(uint32_t i)
{
    map_set(warm_map, i, supers[i].warm != 0);
    map_set(free_map, i, supers[i].free != 0);
}

static bool commit_descriptors(uint32_t super)
{
    size_t need =
        (size_t)(super + 1) * HAK_SUPER_SLABS * sizeof(struct hak_slab);

    if (need > slab_meta) {
        if (!hak_os_commit((char *)hak_range.slabs + slab_meta, META_STEP)) {
            return false;
        }
        slab_meta += META_STEP;
    }
    return true;
}

/* Whether the next superslab should come as a huge page. */
static bool huge_wanted(void)
{
    size_t mode = hak_option(HAK_OPT_huge);

    if (mode == HAK_HUGE_NEVER || atomic_load(&populated) < HUGE_FROM) {
        return false;
    }
    if (mode == HAK_HUGE_AUTO && huge_pass > 0) {
        huge_pass--;
        return false;
    }
    return true;
}

/* Learns from what a huge page cost. */
static void huge_learn(uint64_t cost)
{
    if (cost <= atomic_load(&small_cost)) {
        huge_skip = 0;
        return;
    }
    huge_skip = huge_skip == 0 ? HUGE_SKIP : 2 * huge_skip;
    huge_skip = (uint32_t)hak_min(huge_skip, HUGE_SKIP_MOST);
    huge_pass = huge_skip;
}

/* Populates a superslab as a huge page. A refusal leaves plain pages. */
static void populate_huge(uint32_t i, char *start)
{
    uint64_t began = hak_os_clock();

    hak_os_want_huge(start, HAK_SUPER_SIZE);
    if (!hak_os_populate(start, HAK_SUPER_SIZE)) {
        return;
    }
    huge_learn(hak_os_clock() - began);
    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        hak_range_slab(i * HAK_SUPER_SLABS + n)->populated = HAK_SLAB_SIZE;
    }
    supers[i].warm = supers[i].free;
    atomic_fetch_add(&populated, HAK_SUPER_SIZE);
}

/* Commits the next superslab. */
static bool super_add(void)
{
    uint32_t i = super_count;
    char *start = hak_range_slab_start(i * HAK_SUPER_SLABS);

    if (i == super_limit || !commit_descriptors(i) ||
        !hak_os_commit(start, HAK_SUPER_SIZE)) {
        return false;
    }
    hak_os_name(start, HAK_SUPER_SIZE, "hakmem");
    supers[i].free = ~(uint32_t)0;
    super_count++;
    figures.committed += HAK_SUPER_SIZE;
    if (huge_wanted()) {
        populate_huge(i, start);
    }
    super_changed(i);
    return true;
}

static uint32_t take_locked(void)
{
    uint32_t i = map_first(warm_map);
    uint32_t bit;

    if (i == super_count) {
        i = map_first(free_map);
    }
    if (i == super_count && !super_add()) {
        return HAK_NO_SLAB;
    }
    bit = (uint32_t)__builtin_ctz(supers[i].warm != 0 ? supers[i].warm
                                                      : supers[i].free);
    supers[i].free &= ~((uint32_t)1 << bit);
    supers[i].warm &= ~((uint32_t)1 << bit);
    super_changed(i);
    figures.slabs_used++;
    return i * HAK_SUPER_SLABS + bit;
}

uint32_t hak_range_slab_take(void)
{
    uint32_t number;

    if (hak_range.size == 0) {
        return HAK_NO_SLAB;
    }
    hak_lock_take(&lock);
    number = take_locked();
    hak_lock_drop(&lock);
    return number;
}

/* How many bytes more to make resident in a slab that has `have`. */
static size_t ladder_step(size_t have, uint32_t before)
{
    if (before == 0) {
        return have;
    }
    return before < LADDER_SLABS ? LADDER_STEP : HAK_SLAB_SIZE;
}

/* Populates, and keeps in mind what it cost. */
static bool populate_small(char *start, size_t size)
{
    uint64_t began = hak_os_clock();

    if (!hak_os_populate(start, size)) {
        return false;
    }
    atomic_store_explicit(&small_cost,
                          (hak_os_clock() - began) * HAK_SUPER_SIZE / size,
                          memory_order_relaxed);
    return true;
}

bool hak_range_slab_ready(uint32_t number, size_t need, uint32_t before)
{
    struct hak_slab *slab = hak_range_slab(number);
    size_t have = slab->populated;
    size_t want;

    if (HAK_LIKELY(need <= have)) {
        return true;
    }
    want =
        hak_max(hak_round_up(need, HAK_PAGE), have + ladder_step(have, before));
    want = hak_min(want, HAK_SLAB_SIZE);
    /* A fault is the cheapest way to get a single page. */
    if (want - have > HAK_PAGE &&
        !populate_small(hak_range_slab_start(number) + have, want - have)) {
        return false;
    }
    slab->populated = (uint32_t)want;
    atomic_fetch_add_explicit(&populated, want - have, memory_order_relaxed);
    return true;
}

static void give_locked(uint32_t number)
{
    struct super *super = &supers[number / HAK_SUPER_SLABS];
    uint32_t bit = (uint32_t)1 << (number % HAK_SUPER_SLABS);

    hak_range_set_tag(number, 0);
    super->free |= bit;
    if (hak_range_slab(number)->populated > 0) {
        super->warm |= bit;
    }
    super_changed(number / HAK_SUPER_SLABS);
    figures.slabs_used--;
}

void hak_range_slab_give(uint32_t number)
{
    hak_lock_take(&lock);
    give_locked(number);
    hak_lock_drop(&lock);
}

void hak_range_slabs_give(uint32_t first)
{
    hak_lock_take(&lock);
    while (first != HAK_NO_SLAB) {
        uint32_t next = hak_range_slab(first)->all_next;

        give_locked(first);
        first = next;
    }
    hak_lock_drop(&lock);
}

/* ---- memory back -------------------------------------------------------- */

/* Purges slabs first..first+count-1 of superslab i, all of them warm. */
static size_t purge_run(uint32_t i, uint32_t first, uint32_t count)
{
    uint32_t number = i * HAK_SUPER_SLABS + first;
    size_t bytes = 0;

    if (!hak_os_purge(hak_range_slab_start(number), count * HAK_SLAB_SIZE)) {
        return 0;
    }
    for (uint32_t n = number; n < number + count; n++) {
        bytes += hak_range_slab(n)->populated;
        hak_range_slab(n)->populated = 0;
        supers[i].warm &= ~((uint32_t)1 << (n % HAK_SUPER_SLABS));
    }
    return bytes;
}

/* Purges the warm slabs of superslab i in runs as long as possible. */
static size_t purge_super(uint32_t i)
{
    uint32_t warm = supers[i].warm;
    size_t bytes = 0;

    while (warm != 0) {
        uint32_t first = (uint32_t)__builtin_ctz(warm);
        uint32_t rest = ~(warm >> first);
        uint32_t count =
            rest == 0 ? HAK_SUPER_SLABS : (uint32_t)__builtin_ctz(rest);
        uint64_t run = (((uint64_t)1 << count) - 1) << first;

        bytes += purge_run(i, first, count);
        warm &= ~(uint32_t)run;
    }
    super_changed(i);
    return bytes;
}

size_t hak_range_purge(void)
{
    size_t bytes = 0;

    hak_lock_take(&lock);
    for (uint32_t i = 0; i < super_count; i++) {
        bytes += purge_super(i);
    }
    figures.purged += bytes;
    atomic_fetch_sub(&populated, bytes);
    hak_lock_drop(&lock);
    return bytes;
}

/* ---- heap slots --------------------------------------------------------- */

static bool commit_slots(uint32_t count)
{
    if ((size_t)count * HAK_HEAP_SLOT > heap_meta) {
        if (!hak_os_commit(hak_range.heap_slots + heap_meta, META_STEP)) {
            return false;
        }
        heap_meta += META_STEP;
    }
    return true;
}

static void *heap_take_locked(uint32_t *id)
{
    struct free_slot *slot;

    if (heap_free != 0) {
        *id = heap_free;
        slot = hak_range_heap(heap_free);
        heap_free = slot->next;
        return slot;
    }
    if (heap_count == heap_limit || !commit_slots(heap_count + 1)) {
        return NULL;
    }
    *id = ++heap_count;
    return hak_range_heap(*id);
}

void *hak_range_heap_take(uint32_t *id)
{
    void *slot;

    hak_lock_take(&lock);
    slot = heap_take_locked(id);
    hak_lock_drop(&lock);
    return slot;
}

void hak_range_heap_give(uint32_t id)
{
    struct free_slot *slot = hak_range_heap(id);

    hak_lock_take(&lock);
    slot->next = heap_free;
    heap_free = id;
    hak_lock_drop(&lock);
}

uint32_t hak_range_heap_count(void)
{
    uint32_t count;

    hak_lock_take(&lock);
    count = heap_count;
    hak_lock_drop(&lock);
    return count;
}

/* ---- figures and fork --------------------------------------------------- */

void hak_range_figures(struct hak_range_figures *out)
{
    hak_lock_take(&lock);
    *out = figures;
    out->populated = atomic_load(&populated);
    hak_lock_drop(&lock);
}

void hak_range_fork_prepare(void)
{
    hak_lock_take(&lock);
}

void hak_range_fork_done(void)
{
    hak_lock_drop(&lock);
}
