/*
 * record_stream.c - operations of all threads into one buffer, under one lock;
 * see recorder.h.
 *
 * Two buffers: while a full one is packed and written, under a lock of its own,
 * the others go on in the second. Locks are taken in this order: stream, writer.
 */
#include "recorder.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* glibc has it from 2.32 on; elsewhere it is as if there were other threads. */
extern char __libc_single_threaded __attribute__((weak));

enum {
    SPINS = 100,           /* tries before a thread sleeps */
    CLOCK_EVERY = 16,      /* operations between looks at the clock */
    FLUSH_AFTER = 1000000, /* microseconds that operations wait for the file */
    NOBODY = -1
};

atomic_bool record_on;

/* Zero in a new thread. */
static _Thread_local struct {
    bool busy;     /* in the recorder: what it calls is not recorded */
    int32_t after; /* its number and one; 0: it has none yet */
} self;

/* 0 free, 1 taken, 2 taken and somebody may sleep. */
static atomic_int stream_lock;
static atomic_int writer_lock;

/* All under the stream's lock. */
static struct {
    uint8_t *buffers[2];
    uint8_t *at, *full; /* where to write next, and no further */
    unsigned current;   /* which buffer that is in */
    unsigned until_clock;
    int32_t thread; /* whose operations those at the end are */
    int32_t threads;
    uint64_t blocks; /* were allocated so far */
    uint64_t time, flushed;
    struct table table;
} stream;

static atomic_ulong stream_missed; /* calls that were not recorded */
static pthread_key_t stream_key;
static bool stream_forking; /* the locks are held for a fork */

/* ---- locks ---------------------------------------------------------------- */

