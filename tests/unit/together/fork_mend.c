/*
 * fork_mend.c - tests of what a child makes of the range, of the registry and
 * of heaps when a thread that does not exist there was at work on them.
 */
#include "profile/profile.h"
#include "range/purge.h"
#include "fork_check.h"
#include "range_check.h"

TestSuite(fork_mend, .timeout = 600);

#if FORK_CHECK

/* Slabs and superslabs are taken, written to, given back, purged. */
static void range_work(unsigned round)
{
    uint32_t count = round % HAK_SPAN_MOST + 1;
    uint32_t slab, other, super;
    bool zero;

    watch_on();
    slab = haki_range_slabs_take(count, HAK_LANE_POOL, HAK_CLASS_ANY,
                                 round % 2 != 0);
    other =
        haki_range_slabs_take(1, HAK_LANE_TINY, HAK_CLASS_ANY, HAK_SLABS_ALL);
    super = haki_range_supers_take(2, 1, HAK_LANE_HUGE, &zero);
    NEED(slab != HAK_NO_SLAB && other != HAK_NO_SLAB && super != HAK_NO_SUPER);
    NEED(haki_range_ready(slab, count, HAK_PAGE, 4 * HAK_PAGE));
    watch_off();
    memset(haki_range_slab_start(slab), 1, HAK_PAGE);
    *haki_range_super_start(super) = 1;
    watch_on();
    haki_range_slabs_give(slab, count, HAK_LANE_POOL);
    haki_range_supers_give(super, 2, HAK_LANE_HUGE, HAK_ALL_SLABS);
    haki_range_slabs_give(other, 1, HAK_LANE_TINY);
    if (round % 3 == 0) {
        haki_range_purge();
    }
    watch_off();
}

/* Maps, hints and sums say what is known of each superslab. */
static void look_at_range(void)
{
    size_t spare = 0, used = 0;

    haki_lock_take(&haki_supers.lock);
    for (uint32_t i = first_super(); i < haki_supers.limit; i++) {
        const struct hak_super *super = &haki_supers.at[i];

        NEED((super->used & super->resident) == 0);
        NEED(super->claimed == 0 ||
             haki_os_is_mapped(haki_range_super_start(i)));
        NEED(haki_map_get(HAK_MAP_RESIDENT, i) == (super->resident != 0));
        NEED(haki_map_get(HAK_MAP_HELD, i) == (super->used != 0));
        NEED(haki_map_get(HAK_MAP_PART, i) ==
             (super->used != 0 && super->used != HAK_ALL_SLABS));
        haki_range_walk_starts(i);
        spare += super->used == 0 && super->resident != 0;
        used += super->state == HAK_SUPER_OPEN
                    ? (size_t)__builtin_popcount(super->used)
                    : 0;
    }
    NEED(haki_supers.unused == spare && haki_supers.counts.slabs_used == used);
    haki_lock_drop(&haki_supers.lock);
}

Test(fork_mend, range)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    look = look_at_range;
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
    alarm(250);
    hak_free(hak_malloc(100));
    NEED(haki_range.size != 0);
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
    haki_option(HAK_OPT_range); /* no wait for who reads the environment */
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
        p = haki_system_alloc(16, 16 + n, NULL, HAK_REASON_MEMORY);
        watch_off();
        NEED(p != NULL);
        blocks[count++] = p;
    }
    WATCHED(blocks[round] = haki_system_resize(blocks[round], 5000));
    NEED(blocks[round] != NULL);
    for (unsigned n = 0; n < 4; n++) {
        WATCHED(haki_system_free(blocks[--count], &owner, &size));
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
    watch(heap_work, (unsigned)unit_scale(2, 1));
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
    watch(all_work, (unsigned)unit_scale(6, 2));
}

/* Pages of slabs and spans go while blocks of them are in use, and come again. */
static void sweep_work(unsigned round)
{
    enum { COUNT = 400 };
    static char *mine[2][COUNT];

    for (unsigned i = 0; i < COUNT; i++) {
        mine[0][i] = hak_malloc(400);
        mine[1][i] = hak_malloc(3000);
        NEED(mine[0][i] != NULL && mine[1][i] != NULL);
        memset(mine[0][i], 1, 400);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        if (i % 100 != round) {
            hak_free(mine[0][i]);
            hak_free(mine[1][i]);
        }
    }
    WATCHED(haki_heap_sweep(haki_self));
    for (unsigned i = 0; i < 40; i++) {
        WATCHED(mine[0][i == round ? 40 : i] = hak_malloc(400));
        WATCHED(mine[1][i == round ? 40 : i] = hak_malloc(3000));
    }
    for (unsigned i = 0; i < 41; i++) {
        hak_free(mine[0][i]);
        hak_free(mine[1][i]);
    }
}

Test(fork_mend, sweep)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    watch(sweep_work, (unsigned)unit_scale(2, 1));
}

/* ---- samples --------------------------------------------------------------------- */

/* Samples of some sizes come and go, and slabs of theirs; one is resized. */
static void sample_work(unsigned round)
{
    static const size_t bytes[] = {100, 20000, 20000, 20000, 20000};
    enum { COUNT = sizeof(bytes) / sizeof(bytes[0]) };
    char *p[COUNT], *large = hak_malloc(200000);

    for (unsigned i = 0; i < COUNT; i++) {
        WATCHED(p[i] = hak_malloc(bytes[i] + round));
        NEED(p[i] != NULL);
    }
    WATCHED(large = hak_realloc(large, 300000));
    for (unsigned i = 0; i < COUNT; i++) {
        WATCHED(hak_free(p[i]));
    }
    WATCHED(hak_free(large));
}

/* What is live has its records; new ones have addresses of their own. */
static void look_at_samples(void)
{
    enum { COUNT = 64 };
    struct hak_sampled sampled;
    char *p[COUNT];

    for (unsigned i = 0; i < COUNT; i++) {
        p[i] = hak_malloc(i * 450);
        NEED(p[i] != NULL);
        unit_fill(p[i], i * 450, i);
    }
    check_kept();
    for (unsigned i = 0; i < COUNT; i++) {
        NEED(unit_filled(p[i], i * 450, i));
        hak_free(p[i]);
        NEED(!haki_sample_find(p[i], &sampled));
    }
    haki_profile_drop(haki_profile_read(false));
}

Test(fork_mend, samples)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    look = look_at_samples;
    NEED(haki_profile_set(1));
    watch(sample_work, 1);
}

#else

Test(fork_mend, a_thread_cannot_be_stopped_at_each_instruction_here)
{
}

#endif
