/*
 * contract.h - contents, sizes, and every value of ud that a contract must hold for:
 * for contract.c and figures.c.
 */
#ifndef CONTRACT_H
#define CONTRACT_H

#include "contents.h"
#include "lua_test.h"

enum { LARGE = 100000, MOST_SIZES = 600 };

/* ---- helpers ----------------------------------------------------------- */

static inline void fill(void *ptr, size_t size, unsigned salt)
{
    contents_fill(ptr, size, salt);
}

static inline bool filled(const void *ptr, size_t size, unsigned salt)
{
    return contents_kept(ptr, size, salt);
}

static inline bool aligned(const void *ptr, size_t size)
{
    return (uintptr_t)ptr % (size % 16 == 0 ? 16 : 8) == 0;
}

/*
 * Sizes next to every multiple of 8 up to 1100, and to bounds above it: of
 * pages, of Pool's and ACE's blocks.
 */
static inline size_t some_sizes(size_t *sizes, size_t step)
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

static inline hak_lua_heap *heap_with(hak_lua_lanes lanes, size_t limit)
{
    hak_lua_config config = {
        .size = sizeof config, .limit = limit, .lanes = lanes};
    hak_lua_heap *heap = hak_lua_heap_new(&config);
    cr_assert(heap, "no heap");
    return heap;
}

static inline hak_lua_heap *new_heap(size_t limit)
{
    return heap_with(HAK_LUA_LANES_DEFAULT, limit);
}

/* A heap for each of `lanes`. */
static inline void with_each_lanes(void (*test)(hak_lua_lanes lanes))
{
    test(HAK_LUA_LANES_TINY);
    test(HAK_LUA_LANES_ALL);
}

static inline void on_a_heap(void (*test)(void *ud), hak_lua_lanes lanes)
{
    hak_lua_heap *heap = heap_with(lanes, 0);
    test(heap);
    cr_expect_eq(lt_live(heap), (size_t)0, "live after all was freed");
    hak_lua_heap_delete(heap);
}

/* The process's blocks of the lanes above Tiny, in bytes. */
static inline size_t large_bytes(void)
{
    hak_stats_t stats = {.size = sizeof stats};
    cr_assert_eq(hak_stats(&stats), 0);
    return stats.pool_live_bytes + stats.ace_live_bytes + stats.huge_live_bytes;
}

/* All values of ud that every contract must hold for. */
static inline void with_each_ud(void (*test)(void *ud))
{
    on_a_heap(test, HAK_LUA_LANES_TINY);
    on_a_heap(test, HAK_LUA_LANES_ALL);
    test(NULL);
}

#endif
