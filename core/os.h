/*
 * os.h - what HAKMEM asks of the operating system.
 *
 * Layer 1, the only user of mmap, mprotect and madvise. Addresses and sizes
 * are multiples of a page unless said otherwise. Nothing here takes a lock or
 * keeps state but "this kernel can't populate".
 */
#ifndef HAK_OS_H
#define HAK_OS_H

#include "base.h"

/*
 * Reserves `size` bytes of address space aligned to `align` (a power of two,
 * at least a page): no access, no memory. NULL if the system refuses.
 */
void *hak_os_reserve(size_t size, size_t align);

/* Makes reserved pages readable and writable. False: out of memory. */
bool hak_os_commit(void *addr, size_t size);

/* Asks that committed memory be backed by huge pages. A wish, no result. */
void hak_os_want_huge(void *addr, size_t size);

/*
 * Makes committed pages resident now, in one call, so that touching them does
 * not fault. False: out of memory. A kernel without MADV_POPULATE_WRITE
 * (before 5.14) answers true and leaves it to the page faults.
 */
bool hak_os_populate(void *addr, size_t size);

/* Drops the contents of committed pages: zero, not resident. False: refused. */
bool hak_os_purge(void *addr, size_t size);

/* How many bytes of committed pages are resident, at most 128 pages asked. */
size_t hak_os_resident(void *addr, size_t size);

/* Maps zeroed, usable memory. NULL: out of memory. */
void *hak_os_map(size_t size);

/* The same, at most a page; it is zero again in a forked child. NULL also where
 * the kernel can't (before 4.14). */
void *hak_os_map_wiped(size_t size);

/* Undoes hak_os_reserve or hak_os_map. */
void hak_os_unmap(void *addr, size_t size);

/* Names a mapping in /proc/PID/smaps where the kernel can (5.17). */
void hak_os_name(void *addr, size_t size, const char *name);

/* Nanoseconds of a clock that only goes forward. */
uint64_t hak_os_clock(void);

/*
 * Moves the pages of `size` bytes at `from` to `to`, leaving zeroed, usable
 * memory behind; nothing is copied. `to` may be reserved or committed. False:
 * the kernel can't (before 5.7, or under a limit on address space); `from` is
 * as it was; `to` too, or it is committed and zero.
 */
bool hak_os_move(void *from, void *to, size_t size);

/* Fills a buffer of at most 256 bytes with random ones, from the kernel. */
void hak_os_random(void *buffer, size_t size);

/* Milliseconds of a clock that only goes forward, wraps around and is cheap. */
uint32_t hak_os_tick(void);

/* The most address space this process may have, in bytes; SIZE_MAX: all. */
size_t hak_os_address_limit(void);

#ifdef HAK_TESTING
/*
 * Tests only: the n-th call from now (1 is the next) that can be refused is
 * refused, and every one after it if `forever`. 0 refuses none.
 */
void hak_os_test_refuse(unsigned n, bool forever);

/* How many refusable calls were made since hak_os_test_refuse. */
unsigned hak_os_test_calls(void);
#endif

#endif /* HAK_OS_H */
