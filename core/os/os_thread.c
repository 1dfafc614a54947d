/*
 * os_thread.c - a thread of our own, and whether another one sleeps: Linux.
 *
 * pthread_create would allocate, and would take locks of the C library that a
 * caller of free may hold (glibc frees the memory of ended threads under the
 * lock of its stacks). So the thread is made with clone, and the C library does
 * not know it. It needs little from the C library: `errno` and the words that
 * the compiler's stack protector reads. It gets them from thread-local memory
 * of its own, laid out like the starting thread's.
 *
 *     | guard | stack ........ | locals below | thread pointer | locals above |
 *
 * Tested by tests/unit/upkeep/background.c and tests/unit/heap/lend.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os/os.h"

#define STACK (64 * HAK_KIB)
/*
 * Room for what the C library has around the thread pointer, beside our locals.
 */
#define AROUND (2 * HAK_PAGE)
/*
 * Some programs have large thread-local arrays; untouched pages cost nothing.
 */
#define LOCALS_MOST (512 * HAK_MIB)

/* Signal masks as the kernel has them. */
#define MASK_BYTES 8

#if defined(HAK_TSAN) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

/* ---- waiting on a word ----------------------------------------------------- */

void haki_os_wait(_Atomic(uint32_t) *word, uint32_t seen, uint32_t milliseconds)
{
    struct timespec limit = {.tv_sec = milliseconds / 1000,
                             .tv_nsec = milliseconds % 1000 * 1000000L};
    int saved = errno;

    syscall(SYS_futex, word, HAK_FUTEX_WAIT, seen, &limit, NULL, 0);
    errno = saved;
}

void haki_os_wake(_Atomic(uint32_t) *word)
{
    int saved = errno;

    syscall(SYS_futex, word, HAK_FUTEX_WAKE, 1, NULL, NULL, 0);
    errno = saved;
}

/* ---- a fence in other threads ------------------------------------------------- */

/* The kernel's values; not every C library has its headers. */
enum { PRIVATE_EXPEDITED = 8, REGISTER_PRIVATE_EXPEDITED = 16 };

static bool os_membarrier(int command)
{
    int saved = errno;
    bool ok = syscall(SYS_membarrier, command, 0, 0) == 0;

    errno = saved;
    return ok;
}

bool haki_os_fence_begin(void)
{
    return os_membarrier(REGISTER_PRIVATE_EXPEDITED);
}

bool haki_os_fence(void)
{
    return os_membarrier(PRIVATE_EXPEDITED);
}

/* ---- starting ---------------------------------------------------------------- */

int32_t haki_os_thread_id(void)
{
    return (int32_t)syscall(SYS_gettid);
}

/* No signal may be handled in that thread. */
static void os_block_signals(uint64_t *before)
{
    uint64_t all = UINT64_MAX;

    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, before, MASK_BYTES);
}

uint64_t haki_os_blocked_signals(void)
{
    uint64_t now = UINT64_MAX;

    syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &now, MASK_BYTES);
    return now;
}

static int os_begin(void *arg)
{
    const struct hak_os_thread *thread = arg;

    uselocale(LC_GLOBAL_LOCALE); /* even strtoul needs a locale */
    prctl(PR_SET_NAME, thread->name);
    thread->run();
    return 0;
}

#ifdef SANITIZED
/*
 * Sanitizers have locals of their own in every thread: there a real thread is
 * used.
 */
static void *os_begin_checked(void *arg)
{
    struct hak_os_thread *thread = arg;

    os_begin(thread);
    atomic_store(&thread->id, 0);
    haki_os_wake(&thread->id);
    return NULL;
}

static bool os_start(struct hak_os_thread *thread, void *const *locals,
                     size_t count)
{
    pthread_attr_t detached;
    pthread_t made;
    bool ok;

    (void)locals;
    (void)count;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    atomic_store(&thread->id, UINT32_MAX);
    ok = pthread_create(&made, &detached, os_begin_checked, thread) == 0;
    if (!ok) {
        atomic_store(&thread->id, 0);
    }
    pthread_attr_destroy(&detached);
    return ok;
}
#else

