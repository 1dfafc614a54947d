/*
 * behaviour.c - what the malloc family does in every corner that glibc
 * documents, a line for each case. With the library and without it the lines
 * must be the same.
 */
#include "program.h"

void *reallocarray(void *p, size_t count, size_t size);

#define KEPT 77 /* an errno that no function sets */

static const size_t sizes[] = {
    0,      1,       2,       7,       8,       9,       15,      16,    17,
    24,     25,      64,      100,     128,     129,     255,     256,   257,
    1000,   1008,    1009,    1023,    1024,    1025,    1026,    2000,  4095,
    4096,   4097,    8192,    32768,   53247,   53248,   53249,   65536, 131072,
    262144, 1048576, 2097151, 2097152, 2097153, 3145728, 5000000,
};

#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static const size_t too_much[] = {
    SIZE_MAX,        SIZE_MAX - 1,     SIZE_MAX - 16, SIZE_MAX - 32,
    SIZE_MAX - 4095, SIZE_MAX - 4096,  PTRDIFF_MAX,   (size_t)PTRDIFF_MAX + 1,
    PTRDIFF_MAX - 1, PTRDIFF_MAX - 16,
};

#define TOO_MUCH (sizeof(too_much) / sizeof(too_much[0]))

/* One block: its alignment (at most `most`), its room, errno, contents. */
static void say_block(const char *what, size_t n, void *p, size_t most)
{
    int error = errno;
    size_t usable;

    if (p == NULL) {
        printf("%s(%zu): NULL, errno %d\n", what, n, error);
        return;
    }
    usable = malloc_usable_size(p);
    NEED(usable >= n);
    fill(p, usable, 3);
    NEED(filled(p, usable, 3));
    printf("%s(%zu): aligned to %zu: %d, errno %d\n", what, n, most,
           (uintptr_t)p % most == 0, error);
}

static void say_malloc(void)
{
    for (size_t i = 0; i < SIZES; i++) {
        void *p, *q;

        errno = KEPT;
        p = malloc(hide(sizes[i]));
        say_block("malloc", sizes[i], p, 16);
        q = malloc(hide(sizes[i]));
        printf("distinct: %d\n", p != q);
        errno = KEPT;
        free(p);
        printf("errno after free: %d\n", errno);
        free(q);
    }
    for (size_t i = 0; i < TOO_MUCH; i++) {
        errno = KEPT;
        say_block("malloc", too_much[i], malloc(hide(too_much[i])), 16);
    }
    errno = KEPT;
    free(hide_pointer(NULL));
    printf("free(NULL): errno %d, room %zu\n", errno,
           malloc_usable_size(hide_pointer(NULL)));
}

/* Every block of every small size is fit for any type. */
static void say_alignment(void)
{
    static void *blocks[100];

    for (size_t size = 0; size <= 1100; size++) {
        for (size_t i = 0; i < 100; i++) {
            blocks[i] = i % 3 == 0   ? malloc(hide(size))
                        : i % 3 == 1 ? calloc(1, hide(size))
                                     : realloc(hide_pointer(NULL), hide(size));
            NEED(blocks[i] != NULL && (uintptr_t)blocks[i] % 16 == 0);
        }
        for (size_t i = 0; i < 100; i++) {
            free(blocks[i]);
        }
    }
    printf("alignment of small blocks: well\n");
}

static void calloc_is_zero(size_t size)
{
    unsigned char *p = malloc(hide(size));

    memset(p, 9, size);
    free(p);
    for (int i = 0; i < 3; i++) {
        unsigned char *q = calloc(1, hide(size));
        size_t dirty = 0;

        for (size_t k = 0; k < size; k++) {
            dirty += q[k] != 0;
        }
        NEED(dirty == 0);
        memset(q, 5, size);
        free(q);
    }
}

static void say_calloc(void)
{
    static const size_t pairs[][2] = {
        {0, 0},
        {0, 5},
        {5, 0},
        {3, 7},
        {0, SIZE_MAX},
        {SIZE_MAX, 0},
        {SIZE_MAX, 2},
        {2, SIZE_MAX},
        {SIZE_MAX / 2 + 1, 2},
        {(size_t)1 << 32, (size_t)1 << 32},
        {PTRDIFF_MAX, 1},
        {1, SIZE_MAX},
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        void *p;

        errno = KEPT;
        p = calloc(hide(pairs[i][0]), hide(pairs[i][1]));
        printf("calloc(%zu, %zu): %d, errno %d\n", pairs[i][0], pairs[i][1],
               p != NULL, errno);
        free(p);
    }
    for (size_t i = 0; i < SIZES; i++) {
        errno = KEPT;
        calloc_is_zero(sizes[i]);
        printf("calloc(1, %zu) is zero, errno %d\n", sizes[i], errno);
    }
}

