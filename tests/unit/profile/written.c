/*
 * written.c - tests of what profiles tell: the interface, the forms, frames of runtimes,
 * who holds how much.
 */
#include <math.h>
#include <sys/stat.h>

#include "profile/profile.h"
#include "unit.h"

TestSuite(written, .timeout = 300);

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

static void on(size_t rate)
{
    haki_profile_test_seed(42);
    NEED(haki_profile_set(rate));
}

/* ---- the interface ------------------------------------------------------------------- */

/* A file of this test's, removed by `unlink`. */
static char *file_named(const char *ending)
{
    const char *dir = getenv("TMPDIR");
    char *path;

    NEED(asprintf(&path, "%s/hakmem-profile-%%p%s",
                  dir != NULL ? dir : P_tmpdir, ending) > 0);
    return path;
}

/* What is in the file, a string. */
static char *contents(const char *path)
{
    char name[200], *text = calloc(1, MIB);
    const char *mark = strstr(path, "%p");
    FILE *file;

    snprintf(name, sizeof(name), "%.*s%d%s", (int)(mark - path), path,
             (int)getpid(), mark + 2);
    file = fopen(name, "r");
    NEED(file != NULL);
    NEED(fread(text, 1, MIB - 1, file) > 0);
    fclose(file);
    unlink(name);
    return text;
}

HAK_NOINLINE static void *asks_for_it(size_t size)
{
    void *volatile p = hak_malloc(size);

    return p;
}

Test(written, what_is_written_names_who_asked)
{
    static const char *const endings[] = {".txt", ".json", ".html", ".pb.gz"};
    void *p;

    unit_need_names();
    cr_assert_eq(hak_profile_start(1), 0);
    p = asks_for_it(12345);
    for (size_t i = 0; i < 4; i++) {
        char *path = file_named(endings[i]), *text;

        cr_assert_eq(hak_profile_write(path, HAK_PROFILE_BY_NAME, 0), 0);
        text = contents(path);
        if (i < 3) { /* the last is not text */
            cr_assert_not_null(strstr(text, "asks_for_it"), "%s", text);
            cr_assert_null(strstr(text, "haki_"));
        } else {
            cr_assert_eq(memcmp(text, "\x1f\x8b\x08", 3), 0);
        }
    }
    hak_free(p);
}

Test(written, wrong_requests_are_refused)
{
    errno = 0;
    cr_assert_eq(hak_profile_write_fd(1, HAK_PROFILE_COLLAPSED, 0), -1);
    cr_assert_eq(errno, ENODATA);
    cr_assert_eq(hak_profile_rate(), 0);
    cr_assert_eq(hak_profile_start(0), 0);
    cr_assert_eq(hak_profile_rate(), HAK_PROFILE_RATE);
    cr_assert_eq(hak_profile_write("x.pdf", HAK_PROFILE_BY_NAME, 0), -1);
    cr_assert_eq(errno, EINVAL);
    cr_assert_eq(hak_profile_write_fd(1, HAK_PROFILE_BY_NAME, 0), -1);
    cr_assert_eq(errno, EINVAL);
    cr_assert_eq(hak_profile_write_fd(1, 99, 0), -1);
    cr_assert_eq(errno, EINVAL);
    cr_assert_eq(hak_profile_write_fd(1, HAK_PROFILE_PPROF, 64), -1);
    cr_assert_eq(errno, EINVAL);
    cr_assert_eq(hak_profile_write_fd(-1, HAK_PROFILE_PPROF, 0), -1);
    cr_assert_eq(errno, EBADF);
    cr_assert_eq(hak_profile_write("/nowhere/x.txt", HAK_PROFILE_BY_NAME, 0),
                 -1);
    cr_assert_eq(errno, ENOENT);
    cr_assert_eq(hak_profile_write("/dev/full", HAK_PROFILE_PPROF, 0), -1);
    cr_assert_eq(errno, ENOSPC);
    hak_profile_stop();
    cr_assert_eq(hak_profile_rate(), 0);
}

/* By a limit on files' sizes, as by a full disk: what was there stays whole, and
 * nothing is beside it. */
