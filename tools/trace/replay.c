/*
 * replay.c - a plan's threads, in step; see replay.h and plan.h.
 *
 * `head` is the first round that isn't done. A thread may begin a run of round r
 * while r < head + window. Whoever does the last run of round `head` moves it on,
 * and wakes or starts the threads that may begin something now. The order of two
 * things matters there: a thread says that it sleeps, then looks at `head` again;
 * the other writes `head`, then looks who sleeps.
 */
#include "replay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    FIRST_BYTES = 8, /* of a block, that are written */
    SPINS = 200,
    STACK = 256 << 10,
    PACE_SAMPLE = 20000 /* microseconds between looks, at a pace */
};

/* NULL: no block in it, or not yet. */
struct slot {
    _Atomic(char *) block;
    size_t size;
};

struct worker {
    const struct plan_thread *thread;
    atomic_uint sleeps; /* a futex: 1 while it may be asleep */
    atomic_ulong failed;
    bool started;
};

static struct {
    const struct plan *plan;
    const struct plan_thread *threads;
    const struct plan_round *rounds;
    const uint32_t *parties;
    const struct plan_run *runs;
    const struct plan_step *steps;
    struct slot *slots;
    struct worker *workers;
    atomic_uint *left; /* runs of each round that aren't done */
    uint64_t window;
    bool alone; /* one thread: it keeps step with itself */
    const struct replay_options *options;
    struct replay_result *result;
    uint64_t began; /* the clock */
    uint64_t sample_next;
    int statm;
    _Atomic uint64_t head;
    pthread_mutex_t moving; /* of `head`, of samples, of `started` */
    atomic_uint finished;   /* a futex: 1 when all rounds are done */
    atomic_uint running;    /* threads besides the main one */
    const char *_Atomic wrong;
} now = {.moving = PTHREAD_MUTEX_INITIALIZER};

/* Stands in a slot for a block that was refused. */
static char refused;

/* ---- the system ----------------------------------------------------------- */

