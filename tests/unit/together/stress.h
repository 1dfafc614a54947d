/*
 * stress.h - threads whose blocks know what is in them: for stress.c and
 * stress_lanes.c, which say which sizes there are (random_size), how a block is got
 * (get), and before this is included:
 *
 *   PLACES  blocks that belong to whoever takes them
 *   MINE    blocks that a thread has at a time
 *   MARK    so many of a block's bytes are filled and looked at, its last ones
 *   MOST    no block has more bytes
 */
#ifndef STRESS_H
#define STRESS_H

#include "unit.h"

/* A block's first bytes: what is in it. */
struct content {
    uint32_t size;
    uint32_t seed;
};

static _Atomic(char *) places[PLACES];
static _Atomic(size_t) handed;

static size_t random_size(struct unit_random *random);
static char *get(size_t size, struct unit_random *random);

UNIT size_t marked(size_t size)
{
    return haki_min(size - sizeof(struct content), MARK);
}

UNIT char *fill(char *p, size_t size, uint32_t seed)
{
    struct content content = {(uint32_t)size, seed};
    size_t n = marked(size);

    NEED(p != NULL);
    memcpy(p, &content, sizeof(content));
    unit_fill(p + size - n, n, seed);
    return p;
}

UNIT size_t check(const char *p)
{
    struct content content;
    size_t n;

    memcpy(&content, p, sizeof(content));
    NEED(content.size >= sizeof(content) && content.size <= MOST);
    n = marked(content.size);
    NEED(unit_filled(p + content.size - n, n, content.seed));
    return content.size;
}

UNIT void drop(char *p, struct unit_random *random)
{
    if (p != NULL) {
        size_t size = check(p);

        unit_below(random, 2) ? hak_free(p) : hak_free_sized(p, size);
    }
}

/* ---- steps ---------------------------------------------------------------- */

/* Its contents are those of before, as far as it is as long. */
UNIT char *resize(char *p, size_t size)
{
    size_t old = check(p);
    struct content content;

    p = hak_realloc(p, size);
    NEED(p != NULL);
    memcpy(&content, p, sizeof(content));
    NEED(content.size == old);
    if (size >= old) {
        check(p);
    } else if (marked(old) == old - sizeof(content)) { /* all of it was */
        NEED(unit_filled(p + sizeof(content), size - sizeof(content),
                         content.seed));
    }
    return p;
}

/* One step on one's own blocks. */
UNIT void step_mine(char **mine, struct unit_random *random)
{
    char **at = &mine[unit_below(random, MINE)];
    size_t size = random_size(random);
    uint32_t seed = (uint32_t)unit_next(random);

    if (*at != NULL && seed % 4 == 0) {
        *at = fill(resize(*at, size), size, seed);
        return;
    }
    drop(*at, random);
    *at = fill(get(size, random), size, seed);
}

/* One block goes to whoever takes it, and another is taken. */
UNIT void step_shared(char **mine, struct unit_random *random)
{
    char **at = &mine[unit_below(random, MINE)];

    *at = atomic_exchange(&places[unit_below(random, PLACES)], *at);
    if (*at != NULL) {
        check(*at);
        atomic_fetch_add_explicit(&handed, 1, memory_order_relaxed);
    }
}

/* A heap of one's own with a limit, some of its blocks freed through hak_free. */
UNIT void step_heap(struct unit_random *random, size_t limit)
{
    enum { COUNT = 60 };
    hak_heap_config config = {.size = sizeof(config), .limit = limit};
    hak_heap *heap = hak_heap_new(&config);
    char *p[COUNT];

    NEED(heap != NULL);
    for (size_t i = 0; i < COUNT; i++) {
        size_t size = random_size(random);

        p[i] = hak_heap_malloc(heap, size);
        if (p[i] != NULL) {
            fill(p[i], size, (uint32_t)i);
        }
    }
    for (size_t i = 0; i < COUNT; i++) {
        if (p[i] != NULL) {
            check(p[i]);
            i % 3 == 0   ? hak_heap_free(heap, p[i])
            : i % 3 == 1 ? hak_free(p[i])
                         : (void)0;
        }
    }
    NEED(hak_heap_live(heap) <= limit);
    hak_heap_delete(heap);
}

UNIT void drop_mine(char **mine, struct unit_random *random)
{
    for (size_t k = 0; k < MINE; k++) {
        drop(mine[k], random);
    }
}

/* What lies in the places goes; others may be at it. */
UNIT void drop_places(void)
{
    struct unit_random random = {1};

    for (size_t i = 0; i < PLACES; i++) {
        drop(atomic_exchange(&places[i], NULL), &random);
    }
}

#endif
