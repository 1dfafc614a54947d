/*
 * pprof.c - a profile as `go tool pprof` reads it: profile.proto, in gzip.
 *
 * Four values a stack, so that -sample_index tells which is looked at:
 * alloc_objects, alloc_space, inuse_objects, inuse_space (the default). Each frame
 * is a location and a function of its own; mappings say which objects were loaded
 * where, for who has their files.
 *
 * Tested by tests/unit/profile/written.c.
 */
#include <string.h>

#include "profile/view.h"

/* Strings that come first, by their numbers; then each frame has one for its name
 * and one for its file, each module one for its path and one for its build id. */
enum {
    PPROF_EMPTY,
    PPROF_SPACE,
    PPROF_BYTES,
    PPROF_COUNT,
    PPROF_ALLOC_OBJECTS,
    PPROF_ALLOC_SPACE,
    PPROF_INUSE_OBJECTS,
    PPROF_INUSE_SPACE,
    PPROF_STRINGS
};

static const char *const pprof_strings[PPROF_STRINGS] = {"",
                                                         "space",
                                                         "bytes",
                                                         "count",
                                                         "alloc_objects",
                                                         "alloc_space",
                                                         "inuse_objects",
                                                         "inuse_space"};

/* Fields of profile.proto. */
enum {
    PPROF_P_TYPE = 1,
    PPROF_P_SAMPLE,
    PPROF_P_MAPPING,
    PPROF_P_LOCATION,
    PPROF_P_FUNCTION,
    PPROF_P_STRING,
    PPROF_P_PERIOD_TYPE = 11,
    PPROF_P_PERIOD,
    PPROF_P_DEFAULT = 14
};

static void pprof_take(struct hak_out *out, unsigned field,
                       struct hak_out *part)
{
    haki_out_field_bytes(out, field, part->at, part->used);
    out->full |= part->full;
    part->used = 0;
}

static void pprof_types(struct hak_out *out, struct hak_out *part)
{
    for (unsigned i = 0; i < 4; i++) {
        haki_out_field(part, 1, PPROF_ALLOC_OBJECTS + i);
        haki_out_field(part, 2, i % 2 == 0 ? PPROF_COUNT : PPROF_BYTES);
        pprof_take(out, PPROF_P_TYPE, part);
    }
    haki_out_field(part, 1, PPROF_SPACE);
    haki_out_field(part, 2, PPROF_BYTES);
    pprof_take(out, PPROF_P_PERIOD_TYPE, part);
    haki_out_field(out, PPROF_P_PERIOD, haki_max(haki_profile_last_rate(), 1));
    haki_out_field(out, PPROF_P_DEFAULT, PPROF_INUSE_SPACE);
}

static void pprof_samples(struct hak_out *out, struct hak_view *view,
                          struct hak_out *part)
{
    uint32_t frames[HAK_VIEW_MOST];

    for (uint32_t i = 0; i < view->stacks->count; i++) {
        bool any = haki_view_value(view, i, true, false) != 0 ||
                   haki_view_value(view, i, false, false) != 0;
        unsigned n = any ? haki_view_stack(view, i, frames) : 0;

        if (n == 0) {
            continue;
        }
        while (n-- > 0) { /* leaf first */
            haki_out_field(part, 1, frames[n]);
        }
        for (unsigned k = 0; k < 4; k++) {
            haki_out_field(part, 2,
                           haki_view_value(view, i, k < 2, k % 2 == 0));
        }
        pprof_take(out, PPROF_P_SAMPLE, part);
    }
}

static uint64_t pprof_module(const struct hak_view *view,
                             const struct hak_module *module)
{
    return (uint64_t)(module - view->symbols.module) + 1;
}

static void pprof_frames(struct hak_out *out, const struct hak_view *view,
                         struct hak_out *part)
{
    struct hak_out line = {NULL, 0, 0, false};

    for (uint32_t i = 1; i <= view->frames; i++) {
        const struct hak_view_frame *frame = &view->frame[i];

        if (!frame->used) {
            continue;
        }
        haki_out_field(part, 1, i);
        if (frame->module != NULL) {
            haki_out_field(part, 2, pprof_module(view, frame->module));
        }
        haki_out_field(part, 3, frame->pc);
        haki_out_field(&line, 1, i);
        haki_out_field(&line, 2, frame->line);
        pprof_take(part, 4, &line);
        pprof_take(out, PPROF_P_LOCATION, part);
        haki_out_field(part, 1, i);
        haki_out_field(part, 2, PPROF_STRINGS + 2 * (i - 1));
        /* With one pprof would cut <module> and the like off. */
        if (frame->pc != 0) {
            haki_out_field(part, 3, PPROF_STRINGS + 2 * (i - 1));
        }
        haki_out_field(part, 4, PPROF_STRINGS + 2 * (i - 1) + 1);
        pprof_take(out, PPROF_P_FUNCTION, part);
    }
    out->full |= line.full;
    haki_out_drop(&line);
}

static void pprof_modules(struct hak_out *out, const struct hak_view *view,
                          struct hak_out *part)
{
    uint64_t string = PPROF_STRINGS + 2 * (uint64_t)view->frames;

    for (size_t i = 0; i < view->symbols.modules; i++, string += 2) {
        const struct hak_module *module = &view->symbols.module[i];

        haki_out_field(part, 1, i + 1);
        haki_out_field(part, 2, module->base);
        haki_out_field(part, 3, module->end);
        haki_out_field(part, 5, string);
        haki_out_field(part, 6, string + 1);
        haki_out_field(part, 7, 1); /* it has functions' names */
        pprof_take(out, PPROF_P_MAPPING, part);
    }
}

static void pprof_string(struct hak_out *out, const char *text)
{
    haki_out_field_bytes(out, PPROF_P_STRING, text, strlen(text));
}

static void pprof_all_strings(struct hak_out *out, const struct hak_view *view)
{
    static const char hex[] = "0123456789abcdef";
    char id[2 * HAK_BUILD_ID + 1];

    for (unsigned i = 0; i < PPROF_STRINGS; i++) {
        pprof_string(out, pprof_strings[i]);
    }
    for (uint32_t i = 1; i <= view->frames; i++) {
        const struct hak_view_frame *frame = &view->frame[i];

        pprof_string(out, frame->used ? frame->name : "");
        pprof_string(out, frame->file != NULL ? frame->file : "");
    }
    for (size_t i = 0; i < view->symbols.modules; i++) {
        const struct hak_module *module = &view->symbols.module[i];

        for (size_t k = 0; k < module->id_size; k++) {
            id[2 * k] = hex[module->id[k] >> 4];
            id[2 * k + 1] = hex[module->id[k] & 15];
        }
        id[2 * module->id_size] = '\0';
        pprof_string(out, module->path);
        pprof_string(out, id);
    }
}

void haki_write_pprof(struct hak_out *out, struct hak_view *view)
{
    struct hak_out plain = {NULL, 0, 0, false}, part = {NULL, 0, 0, false};

    pprof_types(&plain, &part);
    pprof_samples(&plain, view, &part);
    pprof_frames(&plain, view, &part);
    pprof_modules(&plain, view, &part);
    pprof_all_strings(&plain, view);
    plain.full |= part.full;
    haki_out_gzip(out, &plain);
    haki_out_drop(&part);
    haki_out_drop(&plain);
}
