/*
 * limit_fill.h - blocks until there are no more, under a limit: for pressure.c and
 * container.c.
 */
#ifndef LIMIT_FILL_H
#define LIMIT_FILL_H

#include "settings/options.h"
#include "unit.h"

enum { BLOCKS = 1000000 };

#define LIMIT (40 * HAK_MIB)

__attribute__((unused)) static char *blocks[BLOCKS];
__attribute__((unused)) static size_t count;

__attribute__((unused)) static const size_t sizes[] = {
    64, 1000, 5000, 40000, 100000, 900000, 3000000};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

UNIT size_t used(void)
{
    return unit_stats().limit_used_bytes;
}

/* Blocks of `size` bytes, written to, until there is none. */
UNIT void fill(size_t size)
{
    char *p;

    for (count = 0; (p = hak_malloc(unit_ask(size))) != NULL; count++) {
        NEED(count < BLOCKS && count * size <= 2 * LIMIT);
        memset(p, 1, unit_ask(size));
        blocks[count] = p;
    }
    NEED(errno == ENOMEM);
}

UNIT void drop_all(void)
{
    while (count > 0) {
        hak_free(blocks[--count]);
    }
}

UNIT void set_limit(const char *text)
{
    setenv("HAKMEM_LIMIT", text, 1);
    haki_option_test_reload();
}

#endif
