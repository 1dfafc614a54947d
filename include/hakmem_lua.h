/*
 * hakmem_lua.h - HAKMEM for Lua 5.1 to 5.5 and LuaJIT.
 *
 * The simplest way: lua_State *L = lua_newstate(hak_lua_alloc, NULL). The best
 * way, a heap for each state, with a limit:
 *
 *     #include <hakmem_lua.h>
 *     #include <lauxlib.h>
 *     #include <lualib.h>
 *     #include <stdio.h>
 *
 *     static int run(lua_State *L) // everything that may run out of memory
 *     {
 *         luaL_openlibs(L);
 *         if (luaL_loadfile(L, lua_touserdata(L, 1)) != LUA_OK) {
 *             return lua_error(L);
 *         }
 *         lua_call(L, 0, 0);
 *         return 0;
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *         hak_lua_config config = {.size = sizeof config,
 *                                  .limit = 8 << 20,
 *                                  .reserve = 64 << 10,
 *                                  .name = "player 17"};
 *         lua_State *L = argc > 1 ? hak_lua_newstate(&config) : NULL;
 *         int status;
 *
 *         if (L == NULL) {
 *             return 2;
 *         }
 *         lua_pushcfunction(L, run);
 *         lua_pushlightuserdata(L, argv[1]);
 *         status = lua_pcall(L, 1, 0, 0);
 *         if (status != LUA_OK) {
 *             fprintf(stderr, "%s\n", lua_tostring(L, -1));
 *         }
 *         hak_lua_close(L); // instead of lua_close
 *         return status != LUA_OK;
 *     }
 *
 * Under a limit any call that allocates may raise an error, even luaL_openlibs,
 * and outside a protected call an error ends the program.
 *
 * Blocks of every size come from HAKMEM's lanes. What these refuse, and with
 * `lanes` tiny everything above 1024 B, comes from the fallback: the system's
 * realloc and free, or, for a state that was switched (hak_lua_switch), its
 * former allocator.
 */
#ifndef HAKMEM_LUA_H
#define HAKMEM_LUA_H

#include <hakmem.h>
#include <lua.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A heap for one Lua state. Used by one thread at a time, as Lua itself
 * demands; the state may move from thread to thread.
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
    const char *name;    /* for reports, at most 31 bytes kept; or NULL */
    hak_lua_lanes lanes; /* which sizes go to HAKMEM */
    size_t reserve;      /* bytes above limit, see hak_lua_heap_reserve */
} hak_lua_config;

/*
 * Lua's types of objects, as passed to a lua_Alloc (in osize, if ptr is NULL).
 */
