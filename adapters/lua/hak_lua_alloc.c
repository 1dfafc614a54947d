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

/*
 * The bin for a size of 1 to 128 B, where classes are steps of 8, without a
 * table: bin (size - 1) / 8 of 32 bytes each.
 */
HAK_INLINE struct hak_bin *bin_step(struct hak_lua_heap *lua, size_t size)
{
    char *bins = (char *)hak_lua_core(lua)->tiny.bins;

    return (struct hak_bin *)(void *)(bins + ((size - 1) & ~(size_t)7) *
                                                 (sizeof(struct hak_bin) / 8));
}

/* The bin for a size, or NULL if the size is not ours. */
HAK_INLINE struct hak_bin *bin_for(struct hak_lua_heap *lua, size_t size)
{
    if (HAK_LIKELY(size - 1 < HAK_TINY_STEP_MAX)) {
        return bin_step(lua, size);
    }
    return route(size) ? &hak_lua_core(lua)->tiny.bins[class_for(size)] : NULL;
}

/*
 * Whether ptr is in the range; it is then a Tiny block of this heap, in the
 * bin that osize names (but for lua->size 0, when nobody is).
 */
HAK_INLINE bool in_range(const struct hak_lua_heap *lua, const void *ptr)
{
    return HAK_LIKELY((uintptr_t)ptr - lua->base < lua->size);
}

/* Copies n bytes, up to 128, as whole words: blocks are multiples of 8. */
HAK_INLINE void copy_words(void *to, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        memcpy((char *)to + i, (const char *)from + i, 8);
    }
}

HAK_INLINE void count_type(struct hak_lua_heap *lua, size_t tag, size_t size)
{
    lua->type_count[tag % HAK_LUA_TAGS]++;
    lua->type_bytes[tag % HAK_LUA_TAGS] += size;
}

/* ---- slow paths of a state on its own heap ------------------------------ */

