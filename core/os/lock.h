/*
 * lock.h - locks that know their holder, and what a fork does to them.
 *
 * A fork may happen while other threads hold locks of ours. We neither wait for
 * them nor hold our locks across the fork: glibc's own locks and other
 * libraries' fork handlers come in between, and that would deadlock with a
 * thread that holds one of theirs and waits for one of ours. So a child may
 * find a lock held by a *ghost*, a thread that does not exist there, stopped at
 * any instruction. The child takes the lock over and calls its `mend`, which
 * repairs what the lock guards. A pthread_mutex would not do: its holder can't
 * be read in one atomic operation.
 *
 * The lock's word is 0, or the holder's number times 2, plus 1 if somebody may
 * be asleep. Threads and processes draw their numbers from one counter, which a
 * child continues. (64 bits: 31 are used up in a month by a server that starts
 * 1000 threads a second.) Every process has a number larger than those of all
 * threads that its ancestors had up to the fork, and smaller than those of the
 * threads that it starts itself. Hence:
 *
 *     a holder is a ghost if its number is less than the process's, unless it
 *     is the thread that forked, which has brought its number along.
 *
 * That thread may hold a lock itself (a signal handler forked inside a slow
 * path of ours) and carries on with what it was doing. Nobody takes its lock
 * over.
 *
 * How a child notices that it is one: the process's number is kept in a page
 * that the kernel wipes in a child (MADV_WIPEONFORK), and a thread that takes a
 * lock compares it with what it last saw there. So before a thread of a new
 * process takes its first lock, with fork handlers or without (_Fork, clone),
 * the process has its number, and the thread that forked has made itself known.
 * The locks that it took before the fork are recognised as its own from its
 * next lock, or from fork's child handler, on. (After a fork without handlers
 * it must not start a thread before that while it holds a lock; POSIX allows it
 * none.) A child of vfork shares its parent's memory: nothing is wiped, nobody
 * is a ghost.
 *
 * There is no such page while the C library says that the process has a single
 * thread. Then only the thread that forks can hold a lock, since a thread that
 * holds one starts no other. In that case, and where the kernel refuses the
 * page (before 4.14), fork's child handler renews the number.
 *
 * A nested fork, even by a signal handler in the middle of any of this, wipes
 * the page again, and everything starts over. Ghosts of a grandparent are
 * ghosts too.
 *
 * A program with one thread pays for no atomic operation. It doesn't either
 * when there is a second thread that the C library does not know, the
 * *stranger* (the background thread), which takes locks rarely and announces
 * it:
 *
 *     the only thread                     the stranger
 *     entered = true                      company = HAK_LOCK_TOGETHER
 *     company is APART?                   a fence in every thread (membarrier)
 *       yes: plain stores                 waits until entered is false
 *       no:  entered = false, and         takes and drops locks, by atomic
 *            atomic operations              operations
 *     ... entered = false with its        company = HAK_LOCK_APART
 *         last lock
 *
 * The fence takes effect somewhere among the only thread's instructions. If
 * that is before it enters, it sees that there is company; if after, the
 * stranger sees that it has entered. So while the only thread holds locks taken
 * by plain stores (`alone`) the stranger holds none and takes none. The only
 * thread chooses between the two ways when it holds no lock: a signal handler
 * that comes in between follows what it interrupts, or uses atomic operations,
 * which are always right. tests/model/company.pml is a model of this.
 *
 * Where there are other threads, or the kernel has no such fence (before 4.14),
 * `company` is HAK_LOCK_CROWD, and atomic operations do everything.
 */
#ifndef HAK_LOCK_H
#define HAK_LOCK_H

#include "base/assert.h"
#include "base/base.h"

typedef struct hak_lock {
    _Atomic(uint64_t) word;
    /*
     * Called in a forked child by the thread that takes the lock over and holds
     * it. It may take no other lock (the thread that forked may hold that one),
     * may be called again after a fork has cut it short, and may be NULL. What
     * is in use stays in use; what is doubtful is lost rather than given out
     * again.
     */
    void (*mend)(void);
} hak_lock;

#define HAK_LOCK_INIT(mend)                                                    \
    {                                                                          \
        0, (mend)                                                              \
    }

/* One for each thread. */
struct hak_lock_self {
    uint64_t number;  /* 0: it has taken no lock yet */
    uint64_t process; /* its process's number at its last lock */
    uint64_t seen;    /* the same, also where `process` is something else */
    uint32_t held;    /* locks that it holds or is about to take */
    uint32_t alone;   /* those of them taken by plain stores */
    uint32_t waits;   /* its part of haki_lock_any_waits */
    bool stranger;    /* see above */
};

/*
 * Instead of a process's number: the thread has taken no lock yet, or may be
 * alone and has to ask each time. No process has this number, nor 0, which a
 * wiped page holds.
 */
