/*
 * hakmem.h - the public interface of HAKMEM, documented here and only here.
 *
 * HAKMEM serves requests from four lanes: Tiny (at most HAK_TINY_MAX bytes),
 * Pool (to 52 KB), ACE (below 2 MB) and Huge. What they refuse, because the
 * address range is used up or could not be obtained, goes to the system
 * allocator. Every function may be called from any thread unless it says
 * otherwise.
 *
 * Sizes are in bytes. Every pointer returned is 16-byte aligned.
 *
 * When memory runs out a function returns NULL with errno set to ENOMEM; it
 * never aborts. Misuse that can be detected (a free of something that is not a
 * block) writes one line with the pointer and the reason to standard error,
 * then aborts.
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
#define HAK_RENAMED(type, name, old)                                           \
    __extension__ union {                                                      \
        type name;                                                             \
        type old; /* deprecated: gone with the next version */                 \
    }
#else
#define HAK_API
#define HAK_ATTR_MALLOC
#define HAK_ATTR_SIZE(...)
#define HAK_RENAMED(type, name, old)                                           \
    union {                                                                    \
        type name;                                                             \
        type old;                                                              \
    }
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
 * Frees a block; any thread may free any block. NULL does nothing; errno is
 * kept. Fatal: a pointer that no hak_* function returned, the middle of a
 * block, an address in the range that was never given out.
 */
HAK_API void hak_free(void *ptr);

/*
 * As hak_free, for a caller that knows the size it asked for, or with the
 * second function also the alignment (C23's free_sized, free_aligned_sized).
 * Also fatal: a size larger than the block, an alignment that is not a power of
 * two or that ptr does not have. NULL does nothing.
 */
HAK_API void hak_free_sized(void *ptr, size_t size);
HAK_API void hak_free_aligned_sized(void *ptr, size_t alignment, size_t size);

/*
 * Resizes a block, keeping its first min(old, new) bytes; the pointer may
 * change, and the old one is then freed. A NULL ptr means hak_malloc(size).
 * Size 0 returns a block of the smallest size (it does not free). Errors: NULL
 * and ENOMEM; the old block is then untouched.
 */
HAK_API void *hak_realloc(void *ptr, size_t size) HAK_ATTR_SIZE(2);

/*
 * The same, for a caller that knows the size it asked for, old_size (ignored if
 * ptr is NULL). Also fatal: an old_size larger than the block.
 */
HAK_API void *hak_realloc_sized(void *ptr, size_t old_size, size_t size)
    HAK_ATTR_SIZE(3);

/*
 * Returns `size` bytes aligned to `alignment`, a power of two. Free them with
 * hak_free. Errors: NULL with EINVAL (not a power of two) or ENOMEM.
 */
HAK_API void *hak_aligned_alloc(size_t alignment, size_t size)
    HAK_ATTR_MALLOC HAK_ATTR_SIZE(2);

/*
 * Returns how many bytes of the block may be used: at least as many as were
 * asked for (in the hardened build exactly as many, for blocks of threads'
 * heaps); 0 for NULL. Fatal as in hak_free.
 */
HAK_API size_t hak_usable_size(const void *ptr);

/*
 * Returns the largest size that takes the same block as `size` does:
 * hak_usable_size(hak_malloc(size)) is this size (jemalloc's nallocx,
 * mimalloc's mi_good_size). A size above PTRDIFF_MAX, which can't be allocated,
 * is returned unchanged. Nothing is allocated.
 */
HAK_API size_t hak_good_size(size_t size);

/*
 * As hak_malloc(hak_good_size(size)); *actual is set to that size, all of which
 * may be used (C++23's allocate_at_least). Errors: NULL and ENOMEM, and *actual
 * is 0.
 */
HAK_API void *hak_alloc_at_least(size_t size, size_t *actual) HAK_ATTR_MALLOC;

/*
 * True if ptr points into HAKMEM's memory, in use or not. Any value is safe:
 * nothing is read at ptr. Blocks that HAKMEM had to take from the system
 * allocator do not count. Any thread may ask.
 */
HAK_API bool hak_owns(const void *ptr);

/* ---- explicit heaps ---------------------------------------------------- */

/*
 * An explicit heap is used by one thread at a time; the caller's own lock or
 * ownership rule decides which. It needs no thread-local state and no atomics,
 * and deleting it frees all of its blocks at once:
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
 * In a forked child the heap is a copy and may be used, unless another thread
 * was working on it at that moment: then it may be inconsistent and must be
 * left alone.
 */
typedef struct hak_heap hak_heap;

typedef struct hak_heap_config {
    size_t size;      /* sizeof(hak_heap_config), for later versions */
    size_t limit;     /* most bytes in live blocks; 0: no limit */
    const char *name; /* for reports, at most 31 bytes are kept; or NULL */
} hak_heap_config;

/*
 * Makes a heap. config may be NULL: no limit, no name. The caller owns the heap
 * and ends it with hak_heap_delete. Errors: NULL with ENOMEM, or EINVAL if this
 * version does not know config->size.
 */
