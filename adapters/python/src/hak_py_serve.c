/*
 * hak_py_serve.c - the functions that CPython calls.
 *
 * mem and obj: a block from a bin of the GIL's heap, otherwise a tail call into
 * hak_py_slow.c. raw, which is used without the GIL: the thread's heap, as
 * hak_malloc.
 */
#include <string.h>

#include "hak_py.h"

char hak_py_none[HAK_PAGE] __attribute__((aligned(64)));
char hak_py_threads[HAK_PAGE] __attribute__((aligned(64)));
char hak_py_lent[HAK_PAGE] __attribute__((aligned(64)));

/* ---- mem and obj ----------------------------------------------------------- */

/*
 * The bin for a size; NULL if it is not a Tiny size. Sizes from 1 to 128 B need
 * no table: they use every second class, one for each 16 B, beginning with the
 * second.
 */
HAK_INLINE struct hak_bin *bin_for(struct hak_heap *heap, size_t size)
{
    uint16_t at;

    if (HAK_LIKELY(size - 1 < HAK_EMBED_STEP_MAX)) {
        return haki_embed_bin_for(heap, size, 16);
    }
    if (HAK_UNLIKELY(size > HAK_LANE_TINY_MAX)) {
        return NULL;
    }
    at = hak_py_extra(heap)->bins[(size + 15) / 16];
    return (struct hak_bin *)(void *)((char *)heap + at);
}

/* Pops a block for domain `which`, or NULL. */
HAK_INLINE void *pop(struct hak_heap *heap, struct hak_bin *bin, unsigned which)
{
    void *p = haki_embed_pop(bin);

    if (HAK_LIKELY(p != NULL) && which < HAK_PY_OBJ) {
        hak_py_extra(heap)->tiny[which]++;
    }
    return p;
}

HAK_INLINE void *serve_malloc(unsigned which, size_t size)
{
    struct hak_py_domain *d = &hak_py.domains[which];
    struct hak_heap *heap = hak_py_hot(d);
    struct hak_bin *bin = bin_for(heap, size);
    void *p;

    if (HAK_UNLIKELY(bin == NULL)) {
        return hak_py_malloc(d, size);
    }
    p = pop(heap, bin, which);
    return HAK_LIKELY(p != NULL) ? p : hak_py_malloc(d, size);
}

HAK_INLINE void *serve_calloc(unsigned which, size_t count, size_t size)
{
    struct hak_py_domain *d = &hak_py.domains[which];
    struct hak_heap *heap = hak_py_hot(d);
    struct hak_bin *bin;
    size_t bytes;
    void *p;

    if (HAK_UNLIKELY(__builtin_mul_overflow(count, size, &bytes))) {
        return NULL;
    }
    bin = bin_for(heap, bytes);
    if (HAK_UNLIKELY(bin == NULL)) {
        return hak_py_calloc(d, count, size);
    }
    p = pop(heap, bin, which);
    if (HAK_UNLIKELY(p == NULL)) {
        return hak_py_calloc(d, count, size);
    }
    return memset(p, 0, bytes);
}

/* p's class byte: HAK_EMBED_TINY or more if it is not a Tiny block of the
 * heap's. */
HAK_INLINE uint32_t byte_in(const struct hak_heap *heap, const void *p)
{
    return HAK_LIKELY(haki_embed_covers(p))
               ? haki_embed_byte(heap, haki_embed_tag(p))
               : HAK_EMBED_TINY;
}

HAK_INLINE void serve_free(unsigned which, void *p)
{
    struct hak_py_domain *d = &hak_py.domains[which];
    struct hak_heap *heap = hak_py_hot(d);
    uint32_t byte = byte_in(heap, p);
    struct hak_bin *bin;

    if (HAK_UNLIKELY(byte >= HAK_EMBED_TINY)) {
        hak_py_free(d, p);
        return;
    }
    bin = haki_embed_bin_at(heap, byte);
    if (HAK_UNLIKELY(!haki_embed_push(bin, p))) {
        hak_py_look(bin);
    }
}