/* From every size to every other: contents kept, errno too. */
static void say_realloc(void)
{
    for (size_t i = 0; i < SIZES; i++) {
        for (size_t k = 0; k < SIZES; k++) {
            size_t from = sizes[i], to = sizes[k];
            size_t same = from < to ? from : to;
            unsigned char *p = malloc(hide(from)), *q;

            fill(p, from, 7);
            errno = KEPT;
            q = realloc(p, hide(to));
            if (to == 0) {
                printf("realloc(%zu to 0): %d, errno %d\n", from, q != NULL,
                       errno);
                continue;
            }
            NEED(q != NULL && errno == KEPT && filled_of(q, same, from, 7));
            NEED((uintptr_t)q % 16 == 0 && malloc_usable_size(q) >= to);
            fill(q, to, 8);
            free(q);
        }
        printf("realloc from %zu to every size: well\n", sizes[i]);
    }
    for (size_t i = 0; i < SIZES; i++) {
        void *p = malloc(hide(sizes[i]));

        fill(p, sizes[i], 2);
        for (size_t k = 0; k < TOO_MUCH; k++) {
            errno = KEPT;
            NEED(realloc(p, hide(too_much[k])) == NULL && errno == ENOMEM);
        }
        NEED(filled(p, sizes[i], 2));
        printf("realloc(%zu to too much): ENOMEM, untouched\n", sizes[i]);
        free(p);
    }
    errno = KEPT;
    say_block("realloc NULL", 0, realloc(hide_pointer(NULL), hide(0)), 16);
    say_block("realloc NULL", 9, realloc(hide_pointer(NULL), hide(9)), 16);
    say_block("realloc NULL", SIZE_MAX,
              realloc(hide_pointer(NULL), hide(SIZE_MAX)), 16);
}

static void say_reallocarray(void)
{
    char *p = malloc(10), *q;

    fill(p, 10, 4);
    errno = KEPT;
    q = reallocarray(hide_pointer(p), hide(SIZE_MAX / 2), hide(3));
    printf("reallocarray overflow: %d, errno %d, kept %d\n", q != NULL, errno,
           filled(p, 10, 4));
    errno = KEPT;
    q = reallocarray(hide_pointer(p), hide(SIZE_MAX / 4), hide(2));
    printf("reallocarray too much: %d, errno %d, kept %d\n", q != NULL, errno,
           filled(p, 10, 4));
    errno = KEPT;
    q = reallocarray(hide_pointer(p), hide(100), hide(30));
    printf("reallocarray grown: %d, errno %d, kept %d\n", q != NULL, errno,
           filled(q, 10, 4));
    q = reallocarray(q, hide(0), hide(30));
    printf("reallocarray to 0: %d, errno %d\n", q != NULL, errno);
    q = reallocarray(hide_pointer(NULL), hide(3), hide(5));
    printf("reallocarray NULL: %d, errno %d\n", q != NULL, errno);
    free(q);
}

/* ---- aligned blocks ----------------------------------------------------- */

static const size_t alignments[] = {
    0,      1,      2,       3,       4,       5,    7,    8,     9,
    12,     15,     16,      17,      24,      31,   32,   33,    48,
    64,     100,    128,     200,     256,     512,  600,  1000,  1024,
    1025,   2048,   4095,    4096,    4097,    5000, 8192, 16384, 65536,
    100000, 131072, 1048576, 2097152, 4194304,
};

#define ALIGNMENTS (sizeof(alignments) / sizeof(alignments[0]))

static const size_t aligned_sizes[] = {0,    1,    8,     100,    1000,   1024,
                                       1025, 5000, 60000, 300000, 2097152};

#define ALIGNED_SIZES (sizeof(aligned_sizes) / sizeof(aligned_sizes[0]))

static size_t next_power(size_t n)
{
    size_t power = 16;

    while (power < n) {
        power *= 2;
    }
    return power;
}

