/*
 * hakmem.h - the public interface of HAKMEM, documented here and only here.
 *
 * HAKMEM serves requests from four lanes: Tiny (at most HAK_TINY_MAX bytes),
 * Pool (to 52 KB), ACE (below 2 MB) and Huge. What they refuse, when the
 * address range is used up or was never to be had, goes to the system
 * allocator. Every function may be called from any thread unless it says
 * otherwise.
 *
 * Sizes are in bytes. Every pointer returned is 16-byte aligned.
 *
 * Out of memory is NULL with errno set to ENOMEM, never an abort. Misuse
 * that can be seen (a free of something that is no block) writes one line
 * naming the pointer and the reason to standard error, then aborts.
 */
#ifndef HAKMEM_H
#define HAKMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HAK_API __attribute__((visibility("default")))
#define HAK_ATTR_MALLOC __attribute__((malloc, warn_unused_result))
#define HAK_ATTR_SIZE(...) __attribute__((alloc_size(__VA_ARGS__)))
#else
#define HAK_API
#define HAK_ATTR_MALLOC
#define HAK_ATTR_SIZE(...)
#endif

/* The largest request, in bytes, that the Tiny lane serves. */
#define HAK_TINY_MAX 1024

/* ---- the calling thread's heap ---------------------------------------- */

/*
 * Returns `size` bytes, uninitialised; the caller owns them until hak_free.
 * hak_malloc(0) returns a distinct pointer that must be freed.
 * Errors: NULL and ENOMEM (also for a size above PTRDIFF_MAX).
 */
HAK_API void *hak_malloc(size_t size) HAK_ATTR_MALLOC HAK_ATTR_SIZE(1);

/*
 * Returns count * size bytes, all zero. Errors: NULL and ENOMEM, also when
 * the product overflows.
 */
HAK_API void *hak_calloc(size_t count, size_t size)
    HAK_ATTR_MALLOC HAK_ATTR_SIZE(1, 2);

/*
 * Gives a block back; any thread may free any block. NULL does nothing and
 * errno is kept. Fatal: a pointer that no hak_* function returned, the middle
 * of a block, an address in the range that was never given out.
 */
HAK_API void hak_free(void *ptr);

/*
 * As hak_free, for a caller who knows the size it asked for; the second for one
 * who has the alignment too (C23's free_sized, free_aligned_sized). Fatal as
 * well: a size that is larger than the block, an alignment that is no power of
 * two or that ptr does not have. NULL does nothing.
 */
HAK_API void hak_free_sized(void *ptr, size_t size);
HAK_API void hak_free_aligned_sized(void *ptr, size_t alignment, size_t size);

/*
 * Resizes a block, keeping its first min(old, new) bytes; the pointer may
 * change, the old one is then freed. ptr NULL is hak_malloc(size). size 0
 * keeps a block of the smallest size (it does not free).
 * Errors: NULL and ENOMEM; the old block is then untouched.
 */
HAK_API void *hak_realloc(void *ptr, size_t size) HAK_ATTR_SIZE(2);

/*
 * The same, for a caller who knows the size it asked for: old_size, any number
 * if ptr is NULL. Fatal as well: an old_size that is larger than the block.
 */
HAK_API void *hak_realloc_sized(void *ptr, size_t old_size, size_t size)
    HAK_ATTR_SIZE(3);

/*
 * Returns `size` bytes aligned to `alignment`, a power of two. To be freed
 * with hak_free. Errors: NULL with EINVAL (not a power of two) or ENOMEM.
 */
HAK_API void *hak_aligned_alloc(size_t alignment, size_t size)
    HAK_ATTR_MALLOC HAK_ATTR_SIZE(2);

/*
 * The bytes that may be used behind ptr, at least what was asked for (exactly
 * that in the hardened build, for blocks of threads' heaps); 0 for NULL. Fatal
 * as in hak_free.
 */
HAK_API size_t hak_usable_size(const void *ptr);

/*
 * The most bytes that can be asked for at the price of `size`: hak_malloc of
 * either takes the same block, and hak_usable_size of the latter's is this
 * (jemalloc's nallocx, mimalloc's mi_good_size). A size above PTRDIFF_MAX,
 * which nobody gets, is returned as it is. Nothing is allocated.
 */
HAK_API size_t hak_good_size(size_t size);

/*
 * As hak_malloc(hak_good_size(size)), and *actual is that size, all of which
 * may be used (C++23's allocate_at_least). Errors: NULL and ENOMEM, *actual
 * is 0.
 */
HAK_API void *hak_alloc_at_least(size_t size, size_t *actual) HAK_ATTR_MALLOC;

