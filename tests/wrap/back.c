/*
 * back.c - memory that was freed goes back to the system by itself: what
 * programs/back.c sees of its own process, 300 MB freed.
 *
 * Generous: 60 MB within 10 s. What is really left, and when, `make bench-back`
 * tells.
 */
#include "wrap_test.h"

TestSuite(back, .timeout = 300);

/*
 * Tests of programs that sleep are left out as long as this is true: nobody
 * looks after their memory yet.
 */
#define NOT_YET false

#define SLEEPER(name) Test(back, name, .disabled = NOT_YET)

static const struct wrap_how preloaded = {.preload = true}, alone;

static void goes_back(const struct wrap_how *how, const char *program,
                      const char *who)
{
    wrap_expect(how, "well\n", "", wrap_program(program), who);
}

Test(back, of_a_program_that_works)
{
    goes_back(&preloaded, "plain/back", "working");
}

SLEEPER(of_a_program_that_sleeps)
{
    goes_back(&preloaded, "plain/back", "one");
}

SLEEPER(of_a_program_that_sleeps_linked_with_the_archive)
{
    goes_back(&alone, "archive/back", "one");
}

SLEEPER(of_threads_that_sleep)
{
    goes_back(&preloaded, "plain/back", "eight");
}

/* Its blocks lie in its inbox; it does nothing any more. */
SLEEPER(freed_for_a_thread_that_sleeps)
{
    goes_back(&preloaded, "plain/back", "worker");
}

SLEEPER(of_threads_that_take_turns)
{
    goes_back(&preloaded, "plain/back", "turns");
}
