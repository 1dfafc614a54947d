/*
 * criterion.h - as much of Criterion as the tests here use, for machines and C
 * libraries that Criterion is not there for: another processor under an emulator,
 * musl. The same test programs, compiled with PLAIN=1; ../plain.c runs them.
 *
 * Each test runs in a forked child of a process that has not allocated before, so
 * it may set the environment first, as with Criterion. Its output has the lines that
 * tests/run.py reads.
 */
#ifndef PLAIN_CRITERION_H
#define PLAIN_CRITERION_H

/* Macros with nothing in place of their dots: gcc says so of no system header. */
#pragma GCC system_header

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plain_options {
    double timeout; /* seconds; 0: the suite's, or none */
    void (*init)(void);
    void (*fini)(void);
    bool disabled;
    int last;
};

/* One test, or one for each parameter; in the list once its program begins. */
struct plain_test {
    const char *suite, *name;
    void (*run)(void);
    struct plain_options options;
    struct plain_params (*params)(void);
    struct plain_test *next;
};

struct plain_suite {
    const char *name;
    struct plain_options options;
    struct plain_suite *next;
};

struct plain_params {
    char *first;
    size_t size, count;
};

/* The running test's parameter. */
extern void *plain_param;

void plain_add(struct plain_test *test);
void plain_add_suite(struct plain_suite *suite);

/* A line on standard error; the test fails, and ends with plain_end. */
void plain_fail(const char *file, int line, const char *what,
                const char *format, ...) __attribute__((format(printf, 4, 5)));
_Noreturn void plain_end(void);
/* Ends the test as skipped. */
_Noreturn void plain_skip(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
void plain_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- tests --------------------------------------------------------------- */

#define PLAIN_TEST(suite_, name_, params_, ...)                                \
    static void suite_##_##name_##_impl(void);                                 \
    static struct plain_test suite_##_##name_##_test = {                       \
        .suite = #suite_,                                                      \
        .name = #name_,                                                        \
        .run = suite_##_##name_##_impl,                                        \
        .params = params_,                                                     \
        .options = {__VA_ARGS__}};                                             \
    __attribute__((constructor)) static void suite_##_##name_##_add(void)      \
    {                                                                          \
        plain_add(&suite_##_##name_##_test);                                   \
    }                                                                          \
    static void suite_##_##name_##_impl(void)

#define PLAIN_TEST_OF(suite_, name_, ...)                                      \
    PLAIN_TEST(suite_, name_, NULL, __VA_ARGS__)
#define Test(...) PLAIN_TEST_OF(__VA_ARGS__, .last = 0)

#define PLAIN_SUITE(suite_, ...)                                               \
    static struct plain_suite suite_##_suite = {.name = #suite_,               \
                                                .options = {__VA_ARGS__}};     \
    __attribute__((constructor)) static void suite_##_suite_add(void)          \
    {                                                                          \
        plain_add_suite(&suite_##_suite);                                      \
    }
#define TestSuite(...) PLAIN_SUITE_OF(__VA_ARGS__, .last = 0)
#define PLAIN_SUITE_OF(suite_, ...)                                            \
    PLAIN_SUITE(suite_, __VA_ARGS__)                                           \
    extern int suite_##_suite_ends

/* ---- assertions ---------------------------------------------------------- */

#define PLAIN_CHECK(fatal, condition, what, ...)                               \
    ((condition) ? (void)0                                                     \
                 : (plain_fail(__FILE__, __LINE__, what, "" __VA_ARGS__),      \
                    (fatal) ? plain_end() : (void)0))
#define PLAIN_SAME(fatal, a, op, b, ...)                                       \
    PLAIN_CHECK(fatal, (a)op(b), #a " " #op " " #b, __VA_ARGS__)
#define PLAIN_TEXT(fatal, a, op, b, ...)                                       \
    do {                                                                       \
        const char *plain_a = (a), *plain_b = (b);                             \
        if (!(strcmp(plain_a, plain_b) op 0)) {                                \
            plain_say("'%s' and '%s'", plain_a, plain_b);                      \
            PLAIN_CHECK(fatal, false, #a " " #op " " #b, __VA_ARGS__);         \
        }                                                                      \
    } while (0)

#define cr_assert(a, ...) PLAIN_CHECK(true, a, #a, __VA_ARGS__)
#define cr_assert_not(a, ...) PLAIN_CHECK(true, !(a), "not " #a, __VA_ARGS__)
#define cr_assert_null(a, ...) PLAIN_SAME(true, a, ==, NULL, __VA_ARGS__)
#define cr_assert_not_null(a, ...) PLAIN_SAME(true, a, !=, NULL, __VA_ARGS__)
#define cr_assert_eq(a, b, ...) PLAIN_SAME(true, a, ==, b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) PLAIN_SAME(true, a, !=, b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) PLAIN_SAME(true, a, <, b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) PLAIN_SAME(true, a, <=, b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) PLAIN_SAME(true, a, >, b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) PLAIN_SAME(true, a, >=, b, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) PLAIN_TEXT(true, a, ==, b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) PLAIN_TEXT(true, a, !=, b, __VA_ARGS__)
#define cr_assert_fail(...) PLAIN_CHECK(true, false, "fail", __VA_ARGS__)

#define cr_expect(a, ...) PLAIN_CHECK(false, a, #a, __VA_ARGS__)
#define cr_expect_not(a, ...) PLAIN_CHECK(false, !(a), "not " #a, __VA_ARGS__)
#define cr_expect_null(a, ...) PLAIN_SAME(false, a, ==, NULL, __VA_ARGS__)
#define cr_expect_not_null(a, ...) PLAIN_SAME(false, a, !=, NULL, __VA_ARGS__)
#define cr_expect_eq(a, b, ...) PLAIN_SAME(false, a, ==, b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) PLAIN_SAME(false, a, !=, b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) PLAIN_SAME(false, a, <, b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) PLAIN_SAME(false, a, <=, b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) PLAIN_SAME(false, a, >, b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...) PLAIN_SAME(false, a, >=, b, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) PLAIN_TEXT(false, a, ==, b, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...) PLAIN_TEXT(false, a, !=, b, __VA_ARGS__)

#define cr_skip(...) plain_skip("" __VA_ARGS__)
#define cr_skip_test(...) plain_skip("" __VA_ARGS__)
#define cr_log_warn(...) plain_say("" __VA_ARGS__)

#endif
