/*
 * filtered.c - runs itself again under a filter of system calls as systemd makes it of
 * SystemCallFilter=@system-service, which kills at all others: mincore for one. Then it
 * allocates in every lane, with threads and children, and sleeps while memory goes back.
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "program.h"

#define MB ((size_t)1 << 20)

/* What systemd 252 has and @system-service has not, as far as a program like this could
 * come upon it. */
static const unsigned short killed[] = {
    SYS_mincore,       SYS_ptrace,
    SYS_syslog,        SYS_vhangup,
    SYS_pivot_root,    SYS_adjtimex,
    SYS_chroot,        SYS_acct,
    SYS_settimeofday,  SYS_mount,
    SYS_umount2,       SYS_swapon,
    SYS_swapoff,       SYS_reboot,
    SYS_sethostname,   SYS_setdomainname,
    SYS_init_module,   SYS_delete_module,
    SYS_quotactl,      SYS_clock_settime,
    SYS_kexec_load,    SYS_perf_event_open,
    SYS_fanotify_init, SYS_fanotify_mark,
    SYS_clock_adjtime, SYS_open_by_handle_at,
    SYS_finit_module,  SYS_seccomp,
    SYS_bpf,           SYS_pkey_mprotect,
    SYS_pkey_alloc,    SYS_pkey_free};

static void filter(void)
{
    enum { CALLS = sizeof(killed) / sizeof(killed[0]) };
    struct sock_filter code[2 * CALLS + 2];
    struct sock_fprog program = {2 * CALLS + 2, code};
    int n = 0;

    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                             offsetof(struct seccomp_data, nr));
    for (int i = 0; i < CALLS; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                 killed[i], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
                                                 SECCOMP_RET_KILL_PROCESS);
    }
    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    NEED(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    NEED(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

/* Blocks of every lane, filled; one that grows and grows. */
static void *work(void *arg)
{
    enum { BLOCKS = 3000 };
    static const size_t sizes[] = {24, 300, 1000, 3000, 40000};
    void **blocks = malloc(BLOCKS * sizeof(*blocks));
    char *large = malloc(hide(MB));

    NEED(blocks != NULL && large != NULL);
    for (int i = 0; i < BLOCKS; i++) {
        size_t size = hide(sizes[i % 5]);

        blocks[i] = malloc(size);
        NEED(blocks[i] != NULL && (!has_hakmem() || owned(blocks[i])));
        fill(blocks[i], size, (unsigned)i);
    }
    memset(large, 1, MB);
    for (size_t size = 2 * MB; size <= 24 * MB; size += 2 * MB) {
        large = realloc(large, hide(size));
        NEED(large != NULL && (!has_hakmem() || owned(large)));
        memset(large, 1, size);
    }
    for (int i = 0; i < BLOCKS; i++) {
        NEED(filled(blocks[i], sizes[i % 5], (unsigned)i));
        free(blocks[i]);
    }
    free(large);
    free(blocks);
    return arg;
}

static void work_in_threads(void)
{
    pthread_t threads[4];

    for (int i = 0; i < 4; i++) {
        NEED(pthread_create(&threads[i], NULL, work, NULL) == 0);
    }
    for (int i = 0; i < 4; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
}

static void work_in_child(void)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        work_in_threads();
        exit(0);
    }
    NEED(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

int main(int argc, char **argv)
{
    if (argc == 1) {
        filter();
        execl("/proc/self/exe", argv[0], "filtered", (char *)NULL);
        NEED(!"exec");
    }
    NEED(prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == SECCOMP_MODE_FILTER);
    work(NULL);
    work_in_threads();
    work_in_child();
    usleep(1500000); /* longer than memory waits to go back */
    work_in_child();
    work(NULL);
    puts("well");
    return 0;
}
