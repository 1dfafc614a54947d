/*
 * contents.h - what tests write into blocks, to know them again: bytes that tell a
 * seed and the place, copied from a table and compared with it, since most of what
 * many tests did, in watched builds above all, was to work such bytes out.
 *
 * Of 4,096 seeds in a row no two have the same contents, and nothing within a block
 * repeats: a part that was moved, or another block's, is found.
 *
 * And what programs have said, without the line that an emulator adds when a signal
 * ends one.
 */
#ifndef CONTENTS_H
#define CONTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { CONTENTS_PART = 1 << 16, CONTENTS_SEEDS = 4096 };

static unsigned char contents_table[CONTENTS_PART + CONTENTS_SEEDS];

/* Before any thread or test. */
__attribute__((constructor)) static void contents_make(void)
{
    uint64_t x = 88172645463325252u;

    for (size_t i = 0; i < sizeof(contents_table); i += sizeof(x)) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(contents_table + i, &x, sizeof(x));
    }
}

/* What the n-th part of a block's contents begins with. */
static inline const unsigned char *contents_part(unsigned seed, size_t n)
{
    return contents_table + (seed + n * 97) % CONTENTS_SEEDS;
}

static inline size_t contents_length(size_t n, size_t at)
{
    return n - at < CONTENTS_PART ? n - at : CONTENTS_PART;
}

/* Fills n bytes. */
static inline void contents_fill(void *p, size_t n, unsigned seed)
{
    for (size_t at = 0; at < n; at += CONTENTS_PART) {
        memcpy((char *)p + at, contents_part(seed, at / CONTENTS_PART),
               contents_length(n, at));
    }
}

/* Whether n bytes are as contents_fill has left them. */
static inline bool contents_kept(const void *p, size_t n, unsigned seed)
{
    for (size_t at = 0; at < n; at += CONTENTS_PART) {
        if (memcmp((const char *)p + at,
                   contents_part(seed, at / CONTENTS_PART),
                   contents_length(n, at)) != 0) {
            return false;
        }
    }
    return true;
}

static inline void contents_cut_emulator(char *said)
{
    char *line = strstr(said, "qemu: uncaught target signal");

    if (line != NULL) {
        *line = '\0';
    }
}

#endif /* CONTENTS_H */
