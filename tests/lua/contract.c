/*
 * contract.c - hak_lua_alloc called directly, as Lua's manual (section 4.6) says a
 * lua_Alloc behaves, with a heap and with ud NULL; which lanes it has; without memory;
 * heaps made and ended. Statistics and the limit are in figures.c.
 */
#include "contract.h"
#include "os/os.h"
#include "range/range.h"
#include <sys/resource.h>

TestSuite(contract, .timeout = 300);

/* ---- the calls --------------------------------------------------------- */

static void check_nothing(void *ud)
{
    for (size_t tag = 0; tag <= 12; tag++)
        cr_expect_null(hak_lua_alloc(ud, NULL, tag, 0),
                       "(NULL, %zu, 0) returned a block", tag);
    cr_expect_null(hak_lua_alloc(ud, NULL, SIZE_MAX, 0));
}

Test(contract, nothing_for_nothing)
{
    with_each_ud(check_nothing);
}

Test(contract, nothing_is_no_call)
{
    hak_lua_heap *heap = new_heap(0);
    hak_lua_stats before = lt_stats(heap);
    for (int i = 0; i < 100; i++)
        hak_lua_alloc(heap, NULL, 0, 0);
    cr_expect_eq(lt_stats(heap).calls, before.calls);
    cr_expect_eq(lt_stats(heap).live_bytes, (size_t)0);
    hak_lua_heap_delete(heap);
}

static void check_free(void *ud)
{
    for (size_t size = 1; size < 3000; size++) {
        void *ptr = hak_lua_alloc(ud, NULL, 0, size);
        cr_assert(ptr, "no %zu bytes", size);
        fill(ptr, size, 1);
        cr_expect_null(hak_lua_alloc(ud, ptr, size, 0),
                       "a free of %zu bytes returned a block", size);
    }
}

Test(contract, free_returns_null)
{
    with_each_ud(check_free);
}

static void resize_pair(void *ud, size_t from, size_t to)
{
    unsigned salt = (unsigned)(from * 31 + to);
    void *ptr = hak_lua_alloc(ud, NULL, 0, from);
    cr_assert(ptr && aligned(ptr, from), "%p for %zu bytes", ptr, from);
    fill(ptr, from, salt);
    void *moved = hak_lua_alloc(ud, ptr, from, to);
    cr_assert(moved && aligned(moved, to), "%p for %zu to %zu bytes", moved,
              from, to);
    cr_assert(filled(moved, from < to ? from : to, salt),
              "content lost from %zu to %zu bytes", from, to);
    fill(moved, to, salt + 1);
    hak_lua_alloc(ud, moved, to, 0);
}

static void check_resize(void *ud)
{
    size_t sizes[MOST_SIZES];
    size_t count = some_sizes(sizes, lt_divisor() > 1 ? 6 : 1);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < count; k++)
            resize_pair(ud, sizes[i], sizes[k]);
}

Test(contract, resize_keeps_content)
{
    on_a_heap(check_resize, HAK_LUA_LANES_TINY);
    on_a_heap(check_resize, HAK_LUA_LANES_ALL);
}

Test(contract, resize_keeps_content_on_the_thread_heap)
{
    check_resize(NULL);
}

/* Every lane's bounds, to each other. */
static void check_bounds(void *ud)
{
    static const size_t sizes[] = {24,      1024,    1025,    4096,   53248,
                                   53249,   57344,   57345,   400000, 2097151,
                                   2097152, 2097153, 4194304, 5000000};
    size_t count = sizeof sizes / sizeof *sizes;
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < count; k++)
            resize_pair(ud, sizes[i], sizes[k]);
}

Test(contract, resize_between_lanes)
{
    with_each_ud(check_bounds);
}

