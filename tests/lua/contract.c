/*
 * contract.c - hak_lua_alloc called directly, as Lua's manual (section 4.6)
 * says a lua_Alloc behaves, with a heap and with ud NULL; a heap's figures,
 * limit and errors.
 */
#include "lua_test.h"

#include "os/os.h"
#include "range/range.h"

#include <sys/resource.h>

TestSuite(contract, .timeout = 300);

enum { LARGE = 100000, MOST_SIZES = 600 };

/* ---- helpers ----------------------------------------------------------- */

static void fill(void *ptr, size_t size, unsigned salt)
{
    unsigned char *byte = ptr;
    for (size_t i = 0; i < size; i++)
        byte[i] = (unsigned char)(salt + i * 7 + (i >> 8));
}

static bool filled(const void *ptr, size_t size, unsigned salt)
{
    const unsigned char *byte = ptr;
    for (size_t i = 0; i < size; i++)
        if (byte[i] != (unsigned char)(salt + i * 7 + (i >> 8)))
            return false;
    return true;
}

static bool aligned(const void *ptr, size_t size)
{
    return (uintptr_t)ptr % (size % 16 == 0 ? 16 : 8) == 0;
}

/*
 * Sizes next to every multiple of 8 up to 1100, and to bounds above it: of
 * pages, of Pool's and ACE's blocks.
 */
static size_t some_sizes(size_t *sizes, size_t step)
{
    static const size_t always[] = {
        1,    8,    16,   17,   128,  129,   1008,  1023,  1024,  1025, 1040,
        1100, 1152, 1153, 4096, 4097, 53248, 53249, 57344, 57345, LARGE};
    size_t count = 0;
    for (size_t size = 8; size <= 1100; size += 8 * step)
        for (size_t near = size - 1; near <= size + 1; near++)
            sizes[count++] = near;
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        sizes[count++] = always[i];
    cr_assert_lt(count, (size_t)MOST_SIZES);
    return count;
}

static hak_lua_heap *heap_with(hak_lua_lanes lanes, size_t limit)
{
    hak_lua_config config = {
        .size = sizeof config, .limit = limit, .lanes = lanes};
    hak_lua_heap *heap = hak_lua_heap_new(&config);
    cr_assert(heap, "no heap");
    return heap;
}

static hak_lua_heap *new_heap(size_t limit)
{
    return heap_with(HAK_LUA_LANES_DEFAULT, limit);
}

/* A heap for each of `lanes`. */
static void with_each_lanes(void (*test)(hak_lua_lanes lanes))
{
    test(HAK_LUA_LANES_TINY);
    test(HAK_LUA_LANES_ALL);
}

static void on_a_heap(void (*test)(void *ud), hak_lua_lanes lanes)
{
    hak_lua_heap *heap = heap_with(lanes, 0);
    test(heap);
    cr_expect_eq(lt_live(heap), (size_t)0, "live after all was freed");
    hak_lua_heap_delete(heap);
}

/* The process's blocks of the lanes above Tiny, in bytes. */
static size_t large_bytes(void)
{
    hak_stats_t stats = {.size = sizeof stats};
    cr_assert_eq(hak_stats(&stats), 0);
    return stats.pool_live_bytes + stats.ace_live_bytes + stats.huge_live_bytes;
}

/* All values of ud that every contract must hold for. */
static void with_each_ud(void (*test)(void *ud))
{
    on_a_heap(test, HAK_LUA_LANES_TINY);
    on_a_heap(test, HAK_LUA_LANES_ALL);
    test(NULL);
}

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

/* ---- figures ----------------------------------------------------------- */

Test(contract, live_and_peak)
{
    hak_lua_heap *heap = new_heap(0);
    void *a = hak_lua_alloc(heap, NULL, 0, 100);
    void *b = hak_lua_alloc(heap, NULL, 0, 5000);
    cr_expect_eq(lt_live(heap), (size_t)5100);
    a = hak_lua_alloc(heap, a, 100, 3000);
    cr_expect_eq(lt_live(heap), (size_t)8000);
    b = hak_lua_alloc(heap, b, 5000, 24);
    cr_expect_eq(lt_live(heap), (size_t)3024);
    a = hak_lua_alloc(heap, a, 3000, 0);
    cr_expect_eq(lt_live(heap), (size_t)24);
    cr_expect_eq(lt_stats(heap).peak_bytes, (size_t)8000);
    hak_lua_alloc(heap, b, 24, 0);
    cr_expect_eq(lt_live(heap), (size_t)0);
    cr_expect_eq(lt_stats(heap).peak_bytes, (size_t)8000);
    cr_expect_null(a);
    hak_lua_heap_delete(heap);
}

