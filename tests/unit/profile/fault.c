/*
 * fault.c - tests of touches that a guarded block's pages keep out, and of what the
 * program's own handlers of SIGSEGV see.
 */
#include <setjmp.h>

#include "guards.h"

TestSuite(fault, .timeout = 120);

/* ---- touches ------------------------------------------------------------------ */

static HAK_NOINLINE void touches(volatile char *p, bool write)
{
    if (write) {
        *p = 1;
    } else {
        (void)*p;
    }
    __asm__ volatile(""); /* the call of it is none that ends its caller */
}

struct touch {
    size_t size;
    bool write, end;
    int how; /* 0 after the free, 1 beyond, 2 before */
};

static void touch_it(void *arg)
{
    const struct touch *touch = arg;
    char *p;

    guards_on();
    p = unit_pointer(guards_block_at(touch->size, touch->end));
    if (touch->how == 0) {
        hak_free(p);
        p += touch->size / 2;
    } else {
        p += touch->how == 1 ? (ptrdiff_t)touch->size : -1;
    }
    touches(unit_pointer(p), touch->write);
    __asm__ volatile("");
}

#if defined(__x86_64__)
#define WORD(write) ((write) ? "write" : "read")
#else
#define WORD(write) ""
#endif

Test(fault, a_touch_is_reported_and_ends_the_program_by_the_same_signal)
{
    static const size_t sizes[] = {16, 96, 1024, 4096, 16384};
    struct touch touch;

    unit_need_names();
    GUARDS_NEED_SIGSEGV();
    GUARDS_SKIP_IF_HARD();
    for (size_t i = 0; i < 10; i++) {
        touch.size = unit_ask(sizes[i / 2]);
        touch.write = i % 2 != 0;
        touch.how = 0;
        touch.end = i % 3 == 0;
        guards_expect(touch_it, &touch, SIGSEGV,
                      GUARDS_WORDS(WORD(touch.write), " after free at 0x",
                                   ": byte ", "  allocated by thread",
                                   "  freed by thread", "  touched by thread",
                                   "touches+0x", "touch_it"));
        touch.size = sizes[i / 2];
        touch.how = 1;
        touch.end = true;
        if (touch.size % 16 == 0 && !HAK_HARD) {
            guards_expect(touch_it, &touch, SIGSEGV,
                          GUARDS_WORDS(WORD(touch.write),
                                       " beyond a block at 0x",
                                       "1 byte past the end of a block of",
                                       "touches+0x"));
        }
        touch.how = 2;
        touch.end = false;
        guards_expect(touch_it, &touch, SIGSEGV,
                      GUARDS_WORDS(WORD(touch.write), " before a block at 0x",
                                   "1 byte before a block of", "touches+0x"));
    }
}

static void *touch_there(void *p)
{
    touches(p, true);
    return NULL;
}

static void touch_in_thread(void *arg)
{
    char *p;

    (void)arg;
    guards_on();
    p = guards_block(100);
    hak_free(p);
    unit_in_thread(touch_there, unit_pointer(p));
}

static void touch_in_child(void *arg)
{
    int status;
    char *p;

    (void)arg;
    guards_on();
    p = guards_block(100);
    if (fork() == 0) {
        hak_free(p);
        touches(unit_pointer(p), false);
        _exit(0);
    }
    wait(&status);
    p[0] = 1;
    hak_free(p);
    raise(WTERMSIG(status));
}

static void touch_realloced(void *arg)
{
    char *p, *q;

    (void)arg;
    guards_on();
    p = guards_block(100);
    q = hak_realloc(p, 3000);
    q[0] = 1;
    touches(unit_pointer(p), true);
}

static void touch_calloced(void *arg)
{
    char *p;

    (void)arg;
    guards_on();
    hak_free(guards_block(160));
    p = hak_calloc(10, 16);
    NEED(haki_guarded_covers(p));
    hak_free(p);
    touches(unit_pointer(p), true);
}

