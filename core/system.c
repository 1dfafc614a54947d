/*
 * system.c - the system allocator behind the core, and the registry.
 *
 * The registry is a hash table with open addressing and linear probing, at
 * most half full; a removal moves later entries up, so there are no marks of
 * deleted ones. Its memory comes from the os layer.
 */
#include "system.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os.h"

struct entry {
    uintptr_t p; /* 0: free */
    size_t size; /* as asked for */
    struct hak_heap *owner;
};

#define FIRST_ENTRIES 512

static hak_lock lock = HAK_LOCK_INIT;

/* Under `lock`. */
static struct entry *entries;
static size_t mask; /* number of entries - 1, a power of two - 1 */
static struct hak_system_figures figures;

/* Any thread: what hak_system_count has counted. */
static _Atomic(uint64_t) counted[HAK_REASONS];
static _Atomic(uint64_t) foreign;

/* ---- the registry ------------------------------------------------------- */

static size_t home(uintptr_t p)
{
    return (size_t)((p >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & mask;
}

/* The place of p, or the free place where it would go. */
static struct entry *place(uintptr_t p)
{
    size_t i = home(p);

    while (entries[i].p != 0 && entries[i].p != p) {
        i = (i + 1) & mask;
    }
    return &entries[i];
}

static struct entry *find(const void *p)
{
    struct entry *entry;

    if (entries == NULL || p == NULL) {
        return NULL;
    }
    entry = place((uintptr_t)p);
    return entry->p != 0 ? entry : NULL;
}

/* Makes sure that one more entry fits. */
static bool grow(void)
{
    size_t old_count = entries == NULL ? 0 : mask + 1;
    size_t count = old_count == 0 ? FIRST_ENTRIES : 2 * old_count;
    struct entry *old = entries;
    struct entry *table;

    if (2 * (figures.live + 1) <= old_count) {
        return true;
    }
    table = hak_os_map(count * sizeof(struct entry));
    if (table == NULL) {
        return false;
    }
    entries = table;
    mask = count - 1;
    for (size_t i = 0; i < old_count; i++) {
        if (old[i].p != 0) {
            *place(old[i].p) = old[i];
        }
    }
    if (old != NULL) {
        hak_os_unmap(old, old_count * sizeof(struct entry));
    }
    return true;
}

static void add(void *p, size_t size, struct hak_heap *owner)
{
    struct entry *entry = place((uintptr_t)p);

    entry->p = (uintptr_t)p;
    entry->size = size;
    entry->owner = owner;
    figures.live++;
    figures.live_bytes += size;
}

/* Frees an entry and closes the gap it leaves. */
static void erase(struct entry *entry)
{
    size_t gap = (size_t)(entry - entries);
    size_t i = gap;

    figures.live--;
    figures.live_bytes -= entry->size;
    for (;;) {
        i = (i + 1) & mask;
        if (entries[i].p == 0) {
            break;
        }
        /* May entry i move to the gap, not before its home? */
        if (((i - home(entries[i].p)) & mask) >= ((i - gap) & mask)) {
            entries[gap] = entries[i];
            gap = i;
        }
    }
    entries[gap].p = 0;
}

/* ---- allocating --------------------------------------------------------- */

static void *system_aligned(size_t alignment, size_t size)
{
    void *p = NULL;

    if (alignment <= 16) {
        return malloc(size);
    }
    return posix_memalign(&p, alignment, size) == 0 ? p : NULL;
}

void *hak_system_alloc(size_t alignment, size_t size, struct hak_heap *owner,
                       enum hak_reason reason)
{
    void *p = NULL;

    hak_lock_take(&lock);
    if (grow()) {
        p = system_aligned(alignment, size);
    }
    if (p != NULL) {
        figures.fallback[reason]++;
        add(p, size, owner);
    }
    hak_lock_drop(&lock);
    if (p == NULL) {
        errno = ENOMEM;
    }
    return p;
}

bool hak_system_free(void *p, struct hak_heap **owner, size_t *size)
{
    struct entry *entry;

    hak_lock_take(&lock);
    entry = find(p);
    if (entry != NULL) {
        *owner = entry->owner;
        *size = entry->size;
        erase(entry);
    }
    hak_lock_drop(&lock);
    if (entry == NULL) {
        return false;
    }
    free(p);
    return true;
}

bool hak_system_find(const void *p, struct hak_heap **owner, size_t *size)
{
    struct entry *entry;

    hak_lock_take(&lock);
    entry = find(p);
    if (entry != NULL) {
        *owner = entry->owner;
        *size = entry->size;
    }
    hak_lock_drop(&lock);
    return entry != NULL;
}

void *hak_system_resize(void *p, size_t size)
{
    struct entry *entry;
    struct hak_heap *owner;
    void *moved;

    hak_lock_take(&lock);
    entry = find(p);
    moved = realloc(p, hak_max(size, 1)); /* of 0 bytes it would free */
    if (moved != NULL) {
        owner = entry->owner;
        erase(entry);
        add(moved, size, owner);
    }
    hak_lock_drop(&lock);
    if (moved == NULL) {
        errno = ENOMEM;
    }
    return moved;
}

void hak_system_free_owner(struct hak_heap *owner)
{
    hak_lock_take(&lock);
    for (size_t i = 0; entries != NULL && i <= mask;) {
        if (entries[i].p != 0 && entries[i].owner == owner) {
            free((void *)entries[i].p);
            erase(&entries[i]); /* another entry may now stand at i */
        } else {
            i++;
        }
    }
    hak_lock_drop(&lock);
}

/* ---- figures and fork --------------------------------------------------- */

void hak_system_figures(struct hak_system_figures *out)
{
    hak_lock_take(&lock);
    *out = figures;
    hak_lock_drop(&lock);
    out->foreign = atomic_load_explicit(&foreign, memory_order_relaxed);
    for (int i = 0; i < HAK_REASONS; i++) {
        out->fallback[i] +=
            atomic_load_explicit(&counted[i], memory_order_relaxed);
    }
}

void hak_system_count_foreign(void)
{
    atomic_fetch_add_explicit(&foreign, 1, memory_order_relaxed);
}

void hak_system_count(enum hak_reason reason)
{
    atomic_fetch_add_explicit(&counted[reason], 1, memory_order_relaxed);
}

void hak_system_fork_prepare(void)
{
    hak_lock_take(&lock);
}

void hak_system_fork_done(void)
{
    hak_lock_drop(&lock);
}
