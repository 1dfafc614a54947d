/*
 * fault.c - the handler of SIGSEGV: see fault.h.
 *
 * Tested by tests/unit/profile/fault.c.
 */
#include "profile/fault.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "profile/blame.h"

/* Changed under the profile's lock. */
static bool fault_on;
static struct sigaction fault_before; /* what was there first of all */

/* What was there when ours was last set: the one of the two that `round` names. Rounds
 * begin at 1. */
static struct sigaction fault_theirs[2];
static _Atomic(unsigned) fault_round;

/* The round in which the thread was sent on to theirs. */
static __thread unsigned fault_sent __attribute__((tls_model("initial-exec")));

static void fault_happened(int number, siginfo_t *info, void *context);

static bool fault_is_ours(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) != 0 &&
           action->sa_sigaction == fault_happened;
}

/* ---- what was touched -------------------------------------------------------------- */

#if defined(__x86_64__)

static uintptr_t fault_pc(const ucontext_t *context)
{
    return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
}

static const char *fault_access(const ucontext_t *context)
{
    return (context->uc_mcontext.gregs[REG_ERR] & 2) != 0 ? "write" : "read";
}

#elif defined(__aarch64__)

static uintptr_t fault_pc(const ucontext_t *context)
{
    return (uintptr_t)context->uc_mcontext.pc;
}

/* The record of the kernel's that has the syndrome register: its bit 6 is "write". */
#define FAULT_ESR UINT32_C(0x45535201)
static const char *fault_access(const ucontext_t *context)
{
    const unsigned char *at = context->uc_mcontext.__reserved;
    const unsigned char *end = at + sizeof(context->uc_mcontext.__reserved);
    uint32_t head[2];
    uint64_t esr;

    for (; at + 16 <= end; at += head[1]) {
        memcpy(head, at, sizeof(head));
        if (head[0] == FAULT_ESR) {
            memcpy(&esr, at + 8, sizeof(esr));
            return (esr >> 6 & 1) != 0 ? "write" : "read";
        }
        if (head[0] == 0 || head[1] < 8) {
            break;
        }
    }
    return "touch";
}

#else

static uintptr_t fault_pc(const ucontext_t *context)
{
    (void)context;
    return 0;
}

static const char *fault_access(const ucontext_t *context)
{
    (void)context;
    return "touch";
}

#endif

/* ---- the program's own way ---------------------------------------------------------- */

/* Puts the action in our place; a signal that was sent comes again. */
static void fault_send_on(const struct sigaction *action, siginfo_t *info)
{
    sigaction(SIGSEGV, action, NULL);
    if (info->si_code <= 0 &&
        syscall(SYS_rt_tgsigqueueinfo, getpid(), (pid_t)syscall(SYS_gettid),
                SIGSEGV, info) != 0) {
        raise(SIGSEGV);
    }
}

static void fault_happened(int number, siginfo_t *info, void *context)
{
    unsigned round = atomic_load(&fault_round);
    int saved = errno;
    struct hak_guarded *slot = NULL;

    (void)number;
    if (info->si_code > 0 && haki_guarded_covers(info->si_addr)) {
        slot = haki_guarded_near(info->si_addr);
    }
    if (slot != NULL) {
        haki_blame_touch(slot, info->si_addr, fault_pc(context),
                         fault_access(context));
    }
    if (fault_sent == round) {
        fault_send_on(&fault_before, info);
    } else {
        fault_sent = round;
        fault_send_on(&fault_theirs[round % 2], info);
    }
    errno = saved;
}

/* ---- on and off --------------------------------------------------------------------- */

/* Ours takes the place of what is set. */
static void fault_take_place(const struct sigaction *theirs)
{
    unsigned round = atomic_load(&fault_round) + 1;
    struct sigaction ours;

    memset(&ours, 0, sizeof(ours));
    ours.sa_sigaction = fault_happened;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    fault_theirs[round % 2] = *theirs;
    atomic_store(&fault_round, round);
    sigaction(SIGSEGV, &ours, NULL);
}

void haki_fault_check(void)
{
    struct sigaction now;

    if (fault_on && sigaction(SIGSEGV, NULL, &now) == 0 &&
        !fault_is_ours(&now)) {
        fault_take_place(&now);
    }
}

void haki_fault_begin(void)
{
    struct sigaction now;

    if (!fault_on && sigaction(SIGSEGV, NULL, &now) == 0) {
        fault_on = true;
        if (!fault_is_ours(&now)) { /* else a handler has put it back */
            fault_before = now;
            fault_take_place(&now);
        }
    }
}

void haki_fault_end(void)
{
    struct sigaction now;

    if (fault_on && sigaction(SIGSEGV, NULL, &now) == 0 &&
        fault_is_ours(&now)) {
        sigaction(SIGSEGV, &fault_theirs[atomic_load(&fault_round) % 2], NULL);
    }
    fault_on = false;
}
