/*
 * hak_ngx.h - the part of the nginx adapter that knows nothing of nginx:
 * the allocation functions that take the place of libc's in chosen objects
 * (hak_ngx_alloc.c), and how they get there (hak_ngx_slots.c).
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

/* A name that objects import, and what its slot is to point at. */
typedef struct hak_ngx_name {
    const char *name;
    void *ours;
} hak_ngx_name;

/* All of them; the last has no name. */
extern const hak_ngx_name hak_ngx_names[];

/* Bytes that the patched objects have asked for so far, in all threads. */
uint64_t hak_ngx_asked(void);

/* What hak_stats does not tell. */
typedef struct hak_ngx_figures {
    uint64_t asked;   /* bytes */
    uint64_t large;   /* calls that went to libc: over 1024 B, lanes tiny */
    uint64_t refused; /* calls that went to libc: the core had no memory */
    uint64_t foreign; /* blocks of libc's that were freed through us */
} hak_ngx_figures;

void hak_ngx_get_figures(hak_ngx_figures *figures);

/* ---- hak_ngx_slots.c ------------------------------------------------------ */

/*
 * An object that is loaded: the file name's beginning up to ".so" or the whole
 * of it ("libcrypto", "ngx_http_perl_module.so"), or "nginx" for the program.
 */
typedef struct hak_ngx_object {
    const char *name;
    unsigned slots; /* that point at us now; 0: not loaded, or it has none */
} hak_ngx_object;

/*
 * Points the slots of n objects at hak_ngx_names. May be called again, for
 * objects that were loaded since: slots that are ours already stay. Returns 0;
 * or -1, all slots being as they were before any call, and why, at most `len`
 * bytes, in `why`. Not for several threads at once.
 */
int hak_ngx_patch(hak_ngx_object *objects, size_t n, char *why, size_t len);

/* Writes back what the slots held. */
void hak_ngx_unpatch(void);

#endif /* HAK_NGX_H */