/* A block that went through all lanes, or the fallback, and came back. */
static void check_chain(void *ud)
{
    static const size_t chain[] = {
        24,      1024,  1025,    4096,   500,     700,     100,     2000,
        1024,    24,    LARGE,   8,      16,      100000,  1023,    1,
        53248,   53249, 53248,   700000, 1500000, 2097151, 2097152, 2097151,
        3000000, 60000, 9000000, 90,     2000,    60000,   1025,    1024};
    size_t size = 40;
    char *ptr = hak_lua_alloc(ud, NULL, 0, size);
    cr_assert(ptr);
    fill(ptr, size, 9);
    for (size_t i = 0; i < sizeof chain / sizeof *chain; i++) {
        size_t kept = size < chain[i] ? size : chain[i];
        ptr = hak_lua_alloc(ud, ptr, size, chain[i]);
        cr_assert(ptr, "no resize from %zu to %zu", size, chain[i]);
        cr_assert(filled(ptr, kept, 9), "lost from %zu to %zu", size, chain[i]);
        cr_assert(aligned(ptr, chain[i]));
        size = chain[i];
        fill(ptr, size, 9);
    }
    hak_lua_alloc(ud, ptr, size, 0);
}

Test(contract, resize_chain)
{
    with_each_ud(check_chain);
}

static void check_alignment(void *ud)
{
    enum { EACH = 20 };
    void *kept[EACH];
    for (size_t size = 1; size <= 2100; size++) {
        for (int i = 0; i < EACH; i++) {
            kept[i] = hak_lua_alloc(ud, NULL, 0, size);
            cr_assert(kept[i] && aligned(kept[i], size), "%p for %zu bytes",
                      kept[i], size);
        }
        for (int i = 0; i < EACH; i++)
            hak_lua_alloc(ud, kept[i], size, 0);
    }
}

Test(contract, alignment)
{
    with_each_ud(check_alignment);
}

static void check_impossible(void *ud)
{
    static const size_t wild[] = {SIZE_MAX, SIZE_MAX - 15, SIZE_MAX / 2 + 1,
                                  (size_t)1 << 62};
    char *ptr = hak_lua_alloc(ud, NULL, 0, 100);
    cr_assert(ptr);
    fill(ptr, 100, 3);
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        cr_expect_null(hak_lua_alloc(ud, NULL, 0, wild[i]));
        cr_expect_null(hak_lua_alloc(ud, ptr, 100, wild[i]));
    }
    cr_expect(filled(ptr, 100, 3), "a refused growth touched the block");
    if (ud)
        cr_expect_eq(lt_stats(ud).peak_bytes, (size_t)100,
                     "what was not given counts: peak %zu",
                     lt_stats(ud).peak_bytes);
    hak_lua_alloc(ud, ptr, 100, 0);
}

/* A checker's own malloc reports such sizes, or stops the program. */
Test(contract, impossible_sizes)
{
    if (!lt_native())
        cr_skip_test("needs the system's own malloc");
    with_each_ud(check_impossible);
}

/* ---- many blocks against a shadow model -------------------------------- */

enum { SLOTS = 600 };

typedef struct slot {
    unsigned char *ptr;
    size_t size;
    unsigned salt;
} slot;

static size_t random_size(uint64_t *seed)
{
    uint32_t r = lt_random(seed);
    switch (r % 16) {
    case 0: return 1025 + r / 16 % 8000;
    case 1: return 1000 + r / 16 % 50;
    case 2: return 1 + r / 16 % 1024;
    case 3: return r / 16 % 64 ? 1 + r / 1024 % 60000 : 1 + r / 1024 % 3000000;
    default: return 1 + r / 16 % 128;
    }
}

static int by_address(const void *a, const void *b)
{
    const slot *x = a, *y = b;
    return (x->ptr > y->ptr) - (x->ptr < y->ptr);
}

