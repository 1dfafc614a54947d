/*
 * forkstorm.c - forks in a busy process: forkstorm SECONDS MODE...
 *
 *   lanes    threads allocate over all lanes (whatever else, but `alone`)
 *   stdio    others read lines, which allocates with a stream locked, and one
 *            calls fflush(NULL), which fork does not go on without
 *   nss      others look up users
 *   dlopen   one opens and closes a library
 *   join     handlers, registered before and after a preloaded library's, let a
 *            thread end that allocates over all lanes, and wait for it
 *   lock     handlers hold a lock that threads hold while they allocate
 *   signal   a timer's handler forks, inside malloc and free
 *   alone    no threads: then it may fork inside of fork as well
 *   bare     children of _Fork and clone, of vfork and posix_spawn
 *   core     all allocate by hak_malloc as well
 *   all      all of it but `signal` and `alone`
 *
 * Ends with "well". A process that does not come to its end is killed, which is
 * a failure, and so is each of its children.
 */
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "program.h"

enum { THREADS = 3, SLOTS = 24, KEPT = 40, LIMIT = 60 };

static bool stdio, nss, opening, joining, locking, signals, alone, bare, core;
static volatile bool stop;
static char *file_name;

/* ---- allocating over all lanes --------------------------------------------- */

void *hak_malloc(size_t size) __attribute__((weak));
void hak_free(void *p) __attribute__((weak));

static size_t random_size(uint64_t *random)
{
    uint64_t r = next_random(random);

    switch (r % 40) {
    case 0: return (3 << 20) + r / 64 % (1 << 20);
    case 1:
    case 2:
    case 3: return 53000 + r / 64 % 400000;
    case 4:
    case 5:
    case 6:
    case 7: return 1025 + r / 64 % 50000;
    default: return r / 64 % 1025;
    }
}

struct slot {
    unsigned char *p;
    size_t size;
    bool core; /* hak_malloc's */
};

static void slot_free(struct slot *slot, unsigned seed)
{
    if (slot->p != NULL) {
        NEED(filled(slot->p, slot->size, seed));
        (slot->core ? hak_free : free)(slot->p);
        slot->p = NULL;
    }
}

static void slot_fill(struct slot *slot, unsigned seed, uint64_t *random)
{
    slot->size = random_size(random);
    slot->core = core && next_random(random) % 2 != 0;
    slot->p = (slot->core ? hak_malloc : malloc)(slot->size);
    NEED(slot->p != NULL);
    fill(slot->p, slot->size, seed);
}

/* Some work: new blocks for old ones. */
static void churn(struct slot *slots, unsigned times, uint64_t *random)
{
    for (unsigned n = 0; n < times; n++) {
        unsigned i = (unsigned)(next_random(random) % SLOTS);

        slot_free(&slots[i], i);
        slot_fill(&slots[i], i, random);
    }
}

static void churn_and_end(uint64_t seed, unsigned times)
{
    struct slot slots[SLOTS] = {{0}};

    churn(slots, times, &seed);
    for (unsigned i = 0; i < SLOTS; i++) {
        slot_free(&slots[i], i);
    }
}

static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;

static void *allocate(void *arg)
{
    uint64_t random = (uintptr_t)arg;
    struct slot slots[SLOTS] = {{0}};

    while (!stop) {
        if (locking) {
            NEED(pthread_mutex_lock(&shared_lock) == 0);
        }
        churn(slots, 20, &random);
        if (locking) {
            NEED(pthread_mutex_unlock(&shared_lock) == 0);
        }
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        slot_free(&slots[i], i);
    }
    return NULL;
}

/* ---- the C library's own locks ----------------------------------------------- */

static void make_file(void)
{
    const char *dir = getenv("TMPDIR");
    FILE *file;

    NEED(asprintf(&file_name, "%s/forkstormXXXXXX",
                  dir != NULL ? dir : P_tmpdir) > 0);
    file = fdopen(mkstemp(file_name), "w");
    NEED(file != NULL);
    for (int i = 0; i < 50000; i++) {
        fputc('x', file);
    }
    NEED(fputc('\n', file) == '\n' && fclose(file) == 0);
}

