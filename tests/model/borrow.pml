/*
 * borrow.pml - a model, for spin, of how the heap of a thread that sleeps is lent
 * to one that gives memory back (core/heap/lend.h, lend.c, os_thread.c). To be kept
 * true to them; `make check-model` runs it.
 *
 *     owner     the thread whose heap it is: hot paths, slow paths that wait for
 *               a lock, system calls of the program's, its end
 *     handler   a signal's, which may interrupt the owner at any step, sleep, and
 *               use the heap unless it has interrupted somebody who does
 *     borrower  takes the lock, stores haki_heap_none in haki_self, looks, works on
 *               the heap, puts it back
 *     holder    somebody else who holds a lock of ours for a while
 *
 * What is claimed: there is never more than one in the heap, nobody takes
 * haki_heap_none for a heap, and nothing is stored to the memory of a thread that
 * is gone. Each macro below takes away one of the things on which that rests, and
 * the claim is then false:
 *
 *     NO_HANDLER     the borrower does not ask whether a handler runs
 *     NODEFER        nor whether there may be one that does not block its signal
 *     NO_SWITCHES    nor whether what it has seen was all of the same sleep
 *     MASK_FIRST     it reads the mask before the number of switches
 *     NO_COUNTS      it does not ask whether a slow path is under way
 *     COUNTS_AFTER   it asks that when it has seen the thread asleep
 *     COUNTS_BEFORE  or before it reads the number of switches
 *     LOOK_FIRST     it looks before it stores haki_heap_none
 *     NO_FENCE       its store may still be on its way when it looks
 *     END_UNLOCKED   the owner ends without the lock
 *     READ_TWICE     the owner reads haki_self again to use it
 *
 * Why the order is as it is: the number of switches goes up when the thread falls
 * asleep, not when it wakes. If it is the same before and after, and the thread
 * was asleep in between (asleep()), then it slept from the first reading to that
 * moment; so what is to be known of the sleep, the mask and the counts, is read
 * between these two.
 *
 * Left out: forks, and weaker memory than x86's for what a lender hands back,
 * which the owner gets at by the pointer that it reads.
 */

#define NONE 0 /* of haki_self */
#define HEAP 1
#define EXITED 2

#define RUNS 0  /* of the owner, as the kernel has it */
#define WAITS 1 /* in a system call that waits for other people */
#define OTHER 2 /* in another one */

#ifndef SLEEPS
#define SLEEPS 2 /* of the owner, at most */
#endif
#ifndef TURNS
#define TURNS 2 /* of the borrower */
#endif

byte self = HEAP;     /* haki_self */
bool lent_by = true;  /* self_at is there */
bool gone = false;    /* so is not the thread's memory */
bool own_lock, other; /* lend.c's lock; any other one */
byte waiting;         /* haki_lock_any_waits */
bool busy;            /* haki_heap_is_busy */
byte system = RUNS, switches;
bool handling, masked, nodefer;
bool owner_in; /* the owner is in the heap, interrupted or not */
byte users;

inline enter()
{
    atomic {
        users++;
        assert(users == 1)
    }
}

inline leave()
{
    users--
}

inline sleep(call)
{
    atomic {
        switches < SLEEPS;
        system = call;
        switches++
    };
    system = RUNS
}

/* haki_lock_take: it sleeps with a limit of time, and looks again. */
inline take(l)
{
    do
    :: atomic { !l -> l = true; break }
    :: l && switches < SLEEPS ->
        waiting++;
        if
        :: atomic { switches < SLEEPS -> system = WAITS; switches++ };
            system = RUNS
        :: switches >= SLEEPS
        fi;
        waiting--
    od
}

/* haki_lend_return */
inline take_back()
{
    take(own_lock);
    assert(self == HEAP);
    own_lock = false
}

/* ---- the owner -------------------------------------------------------------- */

inline load(h)
{
    h = self;
    if
    :: h == NONE -> take_back(); h = HEAP
    :: else
    fi;
#ifdef READ_TWICE
    h = self;
#endif
    assert(h == HEAP)
}