Test(fault, from_another_thread_a_child_after_realloc_and_calloc)
{
    unit_need_names();
    GUARDS_NEED_SIGSEGV();
    guards_expect(touch_in_thread, NULL, SIGSEGV,
                  GUARDS_WORDS(" after free", "touch_in_thread",
                               "touch_there"));
    guards_expect(touch_in_child, NULL, SIGSEGV,
                  GUARDS_WORDS(" after free", "touch_in_child"));
    guards_expect(touch_realloced, NULL, SIGSEGV,
                  GUARDS_WORDS(" after free", "hak_realloc",
                               "touch_realloced"));
    guards_expect(touch_calloced, NULL, SIGSEGV,
                  GUARDS_WORDS(" after free", "hak_calloc", "touch_calloced"));
}

/* ---- other faults, and handlers ------------------------------------------------- */

static sigjmp_buf back;
static int handled;
static void *seen;
static char *volatile elsewhere;

static void jumps(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    handled++;
    seen = info->si_addr;
    siglongjmp(back, 1);
}

static void jumps_plain(int number)
{
    (void)number;
    handled++;
    siglongjmp(back, 1);
}

static void handle(void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    NEED(sigaction(SIGSEGV, &action, NULL) == 0);
}

/* A page that the program keeps out itself. */
static void make_elsewhere(void)
{
    elsewhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(elsewhere != MAP_FAILED);
}

static void touch_and_jump(char *p)
{
    if (sigsetjmp(back, 1) == 0) {
        touches(unit_pointer(p), true);
        NEED(false);
    }
}

static void check_reports(const char *said, int reports)
{
    for (; (said = strstr(said, "hakmem: guard: ")) != NULL; said++) {
        reports--;
    }
    cr_assert_eq(reports, 0);
}

static void expect_ok_reports(void (*run)(void *), int reports)
{
    struct unit_child child;

    unit_child(&child, run, NULL);
    cr_assert(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0,
              "status %#x, said: %s", (unsigned)child.status, child.said);
    check_reports(child.said, reports);
}

static void handler_before(void *arg)
{
    char *p;

    (void)arg;
    handle(jumps, SA_SIGINFO);
    guards_on();
    for (int i = 1; i <= 3; i++) {
        p = guards_block(100);
        hak_free(p);
        touch_and_jump(p + 7);
        NEED(handled == i && seen == p + 7);
    }
    touch_and_jump(p + 7); /* it was reported */
    NEED(handled == 4);
}

static void handler_after(void *arg)
{
    char *p;

    (void)arg;
    guards_on();
    hak_free(guards_block(100));
    NEED(signal(SIGSEGV, jumps_plain) != SIG_ERR);
    p = guards_block(100);
    hak_free(p);
    touch_and_jump(p);
    NEED(handled == 1);
    if (HAK_HARD) { /* a block ends before its class does, at a guard of its own */
        return;
    }
    handle(jumps, SA_SIGINFO | SA_NODEFER | SA_RESETHAND);
    p = guards_block_at(4096, true);
    touch_and_jump(p + 4096);
    NEED(handled == 2 && seen == p + 4096);
    hak_free(p);
}

static void other_faults(void *arg)
{
    (void)arg;
    make_elsewhere();
    guards_on();
    handle(jumps, SA_SIGINFO);
    for (int i = 1; i <= 5; i++) {
        hak_free(guards_block(64));
        touch_and_jump(elsewhere);
        NEED(handled == i && seen == elsewhere);
        touch_and_jump(elsewhere); /* and while ours is not there */
        NEED(++handled != 0);
        handled -= 2;
    }
}

static void opens(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    handled++;
    seen = info->si_addr;
    NEED(mprotect(elsewhere, 4096, PROT_READ | PROT_WRITE) == 0);
}

static void other_handler_returns(void *arg)
{
    (void)arg;
    make_elsewhere();
    handle(opens, SA_SIGINFO);
    guards_on();
    hak_free(guards_block(64));
    touches(elsewhere, true);
    NEED(handled == 1 && *elsewhere == 1 && seen == elsewhere);
}

static struct sigaction found;

static void chains(int number, siginfo_t *info, void *context)
{
    handled++;
    if ((found.sa_flags & SA_SIGINFO) != 0) {
        found.sa_sigaction(number, info, context);
    }
}

