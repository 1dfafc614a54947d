/* reader.c - reads a trace and checks it; see reader.h. */
#include "reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define SIZE_BITS 47
#define GONE ((uint64_t)1 << 63)

/* What is known while a trace is read. */
struct reading {
    struct trace *trace;
    struct trace_totals totals;
    trace_visitor *visit;
    void *context;
    uint64_t *sizes; /* of each block, GONE if it isn't there any more */
    uint64_t blocks, room;
    uint32_t thread;
    bool seen_thread;
};

/* Something is wrong: false, for the caller to return. */
static bool wrong(struct trace *trace, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool wrong(struct trace *trace, const char *format, ...)
{
    va_list words;
    int length = snprintf(trace->error, sizeof trace->error,
                          "%s: ", trace->name ? trace->name : "trace");

    if (length >= (int)sizeof trace->error) {
        return false;
    }
    va_start(words, format);
    vsnprintf(trace->error + length, sizeof trace->error - (size_t)length,
              format, words);
    va_end(words);
    return false;
}

/* ---- the file ------------------------------------------------------------- */

static bool check_head(struct trace *trace)
{
    const uint8_t *head = trace->map;

    if (trace->bytes == 0) {
        return wrong(trace, "is empty; nothing was recorded");
    }
    if (trace->bytes < 12 || memcmp(head, TRACE_MAGIC, 8) != 0) {
        return wrong(trace, "is not a trace of `hakmem record`");
    }
    if (trace_get_u32(head + 8) != TRACE_VERSION) {
        return wrong(trace,
                     "is a trace of version %u, this program reads version %u;"
                     " use the hakmem that recorded it, or record it again",
                     trace_get_u32(head + 8), TRACE_VERSION);
    }
    if (trace->bytes < TRACE_HEAD_BYTES) {
        return wrong(trace, "is cut off within its head; record it again");
    }
    trace->text_bytes = trace_get_u32(head + 12);
    if (trace->text_bytes > TRACE_TEXT_MAX ||
        trace->bytes - TRACE_HEAD_BYTES < trace->text_bytes ||
        trace_crc(trace_crc(0, head, 36), head + TRACE_HEAD_BYTES,
                  trace->text_bytes) != trace_get_u32(head + 36)) {
        return wrong(trace, "its head is damaged; record it again");
    }
    trace->pid = trace_get_u32(head + 16);
    trace->text = (const char *)head + TRACE_HEAD_BYTES;
    return true;
}

bool trace_open_memory(struct trace *trace, const void *from, size_t bytes)
{
    *trace = (struct trace){.map = from, .bytes = bytes, .name = trace->name};
    return check_head(trace);
}

bool trace_open(struct trace *trace, const char *name)
{
    struct stat status;
    const int fd = open(name, O_RDONLY | O_CLOEXEC);

    *trace = (struct trace){.name = name};
    if (fd < 0 || fstat(fd, &status) != 0) {
        const int error = errno;

        if (fd >= 0) {
            close(fd);
        }
        return wrong(trace, "%s", strerror(error));
    }
    if (!S_ISREG(status.st_mode)) {
        close(fd);
        return wrong(trace, "is not a file; a trace can't be read from a pipe");
    }
    trace->bytes = (size_t)status.st_size;
    if (trace->bytes > 0) {
        void *map = mmap(NULL, trace->bytes, PROT_READ, MAP_PRIVATE, fd, 0);

        if (map == MAP_FAILED) {
            const int error = errno;

            close(fd);
            return wrong(trace, "%s", strerror(error));
        }
        trace->map = map;
        trace->mapped = true;
    }
    close(fd);
    return check_head(trace);
}

void trace_close(struct trace *trace)
{
    if (trace->mapped) {
        munmap((void *)trace->map, trace->bytes);
        trace->mapped = false;
    }
}

/* ---- operations ----------------------------------------------------------- */

/* A block begins: its number, its size. */
static bool born(struct reading *reading, struct trace_event *event)
{
    struct trace_totals *totals = &reading->totals;

    if (event->size >> SIZE_BITS) {
        return wrong(reading->trace, "damaged: a block of %llu bytes",
                     (unsigned long long)event->size);
    }
    if (reading->blocks == reading->room) {
        const uint64_t room = reading->room ? 2 * reading->room : 1 << 12;
        uint64_t *sizes = realloc(reading->sizes, (size_t)room * sizeof *sizes);

        if (sizes == NULL) {
            return wrong(reading->trace, "not enough memory to read it");
        }
        reading->sizes = sizes;
        reading->room = room;
    }
    event->block = reading->blocks;
    reading->sizes[reading->blocks++] = event->size;
    totals->bytes += event->size;
    totals->live_bytes += event->size;
    totals->live_blocks++;
    if (totals->live_bytes > totals->peak_bytes) {
        totals->peak_bytes = totals->live_bytes;
    }
    if (totals->live_blocks > totals->peak_blocks) {
        totals->peak_blocks = totals->live_blocks;
    }
    return true;
}

/* The block of that age ends; its number is in *block. */
static bool gone(struct reading *reading, uint64_t age, uint64_t *block,
                 uint64_t *size)
{
    struct trace_totals *totals = &reading->totals;

    if (age == 0 || age > reading->blocks ||
        reading->sizes[reading->blocks - age] & GONE) {
        return wrong(reading->trace,
                     "damaged: a block is freed that is not there");
    }
    *block = reading->blocks - age;
    *size = reading->sizes[*block];
    reading->sizes[*block] |= GONE;
    totals->live_bytes -= *size;
    totals->live_blocks--;
    return true;
}

/* What the op does to the totals and the event. `number`: what follows it. */
static bool apply(struct reading *reading, struct trace_event *event,
                  const uint64_t number[2])
{
    struct trace_totals *totals = &reading->totals;

    switch (event->op) {
    case TRACE_MALLOC:
    case TRACE_CALLOC:
    case TRACE_REALLOC_NULL:
        totals->allocs++;
        event->size = number[0];
        return born(reading, event);
    case TRACE_ALIGNED:
        totals->allocs++;
        event->log = (unsigned)number[0];
        event->size = number[1];
        if (number[0] > TRACE_ALIGN_MAX) {
            return wrong(reading->trace, "damaged: an alignment of 2^%llu",
                         (unsigned long long)number[0]);
        }
        return born(reading, event);
    case TRACE_REALLOC:
        totals->resizes++;
        event->size = number[1];
        return gone(reading, number[0], &event->old, &event->old_size) &&
               born(reading, event);
    case TRACE_LOST:
        totals->lost++;
        return gone(reading, number[0], &event->block, &event->old_size);
    default:
        totals->frees++;
        return gone(reading, number[0], &event->block, &event->old_size);
    }
}

/* What is no operation on a block. */
static bool note(struct reading *reading, enum trace_op op, uint64_t number)
{
    struct trace_totals *totals = &reading->totals;

    switch (op) {
    case TRACE_FOREIGN: totals->foreign++; return true;
    case TRACE_FAILED: totals->failed++; return true;
    case TRACE_MISSED: totals->missed += number; return true;
    case TRACE_TIME: totals->time += number; return true;
    default: break;
    }
    if (number > totals->threads || number > UINT32_MAX - 1) {
        return wrong(reading->trace, "damaged: thread %llu, of %u",
                     (unsigned long long)number, totals->threads);
    }
    reading->thread = (uint32_t)number;
    reading->seen_thread = true;
    totals->threads += number == totals->threads;
    return true;
}

static int numbers_of(uint8_t op)
{
    static const signed char count[] = {[0] = -1,
                                        [TRACE_MALLOC] = 1,
                                        [TRACE_CALLOC] = 1,
                                        [TRACE_REALLOC] = 2,
                                        [TRACE_REALLOC_NULL] = 1,
                                        [TRACE_ALIGNED] = 2,
                                        [TRACE_FREE] = 1,
                                        [TRACE_LOST] = 1,
                                        [TRACE_FOREIGN] = 0,
                                        [TRACE_MISSED] = 1,
                                        [TRACE_FAILED] = 0,
                                        [TRACE_THREAD] = 1,
                                        [TRACE_THREAD_END] = 0,
                                        [TRACE_TIME] = 1};

    return op < sizeof count ? count[op] : -1;
}

static bool is_note(enum trace_op op)
{
    return op == TRACE_FOREIGN || op == TRACE_MISSED || op == TRACE_FAILED ||
           op == TRACE_THREAD || op == TRACE_TIME;
}

/* The operations of a block of the file. */
static bool operations(struct reading *reading, const uint8_t *at,
                       const uint8_t *end)
{
    while (at < end) {
        uint64_t number[2] = {0};
        const uint8_t op = *at++;
        const int count = numbers_of(op);

        if (count < 0) {
            return wrong(reading->trace, "damaged: operation %u is unknown",
                         op);
        }
        for (int i = 0; i < count; i++) {
            at = trace_get(at, end, &number[i]);
            if (at == NULL) {
                return wrong(reading->trace, "damaged: half an operation");
            }
        }
        if (is_note(op)) {
            if (!note(reading, op, number[0])) {
                return false;
            }
            continue;
        }
        struct trace_event event = {.op = op, .thread = reading->thread};

        if (!reading->seen_thread) {
            return wrong(reading->trace, "damaged: an operation of no thread");
        }
        reading->totals.operations +=
            op != TRACE_LOST && op != TRACE_THREAD_END;
        if (op != TRACE_THREAD_END && !apply(reading, &event, number)) {
            return false;
        }
        if (reading->visit &&
            !reading->visit(reading->context, &event, &reading->totals)) {
            return false;
        }
    }
    return true;
}

/* ---- blocks of the file --------------------------------------------------- */

/* The head of block `number` at `at` and what it packs, checked; else why not. */
static const char *check_block(const uint8_t *at, size_t left, uint32_t number)
{
    if (left < TRACE_BLOCK_BYTES) {
        return "is cut off";
    }
    const size_t packed = trace_get_u32(at + 12);

    if (trace_get_u32(at) != TRACE_BLOCK || trace_get_u32(at + 4) != number ||
        trace_get_u32(at + 8) > TRACE_RAW_MAX) {
        return "is damaged";
    }
    if (packed > left - TRACE_BLOCK_BYTES) {
        return packed > ZSTD_compressBound(TRACE_RAW_MAX) ? "is damaged"
                                                          : "is cut off";
    }
    if (trace_crc(trace_crc(0, at, 16), at + TRACE_BLOCK_BYTES, packed) !=
        trace_get_u32(at + 16)) {
        return "is damaged (its checksum is wrong)";
    }
    return NULL;
}

/* All blocks; `raw` has room for one. */
static bool blocks(struct reading *reading, bool partial, uint8_t *raw)
{
    struct trace *trace = reading->trace;
    size_t at = TRACE_HEAD_BYTES + trace->text_bytes;

    for (uint32_t number = 0; at < trace->bytes; number++) {
        const uint8_t *block = trace->map + at;
        const char *why = check_block(block, trace->bytes - at, number);

        if (why != NULL) {
            return partial ||
                   wrong(trace,
                         "block %u, at byte %zu, %s; --partial takes what is"
                         " before it",
                         number, at, why);
        }
        const size_t bytes = trace_get_u32(block + 8);
        const size_t packed = trace_get_u32(block + 12);

        if (bytes == 0) {
            reading->totals.whole = true;
            return true;
        }
        if (ZSTD_decompress(raw, TRACE_RAW_MAX, block + TRACE_BLOCK_BYTES,
                            packed) != bytes) {
            return partial ||
                   wrong(trace, "block %u, at byte %zu, can't be unpacked",
                         number, at);
        }
        if (!operations(reading, raw, raw + bytes)) {
            return false;
        }
        at += TRACE_BLOCK_BYTES + packed;
    }
    return true;
}

bool trace_each(struct trace *trace, bool partial, trace_visitor *visit,
                void *context, struct trace_totals *totals)
{
    struct reading reading = {
        .trace = trace, .visit = visit, .context = context};
    uint8_t *raw = malloc(TRACE_RAW_MAX);
    bool good = false;

    trace->error[0] = '\0';
    if (raw == NULL) {
        wrong(trace, "not enough memory to read it");
    } else {
        good = blocks(&reading, partial, raw);
    }
    free(raw);
    free(reading.sizes);
    *totals = reading.totals;
    return good;
}

bool trace_each_raw(struct trace *trace, const uint8_t *raw, size_t bytes,
                    struct trace_totals *totals)
{
    struct reading reading = {.trace = trace};
    const bool good = operations(&reading, raw, raw + bytes);

    free(reading.sizes);
    *totals = reading.totals;
    return good;
}