static void check_type(hak_lua_heap *heap, size_t tag, int type)
{
    enum { COUNT = 50, SIZE = 56 };
    void *kept[COUNT];
    hak_lua_stats before = lt_stats(heap);
    for (int i = 0; i < COUNT; i++)
        kept[i] = hak_lua_alloc(heap, NULL, tag, SIZE);
    hak_lua_stats after = lt_stats(heap);
    for (int t = 1; t < HAK_LUA_TYPES; t++) {
        uint64_t made = after.type_count[t] - before.type_count[t];
        uint64_t bytes = after.type_bytes[t] - before.type_bytes[t];
        cr_expect_eq(made, t == type ? (uint64_t)COUNT : 0u,
                     "tag %zu: %lu objects of type %d", tag,
                     (unsigned long)made, t);
        cr_expect_eq(bytes, t == type ? (uint64_t)COUNT * SIZE : 0u,
                     "tag %zu: %lu bytes of type %d", tag, (unsigned long)bytes,
                     t);
    }
    for (int i = 0; i < COUNT; i++)
        hak_lua_alloc(heap, kept[i], SIZE, 0);
    cr_expect_eq(lt_stats(heap).type_count[type], after.type_count[type],
                 "frees count as objects made");
}

Test(contract, types_by_tag)
{
    hak_lua_heap *heap = new_heap(0);
    check_type(heap, LUA_TSTRING, HAK_LUA_STRING);
    check_type(heap, LUA_TTABLE, HAK_LUA_TABLE);
    check_type(heap, LUA_TFUNCTION, HAK_LUA_FUNCTION);
    check_type(heap, LUA_TUSERDATA, HAK_LUA_USERDATA);
    check_type(heap, LUA_TTHREAD, HAK_LUA_THREAD);
    check_type(heap, LUA_NUMTYPES, HAK_LUA_UPVALUE);
    check_type(heap, LUA_NUMTYPES + 1, HAK_LUA_PROTOTYPE);
    hak_lua_stats stats = lt_stats(heap);
    uint64_t other = stats.type_count[HAK_LUA_OTHER];
    cr_expect_eq(other, 0u, "objects counted as other");
    static const size_t unknown[] = {0, 1, 2, 3, 11, 12, 99, SIZE_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        check_type(heap, unknown[i], HAK_LUA_OTHER);
    cr_expect_geq(lt_stats(heap).type_count[HAK_LUA_OTHER], (uint64_t)50,
                  "tag 0 not counted as other");
    hak_lua_heap_delete(heap);
}

/* A large object has a type as well; one that was refused hasn't. */
Test(contract, types_large_and_refused)
{
    hak_lua_heap *heap = new_heap(10000);
    void *ptr = hak_lua_alloc(heap, NULL, LUA_TSTRING, 9000);
    cr_assert(ptr);
    cr_expect_null(hak_lua_alloc(heap, NULL, LUA_TSTRING, 9000));
    cr_expect_null(hak_lua_alloc(heap, NULL, LUA_TTABLE, 1001));
    hak_lua_stats stats = lt_stats(heap);
    cr_expect_eq(stats.type_count[HAK_LUA_STRING], 1u);
    cr_expect_eq(stats.type_bytes[HAK_LUA_STRING], 9000u);
    cr_expect_eq(stats.type_count[HAK_LUA_TABLE], 0u);
    hak_lua_alloc(heap, ptr, 9000, 0);
    hak_lua_heap_delete(heap);
}

/* Whose a block of that size is, by the heap's figures after `count`. */
static void expect_lane(const hak_lua_heap *heap, hak_lua_lanes lanes,
                        size_t size, uint64_t count)
{
    hak_lua_stats stats = lt_stats(heap);
    bool tiny = size <= 1024, ours = tiny || lanes == HAK_LUA_LANES_ALL;
    bool slabs = size <= 52 * 1024 && ours;
    cr_expect_eq(stats.calls, count);
    cr_expect_eq(stats.tiny_allocs, tiny ? count : 0u, "%zu: %lu tiny", size,
                 (unsigned long)stats.tiny_allocs);
    cr_expect_eq(stats.larger_allocs, !tiny && ours ? count : 0u,
                 "%zu: %lu larger", size, (unsigned long)stats.larger_allocs);
    cr_expect_eq(stats.tiny_frees + stats.larger_frees, 0u);
    cr_expect_geq(stats.held_bytes, ours ? count * size : 0u);
    cr_expect_eq(stats.fallback_memory, 0u);
    cr_expect_eq(stats.slabs > 0, slabs, "%zu: %lu slabs", size,
                 (unsigned long)stats.slabs);
}

static void count_lanes(hak_lua_lanes lanes)
{
    enum { EACH = 16 };
    static const size_t sizes[] = {1,    24,    1023,  1024,    1025,   1026,
                                   4096, 53248, 53249, 2097151, 2097152};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        hak_lua_heap *heap = heap_with(lanes, 0);
        bool ours = sizes[s] <= 1024 || lanes == HAK_LUA_LANES_ALL;
        void *kept[EACH];
        for (int i = 0; i < EACH; i++)
            kept[i] = hak_lua_alloc(heap, NULL, 0, sizes[s]);
        expect_lane(heap, lanes, sizes[s], EACH);
        cr_expect_eq(lt_stats(heap).fallback_large, ours ? 0u : EACH);
        cr_expect_eq(lt_stats(heap).foreign_frees, 0u);
        for (int i = 0; i < EACH; i++) {
            cr_expect_eq(hak_owns(kept[i]), ours, "%zu bytes at %p", sizes[s],
                         kept[i]);
            hak_lua_alloc(heap, kept[i], sizes[s], 0);
        }
        cr_expect_eq(lt_stats(heap).calls, (uint64_t)EACH * 2);
        cr_expect_eq(lt_stats(heap).tiny_frees, sizes[s] <= 1024 ? EACH : 0u);
        cr_expect_eq(lt_stats(heap).larger_frees,
                     sizes[s] > 1024 && ours ? EACH : 0u);
        cr_expect_eq(lt_stats(heap).foreign_frees, ours ? 0u : EACH);
        hak_lua_heap_delete(heap);
    }
}

