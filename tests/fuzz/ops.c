/*
 * ops.c - the fuzzer: bytes are read as operations on the public interface,
 * run beside the shadow model (model.h).
 *
 * Every byte string is a valid input. An operation is a byte and its
 * arguments; what can't be done (no block, no room) does nothing. Operations
 * may be handed to a thread that ends after them, so that its heap is parked
 * and adopted, to one of two that stay, or to the destructors of a thread's
 * end; the others wait meanwhile, so a run does the same each time, except for
 * one operation, in which two threads free and allocate at once.
 *
 * Built twice: with libFuzzer (make fuzz), and with replay.c, which runs the
 * inputs of tests/fuzz/corpus (make test).
 */
#include "ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "script.h"
#include "threads.h"

/* A byte names an operation and, with what is left of it, a variant. */
#define SEAL_VARIANT 5 /* from here on a trim is a seal */

/* ---- which block, which heap -------------------------------------------- */

/* A live block; only if there is one. */
static uint16_t pick(void)
{
    return model.live[script_next2() % model.count];
}

/* A heap in use, or MODEL_NO_HEAP. */
static int pick_heap(void)
{
    size_t at = script_next() % MODEL_HEAPS;

    for (size_t i = 0; i < MODEL_HEAPS; i++, at = (at + 1) % MODEL_HEAPS) {
        if (model.heaps[at].heap != NULL) {
            return (int)at;
        }
    }
    return MODEL_NO_HEAP;
}

/* ---- allocating --------------------------------------------------------- */

static void do_malloc(void)
{
    size_t size = script_size();

    if (model_room(size)) {
        script_pay(size);
        model_add(hak_malloc(size), size, 1, MODEL_NO_HEAP, false, size & 1);
    }
}

static void do_malloc_many(void)
{
    size_t size = script_size();
    size_t count = script_count(size);

    for (size_t i = 0; i < count && model_room(size); i++) {
        script_pay(size);
        model_add(hak_malloc(size), size, 1, MODEL_NO_HEAP, false, i & 1);
    }
}

/* Sizes that go up or down, across classes. */
static void do_malloc_ramp(void)
{
    size_t size = script_size();
    size_t step = script_next() * 8;
    size_t count = 1 + script_next() % 64;

    for (size_t i = 0; i < count && model_room(size); i++) {
        script_pay(size);
        model_add(hak_malloc(size), size, 1, MODEL_NO_HEAP, false, i & 1);
        size += step;
    }
}

static void do_calloc(void)
{
    size_t size = script_size();
    size_t count = 1 + script_next() % 3;

    if (model_room(size * count)) {
        script_pay(2 * size * count);
        model_add(hak_calloc(count, size), size * count, 1, MODEL_NO_HEAP, true,
                  size & 1);
    }
}

static void do_aligned(void)
{
    size_t alignment = script_alignment();
    size_t size = script_size();
    size_t count = 1 + script_next() % 4;

    for (size_t i = 0; i < count && model_room(size); i++) {
        script_pay(size);
        model_add(hak_aligned_alloc(alignment, size), size, alignment,
                  MODEL_NO_HEAP, false, i & 1);
    }
}

/* NULL because of the heap's limit: it must be near. */
static void need_limit(int at, size_t size)
{
    const struct model_heap *heap = &model.heaps[at];
    size_t most = heap->usable + heap->usable / 4 + 16 * heap->blocks + size +
                  size / 4 + 4096;

    if (heap->limit == 0 || most <= heap->limit) {
        model_fail("hak_heap: no memory for %zu bytes, the limit is %zu, in "
                   "use %zu",
                   size, heap->limit, heap->bytes);
    }
    if (errno != ENOMEM) {
        model_fail("hak_heap: no memory, but errno is %d", errno);
    }
}

static void need_under_limit(int at)
{
    const struct model_heap *heap = &model.heaps[at];

    if (heap->limit != 0 && heap->bytes > heap->limit) {
        model_fail("hak_heap: %zu bytes in use, the limit is %zu", heap->bytes,
                   heap->limit);
    }
}

