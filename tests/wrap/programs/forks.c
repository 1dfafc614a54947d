/*
 * forks.c - forks while other threads allocate; the children allocate, free
 * what the parent made, start threads and end. `forks` with libatfork.so also
 * has fork handlers that allocate.
 */
#include <sys/wait.h>

#include "program.h"

void atfork_churn(void) __attribute__((weak));

enum { THREADS = 3, SLOTS = 200, FORKS = 60 };

static volatile int stop;

static void *work(void *arg)
{
    uint64_t random = (uintptr_t)arg;
    unsigned char *slots[SLOTS] = {NULL};
    size_t sizes[SLOTS];

    while (!stop) {
        size_t i = next_random(&random) % SLOTS;

        if (slots[i] != NULL) {
            NEED(filled(slots[i], sizes[i], (unsigned)i));
            free(slots[i]);
            slots[i] = NULL;
        } else {
            sizes[i] = next_random(&random) % 3000;
            slots[i] = malloc(sizes[i]);
            NEED(slots[i] != NULL);
            fill(slots[i], sizes[i], (unsigned)i);
        }
    }
    for (size_t i = 0; i < SLOTS; i++) {
        free(slots[i]);
    }
    return NULL;
}

static void *work_a_little(void *arg)
{
    for (size_t i = 0; i < 2000; i++) {
        free(malloc(i % 1500));
    }
    return arg;
}

static void child(unsigned char **made)
{
    pthread_t thread;

    alarm(250);
    for (size_t i = 0; i < 2000; i++) {
        NEED(filled(made[i], 100, (unsigned)i));
        free(made[i]);
        made[i] = malloc(200);
        NEED(made[i] != NULL);
    }
    NEED(pthread_create(&thread, NULL, work_a_little, NULL) == 0);
    NEED(pthread_join(thread, NULL) == 0);
    _exit(0);
}

int main(void)
{
    static unsigned char *made[2000];
    pthread_t threads[THREADS];

    for (size_t i = 0; i < 2000; i++) {
        made[i] = malloc(100);
        fill(made[i], 100, (unsigned)i);
    }
    for (uintptr_t i = 0; i < THREADS; i++) {
        NEED(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    }
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();
        int status;

        NEED(pid >= 0);
        if (pid == 0) {
            child(made);
        }
        if (atfork_churn != NULL) {
            atfork_churn();
        }
        NEED(waitpid(pid, &status, 0) == pid && status == 0);
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
    puts("well");
    return 0;
}
