/*
 * view.c - a profile as it is written: see view.h.
 *
 * Tested by tests/unit/profile/written.c.
 */
#include "profile/view.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/os.h"

extern __typeof__(dlsym) dlsym __attribute__((weak));

/* So many frames nearest to the leaf may be of our own code. */
#define VIEW_INSIDE_MOST 24u

#define VIEW_UNKNOWN "[unknown]"
#define VIEW_NO_ROOM "[stacks that had no room]"
#define VIEW_DEEPER "[deeper than is told]"

static const char *view_text(struct hak_view *view, const char *text)
{
    uint32_t name = haki_stacks_name(view->stacks, text, strlen(text));

    return name != 0 ? view->stacks->name_text + view->stacks->name_at[name]
                     : VIEW_UNKNOWN;
}

static const char *view_name_at(const struct hak_view *view, uint32_t name)
{
    return name != 0 && name < view->stacks->names
               ? view->stacks->name_text + view->stacks->name_at[name]
               : NULL;
}

/* ---- names of C ------------------------------------------------------------------ */

/* A name of C++'s as one writes it, if that library is there. */
static const char *view_demangle(struct hak_view *view, const char *name)
{
    typedef char *demangle(const char *, char *, size_t *, int *);
    demangle *run = NULL;
    char *plain = NULL;
    int status = 0;

    if (dlsym != NULL && strncmp(name, "_Z", 2) == 0) {
        run = (demangle *)(uintptr_t)dlsym(RTLD_DEFAULT, "__cxa_demangle");
    }
    if (run != NULL) {
        plain = run(name, NULL, NULL, &status);
    }
    name = view_text(view, plain != NULL ? plain : name);
    free(plain);
    return name;
}

static const char *view_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

static void view_fill_c(struct hak_view *view, struct hak_view_frame *frame)
{
    struct hak_symbol symbol;
    char text[300];

    /* What returns there was called by the instruction before. */
    haki_symbols_find(&view->symbols, frame->pc - 1, &symbol);
    frame->module = symbol.module;
    if (symbol.name != NULL) {
        frame->inside = symbol.ours || strncmp(symbol.name, "haki_", 5) == 0;
        frame->name = view_demangle(view, symbol.name);
        return;
    }
    frame->inside = symbol.ours;
    if (symbol.module != NULL) {
        snprintf(text, sizeof(text), "%.200s+0x%zx",
                 view_base_name(symbol.module->path),
                 (size_t)(frame->pc - symbol.module->bias));
    } else {
        snprintf(text, sizeof(text), "0x%zx", (size_t)frame->pc);
    }
    frame->name = view_text(view, text);
}

static void view_fill_runtime(struct hak_view *view,
                              struct hak_view_frame *frame,
                              const struct hak_frame *raw)
{
    frame->name = view_name_at(view, raw->function);
    frame->name = frame->name != NULL ? frame->name : VIEW_UNKNOWN;
    frame->file = view_name_at(view, raw->file);
    frame->line = haki_profile_line(raw);
}

/* ---- frames ---------------------------------------------------------------------- */

/* The number of the frame with this key; *fresh: it is new. */
static uint32_t view_frame(struct hak_view *view, uint64_t first,
                           uint64_t second, bool *fresh)
{
    uint64_t hash = (first ^ second * 31) * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t i = (uint32_t)(hash >> 32) & (view->places - 1);
    struct hak_view_frame *frame;

    for (; view->table[i] != 0; i = (i + 1) & (view->places - 1)) {
        frame = &view->frame[view->table[i]];
        if (frame->key[0] == first && frame->key[1] == second) {
            *fresh = false;
            return view->table[i];
        }
    }
    *fresh = true;
    view->table[i] = ++view->frames;
    view->frame[view->frames].key[0] = first;
    view->frame[view->frames].key[1] = second;
    return view->frames;
}

static uint32_t view_frame_of_c(struct hak_view *view, uintptr_t pc)
{
    bool fresh;
    uint32_t i = view_frame(view, 0, pc, &fresh);

    if (fresh) {
        view->frame[i].pc = pc;
        view_fill_c(view, &view->frame[i]);
    }
    return i;
}