active proctype owner() provided (!handling)
{
    byte h;

    do
    :: /* a hot path */
        load(h);
        owner_in = true;
        enter();
        leave();
        owner_in = false;
        h = NONE
    :: /* a slow path that waits for a lock, and one that goes on after it */
        load(h);
        owner_in = true;
        enter();
        if
        :: busy = true
        :: skip
        fi;
        take(other);
        other = false;
        busy = false;
        leave();
        owner_in = false;
        h = NONE
    :: /* one in a system call of our own */
        load(h);
        owner_in = true;
        enter();
        busy = true;
        if
        :: sleep(OTHER)
        :: skip
        fi;
        busy = false;
        leave();
        owner_in = false;
        h = NONE
    :: /* the program waits */
        sleep(WAITS)
    :: break
    od;
    /* thread_exit */
    load(h);
#ifndef END_UNLOCKED
    take(own_lock);
#endif
    lent_by = false;
#ifndef END_UNLOCKED
    own_lock = false;
#endif
    self = EXITED;
    owner_in = true;
    enter(); /* it parks the heap; who adopts it comes here, too */
    leave();
    owner_in = false;
    gone = true
}

active proctype handler()
{
    byte h;

    do
    :: atomic {
            !gone && !handling && switches < SLEEPS ->
            handling = true;
            masked = !nodefer;
            system = RUNS
        };
        if
        :: sleep(WAITS)
        :: !owner_in && self != EXITED ->
            h = self;
            if
            :: h == NONE -> take_back(); h = HEAP
            :: else
            fi;
            if
            :: h == HEAP -> enter(); leave()
            :: else
            fi;
            h = NONE
        :: skip
        fi;
        atomic {
            masked = false;
            handling = false
        }
    :: gone || switches >= SLEEPS -> break
    od
}

active proctype holder()
{
    do
    :: atomic { !other -> other = true };
        other = false
    :: break
    od
}

/* ---- the borrower ------------------------------------------------------------- */

#ifdef NO_FENCE
byte buffered = EXITED; /* a store on its way; EXITED: none */

active proctype memory()
{
end:
    do
    :: atomic { buffered != EXITED -> self = buffered; buffered = EXITED }
    od
}

/* Not before the store before it. */
inline store(value)
{
    atomic { buffered == EXITED -> buffered = value }
}

inline arrives()
{
    buffered == EXITED
}
#else
inline store(value)
{
    atomic {
        assert(!gone);
        self = value
    }
}

inline arrives()
{
    skip
}
#endif

inline read_switches(to)
{
    to = switches
}

inline read_mask()
{
    skip;
#ifndef NO_HANDLER
    mask_clear = !masked;
#ifndef NODEFER
    mask_clear = mask_clear && !nodefer
#endif
#endif
}

inline read_counts()
{
    skip;
#ifndef NO_COUNTS
    idle = idle && !busy;
    idle = idle && waiting == 0
#endif
}

inline look()
{
    idle = true;
    mask_clear = true;
#ifdef COUNTS_BEFORE
    read_counts();
#endif
#ifdef MASK_FIRST
    read_mask();
#endif
    read_switches(before);
#ifndef MASK_FIRST
    read_mask();
#endif
#if !defined(COUNTS_BEFORE) && !defined(COUNTS_AFTER)
    read_counts();
#endif
    asleep = system == WAITS;
    read_switches(after);
#ifdef NO_SWITCHES
    after = before;
#endif
#ifdef COUNTS_AFTER
    read_counts();
#endif
    d_step {
        lends = idle && mask_clear && asleep && before == after;
        idle = false; /* fewer states */
        mask_clear = false;
        asleep = false;
        before = 0;
        after = 0
    }
}

active proctype borrower()
{
    bool idle, mask_clear, asleep, lends;
    byte before, after, turns;

    do
    :: turns < TURNS ->
        turns++;
        atomic { !own_lock -> own_lock = true };
        lends = false;
        if
        :: lent_by ->
#ifdef LOOK_FIRST
            look();
            store(NONE);
#else
            store(NONE);
            look();
#endif
            if
            :: lends -> enter(); leave()
            :: else
            fi;
            store(HEAP);
            arrives()
        :: else
        fi;
        own_lock = false
    :: else -> break
    od
}

init
{
    if
    :: nodefer = true
    :: skip
    fi
}