static void heap_malloc(int at, size_t size, bool brim)
{
    void *p;

    if (!model_room(size)) {
        return;
    }
    script_pay(size);
    errno = 0;
    p = hak_heap_malloc(model.heaps[at].heap, size);
    if (p == NULL) {
        need_limit(at, size);
        return;
    }
    model_add(p, size, 1, at, false, brim);
    need_under_limit(at);
}

static void do_heap_malloc(void)
{
    int at = pick_heap();
    size_t size = script_size();

    if (at != MODEL_NO_HEAP) {
        heap_malloc(at, size, size & 1);
    }
}

static void do_heap_malloc_many(void)
{
    int at = pick_heap();
    size_t size = script_size();
    size_t count = script_count(size);

    for (size_t i = 0; i < count && at != MODEL_NO_HEAP; i++) {
        heap_malloc(at, size, i & 1);
    }
}

/* ---- freeing ------------------------------------------------------------ */

/* Frees a block in one of the ways that are open to it. */
static void release(uint16_t at, size_t way)
{
    struct model_block block = model_remove(at);

    script_pay(0);
    errno = 1234;
    if (block.heap != MODEL_NO_HEAP && way % 2 == 0) {
        hak_heap_free(model.heaps[block.heap].heap, block.p);
    } else if (way % 4 >= 2) {
        hak_free_sized(block.p, block.size);
    } else {
        hak_free(block.p);
    }
    if (errno != 1234) {
        model_fail("block %p of %zu bytes: its free changed errno to %d",
                   (void *)block.p, block.size, errno);
    }
}

static void do_free(void)
{
    size_t way = script_next();

    if (model.count > 0) {
        release(pick(), way);
    }
}

/* Of the blocks that were given out last, or of all, in no order. */
static void do_free_many(void)
{
    size_t way = script_next();
    size_t count = (1 + script_next()) * (way >= 128 ? 16 : 1);

    for (size_t i = 0; i < count && model.count > 0; i++) {
        size_t at = way & 4 ? model.count - 1 : i * 7919 % model.count;

        release(model.live[at], way);
    }
}

/* Neighbours: all, or every second or third, upwards from a block or down. */
static void do_free_near(void)
{
    size_t way = script_next();
    size_t count = 1 + script_next();
    size_t step = way / 4 % 3, i;

    if (model.count == 0) {
        return;
    }
    i = model_position(pick());
    for (; count > 0 && i < model.count; count--) {
        release(model.sorted[i], way);
        i = way >= 128 ? i - 1 - step : i + step;
    }
}

/* All blocks of more than some size: leaves holes, or only what is large. */
static void do_free_larger(void)
{
    size_t size = script_size();
    size_t way = script_next();

    for (size_t i = model.count; i-- > 0;) {
        if ((model.blocks[model.live[i]].size > size) == (way < 128)) {
            release(model.live[i], way);
        }
    }
}

/* ---- resizing ----------------------------------------------------------- */

static void resize(uint16_t at, size_t size, bool brim)
{
    struct model_block old;
    void *p;

    if (!model_room(size)) {
        return;
    }
    script_pay(size);
    old = model_remove(at);
    errno = 0;
    p = old.heap == MODEL_NO_HEAP
            ? hak_realloc(old.p, size)
            : hak_heap_realloc(model.heaps[old.heap].heap, old.p, size);
    if (p == NULL && old.heap != MODEL_NO_HEAP) {
        need_limit(old.heap, old.size + size);
        model_kept(&old, old.p, old.filled);
        p = old.p;
        size = old.size;
    } else if (p != NULL) {
        model_kept(&old, p, old.filled < size ? old.filled : size);
    }
    model_add(p, size, 1, old.heap, false, brim);
    if (old.heap != MODEL_NO_HEAP) {
        need_under_limit(old.heap);
    }
}

static void do_realloc(void)
{
    size_t size = script_size();

    if (model.count > 0) {
        resize(pick(), size, size & 1);
    }
}

/* A block grows (or shrinks) step by step, as a vector does. */
static void do_realloc_steps(void)
{
    size_t way = script_next();
    size_t count = 1 + script_next() % 16;
    uint16_t at;

    if (model.count == 0) {
        return;
    }
    at = pick();
    for (size_t i = 0; i < count; i++) {
        size_t size = model.blocks[at].size;
        size_t step = size / (1 + way / 4 % 8) + 1;

        /* A block that is resized keeps its place in the table. */
        resize(at, way & 1 ? size + step : size - (size < step ? size : step),
               way & 2);
    }
}

