/*
 * format.h - what a trace file is; shared by the recorder and the reader.
 *
 * A trace is a head and blocks, all numbers little-endian:
 *
 *     head    "HAKTRACE", u32 version, u32 bytes of the text, u32 pid, u32 page
 *             size, u64 time it began (microseconds since 1970), u32 CRC of all
 *             that and of the text; the text: the command line, words that end
 *             in NUL
 *     block   u32 TRACE_BLOCK, u32 number (from 0), u32 bytes raw, u32 bytes
 *             packed, u32 CRC of those four and of what is packed; a zstd frame
 *
 * A block that has 0 bytes raw and packed is the end: the program ended by
 * itself and everything it did is there. What is before a damaged or missing
 * block can be read, and is consistent: the blocks are one stream, in the order
 * in which the operations happened, of all threads.
 *
 * Raw, a block is operations: a byte enum trace_op and numbers, 7 bits a byte,
 * lowest first, the top bit set where more follow. A block of memory is known by
 * how many were allocated before it in the process; a number AGE is how many
 * have been allocated since it, so that what lives shortly has small numbers.
 * An operation is the current thread's, that of the last TRACE_THREAD; the
 * number of a thread is how many were seen before it.
 *
 * An allocation stands behind its return and a free before its call: replayed in
 * order, nothing is freed before it was allocated, and an address that comes
 * back was freed before.
 */
#ifndef TRACE_FORMAT_H
#define TRACE_FORMAT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TRACE_MAGIC "HAKTRACE"
#define TRACE_VERSION 1u
#define TRACE_BLOCK 0x4b4c4254u /* "TBLK" */

enum {
    TRACE_HEAD_BYTES = 40,
    TRACE_BLOCK_BYTES = 20,
    TRACE_TEXT_MAX = 1 << 16, /* bytes of a command line that are kept */
    TRACE_RAW_MAX = 1 << 18,  /* bytes of operations in a block */
    TRACE_OP_MAX = 64,        /* bytes of one operation, at most */
    TRACE_ALIGN_MAX = 47      /* log2 of the largest alignment */
};

/* The numbers that follow; sizes are bytes asked for. */
enum trace_op {
    TRACE_MALLOC = 1,   /* size */
    TRACE_CALLOC,       /* size, the product */
    TRACE_REALLOC,      /* age of the old block, size: a new block */
    TRACE_REALLOC_NULL, /* size; also of a block that isn't known */
    TRACE_ALIGNED,      /* log2 of the alignment, size: memalign and the like */
    TRACE_FREE,         /* age */
    TRACE_LOST,         /* age: it was freed unseen; its address came back */
    TRACE_FOREIGN,      /* a block that isn't known was freed or resized */
    TRACE_MISSED,       /* count of calls that could not be recorded */
    TRACE_FAILED,       /* an allocation failed */
    TRACE_THREAD,       /* number: whose operations follow */
    TRACE_THREAD_END,   /* the current thread ends */
    TRACE_TIME          /* microseconds since the last one, or the start */
};

/* Writes a number at `to`, returns its end. At most ten bytes. */
static inline uint8_t *trace_put(uint8_t *to, uint64_t number)
{
    while (number >= 0x80) {
        *to++ = (uint8_t)(number | 0x80);
        number >>= 7;
    }
    *to++ = (uint8_t)number;
    return to;
}

/* Reads a number from [from, end), returns its end; NULL: there is none. */
static inline const uint8_t *trace_get(const uint8_t *from, const uint8_t *end,
                                       uint64_t *number)
{
    uint64_t value = 0;

    for (unsigned shift = 0; from < end && shift < 64; shift += 7) {
        const uint8_t byte = *from++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *number = value;
            return from;
        }
    }
    return NULL;
}

static inline void trace_put_u32(uint8_t *to, uint32_t number)
{
    for (int i = 0; i < 4; i++) {
        to[i] = (uint8_t)(number >> 8 * i);
    }
}

static inline uint32_t trace_get_u32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 |
           (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

/*
 * The CRC of zlib and others over `bytes` at `from`, begun with `crc` (0 at
 * first). Four bits a step: 16 entries stay in the cache of a program that is
 * being recorded.
 */
static inline uint32_t trace_crc(uint32_t crc, const void *from, size_t bytes)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu,
        0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
        0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
        0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    const uint8_t *byte = from;

    crc = ~crc;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= byte[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

#endif
