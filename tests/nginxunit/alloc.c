/*
 * alloc.c - tests of the functions that patched objects call: which allocator a
 * block belongs to, what is counted, and that each does what libc's does.
 */
#include <limits.h>
#include <malloc.h>
#include <wchar.h>

#include "patch/patch.h"
#include "patch/names.h"
#include "patch/new.h"
#include "os/os.h"
#include "unit.h"

TestSuite(ngx_alloc, .timeout = 300);

/* A size for each lane, and of a bin that nothing else uses. */
#define TINY 1024
#define POOL 4096
#define ACE 100000
#define HUGE 3000000

static hak_ngx_stats stats(void)
{
    hak_ngx_stats stats;

    hak_ngx_get_stats(&stats);
    return stats;
}

/* Frees p; whether it was ours. Without the first bytes being lost. */
static bool end(void *p)
{
    bool ours = hak_owns(p);

    cr_assert_not_null(p);
    hak_ngx_free(p);
    return ours;
}

/* ---- whose a block is ----------------------------------------------------------- */

Test(ngx_alloc, lanes_tiny)
{
    hak_ngx_set_lanes(HAK_NGX_TINY);
    cr_assert(end(hak_ngx_malloc(0)));
    cr_assert(end(hak_ngx_malloc(TINY)));
    cr_assert_not(end(hak_ngx_malloc(TINY + 1)));
    cr_assert_not(end(hak_ngx_malloc(HUGE)));
    cr_assert(end(hak_ngx_calloc(2, TINY / 2)));
    cr_assert_not(end(hak_ngx_calloc(2, TINY)));
    cr_assert(end(hak_ngx_aligned_alloc(64, TINY)));
    cr_assert_not(end(hak_ngx_aligned_alloc(64, TINY + 1)));
    cr_assert_not(end(hak_ngx_valloc(10)));
}

Test(ngx_alloc, lanes_all)
{
    const size_t sizes[] = {0, TINY, TINY + 1, POOL, ACE, HUGE};

    hak_ngx_set_lanes(HAK_NGX_ALL);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        cr_assert(end(hak_ngx_malloc(sizes[i])), "%zu", sizes[i]);
        cr_assert(end(hak_ngx_calloc(1, sizes[i])), "%zu", sizes[i]);
        cr_assert(end(hak_ngx_aligned_alloc(4096, sizes[i])), "%zu", sizes[i]);
    }
}

Test(ngx_alloc, what_is_too_large)
{
    errno = 0;
    cr_assert_null(hak_ngx_malloc((size_t)PTRDIFF_MAX + 1));
    cr_assert_eq(errno, ENOMEM);
    errno = 0;
    cr_assert_null(hak_ngx_calloc(SIZE_MAX / 2, 3));
    cr_assert_eq(errno, ENOMEM);
    errno = 0;
    cr_assert_null(hak_ngx_reallocarray(NULL, SIZE_MAX / 2, 3));
    cr_assert_eq(errno, ENOMEM);
    errno = 0;
    cr_assert_null(hak_ngx_pvalloc(SIZE_MAX));
    cr_assert_eq(errno, ENOMEM);
}

Test(ngx_alloc, zeros)
{
    char *p = hak_ngx_malloc(TINY);

    memset(p, 1, TINY);
    hak_ngx_free(p);
    p = hak_ngx_calloc(TINY, 1);
    for (int i = 0; i < TINY; i++) {
        cr_assert_eq(p[i], 0);
    }
    hak_ngx_free(p);
}

Test(ngx_alloc, posix_memalign_)
{
    void *p = NULL;

    hak_ngx_set_lanes(HAK_NGX_ALL);
    for (size_t alignment = 8; alignment <= 8192; alignment *= 2) {
        errno = 77;
        cr_assert_eq(hak_ngx_posix_memalign(&p, alignment, POOL), 0);
        cr_assert_eq((uintptr_t)p % alignment, 0);
        cr_assert_eq(errno, 77);
        cr_assert(end(p));
    }
    p = &p;
    cr_assert_eq(hak_ngx_posix_memalign(&p, 24, 10), EINVAL);
    cr_assert_eq(hak_ngx_posix_memalign(&p, 4, 10), EINVAL);
    cr_assert_eq(hak_ngx_posix_memalign(&p, 0, 10), EINVAL);
    cr_assert_eq(hak_ngx_posix_memalign(&p, 16, SIZE_MAX), ENOMEM);
    cr_assert_eq(hak_ngx_posix_memalign(&p, 64, SIZE_MAX), ENOMEM);
    cr_assert_eq(p, &p);
    cr_assert_eq(errno, 77);
}

