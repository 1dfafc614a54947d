/*
 * librefuses.c - a kernel that refuses, or an older one: preloaded beside
 * libhakmem.so, it stands between it and the calls that map memory. What the C
 * library does inside itself does not come by here.
 *
 *   REFUSE_CALLS   which calls are meant, one letter each: m mmap, u munmap,
 *                  p mprotect, a madvise, r mremap
 *   REFUSE_AT      the n-th of them is refused
 *   REFUSE_ON      and all later ones
 *   REFUSE_ERRNO   with this number (unset: ENOMEM)
 *   REFUSE_KERNEL  words with commas:
 *       hints        before 4.17: MAP_FIXED_NOREPLACE is not known
 *       nowipe       before 4.14: nor MADV_WIPEONFORK
 *       nodontunmap  before 5.7: nor MREMAP_DONTUNMAP
 *       nopopulate   before 5.14: nor MADV_POPULATE_WRITE
 *       onemapping   up to 6.16: mremap moves one mapping at a time, and with
 *                    MREMAP_FIXED has unmapped the target by then
 *       keeps        MADV_DONTNEED says yes and drops nothing
 *       keepsmoved   the same of pages that were moved: qemu-user 7.2
 *       pages16      pages of 16 KB, which are said to be of 4
 *       locked       mlockall(MCL_FUTURE): a limit, and no MADV_DONTNEED
 *       intrudes     others map pages where we are about to
 *
 * At the end of the program it says "calls N, refused N" on standard output.
 */
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "program.h"

#define PAGE ((size_t)4096)

/* Older headers lack them. */
enum { POPULATE_WRITE = 23, DONTUNMAP = 4, NOREPLACE = 0x100000 };

/* ---- the real calls --------------------------------------------------------- */

/* By no function of the C library: it is what stands behind them. */
static long call(long number, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8),
                       "r"(r9)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long result __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;

    __asm__ volatile("svc 0"
                     : "+r"(result)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
#else
#error "no system calls are known for this machine"
#endif
    return result;
}

