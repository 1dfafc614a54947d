/*
 * hak_lua_alloc.c - the lua_Alloc function.
 *
 * Lua's contract, from its manual and sources: osize is the exact size of a
 * block, or, if ptr is NULL, the type of the object; (NULL, 0, 0) is a no-op
 * and up to half of all calls; nsize 0 frees and returns NULL; when it gets
 * NULL Lua collects garbage and asks once more; shrinking must not fail.
 *
 * Blocks of up to 1024 B come from the Tiny lane through the 8-byte size table,
 * larger ones from the other lanes or the fallback: `ours` decides. A small
 * block is recognised by its address: in the range it is Tiny's and osize names
 * its bin, elsewhere it is the fallback's. For a larger one the slab's tag says
 * whose it is.
 *
 * The hot paths are hak_lua_alloc and the inline functions above it. What they
 * can't serve goes, by tail calls, to functions with the same arguments, so
 * that nothing has to be moved between registers.
 *
 * Tested by tests/lua/contract.c and tests/lua/figures.c.
 */
#include <string.h>

#include "hak_lua_heap.h"

/*
 * Keeps gcc from specialising these functions for their callers, as such
 * versions may have other arguments.
 */
#if defined(__has_attribute) && __has_attribute(noipa)
#define SLOW static HAK_NOINLINE __attribute__((noipa))
#else
#define SLOW static HAK_NOINLINE
#endif

/* Whether our lanes serve a size. */
HAK_INLINE bool ours(const struct hak_lua_heap *lua, size_t size)
{
    return size <= lua->most;
}

HAK_INLINE unsigned class_for(size_t size)
{
    return haki_embed_class_8(size);
}

/* The bin for a size of 1 to 128 B, where classes are steps of 8. */
HAK_INLINE struct hak_bin *bin_step(struct hak_lua_heap *lua, size_t size)
{
    return haki_embed_bin_for(hak_lua_core(lua), size, 8);
}

/* The bin for a size; NULL if it is not a Tiny size. */
HAK_INLINE struct hak_bin *bin_for(struct hak_lua_heap *lua, size_t size)
{
    if (HAK_LIKELY(size - 1 < HAK_EMBED_STEP_MAX)) {
        return bin_step(lua, size);
    }
    return size <= HAK_LANE_TINY_MAX
               ? haki_embed_bin(hak_lua_core(lua), class_for(size))
               : NULL;
}

/*
 * Whether ptr is in the range; with a Tiny osize it is then a block of this
 * heap, in the bin that osize names (if lua->size is 0 this is always false).
 */
HAK_INLINE bool in_range(const struct hak_lua_heap *lua, const void *ptr)
{
    return HAK_LIKELY((uintptr_t)ptr - lua->base < lua->size);
}

HAK_INLINE void count_type(struct hak_lua_heap *lua, size_t tag, size_t size)
{
    lua->type_count[tag % HAK_LUA_TAGS]++;
    lua->type_bytes[tag % HAK_LUA_TAGS] += size;
}

/* ---- slow paths of a state on its own heap ------------------------------ */

/*
 * Whether the limits admit a request that takes `more` bytes; counts refusals.
 */
static bool admit(struct hak_lua_heap *lua, const void *ptr, size_t nsize,
                  size_t more)
{
    if (more <= PTRDIFF_MAX && (hak_lua_live(lua) + more <= lua->stop ||
                                hak_lua_bounds_admit(lua, ptr, nsize, more))) {
        return true;
    }
    lua->refused++;
    return false;
}

/* Takes `more` bytes from the headroom, raising the peak if need be. */
static void take(struct hak_lua_heap *lua, size_t more)
{
    size_t live = hak_lua_live(lua) + more;

    lua->headroom -= (int64_t)more;
    if (live > hak_lua_peak(lua)) {
        lua->peak = live;
        hak_lua_set_gate(lua);
    }
}

/* A block from our lanes. NULL: not a size of ours, or no memory. */
HAK_INLINE void *from_lanes(struct hak_lua_heap *lua, size_t size)
{
    if (HAK_LIKELY(size <= HAK_LANE_TINY_MAX)) {
        return haki_embed_alloc(hak_lua_core(lua), class_for(size));
    }
    return ours(lua, size) ? hak_lua_large_new(lua, size) : NULL;
}

/*
 * Under a HAKMEM_LIMIT, what our lanes had no memory for does not go to the
 * fallback; instead our lanes are tried once more.
 */
