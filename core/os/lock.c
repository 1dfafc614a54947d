/*
 * lock.c - locks: waiting, ghosts, and how a process gets its number.
 */
#include "os/lock.h"

#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/msg.h"
#include "os/os.h"

/* Set by the C library while no second thread was started; glibc 2.32. */
#ifdef HAKI_OLDEST_GLIBC
static const char *lock_single; /* where it is, NULL: nowhere */

__attribute__((constructor)) static void lock_find_single(void)
{
    lock_single = dlsym(RTLD_DEFAULT, "__libc_single_threaded");
}
#else
extern char __libc_single_threaded __attribute__((weak));
#define lock_single (&__libc_single_threaded)
#endif

/* The number of a process while one of its threads is drawing it. */
#define DRAWING UINT64_MAX

/* Used where there is no page that the kernel wipes. */
static struct hak_process lock_plain = {.number = HAK_LOCK_ALONE + 1};

_Atomic(struct hak_process *) haki_process = &lock_plain;

__thread struct hak_lock_self haki_lock_self
    __attribute__((tls_model("initial-exec"))) = {.process = HAK_LOCK_ALONE};

static _Atomic(uint64_t) lock_drawn = HAK_LOCK_ALONE + 1; /* the last number */
static _Atomic(uint64_t) lock_first = HAK_LOCK_ALONE + 1; /* this process's */
static atomic_bool lock_refused;                          /* the page */

/* There is or was a thread that the C library does not know of. */
static atomic_bool lock_not_alone;

atomic_bool haki_lock_entered;
static _Atomic(uint32_t) lock_company = HAK_LOCK_CROWD;
static atomic_bool lock_no_fence; /* it was refused */

static atomic_uint lock_waiting; /* the sum of haki_lock_self.waits */

/* The thread that forked, if `lock_forked_to` is this process's number. */
static _Atomic(uint64_t) lock_forker, lock_forked_to;

static uint64_t lock_draw(void)
{
    return atomic_fetch_add(&lock_drawn, 1) + 1;
}

bool haki_lock_is_ghost(uint64_t number)
{
    uint64_t process = atomic_load(&lock_first);

    return number < process && (atomic_load(&lock_forked_to) != process ||
                                atomic_load(&lock_forker) != number);
}

/* ---- a process's number -------------------------------------------------- */

/*
 * Nobody has noticed yet that this is a new process. One thread draws its
 * number, the others wait. A signal handler may fork in the middle of this: in
 * that child the page is wiped again, and either `lock_first` says that it has
 * a number or the page says that it has none; in both cases the caller looks
 * again.
 */
static void lock_process_begins(struct hak_process *process)
{
    uint64_t before = atomic_load(&lock_first);
    uint64_t seen = 0;
    uint64_t number;

    if (!atomic_compare_exchange_strong(&process->number, &seen, DRAWING)) {
        if (seen == DRAWING) {
            sched_yield();
        }
        return;
    }
    number = lock_draw();
    HAK_ASSERT(number > before); /* than those of all earlier threads */
    if (atomic_compare_exchange_strong(&lock_first, &before, number)) {
        seen = DRAWING;
        atomic_store(&process->pid, getpid());
        atomic_compare_exchange_strong(&process->number, &seen, number);
    }
}

#ifdef HAK_TESTING
static atomic_bool
    lock_test_only; /* as if it were so, for tests that include this file */
#endif

/* Whether the C library knows of only one thread. */
static bool lock_is_only(void)
{
#ifdef HAK_TESTING
    if (atomic_load(&lock_test_only)) {
        return true;
    }
#endif
    return lock_single != NULL && *lock_single != 0;
}

static bool lock_is_single(void)
{
    return lock_is_only() &&
           !atomic_load_explicit(&lock_not_alone, memory_order_relaxed);
}

/* Whether the calling thread is the only one apart from the stranger. */
static bool lock_is_only_with_stranger(void)
{
    return atomic_load_explicit(&lock_company, memory_order_relaxed) !=
               HAK_LOCK_CROWD &&
           lock_is_only() && !haki_lock_self.stranger;
}

/* Whether no other thread can hold or want a lock. */
static bool lock_is_alone(void)
{
    return atomic_load_explicit(&haki_process, memory_order_relaxed) ==
               &lock_plain &&
           !atomic_load_explicit(&lock_refused, memory_order_relaxed) &&
           lock_is_single();
}

/*
 * There are threads: from here on the number is kept in the page that is wiped.
 */
static void lock_use_page(uint64_t number)
{
    struct hak_process *page = haki_os_map_wiped(sizeof(*page));
    struct hak_process *expected = &lock_plain;

    if (page == NULL) {
        atomic_store(&lock_refused, true);
        return;
    }
    atomic_store(&page->number, number);
    atomic_store(&page->pid, getpid());
    if (!atomic_compare_exchange_strong(&haki_process, &expected, page)) {
        haki_os_unmap(page, sizeof(*page));
    }
}

