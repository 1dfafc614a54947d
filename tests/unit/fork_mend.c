/*
 * fork_mend.c - tests of what a child makes of locks and lists that a thread
 * held which does not exist there.
 *
 * A thread works on a lane and is stopped before instructions of ours (the
 * processor's trap flag: x86-64, and not where memory is watched): one of
 * STRIDE, others in each run, the first VISITS times that it comes there. Each
 * time another thread forks, and the child looks after what was allocated
 * before and uses every lane.
 *
 * Obeys: HAKMEM_TEST_STRIDE (1: all instructions, some minutes; unset: 29).
 */
#include <semaphore.h>
#include <ucontext.h>

#include "ace.h"
#include "heap.h"
#include "huge.h"
#include "lock.h"
#include "options.h"
#include "supers.h"
#include "system.h"
#include "thread.h"
#include "unit.h"

TestSuite(fork_mend, .timeout = 600);

#if defined(__x86_64__) && !UNIT_WATCHED

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
        system_kept[i] = hak_system_alloc(16, 500, NULL, HAK_REASON_MEMORY);
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
        p[i] = hak_system_alloc(16, 100 + i, NULL, HAK_REASON_MEMORY);
        NEED(p[i] != NULL);
    }
    for (size_t i = 0; i < 50; i++) {
        NEED(hak_system_free(p[i], &owner, &size) && size == 100 + i);
        NEED(!hak_system_free(p[i], &owner, &size));
    }
    for (unsigned i = 0; i < EACH; i++) {
        NEED(hak_system_free(system_kept[i], &owner, &size) && size == 500);
    }
}

/* In the child; by itself and with a thread of its own. */
static void child(bool threads)
{
    hak_stats_t stats;
    hak_heap *heap;

    alarm(60);
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
    NEED(stats.populated_bytes < 1000 * HAK_MIB);
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
    cr_assert_gt(forks, 10);
    check_kept();
    for (unsigned i = 0; i < EACH; i++) {
        for (unsigned k = 0; k < SIZES; k++) {
            hak_free(kept[i][k]);
        }
    }
}

/* ---- the lanes ----------------------------------------------------------------- */

enum { PLACES = 12 };

static void *runs[PLACES];

/* Runs are cut from holes of all kinds, joined, resized; superslabs come, go. */
static void ace_work(unsigned round)
{
    static const uint16_t pages[] = {14, 300, 15, 40, 17, 90, 512, 200};
    struct hak_ace_run run;
    unsigned i = round * 5 % PLACES;
    bool zero;

    if (runs[i] != NULL) {
        WATCHED(hak_ace_free(runs[i], &run));
    }
    WATCHED(runs[i] = hak_ace_alloc(pages[round % 8],
                                    HAK_PAGE << (round % 3 == 0 ? 4 : 0),
                                    HAK_ID_SHARED, &zero));
    NEED(runs[i] != NULL);
    if (zero) {
        NEED(is_zero(runs[i], 14 * HAK_PAGE));
    }
    memset(runs[i], 1, 14 * HAK_PAGE);
    WATCHED(hak_ace_resize(runs[i], pages[round % 8] + 20u));
    WATCHED(hak_ace_resize(runs[i], pages[round % 8] - (round % 2 != 0)));
    if (round % 7 == 6) {
        WATCHED(hak_ace_trim());
    }
}

Test(fork_mend, ace)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    watch(ace_work, (unsigned)unit_scale(40, 10));
}

static void huge_work(unsigned round)
{
    struct hak_huge_block block;
    size_t size = (2 + round % 3) * HAK_SUPER_SIZE;
    unsigned i = round % 3;
    bool zero;

    if (runs[i] != NULL) {
        WATCHED(hak_huge_free(runs[i], &block));
    }
    WATCHED(runs[i] = hak_huge_alloc(size, 1, HAK_ID_SHARED, &zero));
    NEED(runs[i] != NULL);
    *(char *)runs[i] = 1;
    WATCHED(runs[i] = hak_huge_resize(runs[i], size * 3));
    NEED(runs[i] != NULL && *(char *)runs[i] == 1);
    WATCHED(runs[i] = hak_huge_resize(runs[i], size));
}

Test(fork_mend, huge)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    watch(huge_work, (unsigned)unit_scale(12, 6));
}

/* Slabs and superslabs are taken, written to, given back, purged. */
static void range_work(unsigned round)
{
    uint32_t count = round % HAK_SPAN_MOST + 1;
    uint32_t slab, other, super;
    bool zero;

    watch_on();
    slab = hak_range_slabs_take(count, HAK_LANE_POOL, round % 2 != 0);
    other = hak_range_slabs_take(1, HAK_LANE_TINY, true);
    super = hak_range_supers_take(2, 1, HAK_LANE_HUGE, &zero);
    NEED(slab != HAK_NO_SLAB && other != HAK_NO_SLAB && super != HAK_NO_SUPER);
    NEED(hak_range_ready(slab, count, HAK_PAGE, 4 * HAK_PAGE));
    watch_off();
    memset(hak_range_slab_start(slab), 1, HAK_PAGE);
    *hak_range_super_start(super) = 1;
    watch_on();
    hak_range_slabs_give(slab, count, HAK_LANE_POOL);
    hak_range_supers_give(super, 2, HAK_LANE_HUGE, HAK_ALL_SLABS);
    hak_range_slabs_give(other, 1, HAK_LANE_TINY);
    if (round % 3 == 0) {
        hak_range_purge();
    }
    watch_off();
}