static HAK_COLD void *at_limit(struct hak_lua_heap *lua, const void *ptr,
                               size_t nsize)
{
    void *p = NULL;

    if (ptr == NULL && haki_relief(hak_lua_core(lua), nsize)) {
        p = from_lanes(lua, nsize);
    }
    if (p == NULL && haki_limit_refuses(nsize)) {
        lua->refused++;
    }
    return p;
}

/*
 * A block from the fallback, new (ptr NULL) or resized, not charged; under a
 * HAKMEM_LIMIT one of ours.
 */
static void *from_fallback(struct hak_lua_heap *lua, void *ptr, size_t osize,
                           size_t nsize)
{
    void *p;

    if (haki_limit_is_set() && ours(lua, nsize) &&
        (ptr == NULL || nsize > osize)) {
        return at_limit(lua, ptr, nsize);
    }
    if (ptr != NULL) {
        lua->foreign++;
    }
    if (!ours(lua, nsize)) {
        lua->fallback_large++;
    } else if (ptr == NULL) {
        lua->fallback_memory++;
    }
    p = lua->fallback(lua->fallback_ud, ptr, osize, nsize);
    if (HAK_UNLIKELY(in_range(lua,
                              p))) { /* among our addresses, but not ours */
        lua->size = 0;
    }
    return p;
}

/*
 * What the hot path can't serve: a large object, one that raises the peak or
 * reaches the limit, an empty bin.
 */
SLOW void *new_slow(struct hak_lua_heap *lua, void *ptr, size_t tag,
                    size_t nsize)
{
    void *p;

    lua->asked = ptr;
    lua->asked_size = tag;
    if (!admit(lua, ptr, nsize, nsize)) {
        return NULL;
    }
    p = from_lanes(lua, nsize);
    if (HAK_UNLIKELY(p == NULL)) {
        p = from_fallback(lua, ptr, tag, nsize);
    }
    if (HAK_LIKELY(p != NULL)) {
        take(lua, nsize);
        count_type(lua, tag, nsize);
    }
    return p;
}

/* The same after the hot path took nsize from the headroom. */
SLOW void *new_again(struct hak_lua_heap *lua, void *ptr, size_t tag,
                     size_t nsize)
{
    lua->headroom += (int64_t)nsize;
    return new_slow(lua, ptr, tag, nsize);
}

/*
 * The hot path took nsize from the headroom and has overdrawn it: this is a new
 * peak, like every allocation of a growing state, or the limit.
 */
SLOW void *new_peak(struct hak_lua_heap *lua, void *ptr, size_t tag,
                    size_t nsize)
{
    size_t live = hak_lua_live(lua);
    void *p;

    if (HAK_UNLIKELY(live > lua->stop)) {
        return new_again(lua, ptr, tag, nsize);
    }
    p = haki_embed_pop(bin_for(lua, nsize));
    if (HAK_UNLIKELY(p == NULL)) {
        return new_again(lua, ptr, tag, nsize);
    }
    lua->gate = live; /* the peak, as long as it is below `stop` */
    lua->headroom = 0;
    count_type(lua, tag, nsize);
    return p;
}

/*
 * Whose block this is, by its tag, when the hot path did not recognise it as
 * ours.
 */
static unsigned kind_of(const struct hak_lua_heap *lua, const void *ptr)
{
    uint32_t tag;

    if (!haki_embed_owns(ptr)) {
        return HAK_LUA_FOREIGN;
    }
    tag = haki_embed_tag(ptr);
    if (haki_tag_is_large(tag)) {
        return hak_lua_large_is_ours(lua, ptr, tag) ? HAK_LUA_LARGE
                                                    : HAK_LUA_FOREIGN;
    }
    return haki_embed_has_slab(hak_lua_core(lua), tag)
               ? haki_embed_class_of(ptr, tag)
               : HAK_LUA_FOREIGN;
}

/* Always returns NULL, like all paths of a free through hak_lua_alloc. */
SLOW void *free_slow(struct hak_lua_heap *lua, void *ptr, size_t osize,
                     size_t nsize)
{
    unsigned kind = kind_of(lua, ptr);

    if (kind == HAK_LUA_LARGE) {
        lua->asked = ptr; /* a guarded one's frames are looked at */
        lua->asked_size = osize;
        hak_lua_large_free(lua, ptr);
    } else if (kind < HAK_EMBED_CLASSES) {
        haki_embed_free(hak_lua_core(lua), kind, ptr);
    } else {
        lua->foreign++;
        lua->fallback(lua->fallback_ud, ptr, osize, nsize);
    }
    if (HAK_UNLIKELY((uintptr_t)lua->made - (uintptr_t)ptr < osize)) {
        lua->made = NULL; /* closed by lua_close, the heap goes on */
    }
    if (HAK_UNLIKELY(lua->main != NULL &&
                     (kind == HAK_LUA_FOREIGN || lua->gone))) {
        hak_lua_heap_freed(lua, ptr, osize);
    }
    return NULL;
}