/* Whether the limit lets `more` bytes in; counts a refusal. */
static bool admit(struct hak_lua_heap *lua, size_t more)
{
    if (more <= PTRDIFF_MAX && hak_lua_live(lua) + more <= lua->limit) {
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
    if (live > lua->peak) {
        lua->peak = live;
        hak_lua_set_gate(lua);
    }
}

/* A block of the fallback's: new (ptr NULL) or resized; not accounted. */
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

/*
 * What the hot path leaves: a large object, one that raises the peak or meets
 * the limit, an empty bin.
 */
static HAK_NOINLINE void *new_slow(struct hak_lua_heap *lua, size_t tag,
                                   size_t nsize)
{
    void *p = NULL;

    if (!admit(lua, nsize)) {
        return NULL;
    }
    if (route(nsize)) {
        p = tiny_new(lua, nsize);
    }
    if (HAK_UNLIKELY(p == NULL)) {
        p = from_fallback(lua, NULL, tag, nsize);
    }
    if (HAK_LIKELY(p != NULL)) {
        take(lua, nsize);
        count_type(lua, tag, nsize);
    }
    return p;
}

/* The same after the hot path took nsize from the headroom. */
static HAK_NOINLINE void *new_again(struct hak_lua_heap *lua, size_t tag,
                                    size_t nsize)
{
    lua->headroom += (int64_t)nsize;
    return new_slow(lua, tag, nsize);
}

/*
 * The hot path took nsize from the headroom and has overdrawn it: a new peak,
 * which is every allocation of a state that grows, or the limit.
 */
static HAK_NOINLINE void *new_peak(struct hak_lua_heap *lua, size_t tag,
                                   size_t nsize)
{
    size_t live = hak_lua_live(lua);
    void *p;

    if (HAK_UNLIKELY(live > lua->limit)) {
        return new_again(lua, tag, nsize);
    }
    p = hak_bin_pop(bin_for(lua, nsize));
    if (HAK_UNLIKELY(p == NULL)) {
        return new_again(lua, tag, nsize);
    }
    /* Below the limit the gate is the peak: see hak_lua_heap.h. */
    lua->peak = lua->gate = live;
    lua->headroom = 0;
    count_type(lua, tag, nsize);
    return p;
}

/*
 * The heap's own class of a block that the hot path did not take for ours,
 * or HAK_TINY_CLASSES if it is not of this heap.
 */
static unsigned class_by_tag(const struct hak_lua_heap *lua, const void *ptr)
{
    uint32_t tag;

    if (!hak_range_owns(ptr)) {
        return HAK_TINY_CLASSES;
    }
    tag = hak_range_tag(hak_range_offset(ptr));
    return HAK_TAG_HEAP(tag) == hak_lua_core(lua)->tiny.id
               ? hak_tiny_class_of(ptr, tag)
               : HAK_TINY_CLASSES;
}

/* Always NULL, as the other ends of hak_lua_alloc's way through a free. */
static HAK_NOINLINE void *free_slow(struct hak_lua_heap *lua, void *ptr,
                                    size_t osize)
{
    unsigned class = class_by_tag(lua, ptr);

    if (class < HAK_TINY_CLASSES) {
        hak_tiny_free(&hak_lua_core(lua)->tiny, class, ptr);
        return NULL;
    }
    lua->foreign++;
    lua->fallback(lua->fallback_ud, ptr, osize, 0);
    if (ptr == lua->main_block) {
        hak_lua_heap_end(lua);
    }
    return NULL;
}

static HAK_NOINLINE void *overflow(struct hak_tiny *tiny, struct hak_bin *bin)
{
    hak_tiny_look(tiny, bin);
    return NULL;
}

/* Frees without accounting; returns NULL. */
HAK_INLINE void *free_block(struct hak_lua_heap *lua, void *ptr, size_t osize)
{
    struct hak_bin *bin;

    if (HAK_UNLIKELY(!in_range(lua, ptr))) {
        return free_slow(lua, ptr, osize);
    }
    bin = bin_for(lua, osize);
    if (HAK_UNLIKELY(bin == NULL)) {
        return free_slow(lua, ptr, osize);
    }
    if (HAK_UNLIKELY(!hak_bin_push(bin, ptr))) {
        return overflow(&hak_lua_core(lua)->tiny, bin);
    }
    return NULL;
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
    unsigned class = class_by_tag(lua, ptr);
    void *p;

    if (nsize > osize && !admit(lua, nsize - osize)) {
        return NULL;
    }
    if (class == HAK_TINY_CLASSES) {
        p = resize_foreign(lua, ptr, osize, nsize);
    } else if (route(nsize) && class_for(nsize) == class) {
        p = ptr;
    } else {
        p = move(lua, ptr, osize, nsize);
    }
    if (p != NULL && nsize > osize) {
        take(lua, nsize - osize);
    } else if (p != NULL) {
        lua->headroom += (int64_t)(osize - nsize);
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

static HAK_NOINLINE void *thread_new(size_t nsize)
{
    enum hak_reason reason;
    void *p = route(nsize) ? hak_thread_alloc(class_for(nsize), &reason) : NULL;

    return p != NULL ? p : malloc(nsize);
}

static HAK_NOINLINE void *thread_resize(void *ptr, size_t osize, size_t nsize)
{
    void *p;

    if (!hak_range_owns(ptr)) {
        return realloc(ptr, nsize);
    }
    if (route(nsize) && class_for(nsize) == hak_tiny_class_at(ptr)) {
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

/* The state may be in any thread by now: a free goes by the slab's tag. */
static HAK_NOINLINE void *thread_free(void *ptr)
{
    if (hak_range_owns(ptr)) {
        hak_free(ptr);
    } else {
        free(ptr);
    }
    return NULL;
}

/* ---- the hot paths ------------------------------------------------------ */

/*
 * Sizes are never 0 here. Slow ends are tail calls, so that the hot ways need
 * no stack frame.
 */

HAK_INLINE void *object_new(struct hak_lua_heap *lua, size_t tag, size_t nsize)
{
    struct hak_bin *bin = bin_for(lua, nsize);
    void *p;

    if (HAK_UNLIKELY(bin == NULL)) {
        return new_slow(lua, tag, nsize);
    }
    lua->headroom -= (int64_t)nsize;
    if (HAK_UNLIKELY(lua->headroom < 0)) {
        return new_peak(lua, tag, nsize);
    }
    p = hak_bin_pop(bin);
    if (HAK_UNLIKELY(p == NULL)) {
        return new_again(lua, tag, nsize);
    }
    count_type(lua, tag, nsize);
    return p;
}

HAK_INLINE void *object_free(struct hak_lua_heap *lua, void *ptr, size_t osize)
{
    lua->headroom += (int64_t)osize;
    return free_block(lua, ptr, osize);
}

/* Both sizes are up to 128 B and the block is ours: bin to bin, or nothing. */
static HAK_NOINLINE void *resize_step(struct hak_lua_heap *lua, void *ptr,
                                      size_t osize, size_t nsize)
{
    struct hak_bin *from = bin_step(lua, osize);
    struct hak_bin *to = bin_step(lua, nsize);
    int64_t headroom = lua->headroom + (int64_t)osize - (int64_t)nsize;
    void *p = ptr;

    if (HAK_UNLIKELY(headroom < 0)) {
        return resize_slow(lua, ptr, osize, nsize);
    }
    if (from != to) {
        p = hak_bin_pop(to);
        if (HAK_UNLIKELY(p == NULL)) {
            return resize_slow(lua, ptr, osize, nsize);
        }
        copy_words(p, ptr, hak_min(osize, nsize));
        if (HAK_UNLIKELY(!hak_bin_push(from, ptr))) {
            hak_tiny_look(&hak_lua_core(lua)->tiny, from);
        }
    }
    lua->headroom = headroom;
    return p;
}

HAK_INLINE void *object_resize(struct hak_lua_heap *lua, void *ptr,
                               size_t osize, size_t nsize)
{
    if (HAK_LIKELY(((osize - 1) | (nsize - 1)) < HAK_TINY_STEP_MAX) &&
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
        return HAK_LIKELY(ud != NULL) ? object_free(ud, ptr, osize)
                                      : thread_free(ptr);
    }
    if (ptr == NULL) {
        return HAK_LIKELY(ud != NULL) ? object_new(ud, osize, nsize)
                                      : thread_new(nsize);
    }
    return HAK_LIKELY(ud != NULL) ? object_resize(ud, ptr, osize, nsize)
                                  : thread_resize(ptr, osize, nsize);
}
