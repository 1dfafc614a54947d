/*
 * guarded.c - guarded blocks' slots: see guarded.h.
 *
 * Tested by tests/unit/profile/guarded.c.
 */
#include "profile/guarded.h"

#include <string.h>

#include "os/os.h"
#include "profile/blame.h"
#include "profile/fault.h"
#include "profile/records.h"

/* What records take of the memory that guards may. */
#define GUARDED_SPARED (4 * HAK_PAGE)

struct hak_guarded_area haki_guarded_area;
struct hak_guarded_count haki_guarded_count;

/* Under the profile's lock; but the first two, once they are set. */
static struct hak_guarded *guarded_slots;
static uint32_t guarded_count;
static uint32_t guarded_high;                /* slots that were ever used */
static uint32_t guarded_first, guarded_last; /* freed ones, the oldest first */
static _Atomic(uint32_t) guarded_pages;
static uint32_t guarded_pages_most;
static bool guarded_locked; /* the program locks its memory: pages did not go */

/* ---- places ------------------------------------------------------------------- */

/* Access is denied to the machine's pages: gap and data are at least one of these. */
static size_t guarded_room(void)
{
    return haki_max(HAK_GUARDED_MOST, haki_range.page);
}

static size_t guarded_stride(void)
{
    return 2 * guarded_room();
}

static char *guarded_data(const struct hak_guarded *slot)
{
    return (char *)atomic_load(&haki_guarded_area.at) +
           (size_t)(slot - guarded_slots) * guarded_stride() + guarded_room();
}

/* The pages that a live one has: their beginning and bytes. */
static char *guarded_pages_of(const struct hak_guarded *slot, size_t *bytes)
{
    *bytes = slot->pages * HAK_PAGE;
    return guarded_data(slot) + (slot->at_end ? guarded_room() - *bytes : 0);
}

/* The slot with this number if it was ever used, else NULL. */
static struct hak_guarded *guarded_slot(size_t i)
{
    return i < guarded_count && guarded_slots[i].state != HAK_GUARDED_NEVER
               ? &guarded_slots[i]
               : NULL;
}

/* The slot whose data p lies in, or NULL. */
static struct hak_guarded *guarded_slot_of(const void *p)
{
    size_t offset = (uintptr_t)p - atomic_load(&haki_guarded_area.at);

    return offset % guarded_stride() >= guarded_room()
               ? guarded_slot(offset / guarded_stride())
               : NULL;
}

struct hak_guarded *haki_guarded_near(const void *p)
{
    size_t offset = (uintptr_t)p - atomic_load(&haki_guarded_area.at);
    size_t i = offset / guarded_stride(), rest = offset % guarded_stride();
    struct hak_guarded *slot = guarded_slot(i), *other;

    if (rest < guarded_room()) { /* between two: the nearer */
        other = i > 0 ? guarded_slot(i - 1) : NULL;
        slot = (rest < guarded_room() / 2 && other != NULL) || slot == NULL
                   ? other
                   : slot;
    }
    return slot;
}

/* ---- the bytes around a block ------------------------------------------------- */

/* What stands there: no text, nor a small number. */
#define GUARDED_CANARY 0xa5

static void guarded_paint(char *from, const char *to)
{
    memset(from, GUARDED_CANARY, (size_t)(to - from));
}

/* The first byte that is not what was painted, or NULL. */
static const char *guarded_unpainted(const char *from, const char *to)
{
    const uint64_t word = UINT64_MAX / 0xff * GUARDED_CANARY;
    uint64_t found;

    for (; to - from >= (ptrdiff_t)sizeof(found); from += sizeof(found)) {
        memcpy(&found, from, sizeof(found));
        if (found != word) {
            break;
        }
    }
    for (; from < to; from++) {
        if ((unsigned char)*from != GUARDED_CANARY) {
            return from;
        }
    }
    return NULL;
}

static void guarded_paint_around(const struct hak_guarded *slot)
{
    size_t bytes;
    char *from = guarded_pages_of(slot, &bytes), *p = (char *)slot->p;

    guarded_paint(from, p);
    guarded_paint(p + slot->size, from + bytes);
}

static const char *guarded_changed(const struct hak_guarded *slot)
{
    size_t bytes;
    const char *from = guarded_pages_of(slot, &bytes);
    const char *p = (const char *)slot->p;
    const char *changed = guarded_unpainted(p + slot->size, from + bytes);

    return changed != NULL ? changed : guarded_unpainted(from, p);
}

/* ---- slots ---------------------------------------------------------------------- */

static void guarded_list_add(uint32_t i)
{
    guarded_slots[i].next = HAK_GUARDED_NONE;
    if (guarded_first == HAK_GUARDED_NONE) {
        guarded_first = i;
    } else {
        guarded_slots[guarded_last].next = i;
    }
    guarded_last = i;
}

/* One that was never used, or the one that was freed first; NULL: all are live. */
static struct hak_guarded *guarded_next(void)
{
    uint32_t i = guarded_first;

