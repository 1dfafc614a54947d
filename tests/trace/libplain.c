/*
 * libplain.c - a malloc that gives and never takes back, with one atomic addition:
 * it may be called from a signal's handler at any time. Only blocks of HANDED
 * bytes are given again, at the worst time: a free of one returns when another
 * thread has it (or after a second). Its functions do not call each other by their
 * public names, which are the recorder's.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define ROOM ((size_t)16 << 30)

enum { HANDED = 12345 };

static void *_Atomic handed;
static char *_Atomic room;
static atomic_size_t used;

/* The size stands in the 16 bytes before a block. */
static void *give(size_t alignment, size_t size)
{
    char *base = atomic_load(&room);

    alignment = alignment < 16 ? 16 : alignment;
    if (base == NULL) {
        char *none = NULL;

        base = mmap(NULL, ROOM, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (!atomic_compare_exchange_strong(&room, &none, base)) {
            base = none;
        }
    }
    if (base == MAP_FAILED || size > ROOM / 16) {
        errno = ENOMEM;
        return NULL;
    }
    const size_t at = atomic_fetch_add(&used, size + alignment + 32);
    const uintptr_t block =
        ((uintptr_t)base + at + 16 + alignment - 1) & -alignment;

    ((size_t *)block)[-1] = size;
    return (void *)block;
}

static void *give_any(size_t size)
{
    void *again = size == HANDED ? atomic_exchange(&handed, NULL) : NULL;

    return again ? again : give(16, size);
}

PUBLIC void *malloc(size_t size)
{
    return give_any(size);
}

PUBLIC void *calloc(size_t count, size_t size)
{
    return give(16, count * size);
}

PUBLIC void *memalign(size_t alignment, size_t size)
{
    return give(alignment, size);
}

PUBLIC void *aligned_alloc(size_t alignment, size_t size)
{
    return give(alignment, size);
}

PUBLIC int posix_memalign(void **block, size_t alignment, size_t size)
{
    *block = give(alignment, size);
    return *block ? 0 : ENOMEM;
}

static void take(void *block)
{
    if (block != NULL && ((size_t *)block)[-1] == HANDED) {
        atomic_store(&handed, block);
        for (int i = 0; i < 1000 && atomic_load(&handed) != NULL; i++) {
            usleep(1000);
        }
    }
}

PUBLIC void free(void *block)
{
    take(block);
}

PUBLIC void *realloc(void *old, size_t size)
{
    void *block = give_any(size);

    if (old != NULL && block != NULL) {
        const size_t before = ((size_t *)old)[-1];

        memcpy(block, old, before < size ? before : size);
        take(old);
    }
    return block;
}