static uint32_t view_frame_of_runtime(struct hak_view *view,
                                      const struct hak_frame *raw)
{
    const void *function = haki_profile_c_of_frame(raw);
    bool fresh;
    uint64_t names =
        (uint64_t)raw->function << 32 | (uint64_t)raw->file << 1 | 1;
    uint64_t where = (uint64_t)raw->line << 32 | raw->token;
    uint32_t i;

    if (function != NULL) { /* as if its first instruction had called */
        return view_frame_of_c(view, (uintptr_t)function + 1);
    }
    i = view_frame(view, names, where, &fresh);
    if (fresh) {
        view_fill_runtime(view, &view->frame[i], raw);
    }
    return i;
}

/* How many of the C frames, leaf first, are our own code's. */
static unsigned view_inside(struct hak_view *view, const uint64_t *words,
                            unsigned pcs)
{
    unsigned inside = 0;

    for (unsigned i = 0; i < pcs && i < VIEW_INSIDE_MOST; i++) {
        if (view->frame[view_frame_of_c(view, words[i])].inside) {
            inside = i + 1;
        }
    }
    return inside;
}

unsigned haki_view_stack(struct hak_view *view, uint32_t i,
                         uint32_t frames[HAK_VIEW_MOST])
{
    const struct hak_stack *stack = &view->stacks->stack[i];
    const uint64_t *words = &view->stacks->word[stack->at];
    struct hak_frame raw;
    unsigned n = 0, inside;
    bool fresh;

    for (unsigned k = stack->frames; k-- > 0;) {
        memcpy(&raw, words + stack->pcs + 2 * k, sizeof(raw));
        frames[n++] = view_frame_of_runtime(view, &raw);
    }
    if (stack->pcs == HAK_STACK_PCS) {
        frames[n] = view_frame(view, 0, 2, &fresh);
        view->frame[frames[n++]].name = VIEW_DEEPER;
    }
    inside = view_inside(view, words, stack->pcs);
    for (unsigned k = stack->pcs; k-- > inside;) {
        frames[n++] = view_frame_of_c(view, words[k]);
    }
    if (n == 0) {
        frames[n++] = view_frame(view, 0, 1, &fresh);
        view->frame[frames[0]].name = i == 0 ? VIEW_NO_ROOM : VIEW_UNKNOWN;
    }
    for (unsigned k = 0; k < n; k++) {
        view->frame[frames[k]].used = true;
    }
    return n;
}

uint64_t haki_view_value(const struct hak_view *view, uint32_t i, bool alloc,
                         bool count)
{
    const struct hak_sums *sums = &view->stacks->stack[i].sums;
    int which = alloc ? HAK_SUM_ALLOC : HAK_SUM_LIVE;

    return count ? (sums->count[which] + HAK_COUNT_ONE / 2) / HAK_COUNT_ONE
                 : sums->bytes[which];
}

void haki_view_label(const struct hak_view_frame *frame, char *text,
                     size_t size)
{
    if (!frame->used) {
        text[0] = '\0';
    } else if (frame->file != NULL && frame->line != 0) {
        snprintf(text, size, "%s (%s:%u)", frame->name, frame->file,
                 (unsigned)frame->line);
    } else if (frame->file != NULL) {
        snprintf(text, size, "%s (%s)", frame->name, frame->file);
    } else {
        snprintf(text, size, "%s", frame->name);
    }
}

/* ---- from beginning to end ------------------------------------------------------- */

struct hak_view *haki_view_of(struct hak_stacks *stacks)
{
    struct hak_view *view;
    size_t bytes, frames;
    uint32_t places = 1024;

    while (places < 2 * (stacks->words + 2)) {
        places *= 2;
    }
    frames = (stacks->words + 8) * sizeof(struct hak_view_frame);
    bytes = haki_round_up(sizeof(*view), 64) + haki_round_up(frames, 64) +
            places * sizeof(uint32_t);
    view = haki_os_map(haki_round_up(bytes, HAK_PAGE));
    if (view == NULL) {
        haki_profile_drop(stacks);
        return NULL;
    }
    view->stacks = stacks;
    view->bytes = haki_round_up(bytes, HAK_PAGE);
    view->places = places;
    view->frame = (void *)((char *)view + haki_round_up(sizeof(*view), 64));
    view->table = (void *)((char *)view->frame + haki_round_up(frames, 64));
    haki_symbols_begin(&view->symbols);
    return view;
}

struct hak_view *haki_view_open(bool grown)
{
    struct hak_stacks *stacks = haki_profile_read(grown);

    return stacks != NULL ? haki_view_of(stacks) : NULL;
}

void haki_view_close(struct hak_view *view)
{
    haki_symbols_drop(&view->symbols);
    haki_profile_drop(view->stacks);
    haki_os_unmap(view, view->bytes);
}
