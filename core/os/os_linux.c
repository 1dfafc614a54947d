/*
 * os_linux.c - the operating system layer for Linux.
 */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"

/* Values of the kernel's interface that older libc headers lack. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
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

/* ---- refusals for tests --------------------------------------------------- */

#ifdef HAK_TESTING
static atomic_uint os_test_calls;
static atomic_uint os_test_refuse_at;
static atomic_uint os_test_refuse_from;
static atomic_uint os_test_kinds = HAK_OS_ALL;

void haki_os_test_refuse(unsigned n, bool forever)
{
    atomic_store(&os_test_calls, 0);
    atomic_store(&os_test_refuse_at, n);
    atomic_store(&os_test_refuse_from, forever ? n : 0);
}

void haki_os_test_refuse_from(unsigned call)
{
    atomic_store(&os_test_refuse_from, call);
}

void haki_os_test_kinds(unsigned kinds)
{
    atomic_store(&os_test_kinds, kinds);
}

unsigned haki_os_test_calls(void)
{
    return atomic_load(&os_test_calls);
}

static bool os_refused(unsigned kind)
{
    unsigned from = atomic_load(&os_test_refuse_from), call;

    if ((kind & atomic_load(&os_test_kinds)) == 0) {
        return false;
    }
    call = atomic_fetch_add(&os_test_calls, 1) + 1;
    return call == atomic_load(&os_test_refuse_at) ||
           (from != 0 && call >= from);
}

#define REFUSED(kind) os_refused(HAK_OS_##kind)
#else
#define REFUSED(kind) false
#endif

/* ---- mappings ------------------------------------------------------------ */

#define ANYWHERE (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

/* haki_os_place looks for this many times the space it is asked for. */
#define PLACE_ROOM 2

/* Guesses lie this many times the size apart. */
#define GUESSES 8

/* Mappings without a hint stay away from this. */
#define GUESS_ABOVE (4 * HAK_GIB)

size_t haki_os_page_size(void)
{
    static _Atomic(size_t) known;
    size_t page = atomic_load_explicit(&known, memory_order_relaxed);

    if (HAK_UNLIKELY(page == 0)) {
        page = getauxval(AT_PAGESZ);
        atomic_store_explicit(&known, page, memory_order_relaxed);
    }
    return page;
}

/* Where the machine's page begins that holds this address. */
static uintptr_t os_page_of(uintptr_t addr)
{
    return addr & ~(haki_os_page_size() - 1);
}

/*
 * Where the kernel would map `size` bytes with no access, or NULL. By the
 * system call itself: sanitizers keep track of mmap at a cost that grows with
 * the size, and this mapping is gone at once.
 */
static char *os_look(size_t size)
{
    /*
     * -1L and 0L: the last argument goes over the stack, and all of it must be
     * 0.
     */
    long addr = syscall(SYS_mmap, NULL, size, PROT_NONE, ANYWHERE, -1L, 0L);

    if (addr == -1) {
        return NULL;
    }
    syscall(SYS_munmap, addr, size);
    return (char *)addr;
}

/*
 * For when a limit forbids looking: far below where the kernel maps a page, or
 * above if there is not so much room below.
 */
static char *os_guess_place(size_t size, unsigned guess)
{
    uintptr_t here = (uintptr_t)os_look(HAK_PAGE);
    size_t far = size * (2 + guess % GUESSES);

    if (here == 0) {
        return NULL;
    }
    return (char *)(here / 2 > far ? here - far : here + GUESS_ABOVE);
}

void *haki_os_place(size_t size, size_t align, unsigned guess)
{
    int saved = errno;
    char *place = NULL;

    haki_os_ask_begin();
    if (!REFUSED(PLACE)) {
        place = os_look(PLACE_ROOM * size + align);
        if (place != NULL) {
            place += size / 2;
        } else if (haki_os_address_limit() != SIZE_MAX) {
            place = os_guess_place(size, guess);
        }
    }
    errno = saved;
    return (void *)haki_round_up((uintptr_t)place, align);
}

enum hak_os_claim haki_os_claim(void *addr, size_t size)
{
    int saved = errno;
    enum hak_os_claim result = HAK_OS_REFUSED;
    void *p;

    if (REFUSED(CLAIM)) {
        return HAK_OS_REFUSED;
    }
    p = mmap(addr, size, PROT_READ | PROT_WRITE, ANYWHERE | MAP_FIXED_NOREPLACE,
             -1, 0);
    if (p == addr) {
        result = HAK_OS_CLAIMED;
    } else if (p != MAP_FAILED) {
        munmap(p, size);
        result = HAK_OS_TAKEN;
    } else if (errno == EEXIST) {
        result = HAK_OS_TAKEN;
    }
    errno = saved;
    return result;
}

