/*
 * assert.c - tests of core/base/assert.h: which level checks, and the messages.
 */
#include "base/assert.h"
#include "unit.h"

static int asked;

static bool ask(void)
{
    asked++;
    return true;
}

Test(assert, levels_look_or_do_not)
{
    HAK_CHECK(ask());
    HAK_PROVE(ask());
    cr_assert_eq(asked, 2);
    HAK_ASSERT(ask());
    cr_assert_eq(asked, HAK_DEBUG >= 1 ? 3 : 2);
    asked = 0;
    HAK_WALK(ask());
    cr_assert_eq(asked, HAK_DEBUG >= 2 ? 1 : 0);
}

static void check_fails(void *arg)
{
    HAK_CHECK(arg != NULL);
}

static void assert_fails(void *arg)
{
    HAK_ASSERT(arg != NULL);
}

static void prove_fails(void *arg)
{
    HAK_PROVE(arg != NULL);
}

static int line_of(void (*run)(void *))
{
    return run == check_fails ? 29 : run == assert_fails ? 34 : 39;
}

Test(assert, what_fails_says_where_in_one_line)
{
    unit_expect_fatal(check_fails, NULL,
                      "hakmem: fatal: assert.c:%d: check failed: arg != NULL; "
                      "usually the program has freed a block twice or written "
                      "to freed memory: make HARDENED=1 tells where\n",
                      line_of(check_fails));
    unit_expect_fatal(
        prove_fails, NULL,
        "hakmem: fatal: assert.c:%d: assertion failed: arg != NULL; "
        "this is a fault in hakmem, please report it\n",
        line_of(prove_fails));
    if (HAK_DEBUG >= 1) {
        unit_expect_fatal(
            assert_fails, NULL,
            "hakmem: fatal: assert.c:%d: assertion failed: arg != NULL; "
            "this is a fault in hakmem, please report it\n",
            line_of(assert_fails));
    } else {
        unit_expect_ok(assert_fails, NULL);
    }
}
