/*
 * lock.h - locks whose holder can be told, and what a fork leaves of them.
 *
 * A fork may come while other threads hold locks of ours. It does not
 * wait for them, nor are locks held while it runs: glibc's own locks and other
 * libraries' fork handlers come in between, and who waits there for somebody
 * who waits for us waits for ever. So a child may find a lock held by a
 * *ghost*, a thread that does not exist there, caught at any instruction. The
 * child takes the lock over and calls its `mend`, which makes what the lock
 * guards whole again as of that instruction. A pthread_mutex would not do: its
 * holder can't be told in one atomic read.
 *
 * The word is 0, or the holder's number times 2, plus 1 if somebody may be
 * asleep. Threads and processes draw their numbers from one counter, which a
 * child goes on with. (64 bits: 31 are used up in a month by a server that
 * starts 1000 threads a second.) Every process has a number, larger than those
 * of all threads that its ancestors had up to the fork, less than those of the
 * threads that it starts itself. Hence:
 *
 *     a holder is a ghost if its number is less than the process's, unless it
 *     is the thread that forked, which has brought its number along.
 *
 * That thread may hold a lock itself (a signal's handler forked inside our slow
 * path) and goes on with what it was at. Nobody takes its lock over.
 *
 * What makes a child notice that it is one: the process's number stands in a
 * page that the kernel wipes in a child (MADV_WIPEONFORK), and a thread that
 * takes a lock compares it with what it has seen there last. So before a
 * thread of a new process takes its first lock, fork handlers or not (_Fork,
 * clone), the process has its number, and if this is the thread that forked, it
 * has made itself known. Its locks taken before the fork are known as its own
 * from its next lock, or fork's child handler, on. (Between a handlerless fork
 * and that it must not start a thread if it holds one; POSIX allows it none.)
 * A child by vfork shares its parent's memory: nothing is wiped, nobody is a
 * ghost.
 *
 * There is no such page while the C library says that the process has a single
 * thread. No lock can then be held by another than who forks: who holds one
 * starts no thread. Then, and where the kernel refuses the page (before 4.14),
 * fork's child handler renews the number.
 *
 * A nested fork, even by a signal's handler in the middle of any of this, wipes
 * the page again, and all begins anew. Ghosts of a grandparent are ghosts.
 *
 * A program with one thread pays for no atomic operation. Nor does it when there is
 * a second one that the C library does not know, the *stranger* (the background
 * thread), which takes locks seldom, and says so before:
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
 * The fence falls somewhere among the only thread's instructions. If before it
 * enters, it will see that there is company; if after, the stranger sees that it
 * has entered. So while it has locks by plain stores (`alone`) the stranger has
 * none, nor takes one. Which way it takes them it asks when it has none: a signal's
 * handler that comes in between goes by what it interrupts, or by atomic operations,
 * which are always right. tests/model/company.pml is a model of this.
 *
 * Where there are other threads, or the kernel has no such fence (before 4.14), it
 * is HAK_LOCK_CROWD, and all is done by atomic operations.
 */
#ifndef HAK_LOCK_H
#define HAK_LOCK_H

#include "base/assert.h"
#include "base/base.h"

typedef struct hak_lock {
    _Atomic(uint64_t) word;
    /*
     * Called in a forked child by who takes the lock over, which it holds. It
     * may take no other one (the thread that forked may hold that), may be
     * called again when it was itself cut short by a fork, and may be NULL.
     * What is in use stays so; what is doubtful is lost, not given out again.
     */
    void (*mend)(void);
} hak_lock;

#define HAK_LOCK_INIT(mend)                                                    \
    {                                                                          \
        0, (mend)                                                              \
    }

/* Of each thread. */
struct hak_lock_self {
    uint64_t number;  /* 0: it has taken no lock yet */
    uint64_t process; /* its process's number when it took its last lock */
    uint64_t seen;    /* the same, also where `process` is something else */
    uint32_t held;    /* locks that it has, or is about to have */
    uint32_t alone;   /* of these, taken by plain stores */
    uint32_t waits;   /* its part of haki_lock_any_waits */
    bool stranger;    /* see above */
};

/*
 * Instead of that: it has taken none, or may be alone, and is to ask each time. No
 * process has this number, nor 0, which a page that was wiped has.
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

/*
 * Between two writes of which a ghost must not have made the second alone: in
 * the order of the program, as the thread's own instructions have it. A child
 * sees what a ghost wrote up to one instruction.
 */
HAK_INLINE void haki_lock_step(void)
{
    __asm__ volatile("" ::: "memory");
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

/* Functions that change what a lock guards begin with it (tests: in each build). */
HAK_COLD _Noreturn void haki_lock_not_held(const char *where);
#define HAK_HELD(lock)                                                         \
    (HAK_DEBUG >= 1 || HAK_WALKS                                               \
         ? haki_lock_mine(lock) ? (void)0 : haki_lock_not_held(__func__)       \
         : (void)0)

/*
 * Where a thread meets others, at a place that has a name: tests hold it there
 * while others go on. See tests/unit/meet.h.
 */
#ifdef HAK_TESTING
extern _Atomic(void (*)(const char *name)) haki_test_meet;
HAK_NOINLINE void haki_test_point(const char *name);
#define HAK_POINT(name) haki_test_point(name)
#else
#define HAK_POINT(name) ((void)0)
#endif

/*
 * A thread that the C library does not know of, the stranger, is about to be
 * started; there is no other one now. The calling thread holds no lock.
 */
void haki_lock_not_alone(void);

/* There, first of all. */
void haki_lock_begin_stranger(void);

/*
 * By the stranger, before it takes a lock, and when it has dropped the last one.
 * The first is to be called again after a moment when it says HAK_LOCK_WAIT; after
 * HAK_LOCK_NEVER it may take no lock, but one that is started next may.
 */
enum hak_lock_joined { HAK_LOCK_JOINED, HAK_LOCK_WAIT, HAK_LOCK_NEVER };
enum hak_lock_joined haki_lock_join(void);
void haki_lock_part(void);

/* Whether any thread sleeps until it gets a lock, or is waking who does: a tracer
 * may stop it there. */
bool haki_lock_any_waits(void);

/* The calling thread's number, drawn if it has none. */
uint64_t haki_lock_number(void);

/* Whether a thread with this number does not exist in this process. */
bool haki_lock_is_ghost(uint64_t number);

/* In fork's child handler, first of all: see above. */
void haki_lock_forked(void);

/* There: mends what a ghost has held. False: the calling thread holds it. */
bool haki_lock_settle(hak_lock *lock);

#endif /* HAK_LOCK_H */
