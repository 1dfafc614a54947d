/*
 * record_file.c - the trace's file: its name, its head, its blocks; see recorder.h.
 *
 * HAKMEM_RECORD names it. The first process makes it (the command `hakmem record`
 * removes an old one); another one that finds it there, a forked child or a program
 * that it executed, makes FILE.PID, or with HAKMEM_RECORD_ONLY=1 none. A process has
 * one file: a program that it executes begins it anew, so that of a shell script
 * that ends in `exec program` the program remains. A forked child makes its file when
 * it has something to write, so that one that executes soon leaves none behind.
 *
 * Programs close descriptors that are not theirs, and open files that get the same
 * number: before each block the file is looked at, and opened again.
 */
#define ZSTD_STATIC_LINKING_ONLY
#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

enum { LEVEL = 1, HIGH_FD = 200, NAME_MORE = 32, WORDS_MAX = 8 };

static struct {
    char base[PATH_MAX];             /* HAKMEM_RECORD, absolute */
    char path[PATH_MAX + NAME_MORE]; /* the file's own; empty: not made yet */
    bool only;                       /* no children */
    int fd;
    pid_t pid; /* whose it is */
    dev_t device;
    ino_t inode;
    uint32_t number; /* of the next block */
    void *context;   /* zstd's room, and its size */
    size_t room;
    uint8_t *packed;
} file = {.fd = -1};

static const char *reason(int error)
{
#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 32)
    const char *text = strerrordesc_np(error);

    return text ? text : "unknown error";
#endif
#endif
    return strerror(error);
}

void record_say(const char *word, ...)
{
    struct iovec parts[WORDS_MAX + 2];
    int count = 0;
    va_list words;

    parts[count++] = (struct iovec){"hakmem record: ", 15};
    va_start(words, word);
    for (; word && count <= WORDS_MAX; word = va_arg(words, const char *)) {
        parts[count++] = (struct iovec){(char *)word, strlen(word)};
    }
    va_end(words);
    parts[count++] = (struct iovec){"\n", 1};
    if (writev(STDERR_FILENO, parts, count) < 0) {
        return; /* whom could we tell? */
    }
}

/* ---- writing -------------------------------------------------------------- */

/*
 * All of it, or errno. A file that may not grow further is an error like others:
 * SIGXFSZ would end the program.
 */
static bool write_all(const uint8_t *from, size_t bytes)
{
    sigset_t one, before;
    int error = 0;

    sigemptyset(&one);
    sigaddset(&one, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &one, &before);
    while (bytes > 0 && error == 0) {
        const ssize_t wrote = write(file.fd, from, bytes);

        if (wrote > 0) {
            from += wrote;
            bytes -= (size_t)wrote;
        } else if (wrote == 0 || errno != EINTR) {
            error = wrote == 0 ? ENOSPC : errno;
        }
    }
    if (error == EFBIG) {
        const struct timespec now = {0};

        sigtimedwait(&one, NULL, &now);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return error == 0;
}

static bool write_head(void)
{
    static uint8_t text[TRACE_TEXT_MAX];
    uint8_t head[TRACE_HEAD_BYTES];
    struct timespec now;
    size_t bytes = 0;
    const int line = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);

    if (line >= 0) {
        ssize_t got = 1;

        while (bytes < sizeof text && got > 0) {
            got = read(line, text + bytes, sizeof text - bytes);
            bytes += got > 0 ? (size_t)got : 0;
        }
        close(line);
    }
    clock_gettime(CLOCK_REALTIME, &now);
    const uint64_t began =
        (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;

    memcpy(head, TRACE_MAGIC, 8);
    trace_put_u32(head + 8, TRACE_VERSION);
    trace_put_u32(head + 12, (uint32_t)bytes);
    trace_put_u32(head + 16, (uint32_t)file.pid);
    trace_put_u32(head + 20, (uint32_t)sysconf(_SC_PAGESIZE));
    trace_put_u32(head + 24, (uint32_t)began);
    trace_put_u32(head + 28, (uint32_t)(began >> 32));
    trace_put_u32(head + 32, 0);
    const uint32_t crc = trace_crc(trace_crc(0, head, 36), text, bytes);

    trace_put_u32(head + 36, crc);
    return write_all(head, sizeof head) && write_all(text, bytes);
}

/* Takes `fd` as the trace's, up where programs look for none. */
static void take_fd(int fd)
{
    const int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);

    if (high >= 0) {
        close(fd);
        fd = high;
    }
    file.fd = fd;
}

/* Opens file.path, if there is none or it is this process's; -1: errno says. */
static int file_claim(void)
{
    uint8_t head[TRACE_HEAD_BYTES];
    int fd =
        open(file.path, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);

    if (fd >= 0 || errno != EEXIST) {
        return fd;
    }
    fd = open(file.path, O_RDWR | O_APPEND | O_CLOEXEC);
    if (fd >= 0 && pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head &&
        trace_get_u32(head + 16) == (uint32_t)file.pid &&
        ftruncate(fd, 0) == 0) {
        return fd;
    }
    if (fd >= 0) {
        close(fd);
        errno = EEXIST;
    }
    return -1;
}