static void check_overlap(const slot *slots)
{
    static slot sorted[SLOTS];
    memcpy(sorted, slots, sizeof sorted);
    qsort(sorted, SLOTS, sizeof *sorted, by_address);
    for (int i = 0; i + 1 < SLOTS; i++)
        cr_assert(!sorted[i].ptr ||
                      sorted[i].ptr + sorted[i].size <= sorted[i + 1].ptr,
                  "blocks overlap at %p", (void *)sorted[i + 1].ptr);
}

static void model_step(void *ud, slot *s, uint64_t *seed, size_t *live)
{
    size_t size = lt_random(seed) % 3 == 0 ? 0 : random_size(seed);
    cr_assert(filled(s->ptr, s->size, s->salt), "%zu bytes were overwritten",
              s->size);
    unsigned char *ptr = hak_lua_alloc(ud, s->ptr, s->size, size);
    cr_assert_eq(ptr == NULL, size == 0, "%p for %zu", (void *)ptr, size);
    if (ptr)
        cr_assert(aligned(ptr, size) &&
                      filled(ptr, s->size < size ? s->size : size, s->salt),
                  "from %zu to %zu", s->size, size);
    *live += size - s->size;
    s->ptr = ptr;
    s->size = size;
    s->salt = lt_random(seed);
    fill(ptr, size, s->salt);
}

static void model_run(void *ud, uint64_t seed)
{
    static slot slots[SLOTS];
    size_t live = 0, peak = 0;
    memset(slots, 0, sizeof slots);
    for (long i = 0, n = lt_scaled(200000); i < n; i++) {
        model_step(ud, &slots[lt_random(&seed) % SLOTS], &seed, &live);
        peak = live > peak ? live : peak;
        if (i % 1000)
            continue;
        check_overlap(slots);
        if (ud)
            cr_assert_eq(lt_live(ud), live, "live %zu, not %zu", lt_live(ud),
                         live);
    }
    if (ud)
        cr_expect_eq(lt_stats(ud).peak_bytes, peak, "peak %zu, not %zu",
                     lt_stats(ud).peak_bytes, peak);
    for (int i = 0; i < SLOTS; i++) {
        cr_assert(filled(slots[i].ptr, slots[i].size, slots[i].salt));
        hak_lua_alloc(ud, slots[i].ptr, slots[i].size, 0);
    }
}

Test(contract, random_on_heaps)
{
    for (uint64_t seed = 1; seed <= 4; seed++) {
        hak_lua_heap *heap =
            heap_with(seed % 2 ? HAK_LUA_LANES_ALL : HAK_LUA_LANES_TINY, 0);
        model_run(heap, seed);
        cr_expect_eq(lt_live(heap), (size_t)0);
        hak_lua_heap_delete(heap);
    }
}

Test(contract, random_on_thread_heap)
{
    for (uint64_t seed = 5; seed <= 8; seed++)
        model_run(NULL, seed);
}

/* Two heaps and the thread's heap side by side don't disturb each other. */
Test(contract, heaps_are_apart)
{
    enum { EACH = 3000 };
    static void *kept[3][EACH];
    void *uds[3] = {new_heap(0), new_heap(0), NULL};
    for (size_t i = 0; i < EACH; i++)
        for (unsigned u = 0; u < 3; u++) {
            kept[u][i] = hak_lua_alloc(uds[u], NULL, 0, 1 + i % 200);
            fill(kept[u][i], 1 + i % 200, u + 1);
        }
    for (size_t i = 0; i < EACH; i++)
        for (unsigned u = 0; u < 3; u++)
            cr_assert(filled(kept[u][i], 1 + i % 200, u + 1));
    for (size_t i = 0; i < EACH; i++)
        hak_lua_alloc(uds[0], kept[0][i], 1 + i % 200, 0);
    cr_expect_eq(lt_live(uds[0]), (size_t)0);
    hak_lua_heap_delete(uds[0]);
    for (size_t i = 0; i < EACH; i++)
        for (unsigned u = 1; u < 3; u++) {
            cr_assert(filled(kept[u][i], 1 + i % 200, u + 1));
            hak_lua_alloc(uds[u], kept[u][i], 1 + i % 200, 0);
        }
    cr_expect_eq(lt_live(uds[1]), (size_t)0);
    hak_lua_heap_delete(uds[1]);
}

