/*
 * meet.h - holds threads at points where they meet others.
 *
 * The core has named points (HAK_POINT, lock.h), which only test builds
 * compile. meet_hold(NAME) makes the next thread that comes to one stop, once:
 *
 *     meet_hold("sent");
 *     thread = unit_start(send, p);
 *     meet_wait();                     it stands there
 *     ...                              what shall come in between
 *     meet_go();
 *     unit_join(thread);
 */
#ifndef MEET_H
#define MEET_H

#include <semaphore.h>
#include <sys/syscall.h>

#include "os/lock.h"
#include "unit.h"

static sem_t meet_there, meet_on;
static _Atomic(const char *) meet_name;

UNIT void meet_sleep(sem_t *sem)
{
    while (sem_wait(sem) != 0) {
        NEED(errno == EINTR);
    }
}

UNIT void meet_stop(const char *name)
{
    const char *wanted = atomic_load(&meet_name);
    int saved = errno;

    if (wanted != NULL && strcmp(wanted, name) == 0 &&
        atomic_compare_exchange_strong(&meet_name, &wanted, NULL)) {
        NEED(sem_post(&meet_there) == 0);
        meet_sleep(&meet_on);
    }
    errno = saved;
}

UNIT void meet_hold(const char *name)
{
    if (atomic_load(&haki_test_meet) == NULL) {
        NEED(sem_init(&meet_there, 0, 0) == 0);
        NEED(sem_init(&meet_on, 0, 0) == 0);
        atomic_store(&haki_test_meet, meet_stop);
    }
    atomic_store(&meet_name, name);
}

UNIT void meet_wait(void)
{
    meet_sleep(&meet_there);
}

UNIT void meet_go(void)
{
    NEED(sem_post(&meet_on) == 0);
}

/* ---- a thread that shall have to wait ------------------------------------- */

struct meet_thread {
    void (*run)(void *arg);
    void *arg;
    bool has_heap; /* before it runs */
    pthread_t thread;
    sem_t start, ready;
    _Atomic(pid_t) tid;
    atomic_bool done; /* with what the core does at a thread's end */
};

static pthread_key_t meet_last;

UNIT void meet_is_done(void *arg)
{
    atomic_store(&((struct meet_thread *)arg)->done, true);
}

UNIT void *meet_run(void *arg)
{
    struct meet_thread *who = arg;

    if (who->has_heap) {
        hak_free(hak_malloc(1));
    }
    NEED(pthread_setspecific(meet_last, who) == 0);
    NEED(sem_post(&who->ready) == 0);
    meet_sleep(&who->start);
    atomic_store(&who->tid, (pid_t)syscall(SYS_gettid));
    who->run(who->arg);
    return NULL;
}

/* Starts a thread that will run run(arg) in meet_has_to_wait. */
UNIT void meet_prepare(struct meet_thread *who, bool has_heap,
                       void (*run)(void *), void *arg)
{
    memset(who, 0, sizeof(*who));
    who->run = run;
    who->arg = arg;
    who->has_heap = has_heap;
    if (meet_last == 0) { /* after the core's key, hence called after it */
        hak_free(hak_malloc(1));
        NEED(pthread_key_create(&meet_last, meet_is_done) == 0);
    }
    NEED(sem_init(&who->start, 0, 0) == 0 && sem_init(&who->ready, 0, 0) == 0);
    who->thread = unit_start(meet_run, who);
    meet_sleep(&who->ready);
}

/* Whether a thread of this process sleeps, on a lock. */
UNIT bool meet_sleeps(pid_t tid)
{
    char name[64], text[400];
    const char *end;
    ssize_t length;
    int fd;

    snprintf(name, sizeof(name), "/proc/self/task/%d/stat", (int)tid);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    length = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[length > 0 ? length : 0] = '\0';
    end = strrchr(text, ')');
    return end != NULL && end[1] == ' ' && end[2] == 'S';
}

/* Lets it run; true: it has fallen asleep before it was done. */
UNIT bool meet_has_to_wait(struct meet_thread *who)
{
    NEED(sem_post(&who->start) == 0);
    while (!atomic_load(&who->done)) {
        pid_t tid = atomic_load(&who->tid);

        if (tid != 0 && meet_sleeps(tid) && !atomic_load(&who->done)) {
            return true;
        }
        sched_yield();
    }
    return false;
}

#endif /* MEET_H */