/* Makes the process's file, a forked child's or any; false: there is none. */
static bool file_make(bool child)
{
    struct stat status;
    int fd = -1;

    if (!child) {
        strcpy(file.path, file.base);
        fd = file_claim();
        child = fd < 0 && errno == EEXIST;
    }
    if (child) {
        if (file.only) {
            return false;
        }
        /* There is room: file_start. */
        sprintf(file.path, "%s.%d", file.base, (int)file.pid);
        fd = file_claim();
    }
    if (fd >= 0) {
        take_fd(fd);
        if (fstat(file.fd, &status) == 0) {
            file.device = status.st_dev;
            file.inode = status.st_ino;
            file.number = 0;
            if (write_head()) {
                return true;
            }
        }
    }
    record_say(file.path, ": ", reason(errno),
               "; this process is not recorded, and goes on", (char *)NULL);
    return false;
}

/* Whether file.fd is the file; opened again if it was taken from us. */
static bool file_is_ours(void)
{
    struct stat status;

    if (fstat(file.fd, &status) == 0 && status.st_dev == file.device &&
        status.st_ino == file.inode) {
        return true;
    }
    const int fd = open(file.path, O_WRONLY | O_APPEND | O_CLOEXEC);

    if (fd < 0) {
        return false;
    }
    if (fstat(fd, &status) != 0 || status.st_dev != file.device ||
        status.st_ino != file.inode) {
        close(fd);
        errno = ESTALE;
        return false;
    }
    take_fd(fd);
    return true;
}

bool file_is_mine(void)
{
    return file.pid == getpid();
}

bool file_write(const uint8_t *raw, size_t bytes)
{
    uint8_t *const head = file.packed;
    size_t packed = 0;

    if (!file_is_mine()) {
        return false; /* a copy of the process that no fork handler knows of */
    }
    if (file.path[0] == '\0' && !file_make(true)) {
        return false;
    }
    if (bytes > 0) {
        packed = ZSTD_compressCCtx(file.context, head + TRACE_BLOCK_BYTES,
                                   ZSTD_compressBound(TRACE_RAW_MAX), raw,
                                   bytes, LEVEL);
        if (ZSTD_isError(packed)) {
            record_say(file.path, ": ", ZSTD_getErrorName(packed),
                       (char *)NULL);
            return false;
        }
    }
    trace_put_u32(head, TRACE_BLOCK);
    trace_put_u32(head + 4, file.number++);
    trace_put_u32(head + 8, (uint32_t)bytes);
    trace_put_u32(head + 12, (uint32_t)packed);
    trace_put_u32(head + 16, trace_crc(trace_crc(0, head, 16),
                                       head + TRACE_BLOCK_BYTES, packed));
    if (file_is_ours() && write_all(head, TRACE_BLOCK_BYTES + packed)) {
        return true;
    }
    record_say(file.path, ": ", reason(errno),
               "; the trace ends here, the program goes on", (char *)NULL);
    return false;
}

/* ---- beginning ------------------------------------------------------------ */

/* zstd's room and that of a packed block. */
static bool file_rooms(void)
{
    const size_t context = ZSTD_estimateCCtxSize(LEVEL);
    const size_t packed = TRACE_BLOCK_BYTES + ZSTD_compressBound(TRACE_RAW_MAX);
    uint8_t *room = mmap(NULL, context + packed, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (room == MAP_FAILED) {
        return false;
    }
    file.packed = room + context;
    file.context = ZSTD_initStaticCCtx(room, context);
    return file.context != NULL;
}

bool file_start(void)
{
    const char *name = getenv("HAKMEM_RECORD");
    const char *only = getenv("HAKMEM_RECORD_ONLY");
    size_t length = 0;

    if (name == NULL || *name == '\0') {
        return false;
    }
    if (*name != '/') {
        if (getcwd(file.base, PATH_MAX - 1) == NULL) {
            record_say(name, ": ", reason(errno), "; nothing is recorded",
                       (char *)NULL);
            return false;
        }
        length = strlen(file.base);
        file.base[length++] = '/';
    }
    if (length + strlen(name) >= PATH_MAX) {
        record_say(name, ": the name is too long; nothing is recorded",
                   (char *)NULL);
        return false;
    }
    strcpy(file.base + length, name);
    file.only = only && *only == '1';
    file.pid = getpid();
    if (!file_rooms()) {
        record_say("no memory; nothing is recorded", (char *)NULL);
        return false;
    }
    return file_make(false);
}

void file_forked(void)
{
    if (file.fd >= 0) {
        close(file.fd);
    }
    file.fd = -1;
    file.path[0] = '\0';
    file.pid = getpid();
}