Test(written, a_profile_is_whole_or_the_one_of_before)
{
    const char *dir = getenv("TMPDIR");
    char folder[200], path[220], other[240];
    struct rlimit limit = {100, 100};
    struct stat status;
    FILE *file;

    snprintf(folder, sizeof(folder), "%s/hakmem-written-XXXXXX",
             dir != NULL ? dir : P_tmpdir);
    NEED(mkdtemp(folder) != NULL);
    snprintf(path, sizeof(path), "%s/x.html", folder);
    snprintf(other, sizeof(other), "%s.%d", path, (int)getpid());
    file = fopen(path, "w");
    NEED(file != NULL && fputs("before", file) >= 0 && fclose(file) == 0);
    signal(SIGXFSZ, SIG_IGN);
    NEED(hak_profile_start(1) == 0 && setrlimit(RLIMIT_FSIZE, &limit) == 0);
    cr_assert_eq(hak_profile_write(path, HAK_PROFILE_BY_NAME, 0), -1);
    cr_assert_eq(errno, EFBIG);
    cr_assert(stat(path, &status) == 0 && status.st_size == 6);
    cr_assert(stat(other, &status) != 0);
    hak_profile_stop();
    unlink(path);
    rmdir(folder);
}

HAK_NOINLINE static void *asks_twice(int i)
{
    return i == 0 ? asks_for_it(100) : asks_for_it(200);
}

/* Two calls of a function in a function are two stacks, and one line. */
Test(written, collapsed_stacks_are_lines_once)
{
    char *path = file_named(".txt"), *text, *line;
    void *kept[2];

    unit_need_names();
    on(1);
    for (int i = 0; i < 2; i++) {
        kept[i] = asks_twice(i);
    }
    cr_assert_eq(hak_profile_write(path, HAK_PROFILE_BY_NAME, 0), 0);
    text = contents(path);
    line = strstr(text, ";asks_for_it");
    cr_assert_not_null(line, "%s", text);
    cr_assert_null(strstr(line + 1, ";asks_for_it"), "%s", text);
    hak_free(kept[0]);
    hak_free(kept[1]);
    free(text);
    free(path);
}

/* ---- the runtime's frames ------------------------------------------------------------ */

static unsigned two_frames(struct hak_heap *heap, struct hak_frame *frames,
                           unsigned most, size_t *below)
{
    (void)heap;
    NEED(most >= 2);
    frames[0] = (struct hak_frame){haki_profile_name("a;b.py", 6),
                                   haki_profile_name("leaf", 4), 0, 7};
    frames[1] = (struct hak_frame){0, haki_profile_name("root", 4), 0, 0};
    *below = 0;
    return 2;
}

static uint32_t line_of(const struct hak_frame *frame)
{
    return frame->token * 100;
}

Test(written, a_runtime_tells_its_frames)
{
    char *path = file_named(".txt");
    hak_heap *heap;

    cr_assert_eq(hak_profile_start(1), 0);
    haki_profile_set_frames(two_frames, line_of);
    hak_free(hak_malloc(10));
    heap = hak_heap_new(NULL);
    NEED(hak_heap_malloc(heap, 100) != NULL);
    cr_assert_eq(hak_profile_write(path, HAK_PROFILE_BY_NAME, 0), 0);
    cr_assert_str_eq(contents(path), "root;leaf (a:b.py:700) 112\n");
    hak_heap_delete(heap);
}

/* ---- who, of several ------------------------------------------------------------------ */

/* The bytes of the stacks that have a function of this name. */
static double bytes_of(const char *text, const char *name)
{
    double sum = 0;

    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        const char *found = memmem(text, n, name, strlen(name));
        const char *value = memrchr(text, ' ', n);

        sum += found != NULL ? strtod(value, NULL) : 0;
        text += n + (text[n] == '\n');
    }
    return sum;
}

static char *collapsed(unsigned flags)
{
    char *path = file_named(".txt");

    NEED(hak_profile_write(path, HAK_PROFILE_COLLAPSED, flags) == 0);
    return contents(path);
}

HAK_NOINLINE static void site_of_a(size_t size)
{
    void *volatile p = hak_malloc(size);

    hak_free(p);
}

/* Not the same code, which a compiler would have once. */
HAK_NOINLINE static void site_of_b(size_t size)
{
    void *volatile p = NULL;

    p = hak_malloc(size);
    hak_free(p);
}