Test(contract, lanes_are_counted)
{
    with_each_lanes(count_lanes);
}

/* Blocks of every lane that are left go with their heap. */
Test(contract, delete_frees_every_lane)
{
    static const size_t sizes[] = {100, 2000, 50000, 60000, 1000000, 5000000};
    hak_lua_heap *other = heap_with(HAK_LUA_LANES_ALL, 0);
    void *kept = hak_lua_alloc(other, NULL, 0, 60000);
    size_t before = large_bytes();
    fill(kept, 60000, 4);
    for (int round = 0; round < 20; round++) {
        hak_lua_heap *heap = heap_with(HAK_LUA_LANES_ALL, 0);
        lt_text text = {0};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            void *ptr = hak_lua_alloc(heap, NULL, 0, sizes[i]);
            cr_assert(ptr && hak_owns(ptr), "%zu bytes", sizes[i]);
            fill(ptr, sizes[i], 2);
        }
        cr_assert_geq(large_bytes(), before + 6000000);
        lt_stderr capture = lt_stderr_begin();
        hak_lua_heap_delete(heap);
        lt_stderr_end(&capture, &text);
        cr_expect(strstr(lt_text_get(&text), "6112100 bytes"), "%s",
                  lt_text_get(&text));
        lt_text_free(&text);
        cr_assert_eq(large_bytes(), before, "round %d: %zu bytes more", round,
                     large_bytes() - before);
    }
    cr_expect(filled(kept, 60000, 4), "another heap's block was touched");
    hak_lua_alloc(other, kept, 60000, 0);
    hak_lua_heap_delete(other);
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

