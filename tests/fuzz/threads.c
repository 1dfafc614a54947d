/*
 * threads.c - the fuzzer's operations that are done by another thread: one that ends
 * after them, one of two that stay, both at once, or the destructors of a thread's end.
 */
#include "threads.h"

#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#include "model.h"
#include "ops.h"
#include "script.h"

#define WORKERS 2
#define DEPTH_MOST 2

/* How deep we are in threads that wait for each other. */
static unsigned depth;

/* One thread's part of the work that two do at once. */
#define SHARE_MOST 64

struct share {
    struct model_block old[SHARE_MOST]; /* to be freed */
    void *made[SHARE_MOST];
    size_t frees, allocs, size;
};

static struct worker {
    bool runs;
    pthread_t thread;
    sem_t start, done;
    size_t count;        /* operations to run; 0: end */
    struct share *share; /* or this, if not NULL */
} workers[WORKERS];

static void start(pthread_t *thread, void *(*body)(void *), void *arg)
{
    if (pthread_create(thread, NULL, body, arg) != 0) {
        model_fail("pthread_create fails");
    }
}

static void join(pthread_t thread)
{
    if (pthread_join(thread, NULL) != 0) {
        model_fail("pthread_join fails");
    }
}

static void *thread_body(void *arg)
{
    ops_run(*(size_t *)arg);
    return NULL;
}

/* A thread that runs some operations and ends. */
void do_thread(void)
{
    size_t count = 1 + script_next() % 16;
    pthread_t thread;

    if (depth < DEPTH_MOST) {
        depth++;
        script.cost += 50;
        start(&thread, thread_body, &count);
        join(thread);
        depth--;
    }
}

/*
 * Allocates and frees in turn. Touches nothing that the other thread does: not
 * the model, of an explicit heap only what any thread may.
 */
static void work(struct share *share)
{
    for (size_t i = 0; i < SHARE_MOST; i++) {
        if (i < share->allocs) {
            share->made[i] = hak_malloc(share->size);
            if (share->made[i] != NULL && share->size >= sizeof(void *)) {
                memcpy(share->made[i], &share->made[i], sizeof(void *));
            }
        }
        if (i < share->frees) {
            hak_free(share->old[i].p);
        }
    }
}

static void *worker_body(void *arg)
{
    struct worker *worker = arg;

    for (;;) {
        while (sem_wait(&worker->start) != 0) {
        }
        if (worker->share != NULL) {
            work(worker->share);
        } else if (worker->count > 0) {
            ops_run(worker->count);
        } else {
            return NULL;
        }
        sem_post(&worker->done);
    }
}

static void worker_wake(struct worker *worker, size_t count,
                        struct share *share)
{
    if (!worker->runs) {
        worker->runs = true;
        sem_init(&worker->start, 0, 0);
        sem_init(&worker->done, 0, 0);
        script.cost += 50;
        start(&worker->thread, worker_body, worker);
    }
    worker->count = count;
    worker->share = share;
    sem_post(&worker->start);
}

static void worker_wait(struct worker *worker)
{
    while (sem_wait(&worker->done) != 0) {
    }
}

/* A thread that stays runs some operations. */
void do_worker(void)
{
    size_t what = script_next();
    struct worker *worker = &workers[what % WORKERS];

    if (depth == 0) {
        depth++;
        worker_wake(worker, 1 + what / WORKERS % 16, NULL);
        worker_wait(worker);
        depth--;
    }
}

/* What a thread allocated becomes known to the model. */
static void share_add(const struct share *share)
{
    for (size_t i = 0; i < share->allocs; i++) {
        void *p = share->made[i];

        if (p != NULL && share->size >= sizeof(void *) &&
            memcmp(p, &share->made[i], sizeof(void *)) != 0) {
            model_fail("block %p of %zu bytes: another thread wrote to it", p,
                       share->size);
        }
        model_add(p, share->size, 1, MODEL_NO_HEAP, false, i & 1);
    }
}

/* This thread and one that stays free blocks and allocate, at once. */
void do_at_once(void)
{
    static struct share shares[2];
    struct worker *worker = &workers[script_next() % WORKERS];
    size_t frees = script_next() % (2 * SHARE_MOST);
    size_t allocs = script_next() % (SHARE_MOST / 2);
    size_t size = script_size();

    if (depth > 0 || model.count + 2 * allocs > MODEL_BLOCKS ||
        2 * allocs * size > MODEL_BYTES - model.bytes) {
        return;
    }
    for (size_t i = 0; i < 2; i++) {
        shares[i].frees = 0;
        shares[i].allocs = allocs;
        shares[i].size = size;
    }
    for (size_t i = 0; i < frees && model.count > 0; i++) {
        struct share *share = &shares[i % 2];

        share->old[share->frees++] = model_remove(model.live[model.count - 1]);
    }
    script.cost += frees;
    for (size_t i = 0; i < 2 * allocs; i++) {
        script_pay(size);
    }
    worker_wake(worker, 0, &shares[1]);
    work(&shares[0]);
    worker_wait(worker);
    share_add(&shares[0]);
    share_add(&shares[1]);
}

static void worker_end(struct worker *worker)
{
    if (worker->runs) {
        worker->count = 0;
        worker->share = NULL;
        /* Operations of its end may start threads, but wake no worker. */
        depth++;
        sem_post(&worker->start);
        join(worker->thread);
        depth--;
        sem_destroy(&worker->start);
        sem_destroy(&worker->done);
        worker->runs = false;
    }
}

void do_worker_end(void)
{
    struct worker *worker = &workers[script_next() % WORKERS];

    if (depth == 0) {
        worker_end(worker);
    }
}

/*
 * The thread's end: in the first round of destructors, where the allocator's
 * may have run or not, and in the second. Not in the last of the four: what a
 * thread first allocates there has nobody left to take its heap.
 */
static pthread_key_t late_key;
static pthread_once_t late_once = PTHREAD_ONCE_INIT;
static __thread size_t late_count;

static void late(void *round)
{
    ops_run(late_count);
    if (*(const char *)round == '1') {
        pthread_setspecific(late_key, "2");
    }
}

static void late_init(void)
{
    if (pthread_key_create(&late_key, late) != 0) {
        model_fail("pthread_key_create fails");
    }
}

/* This thread, but not the main one, runs some operations when it ends. */
void do_late(void)
{
    size_t count = 1 + script_next() % 8;

    if (depth > 0 && late_count == 0) {
        pthread_once(&late_once, late_init);
        late_count = count;
        pthread_setspecific(late_key, "1");
    }
}

void threads_end(void)
{
    for (size_t i = 0; i < WORKERS; i++) {
        worker_end(&workers[i]);
    }
}
