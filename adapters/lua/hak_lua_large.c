/*
 * hak_lua_large.c - a Lua heap's blocks above 1024 B, from the lanes Pool,
 * ACE and Huge. Which of them has a block says its slab's tag.
 */
#include "hak_lua_heap.h"

void *hak_lua_large_new(struct hak_lua_heap *lua, size_t size)
{
    struct hak_heap *heap = hak_lua_core(lua);
    enum hak_reason reason;
    bool zero;
    void *p;

    p = size <= HAK_LANE_POOL_MAX && heap->pool != NULL
            ? hak_pool_alloc(heap->pool, hak_pool_class_of(size))
            : hak_large_alloc(heap, HAK_LANE_ALIGN, size, &zero, &reason);
    lua->large += p != NULL;
    return p;
}

void *hak_lua_large_copy(struct hak_lua_heap *lua, void *p, size_t n,
                         size_t size)
{
    enum hak_reason reason;

    p = hak_large_copy(hak_lua_core(lua), p, n, size, &reason);
    lua->large += p != NULL;
    return p;
}

bool hak_lua_large_is_ours(const struct hak_lua_heap *lua, const void *p,
                           uint32_t tag)
{
    uint32_t owner = HAK_TAG_HEAP(tag);

    if (owner == HAK_ID_SHARED) {
        hak_large_find(p, &owner);
    }
    return owner == hak_lua_core(lua)->tiny.id;
}

void hak_lua_large_free(struct hak_lua_heap *lua, void *p)
{
    if (HAK_UNLIKELY(!hak_large_free(hak_lua_core(lua), p))) {
        hak_lane_misuse(p, "hak_lua_alloc");
    }
    lua->large++;
}

void *hak_lua_large_resize(struct hak_lua_heap *lua, void *p, size_t osize,
                           size_t nsize)
{
    uint32_t owner;

    /* The block has what was asked for, rounded up, at least. */
    if (osize > HAK_LANE_TINY_MAX && nsize >= osize &&
        nsize <= hak_large_bytes(osize)) {
        return p;
    }
    if (hak_fits_as_is(hak_large_find(p, &owner), nsize)) {
        return p;
    }
    p = hak_large_resize(p, nsize);
    lua->large += p != NULL;
    return p;
}