HAK_API hak_heap *hak_heap_new(const hak_heap_config *config);

/*
 * Frees the heap and all of its blocks, in time proportional to its slabs, not
 * its blocks. Its memory goes back to the system like other free memory, and so
 * do its own two pages (a few are kept for new heaps: heaps_kept_bytes, at most
 * 256 KB; none after hak_trim). NULL does nothing. From the call on no thread
 * may use or free a block of the heap.
 */
HAK_API void hak_heap_delete(hak_heap *heap);

/*
 * As the functions without _heap, on the given heap, for the thread that uses
 * it. A request over the heap's limit returns NULL with ENOMEM. A block (a ptr
 * that is not NULL) that is not this heap's is fatal. hak_free, from any
 * thread, accepts blocks of a heap too, and so does hak_usable_size; what was
 * freed in this way becomes available at the heap's next refill, or when it
 * reaches its limit.
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
 * As the functions without _heap. hak_heap_realloc_sized copies at most
 * old_size bytes if the block has to move. In every build hak_heap_usable_size
 * of a block that was asked for with `size` is hak_heap_good_size(heap, size),
 * the size that counts against the heap's limit (a multiple of 4096 above
 * 53,248), unless the block had to come from the system allocator.
 */
HAK_API size_t hak_heap_usable_size(hak_heap *heap, const void *ptr);
HAK_API size_t hak_heap_good_size(const hak_heap *heap, size_t size);
HAK_API void *hak_heap_alloc_at_least(hak_heap *heap, size_t size,
                                      size_t *actual) HAK_ATTR_MALLOC;
HAK_API void *hak_heap_realloc_sized(hak_heap *heap, void *ptr, size_t old_size,
                                     size_t size) HAK_ATTR_SIZE(4);
HAK_API void hak_heap_free_sized(hak_heap *heap, void *ptr, size_t size);

/*
 * Sets the heap's limit, in bytes of live blocks (0: none), and returns the
 * previous one. If more than that is live, nothing is taken away: every growth
 * is refused until enough has been freed. For the thread that uses the heap;
 * any thread may read the limit with hak_heap_limit (0: none).
 */
HAK_API size_t hak_heap_set_limit(hak_heap *heap, size_t limit);
HAK_API size_t hak_heap_limit(const hak_heap *heap);

/* Bytes in live blocks of the heap, counted as whole blocks. */
HAK_API size_t hak_heap_live(const hak_heap *heap);

/*
 * Bytes of the heap that are in memory now, including its own state. Asks the
 * system about each stretch of its slabs (some microseconds, a millisecond for
 * 100 MB). Any thread may ask while the heap exists.
 */
HAK_API size_t hak_heap_resident(const hak_heap *heap);

/* Statistics of one heap, in bytes and counts since it was made. */
typedef struct hak_heap_stats_t {
    size_t size;          /* set to sizeof(hak_heap_stats_t) before the call */
    size_t limit;         /* hak_heap_limit */
    size_t live_bytes;    /* hak_heap_live */
    size_t peak_bytes;    /* the peak of live_bytes, to within 1/16 or 4 KB */
    size_t held_bytes;    /* slabs of 64 KB and larger blocks held */
    size_t kept_bytes;    /* of these: free blocks kept at hand */
    size_t sealed_bytes;  /* of these: in slabs that are sealed */
    uint64_t tiny_allocs; /* blocks from the Tiny lane */
    uint64_t larger_allocs;  /* blocks from the lanes above it */
    uint64_t fallback;       /* blocks from the system allocator */
    uint64_t limit_refusals; /* requests that the limit refused */
    uint64_t remote_frees;   /* blocks freed by hak_free and taken back */
    char name[32];           /* as given to hak_heap_new; "": none */
} hak_heap_stats_t;

/*
 * Fills *stats; nothing is allocated. Any thread may ask while the heap exists;
 * the numbers of a heap that another thread uses may be a moment old. Returns
 * 0, or -1 with EINVAL: heap or stats is NULL, or stats->size is wrong.
 */
HAK_API int hak_heap_stats(const hak_heap *heap, hak_heap_stats_t *stats);

/* ---- the fork seal ------------------------------------------------------ */

/*
 * For processes that fork and go on in parent and child, such as a server and
 * its workers: a free block lies on a page that parent and child share, and a
 * child that uses it gets a copy of the whole page. A sealed heap leaves its
 * old memory alone: it allocates from fresh memory, and freeing an older block
 * writes only to a table outside, until all blocks of a slab of 64 KB are free
 * and the slab is used again. Blocks that were free stay unused until then.
 *
 * hak_seal seals the calling thread's heap and those of ended threads, and
 * gives idle memory back as hak_trim does. Call it in the parent, before the
 * forks and after building what is to be shared; it may be called again. Other
 * running threads must seal their own heaps. HAKMEM_SEAL_FORK=1 seals all
 * threads' heaps in every forked child.
 */
