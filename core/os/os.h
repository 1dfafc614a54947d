/*
 * os.h - what HAKMEM asks of the operating system.
 *
 * The only user of mmap, munmap, mremap and madvise. Addresses and sizes are
 * multiples of HAK_PAGE, and of the machine's page for what maps, unmaps and
 * moves, unless stated otherwise. Nothing here takes a lock;
 * errno is kept. The only state is what this kernel was found unable to do.
 *
 * Works on Linux 4.18 and later, whose versions differ as follows:
 *
 *   MAP_FIXED_NOREPLACE  from 4.17. An older kernel takes the address as a
 *                        hint: a mapping elsewhere is unmapped again. The
 *                        kernel checks the address before limits: a place
 *                        that is taken is reported so even where no more may
 *                        be mapped.
 *   MADV_POPULATE_WRITE  from 5.14; EINVAL before. It may end early (EINTR,
 *                        EFAULT, EHWPOISON): then page faults do the rest.
 *   MREMAP_DONTUNMAP     from 5.7; EINVAL before. With MREMAP_FIXED every
 *                        kernel unmaps the target before it looks at what is
 *                        moved, and up to 6.16 it then refuses a source with
 *                        several mappings (EFAULT), as all do over a limit
 *                        (ENOMEM): a hole is left, into which another thread's
 *                        mmap may fall. Without MREMAP_FIXED the target is a
 *                        hint, nothing is unmapped, and a refusal changes
 *                        nothing: so that is what we use, onto addresses where
 *                        nothing is mapped.
 *   munmap, madvise      may split a mapping and are refused (ENOMEM) where the
 *                        process has vm.max_map_count of them; mmap then too,
 *                        unless the new mapping continues its neighbour.
 *   MADV_DONTNEED        refused (EINVAL) on locked pages. Emulators (qemu-user
 *                        7.2) have said yes to it and kept the contents of
 *                        pages that mremap had moved: both are tried on a page
 *                        of our own before they are relied on.
 *   PR_SET_VMA_ANON_NAME from 5.17, where it is compiled in.
 *   mlockall(MCL_FUTURE) makes mmap populate, and refuse (EAGAIN) what is above
 *                        RLIMIT_MEMLOCK: as if out of memory.
 *   strict overcommit    (vm.overcommit_memory=2) counts writable mappings,
 *                        MAP_NORESERVE or not, and refuses with ENOMEM.
 */
#ifndef HAK_OS_H
#define HAK_OS_H

#include "base/base.h"

/* The size of this machine's pages in bytes. */
size_t haki_os_page_size(void);

/*
 * Finds an address, a multiple of `align` (a power of two), with `size`
 * unmapped bytes behind it, where the kernel does not put mappings by itself:
 * as much again is free around them. Maps nothing. NULL: there is no such
 * place. Under a limit on address space the result is a guess, which
 * haki_os_claim confirms or refutes; a different `guess` gives a different one.
 */
void *haki_os_place(size_t size, size_t align, unsigned guess);

enum hak_os_claim {
    HAK_OS_CLAIMED,
    HAK_OS_TAKEN,  /* something is mapped there */
    HAK_OS_REFUSED /* out of memory, address space or mappings */
};

/* Maps zeroed, usable memory at `addr` unless something is mapped there. */
enum hak_os_claim haki_os_claim(void *addr, size_t size);

/*
 * Unmaps what haki_os_claim or haki_os_map has mapped. False: refused; nothing
 * has changed.
 */
bool haki_os_unmap(void *addr, size_t size);

/* Asks for huge pages. A hint without a result. */
void haki_os_want_huge(void *addr, size_t size);

/*
 * From here on existing huge pages there stay, but no new ones are made: the
 * kernel's daemon would fill in again what was purged of one.
 */
void haki_os_want_small(void *addr, size_t size);

/*
 * Makes pages resident now, in one call, so that touching them does not fault.
 * False: out of memory. Where the kernel can't do that, returns true and leaves
 * it to page faults.
 */
bool haki_os_populate(void *addr, size_t size);

/*
 * Drops the contents of pages: they read as zero and are not resident, except,
 * where the machine's pages are larger, for a part of one at either end. False:
 * refused, or not one whole page of the machine's.
 */
bool haki_os_purge(void *addr, size_t size);

/* Lets all of it be read and written, or none. False: refused; some of it may have
 * changed. */
bool haki_os_protect(void *addr, size_t size, bool open);

/* Locks pages in memory as mlockall would, where that is allowed; unlocks them. False:
 * refused. */
void haki_os_lock(void *addr, size_t size);
bool haki_os_unlock(void *addr, size_t size);

/* Before the next two, at the process's start: os_ask.c says why. */
void haki_os_ask_begin(void);

/* Whether anything is mapped at p, any address. */
bool haki_os_is_mapped(const void *p);

/* Whether the word at p, a multiple of 4, can be read: any address, no fault. */
bool haki_os_can_read(const void *p);

/* How many of the bytes are resident; `size` is at most 128 pages. */
size_t haki_os_resident(void *addr, size_t size);

/* Maps zeroed, usable memory anywhere. NULL: out of memory. */
void *haki_os_map(size_t size);

/*
 * Maps a file to be read; its bytes are any number, and what haki_os_unmap gets,
 * rounded up. NULL: it can't be read, or is empty.
 */
void *haki_os_map_file(const char *path, size_t *size);

/*
 * The same as haki_os_map for at most a page, which is zero again in a forked child. NULL also
 * where the kernel can't do that (before 4.14).
 */
void *haki_os_map_wiped(size_t size);

