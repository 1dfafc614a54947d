/*
 * bench_malloc_threads.c - rows of several threads: one allocates and another
 * frees, two exchange blocks, each for itself, a server whose threads come and
 * go, threads that do little.
 */
#include "bench_malloc.h"
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>

/* Blocks a thread of the server replaces before its successor takes over. */
#define TURN 50000

/* The queue tells the other side of this many blocks at once. */
#define PARCEL 16

#define THREADS_MAX 64

static void start(pthread_t *thread, void *(*run)(void *), void *arg,
                  bool detached)
{
    pthread_attr_t attributes;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, detached
                                                 ? PTHREAD_CREATE_DETACHED
                                                 : PTHREAD_CREATE_JOINABLE);
    if (pthread_create(thread, &attributes, run, arg) != 0)
        fail("cannot start a thread");
    pthread_attr_destroy(&attributes);
}

/* ---- one allocates, another frees ---------------------------------------- */

/* A bounded queue. Each side writes its own count and reads the other's. */
struct queue {
    const struct row *row;
    void **slots;
    _Alignas(64) _Atomic uint64_t put;
    _Alignas(64) _Atomic uint64_t taken;
};

/* Waits until the other side's count has reached `least`. */
static void wait_for(_Atomic uint64_t *count, uint64_t least)
{
    unsigned spins = 0;

    while (atomic_load_explicit(count, memory_order_acquire) < least) {
        if (++spins % 1024 == 0)
            sched_yield();
    }
}

static void *consume(void *arg)
{
    struct queue *queue = arg;
    uint64_t slots = queue->row->slots;

    for (uint64_t i = 0; i < queue->row->ops; i++) {
        void *block;

        if (i % PARCEL == 0)
            wait_for(&queue->put, i + PARCEL);
        block = queue->slots[i % slots];
        if (load_word(block, 0) != i)
            fail("a block does not hold what was written");
        free(block);
        if (i % PARCEL == PARCEL - 1)
            atomic_store_explicit(&queue->taken, i + 1, memory_order_release);
    }
    return NULL;
}

static void produce(struct queue *queue)
{
    const struct row *row = queue->row;
    uint64_t state = bench_first_state(8);

    for (uint64_t i = 0; i < row->ops; i++) {
        if (i % PARCEL == 0 && i >= row->slots)
            wait_for(&queue->taken, i + PARCEL - row->slots);
        queue->slots[i % row->slots] =
            new_block(size_of(row, bench_next(&state)), i);
        if (i % PARCEL == PARCEL - 1)
            atomic_store_explicit(&queue->put, i + 1, memory_order_release);
    }
}

/* row->ops and row->slots are multiples of PARCEL. */
void run_queue(const struct row *row)
{
    static struct queue queue;
    pthread_t consumer;

    queue.row = row;
    queue.slots = new_slots(row);
    meter_begin();
    start(&consumer, consume, &queue, false);
    produce(&queue);
    pthread_join(consumer, NULL);
    meter_end();
}

/* ---- two that exchange ----------------------------------------------------- */

/* Batches change hands: each side frees what the other allocated. */
struct exchange {
    const struct row *row;
    void **slots[2];
    pthread_barrier_t *barrier;
};

static void exchange(const struct exchange *with, unsigned side)
{
    const struct row *row = with->row;
    uint64_t state = bench_first_state(30 + side);

    for (uint64_t turn = 0; turn < row->ops / 2 / row->slots; turn++) {
        void **made = with->slots[(side + turn) % 2];

        for (uint64_t i = 0; i < row->slots; i++) {
            uint64_t r = bench_next(&state);

            free(made[i]);
            made[i] = new_block(size_of(row, r), r);
        }
        pthread_barrier_wait(with->barrier);
    }
}

static void *exchange_other(void *arg)
{
    exchange(arg, 1);
    return NULL;
}

void run_exchange(const struct row *row)
{
    pthread_barrier_t barrier;
    struct exchange with = {row, {new_slots(row), new_slots(row)}, &barrier};
    pthread_t other;

    pthread_barrier_init(&barrier, NULL, 2);
    meter_begin();
    start(&other, exchange_other, &with, false);
    exchange(&with, 0);
    pthread_join(other, NULL);
    meter_end();
    free_slots(row, with.slots[0]);
    free_slots(row, with.slots[1]);
}

/* ---- each for itself ------------------------------------------------------ */

struct worker {
    const struct row *row;
    void **slots;
    uint64_t state;
    uint64_t left; /* operations to do, by this thread and its successors */
    pthread_t thread;
    sem_t *ended;
};

static void new_workers(const struct row *row, struct worker *workers)
{
    if (row->threads > THREADS_MAX)
        fail("too many threads");
    for (unsigned i = 0; i < row->threads; i++)
        workers[i] = (struct worker){.row = row,
                                     .slots = new_slots(row),
                                     .state = bench_first_state(9 + i),
                                     .left = row->ops / row->threads};
}

static void *work(void *arg)
{
    struct worker *worker = arg;

    replace(worker->row, worker->slots, worker->left, &worker->state);
    return NULL;
}

void run_mixed_threads(const struct row *row)
{
    struct worker workers[THREADS_MAX];

    new_workers(row, workers);
    meter_begin();
    for (unsigned i = 0; i < row->threads; i++)
        start(&workers[i].thread, work, &workers[i], false);
    for (unsigned i = 0; i < row->threads; i++)
        pthread_join(workers[i].thread, NULL);
    meter_end();
    for (unsigned i = 0; i < row->threads; i++)
        free_slots(row, workers[i].slots);
}

/* ---- a server -------------------------------------------------------------- */

/* Does its turn, starts its successor and ends; the blocks outlive it. */
static void *serve(void *arg)
{
    struct worker *worker = arg;
    uint64_t turn = worker->left < TURN ? worker->left : TURN;

    replace(worker->row, worker->slots, turn, &worker->state);
    worker->left -= turn;
    if (worker->left == 0)
        sem_post(worker->ended);
    else
        start(&worker->thread, serve, worker, true);
    return NULL;
}

void run_server(const struct row *row)
{
    struct worker workers[THREADS_MAX];
    sem_t ended;

    new_workers(row, workers);
    sem_init(&ended, 0, 0);
    meter_begin();
    for (unsigned i = 0; i < row->threads; i++) {
        workers[i].ended = &ended;
        start(&workers[i].thread, serve, &workers[i], true);
    }
    for (unsigned i = 0; i < row->threads; i++) {
        while (sem_wait(&ended) != 0)
            ;
    }
    meter_end();
    for (unsigned i = 0; i < row->threads; i++)
        free_slots(row, workers[i].slots);
}

/* ---- threads that do little --------------------------------------------------- */

/* row->slots blocks are allocated and freed, a few of them alive at a time. */
static void *do_little(void *arg)
{
    const struct row *row = arg;
    uint64_t state = bench_first_state(31);
    void *few[8] = {NULL};

    for (uint64_t i = 0; i < row->slots; i++) {
        uint64_t r = bench_next(&state);

        free(few[i % 8]);
        few[i % 8] = new_block(size_of(row, r), r);
    }
    for (unsigned i = 0; i < 8; i++)
        free(few[i]);
    return NULL;
}

/* An operation is a whole thread. */
void run_short_threads(const struct row *row)
{
    struct row rest = *row;
    pthread_t thread;

    meter_begin();
    for (uint64_t i = 0; i < row->ops; i++) {
        start(&thread, do_little, &rest, false);
        pthread_join(thread, NULL);
    }
    meter_end();
}
