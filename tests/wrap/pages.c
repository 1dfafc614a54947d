/*
 * pages.c - on kernels with pages of 16 and 64 KB, which libpages.so makes of
 * this one as far as system calls go: nothing is lost, all is served.
 */
#include "wrap_test.h"

TestSuite(pages, .timeout = 300);

#define KERNEL(kb)                                                             \
    {                                                                          \
        .preload = true, .beside = "tests/libpages.so", .env = {               \
            "TEST_PAGE_KB=" kb,                                                \
            "HAKMEM_PURGE_DELAY=100"                                           \
        }                                                                      \
    }

static const struct wrap_how kernels[] = {KERNEL("4"), KERNEL("16"),
                                          KERNEL("64")};
enum { KERNELS = sizeof kernels / sizeof *kernels };

Test(pages, contents_stay_while_memory_goes_back)
{
    for (int i = 0; i < KERNELS; i++) {
        wrap_expect(&kernels[i], "well\n", "", wrap_program("plain/pages"));
    }
}

Test(pages, cxx_is_served)
{
    for (int i = 0; i < KERNELS; i++) {
        wrap_expect(&kernels[i], "owned: 1 1 1\nwell\n", "",
                    wrap_program("plain/cxx"));
    }
}

Test(pages, forks_while_other_threads_allocate)
{
    for (int i = 0; i < KERNELS; i++) {
        wrap_expect(&kernels[i], "well\n", "", wrap_program("plain/forks"));
    }
}

Test(pages, programs_see_what_glibc_shows)
{
    static const struct wrap_how alone;
    struct wrap_said glibc, ours;

    wrap_run(&glibc, &alone, wrap_program("plain/behaviour"));
    for (int i = 0; i < KERNELS; i++) {
        wrap_run(&ours, &kernels[i], wrap_program("plain/behaviour"));
        cr_assert(strcmp(glibc.out, ours.out) == 0);
        wrap_done(&ours);
    }
    wrap_done(&glibc);
}
