/*
 * wrap_alone.c - what a thread of ours would be in the way of; only in
 * libhakmem.so.
 *
 * The background thread is one that the C library does not know, and
 * programs don't expect. unshare and setns refuse a process with more than one
 * thread what they would do for one that is alone; and rights belong to a thread:
 * setuid and its kin change those of all threads that the C library knows. So
 * before any of them the thread ends, as before a fork (background.h).
 *
 * Where the C library does more than the system call its function is asked, and
 * looked up for that, at the first use: few programs have one. What calls the
 * kernel by itself passes this by.
 */
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "upkeep/background.h"
#include "libc_names/wrap.h"

/* Linux's; no header of the C library's has it. */
HAK_API int capset(void *header, const void *data);

static int done(long result)
{
    int saved = errno;

    hak_background_resume();
    errno = saved;
    return (int)result;
}

HAK_API int unshare(int flags)
{
    hak_background_pause();
    return done(syscall(SYS_unshare, flags));
}

HAK_API int setns(int fd, int type)
{
    hak_background_pause();
    return done(syscall(SYS_setns, fd, type));
}

HAK_API int capset(void *header, const void *data)
{
    hak_background_pause();
    return done(syscall(SYS_capset, header, data));
}

/* The C library's function; NULL, and errno, if there is none. */
static hak_function *begin(const char *name)
{
    hak_function *next = hak_libc_next(name);

    hak_background_pause();
    if (next == NULL) {
        errno = ENOSYS;
    }
    return next;
}

#define ASK(name, types, ...)                                                  \
    __extension__({                                                            \
        int(*next) types = (int(*) types)begin(#name);                         \
                                                                               \
        done(next != NULL ? next(__VA_ARGS__) : -1);                           \
    })

HAK_API int setuid(uid_t user)
{
    return ASK(setuid, (uid_t), user);
}

HAK_API int seteuid(uid_t user)
{
    return ASK(seteuid, (uid_t), user);
}

HAK_API int setreuid(uid_t real, uid_t effective)
{
    return ASK(setreuid, (uid_t, uid_t), real, effective);
}

HAK_API int setresuid(uid_t real, uid_t effective, uid_t saved)
{
    return ASK(setresuid, (uid_t, uid_t, uid_t), real, effective, saved);
}

HAK_API int setgid(gid_t group)
{
    return ASK(setgid, (gid_t), group);
}

HAK_API int setegid(gid_t group)
{
    return ASK(setegid, (gid_t), group);
}

HAK_API int setregid(gid_t real, gid_t effective)
{
    return ASK(setregid, (gid_t, gid_t), real, effective);
}

HAK_API int setresgid(gid_t real, gid_t effective, gid_t saved)
{
    return ASK(setresgid, (gid_t, gid_t, gid_t), real, effective, saved);
}

HAK_API int setgroups(size_t count, const gid_t *groups)
{
    return ASK(setgroups, (size_t, const gid_t *), count, groups);
}

/* It calls setgroups, but not ours. */
HAK_API int initgroups(const char *user, gid_t group)
{
    return ASK(initgroups, (const char *, gid_t), user, group);
}
