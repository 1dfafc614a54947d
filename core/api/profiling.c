/*
 * profiling.c - hak_profile_*, and the profile that the environment asks for.
 *
 * Tested by tests/unit/profile/written.c.
 */
#include "api/profiling.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <hakmem.h>

#include "api/stats.h"
#include "base/msg.h"
#include "heap/thread.h"
#include "profile/view.h"
#include "settings/options.h"

HAK_STATS_AT_END(profiling);

#define PATH_MOST 4096

/* Who writes uses the symbols' tables and one file's name. */
static pid_t profiling_process;          /* that read the environment */
static char profiling_folder[PATH_MOST]; /* in which it then was, or "" */

static const struct {
    const char *ending;
    int format;
} profiling_endings[] = {{".pb.gz", HAK_PROFILE_PPROF},
                         {".txt", HAK_PROFILE_COLLAPSED},
                         {".json", HAK_PROFILE_SPEEDSCOPE},
                         {".html", HAK_PROFILE_PAGE}};

#define ENDINGS (sizeof(profiling_endings) / sizeof(profiling_endings[0]))

/* What was switched on holds for who calls at once, not only when a bin is empty; what
 * is returned is errno's usual. */
static int profiling_take_part(bool done)
{
    struct hak_heap *heap = done ? haki_thread_own() : NULL;

    if (heap != NULL) {
        haki_heap_draw(heap);
    }
    return done ? 0 : -1;
}

int hak_profile_start(size_t rate)
{
    return profiling_take_part(haki_profile_set(rate != 0 ? rate
                                                          : HAK_PROFILE_RATE));
}

void hak_profile_stop(void)
{
    haki_profile_set(0);
}

void hak_profile_mark(void)
{
    haki_profile_mark();
}

size_t hak_profile_rate(void)
{
    return atomic_load(&haki_profile.rate);
}

/* ---- guards ---------------------------------------------------------------------- */

int hak_guard_start(size_t rate)
{
    return profiling_take_part(haki_profile_set_guards(
        rate != 0 ? rate : HAK_GUARD_RATE, haki_option(HAK_OPT_guard_memory)));
}

void hak_guard_stop(void)
{
    haki_profile_set_guards(0, 0);
}

size_t hak_guard_rate(void)
{
    return atomic_load(&haki_profile.guards);
}

/* ---- writing --------------------------------------------------------------------- */

/* The format that the file's name ends with, or HAK_PROFILE_BY_NAME. */
static int profiling_format_of(const char *path)
{
    size_t length = strlen(path);

    for (size_t i = 0; i < ENDINGS; i++) {
        size_t n = strlen(profiling_endings[i].ending);

        if (length > n &&
            strcmp(path + length - n, profiling_endings[i].ending) == 0) {
            return profiling_endings[i].format;
        }
    }
    return HAK_PROFILE_BY_NAME;
}

static void profiling_put(struct hak_out *out, struct hak_view *view,
                          struct hak_view *grown, int format,
                          const struct hak_view_wish *wish)
{
    switch (format) {
    case HAK_PROFILE_PPROF: haki_write_pprof(out, view); break;
    case HAK_PROFILE_COLLAPSED: haki_write_collapsed(out, view, wish); break;
    case HAK_PROFILE_SPEEDSCOPE: haki_write_speedscope(out, view, wish); break;
    default: haki_write_page(out, view, grown, wish); break;
    }
}

/* The profile in that format; false: errno says why. */
static bool profiling_make(struct hak_out *out, int format, unsigned flags)
{
    struct hak_view_wish wish = {
        .alloc = (flags & HAK_PROFILE_ALLOCATED) != 0,
        .count = (flags & HAK_PROFILE_BLOCKS) != 0,
        .grown = (flags & HAK_PROFILE_GROWN) != 0,
    };
    bool page = format == HAK_PROFILE_PAGE;
    struct hak_view *view = haki_view_open(wish.grown && !page);
    struct hak_view *grown = NULL;

    if (view == NULL) {
        return false;
    }
    if (page && haki_profile_is_marked()) {
        grown = haki_view_open(true);
    }
    profiling_put(out, view, grown, format, &wish);
    if (grown != NULL) {
        haki_view_close(grown);
    }
    haki_view_close(view);
    return true;
}

int haki_profiling_write(struct hak_stacks *stacks, int fd, int format)
{
    const struct hak_view_wish wish = {false, false, false};
    struct hak_out out = {NULL, 0, 0, false};
    struct hak_view *view = haki_view_of(stacks);
    bool done;

    if (view == NULL) {
        return -1;
    }
    profiling_put(&out, view, NULL, format, &wish);
    haki_view_close(view);
    done = haki_out_write(&out, fd);
    haki_out_drop(&out);
    return done ? 0 : -1;
}

static int profiling_write_fd(int fd, int format, unsigned flags)
{
    struct hak_out out = {NULL, 0, 0, false};
    bool done;

    if (format <= HAK_PROFILE_BY_NAME || format > HAK_PROFILE_PAGE ||
        (flags & ~(unsigned)HAK_PROFILE_FLAGS) != 0) {
        errno = EINVAL;
        return -1;
    }
    done = profiling_make(&out, format, flags) && haki_out_write(&out, fd);
    haki_out_drop(&out);
    return done ? 0 : -1;
}

