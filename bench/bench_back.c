/*
 * bench_back.c - how much of the memory that it has freed a program keeps, with
 * whatever allocator the process has.
 *
 *     bench_back who
 *     bench_back peak SIZE one|eight|worker order|random
 *     bench_back turns THREADS MOST own|other
 *     bench_back ended THREADS
 *     bench_back sparse runs|random
 *     bench_back again SIZE ROUNDS
 *     bench_back faults ROUNDS
 *     bench_back curve
 *
 * peak makes 300 MB of blocks and frees them all, one after the other or in
 * random order: in one thread; in eight, which sleep afterwards; or in a worker,
 * while the main thread, which has made them, sleeps. In turns a pool's threads
 * take turns: one makes 60 MB of small blocks, it or the next one frees them, all
 * sleep; it ends early above 3 GB. In ended that many threads exist at once,
 * allocate blocks of 16 B to 50 KB, free them and end. sparse frees 90 % of two
 * million small objects.
 *
 * Each of them then prints a line of NAME=N values that begins with freed_kb,
 * the resident size at that moment, and sleeps until its standard input ends.
 * Meanwhile it calls and allocates nothing: back.py looks at it from outside.
 *
 * again peaks and sleeps 3 s, ROUNDS times, and prints the faults and processor
 * time of the whole; with BENCH_LOCK=FILE it is at work only while it holds that
 * file's lock, so that several may run at once. faults prints what it costs to get
 * as many pages from the system and to give them back, ROUNDS times, with no
 * allocator in between. curve takes 20 s: it peaks, frees and sleeps twice, at set
 * times.
 */
#include "bench.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    PEAK = 300 << 20,
    EIGHT = 8,
    PAGE = 4096,
    SLEEP = 3, /* seconds, between two rounds of `again` */
};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "bench_back: %s\n", what);
    _exit(1);
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: bench_back who | peak SIZE one|eight|worker "
                    "order|random |\n    turns THREADS MOST own|other | ended "
                    "THREADS | sparse runs|random |\n    again SIZE ROUNDS | "
                    "faults ROUNDS | curve\n");
    exit(2);
}