/*
 * True if ptr points into memory of HAKMEM's, in use or not. Any value is safe:
 * nothing is read at ptr. Blocks that HAKMEM had to take from the system
 * allocator are not its own. Any thread may ask.
 */
HAK_API bool hak_owns(const void *ptr);

/* ---- explicit heaps ---------------------------------------------------- */

/*
 * An explicit heap is used by one thread at a time: the caller's own lock
 * or ownership rule decides which. It needs no thread-local state and no
 * atomics, and deleting it frees all it gave out at once:
 *
 *     hak_heap_config config = {.size = sizeof config,
 *                               .limit = 8 << 20,
 *                               .name = "request"};
 *     hak_heap *heap = hak_heap_new(&config);
 *     hak_heap_stats_t stats = {.size = sizeof stats};
 *     char *text = hak_heap_malloc(heap, 100);
 *
 *     if (text == NULL) {        // ENOMEM: out of memory, or over the limit
 *         hak_heap_set_limit(heap, 16 << 20);
 *         text = hak_heap_malloc(heap, 100);
 *     }
 *     ...
 *     hak_heap_stats(heap, &stats);
 *     printf("%s: %zu bytes at most\n", stats.name, stats.peak_bytes);
 *     hak_heap_delete(heap);     // and with it `text`
 *
 * In a forked child the heap is a copy and may be used; one that another thread
 * was at work on in that moment may be half done, and is to be left alone.
 */
typedef struct hak_heap hak_heap;

typedef struct hak_heap_config {
    size_t size;      /* sizeof(hak_heap_config), for later versions */
    size_t limit;     /* bytes the heap may hold in live blocks, 0: none */
    const char *name; /* at most 31 bytes are kept, for reports; or NULL */
} hak_heap_config;

/*
 * Makes a heap. config may be NULL: no limit, no name. The caller owns it
 * and ends it with hak_heap_delete. Errors: NULL with ENOMEM, or EINVAL when
 * config->size is not one this version knows.
 */
HAK_API hak_heap *hak_heap_new(const hak_heap_config *config);

/*
 * Frees every block the heap gave out and the heap itself, in time that
 * grows with its slabs, not its blocks. Its memory goes back to the system as
 * free memory does, its own two pages too (a few such are kept for new heaps:
 * heaps_kept_bytes, at most 256 KB; none after hak_trim). NULL does nothing. No
 * thread may use or free a block of it, nor be about to, from here on.
 */
HAK_API void hak_heap_delete(hak_heap *heap);

/*
 * As the functions of threads' heaps with these names, on the given heap, for
 * the thread that uses it. A request over the heap's limit returns NULL with
 * ENOMEM. Those that take a block (a ptr that is not NULL) are fatal if it is
 * not this heap's. hak_free, from any thread, takes blocks of a heap too, and
 * hak_usable_size knows them; the heap gets what was freed so at its next
 * refill, or when it meets its limit.
 */
HAK_API void *hak_heap_malloc(hak_heap *heap, size_t size)
    HAK_ATTR_MALLOC HAK_ATTR_SIZE(2);
HAK_API void *hak_heap_calloc(hak_heap *heap, size_t count, size_t size)
    HAK_ATTR_MALLOC HAK_ATTR_SIZE(2, 3);
HAK_API void *hak_heap_realloc(hak_heap *heap, void *ptr, size_t size)
    HAK_ATTR_SIZE(3);
HAK_API void hak_heap_free(hak_heap *heap, void *ptr);

/*
 * `size` bytes aligned to `alignment`, a power of two. hak_heap_realloc keeps
 * an alignment of 16 only. Errors: NULL with EINVAL or ENOMEM.
 */
HAK_API void *hak_heap_aligned_alloc(hak_heap *heap, size_t alignment,
                                     size_t size)
    HAK_ATTR_MALLOC HAK_ATTR_SIZE(3);

/*
 * With sizes, as those of threads' heaps. hak_heap_realloc_sized copies no more
 * than old_size bytes if the block has to move. In every build a block of an
 * explicit heap has whole blocks' sizes: hak_heap_usable_size of one that was
 * asked for with `size` is hak_heap_good_size(heap, size), which the heap's
 * limit counts (a multiple of 4096 above 53,248), unless it had to come from the
 * system allocator.
 */
HAK_API size_t hak_heap_usable_size(hak_heap *heap, const void *ptr);
HAK_API size_t hak_heap_good_size(const hak_heap *heap, size_t size);
HAK_API void *hak_heap_alloc_at_least(hak_heap *heap, size_t size,
                                      size_t *actual) HAK_ATTR_MALLOC;
HAK_API void *hak_heap_realloc_sized(hak_heap *heap, void *ptr, size_t old_size,
                                     size_t size) HAK_ATTR_SIZE(4);
