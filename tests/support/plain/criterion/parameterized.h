/*
 * parameterized.h - tests that run once for each parameter; see criterion.h.
 */
#ifndef PLAIN_PARAMETERIZED_H
#define PLAIN_PARAMETERIZED_H
#pragma GCC system_header

#include <criterion/criterion.h>

#define ParameterizedTestParameters(suite_, name_)                             \
    static struct plain_params suite_##_##name_##_params(void)
#define cr_make_param_array(type, array, count_, ...)                          \
    ((struct plain_params){(char *)(array), sizeof(type), count_})

#define PLAIN_WITH(param_, suite_, name_, ...)                                 \
    static void suite_##_##name_##_with(param_);                               \
    PLAIN_TEST(suite_, name_, suite_##_##name_##_params, __VA_ARGS__)          \
    {                                                                          \
        suite_##_##name_##_with(plain_param);                                  \
    }                                                                          \
    static void suite_##_##name_##_with(param_)
#define ParameterizedTest(...) PLAIN_WITH(__VA_ARGS__, .last = 0)

#endif