static void do_realloc_null(void)
{
    size_t size = script_size();

    if (model_room(size)) {
        script_pay(size);
        model_add(hak_realloc(NULL, size), size, 1, MODEL_NO_HEAP, false, true);
    }
}

/* ---- explicit heaps ------------------------------------------------- */

static void do_heap_new(void)
{
    size_t way = script_next();
    hak_heap_config config = {.size = sizeof(config), .name = "fuzz"};

    for (size_t i = 0; i < MODEL_HEAPS; i++) {
        struct model_heap *heap = &model.heaps[i];

        if (heap->heap == NULL) {
            *heap = (struct model_heap){0};
            heap->limit = way % 4 == 0 ? way << (8 + way / 16 % 8) : 0;
            config.limit = heap->limit;
            heap->heap = hak_heap_new(way % 4 == 1 ? NULL : &config);
            if (heap->heap == NULL) {
                model_fail("hak_heap_new fails");
            }
            return;
        }
    }
}

/* Its blocks go with it. */
static void heap_delete(int at)
{
    for (size_t i = model.count; i-- > 0;) {
        if (model.blocks[model.live[i]].heap == at) {
            model_remove(model.live[i]);
        }
    }
    hak_heap_delete(model.heaps[at].heap);
    model.heaps[at].heap = NULL;
}

static void do_heap_delete(void)
{
    int at = pick_heap();

    if (at != MODEL_NO_HEAP) {
        heap_delete(at);
    }
}

static void do_heap_trim(void)
{
    int at = pick_heap();

    if (at != MODEL_NO_HEAP) {
        if (script.variant >= SEAL_VARIANT) {
            hak_heap_seal(model.heaps[at].heap);
        } else {
            hak_heap_trim(model.heaps[at].heap);
        }
        model_check_heap(at);
        model_check_all();
        script.cost += model.count / 8;
    }
}

/* ---- the rest ----------------------------------------------------------- */

static void do_trim(void)
{
    if (script.variant >= SEAL_VARIANT) {
        hak_seal();
    } else {
        hak_trim();
    }
    model_check_all();
    script.cost += 50 + model.count / 8;
}

static void do_check(void)
{
    model_check_all();
    model_check_figures();
    script.cost += model.count / 8;
}

/* The text's length is told whether or not there is room for it. */
static void do_stats(void)
{
    char text[256];
    hak_stats_t stats = {.size = script_next() % 8};

    model_check_figures();
    memset(text, 1, sizeof(text));
    if (hak_stats_text(text, sizeof(text)) < sizeof(text) ||
        strlen(text) != sizeof(text) - 1 ||
        hak_stats_json(text, sizeof(text)) < sizeof(text) || text[0] != '{' ||
        strlen(text) != sizeof(text) - 1) {
        model_fail("hak_stats_text or hak_stats_json: '%.*s'",
                   (int)sizeof(text), text);
    }
    if (stats.size < sizeof(size_t) && hak_stats(&stats) == 0) {
        model_fail("hak_stats takes a size of %zu", stats.size);
    }
}

/* Hides from the compiler that a size is known to be wrong. */
static size_t hidden(size_t n)
{
    volatile size_t size = n;

    return size;
}

static void need_refused(const void *p, int error, const char *call)
{
    if (p != NULL || errno != error) {
        model_fail("%s: %p with errno %d, not NULL with %d", call, p, errno,
                   error);
    }
    errno = 0;
}

