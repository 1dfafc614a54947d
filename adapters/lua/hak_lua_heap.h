/*
 * hak_lua_heap.h - the state behind a hak_lua_heap.
 *
 * It is kept in the rest of a core heap's page, so that one pointer, the ud
 * that Lua hands us, leads to both without a load. Used by one thread at a
 * time.
 *
 * Accounting, in bytes that Lua asked for: live bytes are gate - headroom, and
 * gate is the peak of live bytes, or `stop` if that is less. An allocation
 * subtracts its size from headroom with one instruction; a negative result
 * means that the peak rises or the limit is reached, and the slow path then
 * puts the size back and checks. Between calls headroom >= 0, unless `stop` was
 * set below the live bytes.
 *
 * It is not the core's account (heap/account.h): that counts whole blocks, of the
 * lanes, and Lua's limit is of bytes asked for, as collectgarbage counts them,
 * which the fallback has given as well. And a free there needs the block's size
 * from its slab, where Lua says it. What is alike is haki_account_within.
 *
 * The end of a switched state: the block that contains its main thread is freed
 * last. The heap ends then or, if something is still live, when that is freed.
 * Blocks that the state's C code got from the former allocator, which Lua does
 * not count, make `live` too small, and negative at the end.
 */
#ifndef HAK_LUA_HEAP_H
#define HAK_LUA_HEAP_H

#include <hakmem_lua.h>

#include "embed.h"
#include "hak_lua_compat.h"

/* Lua's tags (LUA_TSTRING 4 .. LUA_TPROTO 10) fit; a power of two. 0: not told. */
#define HAK_LUA_TAGS 16

struct hak_lua_heap {
    /*
     * The range's bounds, for the ownership test. `size` is 0 when an address
     * in the range and osize do not determine the bin: then the test fails for
     * every block, and the slow path reads the slab's tag.
     */
    uintptr_t base;
    size_t size;
    int64_t headroom;
    size_t gate;
    size_t peak;  /* when the gate was last set; see hak_lua_peak */
    size_t limit; /* SIZE_MAX: none */
    size_t stop;  /* no limit is checked up to here; see hak_lua_bounds.c */
    size_t most;  /* larger sizes are the fallback's */
    /* Serves what we don't, and made what the state had before us. */
    lua_Alloc fallback;
    void *fallback_ud;
    struct hak_lua_bounds *bounds; /* reserve and soft limit, or NULL */
    /* switched states: the main thread, or where it was; HAK_LUA_NOT_TOLD */
    const void *main;
    bool gone;       /* its block has been freed: live blocks are leaks */
    bool closing;    /* hak_lua_close ends the heap */
    bool arena;      /* the fallback is LuaJIT's own, an arena of the state */
    lua_State *made; /* main thread if made by hak_lua_newstate; or NULL */
    uint64_t larger_allocs, larger_frees;
    uint64_t fallback_large, fallback_memory, foreign, refused;
    uint64_t type_count[HAK_LUA_TAGS];
    uint64_t type_bytes[HAK_LUA_TAGS];
    /* hak_lua_profile.c: */
    const void *asked;       /* the request on a slow path: lua_Alloc's ptr */
    size_t asked_size;       /* and osize */
    struct hak_lua_run *run; /* hak_lua_resume's, the innermost; or NULL */
    _Atomic(const void *) mark; /* hak_lua_each's: this is a Lua heap in use */
};

/* `main` of a state that a coroutine of Lua 5.1 has switched: its end is when nothing
 * is live. */
#define HAK_LUA_NOT_TOLD ((const void *)-1)

/* A thread that hak_lua_resume runs, on that function's own stack. */
struct hak_lua_run {
    lua_State *thread, *from; /* from: the main thread if there is none */
    struct hak_lua_run *outer;
};

_Static_assert(sizeof(struct hak_lua_heap) <= HAK_EMBED_EXTRA,
               "a hak_lua_heap fits behind its core heap");

HAK_INLINE struct hak_heap *hak_lua_core(const struct hak_lua_heap *lua)
{
    return haki_embed_heap(lua);
}

HAK_INLINE size_t hak_lua_live(const struct hak_lua_heap *lua)
{
    return lua->gate - (size_t)lua->headroom;
}

/* The most that was ever live (the gate may have risen by itself). */
HAK_INLINE size_t hak_lua_peak(const struct hak_lua_heap *lua)
{
    return haki_max(lua->peak, lua->gate);
}

/* Moves the gate to min(peak, stop); live bytes stay the same. */
HAK_INLINE void hak_lua_set_gate(struct hak_lua_heap *lua)
{
    size_t live = hak_lua_live(lua);

    lua->peak = hak_lua_peak(lua);
    lua->gate = haki_min(lua->peak, lua->stop);
    lua->headroom = (int64_t)(lua->gate - live);
}

/* What a block belongs to: a Tiny class, or one of these. */
enum { HAK_LUA_LARGE = HAK_EMBED_CLASSES, HAK_LUA_FOREIGN };

/* ---- hak_lua_large.c: the lanes above Tiny ------------------------------- */

/* A block from them (size is above 1024 B), or NULL; not charged. */
void *hak_lua_large_new(struct hak_lua_heap *lua, size_t size);

/*
 * The same, with a copy of the first n bytes of p, which the caller then frees.
 */
void *hak_lua_large_copy(struct hak_lua_heap *lua, void *p, size_t n,
                         size_t size);

