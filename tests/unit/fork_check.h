/*
 * fork_check.h - forks while another thread is anywhere in a lane: for fork_ace.c,
 * fork_huge.c and fork_mend.c.
 *
 * A thread works on a lane and is stopped before instructions of ours (the
 * processor's trap flag: x86-64, and not where memory is watched): one of
 * STRIDE, others in each run, the first VISITS times that it comes there. Each
 * time another thread forks, and the child looks after what was allocated
 * before and uses every lane.
 *
 * Obeys: HAKMEM_TEST_STRIDE (1: all instructions, some minutes; unset: 29).
 */
#ifndef FORK_CHECK_H
#define FORK_CHECK_H

#include <semaphore.h>
#include <ucontext.h>

#include "ace/ace.h"
#include "heap/heap.h"
#include "huge/huge.h"
#include "os/lock.h"
#include "settings/options.h"
#include "range/supers.h"
#include "system/system.h"
#include "heap/thread.h"
#include "unit.h"

#if defined(__x86_64__) && !UNIT_WATCHED
#define FORK_CHECK 1
#else
#define FORK_CHECK 0
#endif

#if FORK_CHECK

/* The thread that works: at a stop, and let go. */
static sem_t at_stop, go;
static volatile bool done;
static __thread volatile bool stepping;
static volatile unsigned long stride, phase;
static volatile void *where;

enum { STRIDE = 29, VISITS = 3, TEXT_MOST = 4 << 20 };
static unsigned char visits[TEXT_MOST];

/* ---- stopping -------------------------------------------------------------- */

extern char __executable_start, etext;

/* Not in the C library, whose locks a fork waits for. */
static bool is_ours(uintptr_t at)
{
    return at >= (uintptr_t)&__executable_start && at < (uintptr_t)&etext;
}

static bool is_to_stop(uintptr_t at)
{
    return is_ours(at) && (at + phase) % stride == 0 &&
           visits[(at - (uintptr_t)&__executable_start) % TEXT_MOST]++ < VISITS;
}

static void stop_here(void)
{
    NEED(sem_post(&at_stop) == 0);
    while (sem_wait(&go) != 0) {
    }
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
    ucontext_t *at = context;
    int saved = errno;

    (void)signal;
    (void)info;
    /* The flag is on from the first signal on until there is no more to do. */
    where = (void *)at->uc_mcontext.gregs[REG_RIP];
    if (!stepping) {
        at->uc_mcontext.gregs[REG_EFL] &= ~0x100;
        return;
    }
    at->uc_mcontext.gregs[REG_EFL] |= 0x100;
    if (is_to_stop((uintptr_t)where)) {
        stop_here();
    }
    errno = saved;
}

/* Between these two the calling thread is watched. */
static void watch_on(void)
{
    stepping = true;
    NEED(pthread_kill(pthread_self(), SIGTRAP) == 0);
}

static void watch_off(void)
{
    stepping = false;
}

#define WATCHED(call)                                                          \
    do {                                                                       \
        watch_on();                                                            \
        (call);                                                                \
        watch_off();                                                           \
    } while (0)

static void set_stride(void)
{
    const char *wish = getenv("HAKMEM_TEST_STRIDE");

    stride = wish != NULL ? strtoul(wish, NULL, 10) : STRIDE;
    phase = (unsigned long)getpid() % stride;
}

/* What the thread does. */
struct work {
    void (*run)(unsigned round);
    unsigned rounds;
};

static void *work(void *arg)
{
    const struct work *what = arg;

    for (unsigned round = 0; round < what->rounds; round++) {
        what->run(round);
    }
    done = true;
    NEED(sem_post(&at_stop) == 0);
    return NULL;
}

/* ---- what a child looks after ------------------------------------------------ */

static const size_t sizes[] = {10,    100,   1000,   1500,   9000,
                               40000, 60000, 200000, 700000, 3 << 20};

enum { SIZES = sizeof(sizes) / sizeof(sizes[0]), EACH = 2, PIECE = 600 };

/* The first and the last PIECE bytes of a block: children shall be quick. */
static void mark(char *p, size_t n, unsigned seed)
{
    size_t piece = n < PIECE ? n : PIECE;

    unit_fill(p, piece, seed);
    unit_fill(p + n - piece, piece, seed + 1);
}

static bool is_marked(const char *p, size_t n, unsigned seed)
{
    size_t piece = n < PIECE ? n : PIECE;

    return (n < 2 * PIECE || unit_filled(p, piece, seed)) &&
           unit_filled(p + n - piece, piece, seed + 1);
}

