/*
 * hak_lua_heap.h - the state behind a hak_lua_heap.
 *
 * It lies in the rest of a core heap's page, so that one pointer, the ud that
 * Lua hands us, leads to both without a load. One thread at a time uses it.
 *
 * Accounting, in bytes that Lua asked for: what is live is gate - headroom,
 * and gate is the most that was ever live, or the limit if that is less. An allocation takes its size from headroom,
 * one instruction whose sign says that the peak rises or the limit is met;
 * the slow path then puts it back and looks. Between calls headroom >= 0,
 * unless the limit was set below what is live.
 */
#ifndef HAK_LUA_HEAP_H
#define HAK_LUA_HEAP_H

#include <hakmem_lua.h>

#include "lane.h"

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
    size_t peak;  /* when the gate was last set; see hak_lua_peak */
    size_t limit; /* SIZE_MAX: none */
    size_t most;  /* larger sizes are the fallback's */
    /* Who serves what we don't, and made what the state had before us. */
    lua_Alloc fallback;
    void *fallback_ud;
    void *main_block; /* switched states: its free is the state's end */
    lua_State *made;  /* hak_lua_newstate's main thread; NULL: not so made */
    uint64_t large, fallback_large, fallback_memory, foreign, refused;
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

/* The most that was ever live: the gate may have risen by itself. */
HAK_INLINE size_t hak_lua_peak(const struct hak_lua_heap *lua)
{
    return hak_max(lua->peak, lua->gate);
}

/* Moves the gate to min(peak, limit), what is live staying the same. */
HAK_INLINE void hak_lua_set_gate(struct hak_lua_heap *lua)
{
    size_t live = hak_lua_live(lua);

    lua->peak = hak_lua_peak(lua);
    lua->gate = hak_min(lua->peak, lua->limit);
    lua->headroom = (int64_t)(lua->gate - live);
}

/* Whose a block is: a Tiny class, or one of these. */
enum { HAK_LUA_LARGE = HAK_TINY_CLASSES, HAK_LUA_FOREIGN };

/* ---- hak_lua_large.c: the lanes above Tiny ------------------------------- */

/* A block of them (size is above 1024 B), or NULL; not accounted. */
void *hak_lua_large_new(struct hak_lua_heap *lua, size_t size);

/* The same with the first n bytes of p, which is still to be freed. */
void *hak_lua_large_copy(struct hak_lua_heap *lua, void *p, size_t n,
                         size_t size);

/* Whether p, an address in a slab of theirs with this tag, is this heap's. */
bool hak_lua_large_is_ours(const struct hak_lua_heap *lua, const void *p,
                           uint32_t tag);

/* Frees a block of theirs, of this heap. */
void hak_lua_large_free(struct hak_lua_heap *lua, void *p);

/*
 * Makes it fit nsize bytes, above 1024, where it is or by moving pages; NULL:
 * it must be copied elsewhere.
 */
void *hak_lua_large_resize(struct hak_lua_heap *lua, void *p, size_t osize,
                           size_t nsize);

/* ---- hak_lua_thread.c: ud NULL, the calling thread's heap ---------------- */

/* The arguments stand as in a lua_Alloc, of which these are the parts. */
void *hak_lua_thread_new(void *ud, void *ptr, size_t tag, size_t nsize);
void *hak_lua_thread_resize(void *ud, void *ptr, size_t osize, size_t nsize);
void *hak_lua_thread_free(void *ud, void *ptr, size_t osize, size_t nsize);

/* The system's realloc and free as a lua_Alloc. */
void *hak_lua_system_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/* ---- hak_lua_state.c ------------------------------------------------------ */

/*
 * The largest size that is ours where `lanes` was asked for: by default what
 * HAKMEM_LUA_LANES says.
 */
size_t hak_lua_most(hak_lua_lanes lanes);

/* Ends a heap without a word about what is left in it. */
void hak_lua_heap_end(struct hak_lua_heap *lua);

#endif /* HAK_LUA_HEAP_H */