static uint64_t clock_us(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void wait_on(atomic_uint *word, unsigned value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Shared memory, in memory: it isn't counted. NULL: none. */
static void *shared(size_t bytes)
{
    void *room = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    return room == MAP_FAILED ? NULL : room;
}

/* KB that are resident and neither a file's nor shared. */
static uint64_t resident_kb(void)
{
    char text[128];
    unsigned long long size, resident, file;
    const ssize_t got = pread(now.statm, text, sizeof text - 1, 0);

    if (got <= 0) {
        return 0;
    }
    text[got] = '\0';
    if (sscanf(text, "%llu %llu %llu", &size, &resident, &file) != 3) {
        return 0;
    }
    return (resident - file) * ((uint64_t)sysconf(_SC_PAGESIZE) >> 10);
}

/* A line "NAME: N kB" of /proc/self/status; 0: there is none. */
static uint64_t status_kb(const char *name)
{
    static char text[4096];
    const int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t got = 0;

    if (fd >= 0) {
        got = read(fd, text, sizeof text - 1);
        close(fd);
    }
    text[got > 0 ? got : 0] = '\0';
    const char *line = strstr(text, name);

    return line ? strtoull(line + strlen(name), NULL, 10) : 0;
}

static void sample(uint64_t head)
{
    struct replay_result *result = now.result;

    if (result->sample_count < now.options->samples) {
        result->samples[result->sample_count++] =
            (struct replay_sample){clock_us() - now.began, head, resident_kb()};
    }
}

/* ---- steps ---------------------------------------------------------------- */

/* Writes what a program would, of [from, size) of a block. */
static inline void touch(char *block, size_t from, size_t size)
{
    if (from == 0 && size > 0) {
        memset(block, 1, size < FIRST_BYTES ? size : FIRST_BYTES);
    }
    for (size_t at = (from + PAGE - 1) & ~(size_t)(PAGE - 1); at < size;
         at += PAGE) {
        ((volatile char *)block)[at] = 1;
    }
}

/* The block in a slot, taken out; another thread may have to put it there. */
static inline char *take(struct slot *slot)
{
    char *block = atomic_load_explicit(&slot->block, memory_order_acquire);

    for (unsigned i = 0; __builtin_expect(block == NULL, 0); i++) {
        if (i > SPINS) {
            sched_yield();
        }
        block = atomic_load_explicit(&slot->block, memory_order_acquire);
    }
    atomic_store_explicit(&slot->block, NULL, memory_order_relaxed);
    return block;
}

/* Into the slot; `touched`: how much of it needs no writing any more. */
static inline void put(struct worker *worker, struct slot *slot, char *block,
                       size_t size, size_t touched)
{
    if (__builtin_expect(block == NULL, 0)) {
        atomic_fetch_add_explicit(&worker->failed, 1, memory_order_relaxed);
        block = &refused;
    } else if (touched < size) {
        touch(block, touched, size);
    }
    slot->size = size;
    atomic_store_explicit(&slot->block, block, memory_order_release);
}

static void step_resize(struct worker *worker, const struct plan_step *step,
                        size_t size)
{
    struct slot *slot = &now.slots[step->slot];

    if (step->old == PLAN_NO_SLOT) {
        put(worker, slot, realloc(NULL, size), size, 0);
        return;
    }
    struct slot *old = &now.slots[step->old];
    char *block = take(old);
    const size_t before = old->size;

    if (block == &refused) {
        put(worker, slot, malloc(size), size, 0);
        return;
    }
    char *moved = realloc(block, size);

    if (moved == NULL && size > 0) {
        free(block);
    } else if (moved == NULL) {
        moved = malloc(0); /* the recorded allocator had given a block */
    }
    put(worker, slot, moved, size, before);
}

static inline void step_do(struct worker *worker, const struct plan_step *step)
{
    const size_t size = (size_t)(step->what >> 16);
    struct slot *slot = &now.slots[step->slot];
    void *block = NULL;

    switch ((enum plan_op)(step->what & 0xff)) {
    case PLAN_MALLOC: put(worker, slot, malloc(size), size, 0); break;
    case PLAN_CALLOC: put(worker, slot, calloc(1, size), size, size); break;
    case PLAN_REALLOC: step_resize(worker, step, size); break;
    case PLAN_ALIGNED: {
        const size_t least = sizeof(void *);
        const size_t asked = (size_t)1 << (step->what >> 8 & 0xff);

        if (posix_memalign(&block, asked < least ? least : asked, size) != 0) {
            block = NULL;
        }
        put(worker, slot, block, size, 0);
        break;
    }
    case PLAN_FREE:
        block = take(slot);
        if (block != &refused) {
            free(block);
        }
        break;
    }
}

/* ---- rounds --------------------------------------------------------------- */

static void *work(void *context);

static void start(struct worker *worker)
{
    pthread_attr_t attributes;
    pthread_t thread;

    if (worker->started) {
        return;
    }
    worker->started = true;
    atomic_fetch_add(&now.running, 1);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, work, worker) != 0) {
        static const char text[] = "hakmem-replay: a thread can't be started\n";

        /* The others would wait for it for ever. */
        _exit(write(STDERR_FILENO, text, sizeof text - 1) > 0 ? 1 : 1);
    }
    pthread_attr_destroy(&attributes);
}

/* The parties of a round may begin it. */
static void admit(uint64_t round)
{
    for (uint64_t i = now.rounds[round].party; i < now.rounds[round + 1].party;
         i++) {
        struct worker *worker = &now.workers[now.parties[i]];

        if (now.parties[i] != 0) {
            start(worker);
        }
        if (atomic_exchange(&worker->sleeps, 0) == 1) {
            wake(&worker->sleeps);
        }
    }
}