/* What must be refused, and nothing else may change. */
static void do_refused(void)
{
    size_t much = hidden(SIZE_MAX - script_next() * 4096);
    size_t count = hidden((size_t)1 << (33 + script_next() % 30));
    size_t wrong = hidden(script_next() * 2 + 3);
    int heap = pick_heap();

    errno = 0;
    need_refused(hak_malloc(much), ENOMEM, "hak_malloc");
    need_refused(hak_calloc(count, count), ENOMEM, "hak_calloc");
    need_refused(hak_aligned_alloc(64, much), ENOMEM, "hak_aligned_alloc");
    need_refused(hak_aligned_alloc(0, 64), EINVAL, "hak_aligned_alloc(0)");
    need_refused(hak_aligned_alloc(wrong | 1, 64), EINVAL, "hak_aligned_alloc");
    if (heap != MODEL_NO_HEAP) {
        need_refused(hak_heap_malloc(model.heaps[heap].heap, much), ENOMEM,
                     "hak_heap_malloc");
    }
    if (model.count > 0) {
        uint16_t at = pick();
        const struct model_block *block = &model.blocks[at];

        need_refused(block->heap == MODEL_NO_HEAP
                         ? hak_realloc(block->p, much)
                         : hak_heap_realloc(model.heaps[block->heap].heap,
                                            block->p, much),
                     ENOMEM, "hak_realloc");
        model_check(at);
    }
    hak_free(NULL);
    if (errno != 0 || hak_usable_size(NULL) != 0 || hak_owns(NULL) ||
        hak_owns(&much)) {
        model_fail("NULL or the stack: errno %d, usable %zu, owned %d %d",
                   errno, hak_usable_size(NULL), hak_owns(NULL),
                   hak_owns(&much));
    }
}

/* ---- the operations ------------------------------------------------------ */

/* What an operation is called and does; those that matter stand more often. */
static const struct {
    const char *name;
    void (*run)(void);
} operations[] = {
    {"malloc", do_malloc},
    {"malloc", do_malloc},
    {"malloc", do_malloc},
    {"malloc many", do_malloc_many},
    {"malloc many", do_malloc_many},
    {"malloc ramp", do_malloc_ramp},
    {"calloc", do_calloc},
    {"aligned_alloc", do_aligned},
    {"free", do_free},
    {"free", do_free},
    {"free many", do_free_many},
    {"free near", do_free_near},
    {"free near", do_free_near},
    {"free larger", do_free_larger},
    {"realloc", do_realloc},
    {"realloc", do_realloc},
    {"realloc in steps", do_realloc_steps},
    {"realloc of NULL", do_realloc_null},
    {"heap_new", do_heap_new},
    {"heap_malloc", do_heap_malloc},
    {"heap_malloc many", do_heap_malloc_many},
    {"heap_delete", do_heap_delete},
    {"heap_trim or seal", do_heap_trim},
    {"trim or seal", do_trim},
    {"check", do_check},
    {"stats", do_stats},
    {"refused", do_refused},
    {"thread", do_thread},
    {"worker", do_worker},
    {"two threads at once", do_at_once},
    {"worker ends", do_worker_end},
    {"at the thread's end", do_late},
};

#define OPERATIONS (sizeof(operations) / sizeof(operations[0]))

void ops_run(size_t count)
{
    for (size_t i = 0; i < count && script_has_more(); i++) {
        size_t what = script_next();
        size_t at = what % OPERATIONS;

        script.variant = what / OPERATIONS;
        model.operation = operations[at].name;
        model.step++;
        script.cost++;
        operations[at].run();
    }
}

/* ---- an input ----------------------------------------------------------- */

/* All blocks are freed, in one of four orders. */
static void free_all(size_t way)
{
    while (model.count > 0) {
        size_t last = model.count - 1;

        switch (way / 4 % 4) {
        case 0: release(model.sorted[0], way); break;
        case 1: release(model.sorted[last], way); break;
        case 2: release(model.live[last], way); break;
        default: release(model.sorted[last / 2], way); break;
        }
    }
}

static void delete_heaps(void)
{
    for (int i = 0; i < MODEL_HEAPS; i++) {
        if (model.heaps[i].heap != NULL) {
            hak_heap_trim(model.heaps[i].heap);
            model_check_heap(i);
            heap_delete(i);
        }
    }
}

/* The first byte says how the run ends, the rest is operations. */
static void run_input(void)
{
    size_t way = script_next();

    ops_run(SIZE_MAX);
    model.operation = "end";
    if (way & 64) {
        free_all(way);
    }
    threads_end();
    if (way & 32) {
        delete_heaps();
    }
    free_all(way);
    delete_heaps();
    hak_trim();
    model_check_end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    script.at = data;
    script.end = data + size;
    script.cost = 0;
    model_begin();
    run_input();
    return 0;
}