/* Resident KB. Allocates nothing. */
static uint64_t resident_kb(void)
{
    char text[256];
    int fd = open("/proc/self/statm", O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    char *at;

    if (n <= 0)
        fail("cannot read /proc/self/statm");
    text[n] = '\0';
    close(fd);
    at = strchr(text, ' ');
    return at == NULL ? 0 : strtoull(at, NULL, 10) * PAGE / 1024;
}

/* Prints the line and sleeps until standard input ends. Neither allocates. */
static _Noreturn void sleep_on(const char *more)
{
    char line[256], c;
    int n = snprintf(line, sizeof(line), "freed_kb=%llu%s\n",
                     (unsigned long long)resident_kb(), more);

    if (write(STDOUT_FILENO, line, (size_t)n) != n)
        _exit(1);
    while (read(STDIN_FILENO, &c, 1) > 0) {
    }
    _exit(0);
}

static void *checked(void *p)
{
    if (p == NULL)
        fail("there is no memory");
    return p;
}

static void start(pthread_t *thread, void *(*body)(void *), void *arg)
{
    pthread_attr_t attributes;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    if (pthread_create(thread, &attributes, body, arg) != 0)
        fail("a thread could not be started");
    pthread_attr_destroy(&attributes);
}

/* ---- blocks, and a list of them that comes from no allocator ------------- */

struct blocks {
    char **list;
    size_t count, size;
};

static struct blocks make(size_t bytes, size_t size)
{
    struct blocks blocks = {.count = bytes / size, .size = size};

    blocks.list = checked(bench_array(blocks.count * sizeof(*blocks.list)));
    for (size_t i = 0; i < blocks.count; i++) {
        blocks.list[i] = checked(malloc(size));
        memset(blocks.list[i], 1, size);
    }
    return blocks;
}

static void shuffle(struct blocks *blocks)
{
    uint64_t state = bench_first_state(7);

    for (size_t i = blocks->count; i > 1; i--) {
        size_t at = bench_upper(bench_next(&state), i);
        char *p = blocks->list[i - 1];

        blocks->list[i - 1] = blocks->list[at];
        blocks->list[at] = p;
    }
}

/* The list goes last: it must not count as left over. */
static void drop(struct blocks *blocks)
{
    for (size_t i = 0; i < blocks->count; i++)
        free(blocks->list[i]);
    munmap(blocks->list, blocks->count * sizeof(*blocks->list));
}

/* ---- peak ------------------------------------------------------------------ */

static struct {
    size_t size;
    bool shuffled;
    pthread_barrier_t made;
    sem_t freed;
} peak;

static void sleep_for_ever(void)
{
    for (;;)
        poll(NULL, 0, -1);
}

/* One of eight. */
static void *peak_thread(void *arg)
{
    struct blocks blocks = make(PEAK / EIGHT, peak.size);

    if (peak.shuffled)
        shuffle(&blocks);
    pthread_barrier_wait(&peak.made);
    drop(&blocks);
    sem_post(&peak.freed);
    sleep_for_ever();
    return arg;
}

static void peak_eight(void)
{
    pthread_t thread;

    pthread_barrier_init(&peak.made, NULL, EIGHT);
    sem_init(&peak.freed, 0, 0);
    for (int i = 0; i < EIGHT; i++)
        start(&thread, peak_thread, NULL);
    for (int i = 0; i < EIGHT; i++)
        sem_wait(&peak.freed);
}

/* Frees what the main thread, which sleeps, has made; notes the time. */
static void *peak_worker(void *arg)
{
    drop(arg);
    sleep_on("");
}

static void run_peak(const char *who, const char *order)
{
    struct blocks blocks;
    pthread_t thread;

    peak.shuffled = strcmp(order, "random") == 0;
    if (!peak.shuffled && strcmp(order, "order") != 0)
        usage();
    if (strcmp(who, "eight") == 0) {
        peak_eight();
        sleep_on("");
    }
    if (strcmp(who, "one") != 0 && strcmp(who, "worker") != 0)
        usage();
    blocks = make(PEAK, peak.size);
    if (peak.shuffled)
        shuffle(&blocks);
    if (strcmp(who, "worker") == 0) {
        start(&thread, peak_worker, &blocks);
        sleep_for_ever();
    }
    drop(&blocks);
    sleep_on("");
}

/* ---- turns ----------------------------------------------------------------- */

enum {
    TURN = 60 << 20,
    TURNS = 60,
    BETWEEN_US = 100000,
    BIG = 10 << 20,
    MOST_KB =
        3 << 20, /* enough to see: the machine must not run out of memory */
};

/* A thread of the pool, which sleeps until it is told what to do. */
struct member {
    sem_t go;
    bool makes, frees;
};

static struct {
    size_t most;
    void **list; /* as the programs do: the allocator's, too */
    size_t count;
    sem_t done;
} turns;

/* Up to 1 KB every size is as likely; above it every power of two. */
static size_t some_size(uint64_t *state)
{
    unsigned octaves = 0;
    size_t size;

    if (turns.most <= 1024)
        return 16 + bench_upper(bench_next(state), turns.most - 15);
    while ((16u << (octaves + 1)) <= turns.most)
        octaves++;
    size = (size_t)16 << bench_upper(bench_next(state), octaves);
    return size + bench_upper(bench_next(state), size + 1);
}

/* A list that grows as vectors do, the blocks, and a big one for a moment. */
static void turn_make(uint64_t *state)
{
    size_t room = 0;
    char *big;

    turns.list = NULL;
    turns.count = 0;
    for (size_t left = TURN; left > turns.most; turns.count++) {
        size_t size = some_size(state);

        if (turns.count == room) {
            room = room > 0 ? 2 * room : 1024;
            turns.list =
                checked(realloc(turns.list, room * sizeof(*turns.list)));
        }
        turns.list[turns.count] = checked(malloc(size));
        memset(turns.list[turns.count], 1, size);
        left -= size;
    }
    big = checked(malloc(BIG));
    memset(big, 1, BIG);
    free(big);
}

static void turn_free(void)
{
    for (size_t i = 0; i < turns.count; i++)
        free(turns.list[i]);
    free(turns.list);
}

static void *member(void *arg)
{
    struct member *me = arg;
    uint64_t state = bench_first_state((uintptr_t)me);

    for (;;) {
        sem_wait(&me->go);
        if (me->makes)
            turn_make(&state);
        if (me->frees)
            turn_free();
        sem_post(&turns.done);
    }
    return NULL;
}

static void wake(struct member *who, bool makes, bool frees)
{
    who->makes = makes;
    who->frees = frees;
    sem_post(&who->go);
    sem_wait(&turns.done);
}

static void run_turns(uint64_t threads, const char *whose)
{
    struct member *members = checked(bench_array(threads * sizeof(*members)));
    uint64_t most = 0, rounds = threads > TURNS ? threads : TURNS;
    bool own = strcmp(whose, "own") == 0;
    pthread_t thread;
    char more[64];

    if (!own && strcmp(whose, "other") != 0)
        usage();
    sem_init(&turns.done, 0, 0);
    for (uint64_t i = 0; i < threads; i++) {
        sem_init(&members[i].go, 0, 0);
        start(&thread, member, &members[i]);
    }
    for (uint64_t turn = 0; turn < rounds; turn++) {
        wake(&members[turn % threads], true, own);
        if (!own)
            wake(&members[(turn + 1) % threads], false, true);
        if (resident_kb() > most)
            most = resident_kb();
        if (most > MOST_KB)
            break;
        usleep(BETWEEN_US);
    }
    snprintf(more, sizeof(more), " most_kb=%llu", (unsigned long long)most);
    sleep_on(more);
}

/* ---- ended ----------------------------------------------------------------- */

static pthread_barrier_t all_there;

static void *short_life(void *arg)
{
    enum { BLOCKS = 13 };
    static const size_t sizes[BLOCKS] = {
        16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 50000};
    void *blocks[BLOCKS];

    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = checked(malloc(sizes[i]));
        memset(blocks[i], 1, sizes[i]);
    }
    pthread_barrier_wait(&all_there);
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    return arg;
}

