/*
 * system.c - the system allocator behind the core, and the registry.
 *
 * The registry is a hash table with open addressing and linear probing, at
 * most half full; a removal moves later entries up, so there are no marks of
 * deleted ones. Its memory comes from the os layer.
 *
 * The system allocator is other people's code, so it is never called with the
 * lock held: room for an entry is reserved before a block is asked for, and a
 * block that is being resized is not in the registry.
 */
#include "system/system.h"

#include <errno.h>

#include "system/libc.h"
#include "os/lock.h"
#include "os/os.h"

struct entry {
    uintptr_t p; /* 0: free */
    size_t size; /* as asked for */
    struct hak_heap *owner;
};

/* One pointer leads to all of it, so that it either exists or doesn't. */
struct system_table {
    size_t mask; /* number of entries - 1, a power of two - 1 */
    struct entry entries[];
};

#define FIRST_ENTRIES 512

static void system_mend(void);

static hak_lock system_lock = HAK_LOCK_INIT(system_mend);

/* Under `system_lock`. */
static struct system_table *system_table; /* NULL: none yet */
static size_t system_promised;            /* entries that have been reserved */
static struct hak_system_counts system_counts;

/* Any thread: what haki_system_count has counted. */
static _Atomic(uint64_t) system_counted[HAK_REASONS];
static _Atomic(uint64_t) system_foreign;

_Atomic(size_t) haki_system_entries;

/* ---- the registry ------------------------------------------------------- */

static size_t system_table_bytes(size_t count)
{
    return sizeof(struct system_table) + count * sizeof(struct entry);
}