HAK_API void hak_heap_free_sized(hak_heap *heap, void *ptr, size_t size);

/*
 * Sets the heap's limit, in bytes of live blocks (0: none), and returns the one
 * before. A limit below what is live takes nothing away: it refuses every
 * growth until enough is freed. For the thread that uses the heap; any thread
 * may read the limit (0: none).
 */
HAK_API size_t hak_heap_set_limit(hak_heap *heap, size_t limit);
HAK_API size_t hak_heap_limit(const hak_heap *heap);

/* Bytes in live blocks of the heap, rounded up to whole blocks. */
HAK_API size_t hak_heap_live(const hak_heap *heap);

/*
 * Bytes of the heap that are in memory now, its own state included, by asking
 * the system about each stretch of its slabs (some microseconds, a millisecond
 * for 100 MB). Any thread may ask while the heap is there.
 */
HAK_API size_t hak_heap_resident(const hak_heap *heap);

/* Statistics of one heap, in bytes and counts since it was made. */
typedef struct hak_heap_stats_t {
    size_t size;          /* set to sizeof(hak_heap_stats_t) before the call */
    size_t limit;         /* hak_heap_limit */
    size_t live_bytes;    /* hak_heap_live */
    size_t peak_bytes;    /* the most of it, at most 1/16 or 4 KB too low */
    size_t held_bytes;    /* slabs of 64 KB and larger blocks it holds */
    size_t kept_bytes;    /* of these: in free blocks it keeps at hand */
    size_t sealed_bytes;  /* of these: in slabs that are sealed */
    uint64_t tiny_allocs; /* blocks from the Tiny lane */
    uint64_t larger_allocs;  /* blocks from the lanes above it */
    uint64_t fallback;       /* blocks from the system allocator */
    uint64_t limit_refusals; /* requests that the limit refused */
    uint64_t remote_frees;   /* blocks freed by hak_free that are back */
    char name[32];           /* as given to hak_heap_new; "": none */
} hak_heap_stats_t;

/*
 * Fills *stats; nothing is allocated. Any thread may ask while the heap is
 * there; another thread's may be a moment old, each number is whole. Returns 0,
 * or -1 with EINVAL: heap or stats is NULL, stats->size is wrong.
 */
HAK_API int hak_heap_stats(const hak_heap *heap, hak_heap_stats_t *stats);

/* ---- the fork seal ------------------------------------------------------ */

/*
 * For processes that fork and go on in parent and child, a server and its
 * workers: a free block of the parent's lies on a page that both share, and a
 * child that uses it gets the whole page copied. A sealed heap leaves what it
 * has alone: it allocates from fresh memory, and a free of a block from before
 * writes to nothing but a table outside, until all blocks of a slab of 64 KB
 * are free and the slab is used again. What was free stays unused until then.
 *
 * hak_seal seals the calling thread's heap and those of threads that have
 * ended, and gives idle memory back as hak_trim does. Call it in the parent,
 * before the forks and after what is to be shared was built; it may be called
 * again. Other running threads seal their own heaps. HAKMEM_SEAL_FORK=1 seals
 * all threads' heaps in every forked child.
 */
HAK_API void hak_seal(void);

/* The same for one explicit heap. */
HAK_API void hak_heap_seal(hak_heap *heap);

/*
 * Whether an explicit heap is to be sealed in every child of a fork, before
 * fork returns there; off in a new heap, HAKMEM_SEAL_FORK does not matter.
 * A heap that another thread was just at work on is left as it is.
 */
HAK_API void hak_heap_seal_at_fork(hak_heap *heap, bool on);

/* ---- memory back, statistics, version ---------------------------------- */

/*
 * Gives idle memory back to the operating system now: the calling thread's
 * free blocks, those of threads that have ended or are seen to sleep in the
 * kernel, and every slab that nobody uses. Returns the bytes given back. The
 * heaps of threads that run, and explicit heaps, keep their own free blocks.
 * Any thread; takes some 50 us for each thread that has a heap.
 */
HAK_API size_t hak_trim(void);

/* The same for one explicit heap (and every slab that nobody uses). */
HAK_API size_t hak_heap_trim(hak_heap *heap);

/*
 * Sets HAKMEM_LIMIT's limit on all that HAKMEM holds in this process, in bytes
 * (0: none), whatever the environment said, and returns the one before. A limit
 * below what is held takes nothing away: all that is free goes back, and every
 * growth is refused (NULL, ENOMEM) until there is room. Requests that the
 * system allocator would have to serve are refused as well. Any thread; a
 * forked child has its parent's. hak_limit reads it; 0: there is none, but
 * that of the container if there is one (limit_bytes in hak_stats_t).
 */
