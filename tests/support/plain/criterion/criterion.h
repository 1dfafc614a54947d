/*
 * criterion.h - the part of Criterion that our tests use, for systems that do not
 * have it (Debian 11, musl): TEST_LIBRARY=plain, or nothing, where it is missing.
 *
 * As Criterion does it, each test runs in a process of its own, started anew; what
 * is asserted in a child of that process, or in a thread, counts too.
 *
 * A test is a struct cr_test in the section cr_tests; main (criterion.c) goes
 * through them. System header: for compilers that find fault with macros that get no
 * argument for `...`.
 */
#ifndef PLAIN_CRITERION_H
#define PLAIN_CRITERION_H

#pragma GCC system_header

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cr_options {
    int line;
    double timeout; /* seconds; 0: the suite's, or none */
    bool disabled;
    void (*init)(void);
    void (*fini)(void);
};

struct criterion_test_params {
    size_t size; /* of each */
    void *params;
    size_t length;
};

struct cr_test {
    const char *suite, *name; /* name: NULL for a suite */
    void (*run)(void);
    struct criterion_test_params (*params)(void); /* or NULL */
    struct cr_options options;
};

/* Prints what is wrong; `fatal` ends the process. */
void cr_failed(bool fatal, const char *file, int line, const char *what,
               const char *format, ...) __attribute__((format(printf, 5, 6)));
void cr_skipped(const char *format, ...)
    __attribute__((format(printf, 1, 2), noreturn));
void cr_log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define CR_REGISTER(id, ...)                                                   \
    static const struct cr_test id = {__VA_ARGS__};                            \
    static const struct cr_test *const id##_entry                              \
        __attribute__((section("cr_tests"), used)) = &id

#define TestSuite(s, ...)                                                      \
    CR_REGISTER(cr_suite_##s, .suite = #s,                                     \
                .options = {.line = __LINE__, __VA_ARGS__})
#define Test(s, n, ...)                                                        \
    static void s##_##n##_cr_test(void);                                       \
    CR_REGISTER(cr_test_##s##_##n, .suite = #s, .name = #n,                    \
                .run = s##_##n##_cr_test,                                      \
                .options = {.line = __LINE__, __VA_ARGS__});                   \
    static void s##_##n##_cr_test(void)

#define CR_HOLDS(fatal, holds, what, ...)                                      \
    ((holds) ? (void)0                                                         \
             : cr_failed(fatal, __FILE__, __LINE__, what, " " __VA_ARGS__))
#define CR_COMPARE(fatal, a, op, b, ...)                                       \
    CR_HOLDS(fatal, (a)op(b), #a " " #op " " #b, __VA_ARGS__)
#define CR_TEXTS(fatal, a, op, b, ...)                                         \
    CR_HOLDS(fatal, strcmp(a, b) op 0, #a " " #op " " #b, __VA_ARGS__)

#define cr_assert(c, ...) CR_HOLDS(true, c, #c, __VA_ARGS__)
#define cr_assert_not(c, ...) CR_HOLDS(true, !(c), "!" #c, __VA_ARGS__)
#define cr_assert_null(p, ...) CR_COMPARE(true, p, ==, NULL, __VA_ARGS__)
#define cr_assert_not_null(p, ...) CR_COMPARE(true, p, !=, NULL, __VA_ARGS__)
#define cr_assert_eq(a, b, ...) CR_COMPARE(true, a, ==, b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) CR_COMPARE(true, a, !=, b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) CR_COMPARE(true, a, <, b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) CR_COMPARE(true, a, <=, b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) CR_COMPARE(true, a, >, b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) CR_COMPARE(true, a, >=, b, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) CR_TEXTS(true, a, ==, b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) CR_TEXTS(true, a, !=, b, __VA_ARGS__)
#define cr_assert_fail(...) CR_HOLDS(true, false, "reached", __VA_ARGS__)

#define cr_expect(c, ...) CR_HOLDS(false, c, #c, __VA_ARGS__)
#define cr_expect_not(c, ...) CR_HOLDS(false, !(c), "!" #c, __VA_ARGS__)
#define cr_expect_null(p, ...) CR_COMPARE(false, p, ==, NULL, __VA_ARGS__)
#define cr_expect_not_null(p, ...) CR_COMPARE(false, p, !=, NULL, __VA_ARGS__)
#define cr_expect_eq(a, b, ...) CR_COMPARE(false, a, ==, b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) CR_COMPARE(false, a, !=, b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) CR_COMPARE(false, a, <, b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) CR_COMPARE(false, a, <=, b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) CR_COMPARE(false, a, >, b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...) CR_COMPARE(false, a, >=, b, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) CR_TEXTS(false, a, ==, b, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...) CR_TEXTS(false, a, !=, b, __VA_ARGS__)

#define cr_skip(...) cr_skipped(" " __VA_ARGS__)
#define cr_skip_test(...) cr_skipped(" " __VA_ARGS__)

#endif
