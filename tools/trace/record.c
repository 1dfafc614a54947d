/*
 * record.c - the malloc family, recorded, around the next allocator's; see
 * recorder.h.
 *
 * Whichever library is behind this one serves: the C library, or an allocator
 * that is preloaded after it. C++'s operators call malloc; those of an allocator
 * that has its own are not seen.
 */
#include "recorder.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

/* The next allocator's. */
static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    void *(*memalign)(size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
} next;

/* ---- the beginning -------------------------------------------------------- */

/* What dlsym asks for while it looks for malloc; never freed, of zeros. */
static _Alignas(16) char early_room[1 << 16];
static size_t early_used;
static bool early; /* looking now */

static bool is_early(const void *block)
{
    return (const char *)block >= early_room &&
           (const char *)block < early_room + sizeof early_room;
}

static void *early_alloc(size_t size, size_t alignment)
{
    size_t at = (early_used + alignment - 1) & -alignment;

    if (at > sizeof early_room || size > sizeof early_room - at) {
        errno = ENOMEM;
        return NULL;
    }
    early_used = at + size;
    return early_room + at;
}

/* Into *place, a pointer to a function. */
static void find(void *place, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (found == NULL) {
        record_say(name, ": no library behind this one has it", (char *)NULL);
        _exit(127);
    }
    memcpy(place, &found, sizeof found);
}

/* Before there is a second thread. False: it is being done. */
static __attribute__((noinline, cold)) bool begin(void)
{
    if (early) {
        return false;
    }
    early = true;
    find(&next.calloc, "calloc");
    find(&next.realloc, "realloc");
    find(&next.free, "free");
    find(&next.memalign, "memalign");
    find(&next.aligned_alloc, "aligned_alloc");
    find(&next.posix_memalign, "posix_memalign");
    find(&next.malloc, "malloc");
    early = false;
    record_start();
    return true;
}

static __attribute__((constructor)) void begin_at_last(void)
{
    if (next.malloc == NULL) {
        begin();
    }
}

static __attribute__((destructor)) void end(void)
{
    record_stop(true);
}

/* False: the next allocator isn't known yet, take early_alloc. */
static inline bool ready(void)
{
    return LIKELY(next.malloc != NULL) || begin();
}

static inline bool recording(void)
{
    return LIKELY(atomic_load_explicit(&record_on, memory_order_relaxed));
}

/* ---- allocation ----------------------------------------------------------- */

static inline void *seen(enum trace_op op, void *block, size_t size,
                         unsigned log)
{
    if (recording()) {
        if (LIKELY(block != NULL)) {
            record_allocated(op, block, size, log);
        } else {
            record_failed();
        }
    }
    return block;
}

PUBLIC void *malloc(size_t size)
{
    if (UNLIKELY(!ready())) {
        return early_alloc(size, 16);
    }
    return seen(TRACE_MALLOC, next.malloc(size), size, 0);
}

PUBLIC void *calloc(size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        bytes = SIZE_MAX; /* the next allocator refuses, and says so its way */
    }
    if (UNLIKELY(!ready())) {
        return early_alloc(bytes, 16);
    }
    return seen(TRACE_CALLOC, next.calloc(count, size), bytes, 0);
}

PUBLIC void free(void *block)
{
    if (block == NULL || UNLIKELY(is_early(block))) {
        return;
    }
    if (!ready()) {
        return;
    }
    if (recording()) {
        record_freed(block);
    }
    next.free(block);
}

/* What is past the old block's end is read with it, but is within the room. */
static void *early_grow(void *old, size_t size)
{
    void *block = malloc(size);
    const size_t most = (size_t)(early_room + sizeof early_room - (char *)old);

    if (block != NULL) {
        memmove(block, old, size < most ? size : most);
    }
    return block;
}

PUBLIC void *realloc(void *old, size_t size)
{
    if (UNLIKELY(is_early(old))) {
        return early_grow(old, size);
    }
    if (UNLIKELY(!ready())) {
        return early_alloc(size, 16);
    }
    if (old == NULL) {
        return seen(TRACE_REALLOC_NULL, next.realloc(NULL, size), size, 0);
    }
    if (UNLIKELY(!recording())) {
        return next.realloc(old, size);
    }
    const struct resize resize = record_resize_begins(old);
    void *block = next.realloc(old, size);

    record_resized(resize, old, block, size);
    return block;
}

PUBLIC void *reallocarray(void *old, size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(old, bytes);
}

/* ---- aligned -------------------------------------------------------------- */

static unsigned log_of(size_t alignment)
{
    unsigned log = 0;

    while (log < TRACE_ALIGN_MAX && (size_t)1 << log < alignment) {
        log++;
    }
    return log;
}

PUBLIC void *memalign(size_t alignment, size_t size)
{
    if (UNLIKELY(!ready())) {
        return early_alloc(size, alignment);
    }
    return seen(TRACE_ALIGNED, next.memalign(alignment, size), size,
                log_of(alignment));
}

PUBLIC void *aligned_alloc(size_t alignment, size_t size)
{
    if (UNLIKELY(!ready())) {
        return early_alloc(size, alignment);
    }
    return seen(TRACE_ALIGNED, next.aligned_alloc(alignment, size), size,
                log_of(alignment));
}

PUBLIC int posix_memalign(void **block, size_t alignment, size_t size)
{
    if (UNLIKELY(!ready())) {
        *block = early_alloc(size, alignment);
        return *block ? 0 : ENOMEM;
    }
    const int error = next.posix_memalign(block, alignment, size);

    seen(TRACE_ALIGNED, error == 0 ? *block : NULL, size, log_of(alignment));
    return error;
}

PUBLIC void *valloc(size_t size)
{
    return memalign((size_t)sysconf(_SC_PAGESIZE), size);
}

PUBLIC void *pvalloc(size_t size)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes;

    if (__builtin_add_overflow(size, page - 1, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return memalign(page, bytes & -page);
}

/* ---- ends that run no destructor ------------------------------------------ */

PUBLIC void _exit(int status)
{
    record_stop(true);
    for (;;) {
        syscall(SYS_exit_group, status);
    }
}

/* Not the C library's own calls of it, nor any other signal that ends. */
PUBLIC void abort(void)
{
    void (*real)(void);

    record_stop(false);
    find(&real, "abort");
    for (;;) {
        real();
    }
}

PUBLIC void _Exit(int status)
{
    _exit(status);
}