/* Rounds are done: `head` may go on. */
static void move_on(void)
{
    pthread_mutex_lock(&now.moving);
    uint64_t head = atomic_load(&now.head);
    const uint64_t rounds = now.plan->rounds;

    while (head < rounds && atomic_load(&now.left[head]) == 0) {
        const uint64_t next = head + now.window;

        head++;
        atomic_store(&now.head, head);
        if (next < rounds) {
            admit(next);
        }
        if (head >= now.sample_next) {
            sample(head);
            now.sample_next =
                rounds * now.result->sample_count / now.options->samples;
        }
    }
    pthread_mutex_unlock(&now.moving);
    if (head == rounds) {
        atomic_store(&now.finished, 1);
        wake(&now.finished);
    }
}

static void wait_round(struct worker *worker, uint64_t round)
{
    while (round >= atomic_load(&now.head) + now.window) {
        atomic_store(&worker->sleeps, 1);
        if (round >= atomic_load(&now.head) + now.window) {
            wait_on(&worker->sleeps, 1);
        }
        atomic_store(&worker->sleeps, 0);
    }
}

/* Not before it was in the recorded program. */
static void wait_pace(uint64_t round)
{
    const uint64_t due = now.began + now.rounds[round].time;
    const struct timespec until = {(time_t)(due / 1000000),
                                   (long)(due % 1000000 * 1000)};

    if (due > clock_us()) {
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) ==
               EINTR) {
        }
    }
}

/* One thread's part of the plan. */
static void *work(void *context)
{
    struct worker *worker = context;
    const struct plan_thread *thread = worker->thread;
    const struct plan_step *step = now.steps + thread->step;

    for (uint64_t i = 0; i < thread->runs; i++) {
        const struct plan_run *run = &now.runs[thread->run + i];

        if (!now.alone) {
            wait_round(worker, run->round);
        }
        if (now.options->pace) {
            wait_pace(run->round);
        }
        for (const struct plan_step *end = step + run->steps; step < end;
             step++) {
            step_do(worker, step);
        }
        if (now.alone && now.options->samples == 0) {
            continue;
        }
        if (atomic_fetch_sub(&now.left[run->round], 1) == 1) {
            move_on();
        }
    }
    if (now.alone && now.options->samples == 0) {
        atomic_store(&now.finished, 1);
    }
    if (worker != now.workers && !thread->ends) {
        while (atomic_load(&now.finished) == 0) {
            wait_on(&now.finished, 0);
        }
    }
    if (worker != now.workers) {
        atomic_fetch_sub(&now.running, 1);
    }
    return NULL;
}

/* At a pace memory changes while nothing happens: look by the clock, too. */
static void *watch(void *unused)
{
    (void)unused;
    while (atomic_load(&now.finished) == 0) {
        const struct timespec pause = {0, PACE_SAMPLE * 1000};

        nanosleep(&pause, NULL);
        pthread_mutex_lock(&now.moving);
        sample(atomic_load(&now.head));
        pthread_mutex_unlock(&now.moving);
    }
    return NULL;
}

/* ---- all of it ------------------------------------------------------------ */

static const char *prepare(const struct plan *plan,
                           const struct replay_options *options,
                           struct replay_result *result)
{
    const char *base = (const char *)plan;
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);

    now.plan = plan;
    now.threads = (const struct plan_thread *)(base + plan->at_threads);
    now.rounds = (const struct plan_round *)(base + plan->at_rounds);
    now.parties = (const uint32_t *)(base + plan->at_parties);
    now.runs = (const struct plan_run *)(base + plan->at_runs);
    now.steps = (const struct plan_step *)(base + plan->at_steps);
    now.options = options;
    now.result = result;
    now.alone = plan->threads <= 1;
    now.window = processors < 2 ? 4 : (uint64_t)processors * 2;
    now.window = now.window > PLAN_WINDOW ? PLAN_WINDOW : now.window;
    now.sample_next = options->samples > 0 && !options->pace ? 0 : UINT64_MAX;
    now.slots = shared(plan->slots * sizeof *now.slots);
    now.workers = shared(plan->threads * sizeof *now.workers);
    now.left = shared(plan->rounds * sizeof *now.left);
    result->samples = shared((options->samples + 1) * sizeof *result->samples);
    now.statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (!now.slots || !now.workers || !now.left || !result->samples) {
        return "not enough memory for the replay";
    }
    for (uint64_t i = 0; i < plan->threads; i++) {
        now.workers[i].thread = &now.threads[i];
    }
    for (uint64_t i = 0; i < plan->rounds; i++) {
        atomic_init(&now.left[i],
                    (unsigned)(now.rounds[i + 1].party - now.rounds[i].party));
    }
    return now.statm < 0 ? "/proc is needed and is not there" : NULL;
}

