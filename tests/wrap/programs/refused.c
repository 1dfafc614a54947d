/*
 * refused.c - uses all sizes of memory in all ways, where it may be refused:
 * beside librefuses.so, or with its mappings used up.
 *
 *   refused         works; what it gets keeps its contents, calloc's is zero
 *   refused maps    the same while the process can have no more mappings
 *                   (vm.max_map_count), from several threads; then it can
 *
 * What is refused is NULL with ENOMEM, which is well. "well\n" is said at the
 * end.
 */
#include <sys/mman.h>
#include <sys/wait.h>

#include "program.h"

static const size_t sizes[] = {24,    500,    1500,   9000,    40000,
                               70000, 300000, 900000, 2 << 20, 5000000};

enum { SIZES = sizeof(sizes) / sizeof(sizes[0]), BLOCKS = 3 * SIZES };

struct block {
    char *p;
    size_t size;
    unsigned seed;
};

/* ---- blocks ------------------------------------------------------------------- */

static bool is_zero(const char *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static void check(const struct block *block)
{
    NEED(block->p == NULL || filled(block->p, block->size, block->seed));
}

static void keep(struct block *block, char *p, size_t size, unsigned seed)
{
    NEED(p != NULL || errno == ENOMEM);
    *block = (struct block){p, size, seed};
    if (p != NULL) {
        fill(p, size, seed);
    }
}

static void get(struct block *block, unsigned i)
{
    size_t size = sizes[i % SIZES] + i;
    void *aligned = NULL;
    char *p;

    errno = 0;
    switch (i / SIZES) {
    case 0: p = malloc(size); break;
    case 1:
        p = calloc(1, size);
        NEED(p == NULL || is_zero(p, size));
        break;
    default:
        errno = posix_memalign(&aligned, (size_t)64 << i % 8, size);
        p = aligned;
        break;
    }
    keep(block, p, size, i);
}

/* To another size, contents and all; a refusal leaves it as it is. */
static void resize(struct block *block, size_t size)
{
    size_t old = block->size, both = old < size ? old : size;
    char *p;

    if (block->p == NULL) {
        return;
    }
    errno = 0;
    p = realloc(block->p, size);
    if (p == NULL) {
        NEED(errno == ENOMEM);
        check(block);
        return;
    }
    NEED(filled_of(p, both, old, block->seed));
    keep(block, p, size, block->seed + 1);
}

static void drop(struct block *block)
{
    check(block);
    free(block->p);
    block->p = NULL;
}

/* ---- the work ------------------------------------------------------------------ */

static void use_all(unsigned seed)
{
    struct block blocks[BLOCKS];

    for (unsigned i = 0; i < BLOCKS; i++) {
        get(&blocks[i], i);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        check(&blocks[i]);
        resize(&blocks[i], sizes[(i * 7 + seed) % SIZES] + 77);
    }
    for (unsigned i = 0; i < BLOCKS; i += 2) {
        drop(&blocks[i]);
        get(&blocks[i], (i + SIZES) % BLOCKS);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        drop(&blocks[i]);
    }
}

/* A block that grows all the way up, beside others. */
static void grow(void)
{
    struct block block = {NULL, 0, 0}, other = {NULL, 0, 0};

    keep(&block, malloc(100), 100, 3);
    for (size_t size = 200; size < (24u << 20); size *= 2) {
        resize(&block, size);
        drop(&other);
        keep(&other, malloc(size), size, 4);
    }
    drop(&other);
    resize(&block, 3 << 20);
    resize(&block, 5000);
    drop(&block);
    malloc_trim(0);
}

static void *work(void *arg)
{
    use_all((unsigned)(uintptr_t)arg);
    grow();
    return NULL;
}

/* In a child: what was there before, and new blocks. */
static void fork_once(const struct block *blocks)
{
    pid_t pid = fork();
    int status = 1;

    NEED(pid >= 0);
    if (pid == 0) {
        for (unsigned i = 0; i < SIZES; i++) {
            check(&blocks[i]);
        }
        use_all(5);
        _exit(0);
    }
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
}

enum { THREADS = 2 };

static void work_in_threads(void)
{
    pthread_t threads[THREADS];

    for (uintptr_t i = 0; i < THREADS; i++) {
        NEED(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
}

static void work_all(void)
{
    struct block blocks[SIZES];

    for (unsigned i = 0; i < SIZES; i++) {
        get(&blocks[i], i);
    }
    work(NULL);
    fork_once(blocks);
    work_in_threads();
    for (unsigned i = 0; i < SIZES; i++) {
        drop(&blocks[i]);
    }
}

/* ---- no more mappings ------------------------------------------------------------ */

/* So many are tried; a system that allows more is not used up. */
#define MAPS_MOST ((size_t)400000)

static char *area;

/* Every second page otherwise, until that is refused. False: it never is. */
static bool use_up_maps(void)
{
    size_t i = 0;

    area = mmap(NULL, MAPS_MOST * 4096, PROT_NONE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    NEED(area != MAP_FAILED);
    while (i < MAPS_MOST && mprotect(area + i * 4096, 4096, PROT_READ) == 0) {
        i += 2;
    }
    return i < MAPS_MOST;
}

static void give_maps_back(void)
{
    NEED(munmap(area, MAPS_MOST * 4096) == 0);
}

static pthread_barrier_t barrier;

/* Before, while and after there are none; what is kept stays as it is. */
static void *live_through(void *arg)
{
    struct block blocks[BLOCKS];

    for (unsigned i = 0; i < BLOCKS; i++) {
        get(&blocks[i], i);
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    for (unsigned round = 0; round < 3; round++) {
        work(arg);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        resize(&blocks[i], sizes[(i * 3 + 1) % SIZES]);
    }
    for (unsigned i = 0; i < BLOCKS; i += 3) {
        drop(&blocks[i]);
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    work(arg);
    for (unsigned i = 0; i < BLOCKS; i++) {
        drop(&blocks[i]);
    }
    return NULL;
}

/* All sizes are served by HAKMEM again, if it is there. */
static void expect_all_served(void)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        struct block block;

        get(&block, i);
        NEED(block.p != NULL && (!has_hakmem() || owned(block.p)));
        drop(&block);
    }
}

static void without_maps(void)
{
    pthread_t threads[THREADS];
    bool all_used;

    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (uintptr_t i = 0; i < THREADS; i++) {
        NEED(pthread_create(&threads[i], NULL, live_through, (void *)i) == 0);
    }
    pthread_barrier_wait(&barrier);
    all_used = use_up_maps();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    give_maps_back();
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
    expect_all_served();
    if (!all_used) {
        puts("there are always more");
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "maps") == 0) {
        without_maps();
    } else {
        work_all();
    }
    puts("well");
    return 0;
}