    if (guarded_high < guarded_count) {
        return &guarded_slots[guarded_high++];
    }
    while (i != HAK_GUARDED_NONE) {
        guarded_first = guarded_slots[i].next;
        if (!atomic_load(&guarded_slots[i].reported)) {
            return &guarded_slots[i];
        }
        i = guarded_first;
    }
    return NULL;
}

/* Pages go although they may be locked: nobody has secrets or haste there. */
static bool guarded_drop(char *from, size_t bytes)
{
    if (haki_os_purge(from, bytes)) {
        return true;
    }
    guarded_locked = true;
    return haki_os_unlock(from, bytes) && haki_os_purge(from, bytes);
}

/* Nothing of the slot can be touched, and it has no page. */
static void guarded_close(struct hak_guarded *slot, char *from, size_t bytes)
{
    bool gone = guarded_drop(from, bytes);

    slot->untidy = !haki_os_protect(from, bytes, false) || !gone;
}

static void guarded_tidy(struct hak_guarded *slot)
{
    if (slot->untidy) {
        guarded_close(slot, guarded_data(slot), guarded_room());
    }
}

bool haki_guarded_begin(size_t memory)
{
    size_t bytes, own, slots = memory / haki_range.page;
    char *at = haki_samples_guarded(&bytes);

    HAK_HELD(&haki_records.lock);
    if (guarded_slots != NULL) {
        return true;
    }
    slots = haki_min(slots, bytes / guarded_stride() - 1);
    bytes = haki_round_up((slots + 1) * guarded_stride(), HAK_SLAB_SIZE);
    own = haki_round_up(slots * sizeof(struct hak_guarded), HAK_PAGE);
    guarded_slots = haki_os_map(own);
    if (guarded_slots == NULL) {
        return false;
    }
    if (!haki_samples_claim_guarded(bytes)) {
        haki_os_unmap(guarded_slots, own);
        guarded_slots = NULL;
        return false;
    }
    haki_os_name(guarded_slots, own, "hakmem guards");
    (void)guarded_drop(at, bytes); /* locked ones are made with their pages */
    guarded_first = HAK_GUARDED_NONE;
    guarded_count = (uint32_t)slots;
    guarded_pages_most =
        (uint32_t)((memory - haki_min(own + GUARDED_SPARED, memory)) /
                   HAK_PAGE);
    atomic_store(&haki_guarded_area.at, (uintptr_t)at);
    atomic_store(&haki_guarded_area.bytes, bytes);
    return true;
}

static uint32_t guarded_pages_for(size_t bytes)
{
    return (uint32_t)(haki_round_up(bytes, haki_range.page) / HAK_PAGE);
}

bool haki_guarded_has_room(size_t bytes)
{
    return bytes <= HAK_GUARDED_MOST &&
           atomic_load_explicit(&guarded_pages, memory_order_relaxed) +
                   guarded_pages_for(bytes) <=
               guarded_pages_most;
}

/* The leaf's end of a stack. */
static void guarded_keep_stack(struct hak_guarded_stack *kept,
                               const struct hak_stack_words *words)
{
    kept->pcs = (uint16_t)haki_min(words->pcs, HAK_GUARDED_PCS);
    kept->frames = (uint16_t)haki_min(words->frames, HAK_GUARDED_FRAMES);
    memcpy(kept->pc, words->pc, kept->pcs * sizeof(kept->pc[0]));
    memcpy(kept->frame, words->frame, kept->frames * sizeof(kept->frame[0]));
    kept->thread = haki_os_thread_id();
}

/* Where the block goes, and what is known of it. */
static bool guarded_open(struct hak_guarded *slot, size_t bytes, bool at_end)
{
    size_t all;
    char *from;

    guarded_tidy(slot);
    slot->bytes = (uint32_t)bytes;
    slot->size = bytes;
    slot->pages = (uint8_t)guarded_pages_for(bytes);
    slot->at_end = at_end;
    from = guarded_pages_of(slot, &all);
    slot->untidy = true;
    if (!haki_os_protect(from, all, true)) {
        return false;
    }
    if (guarded_locked) {
        haki_os_lock(from, all);
    }
    slot->p = (uintptr_t)(at_end ? from + all - bytes : from);
    memset((void *)slot->p, 0, bytes);
    guarded_paint_around(slot);
    return true;
}

void *haki_guarded_take(size_t bytes, uint32_t record, bool at_end,
                        const struct hak_sampler *who,
                        const struct hak_stack_words *words)
{
    struct hak_guarded *slot;

    HAK_HELD(&haki_records.lock);
    slot = haki_guarded_has_room(bytes) ? guarded_next() : NULL;
    if (slot == NULL) {
        return NULL;
    }
    haki_fault_check();
    if (!guarded_open(slot, bytes, at_end)) {
        slot->state = HAK_GUARDED_FREED;
        guarded_list_add((uint32_t)(slot - guarded_slots));
        return NULL;
    }
    guarded_keep_stack(&slot->allocated, words);
    slot->freed.thread = 0;
    slot->heap = who->frames != NULL ? who->heap : NULL;
    slot->runs = who->frames;
    slot->record = record;
    slot->untidy = false;
    slot->state = HAK_GUARDED_LIVE;
    atomic_store(&guarded_pages, atomic_load(&guarded_pages) + slot->pages);
    atomic_fetch_add(&haki_guarded_count.made, 1);
    return (void *)slot->p;
}

