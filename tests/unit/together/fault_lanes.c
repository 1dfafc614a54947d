/*
 * fault_lanes.c - the n-th call to the operating system fails, once or from
 * then on, in work that uses all four lanes, Huge's moving of pages included.
 *
 * Nothing may crash or be lost: a request is served by somebody or is NULL
 * with ENOMEM, contents stay, and once memory is back all is as before.
 * fault.c does the same for many small blocks.
 */
#include "fault.h"
#include "front/lane.h"
#include "os/os.h"
#include "heap/thread.h"
#include "unit.h"

TestSuite(fault_lanes, .timeout = 600);

enum { BLOCKS = 40, MARK = 48 };

static const size_t sizes[] = {
    0,     40,    1000,   1025,    3000,    20000,   53248,
    53249, 60000, 500000, 1900000, 2097152, 3000000, 9000000,
};

enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

struct block {
    char *p;
    size_t size;
    unsigned seed;
};

static struct block blocks[BLOCKS];

/* ---- contents: the first and the last bytes of a block -------------------------- */

static void write_ends(struct block *block)
{
    size_t n = haki_min(block->size, MARK);

    unit_fill(block->p, n, block->seed);
    unit_fill(block->p + block->size - n, n, block->seed);
}

static void check_ends(const struct block *block)
{
    size_t n = haki_min(block->size, MARK);

    NEED(unit_filled(block->p + block->size - n, n, block->seed));
    NEED(block->size < 2 * MARK || unit_filled(block->p, n, block->seed));
}

/* p may be NULL, with ENOMEM. */
static void keep(struct block *block, char *p, size_t size, unsigned seed)
{
    NEED(p != NULL || errno == ENOMEM);
    block->p = p;
    block->size = size;
    block->seed = seed;
    if (p != NULL) {
        NEED(hak_usable_size(p) >= size || !hak_owns(p));
        write_ends(block);
    }
}

static size_t size_of(size_t i)
{
    return sizes[i % SIZES];
}

/* ---- the work ---------------------------------------------------------------------- */

static char *get(size_t i)
{
    size_t align = (size_t)16 << (i % 19);
    char *p;

    errno = 0;
    if (i % 4 == 1) {
        p = hak_calloc(1, size_of(i));
        NEED(p == NULL || size_of(i) == 0 ||
             (p[0] == 0 && p[size_of(i) - 1] == 0));
    } else if (i % 4 == 2) {
        p = hak_aligned_alloc(align, size_of(i));
        NEED((uintptr_t)p % align == 0);
    } else {
        p = hak_malloc(size_of(i));
    }
    return p;
}

static void resize(struct block *block, size_t size, unsigned seed)
{
    size_t head = haki_min(haki_min(block->size, size), MARK);
    bool whole = block->p != NULL && block->size >= 2 * MARK;
    char *p;

    errno = 0;
    p = hak_realloc(block->p, size);
    if (p == NULL) {
        NEED(errno == ENOMEM);
        NEED(block->p == NULL || size > block->size); /* a shrink never fails */
        return;
    }
    NEED(!whole || unit_filled(p, head, block->seed));
    keep(block, p, size, seed);
}

static void use_thread_heap(void)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        keep(&blocks[i], get(i), size_of(i), (unsigned)i);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        if (blocks[i].p != NULL) {
            check_ends(&blocks[i]);
        }
        resize(&blocks[i], size_of(i * 5 + 3), (unsigned)(100 + i));
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        if (blocks[i].p != NULL) {
            check_ends(&blocks[i]);
            hak_free(blocks[i].p);
        }
    }
    hak_trim();
}

/* A block that grows past others: its pages move, over and over. */
static void grow_huge(void)
{
    struct block block = {NULL, 0, 0};
    char *fences[4];

    for (size_t i = 0; i < 4; i++) {
        resize(&block, (i * i + 1) * 3 * HAK_MIB, (unsigned)i);
        fences[i] = hak_malloc(2 * HAK_MIB + i);
        NEED(fences[i] != NULL || errno == ENOMEM);
    }
    for (size_t i = 4; i-- > 0;) {
        hak_free(fences[i]);
        resize(&block, (i + 1) * HAK_MIB, (unsigned)(10 + i));
    }
    if (block.p != NULL) {
        check_ends(&block);
        hak_free(block.p);
    }
}