#define HAK_LOCK_ALONE 1u

enum hak_lock_company { HAK_LOCK_CROWD, HAK_LOCK_APART, HAK_LOCK_TOGETHER };

struct hak_process {
    _Atomic(uint64_t) number; /* 0: a new process that nobody has noticed */
    _Atomic(int32_t) pid;
};

extern HAK_HIDDEN __thread struct hak_lock_self haki_lock_self
    __attribute__((tls_model("initial-exec")));
extern HAK_HIDDEN _Atomic(struct hak_process *) haki_process;
extern HAK_HIDDEN atomic_bool haki_lock_entered; /* see above */

/* Stands between two writes where a ghost must not have made only the second. */
HAK_INLINE void haki_lock_step(void)
{
    haki_step();
}

/* No cancellation point; errno is kept. */
HAK_NOINLINE void haki_lock_take_slow(hak_lock *lock);
HAK_NOINLINE void haki_lock_wake(hak_lock *lock);

HAK_INLINE void haki_lock_take(hak_lock *lock)
{
    const struct hak_process *process =
        atomic_load_explicit(&haki_process, memory_order_acquire);
    uint64_t word = 0;

    haki_lock_self.held++;
    if (HAK_UNLIKELY(haki_lock_self.process !=
                         atomic_load_explicit(&process->number,
                                              memory_order_acquire) ||
                     !atomic_compare_exchange_strong_explicit(
                         &lock->word, &word, haki_lock_self.number << 1,
                         memory_order_acq_rel, memory_order_relaxed))) {
        haki_lock_take_slow(lock);
    }
}

/* Whether the calling thread holds the lock. */
HAK_INLINE bool haki_lock_mine(hak_lock *lock)
{
    uint64_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);

    return word != 0 && word >> 1 == haki_lock_self.number;
}

HAK_INLINE void haki_lock_drop(hak_lock *lock)
{
    uint64_t word;

    HAK_ASSERT(haki_lock_mine(lock) && haki_lock_self.held > 0);
    if (haki_lock_self.alone != 0) {
        atomic_store_explicit(&lock->word, 0, memory_order_release);
        haki_lock_step();
        if (--haki_lock_self.alone == 0) {
            atomic_store_explicit(&haki_lock_entered, false,
                                  memory_order_release);
        }
        haki_lock_step();
    } else {
        word = atomic_exchange_explicit(&lock->word, 0, memory_order_release);
        if (HAK_UNLIKELY((word & 1) != 0)) {
            haki_lock_wake(lock);
        }
    }
    haki_lock_self.held--;
}

/*
 * Functions that change what a lock guards begin with this (tests: in each
 * build).
 */
HAK_COLD _Noreturn void haki_lock_not_held(const char *where);
#define HAK_HELD(lock)                                                         \
    (HAK_DEBUG >= 1 || HAK_WALKS                                               \
         ? haki_lock_mine(lock) ? (void)0 : haki_lock_not_held(__func__)       \
         : (void)0)

/*
 * A named point where tests can hold a thread while others go on. See
 * tests/unit/meet.h.
 */
#ifdef HAK_TESTING
extern _Atomic(void (*)(const char *name)) haki_test_meet;
HAK_NOINLINE void haki_test_point(const char *name);
#define HAK_POINT(name) haki_test_point(name)
#else
#define HAK_POINT(name) ((void)0)
#endif

/*
 * The stranger, a thread that the C library does not know of, is about to be
 * started; there is none now. The calling thread holds no lock.
 */
void haki_lock_not_alone(void);

/* Called by the stranger, before anything else. */
void haki_lock_begin_stranger(void);

/*
 * Called by the stranger before it takes a lock, and when it has dropped its
 * last one. If haki_lock_join returns HAK_LOCK_WAIT, call it again after a
 * moment; after HAK_LOCK_NEVER this stranger may take no lock, but the next one
 * may.
 */
enum hak_lock_joined { HAK_LOCK_JOINED, HAK_LOCK_WAIT, HAK_LOCK_NEVER };
enum hak_lock_joined haki_lock_join(void);
void haki_lock_part(void);

/*
 * Whether any thread sleeps until it gets a lock, or is waking one that does: a
 * tracer may stop it there.
 */
bool haki_lock_any_waits(void);

/* The calling thread's number, drawn if it has none. */
uint64_t haki_lock_number(void);

/* Whether a thread with this number does not exist in this process. */
bool haki_lock_is_ghost(uint64_t number);

/* Called first in fork's child handler: see above. */
void haki_lock_forked(void);

/*
 * Called there too: mends a lock that a ghost held. False: the calling thread
 * holds it.
 */
bool haki_lock_settle(hak_lock *lock);

#endif /* HAK_LOCK_H */
