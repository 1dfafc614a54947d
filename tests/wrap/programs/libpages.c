/*
 * libpages.c - a kernel with larger pages, to preload before what is tested.
 *
 * TEST_PAGE_KB says how large (default 32, which HAKMEM does not support). As
 * such a kernel does, addresses that are no multiple of a page are refused with
 * EINVAL, lengths are rounded up, and mappings begin and end with a page.
 * madvise(MADV_DONTNEED) of a length that is no whole number of pages, which
 * would take the neighbour's contents, ends the program: no caller of ours means
 * that. Only what the program itself and HAKMEM's libraries
 * call is so: other libraries were compiled for pages of 4 KB, or say so.
 */
#include <errno.h>
#include <link.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <dlfcn.h>

static size_t page_size(void)
{
    static size_t page;

    if (page == 0) {
        const char *kb = getenv("TEST_PAGE_KB");

        page = (size_t)(kb != NULL ? atoi(kb) : 32) * 1024;
    }
    return page;
}

/* The system call itself; its result, or -errno. */
static long call(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e,
                      r9 __asm__("r9") = f;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8),
                       "r"(r9)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a,
                     x1 __asm__("x1") = b, x2 __asm__("x2") = c,
                     x3 __asm__("x3") = d, x4 __asm__("x4") = e,
                     x5 __asm__("x5") = f;

    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    result = x0;
#else
#error "libpages.c knows no system call of this processor"
#endif
    return result;
}

static long with_errno(long result)
{
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

/* The code of the program, and of libraries with "hakmem" in their name. */
static struct span {
    uintptr_t from, end;
} ours[16];
static unsigned nours;

static int note_object(struct dl_phdr_info *object, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    if (object->dlpi_name[0] != '\0' &&
        strstr(object->dlpi_name, "hakmem") == NULL) {
        return 0;
    }
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];

        if (part->p_type == PT_LOAD && (part->p_flags & PF_X) != 0 &&
            nours < sizeof ours / sizeof *ours) {
            ours[nours].from = object->dlpi_addr + part->p_vaddr;
            ours[nours].end = ours[nours].from + part->p_memsz;
            nours++;
        }
    }
    return 0;
}

static int is_spared(const void *caller)
{
    if (nours == 0) {
        dl_iterate_phdr(note_object, NULL);
    }
    for (unsigned i = 0; i < nours; i++) {
        if ((uintptr_t)caller >= ours[i].from &&
            (uintptr_t)caller < ours[i].end) {
            return 0;
        }
    }
    return 1;
}

/* Whether the caller of the function that this stands in is another library. */
#define SPARED is_spared(__builtin_return_address(0))

static size_t up(size_t size)
{
    return (size + page_size() - 1) & ~(page_size() - 1);
}

static int is_odd(const void *at)
{
    return ((uintptr_t)at & (page_size() - 1)) != 0;
}

static long map_raw(void *at, size_t size, int how, int flags, int fd,
                    off_t from)
{
    return call(SYS_mmap, (long)at, (long)size, how, flags, fd, (long)from);
}