/* A handler set after ours, which it finds, sees a touch after a free. */
static void touch_with(const struct sigaction *action)
{
    char *p;

    guards_on();
    hak_free(guards_block(100));
    NEED(sigaction(SIGSEGV, action, &found) == 0);
    p = guards_block(100);
    hak_free(p);
    touches(unit_pointer(p), true);
}

/* One that calls what it found: the end is by the signal. */
static void handler_that_chains(void *arg)
{
    struct sigaction action = {.sa_sigaction = chains, .sa_flags = SA_SIGINFO};

    (void)arg;
    touch_with(&action);
}

/* As Python's faulthandler: puts back what it found, and raises. */
static void restores(int number)
{
    handled++;
    NEED(handled < 3);
    sigaction(number, &found, NULL);
    raise(number);
}

static void handler_that_restores(void *arg)
{
    struct sigaction action = {.sa_handler = restores, .sa_flags = SA_NODEFER};

    (void)arg;
    touch_with(&action);
}

Test(fault, the_programs_handler_comes_after_the_report)
{
    GUARDS_NEED_SIGSEGV();
    expect_ok_reports(handler_before, 3);
    expect_ok_reports(handler_after, HAK_HARD ? 1 : 2);
    guards_expect(handler_that_chains, NULL, SIGSEGV,
                  GUARDS_WORDS(" after free"));
    guards_expect(handler_that_restores, NULL, SIGSEGV,
                  GUARDS_WORDS(" after free"));
}

static void other_fault_alone(void *arg)
{
    (void)arg;
    make_elsewhere();
    guards_on();
    hak_free(guards_block(64));
    touches(elsewhere, false);
}

static void sent(void *arg)
{
    (void)arg;
    guards_on();
    hak_free(guards_block(64));
    raise(SIGSEGV);
}

static void sent_and_handled(void *arg)
{
    (void)arg;
    handle(jumps, SA_SIGINFO);
    guards_on();
    hak_free(guards_block(64));
    if (sigsetjmp(back, 1) == 0) {
        kill(getpid(), SIGSEGV);
        NEED(false);
    }
    NEED(handled == 1);
}

static void expect_quiet_death(void (*run)(void *))
{
    struct unit_child child;

    unit_child(&child, run, NULL);
    check_reports(child.said, 0);
    cr_assert(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGSEGV,
              "status %#x: %s", (unsigned)child.status, child.said);
}

Test(fault, other_faults_are_the_programs)
{
    GUARDS_NEED_SIGSEGV();
    expect_ok_reports(other_faults, 0);
    expect_ok_reports(other_handler_returns, 0);
    expect_ok_reports(sent_and_handled, 0);
    expect_quiet_death(other_fault_alone);
    expect_quiet_death(sent);
}

/* ---- on and off ------------------------------------------------------------------ */

static void on_and_off(void *arg)
{
    struct sigaction before, now;

    (void)arg;
    handle(jumps, SA_SIGINFO);
    sigaction(SIGSEGV, NULL, &before);
    for (int i = 0; i < 3; i++) {
        guards_on();
        hak_free(guards_block(64));
        sigaction(SIGSEGV, NULL, &now);
        NEED(now.sa_sigaction != before.sa_sigaction);
        hak_guard_stop();
        NEED(hak_guard_rate() == 0);
        sigaction(SIGSEGV, NULL, &now);
        NEED(now.sa_sigaction == before.sa_sigaction &&
             now.sa_flags == before.sa_flags);
    }
}

Test(fault, off_puts_back_what_was_there)
{
    GUARDS_NEED_SIGSEGV();
    expect_ok_reports(on_and_off, 0);
}

/* A small stack for signals is enough. */
static void on_a_small_stack(void *arg)
{
    static char stack[16384];
    stack_t small = {.ss_sp = stack, .ss_size = sizeof(stack)};
    char *p;

    (void)arg;
    NEED(sigaltstack(&small, NULL) == 0);
    handle(jumps, SA_SIGINFO | SA_ONSTACK);
    guards_on();
    p = guards_block(100);
    hak_free(p);
    touch_and_jump(p);
    NEED(handled == 1);
}

Test(fault, on_a_stack_of_the_programs)
{
    GUARDS_NEED_SIGSEGV();
    expect_ok_reports(on_a_small_stack, 1);
}