Test(contract, stats_wrong_size)
{
    hak_lua_heap *heap = new_heap(123456);
    hak_lua_stats stats = {.size = 3};
    errno = 0;
    cr_expect_eq(hak_lua_heap_stats(heap, &stats), -1);
    cr_expect_eq(errno, EINVAL);
    stats.size = 0;
    errno = 0;
    cr_expect_eq(hak_lua_heap_stats(heap, &stats), -1);
    cr_expect_eq(errno, EINVAL);
    stats.size = sizeof stats;
    cr_expect_eq(hak_lua_heap_stats(heap, &stats), 0);
    cr_expect_eq(stats.limit, (size_t)123456);
    cr_expect_eq(stats.size, sizeof stats);
    hak_lua_heap_delete(heap);
}

/* A program that knows the fields of 0.1 alone gets these and no more. */
Test(contract, stats_of_an_older_size)
{
    hak_lua_heap *heap = new_heap(0);
    hak_lua_stats stats;
    memset(&stats, 0x5a, sizeof stats);
    stats.size = offsetof(hak_lua_stats, tiny_allocs);
    void *ptr = hak_lua_alloc(heap, NULL, LUA_TTABLE, 56);
    cr_expect_eq(hak_lua_heap_stats(heap, &stats), 0);
    cr_expect_eq(stats.size, offsetof(hak_lua_stats, tiny_allocs));
    cr_expect_eq(stats.live_bytes, (size_t)56);
    cr_expect_eq(stats.type_count[HAK_LUA_TABLE], 1u);
    cr_expect_eq(stats.tiny_allocs, 0x5a5a5a5a5a5a5a5au);
    hak_lua_alloc(heap, ptr, 56, 0);
    hak_lua_heap_delete(heap);
}

/* Deprecated names say what they did. */
Test(contract, stats_by_old_names)
{
    hak_lua_heap *heap = heap_with(HAK_LUA_LANES_TINY, 4000);
    void *tiny = hak_lua_alloc(heap, NULL, 0, 100);
    void *large = hak_lua_alloc(heap, NULL, 0, 2000);
    cr_expect_null(hak_lua_alloc(heap, NULL, 0, 2000));
    hak_lua_alloc(heap, tiny, 100, 0);
    hak_lua_alloc(heap, large, 2000, 0);
    hak_lua_stats stats = lt_stats(heap);
    cr_expect_eq(stats.tiny, stats.tiny_allocs + stats.tiny_frees);
    cr_expect_eq(stats.tiny, 2u);
    cr_expect_eq(stats.foreign, stats.foreign_frees);
    cr_expect_eq(stats.foreign, 1u);
    cr_expect_eq(stats.refused, stats.limit_refusals);
    cr_expect_eq(stats.limit_refused, stats.limit_refusals);
    cr_expect_eq(stats.refused, 1u);
    hak_lua_heap_delete(heap);
    heap = heap_with(HAK_LUA_LANES_ALL, 0);
    large = hak_lua_alloc(heap, NULL, 0, 2000);
    hak_lua_alloc(heap, large, 2000, 0);
    stats = lt_stats(heap);
    cr_expect_eq(stats.large, stats.larger_allocs + stats.larger_frees);
    cr_expect_eq(stats.large, 2u);
    hak_lua_heap_delete(heap);
}

/* ---- the limit --------------------------------------------------------- */

Test(contract, limit_is_exact)
{
    hak_lua_heap *heap = new_heap(4000);
    cr_expect_null(hak_lua_alloc(heap, NULL, 0, 4001));
    void *ptr = hak_lua_alloc(heap, NULL, 0, 4000);
    cr_expect(ptr, "4000 of 4000 bytes refused");
    cr_expect_null(hak_lua_alloc(heap, NULL, 0, 1));
    cr_expect_null(hak_lua_alloc(heap, ptr, 4000, 4001));
    cr_expect_eq(lt_stats(heap).limit_refusals, 3u);
    cr_expect_null(hak_lua_alloc(heap, NULL, 0, SIZE_MAX));
    cr_expect_null(hak_lua_alloc(heap, ptr, 4000, SIZE_MAX));
    cr_expect_eq(lt_live(heap), (size_t)4000);
    cr_expect_eq(lt_stats(heap).peak_bytes, (size_t)4000);
    ptr = hak_lua_alloc(heap, ptr, 4000, 3900);
    void *small = hak_lua_alloc(heap, NULL, 0, 100);
    cr_expect(ptr && small);
    hak_lua_stats before = lt_stats(heap);
    cr_expect_null(hak_lua_alloc(heap, small, 100, 101));
    cr_expect_eq(lt_stats(heap).limit_refusals, before.limit_refusals + 1);
    small = hak_lua_alloc(heap, small, 100, 0);
    cr_expect_null(small);
    cr_expect_null(hak_lua_alloc(heap, ptr, 3900, 0));
    hak_lua_heap_delete(heap);
}

