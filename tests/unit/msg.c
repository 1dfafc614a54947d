/*
 * msg.c - tests of the one-line messages.
 */
#include "msg.h"

#include <sys/socket.h>

#include "unit.h"

TestSuite(msg, .timeout = 60);

static void say_all(void *arg)
{
    (void)arg;
    hak_msg_raw("[%s] n=%u", "X", 7u);
    hak_warn("%s=%zu", "a", (size_t)5);
}

Test(msg, raw_has_no_prefix_and_warn_has_one)
{
    unit_expect_said(say_all, NULL, "[X] n=7\nhakmem: a=5\n");
}

static void say_fatal(void *arg)
{
    hak_fatal("%s(%p): bad", "f", arg);
}

Test(msg, fatal_says_its_line_and_aborts)
{
    unit_expect_fatal(say_fatal, (void *)0x1230,
                      "hakmem: fatal: f(0x1230): bad\n");
}

static void say_percent(void *arg)
{
    hak_warn("%s", (const char *)arg);
}

Test(msg, text_is_not_a_format)
{
    unit_expect_said(say_percent, (void *)"%n%s%d", "hakmem: %n%s%d\n");
}

Test(msg, a_long_line_is_cut_and_ends_with_a_newline)
{
    static char text[2000];
    struct unit_child child;

    for (size_t length = 490; length < 530; length++) {
        memset(text, 'x', length);
        text[length] = '\0';
        unit_child(&child, say_percent, text);
        cr_assert_eq(child.status, 0);
        cr_assert_eq(strlen(child.said), length + 9 < 511 ? length + 9 : 511);
        cr_assert_eq(strchr(child.said, '\n'),
                     child.said + strlen(child.said) - 1);
        cr_assert_eq(strspn(child.said + 8, "x"), strlen(child.said) - 9);
    }
}

/* A socket that keeps writes apart shows one write for a line. */
Test(msg, a_line_is_one_write)
{
    char got[600];
    int ends[2];
    int saved = dup(STDERR_FILENO);

    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    dup2(ends[0], STDERR_FILENO);
    hak_warn("%s and %d", "one", 2);
    dup2(saved, STDERR_FILENO);
    cr_assert_eq(recv(ends[1], got, sizeof(got), MSG_DONTWAIT), 18);
    cr_assert_eq(memcmp(got, "hakmem: one and 2\n", 18), 0);
}

Test(msg, errno_is_kept_even_if_nothing_can_be_written)
{
    int saved = dup(STDERR_FILENO);

    close(STDERR_FILENO);
    errno = 1234;
    hak_warn("lost");
    cr_assert_eq(errno, 1234);
    dup2(saved, STDERR_FILENO);
}
