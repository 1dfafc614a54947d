/*
 * hosts.c - a program that opens libhakmem.so, or a library with a core, while
 * it runs: hosts MODE FILE...
 *
 *   late FILE       after much was allocated, in threads too; closes it, opens
 *                   it again
 *   both A B        two builds at once, each used in all ways, in threads that
 *                   use both, and in forked children
 *   namespace FILE  in namespaces of their own, with other C libraries
 *   cores FILE...   libraries with cores (libcore.c)
 *
 * Ends with "well".
 */
#include <sys/wait.h>

#include "program.h"

/* What libhakmem.so has, of a copy that was opened. */
struct copy {
    void *handle;
    void *(*malloc)(size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    size_t (*usable)(void *);
    void *(*hak_malloc)(size_t);
    void (*hak_free)(void *);
    bool (*owns)(const void *);
    size_t (*trim)(void);
};

static void find(void *function, void *handle, const char *name)
{
    *(void **)function = dlsym(handle, name);
    NEED(*(void **)function != NULL);
}

static void find_all(struct copy *copy, void *handle)
{
    NEED(handle != NULL);
    copy->handle = handle;
    find(&copy->malloc, handle, "malloc");
    find(&copy->realloc, handle, "realloc");
    find(&copy->free, handle, "free");
    find(&copy->usable, handle, "malloc_usable_size");
    find(&copy->hak_malloc, handle, "hak_malloc");
    find(&copy->hak_free, handle, "hak_free");
    find(&copy->owns, handle, "hak_owns");
    find(&copy->trim, handle, "hak_trim");
}

/* ---- the program's blocks ------------------------------------------------------ */

enum { SIZES = 12, THREADS = 3 };

static size_t size_of(int i)
{
    size_t size = 7;

    while (i-- > 0) {
        size = size * 3 + 1;
    }
    return size;
}

struct blocks {
    unsigned char *p[SIZES];
};

static void make(struct blocks *blocks, void *(*call)(size_t), unsigned seed)
{
    for (int i = 0; i < SIZES; i++) {
        blocks->p[i] = call(hide(size_of(i)));
        NEED(blocks->p[i] != NULL);
        fill(blocks->p[i], size_of(i), seed);
    }
}

static void end(struct blocks *blocks, void (*call)(void *), unsigned seed)
{
    for (int i = 0; i < SIZES; i++) {
        NEED(filled(blocks->p[i], size_of(i), seed));
        call(blocks->p[i]);
    }
}

static void grow(struct blocks *blocks, void *(*call)(void *, size_t),
                 unsigned seed)
{
    for (int i = 0; i < SIZES; i++) {
        size_t size = size_of(i);

        blocks->p[i] = call(blocks->p[i], 2 * size);
        NEED(blocks->p[i] != NULL && filled(blocks->p[i], size, seed));
        blocks->p[i] = call(blocks->p[i], size);
        NEED(blocks->p[i] != NULL && filled(blocks->p[i], size, seed));
    }
}

/* All that a copy can do with blocks of its own and of the program's. */
static void use(const struct copy *copy)
{
    struct blocks ours, its, hak;

    make(&ours, malloc, 1);
    make(&its, copy->malloc, 2);
    make(&hak, copy->hak_malloc, 3);
    for (int i = 0; i < SIZES; i++) {
        NEED(copy->owns(its.p[i]) && copy->owns(hak.p[i]));
        NEED(copy->usable(its.p[i]) >= size_of(i));
        NEED(copy->usable(ours.p[i]) >= size_of(i));
    }
    grow(&its, copy->realloc, 2);
    if (!copy->owns(ours.p[0])) {
        grow(&ours, copy->realloc, 1); /* of another: passed on to it */
    }
    end(&its, copy->free, 2);
    end(&hak, copy->hak_free, 3);
    end(&ours, copy->free, 1);
    make(&hak, copy->hak_malloc, 4);
    end(&hak, copy->free, 4);
}

/* ---- threads and forks ---------------------------------------------------------- */

static struct copy copies[2];
static int ncopies;
static pthread_barrier_t opened;

static void use_all(void)
{
    for (int i = 0; i < ncopies; i++) {
        use(&copies[i]);
    }
}

static void *fresh(void *arg)
{
    (void)arg;
    use_all();
    return NULL;
}

static void in_threads(void)
{
    pthread_t ids[THREADS];

    for (int i = 0; i < THREADS; i++) {
        NEED(pthread_create(&ids[i], NULL, fresh, NULL) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        NEED(pthread_join(ids[i], NULL) == 0);
    }
}

static void in_a_child(void)
{
    pid_t pid = fork();
    int status;

    NEED(pid >= 0);
    if (pid == 0) {
        use_all();
        in_threads();
        exit(0);
    }
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
}

/* Everything, in a thread that is older than the copies as well. */
static void *old(void *arg)
{
    struct blocks blocks;

    make(&blocks, malloc, 9);
    pthread_barrier_wait(&opened); /* to be opened */
    pthread_barrier_wait(&opened);
    use_all();
    end(&blocks, ncopies == 0 ? free : copies[0].free, 9);
    return arg;
}

/* ---- modes --------------------------------------------------------------------- */

static void open_and_use(void (*open_all)(char **files), char **files)
{
    pthread_t ids[THREADS];

    NEED(pthread_barrier_init(&opened, NULL, THREADS + 1) == 0);
    for (int i = 0; i < THREADS; i++) {
        NEED(pthread_create(&ids[i], NULL, old, NULL) == 0);
    }
    pthread_barrier_wait(&opened);
    open_all(files);
    pthread_barrier_wait(&opened);
    use_all();
    for (int i = 0; i < THREADS; i++) {
        NEED(pthread_join(ids[i], NULL) == 0);
    }
    in_threads();
    in_a_child();
    for (int i = 0; i < ncopies; i++) {
        copies[i].trim();
        NEED(dlclose(copies[i].handle) == 0);
    }
    use_all(); /* it stays */
    in_threads();
}

static void open_late(char **files)
{
    find_all(&copies[0], dlopen(files[0], RTLD_NOW | RTLD_GLOBAL));
    NEED(dlopen(files[0], RTLD_LAZY) == copies[0].handle);
    ncopies = 1;
}

static void open_both(char **files)
{
    find_all(&copies[0], dlopen(files[0], RTLD_NOW | RTLD_GLOBAL));
    find_all(&copies[1], dlopen(files[1], RTLD_NOW | RTLD_LOCAL));
    NEED(copies[0].handle != copies[1].handle);
    ncopies = 2;
}

/*
 * A C library that is not the threads' own has thread keys of its own, in the
 * same places: what a thread left there is no other core's heap. Two at a time,
 * so that heaps are adopted while others are in use.
 */
static void *in_namespace(void *arg)
{
    const struct copy *copy = arg;
    struct blocks its, ours, more;

    make(&ours, malloc, 6);
    make(&its, copy->malloc, 5);
    pthread_barrier_wait(&opened);
    make(&more, malloc, 7);
    grow(&its, copy->realloc, 5);
    pthread_barrier_wait(&opened);
    end(&its, copy->free, 5);
    end(&ours, free, 6);
    end(&more, free, 7);
    return NULL;
}

static void open_namespaces(const char *file)
{
    enum { PAIR = 2 };
    struct copy copy;
    pthread_t ids[PAIR];

    NEED(pthread_barrier_init(&opened, NULL, PAIR) == 0);
    for (int i = 0; i < 2; i++) {
        find_all(&copy, dlmopen(LM_ID_NEWLM, file, RTLD_NOW));
        for (int turn = 0; turn < 10; turn++) {
            for (int n = 0; n < PAIR; n++) {
                NEED(pthread_create(&ids[n], NULL, in_namespace, &copy) == 0);
            }
            for (int n = 0; n < PAIR; n++) {
                NEED(pthread_join(ids[n], NULL) == 0);
            }
        }
        use(&copy);
        in_a_child();
        NEED(dlclose(copy.handle) == 0);
    }
}

static void open_cores(char **files)
{
    for (; *files != NULL; files++) {
        void *handle = dlopen(*files, RTLD_NOW | RTLD_GLOBAL);
        void (*work)(void);

        if (handle == NULL) {
            fprintf(stderr, "%s\n", dlerror());
        }
        NEED(handle != NULL);
        find(&work, handle, "core_work");
        work();
        in_a_child();
        work();
    }
}

int main(int argc, char **argv)
{
    NEED(argc > 2);
    if (strcmp(argv[1], "late") == 0) {
        open_and_use(open_late, argv + 2);
    } else if (strcmp(argv[1], "both") == 0) {
        open_and_use(open_both, argv + 2);
    } else if (strcmp(argv[1], "namespace") == 0) {
        open_namespaces(argv[2]);
    } else {
        open_cores(argv + 2);
    }
    puts("well");
    return 0;
}