static void *read_lines(void *arg)
{
    FILE *file = fopen(file_name, "r");

    NEED(file != NULL);
    while (!stop) {
        char *line = NULL;
        size_t size = 0;

        rewind(file);
        NEED(getline(&line, &size, file) == 50001);
        free(line);
    }
    fclose(file);
    return arg;
}

static void *flush(void *arg)
{
    while (!stop) {
        fflush(NULL);
    }
    return arg;
}

#ifndef PROGRAM_STATIC
static void *look_up(void *arg)
{
    while (!stop) {
        struct passwd *found, entry;
        char buffer[2000];

        getpwnam_r("nobody", &entry, buffer, sizeof(buffer), &found);
        getpwnam_r("no such user", &entry, buffer, sizeof(buffer), &found);
    }
    return arg;
}

static void *open_and_close(void *arg)
{
    while (!stop) {
        void *library = dlopen("libresolv.so.2", RTLD_NOW);

        if (library != NULL) {
            dlclose(library);
        }
    }
    return arg;
}
#endif

/* ---- handlers ------------------------------------------------------------------ */

/* A thread that allocates until the next fork, whose handler waits for it. */
struct worker {
    pthread_t thread;
    atomic_bool on, quit;
};

static struct worker early, late;

static void *work(void *arg)
{
    struct worker *worker = arg;
    uint64_t seed = (uintptr_t)arg;

    do {
        churn_and_end(seed++, 10);
    } while (!atomic_load(&worker->quit));
    churn_and_end(seed, 10);
    return NULL;
}

static void start(struct worker *worker)
{
    atomic_store(&worker->quit, false);
    NEED(pthread_create(&worker->thread, NULL, work, worker) == 0);
    atomic_store(&worker->on, true);
}

static void end(struct worker *worker)
{
    if (atomic_exchange(&worker->on, false)) {
        atomic_store(&worker->quit, true);
        NEED(pthread_join(worker->thread, NULL) == 0);
    }
}

static void early_prepare(void)
{
    if (locking) {
        NEED(pthread_mutex_lock(&shared_lock) == 0);
    }
    if (joining) {
        end(&early);
    }
    churn_and_end(1, 10);
}

static void early_after(void)
{
    churn_and_end(2, 10);
    if (locking) {
        NEED(pthread_mutex_unlock(&shared_lock) == 0);
    }
}

static void late_prepare(void)
{
    churn_and_end(3, 10);
    if (joining) {
        end(&late);
    }
}

static void late_after(void)
{
    churn_and_end(4, 10);
}

extern void (*handlers_prepare)(void) __attribute__((weak));
extern void (*handlers_parent)(void) __attribute__((weak));
extern void (*handlers_child)(void) __attribute__((weak));

static void register_handlers(void)
{
    if (!joining && !locking) {
        return;
    }
    if (&handlers_prepare != NULL) {
        handlers_prepare = early_prepare;
        handlers_parent = handlers_child = early_after;
    } else {
        NEED(pthread_atfork(early_prepare, early_after, early_after) == 0);
    }
    NEED(pthread_atfork(late_prepare, late_after, late_after) == 0);
}

/* ---- children --------------------------------------------------------------------- */

static struct slot kept[KEPT];

static void keep_some(void)
{
    uint64_t random = 5;

    for (unsigned i = 0; i < KEPT; i++) {
        slot_fill(&kept[i], i, &random);
    }
}

static void *use_a_little(void *arg)
{
    churn_and_end(6, 100);
    return arg;
}

static void child(bool threads)
{
    pthread_t thread;

    alarm(LIMIT);
    churn_and_end((uint64_t)getpid(), 100);
    if (threads) {
        NEED(pthread_create(&thread, NULL, use_a_little, NULL) == 0);
        NEED(pthread_join(thread, NULL) == 0);
    }
    for (unsigned i = 0; i < KEPT; i++) {
        slot_free(&kept[i], i);
    }
    churn_and_end(7, 50);
    _exit(0);
}

static void expect_well(pid_t pid)
{
    int status;
    pid_t got;

    while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR) {
    }
    NEED(got == pid && status == 0);
}

/* glibc's own locks don't let a handler fork inside of a fork beside threads. */
static void hold_signals(int how)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    if (!alone) {
        NEED(pthread_sigmask(how, &set, NULL) == 0);
    }
}

