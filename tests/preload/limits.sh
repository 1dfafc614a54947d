#!/bin/bash
# limits - programs that set limits for themselves or are started with some: what
# they can do then is what they can do without the library.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

# Of the address space, at run time.
cat >space.py <<'CODE'
import resource, subprocess, sys, threading
gigabytes = int(sys.argv[1])
blocks = [bytes(1000) for _ in range(1000)]
resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))
block = bytearray(50 << 20)
print("50 MB", sum(block))
thread = threading.Thread(target=print, args=("a thread",))
thread.start()
thread.join()
print(subprocess.run(["echo", "a program"], capture_output=True).stdout)
held = []
try:
    while len(held) < gigabytes << 10:
        held.append(bytearray(1 << 20))
    print("no limit")
except MemoryError:
    # A little less than the whole, as programs and libraries take some.
    print("MemoryError", len(held) > (gigabytes << 10) * 3 / 4)
del held
print("again", len(bytearray(100 << 20)), len([bytes(100)] * 100000))
CODE
for gigabytes in 1 4; do
    AS=space-$gigabytes under /usr/bin/python3 space.py "$gigabytes"
done
cat >space.c <<'CODE'
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
static void *nothing(void *arg) { free(malloc(1000)); return arg; }
static int deep(int n)
{
    volatile char page[4096];
    page[0] = (char)n;
    return n ? deep(n - 1) + page[0] * 0 : 0;
}
int main(void)
{
    char *before = strdup("from before");
    struct rlimit limit = {4UL << 30, RLIM_INFINITY};
    printf("setrlimit %d\n", setrlimit(RLIMIT_AS, &limit));
    void *mapped = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("mmap %s\n", mapped == MAP_FAILED ? strerror(errno) : "ok");
    pthread_t thread;
    int error = pthread_create(&thread, NULL, nothing, NULL);
    printf("pthread_create %s\n", error ? strerror(error) : "ok");
    if (!error)
        pthread_join(thread, NULL);
    FILE *pipe = popen("echo popen ok", "r");
    char line[99] = "popen fails\n";
    if (pipe) {
        fgets(line, sizeof line, pipe);
        pclose(pipe);
    }
    fputs(line, stdout);
    static char *blocks[10000];
    size_t count = 0;
    while (count < 10000 && (blocks[count] = malloc(1 << 20)))
        blocks[count++][0] = 1;
    printf("most of the limit: %s\n", count > 3072 && count < 4097 ? "yes" : "no");
    printf("small ones %s\n", strdup(before) ? before : "none");
    while (count > 0)
        free(blocks[--count]);
    free(before);
    return deep(1000);
}
CODE
gcc -O1 -fno-builtin -pthread -o space space.c
under ./space

# Set by the shell, before the library is loaded.
for kilobytes in 300000 3000000; do
    (
        ulimit -v "$kilobytes"
        AS=shell-$kilobytes under /usr/bin/python3 -c "print('started', len(bytes(100 << 20)))"
    )
done
# Of data, of the stack, of files and of processes.
(ulimit -d 500000 && AS=data under /usr/bin/python3 -c "
print('data', len(bytes(100 << 20)))
try:
    bytearray(900 << 20)
except MemoryError:
    print('MemoryError')")
(ulimit -s 200 && AS=stack under /usr/bin/python3 -c "
import threading
threads = [threading.Thread(target=lambda: [bytes(i) for i in range(9999)])
           for _ in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print('stack')")
(ulimit -n 16 && AS=files under /usr/bin/python3 -c "
print('files', len([bytes(i) for i in range(3000)]))")
# No other process or thread may be made; root is let off.
cat >as_nobody.py <<'CODE'
import os, resource
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
print("processes", len([bytes(i) for i in range(3000)]))
CODE
AS=processes under /usr/bin/python3 as_nobody.py

# A process that may do no more than read, write and end, with what it has.
cat >strict.c <<'CODE'
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void)
{
    char *blocks[100];
    for (int i = 0; i < 100; i++)
        blocks[i] = malloc(500);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
        return 1;
    for (int i = 0; i < 100; i++)
        free(blocks[i]);
    for (int i = 0; i < 100; i++)
        memset(blocks[i] = malloc(500), i, 500);
    write(1, "strict\n", 7);
    syscall(SYS_exit, blocks[99][3] - 99);
}
CODE
gcc -O1 -fno-builtin -o strict strict.c 2>/dev/null
unserved ./strict
