/*
 * refused.c - the preloaded library under a kernel that refuses, or an older
 * one, and when no more mappings are available: programs/refused.c works beside
 * programs/librefuses.c, which lists the choices.
 *
 * The n-th call is refused, for every STRIDE-th n, others in each run, until
 * the program makes no n-th call any more.
 *
 * Obeys: HAKMEM_TEST_STRIDE (1: every n; unset: 16).
 */
#include <errno.h>

#include "wrap_test.h"

TestSuite(refused, .timeout = 600);

enum { STRIDE = 16 };

/* One line at most, of ours. */
static bool is_well(const char *err)
{
    return err[0] == '\0' || (strncmp(err, "hakmem: ", 8) == 0 &&
                              strncmp(err, "hakmem: fatal", 13) != 0 &&
                              strchr(err, '\n') == err + strlen(err) - 1);
}

/* How many calls were refused to a program that must have ended well. */
static unsigned run(const struct wrap_how *how, const char *mode,
                    const char *what)
{
    const char *const command[] = {wrap_program("plain/refused"), mode, NULL};
    struct wrap_said said;
    unsigned calls = 0, refused = 0;

    wrap_try(&said, how, command);
    cr_assert_eq(said.status, 0, "%s: status %#x, said: %s%s", what,
                 (unsigned)said.status, said.out, said.err);
    cr_assert(is_well(said.err), "%s: said: %s", what, said.err);
    cr_assert_not_null(strstr(said.out, "well\n"), "%s", what);
    cr_assert(sscanf(strstr(said.out, "calls "), "calls %u, refused %u", &calls,
                     &refused) == 2,
              "%s: %s", what, said.out);
    cr_assert_null(strstr(said.out, "harmed"), "%s: %s", what, said.out);
    wrap_done(&said);
    return refused;
}

/* ---- the n-th call ----------------------------------------------------------- */

/* Refuses the n-th of these calls; the number of those refused. */
static unsigned refuse(const char *calls, unsigned n, bool on, int error)
{
    struct wrap_how how = {.preload = true,
                           .beside = "tests/wrap/programs/plain/librefuses.so"};
    char env[4][40], what[200];

    snprintf(env[0], sizeof(env[0]), "REFUSE_CALLS=%s", calls);
    snprintf(env[1], sizeof(env[1]), "REFUSE_AT=%u", n);
    snprintf(env[2], sizeof(env[2]), "REFUSE_ON=%d", on);
    snprintf(env[3], sizeof(env[3]), "REFUSE_ERRNO=%d", error);
    for (int i = 0; i < 4; i++) {
        how.env[i] = env[i];
    }
    snprintf(what, sizeof(what), "%s %s %s %s", env[0], env[1], env[2], env[3]);
    return run(&how, NULL, what);
}

/* The first few, and then some. */
static void refuse_each(const char *calls, bool on, int error, unsigned least)
{
    const char *wish = getenv("HAKMEM_TEST_STRIDE");
    unsigned stride = wish != NULL ? (unsigned)atoi(wish) : STRIDE;
    unsigned n = 1;

    while (refuse(calls, n, on, error) > 0) {
        n += n < 12 ? 1 : 1 + (n + (unsigned)getpid()) % (2 * stride - 1);
    }
    cr_assert_gt(n, least, "%s: %u calls", calls, n);
}

Test(refused, any_call_once)
{
    refuse_each("mupar", false, ENOMEM, 100);
}

Test(refused, any_call_and_all_after_it)
{
    refuse_each("mupar", true, ENOMEM, 30);
}

Test(refused, mappings_for_now)
{
    refuse_each("m", true, EAGAIN, 12);
}

Test(refused, mappings_of_a_kind)
{
    refuse_each("mr", false, EINVAL, 12);
}

Test(refused, advice)
{
    refuse_each("a", false, EINVAL, 12);
    refuse_each("a", true, EINVAL, 12);
}

Test(refused, advice_for_now)
{
    refuse_each("a", false, EAGAIN, 12);
    refuse_each("a", true, ENOMEM, 12);
}

Test(refused, moves)
{
    refuse_each("r", false, ENOMEM, 1);
    refuse_each("r", true, EFAULT, 1);
    refuse_each("ur", true, ENOMEM, 12);
}

/* ---- other kernels ------------------------------------------------------------ */

static const char *const kernels[] = {
    "hints",
    "intrudes",
    "hints,intrudes",
    "nowipe",
    "nodontunmap",
    "nopopulate",
    "onemapping",
    "keeps",
    "keepsmoved",
    "pages16",
    "hints,nowipe,nodontunmap,nopopulate",
    "nodontunmap,keeps",
    "locked",
};

enum { KERNELS = sizeof(kernels) / sizeof(kernels[0]) };

static void run_on(const char *kernel, const char *mode)
{
    struct wrap_how how = {.preload = true,
                           .beside = "tests/wrap/programs/plain/librefuses.so"};
    char env[80];

    snprintf(env, sizeof(env), "REFUSE_KERNEL=%s", kernel);
    how.env[0] = env;
    cr_assert_gt(run(&how, mode, env), 0, "%s: it was never met", env);
}

Test(refused, on_other_kernels)
{
    for (int i = 0; i < KERNELS; i++) {
        run_on(kernels[i], NULL);
    }
}

/* ---- no more mappings ----------------------------------------------------------- */

Test(refused, when_mappings_are_used_up)
{
    static const struct wrap_how how = {
        .preload = true, .beside = "tests/wrap/programs/plain/librefuses.so"};

    for (int i = 0; i < 4; i++) {
        run(&how, "maps", "maps");
    }
}

/* "locked" would refuse the program what uses them up. */
Test(refused, when_mappings_are_used_up_on_other_kernels)
{
    for (int i = 0; i < KERNELS - 1; i++) {
        run_on(kernels[i], "maps");
    }
}