/*
 * Whether p, an address in one of their slabs, with this tag, is this heap's.
 */
bool hak_lua_large_is_ours(const struct hak_lua_heap *lua, const void *p,
                           uint32_t tag);

/* Frees a block of theirs, of this heap. */
void hak_lua_large_free(struct hak_lua_heap *lua, void *p);

/*
 * Resizes such a block to nsize bytes, above 1024, in place or by moving pages;
 * NULL: it must be copied elsewhere.
 */
void *hak_lua_large_resize(struct hak_lua_heap *lua, void *p, size_t osize,
                           size_t nsize);

/* ---- hak_lua_profile.c: samples' frames -------------------------------------- */

/* From here on samples have Lua's frames; the main thread is known. */
void hak_lua_profile_begin(struct hak_lua_heap *lua);

/* ---- hak_lua_inside.c, other/inside.c: what Lua's structures tell it ------------- */

/*
 * Whether the block that is being resized is, or may be, the stack of thread L, whose
 * last call this is.
 */
bool hak_lua_inside_is_moving(const struct hak_lua_heap *lua, lua_State *L,
                              const lua_Debug *last);

/*
 * If a constructor of the last call, a Lua function, makes its table, notes there where
 * the call is; what was noted, to be put back, or NULL.
 */
const void *hak_lua_inside_note(const struct hak_lua_heap *lua, lua_State *L,
                                const lua_Debug *last);
void hak_lua_inside_put_back(const lua_Debug *last, const void *noted);

/* The address of a C function that is called; NULL: that is not what is there. */
void *hak_lua_inside_c_function(const lua_Debug *call);

/* ---- hak_lua_arena.c: LuaJIT's own allocator ------------------------------------- */

/* Whether f is that. */
bool hak_lua_is_arena(lua_Alloc f);

/* Ends the arena `ud`, whose state is gone. */
void hak_lua_end_arena(lua_Alloc f, void *ud);

/* The main thread of the state that uses the heap, or NULL: not known, or gone. */
HAK_INLINE lua_State *hak_lua_main(const struct hak_lua_heap *lua)
{
    const void *main = lua->made != NULL ? lua->made : lua->main;

    return lua->gone || main == HAK_LUA_NOT_TOLD ? NULL
                                                 : (lua_State *)(uintptr_t)main;
}

/* ---- hak_lua_bounds.c: the limits ----------------------------------------- */

/*
 * Whether a request beyond `stop` (ptr and nsize are lua_Alloc's) that takes
 * `more` bytes is admitted.
 */
bool hak_lua_bounds_admit(struct hak_lua_heap *lua, const void *ptr,
                          size_t nsize, size_t more);

/* Updates `stop` and the gate after a limit was set. */
void hak_lua_bounds_set(struct hak_lua_heap *lua);

/* The reserve in bytes. */
size_t hak_lua_bounds_reserve(const struct hak_lua_heap *lua);

/* Opens the reserve: the state is about to be closed. */
void hak_lua_bounds_open(struct hak_lua_heap *lua);

/* ---- hak_lua_thread.c: ud NULL, the calling thread's heap ---------------- */

/* The parts of a lua_Alloc, with its arguments in the same order. */
void *hak_lua_thread_new(void *ud, void *ptr, size_t tag, size_t nsize);
void *hak_lua_thread_resize(void *ud, void *ptr, size_t osize, size_t nsize);
void *hak_lua_thread_free(void *ud, void *ptr, size_t osize, size_t nsize);

/* The system's realloc and free as a lua_Alloc. */
void *hak_lua_system_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/* ---- hak_lua_stats.c ----------------------------------------------------- */

/*
 * From here on hak_lua_each finds the heap, which is complete, or no longer
 * does.
 */
void hak_lua_list_add(struct hak_lua_heap *lua);
void hak_lua_list_drop(struct hak_lua_heap *lua);

/* ---- hak_lua_module_stats.c: functions of the module --------------------- */

/* Upvalue 1 is the state's heap. */
int hak_lua_l_stats(lua_State *L);
int hak_lua_l_types(lua_State *L);
int hak_lua_l_heaps(lua_State *L);

/* ---- hak_lua_module_profile.c -------------------------------------------- */

/* Adds profile to the module's table on top of the stack. */
void hak_lua_profile_open(lua_State *L);

/*
 * A state is about to be closed: writes HAKMEM_PROFILE's file if it has the only heap.
 */
void hak_lua_profile_end(void);

/* ---- hak_lua_state.c ------------------------------------------------------ */

/*
 * The largest size that is ours for a `lanes` setting; the default is what
 * HAKMEM_LUA_LANES says.
 */
size_t hak_lua_most(hak_lua_lanes lanes);

/*
 * Called when a block that is not ours was freed in a switched state, or any
 * block once the state is gone: ends the heap if this was the last.
 */
void hak_lua_heap_freed(struct hak_lua_heap *lua, const void *ptr,
                        size_t osize);

/* ---- hak_lua_module.c and its other file, hak_lua_hook.c ------------------ */

/* Adds on_limit and reserve to the module's table on top of the stack. */
void hak_lua_hook_open(lua_State *L, hak_lua_heap *heap);

/* Pushes a module for a state that could not be given a heap. */
void hak_lua_hook_without_heap(lua_State *L);

#endif /* HAK_LUA_HEAP_H */
