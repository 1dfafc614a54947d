/*
 * system.h - the system allocator behind the core, for what no lane serves.
 *
 * A registry knows every block that came this way, so that any pointer can be
 * looked up without reading what it points to. One table under one lock is
 * enough, since only requests that the lanes refuse come here.
 *
 * Adapters don't use this: they fall back to their runtime's own allocator.
 */
#ifndef HAK_SYSTEM_H
#define HAK_SYSTEM_H

#include "base/base.h"

struct hak_heap;

/* Why a request went to the system: the fallback_* statistics. */
enum hak_reason {
    HAK_REASON_INIT,      /* the libc names: before options can be read */
    HAK_REASON_RECURSION, /* the libc names: a request of our slow path */
    HAK_REASON_FORCED,    /* the libc names: HAKMEM_FORCE_LIBC_ALLOC */
    HAK_REASON_LARGE,
    HAK_REASON_ALIGNED,
    HAK_REASON_MEMORY,
    HAK_REASON_EXITED,
    HAK_REASONS
};

/* Whether the lanes were asked and had no memory: see haki_limit_refuses. */
HAK_INLINE bool haki_reason_is_short(enum hak_reason reason)
{
    return reason >= HAK_REASON_LARGE && reason <= HAK_REASON_MEMORY;
}

/*
 * Allocates `size` bytes aligned to `alignment` (16 or more) for `owner` (a
 * explicit heap, or NULL). NULL: out of memory, errno ENOMEM.
 */
void *haki_system_alloc(size_t alignment, size_t size, struct hak_heap *owner,
                        enum hak_reason reason);

/*
 * Frees p if it is in the registry, and returns its owner and its size. False:
 * it is not.
 */
bool haki_system_free(void *p, struct hak_heap **owner, size_t *size);

/* Whether p is in the registry; fills *owner and *size if it is. */
bool haki_system_find(const void *p, struct hak_heap **owner, size_t *size);

/*
 * Resizes p, which is in the registry, keeping 16-byte alignment. NULL: out
 * of memory, p is untouched.
 */
void *haki_system_resize(void *p, size_t size);

/* Frees every block of a heap. */
void haki_system_free_owner(struct hak_heap *owner);

/* Counts a request that went to the system without the registry. */
void haki_system_count(enum hak_reason reason);

/* Counts a block that was handed on to the allocator it came from. */
void haki_system_count_foreign(void);

/* How many blocks the registry has; any thread may read it. */
extern HAK_HIDDEN _Atomic(size_t) haki_system_entries;

/* Whether p may be in the registry; false is certain. */
HAK_INLINE bool haki_system_may_know(const void *p)
{
    return p != NULL && atomic_load_explicit(&haki_system_entries,
                                             memory_order_relaxed) != 0;
}

struct hak_system_counts {
    uint64_t fallback[HAK_REASONS];
    uint64_t live, live_bytes;
    uint64_t foreign;
};
void haki_system_counts(struct hak_system_counts *counts);

/* In a forked child: see haki_lock_settle. */
bool haki_system_forked(void);

#endif /* HAK_SYSTEM_H */
