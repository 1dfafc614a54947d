/*
 * slots.c - the slots that are ours, and how they are written.
 *
 * A page that is read-only after the object's relocation is made writable for
 * the write, and read-only again afterwards.
 */
#include "slots.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct slot {
    hak_ngx_function **at;
    hak_ngx_function *was;
    hak_ngx_function *ours;
    bool relro;     /* its page is read-only */
    bool allocates; /* from us */
    bool unbound;   /* it was unbound; a thread may be about to bind it */
    /* These tell whether the object is still there. */
    uintptr_t base, dynamic;
};

static struct {
    struct slot *at;
    size_t count, room;
} made;

/* ---- writing ---------------------------------------------------------------- */

static bool is_relro(const struct hak_ngx_elf *elf, uintptr_t place)
{
    return place - elf->relro_start < elf->relro_end - elf->relro_start;
}

static bool write_word(hak_ngx_function **at, hak_ngx_function *value,
                       bool relro)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    void *start = (void *)((uintptr_t)at & ~(page - 1));

    if (relro && mprotect(start, page, PROT_READ | PROT_WRITE) != 0) {
        return false;
    }
    /* Other threads may be calling through it. */
    __atomic_store_n(at, value, __ATOMIC_RELEASE);
    if (relro) {
        mprotect(start, page, PROT_READ);
    }
    return true;
}

static bool write_slot(const struct slot *slot, hak_ngx_function *value)
{
    return write_word(slot->at, value, slot->relro);
}

bool hak_ngx_slot_write(const struct hak_ngx_elf *elf, hak_ngx_function **at,
                        hak_ngx_function *value)
{
    return write_word(at, value, is_relro(elf, (uintptr_t)at));
}

/* ---- the list ---------------------------------------------------------------- */

static struct slot *find(hak_ngx_function **at)
{
    for (size_t i = 0; i < made.count; i++) {
        if (made.at[i].at == at) {
            return &made.at[i];
        }
    }
    return NULL;
}

static bool make_room(void)
{
    size_t room = made.room != 0 ? 2 * made.room : 64;
    struct slot *at;

    if (made.count < made.room) {
        return true;
    }
    at = realloc(made.at, room * sizeof(*at));
    if (at == NULL) {
        return false;
    }
    made.at = at;
    made.room = room;
    return true;
}

bool hak_ngx_slot_take(const struct hak_ngx_elf *elf, hak_ngx_function **at,
                       hak_ngx_function *ours, bool allocates)
{
    struct slot slot = {.at = at,
                        .was = *at,
                        .ours = ours,
                        .allocates = allocates,
                        .unbound = hak_ngx_elf_has(elf, (uintptr_t)*at, false),
                        .relro = is_relro(elf, (uintptr_t)at),
                        .base = elf->base,
                        .dynamic = elf->dynamic};
    struct slot *known;

    if (!make_room() || !write_slot(&slot, ours)) {
        return false;
    }
    known = find(at);
    if (known != NULL) { /* it held another function of ours */
        slot.was = slot.was == known->ours ? known->was : slot.was;
        slot.unbound = slot.unbound || known->unbound;
        *known = slot;
    } else {
        made.at[made.count++] = slot;
    }
    return true;
}

bool hak_ngx_slots_serve(const struct hak_ngx_elf *elf)
{
    for (size_t i = 0; i < made.count; i++) {
        const struct slot *slot = &made.at[i];

        if (slot->allocates && slot->base == elf->base &&
            slot->dynamic == elf->dynamic) {
            return true;
        }
    }
    return false;
}

bool hak_ngx_slot_give_back(hak_ngx_function **at)
{
    struct slot *slot = find(at);

    if (slot == NULL || *slot->at != slot->ours) {
        return true;
    }
    if (!write_slot(slot, slot->was)) {
        return false;
    }
    *slot = made.at[--made.count];
    return true;
}

/*
 * Marks the slots of an object that is still there: base ^ 1 is never a base.
 */
static int mark_one(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct hak_ngx_elf elf;
    const char *why;

    (void)size;
    (void)arg;
    if (hak_ngx_elf_open(&elf, info, &why)) {
        for (size_t i = 0; i < made.count; i++) {
            struct slot *slot = &made.at[i];

            if (slot->base == elf.base && slot->dynamic == elf.dynamic &&
                hak_ngx_elf_has(&elf, (uintptr_t)slot->at, true) &&
                *slot->at == slot->ours) {
                slot->base ^= 1;
            }
        }
    }
    return 0;
}

void hak_ngx_slots_drop_gone(void)
{
    size_t kept = 0;

    dl_iterate_phdr(mark_one, NULL);
    for (size_t i = 0; i < made.count; i++) {
        if ((made.at[i].base & 1) != 0) {
            made.at[i].base ^= 1;
            made.at[kept++] = made.at[i];
        }
    }
    made.count = kept;
}

/* More than one thread may do that, so such a slot is checked every time. */
void hak_ngx_slots_mend(void)
{
    for (size_t i = 0; i < made.count; i++) {
        struct slot *slot = &made.at[i];
        hak_ngx_function *now = __atomic_load_n(slot->at, __ATOMIC_RELAXED);

        if (slot->unbound && now != slot->ours &&
            write_slot(slot, slot->ours)) {
            slot->was = now;
        }
    }
}

void hak_ngx_slots_give_back(void)
{
    hak_ngx_slots_drop_gone();
    while (made.count > 0) {
        const struct slot *slot = &made.at[--made.count];

        write_slot(slot, slot->was);
    }
    free(made.at);
    made.at = NULL;
    made.room = 0;
}
