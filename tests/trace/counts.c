/*
 * counts.c - threads that allocate, hand blocks to each other and count what they
 * do; the trace of it must say the same.
 *
 *     counts THREADS STEPS [SECONDS]
 *
 * The most that is live is the same in every run: all threads allocate, meet, and
 * then free; what they do besides adds nothing to what is live. With 0 STEPS it
 * does all but that, so that what the C library allocates for threads can be taken
 * off. SECONDS: sleeps so long before it ends.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS_MAX = 64, BLOCKS_MAX = 1 << 16 };

struct counts {
    unsigned long allocs, resizes, frees, bytes, live;
};

static struct part {
    pthread_t thread;
    unsigned long seed;
    struct counts counts;
    void **blocks;
    size_t *sizes;
} parts[THREADS_MAX];

static void *rooms[THREADS_MAX][BLOCKS_MAX];
static size_t sizes[THREADS_MAX][BLOCKS_MAX];
static pthread_barrier_t meet;
static int threads, steps;

static size_t random_size(struct part *part)
{
    part->seed = part->seed * 6364136223846793005u + 1442695040888963407u;
    const unsigned long bits = part->seed >> 33;

    return bits % 50 == 0 ? bits / 64 % 100000 : bits / 64 % 600 + 1;
}

static void *checked(void *block, size_t size)
{
    if (block == NULL) {
        abort();
    }
    memset(block, 1, size);
    return block;
}

static void *make(struct part *part, int i, size_t size)
{
    void *block = NULL;

    switch (i % 8) {
    case 0: block = calloc(1, size); break;
    case 1: block = realloc(NULL, size); break;
    case 2: block = aligned_alloc(64, size); break;
    case 3:
        if (posix_memalign(&block, 128, size) != 0) {
            block = NULL;
        }
        break;
    case 4: block = memalign(256, size); break;
    default: block = malloc(size); break;
    }
    part->counts.allocs++;
    part->counts.bytes += size;
    part->counts.live += size;
    return checked(block, size);
}

static void drop(struct part *part, void *block, size_t size)
{
    free(block);
    part->counts.frees++;
    part->counts.live -= size;
}

static void resize(struct part *part, int i, size_t size)
{
    part->blocks[i] = checked(realloc(part->blocks[i], size), size);
    part->counts.resizes++;
    part->counts.bytes += size;
    part->counts.live += size - part->sizes[i];
    part->sizes[i] = size;
}

static void fill(struct part *part)
{
    for (int i = 0; i < steps; i++) {
        const size_t size = random_size(part);

        part->blocks[i] = make(part, i, size);
        part->sizes[i] = size;
    }
    for (int i = 0; i < steps; i += 3) {
        resize(part, i, part->sizes[i] + random_size(part));
    }
}

/* Frees a thread's blocks, each other one: those of another thread. */
static void empty(struct part *part, struct part *of, int from)
{
    for (int i = from; i < steps; i += 2) {
        drop(part, of->blocks[i], of->sizes[i]);
    }
}

/* Makes and frees a little, below what was there before. */
static void churn(struct part *part)
{
    for (int i = 0; i < steps; i++) {
        const size_t size = random_size(part) % 500;

        drop(part, make(part, i, size), size);
    }
}

static void *work(void *context)
{
    struct part *part = context;
    struct part *next = parts + (part - parts + 1) % threads;

    pthread_barrier_wait(&meet);
    fill(part);
    pthread_barrier_wait(&meet); /* the most is now */
    pthread_barrier_wait(&meet);
    empty(part, part, 0);
    pthread_barrier_wait(&meet);
    churn(part);
    pthread_barrier_wait(&meet);
    empty(part, next, 1);
    pthread_barrier_wait(&meet);
    return NULL;
}

int main(int argc, char **argv)
{
    struct counts all = {0};
    unsigned long peak = 0;

    threads = argc > 1 ? atoi(argv[1]) : 1;
    steps = argc > 2 ? atoi(argv[2]) : 0;
    if (threads < 1 || threads > THREADS_MAX || steps < 0 ||
        steps > BLOCKS_MAX) {
        return 2;
    }
    pthread_barrier_init(&meet, NULL, (unsigned)threads + 1);
    for (int i = 0; i < threads; i++) {
        parts[i] = (struct part){.seed = (unsigned long)i + 1,
                                 .blocks = rooms[i],
                                 .sizes = sizes[i]};
        if (pthread_create(&parts[i].thread, NULL, work, &parts[i]) != 0) {
            return 1;
        }
    }
    pthread_barrier_wait(&meet);
    pthread_barrier_wait(&meet);
    for (int i = 0; i < threads; i++) {
        peak += parts[i].counts.live;
    }
    for (int i = 0; i < 4; i++) {
        pthread_barrier_wait(&meet);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(parts[i].thread, NULL);
        all.allocs += parts[i].counts.allocs;
        all.resizes += parts[i].counts.resizes;
        all.frees += parts[i].counts.frees;
        all.bytes += parts[i].counts.bytes;
        all.live += parts[i].counts.live;
    }
    dprintf(1,
            "{\"allocs\": %lu, \"resizes\": %lu, \"frees\": %lu,"
            " \"bytes\": %lu, \"peak_bytes\": %lu, \"live_bytes\": %lu}\n",
            all.allocs, all.resizes, all.frees, all.bytes, peak, all.live);
    if (argc > 3) {
        sleep((unsigned)atoi(argv[3]));
    }
    return 0;
}
