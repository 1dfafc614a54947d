/*
 * libplain.c - a malloc that gives and never takes back, with one atomic addition:
 * it may be called from a signal's handler at any time.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define PUBLIC __attribute__((visibility("default")))
#define ROOM ((size_t)16 << 30)

static char *_Atomic room;
static atomic_size_t used;

/* The size stands in the 16 bytes before a block. */
PUBLIC void *memalign(size_t alignment, size_t size)
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

PUBLIC void *malloc(size_t size)
{
    return memalign(16, size);
}

PUBLIC void *calloc(size_t count, size_t size)
{
    return memalign(16, count * size);
}

PUBLIC void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

PUBLIC int posix_memalign(void **block, size_t alignment, size_t size)
{
    *block = memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}

PUBLIC void free(void *block)
{
    (void)block;
}

PUBLIC void *realloc(void *old, size_t size)
{
    void *block = malloc(size);

    if (old != NULL && block != NULL) {
        const size_t before = ((size_t *)old)[-1];

        memcpy(block, old, before < size ? before : size);
    }
    return block;
}