static bool is_zero(const char *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

static bool is_zero_at_both_ends(const char *p, size_t n)
{
    size_t piece = n < PIECE ? n : PIECE;

    return is_zero(p, piece) && is_zero(p + n - piece, piece);
}

static char *kept[EACH][SIZES];
static char *system_kept[EACH];

static void keep_some(void)
{
    for (unsigned i = 0; i < EACH; i++) {
        for (unsigned k = 0; k < SIZES; k++) {
            kept[i][k] = hak_malloc(sizes[k]);
            NEED(kept[i][k] != NULL && hak_owns(kept[i][k]));
            mark(kept[i][k], sizes[k], i + k);
        }
        system_kept[i] = haki_system_alloc(16, 500, NULL, HAK_REASON_MEMORY);
        unit_fill(system_kept[i], 500, i);
    }
}

static void check_kept(void)
{
    for (unsigned i = 0; i < EACH; i++) {
        for (unsigned k = 0; k < SIZES; k++) {
            NEED(is_marked(kept[i][k], sizes[k], i + k));
        }
        NEED(unit_filled(system_kept[i], 500, i));
    }
}

/* New blocks of all lanes, zero if they are said to be; freed again. */
static void use_lanes(unsigned seed)
{
    char *mine[EACH][SIZES];

    for (unsigned i = 0; i < EACH; i++) {
        for (unsigned k = 0; k < SIZES; k++) {
            mine[i][k] = hak_calloc(1, sizes[k]);
            NEED(mine[i][k] != NULL &&
                 is_zero_at_both_ends(mine[i][k], sizes[k]));
            mark(mine[i][k], sizes[k], seed + i * k);
        }
    }
    check_kept();
    for (unsigned i = 0; i < EACH; i++) {
        for (unsigned k = 0; k < SIZES; k++) {
            NEED(is_marked(mine[i][k], sizes[k], seed + i * k));
            mine[i][k] = hak_realloc(mine[i][k], sizes[k] + sizes[k] / 3);
            NEED(is_marked(mine[i][k], sizes[k], seed + i * k));
        }
    }
    check_kept();
    for (unsigned i = 0; i < EACH; i++) {
        for (unsigned k = 0; k < SIZES; k++) {
            hak_free(mine[i][(k * 7) % SIZES]);
        }
    }
}

static void *use_in_thread(void *arg)
{
    use_lanes(7);
    return arg;
}

static void use_system(void)
{
    struct hak_heap *owner;
    char *p[50];
    size_t size;

    for (size_t i = 0; i < 50; i++) {
        p[i] = haki_system_alloc(16, 100 + i, NULL, HAK_REASON_MEMORY);
        NEED(p[i] != NULL);
    }
    for (size_t i = 0; i < 50; i++) {
        NEED(haki_system_free(p[i], &owner, &size) && size == 100 + i);
        NEED(!haki_system_free(p[i], &owner, &size));
    }
    for (unsigned i = 0; i < EACH; i++) {
        NEED(haki_system_free(system_kept[i], &owner, &size) && size == 500);
    }
}

/* A test's own look at what was mended, or NULL. */
static void (*look)(void);

/* In the child; by itself and with a thread of its own. */
static void child(bool threads)
{
    hak_stats_t stats;
    hak_heap *heap;

    alarm(250);
    if (look != NULL) {
        look();
    }
    use_lanes(1);
    if (threads) {
        unit_in_thread(use_in_thread, NULL);
    }
    heap = hak_heap_new(NULL);
    NEED(heap != NULL && hak_heap_malloc(heap, 100) != NULL &&
         hak_heap_malloc(heap, 100000) != NULL);
    hak_heap_delete(heap);
    check_kept();
    for (unsigned i = 0; i < EACH; i++) {
        for (unsigned k = 0; k < SIZES; k++) {
            hak_free(kept[i][k]);
        }
    }
    use_system();
    memset(kept, 0, sizeof(kept));
    hak_trim();
    keep_some();
    use_lanes(2);
    stats = unit_stats();
    NEED(stats.system_live <= EACH + 1000);
    NEED(stats.ace_live_bytes < 1000 * HAK_MIB);
    NEED(stats.resident_bytes < 1000 * HAK_MIB);
}

pid_t _Fork(void) __attribute__((weak));

/* With fork's handlers, or none; a child of a child now and then. */
static void fork_once(unsigned long n)
{
    bool bare = n % 2 != 0 && _Fork != NULL;
    pid_t pid = bare ? _Fork() : fork();
    int status;

    NEED(pid >= 0);
    if (pid == 0) {
        if (n % 8 == 2) {
            pid = fork();
        } else if (n % 8 == 3 && bare) {
            pid = _Fork();
        }
        NEED(pid >= 0);
        if (pid == 0) {
            child(!bare);
            _exit(0);
        }
        NEED(waitpid(pid, &status, 0) == pid);
        _exit(status != 0);
    }
    NEED(waitpid(pid, &status, 0) == pid);
    cr_assert(status == 0, "status %#x, the thread was at +%#lx",
              (unsigned)status,
              (unsigned long)((uintptr_t)where -
                              (uintptr_t)&__executable_start));
}

/* Forks at the stops of a thread that runs `run` for some rounds. */
static void watch(void (*run)(unsigned), unsigned rounds)
{
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_SIGINFO | SA_RESTART};
    struct work what = {run, rounds};
    unsigned long forks = 0;
    pthread_t thread;

    set_stride();
    NEED(sem_init(&at_stop, 0, 0) == 0 && sem_init(&go, 0, 0) == 0);
    NEED(sigaction(SIGTRAP, &action, NULL) == 0);
    keep_some();
    thread = unit_start(work, &what);
    for (;;) {
        while (sem_wait(&at_stop) != 0) {
        }
        if (done) {
            break;
        }
        fork_once(forks++);
        NEED(sem_post(&go) == 0);
    }
    unit_join(thread);
    /* Of the same work; how many it is depends on the stride and the phase. */
    cr_assert_gt((forks + 1) * stride, 10 * STRIDE);
    check_kept();
    for (unsigned i = 0; i < EACH; i++) {
        for (unsigned k = 0; k < SIZES; k++) {
            hak_free(kept[i][k]);
        }
    }
}

#endif /* FORK_CHECK */

#endif /* FORK_CHECK_H */
