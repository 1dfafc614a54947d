/*
 * unwind.c - tests of walks by recipes: each is libgcc's, or none.
 *
 * Whatever lies on the stack: frames of all kinds, calls of one another by chance;
 * signals, coroutines, code without tables, frames that an exception is leaving, and
 * other code where a recipe was learned.
 */
#include <dlfcn.h>
#include <limits.h>
#include <ucontext.h>

#include "profile/profile.h"
#include "profile/recipes.h"
#include "unit.h"

TestSuite(unwind, .init = unit_need_names, .timeout = 120);

/* Both ways, from one place. 0: they differ; else how many frames by recipes, or
 * UINT_MAX if there is one without. */
HAK_NOINLINE static unsigned walk(void)
{
    uintptr_t quick[HAK_STACK_PCS] = {0}, full[HAK_STACK_PCS] = {0};
    unsigned frames = haki_unwind_test(quick, HAK_STACK_PCS, true);
    unsigned all = haki_unwind_test(full, HAK_STACK_PCS, false);

    NEED(all > 0);
    if (frames == 0) {
        return UINT_MAX;
    }
    /* The first is this one, which goes on in two places. */
    quick[0] = full[0];
    return frames == all && memcmp(quick, full, sizeof(full)) == 0 ? frames : 0;
}

static void begin(void)
{
    NEED(haki_profile_set(HAK_PROFILE_RATE));
}

/* On a stack that begins with a frame without a recipe. */
static bool left_to_libgcc;

static void expect_quick(void)
{
    unsigned frames = walk();

    cr_assert_neq(frames, 0, "the two differ");
    cr_assert(!HAK_RECIPES || (frames == UINT_MAX) == left_to_libgcc,
              "there is a frame without a recipe, or none");
}

Test(unwind, a_test_is_walked)
{
    begin();
    expect_quick();
}

/* ---- frames of all kinds ---------------------------------------------------------- */

#if defined(__clang__)
#define PLAIN __attribute__((optnone))
#define POINTED
#define UNPOINTED
#else
#define PLAIN __attribute__((optimize("O0")))
#define POINTED __attribute__((optimize("O2,no-omit-frame-pointer")))
#define UNPOINTED __attribute__((optimize("O2,omit-frame-pointer")))
#endif

/* Calls others as long as there is depth, then walks; the sum of the walks. */
typedef unsigned kind(struct unit_random *random, unsigned depth);
#define KINDS 10
static kind *const kinds[KINDS];
static unsigned next(struct unit_random *random, unsigned depth);

HAK_NOINLINE static unsigned constant(struct unit_random *random,
                                      unsigned depth)
{
    volatile char room[200];

    room[depth] = 1;
    return next(random, depth) + room[depth] - 1;
}

HAK_NOINLINE PLAIN static unsigned plain(struct unit_random *random,
                                         unsigned depth)
{
    unsigned a = next(random, depth);

    return a;
}

HAK_NOINLINE POINTED static unsigned pointed(struct unit_random *random,
                                             unsigned depth)
{
    unsigned a = next(random, depth), b = depth;

    return a + b - depth;
}

/* With rbp for another purpose, where a compiler has so many registers to keep. */
HAK_NOINLINE UNPOINTED static unsigned unpointed(struct unit_random *random,
                                                 unsigned depth)
{
    uint64_t a = unit_next(random), b = unit_next(random),
             c = unit_next(random), d = unit_next(random),
             e = unit_next(random), f = unit_next(random);
    unsigned sum = next(random, depth);

    return sum + (unsigned)((a ^ b ^ c ^ d ^ e ^ f) % 1);
}

/* As large as chance will have it, with what other frames left there. */
HAK_NOINLINE static unsigned variable(struct unit_random *random,
                                      unsigned depth)
{
    size_t n = 1 + (size_t)unit_below(random, 600);
    volatile char room[n];

    room[n - 1] = 1;
    return next(random, depth) + room[n - 1] - 1;
}

