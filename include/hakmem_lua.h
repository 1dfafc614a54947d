/*
 * hakmem_lua.h - HAKMEM for Lua 5.4.
 *
 *     lua_State *L = lua_newstate(hak_lua_alloc, NULL);     // simplest
 *
 *     hak_lua_config config = {.size = sizeof config, .limit = 8 << 20};
 *     lua_State *L = hak_lua_newstate(&config);             // best
 *     ...
 *     hak_lua_close(L);
 *
 * Blocks of every size come from HAKMEM's lanes; what these refuse, and with
 * `lanes` tiny all above 1024 B, comes from the fallback: the system's realloc
 * and free, or for a state that was switched (hak_lua_switch) the allocator it
 * had before.
 */
#ifndef HAKMEM_LUA_H
#define HAKMEM_LUA_H

#include <hakmem.h>
#include <lua.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A heap for one Lua state: one thread at a time, as Lua itself demands; the
 * state may move from thread to thread.
 */
typedef struct hak_lua_heap hak_lua_heap;

/* Which sizes go to HAKMEM. */
typedef enum hak_lua_lanes {
    HAK_LUA_LANES_DEFAULT = 0, /* as HAKMEM_LUA_LANES says; unset: all */
    HAK_LUA_LANES_TINY = 1,    /* at most 1024 B; larger to the fallback */
    HAK_LUA_LANES_ALL = 2      /* every size */
} hak_lua_lanes;

typedef struct hak_lua_config {
    size_t size;         /* sizeof(hak_lua_config), for later versions */
    size_t limit;        /* bytes the state may hold, 0: no limit */
    const char *name;    /* at most 31 bytes kept, for reports; or NULL */
    hak_lua_lanes lanes; /* which sizes go to HAKMEM */
} hak_lua_config;

/* Lua's types of objects, as lua_Alloc is told them (ptr NULL: osize). */
enum {
    HAK_LUA_OTHER = 0, /* arrays, buffers, hash parts: no object */
    HAK_LUA_STRING,
    HAK_LUA_TABLE,
    HAK_LUA_FUNCTION,
    HAK_LUA_USERDATA,
    HAK_LUA_THREAD,
    HAK_LUA_UPVALUE,
    HAK_LUA_PROTOTYPE,
    HAK_LUA_TYPES
};

/*
 * Figures of one heap. live_bytes and peak_bytes count what Lua asked for,
 * so that in a state made by hak_lua_newstate live_bytes equals
 * collectgarbage("count") * 1024.
 */
typedef struct hak_lua_stats {
    size_t size; /* set to sizeof(hak_lua_stats) before the call */
    size_t limit;
    size_t live_bytes;
    size_t peak_bytes;
    uint64_t calls;           /* calls that asked for something or freed it */
    uint64_t tiny;            /* of them: served by the Tiny lane */
    uint64_t large;           /* served by the lanes above Tiny */
    uint64_t fallback_large;  /* served by the fallback: not ours by `lanes` */
    uint64_t fallback_memory; /* ... : the core was out of memory */
    uint64_t foreign;         /* frees and resizes of blocks it made */
    uint64_t refused;         /* calls refused by the limit */
    uint64_t slabs;           /* slabs of 64 KB held now, of Tiny and Pool */
    uint64_t type_count[HAK_LUA_TYPES]; /* objects made, by type */
    uint64_t type_bytes[HAK_LUA_TYPES]; /* bytes asked for, by type */
} hak_lua_stats;

/*
 * A lua_Alloc (its contract is in Lua's manual, section 4.6). ud is a
 * hak_lua_heap, or NULL: the calling thread's heap, with no limit and no
 * figures of its own; such a state may be handed from thread to thread.
 * Returns NULL when neither HAKMEM nor the fallback has memory, or when the
 * heap's limit would be exceeded; a shrink and a free never fail.
 */
HAK_API void *hak_lua_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/*
 * Makes a heap to be passed as ud; config may be NULL. The caller owns it.
 * Errors: NULL with ENOMEM, or EINVAL for a config this version can't read.
 */
HAK_API hak_lua_heap *hak_lua_heap_new(const hak_lua_config *config);

/*
 * Ends a heap after lua_close of its state. If blocks are still live, says so
 * in one line on standard error (a leak report); all blocks of HAKMEM's are
 * released slab by slab, live ones of the fallback are lost. NULL does
 * nothing. Not for the heap of a switched state, which ends itself
 * (hak_lua_switch).
 */
HAK_API void hak_lua_heap_delete(hak_lua_heap *heap);

/*
 * luaL_newstate's twin: a state on a heap of its own, with luaL_newstate's
 * panic and warning functions. End it with hak_lua_close. Errors: NULL (out
 * of memory, a limit smaller than an empty state, a bad config).
 */
HAK_API lua_State *hak_lua_newstate(const hak_lua_config *config);

/* lua_close(L), then the end of its heap if it has one. */
HAK_API void hak_lua_close(lua_State *L);

/*
 * Moves a running state to HAKMEM. Blocks it already has go back, each when
 * its time comes, to the allocator that made them, which also becomes the
 * fallback. The switch can't be undone; the heap ends itself when lua_close
 * frees the state. Returns the heap, the state's present one if it has been
 * on a heap of ours already, or NULL with ENOMEM or EINVAL.
 */
HAK_API hak_lua_heap *hak_lua_switch(lua_State *L,
                                     const hak_lua_config *config);

/* The heap of a state, or NULL if it has none. */
HAK_API hak_lua_heap *hak_lua_heap_of(lua_State *L);

/* Fills *stats. Returns 0, or -1 with EINVAL if stats->size is wrong. */
HAK_API int hak_lua_heap_stats(const hak_lua_heap *heap, hak_lua_stats *stats);

/*
 * Sets the limit in bytes (0: none); returns the one before. A limit below
 * what is live refuses every further growth until enough is freed.
 */
HAK_API size_t hak_lua_heap_limit(hak_lua_heap *heap, size_t limit);

/* Gives the heap's idle memory back to the system; returns the bytes. */
HAK_API size_t hak_lua_heap_trim(hak_lua_heap *heap);

/* The C module's entry: require "hakmem". */
HAK_API int luaopen_hakmem(lua_State *L);

#ifdef __cplusplus
}
#endif

#endif /* HAKMEM_LUA_H */