Test(ngx_alloc, usable_size)
{
    void *ours = hak_ngx_malloc(100), *foreign = malloc(5000);

    cr_assert_eq(hak_ngx_malloc_usable_size(NULL), 0);
    cr_assert_geq(hak_ngx_malloc_usable_size(ours), 100);
    cr_assert_lt(hak_ngx_malloc_usable_size(ours), 130);
    cr_assert_eq(hak_ngx_malloc_usable_size(foreign),
                 malloc_usable_size(foreign));
    hak_ngx_free(ours);
    hak_ngx_free(foreign);
}

Test(ngx_alloc, free_keeps_errno)
{
    void *blocks[] = {NULL,
                      hak_ngx_malloc(10),
                      hak_ngx_malloc(POOL),
                      hak_ngx_malloc(ACE),
                      hak_ngx_malloc(HUGE),
                      malloc(10),
                      malloc(HUGE)};

    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        errno = 77;
        hak_ngx_free(blocks[i]);
        cr_assert_eq(errno, 77);
    }
}

/* ---- realloc ---------------------------------------------------------------------- */

static void check_realloc(hak_ngx_lanes lanes, size_t from, size_t to,
                          bool ours)
{
    size_t less = from < to ? from : to;
    char *p;

    hak_ngx_set_lanes(lanes);
    p = hak_ngx_realloc(NULL, from);
    memset(p, 'x', from);
    p = hak_ngx_realloc(p, to);
    for (size_t i = 0; i < less; i++) {
        cr_assert_eq(p[i], 'x');
    }
    memset(p, 'y', to);
    cr_assert_eq(end(p), ours, "%zu to %zu", from, to);
}

Test(ngx_alloc, realloc_)
{
    const size_t sizes[] = {1, TINY, POOL, ACE, HUGE};

    for (int i = 0; i < 5; i++) {
        for (int j = 0; j < 5; j++) {
            /* With Tiny alone, what has gone to libc stays there. */
            check_realloc(HAK_NGX_TINY, sizes[i], sizes[j], i < 2 && j < 2);
            check_realloc(HAK_NGX_ALL, sizes[i], sizes[j], true);
        }
    }
}

Test(ngx_alloc, realloc_to_nothing_and_of_another_allocator_s)
{
    char *p = strdup("libc's");

    cr_assert_null(hak_ngx_realloc(hak_ngx_malloc(10), 0));
    p = hak_ngx_realloc(p, POOL);
    cr_assert_str_eq(p, "libc's");
    cr_assert_not(end(p));
    p = hak_ngx_malloc(10);
    errno = 0;
    cr_assert_null(hak_ngx_realloc(p, SIZE_MAX));
    cr_assert_eq(errno, ENOMEM);
    hak_ngx_free(p);
}

/* ---- statistics ------------------------------------------------------------------------ */

Test(ngx_alloc, bytes_asked_for)
{
    uint64_t before;
    void *p;

    cr_assert(hak_ngx_start());
    hak_ngx_set_lanes(HAK_NGX_ALL);
    before = hak_ngx_asked();
    hak_ngx_free(hak_ngx_malloc(100)); /* an empty bin, and a full one */
    hak_ngx_free(hak_ngx_malloc(100));
    cr_assert_eq(hak_ngx_asked() - before, 200);
    hak_ngx_free(hak_ngx_calloc(3, 1000));
    hak_ngx_free(hak_ngx_malloc(ACE));
    hak_ngx_free(hak_ngx_malloc(ACE));
    hak_ngx_free(hak_ngx_malloc(HUGE));
    cr_assert_eq(hak_ngx_asked() - before, 200 + 3000 + 2 * ACE + HUGE);
    before = hak_ngx_asked();
    p = hak_ngx_realloc(hak_ngx_malloc(10), 50);
    hak_ngx_free(p);
    cr_assert_eq(hak_ngx_posix_memalign(&p, 16, POOL), 0);
    hak_ngx_free(p);
    cr_assert_eq(hak_ngx_asked() - before, 60 + POOL);
}

