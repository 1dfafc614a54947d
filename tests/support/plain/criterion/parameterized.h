/*
 * parameterized.h - tests that run once for each of several parameters; see
 * criterion.h.
 */
#ifndef PLAIN_PARAMETERIZED_H
#define PLAIN_PARAMETERIZED_H

#pragma GCC system_header

#include <criterion/criterion.h>

#define cr_make_param_array(type, array, count)                                \
    ((struct criterion_test_params){sizeof(type), (array), (count)})
#define ParameterizedTestParameters(s, n)                                      \
    static struct criterion_test_params s##_##n##_cr_params(void)
#define ParameterizedTest(param, s, n, ...)                                    \
    static void s##_##n##_cr_test(param);                                      \
    CR_REGISTER(cr_test_##s##_##n, .suite = #s, .name = #n,                    \
                .run = (void (*)(void))s##_##n##_cr_test,                      \
                .params = s##_##n##_cr_params,                                 \
                .options = {.line = __LINE__, __VA_ARGS__});                   \
    static void s##_##n##_cr_test(param)

#endif
