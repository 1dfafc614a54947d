/*
 * shared.c - a few pages that processes of the same user can look into: Linux.
 *
 * Tested by tests/command/test_share.py, in programs that must not be harmed.
 */
#include "os/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/os.h"

/* ---- whether it may be done here --------------------------------------------- */

/* Of /proc/self/status: cut off, it says nothing. */
#define STATUS 3000

/* Whether the process has no filter of system calls, as far as can be told. */
static bool shared_is_unfiltered(void)
{
    static const char field[] = "\nSeccomp:";
    char text[STATUS];
    size_t n = haki_os_read_file("/proc/self/status", text, sizeof(text));
    const char *at =
        n != 0 && n < sizeof(text) - 1 ? strstr(text, field) : NULL;

    if (at == NULL) {
        return false;
    }
    at += sizeof(field) - 1;
    return strtol(at, NULL, 10) == 0;
}

static bool shared_may_write(size_t size)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur >= size;
}

/* ---- paths: no stdio, in a thread that the C library does not know --------- */

/* Appends to a path; false: it is too long. */
static bool shared_add(char *path, const char *text)
{
    size_t used = strlen(path), length = strlen(text);

    if (used + length >= HAK_SHARED_PATH) {
        return false;
    }
    memcpy(path + used, text, length + 1);
    return true;
}

static bool shared_add_number(char *path, uint64_t number, unsigned base)
{
    char digits[24];
    size_t at = sizeof(digits) - 1;

    digits[at] = '\0';
    do {
        digits[--at] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number != 0);
    return shared_add(path, digits + at);
}

/* ---- the folder ---------------------------------------------------------------- */

static void shared_close(int fd)
{
    syscall(SYS_close, fd);
}