static void run_ended(uint64_t count)
{
    pthread_t *threads = checked(bench_array(count * sizeof(*threads)));

    pthread_barrier_init(&all_there, NULL, (unsigned)count);
    for (uint64_t i = 0; i < count; i++)
        start(&threads[i], short_life, NULL);
    for (uint64_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    sleep_on("");
}

/* ---- sparse ---------------------------------------------------------------- */

enum { OBJECTS = 2000000, RUN = 1000, LEAST = 16, MOST = 384 };

/* Nine runs of ten, or nine objects of ten. */
static bool goes(bool runs, size_t i, uint64_t *state)
{
    return runs ? i / RUN % 10 != 0 : bench_upper(bench_next(state), 10) != 0;
}

static void run_sparse(const char *which)
{
    bool runs = strcmp(which, "runs") == 0;
    uint64_t state = bench_first_state(3), live = 0, all = 0;
    char **list = checked(bench_array(OBJECTS * sizeof(*list)));
    char more[64];

    if (!runs && strcmp(which, "random") != 0)
        usage();
    for (size_t i = 0; i < OBJECTS; i++) {
        size_t size = LEAST + bench_upper(bench_next(&state), MOST - LEAST + 1);

        list[i] = checked(malloc(size));
        memset(list[i], 1, size);
        all += size;
        if (!goes(runs, i, &state)) {
            live += size;
            list[i] = NULL; /* nobody will ever free it */
        }
    }
    for (size_t i = 0; i < OBJECTS; i++)
        free(list[i]);
    munmap(list, OBJECTS * sizeof(*list));
    snprintf(more, sizeof(more), " made_kb=%llu live_kb=%llu",
             (unsigned long long)all / 1024, (unsigned long long)live / 1024);
    sleep_on(more);
}

/* ---- again, faults --------------------------------------------------------- */

static double work_cpu; /* processor seconds of the rounds, sleep left out */
static long work_faults;

static void round_again(size_t size, int lock)
{
    struct blocks blocks;
    double cpu;
    long faults;

    if (lock >= 0)
        flock(lock, LOCK_EX);
    cpu = bench_processor_seconds(RUSAGE_SELF);
    faults = bench_faults(RUSAGE_SELF);
    blocks = make(PEAK, size);
    drop(&blocks);
    work_cpu += bench_processor_seconds(RUSAGE_SELF) - cpu;
    work_faults += bench_faults(RUSAGE_SELF) - faults;
    if (lock >= 0)
        flock(lock, LOCK_UN);
}

static void run_again(size_t size, uint64_t rounds)
{
    const char *name = getenv("BENCH_LOCK");
    int lock =
        name != NULL ? open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

    for (uint64_t i = 0; i < rounds; i++) {
        round_again(size, lock);
        sleep(SLEEP);
    }
    printf("faults=%ld cpu_us=%.0f work_faults=%ld work_us=%.0f peak_kb=%ld "
           "kept_kb=%llu\n",
           bench_faults(RUSAGE_SELF),
           bench_processor_seconds(RUSAGE_SELF) * 1e6, work_faults,
           work_cpu * 1e6, bench_peak_kb(), (unsigned long long)resident_kb());
}

/* With small pages, as a process that gives its memory back gets them. */
static void run_faults(uint64_t rounds)
{
    double cpu = bench_processor_seconds(RUSAGE_SELF);
    long faults = bench_faults(RUSAGE_SELF);

    for (uint64_t i = 0; i < rounds; i++) {
        char *p = mmap(NULL, PEAK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
            fail("there is no memory");
        madvise(p, PEAK, MADV_NOHUGEPAGE);
        for (size_t at = 0; at < PEAK; at += PAGE)
            *(volatile char *)(p + at) = 1;
        munmap(p, PEAK);
    }
    printf("faults=%ld cpu_us=%.0f\n", bench_faults(RUSAGE_SELF) - faults,
           (bench_processor_seconds(RUSAGE_SELF) - cpu) * 1e6);
}

/* ---- curve ----------------------------------------------------------------- */

static void sleep_until(double began, double seconds)
{
    double left = began + seconds - bench_seconds();

    if (left > 0)
        usleep((useconds_t)(left * 1e6));
}

static void run_curve(void)
{
    static const size_t sizes[] = {16, 64, 200, 2000, 20000, 100000};
    enum { KINDS = sizeof(sizes) / sizeof(*sizes) };
    struct blocks blocks[KINDS];
    double began = bench_seconds();

    for (int peaks = 0; peaks < 2; peaks++) {
        sleep_until(began, 1 + 9 * peaks);
        for (int i = 0; i < KINDS; i++)
            blocks[i] = make(PEAK / KINDS, sizes[i]);
        sleep_until(began, 3 + 9 * peaks);
        for (int i = 0; i < KINDS; i++)
            drop(&blocks[i]);
    }
    sleep_until(began, 20);
}

/* Prints which malloc it is, and its version if it can be found out. */
static void run_who(void)
{
    Dl_info info;
    int (*mi)(void);
    int (*je)(const char *, void *, size_t *, void *, size_t);
    const char *version = "";
    size_t size = sizeof(version);
    int number;

    if (dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) == 0)
        fail("whose malloc it is can't be told");
    printf("%s", info.dli_fname);
    *(void **)&mi = dlsym(RTLD_DEFAULT, "mi_version");
    *(void **)&je = dlsym(RTLD_DEFAULT, "mallctl");
    if (mi != NULL) {
        number = mi();
        number >= 10000
            ? printf(" %d.%d.%d", number / 10000, number / 100 % 100,
                     number % 100)
            : printf(" %d.%d.%d", number / 100, number / 10 % 10, number % 10);
    } else if (je != NULL && je("version", &version, &size, NULL, 0) == 0) {
        printf(" %.*s", (int)strcspn(version, "-"), version);
    }
    putchar('\n');
}

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
    uint64_t found;

    if (text == NULL || !bench_number(text, least, most, &found))
        usage();
    return found;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "who") == 0 && argc == 2) {
        run_who();
    } else if (strcmp(what, "peak") == 0 && argc == 5) {
        peak.size = number(argv[2], 1, PEAK / EIGHT);
        run_peak(argv[3], argv[4]);
    } else if (strcmp(what, "turns") == 0 && argc == 5) {
        turns.most = number(argv[3], 16, 1 << 20);
        run_turns(number(argv[2], 1, 10000), argv[4]);
    } else if (strcmp(what, "ended") == 0 && argc == 3) {
        run_ended(number(argv[2], 1, 30000));
    } else if (strcmp(what, "sparse") == 0 && argc == 3) {
        run_sparse(argv[2]);
    } else if (strcmp(what, "again") == 0 && argc == 4) {
        run_again(number(argv[2], 1, PEAK), number(argv[3], 1, 10000));
    } else if (strcmp(what, "faults") == 0 && argc == 3) {
        run_faults(number(argv[2], 1, 10000));
    } else if (strcmp(what, "curve") == 0 && argc == 2) {
        run_curve();
    } else {
        usage();
    }
    return 0;
}