/* A shrink by less than a quarter may stay; many of them must not add up. */
static void shrink_in_steps(void *ud)
{
    size_t size = 8 << 20;
    char *ptr = hak_lua_alloc(ud, NULL, 0, size);
    fill(ptr, size, 6);
    while (size > 2000) {
        size_t less = size - size / 8;
        ptr = hak_lua_alloc(ud, ptr, size, less);
        cr_assert(ptr && filled(ptr, less, 6), "lost at %zu bytes", less);
        size = less;
        if (hak_owns(ptr))
            cr_assert_leq(hak_usable_size(ptr), size + size / 2 + 4096,
                          "%zu bytes in a block of %zu", size,
                          hak_usable_size(ptr));
    }
    hak_lua_alloc(ud, ptr, size, 0);
}

Test(contract, small_shrinks_add_up)
{
    with_each_ud(shrink_in_steps);
}

/* From one page to 20 MB and back, as a table's array grows. */
static void grow_and_shrink(void *ud)
{
    size_t size = 16;
    char *ptr = hak_lua_alloc(ud, NULL, 0, size);
    fill(ptr, size, 8);
    for (; size < 20 << 20; size *= 2) {
        ptr = hak_lua_alloc(ud, ptr, size, size * 2);
        cr_assert(ptr && filled(ptr, size, 8), "lost at %zu bytes", size);
        fill(ptr, size * 2, 8);
    }
    for (; size > 16; size /= 2) {
        ptr = hak_lua_alloc(ud, ptr, size, size / 2);
        cr_assert(ptr && filled(ptr, size / 2, 8), "lost at %zu bytes", size);
    }
    hak_lua_alloc(ud, ptr, size, 0);
}

Test(contract, grow_and_shrink_through_the_lanes)
{
    with_each_ud(grow_and_shrink);
}

/* ---- HAKMEM_LUA_LANES ---------------------------------------------------- */

/* Whether a default heap, and a state without one, gets `size` from us. */
static void expect_from_us(size_t size, bool heap_too, bool thread_too)
{
    hak_lua_heap *heap = new_heap(0);
    void *ptr = hak_lua_alloc(heap, NULL, 0, size);
    cr_expect_eq(hak_owns(ptr), heap_too, "%zu bytes on a heap", size);
    hak_lua_alloc(heap, ptr, size, 0);
    hak_lua_heap_delete(heap);
    ptr = hak_lua_alloc(NULL, NULL, 0, size);
    cr_expect_eq(hak_owns(ptr), thread_too, "%zu bytes, ud NULL", size);
    hak_lua_alloc(NULL, ptr, size, 0);
}

Test(contract, default_lanes)
{
    expect_from_us(1024, true, true);
    expect_from_us(1025, true, true);
    expect_from_us(5000000, true, true);
}

Test(contract, lanes_by_environment)
{
    setenv("HAKMEM_LUA_LANES", "tiny", 1);
    expect_from_us(1024, true, true);
    expect_from_us(1025, false, false);
    expect_from_us(60000, false, false);
    on_a_heap(check_chain, HAK_LUA_LANES_ALL); /* a config's word counts */
    hak_lua_heap *heap = heap_with(HAK_LUA_LANES_ALL, 0);
    void *ptr = hak_lua_alloc(heap, NULL, 0, 60000);
    cr_expect(hak_owns(ptr));
    hak_lua_alloc(heap, ptr, 60000, 0);
    hak_lua_heap_delete(heap);
    check_resize(NULL);
    check_chain(NULL);
    grow_and_shrink(NULL);
    shrink_in_steps(NULL);
    check_alignment(NULL);
}

