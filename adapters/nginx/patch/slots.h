/*
 * slots.h - the slots that are ours, and the writing of one.
 *
 * Whoever calls any of this holds the dynamic linker's list still: he is inside
 * dl_iterate_phdr, whose lock is then the one of what stands here, too. So no
 * lock of ours is ever held while somebody else's code runs.
 *
 * Invariant: the list has every slot that points at one of our functions and
 * that we wrote, once, with what stood there before; those of objects that have
 * been unloaded go with hak_ngx_slots_drop_gone.
 */
#ifndef HAK_NGX_SLOTS_H
#define HAK_NGX_SLOTS_H

#include "elf.h"
#include "names.h"

/*
 * False: its page won't open (errno), or out of memory; it is as it was. Whether
 * by this slot the object allocates from us is remembered.
 */
bool hak_ngx_slot_take(const struct hak_ngx_elf *elf, hak_ngx_function **at,
                       hak_ngx_function *ours, bool allocates);

/* Whether an object has such a slot. */
bool hak_ngx_slots_serve(const struct hak_ngx_elf *elf);

/* Writes back what stood there; false: its page won't open. */
bool hak_ngx_slot_give_back(hak_ngx_function **at);

/* The same of all. */
void hak_ngx_slots_give_back(void);

void hak_ngx_slots_drop_gone(void);

/*
 * Writes those again that another thread has overwritten: it was on its first
 * call through a slot that was not bound, inside the dynamic linker, which then
 * binds it to libc. No object may have been unloaded since the last
 * hak_ngx_slots_drop_gone.
 */
void hak_ngx_slots_mend(void);

/*
 * Writes a word that is none of those, and is not remembered: false as above.
 */
bool hak_ngx_slot_write(const struct hak_ngx_elf *elf, hak_ngx_function **at,
                        hak_ngx_function *value);

#endif /* HAK_NGX_SLOTS_H */
