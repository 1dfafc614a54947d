/*
 * formats.c - a profile as collapsed stacks, and for speedscope.
 *
 * Tested by tests/unit/profile/written.c.
 */
#include <string.h>

#include "profile/view.h"

/* A label is cut after so many bytes. */
#define FORMATS_LABEL 400

/* What collapsed stacks part frames and values by must not be in a name. */
static void formats_clean(char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == ';' || *text == '\n' || *text == '\r') {
            *text = ':';
        }
    }
}

void haki_write_collapsed(struct hak_out *out, struct hak_view *view,
                          const struct hak_view_wish *wish)
{
    uint32_t frames[HAK_VIEW_MOST];
    char label[FORMATS_LABEL];

    for (uint32_t i = 0; i < view->stacks->count; i++) {
        uint64_t value = haki_view_value(view, i, wish->alloc, wish->count);
        unsigned n = value != 0 ? haki_view_stack(view, i, frames) : 0;

        for (unsigned k = 0; k < n; k++) {
            haki_view_label(&view->frame[frames[k]], label, sizeof(label));
            formats_clean(label);
            haki_out_text(out, k > 0 ? ";" : "");
            haki_out_text(out, label);
        }
        if (n > 0) {
            haki_out_text(out, " ");
            haki_out_number(out, value);
            haki_out_text(out, "\n");
        }
    }
}

/* ,"name":"..." of all frames that stacks have led to. */
static void formats_frames(struct hak_out *out, const struct hak_view *view)
{
    char label[FORMATS_LABEL];

    haki_out_text(out, "{\"name\":\"[root]\"}");
    for (uint32_t i = 1; i <= view->frames; i++) {
        haki_view_label(&view->frame[i], label, sizeof(label));
        haki_out_text(out, ",{\"name\":");
        haki_out_quoted(out, label);
        haki_out_text(out, "}");
    }
}

/* The stacks with a value as lists of frames, and then the values. */
static void formats_samples(struct hak_out *out, struct hak_view *view,
                            bool alloc, bool count)
{
    uint32_t frames[HAK_VIEW_MOST];
    struct hak_out weights = {NULL, 0, 0, false};
    const char *comma = "";

    haki_out_text(out, "\"samples\":[");
    for (uint32_t i = 0; i < view->stacks->count; i++) {
        uint64_t value = haki_view_value(view, i, alloc, count);
        unsigned n = value != 0 ? haki_view_stack(view, i, frames) : 0;

        if (n == 0) {
            continue;
        }
        haki_out_text(out, comma);
        for (unsigned k = 0; k < n; k++) {
            haki_out_text(out, k == 0 ? "[" : ",");
            haki_out_number(out, frames[k]);
        }
        haki_out_text(out, "]");
        haki_out_text(&weights, comma);
        haki_out_number(&weights, value);
        comma = ",";
    }
    haki_out_text(out, "],\"weights\":[");
    haki_out_bytes(out, weights.at, weights.used);
    haki_out_text(out, "]");
    out->full |= weights.full;
    haki_out_drop(&weights);
}

static void formats_profile(struct hak_out *out, struct hak_view *view,
                            bool alloc, bool count)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < view->stacks->count; i++) {
        sum += haki_view_value(view, i, alloc, count);
    }
    haki_out_text(out, "{\"type\":\"sampled\",\"name\":\"");
    haki_out_text(out, alloc ? "allocated " : "live ");
    haki_out_text(out, count ? "blocks" : "bytes");
    haki_out_text(out, "\",\"unit\":\"");
    haki_out_text(out, count ? "none" : "bytes");
    haki_out_text(out, "\",\"startValue\":0,\"endValue\":");
    haki_out_number(out, sum);
    haki_out_text(out, ",");
    formats_samples(out, view, alloc, count);
    haki_out_text(out, "}");
}

void haki_write_speedscope(struct hak_out *out, struct hak_view *view,
                           const struct hak_view_wish *wish)
{
    haki_out_text(out, "{\"$schema\":\"https://www.speedscope.app/"
                       "file-format-schema.json\",\"exporter\":\"HAKMEM " //
                  HAK_VERSION_STRING "\",\"name\":\"heap profile\","
                       "\"activeProfileIndex\":");
    haki_out_number(out, 2u * wish->alloc + wish->count);
    haki_out_text(out, ",\"profiles\":[");
    for (unsigned i = 0; i < 4; i++) {
        haki_out_text(out, i > 0 ? "," : "");
        formats_profile(out, view, i / 2 != 0, i % 2 != 0);
    }
    haki_out_text(out, "],\"shared\":{\"frames\":[");
    formats_frames(out, view);
    haki_out_text(out, "]}}\n");
}