/* Names a mapping in /proc/PID/smaps where the kernel can. */
void haki_os_name(void *addr, size_t size, const char *name);

/* Nanoseconds of a clock that only goes forward. */
uint64_t haki_os_clock(void);

/* Nanoseconds of processor time that the process has used: a system call. */
uint64_t haki_os_cpu_time(void);

/*
 * Moves the pages of `size` bytes at `from` to `to`, where nothing is mapped,
 * leaving zeroed, usable memory behind; nothing is copied. False: the kernel
 * can't, or `from` consists of several mappings; nothing has changed.
 */
bool haki_os_move(void *from, void *to, size_t size);

/* Fills a buffer of at most 256 bytes with random ones, from the kernel. */
void haki_os_random(void *buffer, size_t size);

/* Milliseconds of a clock that only goes forward, wraps around and is cheap. */
uint32_t haki_os_tick(void);

/* The time `at`, but never 0, which stands for "never". */
HAK_INLINE uint32_t haki_some_time(uint32_t at)
{
    return at != 0 ? at : 1;
}

/* Whether `now` is at or after the time `due`. */
HAK_INLINE bool haki_tick_reached(uint32_t now, uint32_t due)
{
    return (int32_t)(now - due) >= 0;
}

/*
 * The most address space that this process may have for memory of its own, in
 * bytes (RLIMIT_AS, RLIMIT_DATA); SIZE_MAX: all.
 */
size_t haki_os_address_limit(void);

/* ---- threads: os_thread.c --------------------------------------------------- */

/* Sleeps while the word is `seen`, at most this long. */
void haki_os_wait(_Atomic(uint32_t) *word, uint32_t seen,
                  uint32_t milliseconds);

/* Wakes one thread that sleeps on the word. */
void haki_os_wake(_Atomic(uint32_t) *word);

/*
 * A thread that the C library does not know. It may use system calls, memory
 * and the thread-local variables named at its start, which are zero in it, and
 * nothing else: not stdio, not the C library's malloc, nothing that waits for
 * other people's code. All signals are blocked in it. It ends when `run`
 * returns.
 */
struct hak_os_thread {
    /* set before the start */
    const char *name; /* at most 15 bytes */
    void (*run)(void);
    /* os_thread.c's */
    _Atomic(uint32_t) id; /* 0: it has not begun, or is gone */
    void *memory;         /* stack and locals, kept for the next start */
};

/*
 * Starts it; the previous one must be gone. `locals` are the addresses, in the
 * calling thread, of the thread-local variables that it uses. Allocates nothing
 * and takes no lock. False: refused (a limit on threads or memory, or a system
 * call filter).
 */
bool haki_os_thread_start(struct hak_os_thread *thread, void *const *locals,
                          size_t count);

/*
 * Waits, at most this long, until it is gone and no longer counted among the
 * process's threads. False: it is not.
 */
bool haki_os_thread_wait(struct hak_os_thread *thread, uint32_t milliseconds);

/*
 * Reads a short file, as much of it as fits with a terminating zero. Returns
 * the bytes read, 0 if it can't be read. Not a cancellation point.
 */
size_t haki_os_read_file(const char *path, char *text, size_t size);

/* read(2), but not a cancellation point. */
long haki_os_read(int fd, void *bytes, size_t size);

/* Whether any thread is in one of the two functions above. */
bool haki_os_any_reads(void);

/*
 * A memory fence in every thread of the process, wherever it is (membarrier).
 * False: the kernel can't or won't. haki_os_fence_begin is called once before
 * that, and again in a forked child.
 */
bool haki_os_fence_begin(void);
bool haki_os_fence(void);

/* The calling thread's id, and the signals (1 << (n - 1)) it has blocked. */
int32_t haki_os_thread_id(void);
uint64_t haki_os_blocked_signals(void);

/*
 * Whether a thread of this process was seen asleep in a system call that waits
 * for something outside HAKMEM, and not in a signal handler, while calm(arg)
 * was true: at that moment no function of ours was running in it, except one
 * that `calm` does not see. `blocked_before`: the signals that it had blocked
 * when no handler ran. False also if that can't be found out. One caller at a
 * time.
 */
bool haki_os_thread_waits(int32_t id, uint64_t blocked_before,
                          bool (*calm)(void *arg), void *arg);

/* The kernel's words for SYS_futex: musl-gcc does not see its headers. */
enum { HAK_FUTEX_WAIT = 0, HAK_FUTEX_WAKE = 1, HAK_FUTEX_PRIVATE = 128 };

#ifdef HAK_TESTING
/*
 * Tests only: the n-th call from now (1 is the next) that can be refused is
 * refused, and every one after it if `forever`. 0 refuses none.
 */
void haki_os_test_refuse(unsigned n, bool forever);

/* Refuses, besides the n-th (set that first), every call from this one on. */
void haki_os_test_refuse_from(unsigned call);

/* Which calls haki_os_test_refuse counts and refuses; a bit for each kind. */
enum hak_os_kind {
    HAK_OS_PLACE = 1,
    HAK_OS_CLAIM = 2,
    HAK_OS_MAP = 4,
    HAK_OS_UNMAP = 8,
    HAK_OS_POPULATE = 16,
    HAK_OS_PURGE = 32,
    HAK_OS_MOVE = 64,
    HAK_OS_PROTECT = 128,
    HAK_OS_ALL = 255
};
void haki_os_test_kinds(unsigned kinds);

/* As if the process had been started with a filter of system calls, or not. */
void haki_os_test_filtered(bool filtered);

/* How many calls that can be refused were made since haki_os_test_refuse. */
unsigned haki_os_test_calls(void);
#endif

#endif /* HAK_OS_H */
