/*
 * criterion_tsan.c - lets Criterion run under the thread sanitizer.
 *
 * Criterion hands each test's settings to its process in a shared mapping at
 * an address from rand_r(), nearly always one that the sanitizer reserves, and
 * gives up when it is refused. This rand_r, found before the C library's,
 * leads it to addresses that the sanitizer leaves to programs: 0x550000000000
 * and up, below where programs are loaded. Other builds: nothing.
 */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#endif

#ifdef UNDER_TSAN
/* Criterion maps at 0x200000000000 + (rand_r() << 24). */
#define FIRST_UNIT 0x350000u
#define UNIT_MASK 0x3fffu

__attribute__((visibility("default"))) int rand_r(unsigned *seed);

int rand_r(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return (int)(FIRST_UNIT + ((*seed >> 16) & UNIT_MASK));
}
#else
/* A file with nothing in it is no C. */
typedef int criterion_tsan_unused;
#endif
