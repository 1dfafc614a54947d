/*
 * view.h - a profile as it is written: stacks of frames with names.
 */
#ifndef HAK_VIEW_H
#define HAK_VIEW_H

#include "profile/out.h"
#include "profile/profile.h"
#include "profile/symbols.h"

/* The most frames that a stack has. */
#define HAK_VIEW_MOST (HAK_STACK_PCS + HAK_STACK_FRAMES + 1)

struct hak_view_frame {
    uint64_t
        key[2]; /* of C: 0 and the address; else what struct hak_frame says */
    const char *name;                /* the function's */
    const char *file;                /* the source's, or NULL */
    uint32_t line;                   /* 0: not known */
    uintptr_t pc;                    /* of C, else 0 */
    const struct hak_module *module; /* the same, or NULL */
    bool used;                       /* some stack that was asked for has it */
    bool inside; /* our own code's: it and what it called are not told */
};

struct hak_view {
    struct hak_stacks *stacks;
    struct hak_symbols symbols;
    struct hak_view_frame *frame; /* the 0th is not used */
    uint32_t *table;
    uint32_t frames, places; /* places: of the table, a power of two */
    size_t bytes;            /* of the memory of both */
};

/* As of now, or less what stood at the mark; NULL: errno says why. */
struct hak_view *haki_view_open(bool grown);

/* Of a copy of the stacks, which is the view's from here on; NULL: ENOMEM, and the
 * copy is gone. */
struct hak_view *haki_view_of(struct hak_stacks *stacks);

void haki_view_close(struct hak_view *view);

/* The frames of a stack, root first: their numbers; how many. */
unsigned haki_view_stack(struct hak_view *view, uint32_t i,
                         uint32_t frames[HAK_VIEW_MOST]);

/* A value of a stack: bytes, or (count) blocks; of live ones, or (alloc) of all. */
uint64_t haki_view_value(const struct hak_view *view, uint32_t i, bool alloc,
                         bool count);

/* The frame in one word, empty if it is not used: name, and (file:line) if they are known. */
void haki_view_label(const struct hak_view_frame *frame, char *text,
                     size_t size);

/* ---- formats ----------------------------------------------------------------- */

struct hak_view_wish {
    bool alloc, count; /* for formats that tell one value */
    bool grown;
};

void haki_write_collapsed(struct hak_out *out, struct hak_view *view,
                          const struct hak_view_wish *wish);
void haki_write_speedscope(struct hak_out *out, struct hak_view *view,
                           const struct hak_view_wish *wish);
void haki_write_pprof(struct hak_out *out, struct hak_view *view);
/* `grown`: the same profile less the mark, or NULL. */
void haki_write_page(struct hak_out *out, struct hak_view *view,
                     struct hak_view *grown, const struct hak_view_wish *wish);

#endif /* HAK_VIEW_H */