SLOW void *overflow(struct hak_lua_heap *lua, struct hak_bin *bin)
{
    haki_embed_look(hak_lua_core(lua), bin);
    return NULL;
}

/* Frees without accounting; returns NULL. nsize is 0. */
HAK_INLINE void *free_block(struct hak_lua_heap *lua, void *ptr, size_t osize,
                            size_t nsize)
{
    struct hak_bin *bin;

    if (HAK_UNLIKELY(!in_range(lua, ptr))) {
        return free_slow(lua, ptr, osize, nsize);
    }
    bin = bin_for(lua, osize);
    if (HAK_UNLIKELY(bin == NULL)) {
        return free_slow(lua, ptr, osize, nsize);
    }
    if (HAK_UNLIKELY(!haki_embed_push(bin, ptr))) {
        return overflow(lua, bin);
    }
    return NULL;
}

/*
 * Moves the contents of ptr to a new place in our lanes; NULL: there is none.
 */
static void *move_to_lanes(struct hak_lua_heap *lua, void *ptr, size_t osize,
                           size_t nsize)
{
    void *p;

    if (nsize > HAK_LANE_TINY_MAX) {
        p = ours(lua, nsize) ? hak_lua_large_copy(lua, ptr, osize, nsize)
                             : NULL;
    } else {
        p = from_lanes(lua, nsize);
        p = p != NULL ? memcpy(p, ptr, haki_min(osize, nsize)) : NULL;
    }
    if (p != NULL) {
        free_block(lua, ptr, osize, 0);
    }
    return p;
}

/*
 * The same for a block of ours, with the fallback's help if needed. A block to
 * be shrunk stays where it is if there is no memory; then osize may no longer
 * name its bin.
 */
static void *move(struct hak_lua_heap *lua, void *ptr, size_t osize,
                  size_t nsize)
{
    void *p = move_to_lanes(lua, ptr, osize, nsize);

    if (HAK_LIKELY(p != NULL)) {
        return p;
    }
    p = from_fallback(lua, NULL, HAK_LUA_OTHER, nsize);
    if (p != NULL) {
        memcpy(p, ptr, haki_min(osize, nsize));
        free_block(lua, ptr, osize, 0);
    } else if (nsize <= osize) {
        p = ptr;
        lua->size = nsize <= HAK_LANE_TINY_MAX ? 0 : lua->size;
    }
    return p;
}

/*
 * A growing block of the fallback's moves to us if its new size is ours; the
 * fallback shrinks blocks itself if it can.
 */
static void *resize_foreign(struct hak_lua_heap *lua, void *ptr, size_t osize,
                            size_t nsize)
{
    void *p = nsize > osize ? move_to_lanes(lua, ptr, osize, nsize) : NULL;

    if (p == NULL) {
        p = from_fallback(lua, ptr, osize, nsize);
    }
    if (p == NULL && nsize <= osize) {
        p = move_to_lanes(lua, ptr, osize, nsize);
    }
    return p;
}

/* Resizes a block, not the fallback's, without copying; NULL: not possible. */
static void *resize_in_place(struct hak_lua_heap *lua, unsigned kind, void *ptr,
                             size_t osize, size_t nsize)
{
    if (kind == HAK_LUA_LARGE) {
        return nsize > HAK_LANE_TINY_MAX
                   ? hak_lua_large_resize(lua, ptr, osize, nsize)
                   : NULL;
    }
    return nsize <= HAK_LANE_TINY_MAX && class_for(nsize) == kind ? ptr : NULL;
}

/* Both sizes are Tiny sizes and the block is ours, in the bin of its size. */
static void *resize_tiny(struct hak_lua_heap *lua, void *ptr, size_t osize,
                         size_t nsize)
{
    struct hak_heap *heap = hak_lua_core(lua);
    unsigned from = class_for(osize), to = class_for(nsize);
    void *p = ptr;

    if (from != to) {
        p = haki_embed_alloc(heap, to);
        if (HAK_UNLIKELY(p == NULL)) {
            return move(lua, ptr, osize, nsize);
        }
        memcpy(p, ptr, haki_min(osize, nsize));
        haki_embed_free(heap, from, ptr);
    }
    return p;
}

