/*
 * libgit2.c - stands in for libgit2 where tests run under valgrind.
 *
 * Criterion needs libgit2 for its new-style assertions on texts alone
 * (cr_assert(eq(str, ...))), which no test of ours uses. With libgit2 come 15
 * libraries, which the process of each test loads: a third of its time under
 * valgrind.
 */
#include <stdio.h>
#include <stdlib.h>

int git_libgit2_init(void);
int git_libgit2_shutdown(void);
int git_diff_buffers(void);

int git_libgit2_init(void)
{
    return 1;
}

int git_libgit2_shutdown(void)
{
    return 0;
}

int git_diff_buffers(void)
{
    fputs("tests/support/nogit: a test compares texts in Criterion's new style;"
          " use cr_assert_str_eq\n",
          stderr);
    abort();
}