static size_t system_home(const struct system_table *in, uintptr_t p)
{
    return (size_t)((p >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & in->mask;
}

/* The place of p, or the free place where it would be put. */
static struct entry *system_place(struct system_table *in, uintptr_t p)
{
    size_t i = system_home(in, p);

    while (in->entries[i].p != 0 && in->entries[i].p != p) {
        i = (i + 1) & in->mask;
    }
    return &in->entries[i];
}

static struct entry *system_find(const void *p)
{
    struct entry *entry;

    HAK_HELD(&system_lock);
    if (system_table == NULL || p == NULL) {
        return NULL;
    }
    entry = system_place(system_table, (uintptr_t)p);
    return entry->p != 0 ? entry : NULL;
}

/* Makes sure that one more entry fits. */
static bool system_grow(void)
{
    struct system_table *old = system_table;
    size_t old_count = old == NULL ? 0 : old->mask + 1;
    size_t count = old_count == 0 ? FIRST_ENTRIES : 2 * old_count;
    struct system_table *new;

    HAK_HELD(&system_lock);
    if (2 * (system_counts.live + system_promised + 1) <= old_count) {
        return true;
    }
    new = haki_os_map(system_table_bytes(count));
    if (new == NULL) {
        return false;
    }
    new->mask = count - 1;
    HAK_ASSERT(haki_is_pow2(count) &&
               2 * (system_counts.live + system_promised + 1) <= count);
    for (size_t i = 0; i < old_count; i++) {
        if (old->entries[i].p != 0) {
            *system_place(new, old->entries[i].p) = old->entries[i];
        }
    }
    haki_lock_step();
    system_table = new;
    if (old != NULL) {
        haki_os_unmap(old, system_table_bytes(old_count));
    }
    return true;
}

static void system_count_entries(size_t live, size_t bytes)
{
    system_counts.live = live;
    system_counts.live_bytes = bytes;
    atomic_store_explicit(&haki_system_entries, live, memory_order_relaxed);
}

/* `p` last: until then a search in a forked child sees the place unchanged. */
static void system_put(struct entry *to, const struct entry *from)
{
    to->size = from->size;
    to->owner = from->owner;
    haki_lock_step();
    to->p = from->p;
}

static void system_add(void *p, size_t size, struct hak_heap *owner)
{
    struct entry entry = {(uintptr_t)p, size, owner};

    HAK_HELD(&system_lock);
    HAK_ASSERT(system_counts.live <=
               system_table->mask / 2); /* so that searches end */
    system_put(system_place(system_table, (uintptr_t)p), &entry);
    system_count_entries(system_counts.live + 1,
                         system_counts.live_bytes + size);
}

/* Closes the gap that an entry leaves. */
static void system_close_gap(struct entry *entry)
{
    size_t gap = (size_t)(entry - system_table->entries);
    size_t i = gap;

    for (;;) {
        const struct entry *next;

        i = (i + 1) & system_table->mask;
        next = &system_table->entries[i];
        if (next->p == 0) {
            break;
        }
        /* May entry i move to the gap, not before its home? */
        if (((i - system_home(system_table, next->p)) & system_table->mask) >=
            ((i - gap) & system_table->mask)) {
            system_put(&system_table->entries[gap], next);
            gap = i;
        }
    }
    system_table->entries[gap].p = 0;
}

static void system_erase(struct entry *entry)
{
    HAK_HELD(&system_lock);
    HAK_ASSERT(system_counts.live > 0 &&
               system_counts.live_bytes >= entry->size);
    system_count_entries(system_counts.live - 1,
                         system_counts.live_bytes - entry->size);
    system_close_gap(entry);
}

/* ---- allocating --------------------------------------------------------- */

/*
 * An alignment that no address but 0 has in 57 bits, the most that a processor gives
 * a program, is refused here: valgrind's malloc ends the program at one.
 */
static void *system_aligned(size_t alignment, size_t size)
{
    if (alignment >= (size_t)1 << 57) {
        return NULL;
    }
    return alignment <= 16 ? haki_libc_malloc(size)
                           : haki_libc_memalign(alignment, size);
}

/*
 * Reserves room for an entry that system_add_promised adds later. False: there
 * is none.
 */
static bool system_promise(void)
{
    bool room;

    haki_lock_take(&system_lock);
    room = system_grow();
    system_promised += room;
    haki_lock_drop(&system_lock);
    return room;
}

static void system_add_promised(void *p, size_t size, struct hak_heap *owner)
{
    HAK_HELD(&system_lock);
    system_promised--;
    if (p != NULL) {
        system_add(p, size, owner);
    }
}

void *haki_system_alloc(size_t alignment, size_t size, struct hak_heap *owner,
                        enum hak_reason reason)
{
    void *p = NULL;

    if (system_promise()) {
        p = system_aligned(alignment, size);
        haki_lock_take(&system_lock);
        system_counts.fallback[reason] += p != NULL;
        system_add_promised(p, size, owner);
        haki_lock_drop(&system_lock);
    }
    if (p == NULL) {
        errno = ENOMEM;
    }
    return p;
}

bool haki_system_free(void *p, struct hak_heap **owner, size_t *size)
{
    struct entry *entry;

    haki_lock_take(&system_lock);
    entry = system_find(p);
    if (entry != NULL) {
        *owner = entry->owner;
        *size = entry->size;
        system_erase(entry);
    }
    haki_lock_drop(&system_lock);
    if (entry == NULL) {
        return false;
    }
    haki_libc_free(p);
    return true;
}

bool haki_system_find(const void *p, struct hak_heap **owner, size_t *size)
{
    struct entry *entry;

    haki_lock_take(&system_lock);
    entry = system_find(p);
    if (entry != NULL) {
        *owner = entry->owner;
        *size = entry->size;
    }
    haki_lock_drop(&system_lock);
    return entry != NULL;
}

void *haki_system_resize(void *p, size_t size)
{
    struct entry *entry, old;
    void *moved;

    haki_lock_take(&system_lock);
    entry = system_find(p);
    old = *entry;
    system_erase(entry);
    system_promised++; /* what it leaves is enough */
    haki_lock_drop(&system_lock);
    moved = haki_libc_realloc(p, size != 0 ? size : 1); /* 0 would free it */
    haki_lock_take(&system_lock);
    if (moved != NULL) {
        system_add_promised(moved, size, old.owner);
    } else {
        system_add_promised(p, old.size, old.owner);
    }
    haki_lock_drop(&system_lock);
    if (moved == NULL) {
        errno = ENOMEM;
    }
    return moved;
}

/* Takes some of a heap's blocks out of the registry; returns how many. */
static size_t system_erase_some(const struct hak_heap *owner, void **p,
                                size_t most)
{
    size_t count = 0;

    haki_lock_take(&system_lock);
    for (size_t i = 0;
         system_table != NULL && i <= system_table->mask && count < most;) {
        struct entry *entry = &system_table->entries[i];

        if (entry->p != 0 && entry->owner == owner) {
            p[count++] = (void *)entry->p;
            system_erase(entry); /* another entry may be there now */
        } else {
            i++;
        }
    }
    haki_lock_drop(&system_lock);
    return count;
}

void haki_system_free_owner(struct hak_heap *owner)
{
    void *p[64];
    size_t count;

    while ((count = system_erase_some(owner, p, sizeof(p) / sizeof(p[0]))) !=
           0) {
        for (size_t i = 0; i < count; i++) {
            haki_libc_free(p[i]);
        }
    }
}

/* ---- statistics and fork --------------------------------------------------- */

void haki_system_counts(struct hak_system_counts *out)
{
    haki_lock_take(&system_lock);
    HAK_POINT("system");
    *out = system_counts;
    haki_lock_drop(&system_lock);
    out->foreign = atomic_load_explicit(&system_foreign, memory_order_relaxed);
    for (int i = 0; i < HAK_REASONS; i++) {
        out->fallback[i] +=
            atomic_load_explicit(&system_counted[i], memory_order_relaxed);
    }
}

void haki_system_count_foreign(void)
{
    atomic_fetch_add_explicit(&system_foreign, 1, memory_order_relaxed);
}

void haki_system_count(enum hak_reason reason)
{
    atomic_fetch_add_explicit(&system_counted[reason], 1, memory_order_relaxed);
}

bool haki_system_forked(void)
{
    return haki_lock_settle(&system_lock);
}

/*
 * A ghost held the lock. An entry is either in the table or not, since its `p`
 * is written last; but system_close_gap may have been cut short, leaving an
 * entry both in its new place and in its old one, where no search finds it.
 * That gap is closed. An entry that the ghost was about to erase may stay:
 * nobody has that block, and it is lost.
 */
static void system_mend(void)
{
    size_t live = 0, bytes = 0;

    for (size_t i = 0; system_table != NULL && i <= system_table->mask; i++) {
        struct entry *entry = &system_table->entries[i];

        while (entry->p != 0 && system_place(system_table, entry->p) != entry) {
            system_close_gap(entry);
        }
    }
    for (size_t i = 0; system_table != NULL && i <= system_table->mask; i++) {
        live += system_table->entries[i].p != 0;
        bytes +=
            system_table->entries[i].p != 0 ? system_table->entries[i].size : 0;
    }
    system_count_entries(live, bytes);
}