HAK_API size_t hak_set_limit(size_t limit);
HAK_API size_t hak_limit(void);

/*
 * The statistics of the whole process. Set size to sizeof(hak_stats_t) before
 * the call; at most that many bytes are written, size and version first.
 * Those of running threads are read without stopping them and may be a
 * moment old; each is a whole value.
 */
typedef struct hak_stats_t {
    size_t size;      /* bytes of this struct that are filled */
    uint32_t version; /* HAK_STATS_VERSION of the library */
    uint32_t reserved;
#define HAK_STAT(name, kind, unit, help) uint64_t name; /* help */
#include "hakmem_stats.def"
#undef HAK_STAT
} hak_stats_t;

#define HAK_STATS_VERSION 1

/* Fills *stats. Returns 0, or -1 with EINVAL if stats->size is too small. */
HAK_API int hak_stats(hak_stats_t *stats);

/*
 * The same as text: a line a statistic, a table for people (its form may change),
 * one JSON object, or what Prometheus reads. Works like snprintf: returns the
 * length of the whole text without its final NUL, writes at most len bytes
 * including it; buf may be NULL if len is 0. Nothing is allocated.
 */
HAK_API size_t hak_stats_text(char *buf, size_t len);
HAK_API size_t hak_stats_table(char *buf, size_t len);
HAK_API size_t hak_stats_json(char *buf, size_t len);
HAK_API size_t hak_stats_prometheus(char *buf, size_t len);

/* ---- profiles: who holds the memory ------------------------------------- */

/*
 * A profile samples what is allocated, one block in so many bytes (Poisson, unbiased for
 * every size), by hak_*, explicit heaps and whatever HAKMEM serves in the process; and
 * knows of each sample whether it is live. Off, it costs one instruction an allocation;
 * on, that and some 10 us a sample. Bounded: 22 MB for 65,535 live samples and 32,767
 * stacks; the blocks themselves lie in up to 512 MB of addresses. What has no room there
 * is not sampled.
 *
 * Any thread may call these. A forked child goes on with the parent's samples of what
 * is live, and its own sums of what was allocated.
 */
#define HAK_PROFILE_RATE ((size_t)512 * 1024)

/*
 * Begins to sample, one in `rate` bytes on the average (0: HAK_PROFILE_RATE), or goes on
 * with another rate. Sums of what was allocated begin at 0 if it was off. A thread that
 * runs takes part before it has freed 256 KB of a size, or its bin is empty.
 * Returns 0, or -1 with ENOMEM.
 */
HAK_API int hak_profile_start(size_t rate);

/* Takes no more samples. Those there are remain until their blocks are freed, so that
 * a profile can still be written. */
HAK_API void hak_profile_stop(void);

/* Bytes a sample; 0: it is off. */
HAK_API size_t hak_profile_rate(void);

/* From here on HAK_PROFILE_GROWN tells what has come to what there is now. */
HAK_API void hak_profile_mark(void);

/* The forms of a profile. */
enum {
    HAK_PROFILE_BY_NAME,    /* by the path's ending: .pb.gz .txt .json .html */
    HAK_PROFILE_PPROF,      /* gzip'd protobuf, for `go tool pprof` */
    HAK_PROFILE_COLLAPSED,  /* a line a stack: root;...;leaf value */
    HAK_PROFILE_SPEEDSCOPE, /* JSON, for https://www.speedscope.app */
    HAK_PROFILE_PAGE        /* HTML with a flame graph, works from a file */
};

/* What it tells; 0: bytes of live blocks. Forms that have all (all but collapsed
 * stacks) begin with it. */
enum {
    HAK_PROFILE_ALLOCATED = 1, /* since the start, freed or not */
    HAK_PROFILE_BLOCKS = 2,    /* numbers of blocks */
    HAK_PROFILE_GROWN = 4,     /* less what there was at hak_profile_mark */
    HAK_PROFILE_FLAGS = 7
};

/*
 * Writes the profile: the estimates, for the whole process. %p in `path` becomes the
 * process's number; a file that is there is replaced. Symbols are looked for in the
 * files of the program and its libraries. Nothing is allocated by HAKMEM.
 * Returns 0, or -1: EINVAL (an unknown form, ending or flag), ENODATA (there never was
 * a profile), ENOMEM, ENAMETOOLONG, or as open(2) and write(2) say; what was written
 * until then stays.
 */
HAK_API int hak_profile_write(const char *path, int format, unsigned flags);
HAK_API int hak_profile_write_fd(int fd, int format, unsigned flags);

/* "MAJOR.MINOR.PATCH", a constant string. */
HAK_API const char *hak_version(void);

#ifdef __cplusplus
}
#endif

#endif /* HAKMEM_H */
