/*
 * sleep.c - what the program does before it sleeps in sigsuspend.
 */
#include <criterion/criterion.h>
#include <signal.h>

#include "patch/patch.h"

static int calls, others;
static sig_atomic_t signals;

static void work(void)
{
    calls++;
    cr_assert_eq(signals, 0, "a signal came before the sleep");
}

static void other_work(void)
{
    others++;
}

static void note(int number)
{
    (void)number;
    signals++;
}

/* A signal waits, so that the sleep ends at once. */
static void sleep_once(void)
{
    sigset_t mask, none;

    signals = 0;
    sigemptyset(&none);
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    signal(SIGUSR1, note);
    raise(SIGUSR1);
    cr_assert_eq(sigsuspend(&none), -1);
    cr_assert_eq(signals, 1, "the mask was not libc's to apply");
}

Test(ngx_sleep, work_is_done_before_each)
{
    sleep_once();
    cr_assert_eq(calls, 0);
    cr_assert(hak_ngx_before_sleep(work));
    sleep_once();
    sleep_once();
    cr_assert_eq(calls, 2);
}

Test(ngx_sleep, the_last_work_counts)
{
    cr_assert(hak_ngx_before_sleep(work));
    cr_assert(hak_ngx_before_sleep(other_work));
    sleep_once();
    cr_assert_eq(calls, 0);
    cr_assert_eq(others, 1);
}

Test(ngx_sleep, unpatching_leaves_it)
{
    char why[128];

    cr_assert(hak_ngx_before_sleep(work));
    (void)hak_ngx_patch(NULL, 0, why, sizeof(why));
    hak_ngx_unpatch();
    sleep_once();
    cr_assert_eq(calls, 1);
}