#if defined(__x86_64__)
static uintptr_t os_thread_pointer(void)
{
    uintptr_t tp;

    __asm__("mov %%fs:0, %0" : "=r"(tp));
    return tp;
}

/*
 * The words of the thread's head that point to itself, and the secrets of both
 * protectors.
 */
static void os_make_head(uintptr_t *tp, const uintptr_t *from)
{
    tp[0] = tp[2] = (uintptr_t)tp;
    tp[5] = from[5];
    tp[6] = from[6];
}
#elif defined(__aarch64__)
static uintptr_t os_thread_pointer(void)
{
    uintptr_t tp;

    __asm__("mrs %0, tpidr_el0" : "=r"(tp));
    return tp;
}

static void os_make_head(uintptr_t *tp, const uintptr_t *from)
{
    (void)tp;
    (void)from;
}
#else
#error "say here where the thread pointer is: see docs"
#endif

/* How far the locals reach on both sides of the thread pointer. */
static bool os_measure(void *const *locals, size_t count, size_t *below,
                       size_t *above)
{
    uintptr_t tp = os_thread_pointer();

    *below = *above = AROUND;
    for (size_t i = 0; i <= count; i++) {
        uintptr_t at = (uintptr_t)(i < count ? locals[i] : (void *)&errno);

        if (at < tp) {
            *below = haki_max(*below, tp - at + AROUND);
        } else {
            *above = haki_max(*above, at - tp + AROUND);
        }
    }
    *below = haki_round_up(*below, HAK_PAGE);
    *above = haki_round_up(*above, HAK_PAGE);
    return *below + *above <= LOCALS_MOST;
}

/*
 * Maps its memory, all zero except the stack, which begins at its guard page.
 * It is kept for the next start.
 */
static bool os_map_once(struct hak_os_thread *thread, size_t locals)
{
    const size_t guard = haki_os_page_size(), stack = guard + STACK;

    if (thread->memory == NULL) {
        thread->memory = haki_os_map(stack + locals);
        if (thread->memory == NULL) {
            return false;
        }
        haki_os_name(thread->memory, stack + locals, "hakmem thread");
        (void)mprotect(thread->memory, guard, PROT_NONE);
    } else if (!haki_os_purge((char *)thread->memory + stack, locals)) {
        memset((char *)thread->memory + stack, 0, locals);
    }
    return true;
}

static bool os_start(struct hak_os_thread *thread, void *const *locals,
                     size_t count)
{
    const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
                      CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                      CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
    size_t below, above;
    char *stack_end;
    uintptr_t *tp;

    if (!os_measure(locals, count, &below, &above) ||
        !os_map_once(thread, below + above)) {
        return false;
    }
    stack_end = (char *)thread->memory + haki_os_page_size() + STACK;
    tp = (uintptr_t *)(void *)(stack_end + below);
    os_make_head(tp, (const uintptr_t *)os_thread_pointer());
    return clone(os_begin, stack_end, flags, thread, &thread->id, tp,
                 &thread->id) > 0;
}
#endif

HAK_COLD bool haki_os_thread_start(struct hak_os_thread *thread,
                                   void *const *locals, size_t count)
{
    int saved = errno;
    uint64_t signals;
    bool ok;

    os_block_signals(&signals);
    ok = os_start(thread, locals, count);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &signals, NULL, MASK_BYTES);
    errno = saved;
    return ok;
}

bool haki_os_thread_wait(struct hak_os_thread *thread, uint32_t milliseconds)
{
    uint64_t until = haki_os_clock() + milliseconds * UINT64_C(1000000);
    uint32_t id = atomic_load(&thread->id), now = id;
    int saved = errno;

    while (now != 0 && haki_os_clock() < until) {
        haki_os_wait(&thread->id, now, milliseconds);
        now = atomic_load(&thread->id);
    }
    /* It is counted among the process's threads for a moment longer. */
    while (now == 0 && id != 0 && id != UINT32_MAX &&
           syscall(SYS_tgkill, getpid(), id, 0) == 0 &&
           haki_os_clock() < until) {
        sched_yield();
    }
    errno = saved;
    return now == 0;
}