HAK_NOINLINE static unsigned two_variables(struct unit_random *random,
                                           unsigned depth)
{
    volatile char *a = __builtin_alloca(1 + (size_t)unit_below(random, 900));
    unsigned sum;

    a[0] = 1;
    sum = next(random, depth / 2);
    if (depth % 2 == 0) {
        volatile char *b = __builtin_alloca(1 + (size_t)unit_below(random, 99));

        b[0] = 1;
        sum += next(random, depth) + b[0] - 1;
    }
    return sum + a[0] - 1;
}

/* More arguments than registers: pushed, or put into room that was there. */
HAK_NOINLINE static unsigned many(struct unit_random *random, unsigned depth,
                                  long a, long b, long c, long d, long e,
                                  long f)
{
    return next(random, depth) + (unsigned)((a + b + c + d + e + f) % 1);
}

HAK_NOINLINE static unsigned pushes(struct unit_random *random, unsigned depth)
{
    unsigned sum = many(random, depth, 1, 2, 3, 4, 5, 6);

    return sum + (unsigned)(unit_below(random, 9) / 9);
}

HAK_NOINLINE static unsigned twice(struct unit_random *random, unsigned depth)
{
    return next(random, depth / 2) +
           (depth > 0 ? next(random, depth - depth / 2 - 1) : 0);
}

HAK_NOINLINE static unsigned itself(struct unit_random *random, unsigned depth)
{
    unsigned sum =
        depth % 5 != 0 ? itself(random, depth - 1) : next(random, depth);

    return sum + (unsigned)(unit_below(random, 9) / 9);
}