HAK_API void hak_seal(void);

/* The same for one explicit heap. */
HAK_API void hak_heap_seal(hak_heap *heap);

/*
 * Sets whether an explicit heap is sealed in every forked child, before fork
 * returns there. Off in a new heap, whatever HAKMEM_SEAL_FORK says. A heap that
 * another thread was just using is left as it is.
 */
HAK_API void hak_heap_seal_at_fork(hak_heap *heap, bool on);

/* ---- memory back, statistics, version ---------------------------------- */

/*
 * Gives idle memory back to the operating system now: the free blocks of the
 * calling thread, of threads that have ended and of threads seen asleep in the
 * kernel, and every unused slab. Returns the bytes given back. Explicit heaps
 * and the heaps of running threads keep their free blocks. Any thread; takes
 * some 50 us for each thread that has a heap.
 */
HAK_API size_t hak_trim(void);

/* The same for one explicit heap (and every unused slab). */
HAK_API size_t hak_heap_trim(hak_heap *heap);

/*
 * Sets the limit on all that HAKMEM holds in this process, in bytes (0: none),
 * in place of HAKMEM_LIMIT's, and returns the previous one. If more than that
 * is held, no block is taken away: all free memory goes back, and every growth
 * is refused (NULL, ENOMEM) until there is room. Requests that the system
 * allocator would have to serve are refused as well. Any thread; a forked child
 * inherits the limit. hak_limit returns it; 0: there is none except, possibly,
 * the container's (limit_bytes in hak_stats_t).
 */
HAK_API size_t hak_set_limit(size_t limit);
HAK_API size_t hak_limit(void);

/*
 * The statistics of the whole process. Set size to sizeof(hak_stats_t) before
 * the call; at most that many bytes are written, size and version first.
 * Running threads are not stopped, so their numbers may be a moment old.
 */
typedef struct hak_stats_t {
    size_t size;      /* bytes of this struct that are filled */
    uint32_t version; /* HAK_STATS_VERSION of the library */
    uint32_t reserved;
#define HAK_STAT(name, kind, unit, help) uint64_t name; /* help */
#define HAK_STAT_RENAMED(name, old, kind, unit, help)                          \
    HAK_RENAMED(uint64_t, name, old);
#include "hakmem_stats.def"
#undef HAK_STAT
} hak_stats_t;

#define HAK_STATS_VERSION 1

/* Fills *stats. Returns 0, or -1 with EINVAL if stats->size is too small. */
HAK_API int hak_stats(hak_stats_t *stats);

/*
 * The same as text: one line per statistic, a table for people (its form may
 * change), one JSON object, or Prometheus's format. Works like snprintf:
 * returns the length of the whole text without its final NUL, and writes at
 * most len bytes including it; buf may be NULL if len is 0. Nothing is
 * allocated.
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
 * on, that and up to 1 us a sample. Bounded: 22 MB for 65,535 live samples and 32,767
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
 * a profile), ENOMEM, ENAMETOOLONG, or as open(2) and write(2) say. A file of that
 * name is replaced by a whole one (NAME.PID until then), or stays as it was.
 */
HAK_API int hak_profile_write(const char *path, int format, unsigned flags);
HAK_API int hak_profile_write_fd(int fd, int format, unsigned flags);

/* ---- guards --------------------------------------------------------------------- */

/*
 * A sample of the blocks of up to 16 KB is guarded: such a block lies alone on its
 * pages, beside one that nobody can touch, and is itself out of reach for a while after
 * it is freed. A touch beyond it or after its free is a SIGSEGV, before which a report is
 * written to standard error: what was touched, and the stacks that allocated, freed and
 * touched it. So is a second free, or one of an address in it, and what was written
 * around it and is seen when it is freed: these end in abort. docs/PROFILE.md, "Guards".
 */

/* One block in so many bytes that are given out is guarded where nothing is said. */
#define HAK_GUARD_RATE ((size_t)128 * 1024 * 1024)

/*
 * Guards blocks: `rate` bytes a guarded one on the average, 0 is HAK_GUARD_RATE, 1 each
 * for which there is room (HAKMEM_GUARD_MEMORY, 512 KB); hak_stats counts those that were
 * due and had none, guards_missed. A profile may be on as well; its
 * samples are others. A handler of SIGSEGV is set, which lets the program's own happen
 * after a report, whenever that was set. Any thread; heaps of others take part as with
 * hak_profile_start. Returns 0, or -1 with ENOMEM.
 */
HAK_API int hak_guard_start(size_t rate);

/* Guards no more blocks and takes the handler back. Those that are guarded remain so
 * until they are freed, and out of reach then. */
HAK_API void hak_guard_stop(void);

/* Bytes a guarded block; 0: it is off. */
HAK_API size_t hak_guard_rate(void);

/* "MAJOR.MINOR.PATCH", a constant string. */
HAK_API const char *hak_version(void);

#ifdef __cplusplus
}
#endif

#endif /* HAKMEM_H */
