/*
 * lives.c - programs that end, fork, are interrupted and are hostile in ways that
 * a recorder must survive.
 *
 *     lives WHAT
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* So many blocks of sizes that can't be packed well, and half of them freed. */
static void allocate(int count)
{
    unsigned chance = 1;

    for (int i = 0; i < count; i++) {
        chance = chance * 1664525 + 1013904223;
        char *block = malloc((chance >> 16) % 1000 + 1);

        if (block == NULL) {
            abort();
        }
        *block = 1;
        if (i % 2 == 0) {
            free(block);
        }
    }
}

static int wait_for(pid_t child)
{
    int status = -1;

    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

/* ---- ends ----------------------------------------------------------------- */

static int ends_exit(void)
{
    allocate(1000);
    exit(0);
}

static int ends_exit_now(void)
{
    allocate(1000);
    _exit(0);
}

static int ends_exit_upper(void)
{
    allocate(1000);
    _Exit(0);
}

static int ends_quick(void)
{
    allocate(1000);
    quick_exit(0);
}

static int ends_abort(void)
{
    allocate(400000);
    signal(SIGABRT, SIG_DFL);
    abort();
}

static int ends_killed(void)
{
    allocate(400000);
    return kill(getpid(), SIGKILL);
}

/* ---- children ------------------------------------------------------------- */

static int forks(void)
{
    allocate(1000);
    const pid_t child = fork();

    if (child == 0) {
        allocate(2000);
        exit(0);
    }
    allocate(100);
    return wait_for(child) != 0;
}

/* A child that frees what its parent made. */
static int forks_inherits(void)
{
    static void *blocks[500];

    for (int i = 0; i < 500; i++) {
        blocks[i] = malloc(100);
    }
    const pid_t child = fork();

    if (child == 0) {
        for (int i = 0; i < 500; i++) {
            free(blocks[i]);
        }
        allocate(10);
        _exit(0);
    }
    return wait_for(child) != 0;
}

static int forks_executes(void)
{
    char *const words[] = {"sh", "-c", "exit 0", NULL};
    const pid_t child = fork();

    if (child == 0) {
        execv("/bin/sh", words);
        _exit(127);
    }
    return wait_for(child) != 0;
}

/* Its child shares its memory, and gives up. */
static int vforks(void)
{
    allocate(1000);
    const pid_t child = vfork();

    if (child == 0) {
        _exit(0);
    }
    if (wait_for(child) != 0) {
        return 1;
    }
    allocate(1000);
    return 0;
}

static int spawns(void)
{
    char *const words[] = {"sh", "-c", "exit 0", NULL};
    pid_t child;

    if (posix_spawn(&child, "/bin/sh", NULL, NULL, words, environ) != 0) {
        return 1;
    }
    allocate(1000);
    return wait_for(child) != 0;
}

static int becomes(void)
{
    char *const words[] = {"sh", "-c", "exit 0", NULL};

    allocate(300000);
    return execv("/bin/sh", words);
}

static void *allocates_on(void *stop)
{
    while (!atomic_load((atomic_bool *)stop)) {
        allocate(100);
    }
    return NULL;
}

/* Forks while other threads are in the recorder. */
static int forks_busy(void)
{
    static atomic_bool stop;
    pthread_t threads[3];
    int bad = 0;

    for (int i = 0; i < 3; i++) {
        pthread_create(&threads[i], NULL, allocates_on, &stop);
    }
    for (int i = 0; i < 20; i++) {
        const pid_t child = fork();

        if (child == 0) {
            allocate(100);
            _exit(0);
        }
        bad |= wait_for(child) != 0;
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    return bad;
}

/* ---- threads and signals -------------------------------------------------- */

static void *allocates(void *unused)
{
    allocate(20);
    return unused;
}

static int many_threads(void)
{
    for (int i = 0; i < 200; i++) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, allocates, NULL) != 0) {
            return 1;
        }
        pthread_join(thread, NULL);
    }
    return 0;
}

enum { PASSED = 100000, ROOM = 4 };

static void *_Atomic passed[ROOM];

/* Frees what the main thread made, at once, and makes blocks of its own. */
static void *receives(void *unused)
{
    void *own = NULL;

    for (int i = 0; i < PASSED; i++) {
        void *block;

        while ((block = atomic_exchange(&passed[i % ROOM], NULL)) == NULL) {
            sched_yield();
        }
        free(own);
        own = block;
        if (i % 3 == 0) {
            free(block);
            own = malloc((size_t)(i % 200));
        }
    }
    free(own);
    return unused;
}

