/*
 * os_ask.c - what is mapped and what is in memory: Linux. Layer os.
 *
 * Tested by tests/unit/os/os_linux.c, tests/wrap/life.c.
 */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Pages that haki_os_resident looks at, at most. */
#define OS_ASK_MOST 128

/* Where the machine's page begins that holds this address. */
static uintptr_t os_ask_page_of(uintptr_t addr)
{
    return addr & ~(haki_os_page_size() - 1);
}

/*
 * Whether the process was started with a filter of system calls: asked for at its start,
 * since one that it makes for itself may forbid the question.
 */
static atomic_int os_filtered; /* 1: no, 2: yes */
static bool os_is_filtered(void)
{
    int answer = atomic_load_explicit(&os_filtered, memory_order_relaxed);

    if (HAK_UNLIKELY(answer == 0)) {
        answer = prctl(PR_GET_SECCOMP, 0, 0, 0, 0) > 0 ? 2 : 1;
        atomic_store_explicit(&os_filtered, answer, memory_order_relaxed);
    }
    return answer == 2;
}

#ifdef HAK_TESTING
void haki_os_test_filtered(bool filtered)
{
    atomic_store(&os_filtered, filtered ? 2 : 1);
}
#endif

void haki_os_ask_begin(void)
{
    (void)os_is_filtered();
}

/*
 * With MS_ASYNC msync writes nothing, but says ENOMEM where nothing is mapped; and filters
 * that allow files and memory allow it, as systemd's @system-service does, which kills at
 * mincore. (valgrind reports msync as an error.) The bare call: the C library's is a
 * cancellation point.
 */
bool haki_os_is_mapped(const void *p)
{
    uintptr_t at = os_ask_page_of((uintptr_t)p);
    int saved = errno;
    unsigned char page;
    bool mapped = (os_is_filtered() ? syscall(SYS_msync, at, 1L, (long)MS_ASYNC)
                                    : mincore((void *)at, 1, &page)) == 0 ||
                  errno != ENOMEM;

    errno = saved;
    return mapped;
}

/* A futex wait reads the word first: EFAULT if it can't. The wait itself takes no time. */
bool haki_os_can_read(const void *p)
{
    static const struct timespec none = {0, 0};
    int saved = errno;
    bool can = syscall(SYS_futex, p, (long)(HAK_FUTEX_WAIT | HAK_FUTEX_PRIVATE),
                       0x5a5aa5a5L, &none, NULL, 0L) == 0 ||
               errno != EFAULT;

    errno = saved;
    return can;
}

/* What a machine's page has in /proc/self/pagemap if it is in memory. */
#define OS_PRESENT (UINT64_C(1) << 63)

/* What mincore would say, from a file, where calling it might kill the process. Pages
 * that the file does not tell of are 0. */
static void os_pagemap(uintptr_t first, size_t count, unsigned char *pages)
{
    uint64_t entry[OS_ASK_MOST];
    long got = 0, fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap",
                               O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        got = syscall(SYS_pread64, fd, entry, count * sizeof(*entry),
                      (long)(first / haki_os_page_size() * sizeof(*entry)));
        syscall(SYS_close, fd);
    }
    for (size_t i = 0; i < count; i++) {
        bool told = got >= (long)((i + 1) * sizeof(*entry));

        pages[i] = told && (entry[i] & OS_PRESENT) != 0;
    }
}

size_t haki_os_resident(void *addr, size_t size)
{
    unsigned char pages[OS_ASK_MOST];
    uintptr_t at = (uintptr_t)addr, first = os_ask_page_of(at);
    uintptr_t end = at + haki_min(size, sizeof(pages) * HAK_PAGE);
    size_t page = haki_os_page_size(), bytes = 0;
    int saved = errno;
    bool told = true;

    if (os_is_filtered()) {
        os_pagemap(first, (end - first + page - 1) / page, pages);
    } else {
        told = mincore((void *)first, end - first, pages) == 0;
    }
    for (; told && at < end; at += HAK_PAGE) {
        bytes += pages[(at - first) / page] & 1 ? HAK_PAGE : 0;
    }
    errno = saved;
    return bytes;
}
