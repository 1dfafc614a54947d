/*
 * back.c - a program that has made 300 MB of blocks, freed them and sleeps. Does
 * its memory go back?
 *
 *     back one|eight|worker|turns|working
 *
 * one: the main thread makes and frees them. eight: as many threads do, and sleep
 * afterwards. worker: a thread frees what the main thread has made, which sleeps.
 * turns: ten threads make 30 MB each, one after the other; the next one frees
 * them. working: as one, but afterwards it allocates a little.
 *
 * A quarter of it are blocks of each lane, so that none of them can keep its own.
 * Says "well" when less than 60 MB are resident and no thread is there but the
 * program's own: both within 10 s, and how long it took does not matter otherwise.
 */
#include "program.h"

#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/mman.h>

enum { MB = 1 << 20, PEAK = 300, MOST = 60, EIGHT = 8, TEN = 10, LOOKS = 100 };

struct blocks {
    void **list; /* mapped: no part of what is freed */
    size_t count;
};

static const size_t sizes[] = {64, 2000, 100000, 3000000};

enum { SIZES = sizeof(sizes) / sizeof(*sizes) };

static pthread_barrier_t made;
static sem_t freed, turn[TEN];
static struct blocks handed_on;

/* A quarter of the bytes each size. */
static struct blocks make(size_t bytes)
{
    struct blocks blocks = {.count = 0};

    for (int i = 0; i < SIZES; i++) {
        blocks.count += bytes / SIZES / sizes[i];
    }
    blocks.list =
        mmap(NULL, blocks.count * sizeof(void *), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(blocks.list != MAP_FAILED);
    for (size_t i = 0, at = 0; i < SIZES; i++) {
        for (size_t j = 0; j < bytes / SIZES / sizes[i]; j++, at++) {
            blocks.list[at] = malloc(sizes[i]);
            NEED(blocks.list[at] != NULL);
            memset(blocks.list[at], 1, sizes[i]);
        }
    }
    return blocks;
}

static void drop(struct blocks blocks)
{
    for (size_t i = 0; i < blocks.count; i++) {
        free(blocks.list[i]);
    }
    NEED(munmap(blocks.list, blocks.count * sizeof(void *)) == 0);
}

static void start(void *(*body)(void *), void *arg)
{
    pthread_t thread;

    NEED(pthread_create(&thread, NULL, body, arg) == 0);
}

/* ---- what is seen; nothing here allocates ---------------------------------- */

static size_t resident_mb(void)
{
    char text[256] = "";
    int fd = open("/proc/self/statm", O_RDONLY);

    NEED(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    NEED(strchr(text, ' ') != NULL);
    return strtoul(strchr(text, ' '), NULL, 10) * 4096 / MB;
}

static unsigned threads(void)
{
    char text[2048] = "";
    int fd = open("/proc/self/status", O_RDONLY);

    NEED(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    NEED(strstr(text, "\nThreads:") != NULL);
    return (unsigned)strtoul(strstr(text, "\nThreads:") + 9, NULL, 10);
}

static _Noreturn void look(unsigned own, bool works)
{
    int left = LOOKS;

    while (resident_mb() >= MOST && left-- > 0) {
        for (size_t i = 16; works && i < 100000; i *= 2) {
            free(malloc(hide(i)));
        }
        poll(NULL, 0, 100);
    }
    if (resident_mb() >= MOST) {
        dprintf(STDOUT_FILENO, "%zu MB are left\n", resident_mb());
        _exit(0);
    }
    for (left = LOOKS; threads() > own && left-- > 0;) {
        poll(NULL, 0, 100);
    }
    if (threads() > own) {
        dprintf(STDOUT_FILENO, "%u threads are left of %u\n", threads(), own);
        _exit(0);
    }
    dprintf(STDOUT_FILENO, "well\n");
    _exit(0);
}

/* ---- who frees -------------------------------------------------------------- */

static _Noreturn void sleep_for_ever(void)
{
    for (;;) {
        poll(NULL, 0, -1);
    }
}

static void *one_of_eight(void *arg)
{
    struct blocks blocks = make(PEAK / EIGHT * MB);

    (void)arg;
    pthread_barrier_wait(&made);
    drop(blocks);
    sem_post(&freed);
    sleep_for_ever();
}

static _Noreturn void eight(void)
{
    NEED(pthread_barrier_init(&made, NULL, EIGHT) == 0);
    for (int i = 0; i < EIGHT; i++) {
        start(one_of_eight, NULL);
    }
    for (int i = 0; i < EIGHT; i++) {
        sem_wait(&freed);
    }
    look(1 + EIGHT, false);
}

static void *works_for_main(void *arg)
{
    drop(*(struct blocks *)arg);
    look(2, false);
}

static void *takes_its_turn(void *arg)
{
    while (sem_wait(arg) == 0) {
        drop(handed_on);
        handed_on = make(PEAK / TEN * MB);
        sem_post(&freed);
    }
    return arg;
}

static _Noreturn void turns(void)
{
    for (int i = 0; i < TEN; i++) {
        start(takes_its_turn, &turn[i]);
    }
    handed_on = make(PEAK / TEN * MB);
    for (int i = 0; i < 2 * TEN; i++) {
        sem_post(&turn[i % TEN]);
        sem_wait(&freed);
    }
    drop(handed_on);
    look(1 + TEN, false);
}

int main(int argc, char **argv)
{
    static struct blocks blocks;

    NEED(argc == 2 && sem_init(&freed, 0, 0) == 0);
    for (int i = 0; i < TEN; i++) {
        NEED(sem_init(&turn[i], 0, 0) == 0);
    }
    if (strcmp(argv[1], "eight") == 0) {
        eight();
    }
    if (strcmp(argv[1], "turns") == 0) {
        turns();
    }
    blocks = make(PEAK * MB);
    if (strcmp(argv[1], "worker") == 0) {
        start(works_for_main, &blocks);
        sleep_for_ever();
    }
    drop(blocks);
    look(1, strcmp(argv[1], "working") == 0);
}
