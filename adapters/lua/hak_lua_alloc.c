/*
 * hak_lua_alloc.c - the lua_Alloc function.
 *
 * Lua's contract, from its manual and sources: osize is the exact size of a
 * block, or for ptr NULL the type of the object; (NULL, 0, 0) is a no-op and
 * up to half of all calls; nsize 0 frees and returns NULL; after a NULL Lua
 * collects and asks once more; a shrink must not fail.
 *
 * Up to 1024 B come from the Tiny lane through the 8-byte size table, larger
 * blocks from the fallback: `route` decides. A block is told by its address:
 * in the range it is ours and osize names its bin, elsewhere the fallback's.
 * The three hot paths are hak_lua_alloc and the inline functions above it.
 */
#include <stdlib.h>
#include <string.h>

#include "hak_lua_heap.h"
#include "thread.h"

/* Which sizes are ours. The lanes above Tiny will be told here. */
HAK_INLINE bool route(size_t size)
{
    return size <= HAK_TINY_MAX_SIZE;
}

HAK_INLINE unsigned class_for(size_t size)
{
    return hak_tiny_class_8[hak_tiny_index(size)];
}

/* Whether ptr is a Tiny block of this heap, of the class that osize names. */
HAK_INLINE bool is_ours(const struct hak_lua_heap *lua, const void *ptr,
                        size_t osize)
{
    return HAK_LIKELY((uintptr_t)ptr - lua->base < lua->size) && route(osize);
}

HAK_INLINE void count_type(struct hak_lua_heap *lua, size_t tag, size_t size)
{
    struct hak_lua_type *type = &lua->types[tag < HAK_LUA_TAGS ? tag : 0];

    type->count++;
    type->bytes += size;
}

/* ---- slow paths of a state on its own heap ------------------------------ */

/* Lets `live` rise above the gate: a new peak, or refused by the limit. */
HAK_INLINE bool admit(struct hak_lua_heap *lua, size_t live)
{
    if (HAK_LIKELY(live <= lua->gate)) {
        return true;
    }
    if (live > lua->limit) {
        lua->refused++;
        return false;
    }
    if (live > lua->peak) {
        lua->peak = lua->gate = live;
    }
    return true;
}

/*
 * A block of the fallback's: new (ptr NULL), resized or freed. `live` is not
 * touched.
 */
static void *from_fallback(struct hak_lua_heap *lua, void *ptr, size_t osize,
                           size_t nsize)
{
    if (ptr != NULL) {
        lua->foreign++;
    }
    if (route(nsize)) {
        lua->fallback_memory += ptr == NULL;
    } else {
        lua->fallback_large++;
    }
    return lua->fallback(lua->fallback_ud, ptr, osize, nsize);
}

/* A Tiny block, or NULL. */
HAK_INLINE void *tiny_new(struct hak_lua_heap *lua, size_t size)
{
    return hak_tiny_alloc(&hak_lua_core(lua)->tiny, class_for(size));
}

/* An object the hot path does not serve: large, or Tiny is out of memory. */
static HAK_NOINLINE void *new_slow(struct hak_lua_heap *lua, size_t tag,
                                   size_t nsize)
{
    size_t live = lua->live + nsize;
    void *p;

    if (live < nsize || !admit(lua, live)) {
        return NULL;
    }
    p = from_fallback(lua, NULL, tag, nsize);
    if (p != NULL) {
        lua->live = live;
        count_type(lua, tag, nsize);
    }
    return p;
}

/*
 * The heap's own class of a block that the hot path did not take for ours,
 * or HAK_TINY_CLASSES if it is not of this heap.
 */
static unsigned class_by_tag(const struct hak_lua_heap *lua, const void *ptr)
{
    uint32_t class;

    if (!hak_range_owns(ptr)) {
        return HAK_TINY_CLASSES;
    }
    class = hak_range_tag(hak_range_offset(ptr)) ^
            hak_lua_core(lua)->tiny.tag;
    return class < HAK_TINY_CLASSES ? class : HAK_TINY_CLASSES;
}

static HAK_NOINLINE void free_slow(struct hak_lua_heap *lua, void *ptr,
                                   size_t osize)
{
    unsigned class = class_by_tag(lua, ptr);

    if (class < HAK_TINY_CLASSES) {
        hak_tiny_free(&hak_lua_core(lua)->tiny, class, ptr);
        return;
    }
    lua->foreign++;
    lua->fallback(lua->fallback_ud, ptr, osize, 0);
    if (ptr == lua->main_block) {
        hak_lua_heap_end(lua);
    }
}

/* Frees without accounting. */
HAK_INLINE void free_block(struct hak_lua_heap *lua, void *ptr, size_t osize)
{
    if (HAK_LIKELY(is_ours(lua, ptr, osize))) {
        hak_tiny_free(&hak_lua_core(lua)->tiny, class_for(osize), ptr);
    } else {
        free_slow(lua, ptr, osize);
    }
}

