/*
 * hak_ngx.h - the part of the nginx adapter that knows nothing of nginx:
 * the allocation functions that take the place of libc's in chosen objects
 * (hak_ngx_alloc.c, hak_ngx_libc.c, hak_ngx_new.c), and how they get there
 * (hak_ngx_names.c, hak_ngx_elf.c, hak_ngx_slots.c).
 *
 * A loaded object calls malloc through a slot of its own, a pointer that the
 * dynamic linker filled in. We write our function's address there. An object
 * whose slots are ours may be handed blocks from before and blocks that
 * objects with other slots made, so every free and realloc of ours decides by
 * address: in the range is ours, all else is libc's. The other way round there
 * is no such rule: who takes a block from a patched object and frees it must be
 * patched too. libc itself never is.
 */
#ifndef HAK_NGX_H
#define HAK_NGX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- hak_ngx_alloc.c ------------------------------------------------------ */

/* The sizes that are ours: at most 1024 B, or all that the core serves. */
typedef enum { HAK_NGX_TINY, HAK_NGX_ALL } hak_ngx_lanes;

void hak_ngx_set_lanes(hak_ngx_lanes lanes);

/*
 * Makes the calling thread ready to be served. False: there is no address
 * range or no memory; nothing is to be patched then.
 */
bool hak_ngx_start(void);

/*
 * Gives back what has been idle for a while (the core's own rule, which else
 * works only while there are requests); of the calling thread.
 */
void hak_ngx_tick(void);

/* Bytes that the patched objects have asked for so far, in all threads. */
uint64_t hak_ngx_asked(void);

/* What hak_stats does not tell. */
typedef struct hak_ngx_figures {
    uint64_t asked; /* bytes */
    /* Calls that went to libc: */
    uint64_t fallback_large;  /* over 1024 B, lanes tiny */
    uint64_t fallback_memory; /* the core had no memory */
    /* Blocks of libc's that were freed or resized by us. */
    uint64_t foreign_frees;
} hak_ngx_figures;

void hak_ngx_get_figures(hak_ngx_figures *figures);

/* ---- hak_ngx_slots.c ------------------------------------------------------ */

/*
 * Objects that are loaded, by name: "nginx" is the program; else the file's
 * name, whole or up to ".so", its "lib" being optional: "libcrypto" and
 * "crypto" are libcrypto.so.3, "ngx_http_perl_module.so" is that module.
 */
typedef struct hak_ngx_object {
    const char *name;
    unsigned slots; /* that point at us now; 0: not loaded, or it has none */
} hak_ngx_object;

typedef enum {
    HAK_NGX_ABSENT, /* not loaded */
    HAK_NGX_LOADED,
    HAK_NGX_NEVER /* libc, its dynamic linker, ourselves, libhakmem.so */
} hak_ngx_presence;

hak_ngx_presence hak_ngx_find(const char *name);

/*
 * Points the slots of n objects at our functions. May be called again, for
 * objects that were loaded since: slots that are ours already stay. Returns 0;
 * or -1, all slots being as they were before this call, and why, at most `len`
 * bytes, in `why`. Not for several threads at once, nor while one loads or
 * unloads libraries.
 */
int hak_ngx_patch(hak_ngx_object *objects, size_t n, char *why, size_t len);

/*
 * nginx's modules free what nginx has allocated for them: hak_ngx_patch has
 * their frees decide by address, too, though they allocate from libc unless
 * they are among its objects. How many slots of such ones are ours.
 */
unsigned hak_ngx_guest_slots(void);

/* Whether it could be done, as hak_ngx_patch; nothing is changed. */
int hak_ngx_check(const hak_ngx_object *objects, size_t n, char *why,
                  size_t len);

/*
 * Whether libraries were loaded since this was last asked, or it never was;
 * then hak_ngx_patch may have work.
 */
bool hak_ngx_loaded_since(void);

/*
 * Writes back what the slots held, in objects that are still there. Blocks of
 * ours that patched objects have must have been freed before.
 */
void hak_ngx_unpatch(void);

#endif /* HAK_NGX_H */
