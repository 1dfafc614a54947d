/*
 * company.pml - a model, for spin, of how the only thread that the C library knows
 * and the background thread, which it does not, take locks (core/os/lock.h). To be
 * kept true to it; `make check-model` runs it.
 *
 *     only      the only thread: takes and drops the lock, by plain stores if it is
 *               apart, by atomic operations if not
 *     handler   a signal's, which may interrupt it at any step and take the same
 *               lock, but not while it has it
 *     stranger  joins, takes and drops the lock, parts
 *     memory    what the only thread has stored arrives, in order, some time later
 *
 * What is claimed: there is never more than one who has the lock, and who has it
 * finds what the one before has stored. Each macro below takes away one of the
 * things on which that rests, and the claim is then false:
 *
 *     NO_FENCE       the stranger does not make the only thread's stores arrive
 *     NO_WAIT        nor wait until it has left
 *     NO_CHECK       the only thread does not look again when it has entered
 *     ANY_TIME       a handler enters while what it has interrupted does
 *     PART_FIRST     the stranger parts before it drops the lock
 *     DROP_LOOSE     the only thread drops by a plain store, and leaves, a lock that
 *                    a handler took otherwise while it entered
 *
 * Left out: forks, waking who sleeps, and weaker memory than x86's, where the
 * fence is one between all that the thread does before and after it.
 */

#define WORD 0 /* what is stored: the lock's word */
#define ENTERED 1
#define DATA 2 /* what the lock guards */

#define APART 0 /* of company */
#define TOGETHER 1

#ifndef TURNS
#define TURNS 2 /* of each */
#endif

byte word, data;
bool entered;
byte company = APART;

chan buffer = [4] of { byte, byte }; /* the only thread's stores on their way */
byte last_word;                      /* of those to the word */

byte held, alone;       /* haki_lock_self's */
bool handling, has_it;  /* the only thread has the lock */
byte users;

active proctype memory()
{
    byte what, value;

end:
    do
    :: atomic {
            buffer?what, value;
            if
            :: what == WORD -> word = value
            :: what == ENTERED -> entered = value
            :: what == DATA -> data = value
            fi;
            what = 0;
            value = 0
        }
    od
}

/* ---- the only thread, and its handler ------------------------------------------ */

inline store(what, value)
{
    buffer!what, value
}

inline store_word(value)
{
    atomic {
        buffer!WORD, value;
        last_word = value
    }
}

/* It finds its own store, if that has not arrived. */
inline load_word(to)
{
    atomic {
        if
        :: buffer??[WORD, 0] || buffer??[WORD, 1] -> to = last_word
        :: else -> to = word
        fi
    }
}

/* enter() of lock.c */
inline try_enter(way)
{
    if
#ifdef ANY_TIME
    :: company == APART ->
#else
    :: held == 1 && company == APART ->
#endif
        store(ENTERED, 1);
        if
#ifndef NO_CHECK
        :: company != APART -> store(ENTERED, 0)
        :: else ->
#else
        :: true ->
#endif
            way = true
        fi
    :: else
    fi
}

inline take(way, seen)
{
    held++;
    way = false;
    if
    :: alone > 0 -> way = true
    :: else -> try_enter(way)
    fi;
    if
    :: way ->
        load_word(seen);
        assert(seen == 0);
        alone++;
        atomic {
            store_word(1);
            has_it = true
        }
    :: else ->
        atomic {
            empty(buffer) && word == 0 -> word = 1;
            has_it = true
        }
    fi
}

inline work()
{
    atomic {
        users++;
        assert(users == 1);
        assert(data == 0 || buffer??[DATA, 0])
    };
    store(DATA, 1);
    store(DATA, 0);
    users--
}

inline drop(way)
{
    if
#ifdef DROP_LOOSE
    :: alone > 0 || entered || buffer??[ENTERED, 1] ->
#else
    :: alone > 0 ->
#endif
        atomic {
            store_word(0);
            has_it = false
        };
        if
        :: alone > 0 -> alone--
        :: else
        fi;
        if
        :: alone == 0 -> store(ENTERED, 0)
        :: else
        fi
    :: else ->
        atomic {
            empty(buffer) -> word = 0;
            has_it = false
        }
    fi;
    held--;
    way = false
}

active proctype only() provided (!handling)
{
    bool way;
    byte seen, turns;

    do
    :: turns < TURNS ->
        turns++;
        take(way, seen);
        work();
        drop(way)
    :: break
    od
}

active proctype handler()
{
    bool way;
    byte seen, turns;

    do
    :: atomic { !handling && !has_it && turns < TURNS -> handling = true };
        turns++;
        take(way, seen);
        work();
        drop(way);
        handling = false
    :: break
    od
}

/* ---- the stranger ----------------------------------------------------------------- */

active proctype stranger()
{
    byte turns;
    bool joined;

    do
    :: turns < TURNS ->
        turns++;
        company = TOGETHER;
#ifndef NO_FENCE
        empty(buffer);
#endif
        joined = true;
        if
#ifndef NO_WAIT
        :: entered -> joined = false
        :: !entered
#else
        :: true
#endif
        fi;
        if
        :: joined ->
            atomic { word == 0 -> word = 2 };
            atomic {
                users++;
                assert(users == 1);
                assert(data == 0);
                data = 2
            };
            atomic {
                assert(data == 2);
                data = 0;
                users--
            };
#ifdef PART_FIRST
            company = APART;
#endif
            word = 0
        :: else
        fi;
        /* It tries again, or parts. */
        if
        :: company = APART
        :: !joined
        fi
    :: else -> break
    od
}