void *haki_os_map(size_t size)
{
    int saved = errno;
    void *p = REFUSED(MAP)
                  ? MAP_FAILED
                  : mmap(NULL, size, PROT_READ | PROT_WRITE, ANYWHERE, -1, 0);

    errno = saved;
    return p == MAP_FAILED ? NULL : p;
}

void *haki_os_map_file(const char *path, size_t *size)
{
    int saved = errno, fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    void *p = MAP_FAILED;

    if (fd >= 0 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode) &&
        about.st_size > 0) {
        *size = (size_t)about.st_size;
        p = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
    errno = saved;
    return p == MAP_FAILED ? NULL : p;
}

void *haki_os_map_wiped(size_t size)
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

bool haki_os_unmap(void *addr, size_t size)
{
    int saved = errno;
    bool done;

    HAK_ASSERT(addr != NULL); /* munmap would take what lies from 0 on */
    done = !REFUSED(UNMAP) && munmap(addr, size) == 0;
    errno = saved;
    return done;
}

void haki_os_want_huge(void *addr, size_t size)
{
    int saved = errno;

    (void)madvise(addr, size, MADV_HUGEPAGE);
    errno = saved;
}

void haki_os_want_small(void *addr, size_t size)
{
    int saved = errno;

    (void)madvise(addr, size, MADV_NOHUGEPAGE);
    errno = saved;
}

bool haki_os_populate(void *addr, size_t size)
{
    static atomic_bool cannot;
    int saved = errno;
    uintptr_t from;
    bool ok = true;

    if (REFUSED(POPULATE)) {
        return false;
    }
    if (atomic_load_explicit(&cannot, memory_order_relaxed)) {
        return true;
    }
    from = os_page_of((uintptr_t)addr);
    if (madvise((void *)from, (uintptr_t)addr + size - from,
                MADV_POPULATE_WRITE) != 0) {
        if (errno == ENOMEM) {
            ok = false;
        } else if (errno == EINVAL || errno == ENOSYS) {
            atomic_store_explicit(&cannot, true, memory_order_relaxed);
        }
    }
    errno = saved;
    return ok;
}

bool haki_os_protect(void *addr, size_t size, bool open)
{
    int saved = errno;
    bool done =
        !REFUSED(PROTECT) &&
        mprotect(addr, size, open ? PROT_READ | PROT_WRITE : PROT_NONE) == 0;

    errno = saved;
    return done;
}

/* The system calls themselves: sanitizers make nothing of the functions. */
void haki_os_lock(void *addr, size_t size)
{
    int saved = errno;

    (void)syscall(SYS_mlock, addr, size);
    errno = saved;
}

bool haki_os_unlock(void *addr, size_t size)
{
    int saved = errno;
    bool done = syscall(SYS_munlock, addr, size) == 0;

    errno = saved;
    return done;
}

/* ---- dropping and moving pages ------------------------------------------- */

/*
 * Whether the system does what it says, as far as it has been tried: it can't
 * be tried while no page is available.
 */
enum { UNTRIED, HOLDS, LIES };

static bool os_drop(void *addr, size_t size)
{
    return madvise(addr, size, MADV_DONTNEED) == 0;
}

static void *os_move_near(void *from, void *to, size_t size)
{
    /*
     * The system call itself: the C library's function passes no target without
     * FIXED.
     */
    return (void *)syscall(SYS_mremap, from, size, size,
                           MREMAP_MAYMOVE | MREMAP_DONTUNMAP, to);
}

/* The largest page size that is tried. */
#define PAGE_MOST (64 * HAK_KIB)

/* Whether a page that was written to reads as zero after it was dropped. */
static bool os_drops(volatile char *page)
{
    page[0] = 1;
    return !os_drop((void *)(uintptr_t)page, haki_os_page_size()) ||
           page[0] == 0;
}

/*
 * Also tests whether the next page keeps its contents: the kernel's pages may be
 * larger than it says.
 */
static int os_try_drop(void)
{
    char *pages =
        mmap(NULL, 2 * PAGE_MOST, PROT_READ | PROT_WRITE, ANYWHERE, -1, 0);
    size_t size = haki_os_page_size();
    volatile char *page;
    bool well;

    if (pages == MAP_FAILED) {
        return UNTRIED;
    }
    page = (char *)haki_round_up((uintptr_t)pages, PAGE_MOST);
    page[size] = 1;
    well = os_drops(page) && page[size] == 1;
    munmap(pages, 2 * PAGE_MOST);
    return well ? HOLDS : LIES;
}