static int passes(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, receives, NULL) != 0) {
        return 1;
    }
    for (int i = 0; i < PASSED; i++) {
        void *none, *block = malloc((size_t)(i * 7 % 300));

        free(malloc((size_t)(i % 300)));
        do {
            none = NULL;
            sched_yield();
        } while (!atomic_compare_exchange_strong(&passed[i % ROOM], &none,
                                                 block));
    }
    return pthread_join(thread, NULL);
}

enum { HANDED = 12345 };

/* Takes the block while its free or resize has not returned: libplain.c. */
static void *takes(void *block)
{
    void *taken = NULL;

    while (taken != block) {
        taken = malloc(HANDED);
        usleep(100);
    }
    return taken;
}

/* Addresses that come back before the call that gave them up returns. */
static int hands(void)
{
    for (int i = 0; i < 2; i++) {
        void *taken, *block = malloc(HANDED);
        pthread_t thread;

        if (pthread_create(&thread, NULL, takes, block) != 0) {
            return 1;
        }
        if (i == 0) {
            free(block);
        } else {
            block = realloc(block, 2 * HANDED);
        }
        pthread_join(thread, &taken);
        if (i == 1) {
            free(block);
        }
    }
    return 0;
}

static atomic_int handled;

static void handler(int number)
{
    void *block = NULL;

    (void)number;
    /* Not in the middle of glibc's own: this one takes pages of its own. */
    if (posix_memalign(&block, 4096, 1 << 20) == 0) {
        free(block);
    }
    atomic_fetch_add(&handled, 1);
}

/*
 * A handler that allocates; the allocator behind must stand it, so the program
 * brings one that gives and never takes (libplain.so).
 */
static int interrupted(void)
{
    const struct itimerval often = {{0, 200}, {0, 200}};

    signal(SIGALRM, handler);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 3000 && atomic_load(&handled) < 300; i++) {
        allocate(1000);
    }
    return atomic_load(&handled) == 0;
}

/* ---- forms, and a stranger's ways ------------------------------------------ */

static int forms(void)
{
    void *block = NULL;
    char *text = malloc(10);

    text = realloc(text, 20);
    text = reallocarray(text, 10, 3);
    free(text);
    free(calloc(3, 7));
    free(aligned_alloc(32, 64));
    if (posix_memalign(&block, 64, 100) != 0) {
        return 1;
    }
    free(block);
    free(memalign(128, 10));
    free(valloc(10));
    free(pvalloc(10));
    free(realloc(NULL, 5));
    free(NULL);
    free(malloc(0));
    errno = 0;
    volatile size_t most = SIZE_MAX / 2 + 10;

    return malloc(most) != NULL || errno != ENOMEM ||
           reallocarray(NULL, most, 4) != NULL || calloc(most, 4) != NULL ||
           realloc(malloc(3), 0) != NULL;
}

/* Closes what isn't its own, and opens files under those numbers. */
static int closes(void)
{
    allocate(1000);
    for (int fd = 3; fd < 1024; fd++) {
        close(fd);
    }
    FILE *own = tmpfile();

    for (int fd = 3; fd < 1024; fd++) {
        dup2(fileno(own), fd);
    }
    allocate(400000);
    fseek(own, 0, SEEK_END);
    return ftell(own) != 0;
}

static int large(void)
{
    allocate(1000000);
    puts("went on");
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*function)(void);
    } all[] = {{"exit", ends_exit},
               {"_exit", ends_exit_now},
               {"_Exit", ends_exit_upper},
               {"quick", ends_quick},
               {"abort", ends_abort},
               {"killed", ends_killed},
               {"forks", forks},
               {"inherits", forks_inherits},
               {"executes", forks_executes},
               {"vforks", vforks},
               {"spawns", spawns},
               {"becomes", becomes},
               {"forks-busy", forks_busy},
               {"threads", many_threads},
               {"passes", passes},
               {"hands", hands},
               {"interrupted", interrupted},
               {"forms", forms},
               {"closes", closes},
               {"large", large}};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (argc == 2 && strcmp(argv[1], all[i].name) == 0) {
            return all[i].function();
        }
    }
    return 2;
}
