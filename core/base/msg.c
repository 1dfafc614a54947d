/*
 * msg.c - one-line messages to standard error, without allocating.
 *
 * vsnprintf does not allocate for the conversions used here (%s %p %zu %d).
 */
#include "base/assert.h"
#include "base/msg.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 512, KEPT_FROM = 100 };

/* Set by haki_msg_keep; -1: nothing is kept. */
static int msg_kept = -1;
static struct stat msg_kept_file;

static atomic_uint msg_writing; /* threads */

bool haki_msg_any_writes(void)
{
    return atomic_load(&msg_writing) != 0;
}

void haki_msg_keep(void)
{
    int saved = errno;

    /*
     * A high number: programs may rely on getting the lowest free descriptors.
     */
    if (msg_kept < 0 && fstat(STDERR_FILENO, &msg_kept_file) == 0) {
        msg_kept = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, KEPT_FROM);
    }
    errno = saved;
}

static bool msg_is_kept_file(int fd)
{
    struct stat file;

    return fstat(fd, &file) == 0 && file.st_dev == msg_kept_file.st_dev &&
           file.st_ino == msg_kept_file.st_ino;
}

int haki_msg_fd(void)
{
    int saved = errno;
    int fd = STDERR_FILENO;

    if (msg_kept >= 0 && !msg_is_kept_file(fd)) {
        fd = msg_is_kept_file(msg_kept) ? msg_kept : -1;
    }
    errno = saved;
    return fd;
}

/*
 * write() is a cancellation point, and this thread may hold a lock of ours; the
 * bare system call is not one.
 */
void haki_msg_write(int fd, const char *text, size_t length)
{
    int saved = errno;

    atomic_fetch_add(&msg_writing, 1);
    while (length > 0) {
        long n = syscall(SYS_write, fd, text, length);

        if (n == 0 || (n < 0 && errno != EINTR)) {
            break; /* nothing can be done about it */
        }
        text += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    atomic_fetch_sub(&msg_writing, 1);
    errno = saved;
}

static void msg_put_line(const char *prefix, const char *format, va_list args)
{
    char line[LINE_MAX_BYTES];
    int head = snprintf(line, sizeof(line) - 1, "%s", prefix);
    int body =
        vsnprintf(line + head, sizeof(line) - 1 - (size_t)head, format, args);
    size_t length = (size_t)head + (body > 0 ? (size_t)body : 0);

    length = haki_min(length, sizeof(line) - 2);
    line[length++] = '\n';
    haki_msg_write(haki_msg_fd(), line, length);
}

void haki_msg_raw(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    msg_put_line("", format, args);
    va_end(args);
}

void haki_warn(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    msg_put_line("hakmem: ", format, args);
    va_end(args);
}

void haki_fatal(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    msg_put_line("hakmem: fatal: ", format, args);
    va_end(args);
    abort();
}

/* ---- assert.h ---------------------------------------------------------------- */

/* The file's name without its directory. */
static const char *msg_file(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

void haki_check_failed(const char *what, const char *file, int line)
{
    haki_fatal(
        "%s:%d: check failed: %s; usually the program has freed a block twice "
        "or written to freed memory: make HARDENED=1 tells where",
        msg_file(file), line, what);
}

void haki_assert_failed(const char *what, const char *file, int line)
{
    haki_fatal("%s:%d: assertion failed: %s; this is a fault in hakmem, please "
               "report it",
               msg_file(file), line, what);
}
