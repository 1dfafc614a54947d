/*
 * alone.c - calls what a process with one thread may call and one with two may
 * not, and drops privileges, while free memory waits to go back.
 */
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/wait.h>

#include "program.h"

enum { BLOCKS = 20000, SIZE = 1000, OTHER = 12345 };

static int threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int count = 0;

    NEED(tasks != NULL);
    for (struct dirent *d; (d = readdir(tasks)) != NULL;) {
        count += d->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

/* 20 MB are free; where the library is there, there are two threads then. */
static void make_due(void)
{
    static void *blocks[BLOCKS];

    do {
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = malloc(hide(SIZE));
            NEED(blocks[i] != NULL);
            fill(blocks[i], SIZE, (unsigned)i);
        }
        for (int i = 0; i < BLOCKS; i++) {
            NEED(filled(blocks[i], SIZE, (unsigned)i));
            free(blocks[i]);
        }
    } while (has_hakmem() && threads() == 1);
}

static void leave_namespace(void)
{
    NEED(unshare(CLONE_NEWUSER) == 0 || errno == EPERM || errno == ENOSPC);
    NEED(unshare(-1) == -1 && errno == EINVAL);
}

static void join_namespace(void)
{
    int fd = open("/proc/self/ns/mnt", O_RDONLY);

    NEED(fd >= 0 && (setns(fd, 0) == 0 || errno == EPERM));
    NEED(setns(-1, 0) == -1 && errno == EBADF);
}

static void give_up_rights(void)
{
    gid_t none[1] = {OTHER};

    if (getuid() != 0) {
        return;
    }
    NEED(setgroups(1, none) == 0 && threads() == 1);
    make_due();
    NEED(initgroups("root", OTHER) == 0 && threads() == 1);
    make_due();
    NEED(setegid(OTHER) == 0 && getegid() == OTHER && threads() == 1);
    NEED(setregid(0, 0) == 0 && setresgid(0, 0, 0) == 0);
    NEED(setgid(OTHER) == 0 && getgid() == OTHER);
    make_due();
    NEED(seteuid(OTHER) == 0 && geteuid() == OTHER && threads() == 1);
    NEED(setreuid(0, 0) == 0 && setresuid(0, 0, 0) == 0);
    make_due();
    NEED(setuid(OTHER) == 0 && getuid() == OTHER && threads() == 1);
    NEED(setuid(0) == -1 && errno == EPERM);
}

static void in_child(void (*act)(void))
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        make_due();
        act();
        exit(0);
    }
    NEED(child > 0 && waitpid(child, &status, 0) == child);
    NEED(status == 0);
}

int main(void)
{
    in_child(leave_namespace);
    in_child(join_namespace);
    in_child(give_up_rights);
    puts("well");
    return 0;
}
