/*
 * thread_idle.c - trims and seals those threads' heaps it can reach.
 *
 * These are the calling thread's, parked ones, and those of threads that sleep,
 * which lend.h borrows.
 *
 * Tested by tests/unit/heap/lend.c and tests/unit/api/seal_fork.c.
 */
#include "heap/lend.h"
#include "heap/thread.h"

/* Bytes of all pages that this thread has swept. */
static __thread size_t thread_swept __attribute__((tls_model("initial-exec")));

static void thread_trim(struct hak_heap *heap)
{
    HAK_ASSERT(
        !haki_heap_is_busy(heap)); /* it was lent or parked between acts */
    haki_heap_seal_count(heap);
    thread_swept += haki_heap_sweep(heap);
    HAK_ASSERT(heap->tiny.nempty == 0 && haki_kept(&heap->tiny.allow) == 0);
}

static void thread_seal(struct hak_heap *heap)
{
    HAK_ASSERT(!haki_heap_is_busy(heap));
    haki_heap_seal_slabs(heap);
    haki_heap_seal_count(heap);
    HAK_ASSERT(heap->tiny.nslabs == 0);
}

/* The same for a heap that was lent. */
static void thread_trim_lent(struct hak_heap *heap)
{
    haki_thread_send(heap);
    thread_trim(heap);
}

size_t haki_thread_trim(void)
{
    size_t before = thread_swept;

    haki_thread_each(thread_trim);
    haki_lend_all(thread_trim_lent);
    return thread_swept - before;
}

/* Trims a heap, unless nothing has changed since the last time. */
static void thread_trim_used(struct hak_heap *heap)
{
    if (haki_heap_use(heap) != heap->trimmed_use) {
        thread_trim(heap);
        heap->trimmed_use = haki_heap_use(heap);
    }
}

/* The same for a heap that was lent. */
static void thread_trim_used_lent(struct hak_heap *heap)
{
    haki_thread_send(heap);
    thread_trim_used(heap);
}

void haki_thread_trim_used(void)
{
    haki_thread_each(thread_trim_used);
    haki_lend_used(thread_trim_used_lent);
}

bool haki_thread_trim_idle(void)
{
    return haki_lend_idle(thread_trim_lent);
}

void haki_thread_seal(void)
{
    haki_thread_each(thread_seal);
}