/* Anywhere: more than enough, of which the right part stays. */
static long map_anywhere(size_t size, int how, int flags, int fd, off_t from)
{
    long all = map_raw(NULL, size + page_size(), PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    long at, end;

    if (all < 0 && all > -4096) {
        return all;
    }
    at = (long)up((size_t)all);
    end = all + (long)(size + page_size());
    if (at > all) {
        call(SYS_munmap, all, at - all, 0, 0, 0, 0);
    }
    if (end > at + (long)size) {
        call(SYS_munmap, at + (long)size, end - at - (long)size, 0, 0, 0, 0);
    }
    return map_raw((void *)at, size, how, flags | MAP_FIXED, fd, from);
}

static long map(void *at, size_t size, int how, int flags, int fd, off_t from)
{
    int fixed = MAP_FIXED | MAP_FIXED_NOREPLACE;

    size = up(size);
    if ((flags & fixed) != 0) {
        return is_odd(at) ? -EINVAL : map_raw(at, size, how, flags, fd, from);
    }
    if (at != NULL) { /* a hint */
        long got = map_raw((void *)up((uintptr_t)at), size, how,
                           flags | MAP_FIXED_NOREPLACE, fd, from);

        if (got >= 0 || got <= -4096) {
            return got;
        }
    }
    return map_anywhere(size, how, flags, fd, from);
}

void *mmap(void *at, size_t size, int how, int flags, int fd, off_t from)
{
    return (void *)with_errno(SPARED ? map_raw(at, size, how, flags, fd, from)
                                     : map(at, size, how, flags, fd, from));
}

static long unmap(void *at, size_t size)
{
    return is_odd(at) ? -EINVAL
                      : call(SYS_munmap, (long)at, (long)up(size), 0, 0, 0, 0);
}

int munmap(void *at, size_t size)
{
    return (int)with_errno(SPARED ? call(SYS_munmap, (long)at, (long)size, 0, 0,
                                         0, 0)
                                  : unmap(at, size));
}

int mprotect(void *at, size_t size, int how)
{
    return (int)with_errno(is_odd(at) && !SPARED
                               ? -EINVAL
                               : call(SYS_mprotect, (long)at,
                                      (long)(SPARED ? size : up(size)), how, 0,
                                      0, 0));
}

int madvise(void *at, size_t size, int advice)
{
    static const char text[] =
        "libpages: madvise would take what lies behind\n";

    if (SPARED) {
        return (int)with_errno(call(SYS_madvise, (long)at, (long)size, advice,
                                    0, 0, 0));
    }
    if (advice == MADV_DONTNEED && up(size) != size) {
        (void)!write(STDERR_FILENO, text, sizeof text - 1);
        abort();
    }
    return (int)with_errno(is_odd(at) ? -EINVAL
                                      : call(SYS_madvise, (long)at,
                                             (long)up(size), advice, 0, 0, 0));
}

int mincore(void *at, size_t size, unsigned char *pages)
{
    if (SPARED) {
        return (int)with_errno(call(SYS_mincore, (long)at, (long)size,
                                    (long)pages, 0, 0, 0));
    }
    for (size_t i = 0; i < up(size) / page_size(); i++) {
        unsigned char small[16];
        long got = is_odd(at)
                       ? -EINVAL
                       : call(SYS_mincore, (long)at + (long)(i * page_size()),
                              (long)page_size(), (long)small, 0, 0, 0);

        if (got < 0) {
            return (int)with_errno(got);
        }
        pages[i] = 0;
        for (size_t k = 0; k < page_size() / 4096; k++) {
            pages[i] |= small[k];
        }
    }
    return 0;
}

/*
 * With a hint alone, as HAKMEM does it (and MAP_FIXED): a place that the kernel
 * would choose is not a multiple of a larger page, so a hinted place that is
 * taken is refused.
 */
static long move(void *from, size_t size, size_t wanted, long flags, void *to)
{
    long at;

    if (is_odd(from) || ((flags & MREMAP_FIXED) != 0 && is_odd(to))) {
        return -EINVAL;
    }
    if (to == NULL && (flags & MREMAP_MAYMOVE) != 0) {
        at = map_anywhere(up(wanted), PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return at < 0 && at > -4096
                   ? at
                   : call(SYS_mremap, (long)from, (long)up(size),
                          (long)up(wanted), flags | MREMAP_FIXED, at, 0);
    }
    return call(SYS_mremap, (long)from, (long)up(size), (long)up(wanted), flags,
                (long)to, 0);
}

void *mremap(void *from, size_t size, size_t wanted, int flags, ...)
{
    void *to = NULL;

    if ((flags & MREMAP_FIXED) != 0) {
        va_list rest;

        va_start(rest, flags);
        to = va_arg(rest, void *);
        va_end(rest);
    }
    return (void *)with_errno(SPARED ? call(SYS_mremap, (long)from, (long)size,
                                            (long)wanted, flags, (long)to, 0)
                                     : move(from, size, wanted, flags, to));
}

/* System calls by number, as core/os makes some of them. */
long syscall(long number, ...)
{
    long a[6];
    va_list rest;

    va_start(rest, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(rest, long);
    }
    va_end(rest);
    switch (number) {
    case SYS_mmap:
        return with_errno(map((void *)a[0], (size_t)a[1], (int)a[2], (int)a[3],
                              (int)a[4], a[5]));
    case SYS_munmap: return with_errno(unmap((void *)a[0], (size_t)a[1]));
    case SYS_mremap:
        return with_errno(move((void *)a[0], (size_t)a[1], (size_t)a[2], a[3],
                               (void *)a[4]));
    default:
        return with_errno(call(number, a[0], a[1], a[2], a[3], a[4], a[5]));
    }
}

unsigned long getauxval(unsigned long type)
{
    static unsigned long (*real)(unsigned long);

    if (type == AT_PAGESZ) {
        nours = 0; /* a library of ours that was opened just now */
    }
    if (type == AT_PAGESZ && !SPARED) {
        return page_size();
    }
    if (real == NULL) {
        real = (unsigned long (*)(unsigned long))dlsym(RTLD_NEXT, "getauxval");
    }
    return real(type);
}

int getpagesize(void)
{
    return SPARED ? 4096 : (int)page_size();
}

long sysconf(int name)
{
    static long (*real)(int);

    if (name == _SC_PAGESIZE && !SPARED) {
        return (long)page_size();
    }
    if (real == NULL) {
        real = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    }
    return real(name);
}
