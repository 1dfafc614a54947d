/*
 * msg.c - tests of the one-line messages.
 */
#include "base/msg.h"

#include <sys/socket.h>
#include <sys/time.h>

#include "unit.h"

TestSuite(msg, .timeout = 300);

static void say_all(void *arg)
{
    (void)arg;
    haki_msg_raw("[%s] n=%u", "X", 7u);
    haki_warn("%s=%zu", "a", (size_t)5);
}

Test(msg, raw_has_no_prefix_and_warn_has_one)
{
    unit_expect_said(say_all, NULL, "[X] n=7\nhakmem: a=5\n");
}

static void say_fatal(void *arg)
{
    haki_fatal("%s(%p): bad", "f", arg);
}

Test(msg, fatal_says_its_line_and_aborts)
{
    unit_expect_fatal(say_fatal, (void *)0x1230,
                      "hakmem: fatal: f(0x1230): bad\n");
}

static void say_percent(void *arg)
{
    haki_warn("%s", (const char *)arg);
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
    haki_warn("%s and %d", "one", 2);
    dup2(saved, STDERR_FILENO);
    cr_assert_eq(recv(ends[1], got, sizeof(got), MSG_DONTWAIT), 18);
    cr_assert_eq(memcmp(got, "hakmem: one and 2\n", 18), 0);
}

Test(msg, errno_is_kept_even_if_nothing_can_be_written)
{
    int saved = dup(STDERR_FILENO);

    close(STDERR_FILENO);
    errno = 1234;
    haki_warn("lost");
    cr_assert_eq(errno, 1234);
    dup2(saved, STDERR_FILENO);
}

/* ---- long texts ---------------------------------------------------------- */

/* What is watched is slow: signals one on the other would be all it does. */
enum { LONG = 1 << 20, PAUSE = UNIT_WATCHED ? 1000 : 100 };
enum { EACH = UNIT_WATCHED ? 30000 : 300 };
static char long_text[LONG];

static void wake(int signal)
{
    (void)signal;
}

/* Reads all there is, slowly, and checks it. */
static void *read_slowly(void *arg)
{
    int fd = *(int *)arg;
    char part[4096];
    size_t at = 0;

    for (ssize_t n; (n = read(fd, part, sizeof(part))) != 0;) {
        NEED(n > 0 || errno == EINTR);
        NEED(n < 0 || memcmp(part, long_text + at, (size_t)n) == 0);
        at += n > 0 ? (size_t)n : 0;
        usleep(PAUSE);
    }
    NEED(at == LONG);
    return NULL;
}

/* A timer cuts the writes to a full pipe short, or off. */
static void write_long(void *arg)
{
    struct sigaction action = {.sa_handler = wake}; /* no SA_RESTART */
    struct itimerval each = {{0, EACH}, {0, EACH}};
    struct itimerval never = {{0, 0}, {0, 0}};
    pthread_t reader;
    sigset_t alarms;
    int ends[2];

    (void)arg;
    unit_fill(long_text, LONG, 5);
    NEED(pipe(ends) == 0);
    sigaction(SIGALRM, &action, NULL);
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarms, NULL);
    reader = unit_start(read_slowly, &ends[0]);
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
    NEED(setitimer(ITIMER_REAL, &each, NULL) == 0);
    errno = 77;
    haki_msg_write(ends[1], long_text, LONG);
    NEED(errno == 77);
    setitimer(ITIMER_REAL, &never, NULL);
    close(ends[1]);
    unit_join(reader);
}

Test(msg, a_long_text_is_written_to_its_end)
{
    UNIT_SKIP_IF_GCC_TSAN();
    unit_expect_said(write_long, NULL, "");
}

static void write_nowhere(void *arg)
{
    (void)arg;
    haki_msg_write(-1, "lost", 4);
}

Test(msg, a_text_that_nobody_takes_is_lost)
{
    unit_expect_said(write_nowhere, NULL, "");
}
