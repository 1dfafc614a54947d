/*
 * hak_py_copy.c - copies the contents of a block of ours that moves.
 *
 * Growing lists are copied again and again, 1 to 52 KB at a time. For that a
 * loop over AVX's 32 bytes takes 0.5 to 1.0 of the time of glibc's memcpy,
 * which checks alignment and starts the microcode of rep movsb.
 */
#include <string.h>

#include "hak_py.h"

#if defined(__x86_64__)

#include <immintrin.h>

__attribute__((target("avx"))) static void copy_avx(void *to, const void *from,
                                                    size_t n)
{
    const char *f = from, *end = f + (n & ~(size_t)127);
    char *t = to;

    for (; f != end; f += 128, t += 128) {
        __m256i a = _mm256_loadu_si256((const void *)f);
        __m256i b = _mm256_loadu_si256((const void *)(f + 32));
        __m256i c = _mm256_loadu_si256((const void *)(f + 64));
        __m256i d = _mm256_loadu_si256((const void *)(f + 96));

        _mm256_storeu_si256((void *)t, a);
        _mm256_storeu_si256((void *)(t + 32), b);
        _mm256_storeu_si256((void *)(t + 64), c);
        _mm256_storeu_si256((void *)(t + 96), d);
    }
    _mm256_zeroupper();
    memcpy(t, f, n & 127);
}

static void copy(void *to, const void *from, size_t n)
{
    memcpy(to, from, n);
}

static void copy_first(void *to, const void *from, size_t n);

void (*hak_py_copy)(void *to, const void *from, size_t n) = copy_first;

/* The first time: finds out which of the two this machine has. */
static void copy_first(void *to, const void *from, size_t n)
{
    void (*best)(void *, const void *, size_t) =
        __builtin_cpu_supports("avx") ? copy_avx : copy;

    __atomic_store_n(&hak_py_copy, best, __ATOMIC_RELAXED);
    best(to, from, n);
}

#else

static void copy(void *to, const void *from, size_t n)
{
    memcpy(to, from, n);
}

void (*hak_py_copy)(void *to, const void *from, size_t n) = copy;

#endif
