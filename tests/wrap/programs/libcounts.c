/*
 * libcounts.c - to be preloaded beside libhakmem.so, before it or behind it:
 * wraps the malloc family as a profiler does, with dlsym(RTLD_NEXT), and keeps
 * a list of blocks. At the end of a process that has PROGRAM_COUNTS set it says
 * how many requests and frees there were, and how many frees of blocks that are
 * not in the book.
 */
#include <stdatomic.h>

#include "program.h"

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*memalign)(size_t, size_t);
} next;

/* dlsym asks for memory before we know who has it: some of our own. */
static char early[16384] __attribute__((aligned(16)));
static size_t early_used;

static void *early_alloc(size_t size)
{
    void *p = early + early_used;

    early_used += (size + 15) & ~(size_t)15;
    NEED(early_used <= sizeof(early));
    return p;
}

static bool is_early(const void *p)
{
    return (const char *)p >= early && (const char *)p < early + sizeof(early);
}

static void find(void *function, const char *name)
{
    *(void **)function = dlsym(RTLD_NEXT, name);
    NEED(*(void **)function != NULL);
}

static bool ready(void)
{
    static __thread bool looking __attribute__((tls_model("initial-exec")));

    if (next.malloc == NULL && !looking) {
        looking = true;
        find(&next.calloc, "calloc");
        find(&next.realloc, "realloc");
        find(&next.free, "free");
        find(&next.posix_memalign, "posix_memalign");
        find(&next.aligned_alloc, "aligned_alloc");
        find(&next.memalign, "memalign");
        find(&next.malloc, "malloc");
        looking = false;
    }
    return next.malloc != NULL;
}

/* ---- the book ------------------------------------------------------------------- */

enum { PLACES = 1 << 20 }; /* sums of what was and what is at places by hash */

static _Atomic(unsigned) book[PLACES];
static _Atomic(unsigned long) requests, frees, strangers;

static _Atomic(unsigned) *place(const void *p)
{
    return &book[((uintptr_t)p >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 44];
}

static void *note(void *p)
{
    if (p != NULL) {
        requests++;
        ++*place(p);
    }
    return p;
}

static void strike(void *p)
{
    _Atomic(unsigned) *at = place(p);
    unsigned now = *at;

    frees++;
    while (now != 0 && !atomic_compare_exchange_weak(at, &now, now - 1)) {
    }
    strangers += now == 0;
}

/* ---- the names ------------------------------------------------------------------ */

void *malloc(size_t size)
{
    return ready() ? note(next.malloc(size)) : early_alloc(size);
}

void *calloc(size_t count, size_t size)
{
    return ready() ? note(next.calloc(count, size)) : early_alloc(count * size);
}

void free(void *p)
{
    if (p != NULL && !is_early(p) && ready()) {
        strike(p);
        next.free(p);
    }
}

void *realloc(void *p, size_t size)
{
    void *moved;

    NEED(!is_early(p) && ready());
    if (p != NULL) {
        strike(p);
    }
    moved = next.realloc(p, size);
    if (moved == NULL && p != NULL && size != 0) {
        ++*place(p);
    }
    return note(moved);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    int error = ready() ? next.posix_memalign(out, alignment, size) : ENOMEM;

    if (error == 0) {
        note(*out);
    }
    return error;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return ready() ? note(next.aligned_alloc(alignment, size)) : NULL;
}

void *memalign(size_t alignment, size_t size)
{
    return ready() ? note(next.memalign(alignment, size)) : NULL;
}

__attribute__((destructor)) static void say(void)
{
    if (getenv("PROGRAM_COUNTS") != NULL) {
        fprintf(stderr, "requests %lu, frees %lu, strangers %lu\n", requests,
                frees, strangers);
    }
}