Test(fork_mend, range)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    watch(range_work, (unsigned)unit_scale(12, 6));
}

/* The first use of all: the range is being reserved. */
static void first_work(unsigned round)
{
    (void)round;
    WATCHED(hak_free(hak_malloc(10)));
}

static void first_child(void)
{
    alarm(60);
    hak_free(hak_malloc(100));
    NEED(hak_range.size != 0);
    keep_some();
    use_lanes(1);
    unit_in_thread(use_in_thread, NULL);
    check_kept();
}

Test(fork_mend, first_use)
{
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_SIGINFO | SA_RESTART};
    struct work what = {first_work, 1};
    pthread_t thread;

    setenv("HAKMEM_RANGE", "1G", 1);
    hak_option(HAK_OPT_range); /* no wait for who reads the environment */
    set_stride();
    NEED(sem_init(&at_stop, 0, 0) == 0 && sem_init(&go, 0, 0) == 0);
    NEED(sigaction(SIGTRAP, &action, NULL) == 0);
    thread = unit_start(work, &what);
    for (;;) {
        pid_t pid;
        int status;

        while (sem_wait(&at_stop) != 0) {
        }
        if (done) {
            break;
        }
        pid = fork();
        if (pid == 0) {
            first_child();
            _exit(0);
        }
        NEED(waitpid(pid, &status, 0) == pid);
        cr_assert(status == 0, "status %#x", (unsigned)status);
        NEED(sem_post(&go) == 0);
    }
    unit_join(thread);
}

/* Entries come and go, the table grows. */
static void system_work(unsigned round)
{
    static void *blocks[600];
    static unsigned count;
    struct hak_heap *owner;
    size_t size;

    for (unsigned n = 0; n < (round < 4 ? 70 : 8); n++) {
        /* The 256th makes the table grow. */
        bool now = n == 0 || count == 255;
        void *p;

        if (now) {
            watch_on();
        }
        p = hak_system_alloc(16, 16 + n, NULL, HAK_REASON_MEMORY);
        watch_off();
        NEED(p != NULL);
        blocks[count++] = p;
    }
    WATCHED(blocks[round] = hak_system_resize(blocks[round], 5000));
    NEED(blocks[round] != NULL);
    for (unsigned n = 0; n < 4; n++) {
        WATCHED(hak_system_free(blocks[--count], &owner, &size));
    }
}

Test(fork_mend, system)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    watch(system_work, (unsigned)unit_scale(8, 5));
}

/* ---- heaps ----------------------------------------------------------------------- */

/* Its destructor runs after the one that parks the heap; in the C library's
 * last steps signals are blocked. */
static pthread_key_t last_key;

static void watch_no_more(void *arg)
{
    (void)arg;
    watch_off();
}

static void *live_a_little(void *arg)
{
    unsigned round = *(unsigned *)arg;

    NEED(pthread_setspecific(last_key, arg) == 0);
    watch_on();
    hak_free(hak_malloc(100));
    hak_free(hak_malloc(5000));
    hak_free(hak_malloc(60000));
    if (round % 2 != 0) {
        hak_trim();
    }
    return NULL;
}

/* A thread adopts a heap, works, and leaves it: a heap is made, if two do. */
static void heap_work(unsigned round)
{
    pthread_t threads[2];

    for (int i = 0; i < 2; i++) {
        threads[i] = unit_start(live_a_little, &round);
    }
    for (int i = 0; i < 2; i++) {
        unit_join(threads[i]);
    }
}

Test(fork_mend, heaps)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    hak_free(hak_malloc(1)); /* its key is there before ours */
    NEED(pthread_key_create(&last_key, watch_no_more) == 0);
    watch(heap_work, (unsigned)unit_scale(4, 2));
}

/* All lanes through a thread's heap: bins, spans, caches. */
static void all_work(unsigned round)
{
    static char *mine[60];

    for (unsigned n = 0; n < 12; n++) {
        unsigned i = (round * 7 + n * 11) % 60;

        WATCHED(hak_free(mine[i]));
        WATCHED(mine[i] = hak_malloc(sizes[(round + n) % SIZES]));
        NEED(mine[i] != NULL);
    }
}

Test(fork_mend, all_lanes)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    watch(all_work, (unsigned)unit_scale(12, 4));
}

#else

Test(fork_mend, a_thread_cannot_be_stopped_after_each_instruction_here)
{
}

#endif
