/*
 * bench_fork.c - what the workers of a server that forks after it has loaded
 * its data cost in memory, on the allocator the process has.
 *
 *     bench_fork [MB [CHILDREN]]
 *
 * The parent makes MB megabytes (318) of small objects, frees a tenth of them
 * here and there, calls hak_seal if BENCH_SEAL=1 (and the allocator has it)
 * and forks CHILDREN (4). Each of them is asked what memory it has to itself
 * (Private_Dirty of smaps_rollup) while it does nothing, then serves REQUESTS
 * requests: KEPT objects that stay, as many that go, and FREED of its parent's
 * objects that go, too. Then it is asked again. Ends with the line, of the
 * child that needed most,
 *
 *     idle_kb=N private_kb=N kept_kb=N faults=N fork_us=N
 *
 * fork_us is the time from the call of fork to its return in the child. fork.py
 * runs it for every allocator.
 */
#include "bench.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LEAST = 16, MOST = 256, REQUESTS = 300, KEPT = 240, FREED = 20 };

struct object {
    char *p;
    size_t size;
};

/* What a child reports, in memory that all share. */
struct report {
    uint64_t idle_kb, private_kb, kept_kb, faults, fork_us;
};

static void fail(const char *what)
{
    fprintf(stderr, "bench_fork: %s\n", what);
    _exit(1);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Kilobytes of pages that only this process has. Allocates nothing. */
static uint64_t private_kb(void)
{
    static const char name[] = "\nPrivate_Dirty:";
    char text[2048];
    int fd = open("/proc/self/smaps_rollup", O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    const char *at;

    if (n <= 0)
        fail("cannot read /proc/self/smaps_rollup");
    text[n] = '\0';
    close(fd);
    at = strstr(text, name);
    if (at == NULL)
        fail("no Private_Dirty in /proc/self/smaps_rollup");
    return strtoull(at + sizeof(name) - 1, NULL, 10);
}

static uint64_t faults(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_minflt;
}

static struct object make(uint64_t *state)
{
    size_t size = LEAST + bench_upper(bench_next(state), MOST - LEAST + 1);
    struct object object = {malloc(size), size};

    if (object.p == NULL)
        fail("malloc returned NULL");
    memset(object.p, (int)size, size);
    return object;
}

static void drop(struct object *object)
{
    if (object->p[object->size - 1] != (char)object->size)
        fail("an object is not what it was");
    free(object->p);
    object->p = NULL;
}

/* Frees a tenth of the objects, in no order. */
static void make_holes(struct object *objects, uint64_t count, uint64_t *state)
{
    for (uint64_t i = 0; i < count / 10;) {
        uint64_t at = bench_upper(bench_next(state), count);

        if (objects[at].p != NULL) {
            drop(&objects[at]);
            i++;
        }
    }
}

static struct object *build(uint64_t bytes, uint64_t *count)
{
    uint64_t most = bytes / ((LEAST + MOST) / 2) * 5 / 4;
    struct object *objects = bench_array(most * sizeof(*objects));
    uint64_t state = bench_first_state(1);

    if (objects == NULL)
        fail("no memory for the list of objects");
    for (*count = 0; bytes > MOST && *count < most; ++*count) {
        objects[*count] = make(&state);
        bytes -= objects[*count].size;
    }
    make_holes(objects, *count, &state);
    return objects;
}

/* Nobody keeps track of the kept objects: they last until the process ends. */
static uint64_t serve(uint64_t *state)
{
    struct object gone[KEPT];
    uint64_t bytes = 0;

    for (int i = 0; i < KEPT; i++) {
        gone[i] = make(state);
        bytes += make(state).size;
    }
    for (int i = 0; i < KEPT; i++)
        drop(&gone[i]);
    return bytes;
}

/* Objects of the parent's, from all over; the list is not written to. */
static void free_some(const struct object *objects, uint64_t count, int request)
{
    for (uint64_t i = 0; i < FREED; i++) {
        struct object object = objects[((uint64_t)request * FREED + i) * count /
                                       (REQUESTS * FREED)];

        if (object.p != NULL)
            drop(&object);
    }
}

static void work(const struct object *objects, uint64_t count, unsigned number,
                 struct report *report)
{
    uint64_t state = bench_first_state(100 + number);
    uint64_t before = faults();

    for (int i = 0; i < REQUESTS; i++) {
        report->kept_kb += serve(&state);
        free_some(objects, count, i);
    }
    report->kept_kb /= 1024;
    report->faults = faults() - before;
    report->private_kb = private_kb();
}

static void child(const struct object *objects, uint64_t count, unsigned number,
                  struct report *report, int go)
{
    char c;

    report->idle_kb = private_kb();
    if (read(go, &c, 1) != 1) /* all of us are there */
        fail("the parent has gone");
    work(objects, count, number, report);
    _exit(0);
}

/* Forks the children, lets them work at once, waits for their ends. */
static void run(const struct object *objects, uint64_t count, unsigned children,
                struct report *reports)
{
    int go[2], status;

    if (pipe(go) != 0)
        fail("no pipe");
    for (unsigned i = 0; i < children; i++) {
        uint64_t began = now_us();
        pid_t pid = fork();

        if (pid < 0)
            fail("fork failed");
        if (pid == 0) {
            reports[i].fork_us = now_us() - began;
            child(objects, count, i, &reports[i], go[0]);
        }
    }
    for (unsigned i = 0; i < children; i++) {
        if (write(go[1], "", 1) != 1)
            fail("no child is left");
    }
    for (unsigned i = 0; i < children; i++) {
        if (wait(&status) < 0 || status != 0)
            fail("a child has failed");
    }
}

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

int main(int argc, char **argv)
{
    uint64_t megabytes = 318, children = 4, count;
    struct report *reports, most = {0, 0, 0, 0, 0};
    struct object *objects;
    void (*seal)(void);

    if (argc > 3 ||
        (argc > 1 && !bench_number(argv[1], 1, 10000, &megabytes)) ||
        (argc > 2 && !bench_number(argv[2], 1, 100, &children))) {
        fprintf(stderr, "usage: bench_fork [MB [CHILDREN]]\n");
        return 2;
    }
    reports = mmap(NULL, children * sizeof(*reports), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (reports == MAP_FAILED)
        fail("no memory for the reports");
    objects = build(megabytes << 20, &count);
    *(void **)&seal = dlsym(RTLD_DEFAULT, "hak_seal");
    if (seal != NULL && getenv("BENCH_SEAL") != NULL)
        seal();
    run(objects, count, (unsigned)children, reports);
    for (uint64_t i = 0; i < children; i++) {
        most.idle_kb = max(most.idle_kb, reports[i].idle_kb);
        most.private_kb = max(most.private_kb, reports[i].private_kb);
        most.kept_kb = max(most.kept_kb, reports[i].kept_kb);
        most.faults = max(most.faults, reports[i].faults);
        most.fork_us = max(most.fork_us, reports[i].fork_us);
    }
    printf("idle_kb=%llu private_kb=%llu kept_kb=%llu faults=%llu "
           "fork_us=%llu\n",
           (unsigned long long)most.idle_kb,
           (unsigned long long)most.private_kb,
           (unsigned long long)most.kept_kb, (unsigned long long)most.faults,
           (unsigned long long)most.fork_us);
    return 0;
}