/* A block that shrinks by less than a quarter stays. */
HAK_INLINE bool stays(size_t old, size_t size)
{
    return size <= old && size > old - old / 4;
}

HAK_INLINE void *serve_realloc(unsigned which, void *p, size_t size)
{
    struct hak_py_domain *d = &hak_py.domains[which];
    struct hak_heap *heap = hak_py_hot(d);
    uint32_t byte = byte_in(heap, p);
    struct hak_bin *from, *to;
    size_t old;
    void *moved;

    to = bin_for(heap, size);
    if (HAK_UNLIKELY(byte >= HAK_EMBED_TINY || to == NULL)) {
        return p == NULL ? serve_malloc(which, size)
                         : hak_py_realloc(d, p, size);
    }
    from = haki_embed_bin_at(heap, byte);
    old = haki_embed_bytes_at(byte);
    if (from == to || stays(old, size)) {
        return p;
    }
    moved = pop(heap, to, which);
    if (HAK_UNLIKELY(moved == NULL)) {
        return hak_py_realloc(d, p, size);
    }
    haki_embed_copy(moved, p, haki_min(old, size), 16);
    if (HAK_UNLIKELY(!haki_embed_push(from, p))) {
        hak_py_look(from);
    }
    return moved;
}

/* ---- raw -------------------------------------------------------------------- */

static void *raw_malloc(void *ctx, size_t size)
{
    struct hak_py_domain *d = &hak_py.domains[HAK_PY_RAW];
    void *p;

    (void)ctx;
    if (HAK_UNLIKELY(!d->plain || size > HAK_PY_TINY_MAX)) {
        return hak_py_malloc(d, size);
    }
    p = haki_hot_tiny(size + HAK_GUARD_BYTES, size);
    if (HAK_UNLIKELY(p == NULL)) {
        return hak_py_malloc(d, size);
    }
    hak_py_count(haki_self, d, size);
    return p;
}

static void *raw_calloc(void *ctx, size_t count, size_t size)
{
    (void)ctx;
    return hak_py_calloc(&hak_py.domains[HAK_PY_RAW], count, size);
}

static void *raw_realloc(void *ctx, void *p, size_t size)
{
    (void)ctx;
    return hak_py_realloc(&hak_py.domains[HAK_PY_RAW], p, size);
}

static void raw_free(void *ctx, void *p)
{
    struct hak_py_domain *d = &hak_py.domains[HAK_PY_RAW];

    (void)ctx;
    if (HAK_UNLIKELY(!d->plain || !haki_hot_free(p, 0))) {
        hak_py_free(d, p);
    }
}

/* ---- as CPython sees them ---------------------------------------------------- */

#define SERVE(name, which)                                                     \
    static void *name##_malloc(void *ctx, size_t size)                         \
    {                                                                          \
        (void)ctx;                                                             \
        return serve_malloc(which, size);                                      \
    }                                                                          \
    static void *name##_calloc(void *ctx, size_t count, size_t size)           \
    {                                                                          \
        (void)ctx;                                                             \
        return serve_calloc(which, count, size);                               \
    }                                                                          \
    static void *name##_realloc(void *ctx, void *p, size_t size)               \
    {                                                                          \
        (void)ctx;                                                             \
        return serve_realloc(which, p, size);                                  \
    }                                                                          \
    static void name##_free(void *ctx, void *p)                                \
    {                                                                          \
        (void)ctx;                                                             \
        serve_free(which, p);                                                  \
    }

SERVE(mem, HAK_PY_MEM)
SERVE(obj, HAK_PY_OBJ)

const PyMemAllocatorEx hak_py_functions[HAK_PY_DOMAINS] = {
    {NULL, raw_malloc, raw_calloc, raw_realloc, raw_free},
    {NULL, mem_malloc, mem_calloc, mem_realloc, mem_free},
    {NULL, obj_malloc, obj_calloc, obj_realloc, obj_free},
};
