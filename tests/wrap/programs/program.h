/*
 * program.h - for the small programs that the tests run with and without
 * libhakmem.so. They use the C library alone and say what they saw on standard
 * output; tests/wrap compares.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM __attribute__((unused)) static

/* glibc before 2.33 has the one with narrow numbers alone. */
#ifdef __GLIBC__
#if !__GLIBC_PREREQ(2, 33)
#define mallinfo2 mallinfo
#endif
#endif

/* A program that is not position independent then has an address for them. */
#ifdef PROGRAM_NAMES_MALLOC
void *(*volatile program_malloc)(size_t) = malloc;
void (*volatile program_free)(void *) = free;
#endif

/* Ends the program with a line about what should have held. */
#define NEED(condition)                                                        \
    ((condition) ? (void)0 : need_failed(#condition, __FILE__, __LINE__))

PROGRAM void need_failed(const char *condition, const char *file, int line)
{
    char text[300];
    int length = snprintf(text, sizeof(text), "%s:%d: failed: %s\n", file, line,
                          condition);
    ssize_t ignored = write(STDERR_FILENO, text, (size_t)length);

    (void)ignored;
    _exit(1);
}

typedef bool owns_function(const void *);

#ifdef PROGRAM_STATIC
owns_function hak_owns;
#endif

/* hak_owns, or NULL in a program without HAKMEM. */
PROGRAM owns_function *find_owns(void)
{
#ifdef PROGRAM_STATIC
    return hak_owns;
#else
    static owns_function *owns;

    if (owns == NULL) {
        *(void **)&owns = dlsym(RTLD_DEFAULT, "hak_owns");
    }
    return owns;
#endif
}

PROGRAM bool has_hakmem(void)
{
    return find_owns() != NULL;
}

/* Whether p is a block of HAKMEM's range. */
PROGRAM bool owned(const void *p)
{
    return has_hakmem() && find_owns()(p);
}

/* The compiler shall not know what a size or a pointer is. */
PROGRAM size_t hide(size_t n)
{
    volatile size_t hidden = n;

    return hidden;
}

PROGRAM void *hide_pointer(void *p)
{
    void *volatile hidden = p;

    return hidden;
}

/*
 * Fills n bytes with contents that tell the seed and the place; of a large
 * block some bytes of every page and the last.
 */
PROGRAM size_t next_place(size_t i, size_t n)
{
    return n <= 5000 || i % 4096 < 16 || i + 20 > n ? i + 1
           : (i | 4095) + 1 < n                     ? (i | 4095) + 1
                                                    : n - 1;
}

PROGRAM void fill(void *p, size_t n, unsigned seed)
{
    unsigned char *at = p;

    for (size_t i = 0; i < n; i = next_place(i, n)) {
        at[i] = (unsigned char)(seed * 31 + i * 7 + (i >> 8));
    }
}

/* Whether the first n bytes of `of` are as they were filled. */
PROGRAM bool filled_of(const void *p, size_t n, size_t of, unsigned seed)
{
    const unsigned char *at = p;

    for (size_t i = 0; i < n; i = next_place(i, of)) {
        if (at[i] != (unsigned char)(seed * 31 + i * 7 + (i >> 8))) {
            return false;
        }
    }
    return true;
}

PROGRAM bool filled(const void *p, size_t n, unsigned seed)
{
    return filled_of(p, n, n, seed);
}

/* Random numbers. */
PROGRAM uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

#endif /* PROGRAM_H */
