/*
 * bench_limits.c - what an allocator does with a limit on address space.
 *
 *     bench_limits fill LIMIT SIZE    LIMIT in MB, 0: it is set already
 *     bench_limits idle               a process that has done nothing yet
 *     bench_limits lock [USER]        mlockall, as the present or an ordinary user
 *
 * "fill" allocates a little, sets RLIMIT_AS unless it is set, and asks malloc
 * for blocks of SIZE bytes ("random": up to 256 KB) until it gives no more. It
 * writes to the start of each. Then everything is freed, and what else a
 * process wants of its address space is tried: a thread, a child through popen,
 * a library, a mapping of half the limit, 4 MB of stack. It ends with the line
 *
 *     mb=N errno=N thread=S popen=S dlopen=S mmap=S stack=S
 *
 * where S is ok or what went wrong. Others end with lines of the kind
 *
 *     what=S vm_kb=N rss_kb=N locked_kb=N
 *
 * limits.py runs it for every allocator.
 */
#include "bench.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RANDOM_MOST = 256 << 10, STACK = 4 << 20, FRAME = 4096 };

#define MB ((size_t)1 << 20)
#define MEMLOCK ((rlim_t)1 << 30)
#define NOBODY 65534

struct block {
    struct block *next;
};

static const char *error_name(int error)
{
    switch (error) {
    case ENOMEM: return "ENOMEM";
    case EAGAIN: return "EAGAIN";
    case EPERM: return "EPERM";
    default: return "failed";
    }
}

/* ---- until there is no more ------------------------------------------------ */

/* Megabytes that malloc gave; *error: errno at the end. */
static size_t fill(size_t size, struct block **blocks, int *error)
{
    uint64_t state = bench_first_state(1);
    size_t bytes = 0;

    for (;;) {
        size_t n = size;
        struct block *block;

        if (size == 0)
            n = sizeof(*block) + bench_upper(bench_next(&state), RANDOM_MOST);
        errno = 0;
        block = malloc(n);
        if (block == NULL)
            break;
        block->next = *blocks;
        *blocks = block;
        bytes += n;
    }
    *error = errno;
    return bytes / MB;
}

static void empty(struct block *blocks)
{
    while (blocks != NULL) {
        struct block *next = blocks->next;

        free(blocks);
        blocks = next;
    }
}

/* ---- what else there is to do ---------------------------------------------- */

static void *a_thread(void *arg)
{
    return arg;
}

static const char *try_thread(void)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, a_thread, NULL);

    if (error != 0)
        return error_name(error);
    pthread_join(thread, NULL);
    return "ok";
}

static const char *try_popen(void)
{
    char word[8] = "";
    FILE *file = popen("echo fine", "r");

    if (file == NULL)
        return error_name(errno);
    if (fscanf(file, "%7s", word) != 1)
        word[0] = '\0';
    return pclose(file) == 0 && strcmp(word, "fine") == 0 ? "ok" : "failed";
}

static const char *try_dlopen(void)
{
    void *library = dlopen("libresolv.so.2", RTLD_NOW);

    if (library == NULL)
        return "failed";
    dlclose(library);
    return "ok";
}

static const char *try_mmap(void)
{
    struct rlimit limit;
    size_t size;
    void *p;

    getrlimit(RLIMIT_AS, &limit);
    size = (size_t)limit.rlim_cur / 2;
    p = mmap(NULL, size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return error_name(errno);
    munmap(p, size);
    return "ok";
}

static int go_down(int frames)
{
    volatile char frame[FRAME];

    frame[0] = (char)frames;
    return frames > 0 ? go_down(frames - 1) + frame[0] : 0;
}

/* In a child: a stack that can't grow is a signal. */
static const char *try_stack(void)
{
    pid_t child = fork();
    int status;

    if (child == 0)
        _exit(go_down(STACK / FRAME) == -1);
    if (child < 0)
        return error_name(errno);
    return waitpid(child, &status, 0) == child && status == 0 ? "ok" : "failed";
}

static int run_fill(size_t limit, size_t size)
{
    struct rlimit wanted = {limit * MB, RLIM_INFINITY};
    struct block *blocks = NULL;
    int error;
    size_t got;

    free(malloc(100));
    free(malloc(MB));
    if (limit != 0 && setrlimit(RLIMIT_AS, &wanted) != 0) {
        perror("bench_limits: setrlimit");
        return 1;
    }
    got = fill(size, &blocks, &error);
    empty(blocks);
    printf("mb=%zu errno=%d", got, error);
    printf(" thread=%s", try_thread());
    fflush(stdout);
    printf(" popen=%s", try_popen());
    printf(" dlopen=%s", try_dlopen());
    printf(" mmap=%s", try_mmap());
    fflush(stdout);
    printf(" stack=%s\n", try_stack());
    return 0;
}

/* ---- sizes of the process --------------------------------------------------- */

static void print_sizes(const char *what)
{
    char line[128];
    long vm = -1, resident = -1, locked = -1;
    FILE *file = fopen("/proc/self/status", "r");

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        sscanf(line, "VmSize: %ld", &vm);
        sscanf(line, "VmRSS: %ld", &resident);
        sscanf(line, "VmLck: %ld", &locked);
    }
    if (file != NULL)
        fclose(file);
    printf("what=%s vm_kb=%ld rss_kb=%ld locked_kb=%ld\n", what, vm, resident,
           locked);
}

static int run_lock(bool user)
{
    const char *what = "ok";
    struct rlimit limit;
    char *p;

    free(malloc(100));
    if (user) {
        getrlimit(RLIMIT_MEMLOCK, &limit);
        if (limit.rlim_max > MEMLOCK)
            limit.rlim_max = MEMLOCK;
        limit.rlim_cur = limit.rlim_max; /* less where it can't be raised */
        if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0 || setuid(NOBODY) != 0)
            return 1;
    }
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        what = error_name(errno);
    print_sizes(what);
    p = malloc(10 * MB);
    what = p != NULL ? "malloc" : "NULL";
    free(p);
    print_sizes(what);
    print_sizes(try_thread());
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t limit, size = 0;

    if (argc == 4 && strcmp(argv[1], "fill") == 0 &&
        bench_number(argv[2], 0, UINT32_MAX, &limit) &&
        (strcmp(argv[3], "random") == 0 ||
         bench_number(argv[3], sizeof(struct block), UINT32_MAX, &size)))
        return run_fill(limit, size);
    if (argc == 2 && strcmp(argv[1], "idle") == 0) {
        free(malloc(100));
        print_sizes("ok");
        return 0;
    }
    if ((argc == 2 || argc == 3) && strcmp(argv[1], "lock") == 0)
        return run_lock(argc == 3);
    fprintf(stderr, "usage: bench_limits fill LIMIT SIZE | idle | lock "
                    "[user]\n");
    return 2;
}
