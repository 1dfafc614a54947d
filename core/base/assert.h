/*
 * assert.h - assertions, in three levels.
 *
 *     HAK_CHECK     every build: cheap checks on slow paths; mostly a
 *                   program's own fault that has reached our lists
 *     HAK_ASSERT    HAK_DEBUG=1, the debug and sanitizer builds: a state before
 *                   and after it moves, a lock that is held, a count
 *     HAK_WALK      HAK_DEBUG=2, the fuzzer and VARIANT=walks: calls a walk over
 *                   a whole lane, where a slab of it has moved
 *     HAK_PROVE     inside a walk: always checked
 *
 * All of them are compiled in every build, behind a constant condition, so that
 * none goes stale. A failure ends the program with one line, through
 * haki_fatal, which allocates nothing and takes no lock. A condition has no
 * side effects.
 *
 * They hold in forked children as well. A ghost (lock.h) may have left a lane's
 * lists half changed; before an assert looks at them, the lock's mend has
 * repaired them or the heap has been given up. A mend itself works on
 * half-changed state and has no asserts.
 */
#ifndef HAK_ASSERT_H
#define HAK_ASSERT_H

#include "base/base.h"

#ifndef HAK_DEBUG
#define HAK_DEBUG 0
#endif

/* Whether walks are there: for HAK_WALK, and for tests to call. */
#if HAK_DEBUG >= 2 || defined(HAK_TESTING)
#define HAK_WALKS 1
#else
#define HAK_WALKS 0
#endif

/* Both end the program. Defined in msg.c. */
HAK_COLD _Noreturn void haki_check_failed(const char *what, const char *file,
                                          int line);
HAK_COLD _Noreturn void haki_assert_failed(const char *what, const char *file,
                                           int line);

#define HAK_CHECK(condition)                                                   \
    (HAK_LIKELY(condition)                                                     \
         ? (void)0                                                             \
         : haki_check_failed(#condition, __FILE__, __LINE__))

#define HAK_PROVE(condition)                                                   \
    (HAK_LIKELY(condition)                                                     \
         ? (void)0                                                             \
         : haki_assert_failed(#condition, __FILE__, __LINE__))

#define HAK_ASSERT(condition)                                                  \
    (HAK_DEBUG < 1 || HAK_LIKELY(condition)                                    \
         ? (void)0                                                             \
         : haki_assert_failed(#condition, __FILE__, __LINE__))

#define HAK_WALK(call) (HAK_DEBUG >= 2 ? (void)(call) : (void)0)

#endif /* HAK_ASSERT_H */