/* As the C library's: -1 and errno. */
static long answer(long result)
{
    if (result < 0 && result >= -4095) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

/* ---- what is refused ---------------------------------------------------------- */

static atomic_uint calls, refusals;

static unsigned long setting(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoul(text, NULL, 10) : otherwise;
}

/* The errno to refuse this call with, or 0. */
static int refused(char kind)
{
    const char *kinds = getenv("REFUSE_CALLS");
    unsigned long at = setting("REFUSE_AT", 0);
    unsigned call;

    if (kinds == NULL || strchr(kinds, kind) == NULL) {
        return 0;
    }
    call = atomic_fetch_add(&calls, 1) + 1;
    if (call != at && (call < at || setting("REFUSE_ON", 0) == 0)) {
        return 0;
    }
    atomic_fetch_add(&refusals, 1);
    return (int)setting("REFUSE_ERRNO", ENOMEM);
}

/* ---- other kernels -------------------------------------------------------------- */

/* Whether REFUSE_KERNEL has this word. */
static bool is_kernel(const char *word)
{
    const char *at = getenv("REFUSE_KERNEL");
    size_t length = strlen(word);

    while (at != NULL) {
        if (strncmp(at, word, length) == 0 &&
            (at[length] == ',' || at[length] == '\0')) {
            return true;
        }
        at = strchr(at, ',');
        at = at != NULL ? at + 1 : NULL;
    }
    return false;
}

/* The same; counted as a refusal, so that it is seen to have mattered. */
static bool kernel(const char *word)
{
    bool is = is_kernel(word);

    atomic_fetch_add(&refusals, is);
    return is;
}

enum { MOVES = 200 };

/* What mremap has moved, and what it has left behind. */
static struct {
    _Atomic(uintptr_t) start, end;
} moves[MOVES];
static atomic_uint move_count;

static void note_move(uintptr_t start, size_t size)
{
    unsigned i = atomic_fetch_add(&move_count, 1) % MOVES;

    atomic_store(&moves[i].end, start + size);
    atomic_store(&moves[i].start, start);
}

static void forget_moves(uintptr_t start, size_t size)
{
    for (unsigned i = 0; i < MOVES; i++) {
        if (atomic_load(&moves[i].start) >= start &&
            atomic_load(&moves[i].end) <= start + size) {
            atomic_store(&moves[i].end, 0);
        }
    }
}

static bool was_moved(uintptr_t start, size_t size)
{
    for (unsigned i = 0; i < MOVES; i++) {
        if (start < atomic_load(&moves[i].end) &&
            start + size > atomic_load(&moves[i].start)) {
            return true;
        }
    }
    return false;
}

/* ---- other people's mappings -------------------------------------------------- */

enum { INTRUDERS = 100, EVERY = 3 };

static atomic_uint claims;
static _Atomic(char *) intruders[INTRUDERS];

/* In the middle of what is about to be claimed somebody maps a page. */
static void intrude(char *addr, size_t size)
{
    unsigned i = atomic_fetch_add(&claims, 1);
    char *page = addr + size / 2;

    if (i % EVERY == EVERY - 1 && i / EVERY < INTRUDERS &&
        call(SYS_mmap, (long)page, (long)PAGE, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | NOREPLACE, -1, 0) == (long)page) {
        memset(page, 0x77, PAGE);
        atomic_store(&intruders[i / EVERY], page);
    }
}

static bool intruders_are_well(void)
{
    for (int i = 0; i < INTRUDERS; i++) {
        const char *page = atomic_load(&intruders[i]);

        if (page != NULL &&
            (page[0] != 0x77 || memcmp(page, page + 1, PAGE - 1) != 0)) {
            return false;
        }
    }
    return true;
}

/* ---- at the end ------------------------------------------------------------------- */

__attribute__((destructor)) static void say(void)
{
    char text[60];
    int length = snprintf(text, sizeof(text), "calls %u, refused %u%s\n",
                          atomic_load(&calls), atomic_load(&refusals),
                          intruders_are_well() ? "" : ", intruders harmed");

    (void)call(SYS_write, 1, (long)text, length, 0, 0, 0);
}

/* ---- the calls ------------------------------------------------------------------- */

/* What may be locked at once: the program's blocks do not fit. */
#define LOCK_LIMIT ((size_t)48 << 20)

static atomic_size_t locked;

static long do_mmap(void *addr, size_t size, int prot, int flags, int fd,
                    off_t offset)
{
    int error = refused('m');

    if (error == 0 && is_kernel("locked") &&
        atomic_load(&locked) + size > LOCK_LIMIT && kernel("locked")) {
        error = EAGAIN;
    }
    if (error != 0) {
        return -error;
    }
    if ((flags & NOREPLACE) != 0 && size >= 2u << 20 && kernel("intrudes")) {
        intrude(addr, size);
    }
    if ((flags & NOREPLACE) != 0 && kernel("hints")) {
        flags &= ~NOREPLACE;
    }
    atomic_fetch_add(&locked, size);
    return call(SYS_mmap, (long)addr, (long)size, prot, flags, fd, offset);
}

static long do_munmap(void *addr, size_t size)
{
    int error = refused('u');
    long result;

    if (error != 0) {
        return -error;
    }
    result = call(SYS_munmap, (long)addr, (long)size, 0, 0, 0, 0);
    if (result == 0) {
        atomic_fetch_sub(&locked, size);
        forget_moves((uintptr_t)addr, size);
    }
    return result;
}

static long do_mprotect(void *addr, size_t size, int prot)
{
    int error = refused('p');

    return error != 0
               ? -error
               : call(SYS_mprotect, (long)addr, (long)size, prot, 0, 0, 0);
}

static long do_madvise(void *addr, size_t size, int advice)
{
    int error = refused('a');

    if (error != 0) {
        return -error;
    }
    if (advice == POPULATE_WRITE && kernel("nopopulate")) {
        return -EINVAL;
    }
    if (advice == MADV_WIPEONFORK && kernel("nowipe")) {
        return -EINVAL;
    }
    if (is_kernel("pages16")) {
        if ((uintptr_t)addr % (4 * PAGE) != 0) {
            return -EINVAL;
        }
        size = (size + 4 * PAGE - 1) & ~(4 * PAGE - 1);
        kernel("pages16");
    }
    if (advice == MADV_DONTNEED) {
        if (kernel("locked")) {
            return -EINVAL;
        }
        if (kernel("keeps") ||
            (was_moved((uintptr_t)addr, size) && kernel("keepsmoved"))) {
            return 0;
        }
    }
    return call(SYS_madvise, (long)addr, (long)size, advice, 0, 0, 0);
}

static long do_mremap(void *from, size_t old, size_t size, int flags, void *to)
{
    int error = refused('r');
    long result;

    if (error != 0) {
        return -error;
    }
    if ((flags & DONTUNMAP) != 0 && kernel("nodontunmap")) {
        return -EINVAL;
    }
    if (old > 2u << 20 && kernel("onemapping")) { /* as if of several */
        if ((flags & MREMAP_FIXED) != 0) {
            call(SYS_munmap, (long)to, (long)size, 0, 0, 0, 0);
        }
        return -EFAULT;
    }
    result =
        call(SYS_mremap, (long)from, (long)old, (long)size, flags, (long)to, 0);
    if (result > 0 && (flags & DONTUNMAP) != 0 && is_kernel("keepsmoved")) {
        note_move((uintptr_t)from, old);
        note_move((uintptr_t)result, size);
    }
    return result;
}

/* ---- their names -------------------------------------------------------------------- */

void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
    return (void *)answer(do_mmap(addr, size, prot, flags, fd, offset));
}

int munmap(void *addr, size_t size)
{
    return (int)answer(do_munmap(addr, size));
}

int mprotect(void *addr, size_t size, int prot)
{
    return (int)answer(do_mprotect(addr, size, prot));
}

int madvise(void *addr, size_t size, int advice)
{
    return (int)answer(do_madvise(addr, size, advice));
}

void *mremap(void *from, size_t old, size_t size, int flags, ...)
{
    va_list args;
    void *to;

    va_start(args, flags);
    to = va_arg(args, void *);
    va_end(args);
    return (void *)answer(do_mremap(from, old, size, flags, to));
}

long syscall(long number, ...)
{
    long a[6];
    va_list args;

    va_start(args, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(args, long);
    }
    va_end(args);
    switch (number) {
    case SYS_mmap:
        return answer(do_mmap((void *)a[0], (size_t)a[1], (int)a[2], (int)a[3],
                              (int)a[4], a[5]));
    case SYS_munmap: return answer(do_munmap((void *)a[0], (size_t)a[1]));
    case SYS_mremap:
        return answer(do_mremap((void *)a[0], (size_t)a[1], (size_t)a[2],
                                (int)a[3], (void *)a[4]));
    default: return answer(call(number, a[0], a[1], a[2], a[3], a[4], a[5]));
    }
}
