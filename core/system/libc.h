/*
 * libc.h - the allocator that the process had before us, under names that never
 * lead back to us.
 *
 * Two files define them; each library contains one of the two: libc_plain.c
 *   malloc, free and the like, for a core that does not take
 *                 those names (libhakmem_core.a, the adapters);
 *   libc_real.c   the C library's own, for libhakmem.so and libhakmem.a, in
 *                 which malloc is ours. With musl, which hides its own, there
 *                 is none: what the lanes refuse is mapped.
 */
#ifndef HAK_LIBC_H
#define HAK_LIBC_H

#include <features.h>

#include "base/base.h"

/* Whether the C library is glibc of at least this version. */
#ifdef __GLIBC__
#define HAK_GLIBC(major, minor) __GLIBC_PREREQ(major, minor)
#else
#define HAK_GLIBC(major, minor) 0
#endif

/* As malloc, realloc and free. NULL: errno is ENOMEM. */
void *haki_libc_malloc(size_t size);
void *haki_libc_realloc(void *p, size_t size);
void haki_libc_free(void *p);

/* `size` bytes of zeros. */
void *haki_libc_zalloc(size_t size);

/* `alignment` is a power of two, at least 16. */
void *haki_libc_memalign(size_t alignment, size_t size);

/* The usable size of p, a block from the functions above or NULL. */
size_t haki_libc_usable_size(void *p);

/*
 * libc_real.c only: initialises the C library's allocator if that has not
 * happened yet. This may be a cancellation point (glibc 2.36 draws a random
 * number) and is never repeated, so a thread cancelled there would leave it
 * half done; here cancellation is off. The functions above call this
 * themselves.
 */
void haki_libc_start(void);

/*
 * libc_real.c only: the definition of a function that comes after ours in the
 * order in which libraries are searched, or NULL.
 */
typedef void hak_function(void);
hak_function *haki_libc_next(const char *name);

#endif /* HAK_LIBC_H */
