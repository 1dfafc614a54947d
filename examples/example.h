/*
 * example.h - what the examples share and an embedder does not need: how they
 * are called, and what they report.
 *
 *     NAME libc      the library on its own allocator
 *     NAME hakmem    the same work on HAKMEM
 *     NAME limit the library reaches a limit, and survives
 *
 * Each ends with a line of NAME=VALUE, which run.py reads, and status 0.
 */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <hakmem.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEED(condition)                                                        \
    ((condition) ? (void)0                                                     \
                 : (fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, \
                            #condition),                                       \
                    exit(1)))

enum mode { LIBC, HAKMEM, LIMIT };

/* The most that was resident, in KB: a line of /proc/self/status. */
static inline void example_resident(void)
{
    FILE *status = fopen("/proc/self/status", "r");
    char line[200];

    while (status != NULL && fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            printf("resident=%lu\n", strtoul(line + 6, NULL, 10));
        }
    }
    if (status != NULL) {
        fclose(status);
    }
}

static inline enum mode example_mode(int argc, char **argv)
{
    static const char *const words[] = {"libc", "hakmem", "limit"};

    atexit(example_resident);
    for (int i = 0; argc == 2 && i < 3; i++) {
        if (strcmp(argv[1], words[i]) == 0) {
            return (enum mode)i;
        }
    }
    fprintf(stderr, "usage: %s libc|hakmem|limit\n", argv[0]);
    exit(2);
}

/* A heap of its own with a limit in bytes; 0: none. */
static inline hak_heap *example_heap(const char *name, size_t limit)
{
    hak_heap_config config = {
        .size = sizeof config, .limit = limit, .name = name};
    hak_heap *heap = hak_heap_new(&config);

    NEED(heap != NULL);
    return heap;
}

/* Reports what a heap has done; called before it is deleted. */
static inline void example_report(const hak_heap *heap)
{
    hak_heap_stats_t stats = {.size = sizeof stats};

    NEED(hak_heap_stats(heap, &stats) == 0);
    printf("heap=%s limit=%zu peak=%zu live=%zu blocks=%llu refusals=%llu\n",
           stats.name, stats.limit, stats.peak_bytes, stats.live_bytes,
           (unsigned long long)(stats.tiny_allocs + stats.larger_allocs),
           (unsigned long long)stats.limit_refusals);
    NEED(stats.limit == 0 || stats.peak_bytes <= stats.limit);
}

/* The same for the whole process, for libraries that can't use a heap. */
static inline void example_report_process(void)
{
    hak_stats_t stats = {.size = sizeof stats};

    NEED(hak_stats(&stats) == 0);
    printf("limit=%zu blocks=%llu held=%llu refusals=%llu\n", hak_limit(),
           (unsigned long long)(stats.tiny_allocs + stats.pool_allocs +
                                stats.ace_allocs + stats.huge_allocs),
           (unsigned long long)stats.limit_used_bytes,
           (unsigned long long)stats.limit_refusals);
    NEED(hak_limit() == 0 || stats.limit_used_bytes <= hak_limit());
}

/*
 * For interpreters: runs of a script, each on a heap of its own, which has a limit of `limit` bytes where
 * `eater` is to meet one. `run` says whether the script ended well; the heap may be
 * left full: all of it goes with it.
 */
static inline int
example_scripts(int argc, char **argv,
                int (*run)(hak_heap *heap, const char *script),
                const char *work, const char *eater, size_t limit)
{
    enum mode mode = example_mode(argc, argv);

    for (int i = 0; i < (mode == LIMIT ? 1 : 3); i++) {
        hak_heap *heap = mode == LIBC ? NULL : example_heap("script", 0);

        if (mode == LIMIT) {
            hak_heap_set_limit(heap, limit);
            NEED(!run(heap, eater));
            NEED(hak_heap_live(heap) <= limit);
        } else {
            NEED(run(heap, work));
        }
        if (heap != NULL) {
            example_report(heap);
            hak_heap_delete(heap);
        }
    }
    return 0;
}

#endif /* EXAMPLE_H */
