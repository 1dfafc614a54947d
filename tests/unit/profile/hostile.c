/*
 * hostile.c - tests of walks through frames whose tables lie: no fault, no word from
 * beyond the stack, and what was found before them is told.
 */
#include <ucontext.h>

#include "profile/profile.h"
#include "profile/recipes.h"
#include "unit.h"

TestSuite(hostile, .timeout = 120);

#if HAK_RECIPES

/*
 * NAME(walk, bp): a function that sets rbp, calls walk and returns; `rules` is what its
 * table says of the frame meanwhile.
 */
#define HOSTILE(name, rules)                                                   \
    __asm__(".text\n.type " #name ", @function\n" #name ":\n"                  \
            ".cfi_startproc\n"                                                 \
            "pushq %rbp\n"                                                     \
            "movq %rsi, %rbp\n" rules "\ncall *%rdi\n"                         \
            "popq %rbp\n"                                                      \
            "ret\n.cfi_endproc\n.size " #name ", .-" #name "\n");              \
    unsigned name(unsigned (*walk)(void), uintptr_t bp)

HOSTILE(far_above, ".cfi_def_cfa rsp, 0x7ffff8");
HOSTILE(above, ".cfi_def_cfa rsp, 0x40000");
HOSTILE(beside, ".cfi_def_cfa rsp, 0x1000");
HOSTILE(by_bp, ".cfi_def_cfa rbp, 16");
HOSTILE(by_far_bp, ".cfi_def_cfa rbp, 0x7ffff8");
HOSTILE(bp_below, ".cfi_def_cfa rsp, 16\n.cfi_offset rbp, -0x1ffff0");
HOSTILE(bp_far_below, ".cfi_def_cfa rbp, 16\n.cfi_offset rbp, -0x1ffff0");

/* Frames that were found from here by recipes, and so as a profile finds them. What looks
 * like a frame by chance may lead to one without a recipe: that is left to libgcc, which
 * believes all tables, as exceptions do. */
HAK_NOINLINE static unsigned walk(void)
{
    uintptr_t pc[HAK_STACK_PCS];
    unsigned quick = haki_unwind_test(pc, HAK_STACK_PCS, true);

    return quick > 0 ? quick : 1;
}

static char *closed; /* pages without access */

static void each(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    const uintptr_t bps[] = {0,
                             8,
                             16,
                             0x800000,
                             UINTPTR_MAX - 15,
                             UINTPTR_MAX / 2 - 15,
                             (uintptr_t)1 << 47,
                             (uintptr_t)closed + 4096,
                             (uintptr_t)&closed,
                             here - 4096,
                             here + 64,
                             here + 0x100000,
                             here + 0x600000};

    for (size_t i = 0; i < sizeof(bps) / sizeof(bps[0]); i++) {
        cr_assert_geq(far_above(walk, bps[i]), 1);
        cr_assert_geq(above(walk, bps[i]), 1);
        cr_assert_geq(beside(walk, bps[i]), 1);
        cr_assert_geq(by_bp(walk, bps[i]), 1);
        cr_assert_geq(by_far_bp(walk, bps[i]), 1);
        cr_assert_geq(bp_below(walk, bps[i]), 1);
        cr_assert_geq(bp_far_below(walk, bps[i]), 1);
    }
}

static void begin(void)
{
    UNIT_SKIP_IF_WATCHED("valgrind calls it an error to ask of such addresses");
    cr_assert(haki_profile_set(HAK_PROFILE_RATE));
    closed =
        mmap(NULL, 4 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(closed != MAP_FAILED);
}

Test(hostile, tables_on_the_main_thread_s_stack)
{
    begin();
    each();
}

static void *in_thread(void *arg)
{
    each();
    return arg;
}

Test(hostile, tables_on_a_thread_s_stack)
{
    pthread_t thread;

    begin();
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(pthread_create(&thread, NULL, in_thread, NULL), 0);
        cr_assert_eq(pthread_join(thread, NULL), 0);
    }
}

/* A stack with pages without access around it. */
Test(hostile, tables_on_a_coroutine_s_stack)
{
    enum { STACK = 256 * 1024, GAP = 16 * 1024 * 1024 };
    static ucontext_t here, there;
    char *all = mmap(NULL, STACK + 2 * GAP, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    begin();
    cr_assert(all != MAP_FAILED);
    cr_assert_eq(mprotect(all + GAP, STACK, PROT_READ | PROT_WRITE), 0);
    cr_assert_eq(getcontext(&there), 0);
    there.uc_stack.ss_sp = all + GAP;
    there.uc_stack.ss_size = STACK;
    there.uc_link = &here;
    makecontext(&there, each, 0);
    cr_assert_eq(swapcontext(&here, &there), 0);
}

/* Above the frames nothing is read, though it could be: a thread's own data lie there. */
static unsigned seen;
HAK_NOINLINE static unsigned count(void)
{
    uintptr_t pc[HAK_STACK_PCS];

    seen = haki_unwind_test(pc, HAK_STACK_PCS, true);
    return seen;
}

static void *at_the_end(void *arg)
{
    uintptr_t thread;

    __asm__("movq %%fs:0, %0" : "=r"(thread));
    by_bp(count, thread); /* the word at the thread pointer's place + 8 */
    cr_assert_eq(seen, 2, "%u", seen); /* count and by_bp */
    return arg;
}

Test(hostile, nothing_above_the_stack_is_read)
{
    pthread_t thread;

    begin();
    cr_assert_eq(pthread_create(&thread, NULL, at_the_end, NULL), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

#else

Test(hostile, there_are_no_recipes_here)
{
    cr_skip("recipes are for x86-64");
}

#endif
