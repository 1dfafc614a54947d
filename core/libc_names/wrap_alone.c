/*
 * wrap_alone.c - calls before which our thread must end; only in libhakmem.so.
 *
 * The C library does not know the background thread, and programs don't expect
 * it. unshare and setns refuse some requests in a process with more than one
 * thread. And privileges belong to a thread: setuid and the like change those
 * of all threads that the C library knows. So the thread ends before any of
 * these calls, as it does before a fork (background.h).
 *
 * Where the C library does more than the system call, its function is called,
 * and looked up at the first use, since few programs need one. Code that makes
 * the system calls itself bypasses this.
 *
 * Tested by tests/wrap/life.c.
 */
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "upkeep/background.h"
#include "libc_names/wrap.h"

/* A Linux call that no header of the C library declares. */
HAK_API int capset(void *header, const void *data);

static int wrap_done(long result)
{
    int saved = errno;

    haki_background_resume();
    errno = saved;
    return (int)result;
}

HAK_API int unshare(int flags)
{
    haki_background_pause();
    return wrap_done(syscall(SYS_unshare, flags));
}

HAK_API int setns(int fd, int type)
{
    haki_background_pause();
    return wrap_done(syscall(SYS_setns, fd, type));
}

HAK_API int capset(void *header, const void *data)
{
    haki_background_pause();
    return wrap_done(syscall(SYS_capset, header, data));
}

/* The C library's function; NULL, with errno set, if there is none. */
static hak_function *wrap_begin(const char *name)
{
    hak_function *next = haki_libc_next(name);

    haki_background_pause();
    if (next == NULL) {
        errno = ENOSYS;
    }
    return next;
}

/* Calls the C library's function while our thread is not running. */
#define ALONE(name, parameters, arguments)                                     \
    HAK_API int name parameters                                                \
    {                                                                          \
        int(*next) parameters = (int(*) parameters)wrap_begin(#name);          \
                                                                               \
        return wrap_done(next != NULL ? next arguments : -1);                  \
    }

ALONE(setuid, (uid_t user), (user))
ALONE(seteuid, (uid_t user), (user))
ALONE(setreuid, (uid_t real, uid_t effective), (real, effective))
ALONE(setresuid, (uid_t real, uid_t effective, uid_t saved),
      (real, effective, saved))
ALONE(setgid, (gid_t group), (group))
ALONE(setegid, (gid_t group), (group))
ALONE(setregid, (gid_t real, gid_t effective), (real, effective))
ALONE(setresgid, (gid_t real, gid_t effective, gid_t saved),
      (real, effective, saved))
ALONE(setgroups, (size_t count, const gid_t *groups), (count, groups))
/* It calls setgroups internally, not ours. */
ALONE(initgroups, (const char *user, gid_t group), (user, group))