static void lock_slow(atomic_int *word)
{
    const int saved = errno;

    for (int i = 0; i < SPINS; i++) {
        int expected = 0;

        if (atomic_compare_exchange_weak_explicit(word, &expected, 1,
                                                  memory_order_acquire,
                                                  memory_order_relaxed)) {
            return;
        }
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    while (atomic_exchange_explicit(word, 2, memory_order_acquire) != 0) {
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    }
    errno = saved;
}

/* The flag changes in no call of ours. */
static inline int is_alone(void)
{
    return &__libc_single_threaded != NULL && __libc_single_threaded != 0;
}

static inline void lock(atomic_int *word)
{
    int expected = 0;

    /* With one thread plain words do. */
    if (is_alone()) {
        atomic_store_explicit(word, 1, memory_order_relaxed);
    } else if (UNLIKELY(!atomic_compare_exchange_strong_explicit(
                   word, &expected, 1, memory_order_acquire,
                   memory_order_relaxed))) {
        lock_slow(word);
    }
}

static inline void unlock(atomic_int *word)
{
    if (is_alone()) {
        atomic_store_explicit(word, 0, memory_order_relaxed);
    } else if (UNLIKELY(atomic_exchange_explicit(word, 0,
                                                 memory_order_release) == 2)) {
        const int saved = errno;

        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
        errno = saved;
    }
}

/* ---- operations ----------------------------------------------------------- */

static inline void put_op(enum trace_op op)
{
    *stream.at++ = (uint8_t)op;
}

static inline void put(uint64_t number)
{
    stream.at = trace_put(stream.at, number);
}

static uint64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Writes the buffer; takes the stream's lock away. */
static void stream_flush(void)
{
    const int saved = errno;
    uint8_t *full = stream.buffers[stream.current];
    const size_t bytes = (size_t)(stream.at - full);

    lock(&writer_lock);
    stream.current ^= 1;
    stream.at = stream.buffers[stream.current];
    stream.full = stream.at + TRACE_RAW_MAX - TRACE_OP_MAX;
    stream.thread = NOBODY;
    stream.flushed = stream.time;
    unlock(&stream_lock);
    if (bytes > 0 && !file_write(full, bytes)) {
        atomic_store(&record_on, false);
    }
    unlock(&writer_lock);
    errno = saved;
}

/* The calling thread is none that has had a number yet. */
static __attribute__((noinline, cold)) void stream_new_thread(void)
{
    self.after = ++stream.threads;
    pthread_setspecific(stream_key, &stream); /* any pointer: at the end */
}

/* Now and then: what the time is, and what was missed. */
static __attribute__((noinline)) void stream_look(void)
{
    const uint64_t now = clock_now();
    const unsigned long missed =
        atomic_exchange_explicit(&stream_missed, 0, memory_order_relaxed);

    stream.until_clock = CLOCK_EVERY;
    if (now > stream.time) {
        put_op(TRACE_TIME);
        put(now - stream.time);
        stream.time = now;
    }
    if (missed > 0) {
        put_op(TRACE_MISSED);
        put(missed);
    }
}

/* False: this thread is in here already, the call isn't recorded. */
static inline bool stream_enter(void)
{
    if (UNLIKELY(self.busy)) {
        atomic_fetch_add_explicit(&stream_missed, 1, memory_order_relaxed);
        return false;
    }
    self.busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    lock(&stream_lock);
    if (UNLIKELY(self.after == 0)) {
        stream_new_thread();
    }
    if (UNLIKELY(stream.thread != self.after - 1)) {
        stream.thread = self.after - 1;
        put_op(TRACE_THREAD);
        put((uint64_t)stream.thread);
    }
    if (UNLIKELY(--stream.until_clock == 0)) {
        stream_look();
    }
    return true;
}

static inline void stream_leave(void)
{
    if (UNLIKELY(stream.at >= stream.full ||
                 stream.time - stream.flushed > FLUSH_AFTER)) {
        stream_flush();
    } else {
        unlock(&stream_lock);
    }
    atomic_signal_fence(memory_order_seq_cst);
    self.busy = false;
}

/* A block has got its number and stands in the table. */
static inline void stream_number(void *block)
{
    uint64_t old;

    if (UNLIKELY(!table_reserve(&stream.table))) {
        record_say("no memory for the table of blocks; the trace ends here,"
                   " the program goes on",
                   (char *)NULL);
        atomic_store(&record_on, false);
        return;
    }
    if (UNLIKELY(table_put(&stream.table, (uintptr_t)block, stream.blocks,
                           &old))) {
        put_op(TRACE_LOST);
        put(stream.blocks - old);
    }
}

void record_allocated(enum trace_op op, void *block, size_t size, unsigned log)
{
    if (!stream_enter()) {
        return;
    }
    stream_number(block);
    put_op(op);
    if (op == TRACE_ALIGNED) {
        put(log);
    }
    put(size);
    stream.blocks++;
    stream_leave();
}

void record_failed(void)
{
    const int saved = errno;

    if (stream_enter()) {
        put_op(TRACE_FAILED);
        stream_leave();
    }
    errno = saved;
}

void record_freed(void *block)
{
    uint64_t id;

    if (!stream_enter()) {
        return;
    }
    if (LIKELY(table_take(&stream.table, (uintptr_t)block, &id))) {
        put_op(TRACE_FREE);
        put(stream.blocks - id);
    } else {
        put_op(TRACE_FOREIGN);
    }
    stream_leave();
}

struct resize record_resize_begins(void *old)
{
    struct resize resize = {0};

    if (!stream_enter()) {
        resize.skipped = true;
        return resize;
    }
    resize.known = table_take(&stream.table, (uintptr_t)old, &resize.id);
    if (!resize.known) {
        put_op(TRACE_FOREIGN);
    }
    stream_leave();
    return resize;
}

/* The call has failed: the old block is where it was, with its old number. */
static void stream_resize_failed(struct resize resize, void *old)
{
    uint64_t other;

    put_op(TRACE_FAILED);
    if (resize.known && table_reserve(&stream.table)) {
        table_put(&stream.table, (uintptr_t)old, resize.id, &other);
    }
}

void record_resized(struct resize resize, void *old, void *block, size_t size)
{
    const int saved = errno;

    if (resize.skipped || !stream_enter()) {
        return;
    }
    if (block == NULL && size > 0) {
        stream_resize_failed(resize, old);
    } else if (block == NULL) {
        if (resize.known) {
            put_op(TRACE_FREE);
            put(stream.blocks - resize.id);
        }
    } else {
        stream_number(block);
        put_op(resize.known ? TRACE_REALLOC : TRACE_REALLOC_NULL);
        if (resize.known) {
            put(stream.blocks - resize.id);
        }
        put(size);
        stream.blocks++;
    }
    stream_leave();
    errno = saved;
}

/* ---- the life of threads and the process ---------------------------------- */

/* The key's destructor; later rounds may still free, which is not forbidden. */
static void stream_thread_ends(void *unused)
{
    (void)unused;
    if (atomic_load_explicit(&record_on, memory_order_relaxed) &&
        stream_enter()) {
        put_op(TRACE_THREAD_END);
        stream_leave();
    }
}

static void stream_fork_prepare(void)
{
    stream_forking = atomic_load(&record_on) && !self.busy;
    if (stream_forking) {
        self.busy = true;
        lock(&stream_lock);
        lock(&writer_lock);
    }
}

static void stream_fork_parent(void)
{
    if (stream_forking) {
        unlock(&writer_lock);
        unlock(&stream_lock);
        self.busy = false;
    }
}

/* A process of its own, with a file of its own; what was there is not its. */
static void stream_fork_child(void)
{
    if (!stream_forking) {
        atomic_store(&record_on, false); /* forked in the middle: a handler */
        return;
    }
    table_clear(&stream.table);
    stream.at = stream.buffers[stream.current];
    stream.thread = NOBODY;
    stream.threads = 0;
    stream.blocks = 0;
    stream.time = stream.flushed = clock_now();
    atomic_store(&stream_missed, 0);
    file_forked();
    self.after = 0;
    atomic_store(&stream_lock, 0);
    atomic_store(&writer_lock, 0);
    self.busy = false;
}

static void stream_quick_exit(void)
{
    record_stop(true);
}

void record_start(void)
{
    static const size_t room = 2 * TRACE_RAW_MAX;

    self.busy = true;
    if (file_start()) {
        uint8_t *buffers = mmap(NULL, room, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (buffers == MAP_FAILED ||
            pthread_key_create(&stream_key, stream_thread_ends) != 0) {
            record_say("no memory; nothing is recorded", (char *)NULL);
        } else {
            stream.buffers[0] = stream.at = buffers;
            stream.buffers[1] = buffers + TRACE_RAW_MAX;
            stream.full = stream.at + TRACE_RAW_MAX - TRACE_OP_MAX;
            stream.thread = NOBODY;
            stream.until_clock = CLOCK_EVERY;
            stream.time = stream.flushed = clock_now();
            pthread_atfork(stream_fork_prepare, stream_fork_parent,
                           stream_fork_child);
            at_quick_exit(stream_quick_exit);
            atomic_store(&record_on, true);
        }
    }
    self.busy = false;
}

void record_stop(bool whole)
{
    /* A child of vfork that gives up would stop its parent's record. */
    if (!atomic_load(&record_on) || self.busy || !file_is_mine()) {
        return;
    }
    self.busy = true;
    lock(&stream_lock);
    stream_look();
    if (atomic_exchange(&record_on, false)) {
        stream_flush();
        if (whole) {
            lock(&writer_lock);
            file_write(NULL, 0);
            unlock(&writer_lock);
        }
    } else {
        unlock(&stream_lock);
    }
    self.busy = false;
}
