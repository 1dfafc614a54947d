/*
 * figures.c - tests of a Lua heap's statistics, its messages and its limit.
 */
#include "contract.h"

TestSuite(figures, .timeout = 300);

/* ---- figures ----------------------------------------------------------- */

Test(figures, live_and_peak)
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

Test(figures, types_by_tag)
{
    lt_needs(LT_54);
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
Test(figures, types_large_and_refused)
{
    lt_needs(LT_TYPES);
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

Test(figures, lanes_are_counted)
{
    with_each_lanes(count_lanes);
}

/* Blocks of every lane that are left go with their heap. */
Test(figures, delete_frees_every_lane)
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

Test(figures, stats_wrong_size)
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
Test(figures, stats_of_an_older_size)
{
    lt_needs(LT_TYPES);
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
Test(figures, stats_by_old_names)
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

Test(figures, limit_is_exact)
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

Test(figures, limit_refuses_small_growth)
{
    with_each_lanes(refuse_small_growths);
}

Test(figures, limit_set_and_lifted)
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

Test(figures, shrink_below_limit)
{
    with_each_lanes(shrink_below_limit);
}