/* ---- whether a thread sleeps ----------------------------------------------- */

/*
 * The system calls in which threads wait for something that is not ours. For
 * each: which of its arguments is a signal mask in force meanwhile, or NO_MASK.
 */
#define NO_MASK (-1)

static int os_mask_argument(long call)
{
    switch (call) {
#ifdef SYS_poll
    case SYS_poll:
    case SYS_select:
    case SYS_epoll_wait:
    case SYS_pause:
#endif
    case SYS_read:
    case SYS_readv:
    case SYS_write:
    case SYS_writev:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_accept:
    case SYS_accept4:
    case SYS_connect:
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_futex:
    case SYS_wait4:
    case SYS_waitid:
    case SYS_flock:
    case SYS_fcntl:
    case SYS_msgrcv:
    case SYS_semop:
    case SYS_semtimedop:
    case SYS_io_getevents:
    case SYS_rt_sigtimedwait: return NO_MASK;
    case SYS_ppoll: return 3;
    case SYS_epoll_pwait: return 4;
    case SYS_pselect6: return 5;
    default: return -2;
    }
}

static atomic_uint os_reading; /* threads */

bool haki_os_any_reads(void)
{
    return atomic_load(&os_reading) != 0;
}

long haki_os_read(int fd, void *bytes, size_t size)
{
    long n;

    atomic_fetch_add(&os_reading, 1);
    n = syscall(SYS_read, fd, bytes, size);
    atomic_fetch_sub(&os_reading, 1);
    return n;
}

size_t haki_os_read_file(const char *path, char *text, size_t size)
{
    int saved = errno, fd;
    long n = 0;

    fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = haki_os_read(fd, text, size - 1);
        syscall(SYS_close, fd);
    }
    errno = saved;
    n = n > 0 ? n : 0;
    text[n] = '\0';
    return (size_t)n;
}

/* The path of a file about a thread of this process. */
static void os_thread_path(char *path, int32_t id, const char *file)
{
    char digits[12];
    size_t n = 0;

    do {
        digits[n++] = (char)('0' + id % 10);
        id /= 10;
    } while (id > 0);
    path = stpcpy(path, "/proc/self/task/");
    while (n > 0) {
        *path++ = digits[--n];
    }
    *path++ = '/';
    strcpy(path, file);
}

#define PATH_BYTES 64

/*
 * The file says "running", or the number of the system call, or -1, and its six
 * arguments. That describes one moment at which the thread was on no processor.
 */
static bool os_is_waiting(int32_t id)
{
    char path[PATH_BYTES], text[256];
    char *at = text;
    long call;
    int mask;

    os_thread_path(path, id, "syscall");
    if (haki_os_read_file(path, text, sizeof(text)) == 0 || text[0] < '0' ||
        text[0] > '9') {
        return false;
    }
    call = strtol(at, &at, 10);
    mask = os_mask_argument(call);
    for (int i = 0; i < mask; i++) {
        (void)strtoul(at, &at, 16);
    }
    return mask == NO_MASK || (mask >= 0 && strtoul(at, &at, 16) == 0);
}

/* What a thread's status file says, as far as it matters here. */
struct status {
    uint64_t blocked, ignored, caught; /* signals */
    uint64_t
        switches; /* how often it has left a processor; all ones: unknown */
};

/* The number behind a name; all ones: there is none. */
static uint64_t os_number_of(const char *text, const char *name, int base)
{
    const char *at = strstr(text, name);

    return at != NULL ? strtoull(at + strlen(name), NULL, base) : UINT64_MAX;
}

/*
 * Large enough for a machine with many processors and memory nodes. Not on the
 * stack: threads with small stacks come here from free.
 */
static char os_text[8192];

/*
 * Whether the file describes the thread whose own id is `id`. /proc may belong
 * to another namespace, where threads have other numbers: the last number is
 * its own.
 */
