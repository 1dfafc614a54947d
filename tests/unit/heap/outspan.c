/*
 * outspan.c - tests of Pool blocks freed by another thread than their heap's:
 * batches, when they are sent, what is wrong with a block, fork.
 */
#include "block.h"
#include "heap/outspan.h"
#include "heap/thread.h"
#include "pool_check.h"
#include "unit.h"

TestSuite(outspan, .timeout = 300);

/* A page each, with the hardened build's guards. */
enum { SIZE = 4096 - 64, BLOCK = 4096, MANY = 40 };

static char *blocks[MANY];
static struct hak_heap *owner;

static void make_blocks(size_t size)
{
    for (size_t i = 0; i < MANY; i++) {
        blocks[i] = hak_malloc(size);
        NEED(blocks[i] != NULL);
    }
    owner = haki_self;
}

/* Blocks on their way back that their spans know of. */
static size_t sent_count(void)
{
    size_t count = 0;

    for (uint32_t n = owner->pool->all; n != HAK_NO_SLAB;
         n = haki_range_slab(n)->all_next) {
        count += (size_t)
            __builtin_popcountll(atomic_load(&haki_range_slab(n)->remote));
    }
    return count;
}

static size_t held_count(void)
{
    size_t count = 0;

    for (unsigned i = 0; i < HAK_OUTSPANS; i++) {
        count +=
            (size_t)__builtin_popcountll(haki_heap_outspan(haki_self, i)->bits);
    }
    return count;
}

static void *free_in_batches(void *arg)
{
    size_t most = 0;

    hak_free(hak_malloc(1));
    for (size_t i = 0; i < MANY; i++) {
        hak_free(blocks[i]);
        NEED(held_count() + sent_count() == i + 1);
        NEED(!haki_heap_is_busy(haki_self));
        most = haki_max(most, held_count());
    }
    NEED(HAK_HARD ? most == 0 : most > 4);
    NEED(most * BLOCK <= 64 * HAK_KIB);
    hak_free(hak_malloc(3000)); /* a heap of one's own changes nothing */
    haki_thread_send(haki_self);
    NEED(held_count() == 0 && sent_count() == MANY);
    return arg;
}

Test(outspan, blocks_are_sent_in_batches)
{
    make_blocks(SIZE);
    unit_in_thread(free_in_batches, NULL);
    haki_pool_collect(owner->pool);
    cr_assert_eq(owner->pool->remote_frees, MANY);
    cr_assert_eq(owner->pool->remote_bytes, MANY * BLOCK);
    pool_check(owner->pool);
}

static void *free_all(void *arg)
{
    for (size_t i = 0; i < MANY; i++) {
        hak_free(blocks[i]);
    }
    return arg;
}

Test(outspan, all_sizes_come_back_when_the_thread_ends)
{
    for (size_t size = HAK_POOL_MIN_SIZE; size <= HAK_POOL_MAX_SIZE;
         size += 3001) {
        uint64_t before = owner != NULL ? owner->pool->remote_frees : 0;

        make_blocks(size);
        unit_in_thread(free_all, NULL);
        haki_pool_collect(owner->pool);
        cr_assert_eq(owner->pool->remote_frees - before, MANY);
        pool_check(owner->pool);
    }
    hak_trim();
    cr_assert_eq(owner->pool->nslabs, 0);
}

/* ---- nothing is held back --------------------------------------------------- */

static void *make_and_end(void *arg)
{
    make_blocks(SIZE);
    return arg;
}

Test(outspan, what_an_ended_thread_left_goes_back_at_once)
{
    hak_free(hak_malloc(1));
    unit_in_thread(make_and_end, NULL);
    for (size_t i = 0; i < MANY; i++) {
        hak_free(blocks[i]);
        cr_assert_eq(held_count(), 0);
    }
    cr_assert_eq(unit_stats().pool_held_bytes, 0);
}

static void *free_of_explicit(void *arg)
{
    hak_free(hak_malloc(1));
    free_all(NULL);
    NEED(held_count() == 0);
    return arg;
}

Test(outspan, an_explicit_heap_s_go_back_at_once)
{
    hak_heap *heap = hak_heap_new(NULL);

    for (size_t i = 0; i < MANY; i++) {
        blocks[i] = hak_heap_malloc(heap, SIZE);
        cr_assert_not_null(blocks[i]);
    }
    unit_in_thread(free_of_explicit, NULL);
    hak_heap_delete(heap);
    hak_trim();
}

/* ---- misuse ------------------------------------------------------------------- */

static void *free_twice(void *arg)
{
    hak_free(hak_malloc(1));
    hak_free(blocks[0]);
    hak_free(blocks[1]);
    hak_free(blocks[0]);
    return arg;
}

static void call_free_twice(void *arg)
{
    unit_in_thread(free_twice, arg);
}

static void *free_once(void *arg)
{
    hak_free(hak_malloc(1));
    hak_free(blocks[0]);
    return arg;
}

/* Two threads free it: the second to send notices, as nobody did before. */
static void call_free_by_two(void *arg)
{
    unit_in_thread(free_once, arg);
    unit_in_thread(free_once, arg);
}

Test(outspan, a_block_freed_twice_is_fatal)
{
    if (UNIT_GCC_TSAN) {
        return;
    }
    make_blocks(SIZE);
    unit_expect_fatal(call_free_twice, NULL,
                      "hakmem: fatal: hak_free(%p): %s\n", (void *)blocks[0],
                      "a block that is free already");
    unit_expect_fatal(call_free_by_two, NULL,
                      "hakmem: fatal: hak_free(%p): %s\n", (void *)blocks[0],
                      "a block that is free already");
}

/* ---- fork -------------------------------------------------------------------- */

static pthread_barrier_t barrier;

static void *fill_boxes(void *arg)
{
    hak_free(hak_malloc(1));
    for (size_t i = 0; i < 5; i++) {
        hak_free(blocks[i]);
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return arg;
}

static void *adopt(void *arg)
{
    hak_free(hak_malloc(1));
    NEED(haki_self->tiny.id == 2);
    return arg;
}

static void adopt_boxes(void *arg)
{
    (void)arg;
    NEED(unit_stats().heaps_parked == 1);
    unit_in_thread(adopt, NULL);
    NEED(unit_stats().heaps_parked == 0);
    hak_trim();
    NEED(owner->pool->remote_frees == 5);
    pool_check(owner->pool);
}

/* Blocks in the boxes of a thread are not sent twice by parent and child. */
Test(outspan, an_adopted_heap_s_boxes_reach_their_owner_in_the_child)
{
    UNIT_SKIP_IF_GCC_TSAN();
    pthread_t thread;

    if (HAK_HARD) { /* nothing is held back: the heap ends */
        return;
    }
    make_blocks(SIZE);
    pthread_barrier_init(&barrier, NULL, 2);
    thread = unit_start(fill_boxes, NULL);
    pthread_barrier_wait(&barrier);
    unit_expect_ok(adopt_boxes, NULL);
    pthread_barrier_wait(&barrier);
    unit_join(thread);
    hak_trim();
    cr_assert_eq(owner->pool->remote_frees, 5);
    pool_check(owner->pool);
}
