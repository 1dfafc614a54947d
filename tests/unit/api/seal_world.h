/*
 * seal_world.h - objects with holes between them, sealed or not, and pages of
 * sealed slabs that crash whoever writes to them: for seal*.c.
 */
#ifndef SEAL_WORLD_H
#define SEAL_WORLD_H

#include "heap/heap.h"
#include "pool_check.h"
#include "tiny_check.h"
#include "unit.h"

/* ---- a parent with holes --------------------------------------------------- */

enum { OBJECTS = 20000 };

/* Every size class of Tiny, and some of Pool's. */
UNIT size_t size_of(size_t i)
{
    return i % 50 == 49 ? 1100 + i % 40 * 300 : 8 + i * 37 % 900;
}

struct world {
    hak_heap *heap; /* NULL: the thread's */
    size_t count;
    char *p[OBJECTS];
};

__attribute__((unused)) static struct world world;

UNIT void *take(struct world *w, size_t size)
{
    void *p =
        w->heap != NULL ? hak_heap_malloc(w->heap, size) : hak_malloc(size);

    NEED(p != NULL);
    return p;
}

UNIT void drop(struct world *w, void *p)
{
    if (w->heap != NULL) {
        hak_heap_free(w->heap, p);
    } else {
        hak_free(p);
    }
}

UNIT void drop_at(struct world *w, size_t i)
{
    if (w->p[i] != NULL) {
        NEED(unit_filled(w->p[i], size_of(i), (unsigned)i));
        drop(w, w->p[i]);
        w->p[i] = NULL;
    }
}

/* Objects with contents, of which every tenth is freed, in no order. */
UNIT void build(struct world *w)
{
    w->count = unit_scale(OBJECTS, 4000);
    for (size_t i = 0; i < w->count; i++) {
        w->p[i] = take(w, size_of(i));
        unit_fill(w->p[i], size_of(i), (unsigned)i);
    }
    for (size_t i = 0; i < w->count; i++) {
        if (i * 7919 % w->count % 10 == 0) {
            drop_at(w, i * 7919 % w->count);
        }
    }
}

UNIT void verify(const struct world *w)
{
    for (size_t i = 0; i < w->count; i++) {
        NEED(w->p[i] == NULL || unit_filled(w->p[i], size_of(i), (unsigned)i));
    }
}

UNIT void drop_all(struct world *w)
{
    for (size_t i = 0; i < w->count; i++) {
        drop_at(w, i);
    }
}

UNIT bool in_sealed(const void *p)
{
    return haki_range_sealed(haki_range_offset(p));
}

UNIT size_t sealed_bytes(void)
{
    return unit_stats().sealed_bytes;
}

UNIT void check(const struct hak_heap *heap)
{
    tiny_check(&heap->tiny);
    if (heap->pool != NULL) {
        pool_check(heap->pool);
    }
}

/* Many allocations and frees, of which none may lie in a sealed slab. */
UNIT void churn(struct world *w, size_t n)
{
    struct unit_random random = {n};
    char *mine[500] = {NULL};
    size_t size[500];

    for (size_t i = 0; i < n; i++) {
        size_t k = unit_below(&random, 500);

        if (mine[k] != NULL) {
            NEED(unit_filled(mine[k], size[k], (unsigned)k));
            drop(w, mine[k]);
        }
        size[k] = size_of(unit_below(&random, 10000));
        mine[k] = take(w, size[k]);
        NEED(!in_sealed(mine[k]));
        unit_fill(mine[k], size[k], (unsigned)k);
    }
    for (size_t k = 0; k < 500; k++) {
        if (mine[k] != NULL) {
            drop(w, mine[k]);
        }
    }
}

/* ---- a write to a sealed slab is a crash ------------------------------------ */

/* So many superslabs are looked through; the tests use fewer. */
enum { SUPERS = 64 };

/*
 * `on`: protects sealed slabs; the others, which may have been given back
 * since, can be written to. How many are protected.
 */
UNIT size_t protect(bool on)
{
    uint32_t first = unit_first_slab();
    size_t count = 0;

    for (uint32_t n = first; n < first + SUPERS * HAK_SUPER_SLABS; n++) {
        bool ours = on && haki_range_sealed((size_t)n << HAK_SLAB_SHIFT);

        if (haki_supers.at[n / HAK_SUPER_SLABS].state == HAK_SUPER_FRESH) {
            break;
        }
        NEED(mprotect(haki_range_slab_start(n), HAK_SLAB_SIZE,
                      ours ? PROT_READ : PROT_READ | PROT_WRITE) == 0);
        count += ours;
    }
    return count;
}

#define SKIP_IF_HARD()                                                         \
    do {                                                                       \
        if (HAK_HARD) {                                                        \
            cr_skip("the hardened build marks blocks when they are freed");    \
        }                                                                      \
    } while (0)

/* Frees some of the blocks in each way that the thread has. */
UNIT void free_some(struct world *w)
{
    for (size_t i = 0; i < w->count; i++) {
        char *p = w->p[i];

        if (p == NULL || i % 4 == 0) {
            continue;
        }
        w->p[i] = NULL;
        switch (i % 4) {
        case 1: drop(w, p); break;
        case 2: hak_free_sized(p, size_of(i)); break;
        default:
            p = w->heap != NULL ? hak_heap_realloc(w->heap, p, 70000)
                                : hak_realloc(p, 70000);
            NEED(p != NULL && unit_filled(p, size_of(i), (unsigned)i));
            drop(w, p);
        }
    }
}

UNIT void *churn_and_end(void *arg)
{
    churn(&world, 3000);
    check(haki_self);
    return arg;
}

#endif
