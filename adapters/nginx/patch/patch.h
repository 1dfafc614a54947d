/*
 * patch.h - the part of the nginx adapter that is independent of nginx: the
 * functions that replace libc's in other objects (alloc.c, libc.c, callers.c,
 * new.c, dl.c), and how they get there (names.c, elf.c, slots.c, patch.c).
 *
 * A loaded object calls malloc through a slot of its own, a pointer that the
 * dynamic linker filled in. We write our function's address there.
 *
 *   objects that are served   all their slots for names of ours: they allocate
 *                             from us
 *   all other objects         those for free, realloc and whatever else libc
 *                             would do to a block that it gets: by address, a
 *                             block of ours comes home, the rest goes to libc
 *   libc, its dynamic linker, the library of another allocator, ourselves
 *                             none
 *
 * So a block of ours may be freed by any object. An object whose frees can't be
 * made ours is *unpatched*; objects that are directly linked with it, so that
 * blocks may pass from one to the other, are not served. Frees come first: no
 * object is served until the frees of all are ours.
 *
 * Objects loaded later are patched before dlopen returns (its slots lead to
 * dl.c). Those that libc loads for itself, or constructors load, are patched
 * when a patched object next calls dlopen or dlsym, at the latest by the next
 * hak_ngx_patch.
 */
#ifndef HAK_NGX_PATCH_H
#define HAK_NGX_PATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- alloc.c ------------------------------------------------------ */

/* The sizes that are ours: at most 1024 B, or all that the core serves. */
typedef enum { HAK_NGX_TINY, HAK_NGX_ALL } hak_ngx_lanes;

void hak_ngx_set_lanes(hak_ngx_lanes lanes);

/*
 * Makes the calling thread ready to be served. False: there is no address range
 * or no memory; then nothing must be patched.
 */
bool hak_ngx_start(void);

/*
 * Gives back what has been idle for a while in the calling thread (by the
 * core's own rule, which otherwise works only while there are requests).
 */
void hak_ngx_tick(void);

/* Bytes that the patched objects have asked for so far, in all threads. */
uint64_t hak_ngx_asked(void);

/*
 * What hak_stats does not count; kept in each thread's heap, see
 * haki_heap_extra.
 */
typedef struct hak_ngx_stats {
    uint64_t asked; /* bytes */
    /* Calls that went to libc: */
    uint64_t fallback_large;  /* over 1024 B, lanes tiny */
    uint64_t fallback_memory; /* the core had no memory */
    /* Blocks of libc's that were freed or resized by us. */
    uint64_t foreign_frees;
} hak_ngx_stats;

void hak_ngx_get_stats(hak_ngx_stats *stats);

/* ---- patch.c ------------------------------------------------------ */

/*
 * An object to be served, by name: "nginx" means the program only; otherwise
 * the file's name, whole or up to ".so", with or without "lib": "libcrypto" and
 * "crypto" are libcrypto.so.3, "ngx_http_perl_module.so" is that module.
 */
typedef struct hak_ngx_object {
    const char *name;
    unsigned slots; /* slots that are ours now; 0: not loaded or not served */
    char why[160];  /* it is loaded, but can't be served; else empty */
} hak_ngx_object;

typedef enum {
    HAK_NGX_ABSENT, /* not loaded */
    HAK_NGX_LOADED,
    HAK_NGX_NEVER /* libc, its dynamic linker, ourselves, another allocator */
} hak_ngx_presence;

hak_ngx_presence hak_ngx_find(const char *name);

/*
 * Makes the frees of all objects ours, then has the n objects served. May be
 * called again, for objects loaded since; served objects stay served. Returns
 * 0; or -1, with the reason in `why`, at most `len` bytes: none of the objects
 * is served. Any thread may call it; it waits for threads that are loading
 * libraries.
 */
int hak_ngx_patch(hak_ngx_object *objects, size_t n, char *why, size_t len);

/*
 * Whether all of the objects that are loaded could be served: 0; or -1, and why
 * the first one could not be. Nothing is changed.
 */
int hak_ngx_check(const hak_ngx_object *objects, size_t n, char *why,
                  size_t len);

/*
 * How many objects are not served but have slots of ours; and how many slots.
 */
unsigned hak_ngx_other_objects(void);
unsigned hak_ngx_other_slots(void);

/* How many objects are unpatched. */
unsigned hak_ngx_unpatched(void);

/* Their files and why, "libx.so: ...; liby.so: ...", cut at `len` bytes. */
void hak_ngx_unpatched_text(char *text, size_t len);

/*
 * Patches what has been loaded since the last time, if anything was (frees
 * only), and writes again those slots that another thread has bound to libc
 * meanwhile, because its first call through the slot began before the slot was
 * ours. Keeps errno and dlerror's message.
 */
void hak_ngx_catch_up(void);

/*
 * Whether libraries were loaded since this was last called, or it was never
 * called: then hak_ngx_patch may have work.
 */
bool hak_ngx_loaded_since(void);

/*
 * Restores what the slots held, in objects that are still loaded. Blocks of
 * ours must have been freed before. For tests.
 */
void hak_ngx_unpatch(void);

/* ---- sleep.c ------------------------------------------------------ */

/*
 * From now on the program calls `work` each time before it sleeps in
 * sigsuspend. `work` must not fail, and may allocate. False: the program has no
 * such call, or its slot can't be written.
 */
bool hak_ngx_before_sleep(void (*work)(void));

#endif /* HAK_NGX_PATCH_H */
