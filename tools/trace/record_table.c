/* record_table.c - which block is at an address; see recorder.h. */
#include "recorder.h"

#include <sys/mman.h>

enum { TABLE_FIRST = 1 << 14 };

/* Neighbours in a page are neighbours here; pages are scattered. */
static inline size_t table_home(const struct table *table, uintptr_t address)
{
    const uint64_t page = address >> 12;

    return (((page * 0x9e3779b97f4a7c15u) >> 20) + (address >> 4 & 255)) &
           table->mask;
}

static struct table_entry *table_map(size_t count)
{
    void *room =
        mmap(NULL, count * sizeof(struct table_entry), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return room == MAP_FAILED ? NULL : room;
}

static void table_insert(struct table *table, struct table_entry entry)
{
    size_t at = table_home(table, entry.address);

    while (table->entries[at].address != 0) {
        at = (at + 1) & table->mask;
    }
    table->entries[at] = entry;
    table->count++;
}

static bool table_grow(struct table *table)
{
    const size_t old = table->entries ? table->mask + 1 : 0;
    struct table grown = {.mask = (old ? 2 * old : TABLE_FIRST) - 1};

    grown.entries = table_map(grown.mask + 1);
    if (grown.entries == NULL) {
        return false;
    }
    for (size_t i = 0; i < old; i++) {
        if (table->entries[i].address != 0) {
            table_insert(&grown, table->entries[i]);
        }
    }
    table_clear(table);
    *table = grown;
    return true;
}

bool table_reserve(struct table *table)
{
    return LIKELY(table->entries && 2 * table->count <= table->mask) ||
           table_grow(table);
}

bool table_put(struct table *table, uintptr_t address, uint64_t id,
               uint64_t *old)
{
    size_t at = table_home(table, address);

    for (; table->entries[at].address != 0; at = (at + 1) & table->mask) {
        if (table->entries[at].address == address) {
            *old = table->entries[at].id;
            table->entries[at].id = id;
            return true;
        }
    }
    table->entries[at] = (struct table_entry){address, id};
    table->count++;
    return false;
}

/* Moves what was pushed past the hole at `hole` into it, and so on. */
static void table_close(struct table *table, size_t hole)
{
    size_t at = hole;

    for (;;) {
        at = (at + 1) & table->mask;
        if (table->entries[at].address == 0) {
            break;
        }
        const size_t home = table_home(table, table->entries[at].address);

        if (((at - home) & table->mask) >= ((at - hole) & table->mask)) {
            table->entries[hole] = table->entries[at];
            hole = at;
        }
    }
    table->entries[hole].address = 0;
}

bool table_take(struct table *table, uintptr_t address, uint64_t *id)
{
    if (UNLIKELY(table->entries == NULL)) {
        return false;
    }
    size_t at = table_home(table, address);

    while (table->entries[at].address != address) {
        if (table->entries[at].address == 0) {
            return false;
        }
        at = (at + 1) & table->mask;
    }
    *id = table->entries[at].id;
    table_close(table, at);
    table->count--;
    return true;
}

void table_clear(struct table *table)
{
    if (table->entries) {
        munmap(table->entries, (table->mask + 1) * sizeof *table->entries);
    }
    *table = (struct table){0};
}