/* Puts this process's number in place of %p. False: it is too long. */
static bool profiling_expand(char *to, size_t room, const char *path)
{
    size_t used = 0;

    for (; *path != '\0' && used < room; path++) {
        int n = 1;

        if (path[0] == '%' && path[1] == 'p') {
            n = snprintf(to + used, room - used, "%d", (int)getpid());
            path++;
        } else {
            to[used] = *path;
        }
        used += (size_t)n;
    }
    if (used >= room) {
        errno = ENAMETOOLONG;
        return false;
    }
    to[used] = '\0';
    return true;
}

/* Writes it there; -1: errno. */
static int profiling_write_open(const char *name, int how, int format,
                                unsigned flags)
{
    int fd = open(name, how | O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    int result, saved;

    if (fd < 0) {
        return -1;
    }
    result = profiling_write_fd(fd, format, flags);
    saved = errno;
    if (close(fd) != 0 && result == 0) {
        return -1;
    }
    errno = saved;
    return result;
}

/* Another file is filled and takes the name then, so that there is a whole profile or
 * the one of before. What is no plain file (a pipe, a link) is written to. */
static int profiling_write_file(const char *name, int format, unsigned flags)
{
    char fresh[PATH_MOST + 16];
    struct stat status;
    int saved;

    if (lstat(name, &status) == 0 && !S_ISREG(status.st_mode)) {
        return profiling_write_open(name, O_TRUNC, format, flags);
    }
    snprintf(fresh, sizeof(fresh), "%s.%d", name, (int)getpid());
    unlink(fresh);
    if (profiling_write_open(fresh, O_EXCL, format, flags) == 0 &&
        rename(fresh, name) == 0) {
        return 0;
    }
    saved = errno;
    if (saved == EACCES) { /* the folder's; the file may be ours */
        return profiling_write_open(name, O_TRUNC, format, flags);
    }
    unlink(fresh);
    errno = saved;
    return -1;
}

static int profiling_write(const char *path, int format, unsigned flags)
{
    char name[PATH_MOST];

    if (format == HAK_PROFILE_BY_NAME) {
        format = profiling_format_of(path);
    }
    if (format == HAK_PROFILE_BY_NAME) {
        errno = EINVAL;
        return -1;
    }
    return profiling_expand(name, sizeof(name), path)
               ? profiling_write_file(name, format, flags)
               : -1;
}

int hak_profile_write_fd(int fd, int format, unsigned flags)
{
    return profiling_write_fd(fd, format, flags);
}

int hak_profile_write(const char *path, int format, unsigned flags)
{
    return profiling_write(path, format, flags);
}

/* ---- by the environment ------------------------------------------------------------ */

static void profiling_begin_guards(void)
{
    size_t rate = secure_getenv("HAKMEM_GUARD_RATE") != NULL
                      ? haki_option(HAK_OPT_guard_rate)
                      : 0;

    if (rate != 0 && hak_guard_start(rate) != 0) {
        haki_warn("HAKMEM_GUARD_RATE: there is no memory for guards");
    }
}

__attribute__((constructor)) static void profiling_begin(void)
{
    size_t rate;

    profiling_begin_guards();
    /* Not by the options: they are read when they are first needed. */
    if (secure_getenv("HAKMEM_PROFILE") == NULL &&
        secure_getenv("HAKMEM_PROFILE_RATE") == NULL) {
        return;
    }
    rate = haki_option(HAK_OPT_profile_rate);
    if (haki_option(HAK_OPT_profile) == 0 && rate == 0) {
        return;
    }
    profiling_process = getpid();
    /* A daemon goes elsewhere. */
    if (getcwd(profiling_folder, sizeof(profiling_folder)) == NULL) {
        profiling_folder[0] = '\0';
    }
    if (hak_profile_start(rate) != 0) {
        haki_warn("HAKMEM_PROFILE: there is no memory for a profile");
    }
}

static _Atomic(pid_t) profiling_written;

/* The file that this process writes, or NULL. */
static const char *profiling_path(void)
{
    const char *path = profiling_process != 0 ? haki_option_profile() : NULL;

    return path != NULL &&
                   (getpid() == profiling_process || strstr(path, "%p") != NULL)
               ? path
               : NULL;
}

/* Where that is: relative to the folder in which the program began. */
static int profiling_write_asked(const char *path)
{
    char whole[PATH_MOST];
    int n;

    if (*path == '/' || *profiling_folder == '\0') {
        return profiling_write(path, HAK_PROFILE_BY_NAME, 0);
    }
    n = snprintf(whole, sizeof(whole), "%s/%s", profiling_folder, path);
    if (n < 0 || (size_t)n >= sizeof(whole)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return profiling_write(whole, HAK_PROFILE_BY_NAME, 0);
}

void haki_profiling_write_now(void)
{
    const char *path = profiling_path();

    if (path == NULL) {
        return;
    }
    atomic_store(&profiling_written, getpid());
    if (profiling_write_asked(path) != 0) {
        haki_warn("HAKMEM_PROFILE=%s: the profile can't be written: %s", path,
                  strerror(errno));
    }
}

void haki_profiling_at_end(void)
{
    if (atomic_load(&profiling_written) != getpid()) {
        haki_profiling_write_now();
    }
}