static int by_value(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static struct unit_random *sort_random;
static unsigned sort_depth, sort_sum;

HAK_NOINLINE static int sorts(const void *a, const void *b)
{
    if (sort_depth > 0) {
        unsigned depth = sort_depth;

        sort_depth = 0;
        sort_sum += next(sort_random, depth);
    }
    return by_value(a, b);
}

/* Through the C library's code. */
HAK_NOINLINE static unsigned through_libc(struct unit_random *random,
                                          unsigned depth)
{
    int some[] = {3, 1, 2};

    sort_random = random;
    sort_depth = depth;
    sort_sum = 0;
    qsort(some, 3, sizeof(some[0]), sorts);
    return sort_sum;
}

static kind *const kinds[KINDS] = {constant, plain,         pointed, unpointed,
                                   variable, two_variables, pushes,  twice,
                                   itself,   through_libc};

HAK_NOINLINE static unsigned next(struct unit_random *random, unsigned depth)
{
    if (depth == 0) {
        expect_quick();
        return 1;
    }
    return kinds[unit_below(random, KINDS)](random, depth - 1);
}

/* What stands on a stack where the next frames will be. */
HAK_NOINLINE static void litter(uint64_t value)
{
    volatile uint64_t room[2000];

    for (size_t i = 0; i < 2000; i++) {
        room[i] = value;
    }
    NEED(room[value % 2000] == value);
}

static void by_chance(uint64_t seed, size_t rounds)
{
    struct unit_random random = {seed};

    for (size_t i = 0; i < rounds; i++) {
        if (i % 3 == 0) {
            litter(i % 2 == 0 ? UINT64_MAX : (uintptr_t)next);
        }
        next(&random, 1 + (unsigned)unit_below(&random, 40));
    }
}

Test(unwind, frames_of_all_kinds)
{
    begin();
    by_chance(1, unit_scale(3000, 100));
}

static void *by_chance_in_a_thread(void *seed)
{
    struct unit_random random = {(uintptr_t)seed};

    for (size_t i = 0; i < unit_scale(500, 30); i++) {
        NEED(walk() != 0);
        litter(unit_next(&random));
        /* Without through_libc, whose variables all threads share. */
        for (size_t k = 0; k < KINDS - 1; k++) {
            kinds[k](&random, 0);
        }
    }
    return NULL;
}

Test(unwind, threads_share_recipes)
{
    pthread_t threads[4];

    begin();
    for (uintptr_t i = 0; i < 4; i++) {
        NEED(pthread_create(&threads[i], NULL, by_chance_in_a_thread,
                            (void *)(i + 1)) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* ---- stacks of other kinds --------------------------------------------------------- */

static unsigned seen_in_handler;

static void handler(int number)
{
    (void)number;
    seen_in_handler = walk();
}

HAK_NOINLINE static void raises(int number)
{
    raise(number);
}

/* With a stack of its own as well. */
Test(unwind, signal_handlers_are_left_to_libgcc)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    stack_t stack = {.ss_sp = malloc(1 << 20), .ss_size = 1 << 20};

    begin();
    NEED(sigaction(SIGUSR1, &action, NULL) == 0);
    raises(SIGUSR1);
    cr_assert_eq(seen_in_handler, UINT_MAX);
    NEED(sigaltstack(&stack, NULL) == 0);
    raises(SIGUSR1);
    cr_assert_eq(seen_in_handler, UINT_MAX);
}

static ucontext_t outside, inside;

/* glibc's makecontext has it return to the first byte of a function: what comes before
 * that is none. */
static void coroutine(void)
{
    struct unit_random random = {7};

    for (;;) {
        left_to_libgcc = true;
        next(&random, 12);
        left_to_libgcc = false;
        swapcontext(&inside, &outside);
    }
}

Test(unwind, coroutines_are_walked_as_libgcc_does)
{
    size_t bytes = 256 * 1024;

    begin();
    NEED(getcontext(&inside) == 0);
    inside.uc_stack.ss_sp = malloc(bytes);
    inside.uc_stack.ss_size = bytes;
    inside.uc_link = &outside;
    makecontext(&inside, coroutine, 0);
    for (int i = 0; i < 50; i++) {
        swapcontext(&outside, &inside);
        expect_quick();
    }
}

#ifdef __x86_64__
static unsigned calls_walk(void)
{
    unsigned frames = walk();

    return frames;
}

/* A page of code. */
static void *page_of_code(void)
{
    /* push rbp; mov rbp, rsp; call rdi; pop rbp; ret */
    static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5,
                                         0xff, 0xd7, 0x5d, 0xc3};
    void *memory = mmap(NULL, HAK_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    NEED(memory != MAP_FAILED);
    memcpy(memory, code, sizeof(code));
    return memory;
}

static unsigned (*run_code(void *page))(unsigned (*)(void))
{
    return (unsigned (*)(unsigned (*)(void)))(uintptr_t)page;
}

/* walk, calls_walk and the code, both ways. */
static void expect_last(void *code)
{
    unsigned frames = run_code(code)(calls_walk);

    cr_assert(frames == 2 || frames == 3, "%u frames", frames);
}

Test(unwind, code_of_no_object_is_the_last_frame)
{
    begin();
    expect_last(page_of_code());
}

/* ---- half a table, as LuaJIT registers: who catches is told, no frame's end --------- */

extern void __register_frame(void *table);
static unsigned char table[64];

static size_t table_word(size_t at, uint32_t word)
{
    memcpy(table + at, &word, sizeof(word));
    return at + sizeof(word);
}

static void register_half_a_table(void *code)
{
    uint64_t range[2] = {(uintptr_t)code, HAK_PAGE};
    size_t at = table_word(0, 12);

    at = table_word(at, 0); /* a CIE: version 1, "", 1, -8, rip; DW_CFA_nop */
    memcpy(table + at, "\1\0\1\x78\x10\0\0\0", 8);
    at = table_word(at + 8, 20);
    at = table_word(at, (uint32_t)at); /* an FDE of it */
    memcpy(table + at, range, sizeof(range));
    table_word(at + sizeof(range), 0); /* the end of the table */
    __register_frame(table);
}

Test(unwind, half_a_table_is_not_followed)
{
    void *code = page_of_code();

    begin();
    register_half_a_table(code);
    expect_last(code);
}

/* libgcc walks, since a signal's frame has no recipe, and stops there as well. */
static unsigned raises_in_code(void)
{
    raises(SIGUSR1);
    return 0;
}

Test(unwind, nor_behind_a_signal_handler)
{
    struct sigaction action = {.sa_handler = handler};
    void *code = page_of_code();

#ifdef HAK_TSAN
    cr_skip(
        "libgcc allocates when it first looks into a table, here in a handler");
#endif
    begin();
    register_half_a_table(code);
    NEED(sigaction(SIGUSR1, &action, NULL) == 0);
    cr_assert_eq(run_code(code)(raises_in_code), 0);
    cr_assert_eq(seen_in_handler, UINT_MAX);
}
#endif

/* ---- frames that are being left ------------------------------------------------------ */

static atomic_int left_behind;

/* Runs while the thread's frames are being unwound. */
static void at_cleanup(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};

    NEED(walk() != 0);
    for (size_t k = 0; k < KINDS - 1; k++) {
        kinds[k](&random, 0);
    }
    atomic_fetch_add(&left_behind, 1);
}

/* That it does not return is not to be seen. */
static void (*volatile ends)(void *) = pthread_exit;

HAK_NOINLINE static void leaves(unsigned depth)
{
    pthread_cleanup_push(at_cleanup, (void *)(uintptr_t)(depth + 1));
    if (depth == 0) {
        ends(NULL);
    } else {
        leaves(depth - 1);
    }
    pthread_cleanup_pop(0);
}

static void *leaves_in_a_thread(void *arg)
{
    leaves((unsigned)(uintptr_t)arg);
    return NULL;
}

Test(unwind, frames_that_are_being_left)
{
    pthread_t thread;

    begin();
    for (uintptr_t i = 0; i < 20; i++) {
        NEED(pthread_create(&thread, NULL, leaves_in_a_thread, (void *)i) == 0);
        pthread_join(thread, NULL);
    }
    cr_assert_eq(atomic_load(&left_behind), 20 * 21 / 2);
}

/* ---- other code at the same place ------------------------------------------------------ */

static uintptr_t walked_from;

static long back(void)
{
    unsigned frames = walk();
    uintptr_t pc[HAK_STACK_PCS];

    NEED(haki_unwind_test(pc, HAK_STACK_PCS, false) > 2);
    walked_from = pc[1];
    return frames == 0 || (HAK_RECIPES && frames == UINT_MAX) ? 1000 : 0;
}

/* Where its frame goes on; 0: the two walks differed, or its recipe was wrong. */
static uintptr_t plug(const char *name)
{
    char path[4096] = {0};
    long (*run)(long (*)(void), long);
    void *library;
    long sum;

    NEED(readlink("/proc/self/exe", path, sizeof(path) - 100) > 0);
    snprintf(strrchr(path, '/'), 100, "/%s.so", name);
    library = dlopen(path, RTLD_NOW);
    NEED(library != NULL);
    run = (long (*)(long (*)(void), long))(uintptr_t)dlsym(library, "plugged");
    sum = run(back, 3);
    dlclose(library);
    return sum < 1000 ? walked_from : 0;
}

Test(unwind, a_recipe_ends_with_its_library)
{
    unsigned same = 0;
    uintptr_t before = 0, now;

    begin();
    for (int i = 0; i < 20; i++) {
        now = plug(i % 2 == 0 ? "plugged40" : "plugged88");
        cr_assert_neq(now, 0);
        same += now == before;
        before = now;
    }
    /* The kernel may put it elsewhere each time. */
    if (same == 0) {
        cr_log_warn("no two libraries at one address");
    }
}