Test(ngx_alloc, calls_that_libc_serves)
{
    hak_ngx_stats before, after;

    cr_assert(hak_ngx_start());
    hak_ngx_set_lanes(HAK_NGX_TINY);
    before = stats();
    hak_ngx_free(hak_ngx_malloc(TINY + 1));
    hak_ngx_free(hak_ngx_calloc(1, TINY + 1));
    hak_ngx_free(malloc(10));
    hak_ngx_free(NULL);
    hak_ngx_free(hak_ngx_realloc(hak_ngx_malloc(10), TINY + 1));
    after = stats();
    cr_assert_eq(after.fallback_large - before.fallback_large, 3);
    cr_assert_eq(after.foreign_frees - before.foreign_frees, 4);
    cr_assert_eq(after.fallback_memory - before.fallback_memory, 0);
    cr_assert_eq(after.asked - before.asked, 3 * (TINY + 1) + 10);
}

static void *ask(void *arg)
{
    (void)arg;
    hak_ngx_free(hak_ngx_malloc(10));
    hak_ngx_free(hak_ngx_malloc(1000));
    return NULL;
}

Test(ngx_alloc, other_threads_count_and_leave_it_behind)
{
    pthread_t thread;
    uint64_t before;

    cr_assert(hak_ngx_start());
    before = hak_ngx_asked();
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(pthread_create(&thread, NULL, ask, NULL), 0);
        cr_assert_eq(pthread_join(thread, NULL), 0);
    }
    cr_assert_eq(hak_ngx_asked() - before, 3 * 1010);
}

/* ---- no address range ------------------------------------------------------------------ */

static void start_without_range(void *arg)
{
    (void)arg;
    haki_os_test_refuse(1, true);
    NEED(!hak_ngx_start());
    haki_os_test_refuse(0, false);
}

static void serve_without_range(void *arg)
{
    char *p;

    start_without_range(arg);
    hak_ngx_set_lanes(HAK_NGX_ALL);
    p = hak_ngx_malloc(100);
    NEED(p != NULL && !hak_owns(p));
    p = hak_ngx_realloc(p, POOL);
    NEED(p != NULL);
    hak_ngx_free(p);
    NEED(hak_ngx_asked() == 0);
}

Test(ngx_alloc, no_range)
{
    static const char said[] = "hakmem: out of memory at the start (ulimit "
                               "-v?); all requests go to the system "
                               "allocator\n";

    unit_expect_said(start_without_range, NULL, said);
    unit_expect_said(serve_without_range, NULL, said);
}

/* ---- forks -------------------------------------------------------------------------------- */

extern void (*atfork_call)(void);

static void *in_fork[3];

/* Before any handler of ours. */
static void allocate(void)
{
    in_fork[0] = hak_ngx_malloc(48);
    in_fork[1] = hak_ngx_malloc(ACE);
    in_fork[2] = hak_ngx_malloc(HUGE);
}

Test(ngx_alloc, another_s_fork_handlers_may_allocate)
{
    void *p;
    int status;
    pid_t child;

    hak_ngx_set_lanes(HAK_NGX_ALL);
    p = hak_ngx_malloc(48);
    atfork_call = allocate;
    child = fork();
    if (child == 0) {
        _exit(end(hak_ngx_malloc(48)) ? 0 : 1);
    }
    atfork_call = NULL;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    for (int i = 0; i < 3; i++) {
        cr_assert(end(in_fork[i]));
    }
    cr_assert(end(hak_ngx_malloc(48)));
    cr_assert(end(p));
}

/* ---- what libc allocates for its caller -------------------------------------------------- */

Test(ngx_alloc, copies_of_strings)
{
    char *p = hak_ngx_strdup("some text");
    wchar_t *w = hak_ngx_wcsdup(L"wide");

    cr_assert_str_eq(p, "some text");
    cr_assert(end(p));
    p = hak_ngx_strndup("some text", 4);
    cr_assert_str_eq(p, "some");
    cr_assert(end(p));
    p = hak_ngx_strndup("some", 100);
    cr_assert_str_eq(p, "some");
    cr_assert(end(p));
    cr_assert_eq(wcscmp(w, L"wide"), 0);
    cr_assert(end(w));
}