/*
 * A new place for the contents of ptr. A shrink for which there is no memory
 * stays where it is; then osize no longer names its bin, its tag does.
 */
static void *move(struct hak_lua_heap *lua, void *ptr, size_t osize,
                  size_t nsize)
{
    void *p = route(nsize) ? tiny_new(lua, nsize) : NULL;

    if (p == NULL) {
        p = from_fallback(lua, NULL, HAK_LUA_OTHER, nsize);
    }
    if (p != NULL) {
        memcpy(p, ptr, hak_min(osize, nsize));
        free_block(lua, ptr, osize);
        return p;
    }
    if (nsize <= osize) {
        lua->size = 0;
        return ptr;
    }
    return NULL;
}

/*
 * The fallback resizes its blocks itself, large or shrinking; a small one
 * that grows (the state was switched) comes over to us.
 */
static void *resize_foreign(struct hak_lua_heap *lua, void *ptr, size_t osize,
                            size_t nsize)
{
    if (route(nsize) && nsize > osize) {
        return move(lua, ptr, osize, nsize);
    }
    return from_fallback(lua, ptr, osize, nsize);
}

static HAK_NOINLINE void *resize_slow(struct hak_lua_heap *lua, void *ptr,
                                      size_t osize, size_t nsize)
{
    size_t live = lua->live - osize + nsize;
    unsigned class = class_by_tag(lua, ptr);
    void *p;

    if (nsize > osize && (nsize > PTRDIFF_MAX || !admit(lua, live))) {
        return NULL;
    }
    if (class == HAK_TINY_CLASSES) {
        p = resize_foreign(lua, ptr, osize, nsize);
    } else if (route(nsize) && class_for(nsize) == class) {
        p = ptr;
    } else {
        p = move(lua, ptr, osize, nsize);
    }
    if (p != NULL) {
        lua->live = live;
    }
    return p;
}

/* ---- without a heap of its own: the calling thread's -------------------- */

void *hak_lua_system_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    (void)ud;
    (void)osize;
    if (nsize == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, nsize);
}

static void *thread_new(size_t nsize)
{
    enum hak_reason reason;
    void *p = route(nsize) ? hak_thread_alloc(class_for(nsize), &reason) : NULL;

    return p != NULL ? p : malloc(nsize);
}

static void *thread_resize(void *ptr, size_t osize, size_t nsize)
{
    void *p;

    if (!hak_range_owns(ptr)) {
        return realloc(ptr, nsize);
    }
    if (route(nsize) &&
        class_for(nsize) == HAK_TAG_CLASS(hak_range_tag(hak_range_offset(ptr)))) {
        return ptr;
    }
    p = thread_new(nsize);
    if (p == NULL) {
        return nsize <= osize ? ptr : NULL;
    }
    memcpy(p, ptr, hak_min(osize, nsize));
    hak_free(ptr);
    return p;
}

/* The state may be in any thread by now: frees go by the slab's tag. */
static HAK_NOINLINE void *thread_alloc(void *ptr, size_t osize, size_t nsize)
{
    if (nsize != 0) {
        return ptr == NULL ? thread_new(nsize)
                           : thread_resize(ptr, osize, nsize);
    }
    if (hak_range_owns(ptr)) {
        hak_free(ptr);
    } else {
        free(ptr);
    }
    return NULL;
}

/* ---- the hot paths ------------------------------------------------------ */

HAK_INLINE void *object_new(struct hak_lua_heap *lua, size_t tag, size_t nsize)
{
    size_t live = lua->live + nsize;
    void *p;

    if (HAK_UNLIKELY(!route(nsize))) {
        return new_slow(lua, tag, nsize);
    }
    if (HAK_UNLIKELY(!admit(lua, live))) {
        return NULL;
    }
    p = tiny_new(lua, nsize);
    if (HAK_UNLIKELY(p == NULL)) {
        return new_slow(lua, tag, nsize);
    }
    lua->live = live;
    count_type(lua, tag, nsize);
    return p;
}

HAK_INLINE void *object_resize(struct hak_lua_heap *lua, void *ptr,
                               size_t osize, size_t nsize)
{
    size_t live = lua->live - osize + nsize;

    if (is_ours(lua, ptr, osize) && route(nsize) &&
        class_for(osize) == class_for(nsize) &&
        HAK_LIKELY(live <= lua->gate)) {
        lua->live = live;
        return ptr;
    }
    return resize_slow(lua, ptr, osize, nsize);
}

void *hak_lua_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    struct hak_lua_heap *lua = ud;

    if (nsize == 0 && ptr == NULL) {
        return NULL;
    }
    if (HAK_UNLIKELY(lua == NULL)) {
        return thread_alloc(ptr, osize, nsize);
    }
    if (nsize == 0) {
        lua->live -= osize;
        free_block(lua, ptr, osize);
        return NULL;
    }
    if (ptr == NULL) {
        return object_new(lua, osize, nsize);
    }
    return object_resize(lua, ptr, osize, nsize);
}