static bool os_is_about(int32_t id)
{
    const char *at = strstr(os_text, "\nNSpid:");
    int32_t last = id;

    if (at != NULL) {
        for (at += strlen("\nNSpid:"); *at == '\t';) {
            last = (int32_t)strtol(at, (char **)&at, 10);
        }
    }
    return last == id;
}

/* False: it can't be read, or describes another thread. */
static bool os_read_status(int32_t id, struct status *status)
{
    char path[PATH_BYTES];
    uint64_t willing, forced;

    os_thread_path(path, id, "status");
    if (haki_os_read_file(path, os_text, sizeof(os_text)) == 0 ||
        !os_is_about(id)) {
        return false;
    }
    status->blocked = os_number_of(os_text, "SigBlk:", 16);
    status->ignored = os_number_of(os_text, "SigIgn:", 16);
    status->caught = os_number_of(os_text, "SigCgt:", 16);
    willing = os_number_of(os_text, "\nvoluntary_ctxt_switches:", 10);
    forced = os_number_of(os_text, "\nnonvoluntary_ctxt_switches:", 10);
    status->switches = willing != UINT64_MAX && forced != UINT64_MAX
                           ? willing + forced
                           : UINT64_MAX;
    return true;
}

static uint64_t os_bit_of(int number)
{
    return (uint64_t)1 << (number - 1);
}

/* Signals caused by what the thread itself does. */
static uint64_t os_faults(void)
{
    return os_bit_of(SIGSEGV) | os_bit_of(SIGBUS) | os_bit_of(SIGILL) |
           os_bit_of(SIGFPE) | os_bit_of(SIGTRAP) | os_bit_of(SIGSYS) |
           os_bit_of(SIGABRT);
}

/*
 * Whether a handler may run that does not block its signal. Handlers that are
 * no longer set up count too, since one that runs may have been set up for one
 * time only (sysv_signal); its flags remain.
 */
static bool os_any_open(void)
{
    /* The kernel's struct, the same on every processor that we know. */
    struct {
        uintptr_t handler;
        unsigned long flags;
        uintptr_t restorer;
        uint64_t mask;
    } action;

    for (int n = 1; n <= 64; n++) {
        if ((os_faults() & os_bit_of(n)) == 0 &&
            (syscall(SYS_rt_sigaction, n, NULL, &action, MASK_BYTES) != 0 ||
             (action.flags & SA_NODEFER) != 0)) {
            return true;
        }
    }
    return false;
}

/*
 * Whether the thread may be in a signal handler. While one runs its signal is
 * blocked, unless it was set up otherwise; signals that the thread has blocked
 * from the start, or that are ignored, tell nothing.
 */
static bool os_may_handle(const struct status *status, uint64_t blocked_before)
{
    uint64_t blocked = status->blocked & ~blocked_before;

    return (blocked & (~status->ignored | status->caught)) != 0 ||
           os_any_open();
}

/* The thread sanitizer does not know that a sleeping thread does nothing. */
#ifdef HAK_TSAN
enum { SEES = false };
#else
enum { SEES = true };
#endif

/*
 * The kernel counts how often a thread leaves its processor. So if it is seen
 * asleep, and that count has not changed since it was first read, it has slept
 * all the time, and what was read in between (the mask, and what `calm` reads)
 * was read while it slept. (The count comes after the mask in the same file:
 * reading both at once does not order them.)
 */
bool haki_os_thread_waits(int32_t id, uint64_t blocked_before,
                          bool (*calm)(void *arg), void *arg)
{
    struct status first, status, later;
    int saved = errno;
    bool waits = false;

    if (!SEES || id <= 0) {
        return false;
    }
    if (os_read_status(id, &first) && os_read_status(id, &status) &&
        !os_may_handle(&status, blocked_before) && calm(arg) &&
        os_is_waiting(id) && os_read_status(id, &later)) {
        waits =
            first.switches != UINT64_MAX && later.switches == first.switches;
    }
    errno = saved;
    return waits;
}