Test(ngx_alloc, printing_to_a_new_string)
{
    char *p = NULL;

    cr_assert_eq(hak_ngx_asprintf(&p, "%d and %s", 7, "text"), 10);
    cr_assert_str_eq(p, "7 and text");
    cr_assert(end(p));
    cr_assert_eq(hak_ngx_asprintf_chk(&p, 1, "%d and %s", 8, "text"), 10);
    cr_assert_str_eq(p, "8 and text");
    cr_assert(end(p));
}

Test(ngx_alloc, paths)
{
    char buffer[PATH_MAX], *p = hak_ngx_realpath("/usr/..", NULL);

    cr_assert_str_eq(p, "/");
    cr_assert(end(p));
    cr_assert_eq(hak_ngx_realpath("/usr/..", buffer), buffer);
    cr_assert_eq(hak_ngx_realpath_chk("/usr/..", buffer, sizeof(buffer)),
                 buffer);
    errno = 0;
    cr_assert_null(hak_ngx_realpath("/no/such/path", NULL));
    cr_assert_eq(errno, ENOENT);
    cr_assert_eq(chdir("/usr"), 0);
    p = hak_ngx_getcwd(NULL, 0);
    cr_assert_str_eq(p, "/usr");
    cr_assert(end(p));
    p = hak_ngx_getcwd(NULL, 300);
    cr_assert_str_eq(p, "/usr");
    cr_assert_geq(hak_ngx_malloc_usable_size(p), 300);
    cr_assert(end(p));
    cr_assert_eq(hak_ngx_getcwd(buffer, sizeof(buffer)), buffer);
    errno = 0;
    cr_assert_null(hak_ngx_getcwd(NULL, 2));
    cr_assert_eq(errno, ERANGE);
}

/* A block of ours that is too small, one of libc's, none: lines of a file. */
static void check_lines(char *line, size_t room, bool ours)
{
    static const char text[] = "short\na line that is somewhat longer "
                               "than what there is room for at first\nend";
    FILE *file = fmemopen((void *)text, sizeof(text) - 1, "r");

    cr_assert_eq(hak_ngx_getline(&line, &room, file), 6);
    cr_assert_str_eq(line, "short\n");
    cr_assert_eq(hak_ngx_getline(&line, &room, file), 68);
    cr_assert_eq(strlen(line), 68);
    cr_assert_geq(room, 69);
    cr_assert_eq(hak_ngx_getdelim(&line, &room, 'd', file), 3);
    cr_assert_str_eq(line, "end");
    cr_assert_eq(hak_ngx_getline(&line, &room, file), -1);
    cr_assert_eq(end(line), ours);
    fclose(file);
}

Test(ngx_alloc, lines)
{
    char *none = NULL;
    size_t room = 0;

    check_lines(hak_ngx_malloc(8), 8, true);
    check_lines(NULL, 0, true);
    check_lines(malloc(8), 8, false);
    cr_assert_eq(hak_ngx_getline(&none, NULL, stdin), -1);
    cr_assert_eq(hak_ngx_getline(NULL, &room, stdin), -1);
}

/* ---- C++ ------------------------------------------------------------------------------------ */

Test(ngx_alloc, operator_new)
{
    void *p = hak_ngx_ZnwmSt11align_val_t(100, 128);

    hak_ngx_set_lanes(HAK_NGX_ALL);
    cr_assert_eq((uintptr_t)p % 128, 0);
    cr_assert(end(p));
    cr_assert(end(hak_ngx_Znwm(10)));
    cr_assert(end(hak_ngx_Znwm(HUGE)));
    cr_assert(end(hak_ngx_ZnwmRKSt9nothrow_t(10, NULL)));
    cr_assert(end(hak_ngx_ZnwmSt11align_val_tRKSt9nothrow_t(10, 64, NULL)));
    /* No memory, or no power of two: NULL, with a C++ library or without. */
    cr_assert_null(hak_ngx_ZnwmRKSt9nothrow_t(SIZE_MAX / 2 + 1, NULL));
    cr_assert_null(hak_ngx_ZnwmSt11align_val_tRKSt9nothrow_t(SIZE_MAX, 64,
                                                             NULL));
    cr_assert_null(hak_ngx_ZnwmSt11align_val_tRKSt9nothrow_t(10, 24, NULL));
}