enum {
    HAK_LUA_OTHER = 0, /* arrays, buffers, hash parts: not objects */
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
 * Statistics of one heap. live_bytes and peak_bytes count what Lua asked for,
 * so in a state made by hak_lua_newstate live_bytes equals
 * collectgarbage("count") * 1024. Fields marked as deprecated will be removed
 * in the next version.
 */
typedef struct hak_lua_stats {
    size_t size; /* set to sizeof(hak_lua_stats) before the call */
    size_t limit;
    size_t live_bytes;        /* asked for and not freed */
    size_t peak_bytes;        /* the most there ever was */
    uint64_t calls;           /* calls that requested or freed something */
    uint64_t tiny;            /* deprecated: tiny_allocs + tiny_frees */
    uint64_t large;           /* deprecated: larger_allocs + larger_frees */
    uint64_t fallback_large;  /* served by the fallback because of `lanes` */
    uint64_t fallback_memory; /* ... because the core was out of memory */
    union {
        uint64_t foreign_frees; /* frees and resizes of the fallback's blocks */
        uint64_t foreign;       /* deprecated */
    };
    union {
        uint64_t limit_refusals; /* calls refused by the limit */
        uint64_t limit_refused;  /* deprecated, */
        uint64_t refused;        /* and this */
    };
    uint64_t slabs; /* slabs of 64 KB held now, of Tiny and Pool */
    uint64_t type_count[HAK_LUA_TYPES]; /* blocks ever allocated, by type */
    uint64_t type_bytes[HAK_LUA_TYPES]; /* their bytes when allocated */
    uint64_t tiny_allocs;               /* of calls: served by the Tiny lane */
    uint64_t tiny_frees;                /* ... : blocks given back to it */
    uint64_t larger_allocs; /* served by the lanes above Tiny, with resizes */
    uint64_t larger_frees;  /* blocks given back to them */
    uint64_t held_bytes;    /* what the lanes hold for the heap's blocks */
} hak_lua_stats;

/* The objects of one type: those that exist, and all ever made. */
typedef struct hak_lua_type {
    uint64_t live_count; /* objects; garbage counts until collected */
    uint64_t live_bytes; /* of these objects, with their parts */
    uint64_t part_bytes; /* a table's array and hash part, a thread's stack and
                            calls, a prototype's code, constants and debug
                            information; the table of all strings */
    uint64_t made_count; /* ever made (0: the state has no heap of its own) */
    uint64_t made_bytes; /* their bytes when made, without parts */
} hak_lua_type;

/* The types' live_bytes add up to live_bytes, which is Lua's own count. */
typedef struct hak_lua_types {
    size_t size; /* set to sizeof(hak_lua_types) before the call */
    size_t live_bytes;
    hak_lua_type type[HAK_LUA_TYPES];
} hak_lua_types;

/*
 * A lua_Alloc (its contract is in Lua's manual, section 4.6). ud is a
 * hak_lua_heap, or NULL: the calling thread's heap, with no limit and no
 * statistics of its own; such a state may move from thread to thread. Returns
 * NULL when neither HAKMEM nor the fallback has memory, or when the heap's
 * limit would be exceeded; shrinking and freeing never fail.
 */
HAK_API void *hak_lua_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/*
 * Makes a heap to pass as ud; config may be NULL. The caller owns it. Errors:
 * NULL with ENOMEM, or EINVAL if this version does not know config->size.
 */
HAK_API hak_lua_heap *hak_lua_heap_new(const hak_lua_config *config);

/*
 * Ends a heap after lua_close of its state. If blocks are still live, says so
 * in one line on standard error (a leak report). All blocks from HAKMEM are
 * released slab by slab, and live ones from the fallback are lost. Nothing of
 * the heap stays in memory except a page or two for the next one. NULL does
 * nothing. Not for the heap of a switched state, which ends by itself
 * (hak_lua_switch).
 */
HAK_API void hak_lua_heap_delete(hak_lua_heap *heap);

/*
 * Like luaL_newstate: makes a state on a heap of its own, with luaL_newstate's
 * panic and warning functions. End it with hak_lua_close. Errors: NULL (out of
 * memory, a limit smaller than an empty state, a bad config).
 */
HAK_API lua_State *hak_lua_newstate(const hak_lua_config *config);

/*
 * Calls lua_close(L), with the reserve open for finalizers, then ends the
 * state's heap if it has one, with a leak report. Also for a switched state.
 */
HAK_API void hak_lua_close(lua_State *L);

/*
 * Moves a running state to HAKMEM. Blocks it already has go back, when they are
 * freed, to the allocator that made them, which also becomes the fallback. The
 * switch can't be undone. The heap ends by itself when lua_close has freed the
 * block that contains the main thread, if nothing is live then. If something is
 * (blocks that C code took through lua_getallocf), one line on standard error
 * says so, and the heap ends with the last of them. (hak_lua_close ends it in
 * any case.) Returns the heap, or the state's present one if it is already on a
 * heap of ours. Errors: NULL with ENOMEM or EINVAL; the state keeps its
 * allocator.
 */
HAK_API hak_lua_heap *hak_lua_switch(lua_State *L,
                                     const hak_lua_config *config);

/* The heap of a state, or NULL if it has none. */
HAK_API hak_lua_heap *hak_lua_heap_of(lua_State *L);

/*
 * Fills *stats. Any thread may ask while the heap exists; what a state in
 * another thread does meanwhile may be in one statistic but not yet in another.
 * Returns 0, or -1 with EINVAL if stats->size is wrong (the size of an older
 * version of the struct is accepted).
 */
HAK_API int hak_lua_heap_stats(const hak_lua_heap *heap, hak_lua_stats *stats);

/*
 * Bytes of the heap that are in memory now. Asks the system about each stretch
 * of its slabs (some microseconds, a millisecond for 100 MB). Any thread may
 * ask. 0: the heap has been deleted, see hak_lua_visit.
 */
HAK_API size_t hak_lua_heap_resident(const hak_lua_heap *heap);

/*
 * Shows what fills a state: its live objects by type, counted by walking the
 * collector's lists. Works on every state, whatever its allocator; L may be any
 * of its threads. Nothing is allocated, changed or collected; the walk takes 10
 * to 50 ns per object. For the thread that runs the state, at a point where it
 * might call Lua, or inside a lua_Alloc: an object that is just being made
 * there counts as HAK_LUA_OTHER, as the parser's buffers do. Returns 0, or -1:
 * EINVAL if types->size is wrong; ENOTSUP if this Lua's structures are not
 * those of 5.4.1 to 5.4.8 by default, which the first call tests on a state
 * made for that; ENOMEM if there is no memory for that state.
 */
HAK_API int hak_lua_count_types(lua_State *L, hak_lua_types *types);

/*
 * Called by hak_lua_each for each heap; `name` and `stats` are valid until it
 * returns. `heap` may have been deleted by now: use it only to tell heaps
 * apart, or with hak_lua_heap_resident. A result other than 0 ends the walk.
 */
typedef int hak_lua_visit(void *ud, const hak_lua_heap *heap, const char *name,
                          const hak_lua_stats *stats);

/*
 * Calls `visit` for every heap of the process (of this copy of the library),
 * including those of switched states and of other threads, with its name ("":
 * it has none) and its current statistics. Any thread may call this. No lock is
 * held while `visit` runs: it may make and delete heaps, or leave with
 * lua_error. Heaps made or deleted meanwhile may or may not be visited. A heap
 * is not deleted while its statistics are read: hak_lua_heap_delete waits for
 * that. Returns the result that ended the walk, or 0.
 */
HAK_API int hak_lua_each(hak_lua_visit *visit, void *ud);

/*
 * Sets the hard limit in bytes (0: none); returns the previous one. If more
 * than that is live, every growth is refused until enough has been freed.
 */
HAK_API size_t hak_lua_heap_limit(hak_lua_heap *heap, size_t limit);

/*
 * Sets a reserve of bytes above the limit (0, the default: none), so that a
 * state that has reached its limit can still report the error, run finalizers
 * and close. It opens when a request has finally been refused, that is, when
 * Lua has collected garbage and asked once more, or has given up; and in
 * hak_lua_close. It closes when live bytes have fallen to 15/16 of the limit.
 * While it is open requests are refused only beyond limit + reserve. The same
 * applies above a soft limit whose callback refuses. Called by the thread that
 * uses the heap. Returns 0, or -1 with EINVAL (heap is NULL) or ENOMEM.
 */
HAK_API int hak_lua_heap_reserve(hak_lua_heap *heap, size_t bytes);

/* What a soft limit's callback gets; all sizes in bytes. */
typedef struct hak_lua_need {
    size_t size;       /* sizeof(hak_lua_need) */
    size_t bytes;      /* by which live_bytes would grow */
    size_t live_bytes; /* now */
    size_t soft_limit;
    size_t limit;  /* 0: none */
    int collected; /* Lua has collected garbage for this request */
} hak_lua_need;

/* Results of the callback; a number other than these is the new soft limit. */
#define HAK_LUA_REFUSE ((size_t)0)
#define HAK_LUA_COLLECT ((size_t)1)
#define HAK_LUA_NO_LIMIT ((size_t)-1)

/*
 * Called when a request would take live bytes beyond the soft limit. It returns
 * one of these:
 *
 * A larger soft limit in bytes (HAK_LUA_NO_LIMIT: no limit from now on): it
 * takes effect, and the request is tried again, under the hard limit too.
 *
 * HAK_LUA_COLLECT lets Lua collect garbage first. If the request still does not
 * fit the callback is called again, with `collected` set, and then this result
 * means HAK_LUA_REFUSE. A request that Lua does not repeat (luaL_Buffer's)
 * fails.
 *
 * HAK_LUA_REFUSE, or a number no larger than the present limit: unless the
 * request fits after Lua has collected garbage, it fails with the error "not
 * enough memory".
 *
 * It runs inside lua_Alloc, in the middle of one of Lua's operations: it may
 * call the heap's functions (hak_lua_heap_stats, hak_lua_heap_limit) and
 * hak_lua_count_types, but no Lua function on this state, and must return
 * normally.
 */
typedef size_t (*hak_lua_on_limit)(void *arg, hak_lua_heap *heap,
                                   const hak_lua_need *need);

/*
 * Sets the soft limit in bytes and its callback; 0 and NULL remove both. Giving
 * only one of them is an error. A soft limit above the hard one is never
 * reached. Called by the thread that uses the heap. Returns 0, or -1 with
 * EINVAL or ENOMEM, and nothing changes.
 */
HAK_API int hak_lua_heap_on_limit(hak_lua_heap *heap, size_t soft_limit,
                                  hak_lua_on_limit callback, void *arg);

/*
 * Gives the heap's idle memory back to the system; returns the bytes. A state
 * that does not run keeps what it has freed until this is called. Called by the
 * thread that uses the heap.
 */
HAK_API size_t hak_lua_heap_trim(hak_lua_heap *heap);

/*
 * lua_resume(L, from, nargs, nresults), for hosts whose C code resumes coroutines while
 * no Lua function runs: it tells a profile (hak_profile_start) which one runs. Without
 * it, samples there are told without Lua's lines. Not needed for coroutine.resume,
 * coroutine.wrap, or a C function that has the thread as one of its first three
 * arguments or as its first upvalue. Any state; errors as lua_resume's.
 */
HAK_API int hak_lua_resume(lua_State *L, lua_State *from, int nargs,
                           int *nresults);

/* The C module's entry: require "hakmem". */
HAK_API int luaopen_hakmem(lua_State *L);

#ifdef __cplusplus
}
#endif

#endif /* HAKMEM_LUA_H */
