/*
 * plant.c - programs of which it is known what is the matter with them.
 *
 *     plant leak       steady traffic, and of twenty blocks of it one stays
 *     plant cache      60,000 entries, replaced all the time: level
 *     plant sawtooth   fills 30 MB and drops it, over and over: level
 *     plant fragment   of 300,000 small blocks every 16th stays
 *     plant retain     60 MB were freed (to be run with purging off)
 *     plant arenas     eight threads that freed much on glibc
 *
 * Each says "up" and a line end when it is so, and goes on until it is killed.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 1000, ENTRIES = 60000, SMALL = 300000, FREED = 60000 };

static unsigned seed = 1;

static unsigned any(unsigned below)
{
    seed = seed * 1103515245 + 12345;
    return (seed >> 8) % below;
}

static void *make(size_t size)
{
    char *p = malloc(size);

    if (p == NULL) {
        exit(1);
    }
    return memset(p, 1, size);
}

static void nap(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};

    nanosleep(&time, NULL);
}

static void up(void)
{
    if (write(1, "up\n", 3) != 3) {
        exit(1);
    }
}

static void replace(void **slots, unsigned count, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        unsigned at = any(count);

        free(slots[at]);
        slots[at] = make(16 + any(1800));
    }
}

static void *slots[ENTRIES];

static void leak(void)
{
    for (int i = 0; i < 20000; i++) {
        make(1000);
    }
    for (up();; nap(5)) {
        replace(slots, SLOTS, 2000);
        for (int i = 0; i < 105; i++) {
            make(600);
        }
    }
}

static void cache(void)
{
    for (int i = 0; i < ENTRIES; i++) {
        slots[i] = make(16 + any(1800));
    }
    for (up();; nap(5)) {
        replace(slots, ENTRIES, 1000);
    }
}

static void sawtooth(void)
{
    for (int round = 0;; round++) {
        for (int i = 0; i < 30000; i++) {
            slots[i] = make(1000);
            if (i % 1000 == 0) {
                nap(2);
            }
        }
        for (int i = 0; i < 30000; i++) {
            free(slots[i]);
        }
        if (round == 3) {
            up();
        }
    }
}

static void fragment(void)
{
    void **all = make(SMALL * sizeof(*all));

    for (int i = 0; i < SMALL; i++) {
        all[i] = make(200);
    }
    for (int i = 0; i < SMALL; i++) {
        if (i % 16 != 0) {
            free(all[i]);
        }
    }
    for (up();; nap(5)) {
        replace(slots, SLOTS, 200);
    }
}

static void *retain(void *unused)
{
    void **all = make(FREED * sizeof(*all));

    for (int i = 0; i < FREED; i++) {
        all[i] = make(1000);
    }
    for (int i = 0; i < FREED; i++) {
        free(all[i]);
    }
    return unused;
}

static void retains(void)
{
    retain(NULL);
    for (up();; nap(5)) {
        replace(slots, SLOTS, 200);
    }
}

/* The last block of each holds what is before it, which glibc can't give back. */
static void *grow_arena(void *unused)
{
    void **all = make(5000 * sizeof(*all));

    for (int i = 0; i < 5000; i++) {
        all[i] = make(1000);
    }
    for (int i = 0; i < 4999; i++) {
        free(all[i]);
    }
    pause();
    return unused;
}

static void arenas(void)
{
    for (int i = 0; i < 8; i++) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, grow_arena, NULL) != 0) {
            exit(1);
        }
    }
    nap(500);
    up();
    pause();
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } kinds[] = {{"leak", leak},         {"cache", cache},
                 {"sawtooth", sawtooth}, {"fragment", fragment},
                 {"retain", retains},    {"arenas", arenas}};

    for (size_t i = 0; argc == 2 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(argv[1], kinds[i].name) == 0) {
            kinds[i].run();
        }
    }
    fprintf(stderr, "plant: what?\n");
    return 2;
}