/* Takes one step towards numbers; true: thread and process have them. */
static bool lock_begins(void)
{
    struct hak_process *process = atomic_load(&haki_process);
    uint64_t number = atomic_load(&process->number);
    bool alone = process == &lock_plain && !atomic_load(&lock_refused);

    if (number == 0 || number == DRAWING) {
        lock_process_begins(process);
        return false;
    }
    if (alone && !lock_is_single()) {
        lock_use_page(number);
        return false;
    }
    if (haki_lock_self.number == 0) {
        haki_lock_self.number = lock_draw();
    } else if (haki_lock_self.number < number) {
        atomic_store(&lock_forker, haki_lock_self.number);
        atomic_store(&lock_forked_to, number);
    }
    haki_lock_self.seen = number;
    /*
     * A thread that is alone comes here each time, to check that it still is.
     */
    haki_lock_self.process =
        alone || lock_is_only_with_stranger() ? HAK_LOCK_ALONE : number;
    return true;
}

static void lock_begin(void)
{
    while (!lock_begins()) {
    }
}

uint64_t haki_lock_number(void)
{
    if (haki_lock_self.number == 0) {
        lock_begin();
    }
    return haki_lock_self.number;
}

void haki_lock_forked(void)
{
    struct hak_process *process = atomic_load(&haki_process);
    uint64_t number = atomic_load(&process->number);

    uint32_t together = HAK_LOCK_TOGETHER;

    atomic_store(&lock_waiting, haki_lock_self.waits); /* ghosts wait no more */
    atomic_compare_exchange_strong(&lock_company, &together, HAK_LOCK_APART);
    /* Not wiped although the kernel promised to: some emulators ignore it. */
    if (process == &lock_plain || (number != 0 && number != DRAWING &&
                                   atomic_load(&process->pid) != getpid())) {
        number = lock_draw();
        atomic_store(&lock_first, number);
        atomic_store(&process->pid, getpid());
        atomic_store(&process->number, number);
    }
    if (haki_lock_self.number != 0) {
        lock_begin();
    }
}

/* ---- waiting --------------------------------------------------------------- */