/* What was before the start is no peak of the replay's. */
static void forget_peak(void)
{
    const int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        /* Where the kernel has it not, the peak is that of the process. */
        if (write(fd, "5", 1) < 0) {
            errno = 0;
        }
        close(fd);
    }
}

static uint64_t cpu_us(const struct rusage *use)
{
    return (uint64_t)(use->ru_utime.tv_sec + use->ru_stime.tv_sec) * 1000000 +
           (uint64_t)(use->ru_utime.tv_usec + use->ru_stime.tv_usec);
}

const char *replay(const struct plan *plan,
                   const struct replay_options *options,
                   struct replay_result *result)
{
    struct rusage before, after;
    pthread_t watcher;
    const char *why = prepare(plan, options, result);

    if (why != NULL) {
        return why;
    }
    forget_peak();
    const bool watched = options->pace && options->samples > 0 &&
                         pthread_create(&watcher, NULL, watch, NULL) == 0;

    getrusage(RUSAGE_SELF, &before);
    now.began = clock_us();
    if (!now.alone) {
        pthread_mutex_lock(&now.moving);
        for (uint64_t i = 0; i < now.window && i < plan->rounds; i++) {
            admit(i);
        }
        pthread_mutex_unlock(&now.moving);
    }
    if (plan->threads > 0) {
        work(now.workers);
        while (atomic_load(&now.finished) == 0) {
            wait_on(&now.finished, 0);
        }
    }
    if (options->pace) {
        wait_pace(plan->rounds);
    }
    atomic_store(&now.finished, 1);
    result->time = clock_us() - now.began;
    getrusage(RUSAGE_SELF, &after);
    result->cpu = cpu_us(&after) - cpu_us(&before);
    result->faults = (uint64_t)(after.ru_minflt - before.ru_minflt);
    result->end_kb = resident_kb();
    const uint64_t apart = status_kb("RssFile:") + status_kb("RssShmem:");
    const uint64_t peak = status_kb("VmHWM:");

    result->peak_kb = peak > apart ? peak - apart : result->end_kb;
    if (watched) {
        pthread_join(watcher, NULL);
    }
    while (atomic_load(&now.running) > 0) {
        usleep(1000);
    }
    for (uint64_t i = 0; i < plan->threads; i++) {
        result->failed += atomic_load(&now.workers[i].failed);
    }
    return NULL;
}

const struct plan *replay_map(const char *file, const char **why)
{
    struct stat status;
    const int fd = open(file, O_RDONLY | O_CLOEXEC);
    const struct plan *plan = MAP_FAILED;

    if (fd < 0 || fstat(fd, &status) != 0) {
        *why = strerror(errno);
        return NULL;
    }
    if (status.st_size >= (off_t)sizeof *plan) {
        plan = mmap(NULL, (size_t)status.st_size, PROT_READ,
                    MAP_SHARED | MAP_POPULATE, fd, 0);
    }
    close(fd);
    if (plan == MAP_FAILED || plan->magic != PLAN_MAGIC ||
        plan->bytes != (uint64_t)status.st_size) {
        *why = "is not a plan that `hakmem-replay plan` made here";
        return NULL;
    }
    return plan;
}