SLOW void *resize_slow(struct hak_lua_heap *lua, void *ptr, size_t osize,
                       size_t nsize)
{
    unsigned kind;
    void *p;

    lua->asked = ptr;
    lua->asked_size = osize;
    if (nsize > osize && !admit(lua, ptr, nsize, nsize - osize)) {
        return NULL;
    }
    if (((osize - 1) | (nsize - 1)) < HAK_LANE_TINY_MAX && in_range(lua, ptr)) {
        p = resize_tiny(lua, ptr, osize, nsize);
    } else if ((kind = kind_of(lua, ptr)) == HAK_LUA_FOREIGN) {
        p = resize_foreign(lua, ptr, osize, nsize);
    } else {
        p = resize_in_place(lua, kind, ptr, osize, nsize);
        p = p != NULL ? p : move(lua, ptr, osize, nsize);
    }
    if (p != NULL && nsize > osize) {
        take(lua, nsize - osize);
    } else if (p != NULL) {
        lua->headroom += (int64_t)(osize - nsize);
    }
    return p;
}

/* ---- the hot paths ------------------------------------------------------ */

/* Apart from a free's nsize, sizes are never 0 here. */

HAK_INLINE void *object_new(struct hak_lua_heap *lua, void *ptr, size_t tag,
                            size_t nsize)
{
    struct hak_bin *bin = bin_for(lua, nsize);
    void *p;

    if (HAK_UNLIKELY(bin == NULL)) {
        return new_slow(lua, ptr, tag, nsize);
    }
    lua->headroom -= (int64_t)nsize;
    if (HAK_UNLIKELY(lua->headroom < 0)) {
        return new_peak(lua, ptr, tag, nsize);
    }
    p = haki_embed_pop(bin);
    if (HAK_UNLIKELY(p == NULL)) {
        return new_again(lua, ptr, tag, nsize);
    }
    count_type(lua, tag, nsize);
    return p;
}

HAK_INLINE void *object_free(struct hak_lua_heap *lua, void *ptr, size_t osize,
                             size_t nsize)
{
    lua->headroom += (int64_t)osize;
    return free_block(lua, ptr, osize, nsize);
}

/* The block was moved to p and its old bin is due for a look. */
SLOW void *moved(struct hak_lua_heap *lua, void *p, struct hak_bin *from)
{
    haki_embed_look(hak_lua_core(lua), from);
    return p;
}

/* Both sizes are up to 128 B and the block is ours: bin to bin, or nothing. */
SLOW void *resize_step(struct hak_lua_heap *lua, void *ptr, size_t osize,
                       size_t nsize)
{
    struct hak_bin *from = bin_step(lua, osize);
    struct hak_bin *to = bin_step(lua, nsize);
    int64_t headroom = lua->headroom + (int64_t)osize - (int64_t)nsize;
    void *p = ptr;

    if (HAK_UNLIKELY(headroom < 0)) {
        return resize_slow(lua, ptr, osize, nsize);
    }
    if (from != to) {
        p = haki_embed_pop(to);
        if (HAK_UNLIKELY(p == NULL)) {
            return resize_slow(lua, ptr, osize, nsize);
        }
        haki_embed_copy(p, ptr, haki_min(osize, nsize), 8);
        lua->headroom = headroom;
        return HAK_LIKELY(haki_embed_push(from, ptr)) ? p : moved(lua, p, from);
    }
    lua->headroom = headroom;
    return p;
}

_Static_assert((HAK_LANE_TINY_MAX & (HAK_LANE_TINY_MAX - 1)) == 0 &&
                   (HAK_EMBED_STEP_MAX & (HAK_EMBED_STEP_MAX - 1)) == 0,
               "two sizes less 1 are both below it if their bits are");

HAK_INLINE void *object_resize(struct hak_lua_heap *lua, void *ptr,
                               size_t osize, size_t nsize)
{
    if (HAK_LIKELY(((osize - 1) | (nsize - 1)) < HAK_EMBED_STEP_MAX) &&
        in_range(lua, ptr)) {
        return resize_step(lua, ptr, osize, nsize);
    }
    return resize_slow(lua, ptr, osize, nsize);
}

void *hak_lua_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    if (nsize == 0) {
        if (ptr == NULL) {
            return NULL;
        }
        return HAK_LIKELY(ud != NULL)
                   ? object_free(ud, ptr, osize, nsize)
                   : hak_lua_thread_free(ud, ptr, osize, nsize);
    }
    if (ptr == NULL) {
        return HAK_LIKELY(ud != NULL)
                   ? object_new(ud, ptr, osize, nsize)
                   : hak_lua_thread_new(ud, ptr, osize, nsize);
    }
    return HAK_LIKELY(ud != NULL)
               ? object_resize(ud, ptr, osize, nsize)
               : hak_lua_thread_resize(ud, ptr, osize, nsize);
}
