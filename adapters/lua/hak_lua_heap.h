/*
 * hak_lua_heap.h - the state behind a hak_lua_heap.
 *
 * It lies in the rest of a core heap's page, so that one pointer, the ud that
 * Lua hands us, leads to both without a load. One thread at a time uses it.
 *
 * Accounting, in bytes that Lua asked for: what is live is gate - headroom,
 * and gate = min(peak, limit). An allocation takes its size from headroom,
 * one instruction whose sign says that the peak rises or the limit is met;
 * the slow path then puts it back and looks. Between calls headroom >= 0,
 * unless the limit was set below what is live.
 */
#ifndef HAK_LUA_HEAP_H
#define HAK_LUA_HEAP_H

#include <hakmem_lua.h>

#include "heap.h"

/* Lua's tags (LUA_TSTRING 4 .. LUA_TPROTO 10) fit; a power of two. */
#define HAK_LUA_TAGS 16

struct hak_lua_heap {
    /*
     * The range's bounds, for the ownership test. `size` is 0 when an address
     * in the range and osize together do not name the bin: the test then
     * fails for every block and the slow path asks the slab's tag.
     */
    uintptr_t base;
    size_t size;
    int64_t headroom;
    size_t gate;
    size_t peak;
    size_t limit; /* SIZE_MAX: none */
    /* Who serves what we don't, and made what the state had before us. */
    lua_Alloc fallback;
    void *fallback_ud;
    void *main_block; /* switched states: its free is the state's end */
    uint64_t fallback_large, fallback_memory, foreign, refused;
    uint64_t type_count[HAK_LUA_TAGS];
    uint64_t type_bytes[HAK_LUA_TAGS];
};

_Static_assert(sizeof(struct hak_lua_heap) <= HAK_HEAP_EXTRA,
               "a hak_lua_heap fits behind its core heap");

HAK_INLINE struct hak_heap *hak_lua_core(const struct hak_lua_heap *lua)
{
    return (struct hak_heap *)((char *)lua - HAK_HEAP_EXTRA_AT);
}

HAK_INLINE size_t hak_lua_live(const struct hak_lua_heap *lua)
{
    return lua->gate - (size_t)lua->headroom;
}

/* Moves the gate to min(peak, limit), what is live staying the same. */
HAK_INLINE void hak_lua_set_gate(struct hak_lua_heap *lua)
{
    size_t live = hak_lua_live(lua);

    lua->gate = hak_min(lua->peak, lua->limit);
    lua->headroom = (int64_t)(lua->gate - live);
}

/* The system's realloc and free as a lua_Alloc. */
void *hak_lua_system_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/* Ends a heap without a word about what is left in it. */
void hak_lua_heap_end(struct hak_lua_heap *lua);

#endif /* HAK_LUA_HEAP_H */
