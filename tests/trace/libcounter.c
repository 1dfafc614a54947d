/*
 * libcounter.c - counts calls of the malloc family, by other means than the
 * recorder: it is preloaded behind it, or below a replay.
 *
 * Writes a line to the file that COUNTER_FILE names when the process ends: calls
 * that gave a block, resizes of one, frees of one, bytes asked for.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

/* glibc's own, under the names that it has for that. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

static atomic_ulong allocs, resizes, frees, bytes;

static void *counted(void *block, size_t size)
{
    if (block != NULL) {
        atomic_fetch_add(&allocs, 1);
        atomic_fetch_add(&bytes, size);
    }
    return block;
}

PUBLIC void *malloc(size_t size)
{
    return counted(__libc_malloc(size), size);
}

PUBLIC void *calloc(size_t count, size_t size)
{
    return counted(__libc_calloc(count, size), count * size);
}

PUBLIC void *memalign(size_t alignment, size_t size)
{
    return counted(__libc_memalign(alignment, size), size);
}

PUBLIC void *aligned_alloc(size_t alignment, size_t size)
{
    return counted(__libc_memalign(alignment, size), size);
}

PUBLIC int posix_memalign(void **block, size_t alignment, size_t size)
{
    *block = counted(__libc_memalign(alignment, size), size);
    return *block ? 0 : 12;
}

PUBLIC void *realloc(void *old, size_t size)
{
    void *block = __libc_realloc(old, size);

    if (old == NULL) {
        return counted(block, size);
    }
    if (block != NULL) {
        atomic_fetch_add(&resizes, 1);
        atomic_fetch_add(&bytes, size);
    } else if (size == 0) {
        atomic_fetch_add(&frees, 1);
    }
    return block;
}

PUBLIC void free(void *block)
{
    if (block != NULL) {
        atomic_fetch_add(&frees, 1);
    }
    __libc_free(block);
}

__attribute__((destructor)) static void tell(void)
{
    const char *name = getenv("COUNTER_FILE");
    char line[200];

    if (name != NULL) {
        const int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        const int length = snprintf(line, sizeof line, "%lu %lu %lu %lu\n",
                                    allocs, resizes, frees, bytes);

        if (fd < 0 || write(fd, line, (size_t)length) != length) {
            abort();
        }
        close(fd);
    }
}