Test(contract, lanes_all_by_environment)
{
    setenv("HAKMEM_LUA_LANES", "all", 1);
    expect_from_us(60000, true, true);
    hak_lua_heap *heap = heap_with(HAK_LUA_LANES_TINY, 0);
    void *ptr = hak_lua_alloc(heap, NULL, 0, 60000);
    cr_expect_not(hak_owns(ptr));
    hak_lua_alloc(heap, ptr, 60000, 0);
    hak_lua_heap_delete(heap);
}

/* One line that names the variable, the words and what is used instead. */
Test(contract, lanes_misspelt)
{
    lt_text text = {0};
    setenv("HAKMEM_LUA_LANES", "pool", 1);
    lt_stderr capture = lt_stderr_begin();
    expect_from_us(60000, true, true);
    expect_from_us(60000, true, true);
    lt_stderr_end(&capture, &text);
    cr_expect_str_eq(lt_text_get(&text),
                     "hakmem: HAKMEM_LUA_LANES=pool: not one of default tiny "
                     "all; using default\n",
                     "%s", lt_text_get(&text));
    lt_text_free(&text);
}

/* ---- without memory ---------------------------------------------------- */

/* Fills the process with blocks until NULL; returns how many. */
static size_t fill_up(void *ud, void **kept, size_t most, size_t size)
{
    size_t count = 0;
    while (count < most && (kept[count] = hak_lua_alloc(ud, NULL, 0, size)))
        count++;
    return count;
}

/* Takes what malloc still has, down to the smallest; a list to give back. */
static void *drain(void)
{
    void **list = NULL;
    for (size_t size = 1 << 16; size >= sizeof *list; size /= 2)
        for (void **next; (next = malloc(size)); list = next)
            *next = list;
    return list;
}

static void undrain(void *list)
{
    while (list) {
        void *next = *(void **)list;
        free(list);
        list = next;
    }
}

/* Shrinks all, each to another size, and frees them. */
static void shrink_all(void *ud, void **kept, size_t count, size_t size)
{
    for (size_t i = 0; i < count; i++)
        fill(kept[i], size, (unsigned)i);
    for (size_t i = 0; i < count; i++) {
        size_t less = 1 + i * 37 % (size < 1500 ? size : 1500);
        kept[i] = hak_lua_alloc(ud, kept[i], size, less);
        cr_assert(kept[i], "shrink from %zu to %zu bytes failed", size, less);
    }
    for (size_t i = 0; i < count; i++) {
        size_t less = 1 + i * 37 % (size < 1500 ? size : 1500);
        cr_assert(filled(kept[i], less, (unsigned)i), "from %zu to %zu", size,
                  less);
        hak_lua_alloc(ud, kept[i], less, 0);
    }
}

static void without_memory(void *ud)
{
    enum { MOST = 100000 };
    static void *kept[MOST], *small[MOST];
    size_t before = large_bytes();
    size_t smalls = fill_up(ud, small, 5000, 1000);
    cr_assert_eq(smalls, (size_t)5000);
    size_t count = fill_up(ud, kept, MOST, 20000);
    cr_assert_lt(count, (size_t)MOST, "memory never ran out");
    smalls += fill_up(ud, small + smalls, MOST - smalls, 1000);
    cr_assert_lt(smalls, (size_t)MOST, "memory never ran out");
    void *rest = drain();
    shrink_all(ud, kept, count, 20000);
    shrink_all(ud, small, smalls, 1000);
    undrain(rest);
    cr_expect_eq(large_bytes(), before,
                 "large blocks that were shrunk in "
                 "place are lost");
    void *again = hak_lua_alloc(ud, NULL, 0, 1000);
    cr_assert(again, "no memory after all was freed");
    hak_lua_alloc(ud, again, 1000, 0);
}

static void limit_process(int resource, rlim_t bytes)
{
    struct rlimit limit = {bytes, bytes};
    cr_assert_eq(setrlimit(resource, &limit), 0);
}

