/*
 * stacks.h - stacks: taken from the calling thread, kept once each.
 *
 * A stack has two parts, leaf first: program counters of C frames, and frames of
 * the runtime that runs on them (Python, Lua ...), as its adapter tells. Both are
 * kept as they were found and put into words when a profile is written; a frame's
 * strings are interned here, since the runtime may forget them.
 *
 * C frames come from the tables that exceptions need, which see through code without
 * frame pointers: by recipes that are kept of them (recipes.h) or, where a frame has
 * none, all from the compiler's unwinder, libgcc's. That is found by dlopen when a
 * profile starts, so that nothing depends on it, and used only with a C library that
 * finds tables without a lock (_dl_find_object, glibc 2.35): others hold the loader's
 * lock meanwhile, and whoever has that may be waiting for a thread that is in malloc.
 * Without the unwinder a stack has no C frames. A frame in memory of no object, which a
 * compiler has made at run time, is the last.
 *
 * Bounds: HAK_STACKS_MOST stacks, HAK_STACK_WORDS words in all, HAK_NAMES_MOST names
 * of HAK_NAME_BYTES bytes in all. What finds no place there is the stack 0.
 */
#ifndef HAK_STACKS_H
#define HAK_STACKS_H

#include "base/base.h"

#define HAK_STACKS_MOST 32768u
#define HAK_STACK_WORDS (1024 * 1024u)
#define HAK_NAMES_MOST 65536u
#define HAK_NAME_BYTES (4 * HAK_MIB)
#define HAK_STACK_PCS 64u
#define HAK_STACK_FRAMES 64u

/*
 * A frame of a runtime: file and function are names (haki_profile_name) or 0. A
 * `line` of 0 with a `token`: the adapter is asked when the profile is written.
 */
struct hak_frame {
    uint32_t file, function;
    uint32_t line;
    uint32_t token;
};

struct hak_stack_words {
    unsigned pcs, frames;
    uintptr_t pc[HAK_STACK_PCS];
    struct hak_frame frame[HAK_STACK_FRAMES];
};

/* What a kind of sums counts: what was given out since the start, what is live. */
enum hak_sum { HAK_SUM_ALLOC, HAK_SUM_LIVE, HAK_SUMS };

/* Of blocks in 1/1024, so that they add up and subtract exactly. */
#define HAK_COUNT_ONE 1024u
struct hak_sums {
    uint64_t bytes[HAK_SUMS];
    uint64_t count[HAK_SUMS];
};

struct hak_stack {
    uint32_t hash;
    uint32_t at; /* its first word */
    uint16_t pcs, frames;
    uint32_t next; /* of the same place in the table; 0: the last */
    struct hak_sums sums, mark;
};

/* Where all of it is; under the profile's lock. */
struct hak_stacks {
    uint32_t count; /* stacks, the 0th included */
    uint32_t words;
    uint32_t names;
    uint32_t name_bytes;
    struct hak_stack stack[HAK_STACKS_MOST];
    uint32_t table[HAK_STACKS_MOST];
    uint64_t word[HAK_STACK_WORDS];
    uint32_t name_at[HAK_NAMES_MOST]; /* in name_text */
    uint32_t name_next[HAK_NAMES_MOST];
    uint32_t name_table[HAK_NAMES_MOST];
    char name_text[HAK_NAME_BYTES];
};

/* The stack with these words, added if it is new; 0: there is no room. */
uint32_t haki_stacks_find(struct hak_stacks *stacks,
                          const struct hak_stack_words *words);

/* The number of a name; 0: there is no room, or it is empty. */
uint32_t haki_stacks_name(struct hak_stacks *stacks, const char *text,
                          size_t length);

/* ---- unwind.c -------------------------------------------------------------- */

/* Finds the unwinder: outside of any lock or lane. */
void haki_unwind_begin(void);

/* What can be had without loading anything, at the program's start: a profile that is
 * begun in the middle of a malloc (haki_profile_lend) has stacks as far as recipes
 * reach. */
void haki_unwind_prepare(void);

/*
 * Where a runtime's code is. Once it is known, and where the runtime has told frames
 * (haki_frames_fn), C's are told as far as the first in its loop, whose frames those
 * are, and without those in `silent`, its own and its adapter's: so what it has
 * called, functions of an extension. For good; the second call does nothing.
 */
#define HAK_UNWIND_SILENT 2
struct hak_code {
    uintptr_t from, to;
};
void haki_unwind_runtime(struct hak_code loop, const struct hak_code *silent);

/* The program counters of the calling thread's frames, leaf first; how many. `told`:
 * the runtime has told its own. */
unsigned haki_unwind(uintptr_t *pc, unsigned most, bool told);

#ifdef HAK_TESTING
/* Tests only: by recipes alone (0: there is a frame without one), or by libgcc. */
unsigned haki_unwind_test(uintptr_t *pc, unsigned most, bool quick);
#endif

#endif /* HAK_STACKS_H */