/*
 * Whether the system finds a mapping there: qemu's emulation of other processors
 * takes what a move leaves behind for unmapped, so that touching it is a fault. By
 * a call that reads 8 bytes, zeros: no signal is blocked.
 */
static bool os_finds(const char *page)
{
    return syscall(SYS_rt_sigprocmask, SIG_BLOCK, page, NULL, 8) == 0;
}

#define BEHIND 64 /* what os_finds does not read */

static int os_try_move(void)
{
    size_t size = haki_os_page_size();
    char *page = mmap(NULL, size, PROT_READ | PROT_WRITE, ANYWHERE, -1, 0);
    volatile char *moved;
    bool well;

    if (page == MAP_FAILED) {
        return UNTRIED;
    }
    page[BEHIND] = 1;
    moved = os_move_near(page, NULL, size);
    well = moved != MAP_FAILED;
    if (well) {
        well = os_finds(page) && moved[BEHIND] == 1 &&
               *(volatile char *)&page[BEHIND] == 0 && os_drops(moved) &&
               os_drops(page);
        munmap((void *)(uintptr_t)moved, size);
    }
    munmap(page, size);
    return well ? HOLDS : LIES;
}

/* Tries until the answer is known; threads that try at once find the same. */
static bool os_works(atomic_int *known, int (*attempt)(void))
{
    int state = atomic_load_explicit(known, memory_order_relaxed);

    if (HAK_UNLIKELY(state == UNTRIED)) {
        state = attempt();
        atomic_store_explicit(known, state, memory_order_relaxed);
    }
    return state == HOLDS;
}

bool haki_os_purge(void *addr, size_t size)
{
    static atomic_int known;
    uintptr_t from = (uintptr_t)addr, end = from + size;
    uintptr_t first = haki_round_up(from, haki_os_page_size());
    uintptr_t last = os_page_of(end);
    int saved = errno;
    bool done = !REFUSED(PURGE) && first < last &&
                os_works(&known, os_try_drop) &&
                os_drop((void *)first, last - first);

    if (done) { /* parts of larger pages stay */
        memset(addr, 0, first - from);
        memset((void *)last, 0, end - last);
    }
    errno = saved;
    return done;
}

/*
 * `to` is a hint: if something is mapped there by now the kernel moves the
 * pages elsewhere, and they are copied back.
 */
bool haki_os_move(void *from, void *to, size_t size)
{
    static atomic_int known;
    int saved = errno;
    void *at = MAP_FAILED;

    if (!REFUSED(MOVE) && os_works(&known, os_try_move)) {
        at = os_move_near(from, to, size);
    }
    if (at != MAP_FAILED && at != to) {
        memcpy(from, at, size);
        munmap(at, size);
    }
    errno = saved;
    return at == to;
}

/* ---- names, clocks, random bytes, limits --------------------------------- */

void haki_os_name(void *addr, size_t size, const char *name)
{
    int saved = errno;

    (void)prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, addr, size, name);
    errno = saved;
}

static uint64_t os_clock_of(clockid_t clock)
{
    struct timespec now = {0, 0};

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t haki_os_clock(void)
{
    return os_clock_of(CLOCK_MONOTONIC);
}

uint64_t haki_os_cpu_time(void)
{
    return os_clock_of(CLOCK_PROCESS_CPUTIME_ID);
}

/*
 * Early after boot, or where a filter forbids getrandom, what the kernel gave
 * the process at its start is used (AT_RANDOM, 16 bytes).
 */
void haki_os_random(void *buffer, size_t size)
{
    const unsigned char *given = (void *)getauxval(AT_RANDOM);
    uint64_t mix = haki_os_clock() ^ (uintptr_t)buffer;

    /*
     * The system call itself: the C library's function is a cancellation point.
     */
    if (syscall(SYS_getrandom, buffer, size, GRND_NONBLOCK) == (long)size) {
        return;
    }
    for (size_t i = 0; i < size; i++) {
        mix =
            mix * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        ((unsigned char *)buffer)[i] =
            (unsigned char)((mix >> 56) ^ (given != NULL ? given[i % 16] : 0));
    }
}

uint32_t haki_os_tick(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint32_t)(now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

static size_t os_soft_limit(int resource)
{
    struct rlimit limit;

    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return SIZE_MAX;
    }
    return (size_t)limit.rlim_cur;
}

size_t haki_os_address_limit(void)
{
    return haki_min(os_soft_limit(RLIMIT_AS), os_soft_limit(RLIMIT_DATA));
}