/* The range is there, but the system grants no more pages. */
Test(contract, shrink_without_memory)
{
    if (!lt_native())
        cr_skip_test("needs the system's own malloc");
    hak_lua_alloc(NULL, hak_lua_alloc(NULL, NULL, 0, 8), 8, 0);
    limit_process(RLIMIT_DATA, (rlim_t)128 << 20);
    with_each_ud(without_memory);
}

/* There is no range: all from the fallback. */
Test(contract, no_range)
{
    if (!lt_native())
        cr_skip_test("needs the system's own malloc");
    haki_os_test_refuse(1, true);
    cr_assert(!haki_range_init());
    haki_os_test_refuse(0, false);
    limit_process(RLIMIT_AS, (rlim_t)256 << 20);
    hak_lua_heap *heap = new_heap(0);
    void *ptr = hak_lua_alloc(heap, NULL, 0, 100);
    cr_assert(ptr, "no block without a range");
    cr_expect_eq(lt_stats(heap).fallback_memory, 1u);
    cr_expect_eq(lt_stats(heap).tiny_allocs, 0u);
    hak_lua_alloc(heap, ptr, 100, 0);
    cr_expect_eq(lt_live(heap), (size_t)0);
    check_resize(heap);
    model_run(heap, 77);
    without_memory(heap);
    hak_lua_heap_delete(heap);
    with_each_ud(without_memory);
}

/* ---- making and ending heaps ------------------------------------------- */

Test(contract, bad_config)
{
    static const size_t wrong[] = {0, 1, sizeof(hak_lua_config) - 1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        hak_lua_config config = {.size = wrong[i]};
        errno = 0;
        cr_expect_null(hak_lua_heap_new(&config), "size %zu", wrong[i]);
        cr_expect_eq(errno, EINVAL);
        errno = 0;
        cr_expect_null(hak_lua_newstate(&config), "size %zu", wrong[i]);
        cr_expect_eq(errno, EINVAL);
    }
    hak_lua_config config = {.size = sizeof config};
    for (int lanes = 3; lanes < 100; lanes += 37) {
        config.lanes = (hak_lua_lanes)lanes;
        errno = 0;
        cr_expect_null(hak_lua_heap_new(&config), "lanes %d", lanes);
        cr_expect_eq(errno, EINVAL);
    }
    for (int lanes = 0; lanes < 3; lanes++) {
        config.lanes = (hak_lua_lanes)lanes;
        hak_lua_heap *heap = hak_lua_heap_new(&config);
        cr_expect(heap, "lanes %d", lanes);
        hak_lua_heap_delete(heap);
    }
}

Test(contract, delete_null)
{
    hak_lua_heap_delete(NULL);
}

Test(contract, trim_gives_back)
{
    enum { COUNT = 20000 };
    static void *kept[COUNT];
    hak_lua_heap *heap = new_heap(0);
    for (int i = 0; i < COUNT; i++)
        kept[i] = hak_lua_alloc(heap, NULL, 0, 500);
    hak_lua_heap_trim(heap);
    for (int i = 0; i < COUNT; i++) {
        fill(kept[i], 500, (unsigned)i);
        if (i % 2)
            hak_lua_alloc(heap, kept[i], 500, 0);
    }
    hak_lua_heap_trim(heap);
    for (int i = 0; i < COUNT; i += 2) {
        cr_assert(filled(kept[i], 500, (unsigned)i), "trim took a live block");
        hak_lua_alloc(heap, kept[i], 500, 0);
    }
    uint64_t slabs = lt_stats(heap).slabs;
    cr_expect_gt(hak_lua_heap_trim(heap), (size_t)0);
    cr_expect_lt(lt_stats(heap).slabs, slabs + !slabs);
    cr_expect_eq(lt_live(heap), (size_t)0);
    hak_lua_heap_delete(heap);
}
