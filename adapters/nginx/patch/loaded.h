/*
 * loaded.h - what is loaded, and what may be done with its slots.
 *
 * A walk exists only inside dl_iterate_phdr: it points into the dynamic
 * linker's and the objects' own data.
 */
#ifndef HAK_NGX_LOADED_H
#define HAK_NGX_LOADED_H

#include "patch.h"
#include "elf.h"
#include "names.h"

struct hak_ngx_loaded {
    struct hak_ngx_elf elf;
    hak_ngx_object *object; /* the object to serve it as, or NULL */
    bool taboo;
    bool is_known;  /* seen by an earlier walk; taboo was not determined */
    unsigned slots; /* of ours */
    /* Why not all of its frees can be ours; empty: they are. */
    char unpatched[120];
};

/* One walk through the loaded objects. */
struct hak_ngx_walk {
    hak_ngx_object *objects;
    size_t n;
    bool writes; /* or only reads */
    bool failed; /* out of memory */
    /* Whether an object need not be looked at again; NULL: all are. */
    bool (*is_known)(const struct hak_ngx_elf *elf);
    struct hak_ngx_loaded *all;
    size_t count, room;
    /*
     * The objects whose definitions others find, by the name's index in the
     * table.
     */
    struct hak_ngx_definer {
        bool known;
        const struct hak_ngx_elf *elf; /* NULL: nobody */
    } * definers;
};

/* Fills in `all`, and makes room for `definers`; or walk->failed. */
void hak_ngx_collect(struct hak_ngx_walk *walk);
void hak_ngx_forget(struct hak_ngx_walk *walk);

/* Whether it is the C library that this code is linked with. */
bool hak_ngx_is_libc(const struct hak_ngx_elf *elf);

/* An object's file, for messages. */
const char *hak_ngx_printable(const struct hak_ngx_elf *elf);

/*
 * Whether a relocation for a name of ours matters: an import, or in the C++
 * library a call of its own operators, which the program could have replaced
 * but did not.
 */
bool hak_ngx_concerns_us(const struct hak_ngx_reloc *reloc,
                         const hak_ngx_name *name);

enum hak_ngx_verdict {
    HAK_NGX_LEAVE, /* it does not lead to libc */
    HAK_NGX_TAKE,
    HAK_NGX_FAULT /* it should be taken, but can't: *why, at most `len` bytes */
};

/* What to do about a relocation for a name of ours. */
enum hak_ngx_verdict hak_ngx_judge(struct hak_ngx_walk *walk,
                                   const struct hak_ngx_loaded *one,
                                   const struct hak_ngx_reloc *reloc,
                                   const hak_ngx_name *name, char *why,
                                   size_t len);

#endif /* HAK_NGX_LOADED_H */
