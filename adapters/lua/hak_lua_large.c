/*
 * hak_lua_large.c - a Lua heap's blocks above 1024 B, from the lanes Pool,
 * ACE and Huge. Which of them has a block says its slab's tag.
 */
#include <string.h>

#include "hak_lua_heap.h"

/*
 * A small heap's few blocks of up to a page share the largest class of their
 * power of two: a class of its own would cost each of them a page, and none of
 * them could be used again for another.
 */
#define SHARE_SLABS 8
#define SHARE_MOST HAK_PAGE
#define SHARE_CLASSES 8 /* between two powers of two */

static unsigned pool_class(const struct hak_heap *heap, size_t size)
{
    unsigned class = hak_embed_pool_class(size);

    return hak_embed_pool_slabs(heap) <= SHARE_SLABS && size <= SHARE_MOST
               ? class | (SHARE_CLASSES - 1)
               : class;
}

void *hak_lua_large_new(struct hak_lua_heap *lua, size_t size)
{
    struct hak_heap *heap = hak_lua_core(lua);
    enum hak_reason reason;
    bool zero;
    void *p;

    p = hak_embed_larger_alloc(heap, size);
    if (p != NULL) {
        lua->larger_allocs++;
        return p;
    }
    if (size <= HAK_LANE_POOL_MAX) {
        hak_embed_use_pool(heap);
        p = hak_embed_pool_alloc(heap, pool_class(heap, size));
    } else {
        p = hak_large_alloc(heap, HAK_LANE_ALIGN, size, &zero, &reason);
    }
    lua->larger_allocs += p != NULL;
    return p;
}

void *hak_lua_large_copy(struct hak_lua_heap *lua, void *p, size_t n,
                         size_t size)
{
    enum hak_reason reason;

    if (size <= HAK_LANE_POOL_MAX) {
        void *to = hak_lua_large_new(lua, size);

        return to != NULL ? memcpy(to, p, hak_min(n, size)) : NULL;
    }
    p = hak_large_copy(hak_lua_core(lua), p, n, size, &reason);
    lua->larger_allocs += p != NULL;
    return p;
}

bool hak_lua_large_is_ours(const struct hak_lua_heap *lua, const void *p,
                           uint32_t tag)
{
    return hak_embed_has_large(hak_lua_core(lua), p, tag);
}

void hak_lua_large_free(struct hak_lua_heap *lua, void *p)
{
    if (HAK_UNLIKELY(!hak_large_free(hak_lua_core(lua), p))) {
        hak_lane_misuse(p, "hak_lua_alloc");
    }
    lua->larger_frees++;
}

/* Whether a block with `usable` bytes may stay where it is for nsize. */
static bool stays(const struct hak_lua_heap *lua, size_t usable, size_t osize,
                  size_t nsize)
{
    if (hak_fits_as_is(usable, nsize) || (nsize > osize && nsize <= usable)) {
        return true;
    }
    if (nsize > HAK_LANE_POOL_MAX || usable > HAK_LANE_POOL_MAX) {
        return false; /* and there may be no pool */
    }
    return hak_embed_pool_bytes(pool_class(hak_lua_core(lua), nsize)) == usable;
}

void *hak_lua_large_resize(struct hak_lua_heap *lua, void *p, size_t osize,
                           size_t nsize)
{
    uint32_t owner;
    size_t usable;

    if (hak_embed_is_packed(p)) {
        usable = hak_large_find(p, &owner);
        return hak_fits_as_is(usable, nsize) ? p : NULL;
    }
    /* The block has what was asked for, rounded up, at least. */
    if (osize > HAK_LANE_TINY_MAX && nsize >= osize &&
        nsize <= hak_large_bytes(osize)) {
        return p;
    }
    if (stays(lua, hak_large_find(p, &owner), osize, nsize)) {
        return p;
    }
    p = hak_large_resize(p, nsize);
    lua->larger_allocs += p != NULL;
    return p;
}
