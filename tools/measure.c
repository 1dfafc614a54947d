/*
 * measure.c - runs a program and says what it took.
 *
 *     hakmem-measure FD PRELOAD PROGRAM ARGUMENT...
 *
 * The program gets LD_PRELOAD=PRELOAD (none if that is empty) and a process group of
 * its own. To the file descriptor FD, which the program does not have, go the lines
 *
 *     pid NUMBER                                 the program's, when it has begun
 *     exec ERRNO                                 it could not be executed
 *     end STATUS SECONDS USER SYSTEM PEAK FAULTS of wait4(2): PEAK is KB, the
 *                                                others seconds and a count
 *
 * A program of its own, and small: what a process counts as its peak begins with
 * the memory of the one that forked it, which in Python's case is 10 MB.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

/* In the child: becomes the program. */
static void become(int out, const char *preload, char **program)
{
    setpgid(0, 0);
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    if (*preload != '\0') {
        setenv("LD_PRELOAD", preload, 1);
    } else {
        unsetenv("LD_PRELOAD");
    }
    fcntl(out, F_SETFD, FD_CLOEXEC);
    execvp(program[0], program);
    dprintf(out, "exec %d\n", errno);
    _exit(127);
}

int main(int argc, char **argv)
{
    struct rusage usage;
    int out, status;
    double began;
    pid_t child;

    if (argc < 4) {
        fprintf(stderr, "usage: hakmem-measure FD PRELOAD PROGRAM...\n");
        return 2;
    }
    out = atoi(argv[1]);
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    began = now();
    child = fork();
    if (child == 0) {
        become(out, argv[2], argv + 3);
    }
    if (child < 0) {
        dprintf(out, "exec %d\n", errno);
        return 1;
    }
    dprintf(out, "pid %d\n", (int)child);
    while (wait4(child, &status, 0, &usage) < 0) {
        if (errno != EINTR) {
            return 1;
        }
    }
    dprintf(out, "end %d %.6f %.6f %.6f %ld %ld\n", status, now() - began,
            seconds(usage.ru_utime), seconds(usage.ru_stime), usage.ru_maxrss,
            usage.ru_minflt + usage.ru_majflt);
    return 0;
}
