/*
 * slots.h - the slots that are ours, and how they are written.
 *
 * Callers are inside dl_iterate_phdr, which locks the dynamic linker's list;
 * its lock also protects the data here. So no lock of ours is ever held while
 * somebody else's code runs.
 *
 * Invariant: the list has exactly once every slot that we have made point to
 * one of our functions, with its former value; hak_ngx_slots_drop_gone removes
 * those of objects that have been unloaded.
 */
#ifndef HAK_NGX_SLOTS_H
#define HAK_NGX_SLOTS_H

#include "elf.h"
#include "names.h"

/*
 * False: its page can't be made writable (errno), or out of memory; the slot is
 * unchanged. Remembers whether the object allocates from us through this slot.
 */
bool hak_ngx_slot_take(const struct hak_ngx_elf *elf, hak_ngx_function **at,
                       hak_ngx_function *ours, bool allocates);

/* Whether an object has such a slot. */
bool hak_ngx_slots_serve(const struct hak_ngx_elf *elf);

/* Restores a slot's former value; false: its page can't be made writable. */
bool hak_ngx_slot_give_back(hak_ngx_function **at);

/* The same for all slots. */
void hak_ngx_slots_give_back(void);

void hak_ngx_slots_drop_gone(void);

/*
 * Writes again the slots that another thread has overwritten: it was on its
 * first call through an unbound slot, inside the dynamic linker, which then
 * binds the slot to libc. No object may have been unloaded since the last
 * hak_ngx_slots_drop_gone.
 */
void hak_ngx_slots_mend(void);

/*
 * Writes a word that is not one of these slots and is not remembered; false as
 * above.
 */
bool hak_ngx_slot_write(const struct hak_ngx_elf *elf, hak_ngx_function **at,
                        hak_ngx_function *value);

#endif /* HAK_NGX_SLOTS_H */
