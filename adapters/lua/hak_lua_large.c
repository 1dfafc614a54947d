/*
 * hak_lua_large.c - a Lua heap's blocks above 1024 B, from the lanes Pool, ACE
 * and Huge. A slab's tag says which of them a block belongs to.
 *
 * Tested by tests/lua/contract.c and tests/lua/oom.c.
 */
#include <string.h>

#include "hak_lua_heap.h"

/*
 * In a small heap the few blocks of up to a page share the largest class of
 * their power of two: separate classes would cost a page each, and blocks could
 * not be reused for other sizes.
 */
#define SHARE_SLABS 8
#define SHARE_MOST HAK_PAGE
#define SHARE_CLASSES 8 /* between two powers of two */

static unsigned pool_class(const struct hak_heap *heap, size_t size)
{
    unsigned class = haki_embed_pool_class(size);

    return haki_embed_pool_slabs(heap) <= SHARE_SLABS && size <= SHARE_MOST
               ? class | (SHARE_CLASSES - 1)
               : class;
}

void *hak_lua_large_new(struct hak_lua_heap *lua, size_t size)
{
    struct hak_heap *heap = hak_lua_core(lua);
    enum hak_reason reason;
    bool zero;
    void *p;

    p = haki_embed_larger_alloc(heap, size);
    if (p != NULL) {
        lua->larger_allocs++;
        return p;
    }
    if (size <= HAK_LANE_POOL_MAX) {
        haki_embed_use_pool(heap);
        p = haki_embed_pool_alloc(heap, pool_class(heap, size));
    } else {
        p = haki_large_alloc(heap, HAK_LANE_ALIGN, size, &zero, &reason);
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

        return to != NULL ? memcpy(to, p, haki_min(n, size)) : NULL;
    }
    p = haki_large_copy(hak_lua_core(lua), p, n, size, &reason);
    lua->larger_allocs += p != NULL;
    return p;
}

bool hak_lua_large_is_ours(const struct hak_lua_heap *lua, const void *p,
                           uint32_t tag)
{
    if (HAK_LIKELY(haki_embed_has_large(hak_lua_core(lua), p, tag))) {
        return true;
    }
    if (haki_guarded_covers(
            p)) { /* another heap's, or free: that is reported */
        haki_lane_check(p, "hak_lua_alloc");
    }
    return false;
}

void hak_lua_large_free(struct hak_lua_heap *lua, void *p)
{
    if (HAK_UNLIKELY(!haki_large_free(hak_lua_core(lua), p))) {
        haki_lane_misuse(p, "hak_lua_alloc");
    }
    lua->larger_frees++;
}

/* Whether a block with `usable` bytes may stay where it is for nsize. */
static bool stays(const struct hak_lua_heap *lua, size_t usable, size_t osize,
                  size_t nsize)
{
    if (haki_fits_as_is(usable, nsize) || (nsize > osize && nsize <= usable)) {
        return true;
    }
    if (nsize > HAK_LANE_POOL_MAX || usable > HAK_LANE_POOL_MAX) {
        return false;
    }
    return haki_embed_pool_bytes(pool_class(hak_lua_core(lua), nsize)) ==
           usable;
}

void *hak_lua_large_resize(struct hak_lua_heap *lua, void *p, size_t osize,
                           size_t nsize)
{
    uint32_t owner;
    size_t usable;

    if (haki_embed_is_packed(p)) {
        usable = haki_large_find(p, &owner);
        return haki_fits_as_is(usable, nsize) ? p : NULL;
    }
    /* The block has at least what was asked for, rounded up. */
    if (osize > HAK_LANE_TINY_MAX && nsize >= osize &&
        nsize <= haki_large_bytes(osize)) {
        return p;
    }
    if (stays(lua, haki_large_find(p, &owner), osize, nsize)) {
        return p;
    }
    p = haki_large_resize(p, nsize);
    lua->larger_allocs += p != NULL;
    return p;
}