/* Refusing a growth inside one block size must not depend on its slack. */
static void refuse_small_growth(hak_lua_lanes lanes, size_t size)
{
    hak_lua_heap *heap = heap_with(lanes, size);
    void *ptr = hak_lua_alloc(heap, NULL, 0, size);
    cr_assert(ptr, "%zu bytes refused", size);
    fill(ptr, size, 5);
    cr_expect_null(hak_lua_alloc(heap, ptr, size, size + 1),
                   "%zu bytes within a limit of %zu", size + 1, size);
    cr_expect(filled(ptr, size, 5));
    cr_expect_eq(lt_stats(heap).limit_refusals, 1u);
    cr_expect_eq(lt_live(heap), size);
    hak_lua_alloc(heap, ptr, size, 0);
    hak_lua_heap_delete(heap);
}

static void refuse_small_growths(hak_lua_lanes lanes)
{
    static const size_t large[] = {2000,  4095,   4096,    53247,   53248,
                                   60000, 300000, 2097151, 2097152, 3000000};
    for (size_t size = 1; size <= 1500; size++)
        refuse_small_growth(lanes, size);
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        refuse_small_growth(lanes, large[i]);
}

Test(contract, limit_refuses_small_growth)
{
    with_each_lanes(refuse_small_growths);
}

Test(contract, limit_set_and_lifted)
{
    hak_lua_heap *heap = new_heap(0);
    void *a = hak_lua_alloc(heap, NULL, 0, 500);
    cr_expect_eq(hak_lua_heap_limit(heap, 600), (size_t)0);
    cr_expect_eq(lt_stats(heap).limit, (size_t)600);
    cr_expect_null(hak_lua_alloc(heap, NULL, 0, 101));
    void *b = hak_lua_alloc(heap, NULL, 0, 100);
    cr_expect(b);
    cr_expect_eq(hak_lua_heap_limit(heap, 0), (size_t)600);
    void *c = hak_lua_alloc(heap, NULL, 0, 100000);
    cr_expect(c);
    cr_expect_eq(hak_lua_heap_limit(heap, 50), (size_t)0);
    cr_expect_null(hak_lua_alloc(heap, NULL, 0, 1));
    hak_lua_alloc(heap, c, 100000, 0);
    cr_expect_null(hak_lua_alloc(heap, NULL, 0, 1));
    hak_lua_alloc(heap, b, 100, 0);
    hak_lua_alloc(heap, a, 500, 0);
    a = hak_lua_alloc(heap, NULL, 0, 50);
    cr_expect(a, "50 bytes refused in an empty heap with a limit of 50");
    hak_lua_alloc(heap, a, 50, 0);
    hak_lua_heap_delete(heap);
}

/* Never fail a shrink, whatever the limit; nor a resize to the same size. */
static void shrink_below_limit(hak_lua_lanes lanes)
{
    size_t sizes[MOST_SIZES];
    size_t count = some_sizes(sizes, 4);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < count; k++) {
            if (sizes[k] > sizes[i])
                continue;
            hak_lua_heap *heap = heap_with(lanes, 0);
            void *ptr = hak_lua_alloc(heap, NULL, 0, sizes[i]);
            fill(ptr, sizes[i], 7);
            hak_lua_heap_limit(heap, 1);
            ptr = hak_lua_alloc(heap, ptr, sizes[i], sizes[k]);
            cr_assert(ptr, "shrink %zu to %zu failed", sizes[i], sizes[k]);
            cr_assert(filled(ptr, sizes[k], 7));
            cr_assert_eq(lt_live(heap), sizes[k]);
            hak_lua_alloc(heap, ptr, sizes[k], 0);
            hak_lua_heap_delete(heap);
        }
}

Test(contract, shrink_below_limit)
{
    with_each_lanes(shrink_below_limit);
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