/* Opens a directory that is no symbolic link. */
static int shared_open_dir(int at, const char *name)
{
    return (int)syscall(SYS_openat, at, name,
                        O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* Whether it is the effective user's and others have none of the rights `barred`. */
static bool shared_is_ours(int fd, mode_t barred)
{
    struct stat status;

    return fstat(fd, &status) == 0 && status.st_uid == geteuid() &&
           (status.st_mode & barred) == 0;
}

/* The folder of that name in `at`, made if it is not there; -1: it is not ours. */
static int shared_enter(int at, const char *name)
{
    int dir;

    if (mkdirat(at, name, 0700) != 0 && errno != EEXIST) {
        return -1;
    }
    dir = shared_open_dir(at, name);
    if (dir >= 0 && !shared_is_ours(dir, 077)) {
        shared_close(dir);
        dir = -1;
    }
    return dir;
}

/*
 * Opens the folder of `parent` that begins at path + *name, with its path in `path`.
 * `whose`: its parent is to be ours, too, since the environment may be somebody
 * else's (su, sudo).
 */
static int shared_open_in(const char *parent, const char *name, bool whose)
{
    int at = (int)syscall(SYS_openat, AT_FDCWD, parent,
                          O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int dir = -1;

    if (at >= 0) {
        if (!whose || shared_is_ours(at, 022)) {
            dir = shared_enter(at, name);
        }
        shared_close(at);
    }
    return dir;
}

/* The folder for such files; its path, with a slash behind it, goes to `path`. */
static int shared_folder(char *path, const char *runtime)
{
    size_t name;
    int dir = -1;

    *path = '\0';
    if (*runtime == '/' && shared_add(path, runtime) &&
        shared_add(path, "/hakmem/")) {
        dir = shared_open_in(runtime, "hakmem", true);
    }
    if (dir < 0) {
        *path = '\0';
        shared_add(path, P_tmpdir "/");
        name = strlen(path);
        shared_add(path, "hakmem-");
        shared_add_number(path, geteuid(), 10);
        dir = shared_open_in(P_tmpdir, path + name, false);
        shared_add(path, "/");
    }
    return dir;
}

/* ---- what dead processes have left ------------------------------------------------- */

/* As getdents64(2) has it. */
struct shared_entry {
    uint64_t inode;
    int64_t next;
    uint16_t bytes; /* of the entry */
    uint8_t type;
    char name[];
};

/* So many bytes of entries are looked at, some hundred of them at a time. */
#define SHARED_ENTRIES 4096
#define SHARED_READS 16

/* Reads a number that ends with a dot; 0: there is none. */
static uint64_t shared_number(const char **text, unsigned base)
{
    char *end;
    uint64_t number = strtoull(*text, &end, (int)base);

    if (end == *text || *end != '.') {
        return 0;
    }
    *text = end + 1;
    return number;
}

/* Whether a file of this name was made by a process, not this one, that is gone. */
static bool shared_is_left(const char *name, uint64_t namespace)
{
    uint64_t pid = shared_number(&name, 10);

    return pid != 0 && pid <= INT32_MAX && pid != (uint64_t)getpid() &&
           shared_number(&name, 16) == namespace && kill((pid_t)pid, 0) != 0 &&
           errno == ESRCH;
}

/* Removes such files, some at a time, so that they never become many. */
static void shared_sweep(int dir, uint64_t namespace)
{
    _Alignas(struct shared_entry) char entries[SHARED_ENTRIES];

    for (int reads = namespace != 0 ? SHARED_READS : 0; reads > 0; reads--) {
        long n = syscall(SYS_getdents64, dir, entries, sizeof(entries));
        const struct shared_entry *entry;

        if (n <= 0) {
            return;
        }
        for (long at = 0; at < n; at += entry->bytes) {
            entry = (const void *)(entries + at);
            if (shared_is_left(entry->name, namespace)) {
                unlinkat(dir, entry->name, 0);
            }
        }
    }
}

/* ---- the file ------------------------------------------------------------------ */

/* Gives the file its blocks and maps it. NULL: refused. */
static void *shared_map(int fd, size_t size)
{
    void *memory;

    /* Not posix_fallocate: where it can't it writes, as a cancellation point. */
    if (syscall(SYS_fallocate, fd, 0, (off_t)0, (off_t)size) != 0) {
        return NULL;
    }
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory != MAP_FAILED ? memory : NULL;
}

/* Makes a file of that name, which has not been there, and maps it. */
static bool shared_create(struct hak_shared *shared, int dir, const char *name,
                          size_t size)
{
    struct stat status;
    int fd =
        (int)syscall(SYS_openat, dir, name,
                     O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int error;

    if (fd < 0) {
        return false;
    }
    if (fstat(fd, &status) == 0) {
        shared->memory = shared_map(fd, size);
    }
    error = errno;
    if (shared->memory == NULL) {
        unlinkat(dir, name, 0);
    } else {
        shared->size = size;
        shared->device = status.st_dev;
        shared->inode = status.st_ino;
    }
    shared_close(fd);
    errno = error;
    return shared->memory != NULL;
}

static bool shared_make_in(struct hak_shared *shared, int dir, size_t size,
                           uint64_t suffix)
{
    const char *name = shared->path + strlen(shared->path);

    return shared_add_number(shared->path, (uint64_t)getpid(), 10) &&
           shared_add(shared->path, ".") &&
           shared_add_number(shared->path, haki_shared_namespace(), 16) &&
           shared_add(shared->path, ".") &&
           shared_add_number(shared->path, suffix, 16) &&
           shared_create(shared, dir, name, size);
}

bool haki_shared_make(struct hak_shared *shared, const char *runtime,
                      size_t size, uint64_t suffix)
{
    int saved = errno, dir;
    bool ok = false;

    memset(shared, 0, sizeof(*shared));
    if (getauxval(AT_SECURE) == 0 && shared_is_unfiltered() &&
        shared_may_write(size)) {
        dir = shared_folder(shared->path, runtime);
        if (dir >= 0) {
            shared_sweep(dir, haki_shared_namespace());
            ok = shared_make_in(shared, dir, size, suffix);
            shared_close(dir);
        }
    }
    errno = saved;
    return ok;
}

/* ---- one more beside it ------------------------------------------------------------ */

#define SHARED_NEW ".new" /* the ending of one that is being filled */

/* Opens the folder of the file at `path`; *name: the file's, in `path`. -1: errno. */
static int shared_open_around(const char *path, const char **name)
{
    char folder[HAK_SHARED_PATH];
    const char *slash = strrchr(path, '/');
    int dir;

    memcpy(folder, path, (size_t)(slash - path));
    folder[slash - path] = '\0';
    *name = slash + 1;
    dir = shared_open_dir(AT_FDCWD, folder);
    if (dir >= 0 && !shared_is_ours(dir, 077)) {
        shared_close(dir);
        dir = -1;
        errno = EPERM;
    }
    return dir;
}

int haki_shared_begin(struct hak_shared *made, const struct hak_shared *beside,
                      size_t size)
{
    int saved = errno, error = 0, dir;
    const char *name;

    memset(made, 0, sizeof(*made));
    if (!shared_is_unfiltered()) {
        return EPERM;
    }
    if (!shared_may_write(size)) {
        return EFBIG;
    }
    if (!shared_add(made->path, beside->path) ||
        !shared_add(made->path, SHARED_NEW)) {
        return ENAMETOOLONG;
    }
    errno = 0;
    dir = shared_open_around(made->path, &name);
    if (dir >= 0) {
        unlinkat(dir, name, 0); /* a ghost's, in a child of its */
        errno = 0;
    }
    if (dir < 0 || !shared_create(made, dir, name, size)) {
        error = errno != 0 ? errno : EIO;
    }
    if (dir >= 0) {
        shared_close(dir);
    }
    errno = saved;
    return error;
}

int haki_shared_end(struct hak_shared *made, const struct hak_shared *beside,
                    const char *ending)
{
    char path[HAK_SHARED_PATH] = "";
    int saved = errno, error = 0;

    munmap(made->memory, made->size);
    if (!shared_add(path, beside->path) || !shared_add(path, ending) ||
        rename(made->path, path) != 0) {
        error = errno;
        unlink(made->path);
    }
    made->memory = NULL;
    errno = saved;
    return error;
}

void haki_shared_unlink(struct hak_shared *shared)
{
    struct stat status;
    int saved = errno;

    if (shared->memory != NULL && lstat(shared->path, &status) == 0 &&
        status.st_dev == shared->device && status.st_ino == shared->inode) {
        unlink(shared->path);
    }
    errno = saved;
}

uint64_t haki_shared_namespace(void)
{
    struct stat status;
    int saved = errno;
    bool ok = stat("/proc/self/ns/pid", &status) == 0;

    errno = saved;
    return ok ? status.st_ino : 0;
}