static void say_aligned(const char *name, void *(*alloc)(size_t, size_t))
{
    for (size_t i = 0; i < ALIGNMENTS; i++) {
        for (size_t k = 0; k < ALIGNED_SIZES; k++) {
            void *p;

            errno = KEPT;
            p = alloc(hide(alignments[i]), hide(aligned_sizes[k]));
            printf("%zu ", alignments[i]);
            say_block(name, aligned_sizes[k], p, next_power(alignments[i]));
            free(p);
        }
    }
    static const size_t strange[][2] = {
        {SIZE_MAX, 1},         {SIZE_MAX / 2 + 2, 1},
        {SIZE_MAX / 2 + 1, 1}, {SIZE_MAX / 4, 1},
        {(size_t)1 << 62, 1},  {(size_t)1 << 62, (size_t)1 << 62},
        {32, SIZE_MAX},        {4096, SIZE_MAX - 4096},
        {4096, PTRDIFF_MAX},   {64, PTRDIFF_MAX - 63},
        {0, SIZE_MAX},
    };
    for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
        errno = KEPT;
        printf("%zx ", strange[i][0]);
        say_block(name, strange[i][1],
                  alloc(hide(strange[i][0]), hide(strange[i][1])), 16);
    }
}

static void say_posix_memalign(void)
{
    for (size_t i = 0; i < ALIGNMENTS; i++) {
        for (size_t k = 0; k < ALIGNED_SIZES; k++) {
            void *p = &p;
            int error;

            errno = KEPT;
            error =
                posix_memalign(&p, hide(alignments[i]), hide(aligned_sizes[k]));
            printf("posix_memalign(%zu, %zu): %d, errno %d, untouched %d\n",
                   alignments[i], aligned_sizes[k], error, errno, p == &p);
            if (error == 0) {
                say_block("posix_memalign", aligned_sizes[k], p,
                          next_power(alignments[i]));
                free(p);
            }
        }
    }
    for (size_t i = 0; i < TOO_MUCH; i++) {
        void *p = &p;
        int error;

        errno = KEPT;
        error = posix_memalign(&p, hide(32), hide(too_much[i]));
        /* glibc 2.36 sets it, against its manual. */
        NEED(errno == KEPT || !has_hakmem());
        printf("posix_memalign(32, %zu): %d, untouched %d\n", too_much[i],
               error, p == &p);
    }
}

static void say_pages(void)
{
    static const size_t wishes[] = {0,
                                    1,
                                    4095,
                                    4096,
                                    4097,
                                    100000,
                                    SIZE_MAX,
                                    PTRDIFF_MAX,
                                    SIZE_MAX - 4095,
                                    SIZE_MAX - 4096};

    for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++) {
        void *p;

        errno = KEPT;
        p = valloc(hide(wishes[i]));
        say_block("valloc", wishes[i], p, 4096);
        free(p);
        errno = KEPT;
        p = pvalloc(hide(wishes[i]));
        say_block("pvalloc", wishes[i], p, 4096);
        if (p != NULL) {
            size_t whole = (wishes[i] + 4095) & ~(size_t)4095;

            printf("whole pages: %d\n", malloc_usable_size(p) >= whole);
        }
        free(p);
    }
}

/* ---- figures ------------------------------------------------------------ */

static void say_figures(void)
{
    static void *blocks[5000];
    struct mallinfo2 before = mallinfo2(), during;
    int trimmed;

    for (size_t i = 0; i < 5000; i++) {
        blocks[i] = malloc(hide(1000));
    }
    during = mallinfo2();
    printf("mallinfo2: 5 MB more in use: %d, all there: %d\n",
           during.uordblks + during.hblkhd >=
               before.uordblks + before.hblkhd + 4900000,
           during.arena + during.hblkhd >= during.uordblks);
    for (size_t i = 0; i < 5000; i++) {
        free(blocks[i]);
    }
    trimmed = malloc_trim(0);
    printf("malloc_trim: %d\n", trimmed == 0 || trimmed == 1);
    during = mallinfo2();
    printf("mallinfo2: not in use now: %d\n",
           during.uordblks + during.hblkhd <
               before.uordblks + before.hblkhd + 1000000);
}

int main(void)
{
    say_malloc();
    say_alignment();
    say_calloc();
    say_realloc();
    say_reallocarray();
    say_aligned("aligned_alloc", aligned_alloc);
    say_aligned("memalign", memalign);
    say_posix_memalign();
    say_pages();
    say_figures();
    return fflush(stdout) == 0 ? 0 : 1;
}