Test(written, two_that_take_turns_have_equal_shares)
{
    static const size_t sizes[] = {48, 1000, 6000, 70000};

    unit_need_names();
    for (size_t i = 0; i < 4; i++) {
        size_t rate = haki_max(4 * KIB, sizes[i] / 2);
        size_t n = unit_scale(haki_min(32 * MIB / sizes[i], 100000), 200);
        double truth, chance, sigma;
        char *text;

        on(rate);
        for (size_t k = 0; k < n; k++) {
            site_of_a(sizes[i]);
            site_of_b(sizes[i]);
        }
        truth = (double)hak_good_size(sizes[i]) * (double)n;
        chance = haki_draw_chance(rate, hak_good_size(sizes[i]));
        sigma = truth * sqrt((1 - chance) / chance / (double)n);
        text = collapsed(HAK_PROFILE_ALLOCATED);
        cr_expect_lt(fabs(bytes_of(text, "site_of_a") - truth),
                     6 * sigma + (double)n, "%zu: %.0f not %.0f", sizes[i],
                     bytes_of(text, "site_of_a"), truth);
        cr_expect_lt(fabs(bytes_of(text, "site_of_b") - truth),
                     6 * sigma + (double)n, "%zu: %.0f not %.0f", sizes[i],
                     bytes_of(text, "site_of_b"), truth);
        haki_profile_set(0);
    }
}

/* What the program below knows of itself. */
static double leaked, cached;
static void *cache[20000];
static size_t cache_bytes[20000];

HAK_NOINLINE static void leaks(size_t size)
{
    void *volatile p = hak_malloc(size);

    leaked += (double)hak_usable_size(p);
}

HAK_NOINLINE static void caches(size_t at, size_t size)
{
    hak_free(cache[at]);
    cached -= (double)cache_bytes[at];
    cache[at] = hak_malloc(size);
    cache_bytes[at] = hak_usable_size(cache[at]);
    cached += (double)cache_bytes[at];
}

/* 1 GB at the default rate: of it 5 % are leaked, a cache keeps some 40 MB, the rest
 * comes and goes. What is off is by chance: with these numbers always the same. */
Test(written, a_leak_and_a_cache_are_told_apart)
{
    size_t all = unit_scale(1024 * MIB, 128 * MIB);
    struct unit_random random = {3};
    double live;
    char *text;

    unit_need_names();
    haki_profile_test_seed(5);
    NEED(haki_profile_set(HAK_PROFILE_RATE));
    while (all > 4000) {
        size_t size = 16 + unit_below(&random, 4000);
        size_t kind = unit_below(&random, 100);

        all -= size;
        if (kind < 5) {
            leaks(size);
        } else if (kind < 30) {
            caches(unit_below(&random, 20000), size);
        } else {
            site_of_a(size);
        }
    }
    text = collapsed(0);
    live = leaked + cached;
    cr_assert_lt(fabs(bytes_of(text, "leaks") - leaked), 0.1 * live,
                 "%.0f, %.0f", bytes_of(text, "leaks"), leaked);
    cr_assert_lt(fabs(bytes_of(text, "caches") - cached), 0.1 * live,
                 "%.0f, %.0f", bytes_of(text, "caches"), cached);
    cr_assert_eq(bytes_of(text, "site_of_a"), 0);
    cr_assert_gt(leaked, 0.04 * (double)unit_scale(1024 * MIB, 128 * MIB));
}

static unsigned same_but_for_the_file(struct hak_heap *heap,
                                      struct hak_frame *frames, unsigned most,
                                      size_t *below)
{
    static const char *const files[] = {"1.py", "2.py", "3.py"};
    static unsigned next;

    (void)heap;
    NEED(most >= 2);
    haki_profile_frame_of_c(&frames[0], (const void *)(uintptr_t)asks_for_it);
    frames[1] = (struct hak_frame){haki_profile_name(files[next++ % 3], 4),
                                   haki_profile_name("f", 1), 5, 0};
    *below = 0;
    return 2;
}

Test(written, frames_with_other_files_are_others_and_c_has_its_name)
{
    char *path = file_named(".txt"), *text;
    void *blocks[3];

    unit_need_names();
    cr_assert_eq(hak_profile_start(1), 0);
    haki_profile_set_frames(same_but_for_the_file, NULL);
    for (int i = 0; i < 3; i++) {
        blocks[i] = hak_malloc(100);
    }
    cr_assert_eq(hak_profile_write(path, HAK_PROFILE_BY_NAME, 0), 0);
    text = contents(path);
    cr_assert_not_null(strstr(text, "f (1.py:5);asks_for_it 112\n"), "%s",
                       text);
    cr_assert_not_null(strstr(text, "f (2.py:5);asks_for_it 112\n"), "%s",
                       text);
    cr_assert_not_null(strstr(text, "f (3.py:5);asks_for_it 112\n"), "%s",
                       text);
    for (int i = 0; i < 3; i++) {
        hak_free(blocks[i]);
    }
}
