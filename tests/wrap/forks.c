/*
 * forks.c - forks in busy processes: tests/wrap/programs/forkstorm.c, which
 * says what each mode is. What hangs is killed there.
 */
#include "wrap_test.h"

TestSuite(forks, .timeout = 300);

static const struct wrap_how alone, preloaded = {.preload = true};

#define SECONDS "1"

/* In a program that knows nothing of us, and with the library linked to it. */
static void storm(const char *mode)
{
    wrap_expect(&preloaded, "well\n", "", wrap_program("plain/forkstorm"),
                SECONDS, mode);
    wrap_expect(&alone, "well\n", "", wrap_program("archive/forkstorm"),
                SECONDS, mode);
}

Test(forks, of_threads_that_allocate)
{
    storm("lanes");
    wrap_expect(&alone, "well\n", "", wrap_program("shared/forkstorm"), SECONDS,
                "lanes");
    wrap_expect(&alone, "well\n", "", wrap_program("static/forkstorm"), SECONDS,
                "lanes", "join", "lock");
}

Test(forks, beside_threads_that_hold_streams)
{
    storm("stdio");
}

Test(forks, beside_threads_that_look_up_users)
{
    storm("nss");
}

Test(forks, beside_threads_that_open_libraries)
{
    storm("dlopen");
}

Test(forks, with_handlers_that_wait_for_threads_that_allocate)
{
    storm("join");
}

Test(forks, with_handlers_that_hold_a_lock_of_threads_that_allocate)
{
    storm("lock");
}

/* glibc's own malloc can't: its locks would be held by the thread itself. */
Test(forks, by_a_signal_s_handler_in_the_midst_of_malloc_and_free)
{
    storm("signal");
    wrap_expect(&preloaded, "well\n", "", wrap_program("plain/forkstorm"),
                SECONDS, "signal", "alone");
}

Test(forks, without_handlers)
{
    storm("bare");
}

Test(forks, of_several_cores)
{
    wrap_expect(&preloaded, "well\n", "", wrap_program("plain/forkstorm_core"),
                SECONDS, "core", "join", "lock", "bare");
    wrap_expect(&alone, "well\n", "", wrap_program("plain/forkstorm_core"),
                SECONDS, "core");
}

Test(forks, of_all_kinds_at_once)
{
    storm("all");
}

/* What a child seals is its own. */
Test(forks, with_seals)
{
    static const struct wrap_how sealed = {.preload = true,
                                           .env = {"HAKMEM_SEAL_FORK=1"}};

    wrap_expect(&sealed, "well\n", "", wrap_program("plain/forkstorm"), SECONDS,
                "join", "bare");
}
