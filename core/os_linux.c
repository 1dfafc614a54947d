/*
 * os_linux.c - the operating system layer for Linux.
 */
#include "os.h"

#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>

/* Values of the kernel's interface that older libc headers lack. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

#ifdef HAK_TESTING
static atomic_uint test_calls;
static atomic_uint test_refuse_at;
static atomic_bool test_forever;

void hak_os_test_refuse(unsigned n, bool forever)
{
    atomic_store(&test_calls, 0);
    atomic_store(&test_refuse_at, n);
    atomic_store(&test_forever, forever);
}

unsigned hak_os_test_calls(void)
{
    return atomic_load(&test_calls);
}

static bool refused(void)
{
    unsigned call = atomic_fetch_add(&test_calls, 1) + 1;
    unsigned at = atomic_load(&test_refuse_at);

    return at != 0 && (call == at || (call > at && atomic_load(&test_forever)));
}
#else
static bool refused(void)
{
    return false;
}
#endif

static void *map(size_t size, int protection)
{
    void *addr;

    if (refused()) {
        return NULL;
    }
    addr = mmap(NULL, size, protection,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return addr == MAP_FAILED ? NULL : addr;
}

void *hak_os_reserve(size_t size, size_t align)
{
    char *addr = map(size + align, PROT_NONE);
    size_t head;

    if (addr == NULL) {
        return NULL;
    }
    head = hak_round_up((uintptr_t)addr, align) - (uintptr_t)addr;
    if (head > 0) {
        munmap(addr, head);
    }
    if (align > head) {
        munmap(addr + head + size, align - head);
    }
    return addr + head;
}

bool hak_os_commit(void *addr, size_t size)
{
    return !refused() && mprotect(addr, size, PROT_READ | PROT_WRITE) == 0;
}

void hak_os_want_huge(void *addr, size_t size)
{
    (void)madvise(addr, size, MADV_HUGEPAGE);
}

bool hak_os_populate(void *addr, size_t size)
{
    static atomic_bool cannot;
    int saved = errno;
    bool ok = true;

    if (refused()) {
        return false;
    }
    if (atomic_load_explicit(&cannot, memory_order_relaxed)) {
        return true;
    }
    if (madvise(addr, size, MADV_POPULATE_WRITE) != 0) {
        if (errno == ENOMEM) {
            ok = false;
        } else if (errno == EINVAL || errno == ENOSYS) {
            atomic_store_explicit(&cannot, true, memory_order_relaxed);
        }
    }
    errno = saved;
    return ok;
}

bool hak_os_purge(void *addr, size_t size)
{
    int saved = errno;
    bool ok = madvise(addr, size, MADV_DONTNEED) == 0;

    errno = saved;
    return ok;
}

size_t hak_os_resident(void *addr, size_t size)
{
    unsigned char pages[128];
    int saved = errno;
    size_t count = 0;

    if (mincore(addr, hak_min(size, sizeof(pages) * HAK_PAGE), pages) == 0) {
        for (size_t i = 0; i < size / HAK_PAGE && i < sizeof(pages); i++) {
            count += pages[i] & 1;
        }
    }
    errno = saved;
    return count * HAK_PAGE;
}

void *hak_os_map(size_t size)
{
    return map(size, PROT_READ | PROT_WRITE);
}

void *hak_os_map_wiped(size_t size)
{
    int saved = errno;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p != MAP_FAILED && madvise(p, size, MADV_WIPEONFORK) != 0) {
        munmap(p, size);
        p = MAP_FAILED;
    }
    errno = saved;
    return p != MAP_FAILED ? p : NULL;
}

void hak_os_unmap(void *addr, size_t size)
{
    (void)munmap(addr, size);
}

void hak_os_name(void *addr, size_t size, const char *name)
{
    int saved = errno;

    (void)prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, addr, size, name);
    errno = saved;
}

uint64_t hak_os_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/*
 * Early in the machine's life, or where a filter forbids getrandom, there is
 * what the kernel gave the process at its start (AT_RANDOM, 16 bytes).
 */
void hak_os_random(void *buffer, size_t size)
{
    const unsigned char *given = (void *)getauxval(AT_RANDOM);
    uint64_t mix = hak_os_clock() ^ (uintptr_t)buffer;

    if (getrandom(buffer, size, GRND_NONBLOCK) == (ssize_t)size) {
        return;
    }
    for (size_t i = 0; i < size; i++) {
        mix =
            mix * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        ((unsigned char *)buffer)[i] =
            (unsigned char)((mix >> 56) ^ (given != NULL ? given[i % 16] : 0));
    }
}

uint32_t hak_os_tick(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint32_t)(now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

/*
 * Maps `to` again if it is unmapped. A kernel that does not know NOREPLACE
 * (before 4.17) does not move pages either and has left `to` alone.
 */
static void map_again(void *to, size_t size)
{
    void *p =
        mmap(to, size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
             -1, 0);

    if (p != MAP_FAILED && p != to) {
        munmap(p, size);
    }
}

/*
 * The kernel unmaps the target first and may refuse then: with a limit on
 * address space, older kernels also with too many mappings. In the latter case
 * the target can be mapped again, in the former not, so it is not tried.
 */
bool hak_os_move(void *from, void *to, size_t size)
{
    int saved = errno;
    bool ok;

    if (refused() || hak_os_address_limit() != SIZE_MAX) {
        return false;
    }
    ok = mremap(from, size, size,
                MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) == to;
    if (!ok) {
        map_again(to, size);
    }
    errno = saved;
    return ok;
}

size_t hak_os_address_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return SIZE_MAX;
    }
    return (size_t)limit.rlim_cur;
}
