/*
 * hak_lua_thread.c - hak_lua_alloc for states without a heap of their own: the
 * calling thread's heap serves. The state may have moved to another thread, so
 * a slab's tag tells a block's lane and owner.
 *
 * Tested by tests/lua/contract.c and tests/lua/threads.c.
 */
#include <stdlib.h>
#include <string.h>

#include "hak_lua_heap.h"

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

static unsigned class_for(size_t size)
{
    return haki_embed_class_8(size);
}

/*
 * A block of the lanes', or NULL: a size that is not ours, no memory. In the
 * hardened build a thread's block has a guard, whoever it is for.
 */
static void *from_lanes(size_t size)
{
    enum hak_reason reason;

    if (!HAK_HARD && size <= HAK_LANE_TINY_MAX) {
        return haki_thread_alloc(class_for(size), &reason);
    }
    return size <= hak_lua_most(HAK_LUA_LANES_DEFAULT)
               ? haki_lane_alloc(HAK_LANE_ALIGN, size, false, &reason)
               : NULL;
}

/*
 * Whether HAKMEM_LIMIT forbids the fallback for a request that the lanes had no
 * memory for.
 */
static bool refuses(size_t size)
{
    return size <= hak_lua_most(HAK_LUA_LANES_DEFAULT) &&
           haki_limit_refuses(size);
}

static HAK_NOINLINE void *new_slow(size_t size)
{
    void *p = from_lanes(size);

    if (HAK_UNLIKELY(p == NULL) && haki_limit_is_set() &&
        haki_relief(NULL, size)) {
        p = from_lanes(size);
    }
    return p != NULL || refuses(size) ? p : malloc(size);
}

void *hak_lua_thread_new(void *ud, void *ptr, size_t tag, size_t nsize)
{
    void *p = NULL;

    (void)ud;
    (void)ptr;
    (void)tag;
    if (!HAK_HARD && HAK_LIKELY(nsize <= HAK_LANE_TINY_MAX)) {
        p = haki_embed_pop(haki_thread_bin(class_for(nsize)));
    }
    return HAK_LIKELY(p != NULL) ? p : new_slow(nsize);
}

/* Resizes a block of the lanes without moving it to another lane. */
static void *resize_in_lane(void *ptr, size_t nsize)
{
    uint32_t tag = haki_embed_tag(ptr);
    enum hak_reason reason;

    if (HAK_HARD && nsize <= hak_lua_most(HAK_LUA_LANES_DEFAULT)) {
        return haki_lane_realloc(ptr, nsize, &reason, "hak_lua_alloc");
    }
    if (!haki_tag_is_large(tag)) {
        return nsize <= HAK_LANE_TINY_MAX &&
                       class_for(nsize) == haki_embed_class_of(ptr, tag)
                   ? ptr
                   : NULL;
    }
    return nsize > HAK_LANE_TINY_MAX
               ? haki_lane_realloc(ptr, nsize, &reason, "hak_lua_alloc")
               : NULL;
}

void *hak_lua_thread_resize(void *ud, void *ptr, size_t osize, size_t nsize)
{
    bool ours = haki_embed_owns(ptr);
    void *p = ours ? resize_in_lane(ptr, nsize) : NULL;

    if (p != NULL) {
        return p;
    }
    if (ours) {
        p = hak_lua_thread_new(ud, NULL, 0, nsize);
    } else if (nsize > osize) {
        p = from_lanes(nsize); /* a growing block moves to us */
    }
    if (p == NULL && !ours) {
        p = nsize > osize && refuses(nsize) ? NULL : realloc(ptr, nsize);
        return p == NULL && nsize <= osize ? ptr : p;
    }
    if (p == NULL) {
        return nsize <= osize ? ptr : NULL;
    }
    memcpy(p, ptr, haki_min(osize, nsize));
    hak_lua_thread_free(ud, ptr, osize, 0);
    return p;
}

/* Frees another thread's block, a large one, or the system's. */
static HAK_NOINLINE void *free_slow(void *ptr)
{
    if (haki_embed_owns(ptr)) {
        haki_inside_free(ptr);
    } else {
        free(ptr);
    }
    return NULL;
}

void *hak_lua_thread_free(void *ud, void *ptr, size_t osize, size_t nsize)
{
    (void)ud;
    (void)osize;
    (void)nsize;
    return HAK_LIKELY(haki_hot_free(ptr, 0)) ? NULL : free_slow(ptr);
}