void haki_guarded_give(const void *p, const struct hak_stack_words *words)
{
    struct hak_guarded *slot = guarded_slot_of(p);
    size_t bytes;
    char *from = guarded_pages_of(slot, &bytes);

    HAK_HELD(&haki_records.lock);
    HAK_ASSERT(slot->state == HAK_GUARDED_LIVE && slot->p == (uintptr_t)p);
    haki_fault_check();
    if (words != NULL) {
        guarded_keep_stack(&slot->freed, words);
        slot->runs = NULL; /* its heap goes */
    }
    slot->state = HAK_GUARDED_FREED;
    slot->record = 0;
    guarded_close(slot, from, bytes);
    atomic_store(&guarded_pages, atomic_load(&guarded_pages) - slot->pages);
    guarded_list_add((uint32_t)(slot - guarded_slots));
}

const void *haki_guarded_around(const void *p, uint32_t *record, size_t *size)
{
    struct hak_guarded *slot = guarded_slot_of(p);

    if (slot == NULL || slot->state != HAK_GUARDED_LIVE ||
        (uintptr_t)p - slot->p >= slot->size) {
        return NULL;
    }
    *record = slot->record;
    *size = slot->size;
    return (const void *)slot->p;
}

size_t haki_guarded_held(void)
{
    return atomic_load(&guarded_pages) * HAK_PAGE;
}

/* ---- while it is live ---------------------------------------------------------- */

void *haki_guarded_fit_slow(void *p, size_t alignment, size_t size)
{
    struct hak_guarded *slot = guarded_slot_of(p);
    size_t bytes;
    char *from;

    haki_lock_take(&haki_records.lock);
    HAK_CHECK(slot != NULL && slot->state == HAK_GUARDED_LIVE &&
              slot->p == (uintptr_t)p && size <= slot->bytes);
    from = guarded_pages_of(slot, &bytes);
    slot->size = haki_max(size, 1);
    if (slot->at_end) {
        slot->p =
            (uintptr_t)from + bytes - haki_round_up(slot->size, alignment);
    }
    haki_records.record[slot->record].p = slot->p;
    memset((void *)slot->p, 0, slot->size);
    guarded_paint_around(slot);
    p = (void *)slot->p;
    haki_lock_drop(&haki_records.lock);
    return p;
}

void haki_guarded_freeing(void *p, const struct hak_sampler *who)
{
    struct hak_guarded *slot = guarded_slot_of(p);
    struct hak_stack_words words;
    const char *changed = NULL;

    if (slot == NULL) {
        return;
    }
    haki_profile_capture(&words, who, HAK_GUARDED_PCS);
    haki_lock_take(&haki_records.lock);
    if (slot->state == HAK_GUARDED_LIVE && slot->p == (uintptr_t)p) {
        guarded_keep_stack(&slot->freed, &words);
        changed = atomic_load(&slot->reported) ? NULL : guarded_changed(slot);
    }
    haki_lock_drop(&haki_records.lock);
    if (HAK_UNLIKELY(changed != NULL)) {
        haki_blame_canary(slot, changed);
    }
}

void haki_guarded_misuse(const void *p, const char *caller)
{
    struct hak_guarded *slot = haki_guarded_near(p);

    if (slot != NULL &&
        (slot->state != HAK_GUARDED_LIVE || slot->p != (uintptr_t)p)) {
        haki_blame_pointer(slot, p, caller);
    }
}

/* ---- fork ------------------------------------------------------------------------- */

void haki_guarded_mend_begin(void)
{
    atomic_store(&guarded_pages, 0);
    guarded_first = HAK_GUARDED_NONE;
    for (uint32_t i = 0; i < guarded_high; i++) {
        if (guarded_slots[i].state != HAK_GUARDED_FREED) {
            guarded_slots[i].state = HAK_GUARDED_NEVER;
        }
    }
}

void haki_guarded_mend_take(const void *p, uint32_t record)
{
    size_t offset = (uintptr_t)p - atomic_load(&haki_guarded_area.at);
    struct hak_guarded *slot = &guarded_slots[offset / guarded_stride()];

    slot->p = (uintptr_t)p;
    slot->record = record;
    slot->state = HAK_GUARDED_LIVE;
    atomic_store(&guarded_pages, atomic_load(&guarded_pages) + slot->pages);
}

void haki_guarded_mend_end(void)
{
    for (uint32_t i = 0; i < guarded_high; i++) {
        struct hak_guarded *slot = &guarded_slots[i];

        if (slot->state == HAK_GUARDED_LIVE) {
            continue;
        }
        slot->untidy = true;
        slot->state = HAK_GUARDED_FREED;
        guarded_list_add(i);
    }
}