static void use_made_heap(void)
{
    hak_heap_config config = {.size = sizeof(config), .limit = 200000000};
    hak_heap *heap = hak_heap_new(&config);
    struct block made[SIZES];
    size_t live = 0;

    NEED(heap != NULL || errno == ENOMEM);
    if (heap == NULL) {
        return;
    }
    for (size_t i = 0; i < SIZES; i++) {
        errno = 0;
        keep(&made[i], hak_heap_malloc(heap, sizes[i]), sizes[i], (unsigned)i);
    }
    for (size_t i = 0; i < SIZES; i += 2) {
        char *p;

        errno = 0;
        p = hak_heap_realloc(heap, made[i].p, size_of(i + 5));
        NEED(p != NULL || errno == ENOMEM);
        if (p != NULL) {
            keep(&made[i], p, size_of(i + 5), (unsigned)i);
        }
    }
    for (size_t i = 0; i < SIZES; i++) {
        if (made[i].p != NULL) {
            check_ends(&made[i]);
            live += hak_usable_size(made[i].p);
        }
    }
    NEED(hak_heap_live(heap) == live);
    for (size_t i = 0; i < SIZES; i += 3) {
        if (made[i].p != NULL) {
            live -= hak_usable_size(made[i].p);
            hak_heap_free(heap, made[i].p);
        }
    }
    NEED(hak_heap_live(heap) == live);
    hak_heap_delete(heap);
}

static void *use_in_thread(void *arg)
{
    use_thread_heap();
    return arg;
}

static void work(void)
{
    use_thread_heap();
    grow_huge();
    use_made_heap();
    unit_in_thread(use_in_thread, NULL);
}

/* ---- the faults ---------------------------------------------------------------------- */

static void check_all_back(void)
{
    hak_stats_t stats;

    hak_trim();
    stats = unit_stats();
    NEED(stats.system_live == 0);
    NEED(stats.tiny_live_bytes == 0 && stats.tiny_held_bytes == 0);
    NEED(stats.pool_live_bytes == 0 && stats.pool_held_bytes == 0);
    NEED(stats.ace_live_bytes == 0 && stats.ace_held_bytes == 0);
    NEED(stats.huge_live_bytes == 0 && stats.huge_held_bytes == 0);
    NEED(stats.resident_bytes == 0);
    NEED(stats.slabs == 0);
}

/* Exits with 3 if the n-th call was never reached. */
static void work_with_fault(void *arg)
{
    const struct fault *fault = arg;
    uint64_t fallbacks;
    unsigned calls;

    haki_os_test_refuse(fault->n, fault->forever);
    work();
    calls = haki_os_test_calls();
    haki_os_test_refuse(0, false);
    check_all_back();
    fallbacks = unit_stats().fallback_memory;
    if (calls < fault->n) {
        NEED(fallbacks == 0);
        _exit(3);
    }
    /* Memory is back: with a range, all is served from it again. */
    work();
    check_all_back();
    if (unit_stats().range_bytes != 0) {
        NEED(unit_stats().fallback_memory == fallbacks);
    }
}

Test(fault_lanes, no_fault_no_fallback)
{
    work();
    check_all_back();
    cr_assert_eq(unit_stats().fallback_memory, 0);
}

Test(fault_lanes, any_one_call_may_fail)
{
    UNIT_SKIP_IF_GCC_TSAN();
    cr_assert_geq(run_all(false, 5), 20);
}

Test(fault_lanes, any_call_and_all_later_ones_may_fail)
{
    UNIT_SKIP_IF_GCC_TSAN();
    cr_assert_geq(run_all(true, 5), 20);
}
