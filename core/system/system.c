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

/* One pointer leads to all of it, so that it is there or not. */
struct table {
    size_t mask; /* number of entries - 1, a power of two - 1 */
    struct entry entries[];
};

#define FIRST_ENTRIES 512

static void mend(void);

static hak_lock lock = HAK_LOCK_INIT(mend);

/* Under `lock`. */
static struct table *table; /* NULL: none yet */
static size_t promised;     /* entries that will be added for sure */
static struct hak_system_counts counts;

/* Any thread: what haki_system_count has counted. */
static _Atomic(uint64_t) counted[HAK_REASONS];
static _Atomic(uint64_t) foreign;

_Atomic(size_t) haki_system_entries;

/* ---- the registry ------------------------------------------------------- */

static size_t table_bytes(size_t count)
{
    return sizeof(struct table) + count * sizeof(struct entry);
}

static size_t home(const struct table *in, uintptr_t p)
{
    return (size_t)((p >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & in->mask;
}

/* The place of p, or the free place where it would go. */
static struct entry *place(struct table *in, uintptr_t p)
{
    size_t i = home(in, p);

    while (in->entries[i].p != 0 && in->entries[i].p != p) {
        i = (i + 1) & in->mask;
    }
    return &in->entries[i];
}

static struct entry *find(const void *p)
{
    struct entry *entry;

    HAK_HELD(&lock);
    if (table == NULL || p == NULL) {
        return NULL;
    }
    entry = place(table, (uintptr_t)p);
    return entry->p != 0 ? entry : NULL;
}

/* Makes sure that one more entry fits. */
static bool grow(void)
{
    struct table *old = table;
    size_t old_count = old == NULL ? 0 : old->mask + 1;
    size_t count = old_count == 0 ? FIRST_ENTRIES : 2 * old_count;
    struct table *new;

    HAK_HELD(&lock);
    if (2 * (counts.live + promised + 1) <= old_count) {
        return true;
    }
    new = haki_os_map(table_bytes(count));
    if (new == NULL) {
        return false;
    }
    new->mask = count - 1;
    HAK_ASSERT(haki_is_pow2(count) &&
               2 * (counts.live + promised + 1) <= count);
    for (size_t i = 0; i < old_count; i++) {
        if (old->entries[i].p != 0) {
            *place(new, old->entries[i].p) = old->entries[i];
        }
    }
    haki_lock_step();
    table = new;
    if (old != NULL) {
        haki_os_unmap(old, table_bytes(old_count));
    }
    return true;
}

static void count_entries(size_t live, size_t bytes)
{
    counts.live = live;
    counts.live_bytes = bytes;
    atomic_store_explicit(&haki_system_entries, live, memory_order_relaxed);
}

/* `p` last: until then the place is as it was, for who searches in a child. */
static void put(struct entry *to, const struct entry *from)
{
    to->size = from->size;
    to->owner = from->owner;
    haki_lock_step();
    to->p = from->p;
}

static void add(void *p, size_t size, struct hak_heap *owner)
{
    struct entry entry = {(uintptr_t)p, size, owner};

    HAK_HELD(&lock);
    HAK_ASSERT(counts.live <= table->mask / 2); /* a search comes to an end */
    put(place(table, (uintptr_t)p), &entry);
    count_entries(counts.live + 1, counts.live_bytes + size);
}

/* Closes the gap that an entry leaves. */
static void close_gap(struct entry *entry)
{
    size_t gap = (size_t)(entry - table->entries);
    size_t i = gap;

    for (;;) {
        const struct entry *next;

        i = (i + 1) & table->mask;
        next = &table->entries[i];
        if (next->p == 0) {
            break;
        }
        /* May entry i move to the gap, not before its home? */
        if (((i - home(table, next->p)) & table->mask) >=
            ((i - gap) & table->mask)) {
            put(&table->entries[gap], next);
            gap = i;
        }
    }
    table->entries[gap].p = 0;
}

static void erase(struct entry *entry)
{
    HAK_HELD(&lock);
    HAK_ASSERT(counts.live > 0 && counts.live_bytes >= entry->size);
    count_entries(counts.live - 1, counts.live_bytes - entry->size);
    close_gap(entry);
}

/* ---- allocating --------------------------------------------------------- */

static void *system_aligned(size_t alignment, size_t size)
{
    return alignment <= 16 ? haki_libc_malloc(size)
                           : haki_libc_memalign(alignment, size);
}

/* Room for an entry that is added later by add_promised. False: there is none. */
static bool promise(void)
{
    bool room;

    haki_lock_take(&lock);
    room = grow();
    promised += room;
    haki_lock_drop(&lock);
    return room;
}

static void add_promised(void *p, size_t size, struct hak_heap *owner)
{
    HAK_HELD(&lock);
    promised--;
    if (p != NULL) {
        add(p, size, owner);
    }
}

void *haki_system_alloc(size_t alignment, size_t size, struct hak_heap *owner,
                        enum hak_reason reason)
{
    void *p = NULL;

    if (promise()) {
        p = system_aligned(alignment, size);
        haki_lock_take(&lock);
        counts.fallback[reason] += p != NULL;
        add_promised(p, size, owner);
        haki_lock_drop(&lock);
    }
    if (p == NULL) {
        errno = ENOMEM;
    }
    return p;
}

bool haki_system_free(void *p, struct hak_heap **owner, size_t *size)
{
    struct entry *entry;

    haki_lock_take(&lock);
    entry = find(p);
    if (entry != NULL) {
        *owner = entry->owner;
        *size = entry->size;
        erase(entry);
    }
    haki_lock_drop(&lock);
    if (entry == NULL) {
        return false;
    }
    haki_libc_free(p);
    return true;
}

bool haki_system_find(const void *p, struct hak_heap **owner, size_t *size)
{
    struct entry *entry;

    haki_lock_take(&lock);
    entry = find(p);
    if (entry != NULL) {
        *owner = entry->owner;
        *size = entry->size;
    }
    haki_lock_drop(&lock);
    return entry != NULL;
}

void *haki_system_resize(void *p, size_t size)
{
    struct entry *entry, old;
    void *moved;

    haki_lock_take(&lock);
    entry = find(p);
    old = *entry;
    erase(entry);
    promised++; /* what it leaves is enough */
    haki_lock_drop(&lock);
    moved = haki_libc_realloc(p, size != 0 ? size : 1); /* 0 would free it */
    haki_lock_take(&lock);
    if (moved != NULL) {
        add_promised(moved, size, old.owner);
    } else {
        add_promised(p, old.size, old.owner);
    }
    haki_lock_drop(&lock);
    if (moved == NULL) {
        errno = ENOMEM;
    }
    return moved;
}

/* Takes some of a heap's blocks out of the registry; how many. */
static size_t erase_some(const struct hak_heap *owner, void **p, size_t most)
{
    size_t count = 0;

    haki_lock_take(&lock);
    for (size_t i = 0; table != NULL && i <= table->mask && count < most;) {
        struct entry *entry = &table->entries[i];

        if (entry->p != 0 && entry->owner == owner) {
            p[count++] = (void *)entry->p;
            erase(entry); /* another may now stand there */
        } else {
            i++;
        }
    }
    haki_lock_drop(&lock);
    return count;
}

void haki_system_free_owner(struct hak_heap *owner)
{
    void *p[64];
    size_t count;

    while ((count = erase_some(owner, p, sizeof(p) / sizeof(p[0]))) != 0) {
        for (size_t i = 0; i < count; i++) {
            haki_libc_free(p[i]);
        }
    }
}

/* ---- statistics and fork --------------------------------------------------- */

void haki_system_counts(struct hak_system_counts *out)
{
    haki_lock_take(&lock);
    HAK_POINT("system");
    *out = counts;
    haki_lock_drop(&lock);
    out->foreign = atomic_load_explicit(&foreign, memory_order_relaxed);
    for (int i = 0; i < HAK_REASONS; i++) {
        out->fallback[i] +=
            atomic_load_explicit(&counted[i], memory_order_relaxed);
    }
}

void haki_system_count_foreign(void)
{
    atomic_fetch_add_explicit(&foreign, 1, memory_order_relaxed);
}

void haki_system_count(enum hak_reason reason)
{
    atomic_fetch_add_explicit(&counted[reason], 1, memory_order_relaxed);
}

bool haki_system_forked(void)
{
    return haki_lock_settle(&lock);
}

/*
 * A ghost held the lock. An entry is in the table or not, since its `p` is
 * written last; but close_gap may have been cut short, with an entry in its new
 * place and in its old one, where no search finds it. That gap is closed. What
 * the ghost was about to erase may stay: nobody has it, and it is lost.
 */
static void mend(void)
{
    size_t live = 0, bytes = 0;

    for (size_t i = 0; table != NULL && i <= table->mask; i++) {
        struct entry *entry = &table->entries[i];

        while (entry->p != 0 && place(table, entry->p) != entry) {
            close_gap(entry);
        }
    }
    for (size_t i = 0; table != NULL && i <= table->mask; i++) {
        live += table->entries[i].p != 0;
        bytes += table->entries[i].p != 0 ? table->entries[i].size : 0;
    }
    count_entries(live, bytes);
}