static void fork_well(void)
{
    pid_t pid;

    hold_signals(SIG_BLOCK);
    pid = fork();
    hold_signals(SIG_UNBLOCK);
    NEED(pid >= 0);
    if (pid == 0) {
        child(!signals);
    }
    expect_well(pid);
}

pid_t _Fork(void) __attribute__((weak));

static void fork_bare(unsigned long n)
{
    char *const command[] = {"true", NULL};
    extern char **environ;
    pid_t pid;

    switch (n % 4) {
    case 0: pid = _Fork != NULL ? _Fork() : fork(); break;
    case 1: pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); break;
    case 2:
        pid = vfork();
        if (pid == 0) {
            execv("/bin/true", command);
            _exit(1);
        }
        break;
    default:
        NEED(posix_spawn(&pid, "/bin/true", NULL, NULL, command, environ) == 0);
        break;
    }
    NEED(pid >= 0);
    if (pid == 0) {
        child(false);
    }
    expect_well(pid);
}

/* ---- signals ----------------------------------------------------------------------- */

static volatile unsigned long handled;
static timer_t timer;

/* Once, soon: a timer that goes on by itself may leave no time for the rest. */
static void set_timer(void)
{
    uint64_t random = handled;
    long soon = 100000 + (long)(next_random(&random) % 3000000);

    NEED(timer_settime(timer, 0, &(struct itimerspec){.it_value = {0, soon}},
                       NULL) == 0);
}

static void on_timer(int signal)
{
    int saved = errno;
    pid_t pid = fork();

    (void)signal;
    if (pid == 0) {
        _exit(0);
    }
    if (pid > 0) {
        expect_well(pid);
    }
    handled++;
    set_timer();
    errno = saved;
}

/* Only this thread is to be interrupted. */
static void start_timer(void)
{
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID,
                             .sigev_signo = SIGUSR1};

    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    NEED(sigaction(SIGUSR1, &action, NULL) == 0);
    NEED(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    set_timer();
}

/* ---- all of it ------------------------------------------------------------------------ */

static pthread_t threads[16];
static unsigned thread_count;

static void start_thread(void *(*run)(void *), uintptr_t arg)
{
    NEED(pthread_create(&threads[thread_count++], NULL, run, (void *)arg) == 0);
}

static void start_threads(void)
{
    for (uintptr_t i = 1; i <= THREADS && !alone; i++) {
        start_thread(allocate, i);
    }
    if (stdio) {
        start_thread(read_lines, 0);
        start_thread(read_lines, 0);
        start_thread(flush, 0);
    }
#ifndef PROGRAM_STATIC
    if (nss) {
        start_thread(look_up, 0);
        start_thread(look_up, 0);
    }
    if (opening) {
        start_thread(open_and_close, 0);
    }
#endif
}

static void storm(time_t end_at)
{
    uint64_t seed = 8;

    for (unsigned long n = 0; time(NULL) < end_at; n++) {
        if (joining) {
            start(&early);
            start(&late);
        }
        churn_and_end(seed++, 30);
        if (bare && n % 2 != 0) {
            fork_bare(n / 2);
        } else {
            fork_well();
        }
        end(&early);
        end(&late);
    }
}

static void read_mode(const char *mode)
{
    bool all = strcmp(mode, "all") == 0;

    stdio |= all || strcmp(mode, "stdio") == 0;
    nss |= all || strcmp(mode, "nss") == 0;
    opening |= all || strcmp(mode, "dlopen") == 0;
    joining |= all || strcmp(mode, "join") == 0;
    locking |= all || strcmp(mode, "lock") == 0;
    bare |= all || strcmp(mode, "bare") == 0;
    core |= (all || strcmp(mode, "core") == 0) && hak_malloc != NULL;
    signals |= strcmp(mode, "signal") == 0;
    alone |= strcmp(mode, "alone") == 0;
}

int main(int argc, char **argv)
{
    unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 1;

    for (int i = 2; i < argc; i++) {
        read_mode(argv[i]);
    }
    alarm(seconds + 2 * LIMIT);
    make_file();
    keep_some();
    register_handlers();
    start_threads();
    if (signals) {
        start_timer();
    }
    storm(time(NULL) + seconds);
    if (signals) {
        NEED(handled > 0);
        signal(SIGUSR1, SIG_IGN);
    }
    stop = true;
    for (unsigned i = 0; i < thread_count; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
    unlink(file_name);
    puts("well");
    return 0;
}