/* The half of the word that contains the lowest bit; a futex has 32 bits. */
static uint32_t *lock_futex_of(hak_lock *lock)
{
    return (uint32_t *)(void *)&lock->word +
           (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

/* Before and after a system call about a lock. */
static void lock_wait_begins(void)
{
    haki_lock_self.waits++;
    atomic_fetch_add(&lock_waiting, 1);
}

static void lock_wait_ends(void)
{
    atomic_fetch_sub(&lock_waiting, 1);
    haki_lock_self.waits--;
}

/*
 * Sleeps while the word is unchanged, with a timeout. A signal handler that
 * forks in here returns, in the child, to a lock from which nobody will wake
 * it. Without a timeout the kernel would restart the call after the handler;
 * with one the call ends, and the caller looks again.
 */
static void lock_sleep_on(hak_lock *lock, uint64_t word)
{
    struct timespec limit = {.tv_sec = 1};

    lock_wait_begins();
    HAK_ASSERT((word & 1) != 0); /* otherwise nobody wakes us */
    syscall(SYS_futex, lock_futex_of(lock), HAK_FUTEX_WAIT | HAK_FUTEX_PRIVATE,
            (uint32_t)word, &limit, NULL, 0);
    lock_wait_ends();
}

bool haki_lock_any_waits(void)
{
    return atomic_load(&lock_waiting) != 0;
}

void haki_lock_wake(hak_lock *lock)
{
    int saved = errno;

    lock_wait_begins();
    syscall(SYS_futex, lock_futex_of(lock), HAK_FUTEX_WAKE | HAK_FUTEX_PRIVATE,
            1, NULL, NULL, 0);
    lock_wait_ends();
    errno = saved;
}

/*
 * One attempt. *waited: others may be asleep. *ghost: the lock needs mending.
 */
static bool lock_try_take(hak_lock *lock, bool *waited, bool *ghost)
{
    uint64_t word = atomic_load_explicit(&lock->word, memory_order_acquire);
    uint64_t mine = haki_lock_self.number << 1;

    *ghost = word != 0 && haki_lock_is_ghost(word >> 1);
    if (word == 0 || *ghost) {
        return atomic_compare_exchange_strong_explicit(&lock->word, &word,
                                                       mine | *waited,
                                                       memory_order_acq_rel,
                                                       memory_order_relaxed);
    }
    if (word >> 1 == haki_lock_self.number) {
        haki_fatal("a signal's handler asked for memory while its thread was "
                   "being served");
    }
    if ((word & 1) != 0 ||
        atomic_compare_exchange_strong_explicit(&lock->word, &word, word | 1,
                                                memory_order_relaxed,
                                                memory_order_relaxed)) {
        lock_sleep_on(lock, word | 1);
        *waited = true;
    }
    return false;
}

/* Whether the process is the one in which the calling thread took its last lock. */
static bool lock_is_known(void)
{
    const struct hak_process *process =
        atomic_load_explicit(&haki_process, memory_order_relaxed);

    return haki_lock_self.number != 0 &&
           haki_lock_self.seen ==
               atomic_load_explicit(&process->number, memory_order_relaxed);
}

static bool lock_is_apart(void)
{
    return atomic_load_explicit(&lock_company, memory_order_acquire) ==
           HAK_LOCK_APART;
}

/* The only thread, which holds no lock yet, enters; false: it can't. */
static bool lock_enter(void)
{
    if (haki_lock_self.held != 1 || !lock_is_only_with_stranger() ||
        !lock_is_apart() || !lock_is_known()) {
        return false;
    }
    HAK_POINT("enter");
    atomic_store_explicit(&haki_lock_entered, true, memory_order_relaxed);
    haki_lock_step(); /* the stranger's fence does the rest */
    HAK_POINT("entered");
    if (!lock_is_apart()) {
        atomic_store_explicit(&haki_lock_entered, false, memory_order_release);
        return false;
    }
    return true;
}

/*
 * The path of a program with one thread, to which a lock costs no atomic
 * operation.
 */
static bool lock_take_alone(hak_lock *lock)
{
    HAK_ASSERT(haki_lock_self.held > 0);
    if (atomic_load_explicit(&lock->word, memory_order_relaxed) != 0 ||
        (haki_lock_self.alone == 0 &&
         !(lock_is_alone() && haki_lock_self.number != 0) && !lock_enter())) {
        return false;
    }
    haki_lock_self.alone++;
    haki_lock_step();
    atomic_store_explicit(&lock->word, haki_lock_self.number << 1,
                          memory_order_relaxed);
    return true;
}

void haki_lock_take_slow(hak_lock *lock)
{
    bool waited = false, ghost;
    int saved;

    if (lock_take_alone(lock)) {
        return;
    }
    saved = errno;
    do {
        lock_begin();
    } while (!lock_try_take(lock, &waited, &ghost));
    HAK_ASSERT(haki_lock_mine(lock));
    /* Usually a ghost's lock: it is dropped along with those taken alone. */
    haki_lock_self.alone += haki_lock_self.alone != 0;
    if (ghost && lock->mend != NULL) {
        lock->mend();
    }
    errno = saved;
}

/* ---- the stranger ------------------------------------------------------------ */

void haki_lock_not_alone(void)
{
    bool knows =
        lock_is_only() && !atomic_load(&lock_no_fence) && haki_os_fence_begin();

    atomic_store(&lock_not_alone, true);
    atomic_store(&lock_company, knows ? HAK_LOCK_APART : HAK_LOCK_CROWD);
}

void haki_lock_begin_stranger(void)
{
    haki_lock_self =
        (struct hak_lock_self){.process = HAK_LOCK_ALONE, .stranger = true};
}

/*
 * Once there are other threads nobody enters again: one more fence is the last.
 */
enum hak_lock_joined haki_lock_join(void)
{
    bool only = lock_is_only();

    if (atomic_load(&lock_company) == HAK_LOCK_CROWD) {
        return HAK_LOCK_JOINED;
    }
    atomic_store(&lock_company, HAK_LOCK_TOGETHER);
    HAK_POINT("join");
    if (!haki_os_fence()) {
        atomic_store(&lock_no_fence, true);
        return HAK_LOCK_NEVER;
    }
    if (atomic_load(&haki_lock_entered)) {
        return HAK_LOCK_WAIT;
    }
    if (!only) {
        atomic_store(&lock_company, HAK_LOCK_CROWD);
    }
    return HAK_LOCK_JOINED;
}

void haki_lock_part(void)
{
    uint32_t together = HAK_LOCK_TOGETHER;

    atomic_compare_exchange_strong(&lock_company, &together, HAK_LOCK_APART);
}

bool haki_lock_settle(hak_lock *lock)
{
    if (haki_lock_mine(lock)) {
        return false;
    }
    if (atomic_load(&lock->word) != 0) {
        haki_lock_take(lock);
        haki_lock_drop(lock);
    }
    return true;
}

void haki_lock_not_held(const char *where)
{
    haki_fatal("%s: its lock is not held", where);
}

#ifdef HAK_TESTING
_Atomic(void (*)(const char *name)) haki_test_meet;

void haki_test_point(const char *name)
{
    void (*meet)(const char *) = atomic_load(&haki_test_meet);

    if (meet != NULL) {
        meet(name);
    }
}
#endif
