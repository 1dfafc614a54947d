/*
 * formats.c - a profile as collapsed stacks, and for speedscope.
 *
 * Tested by tests/unit/profile/written.c.
 */
#include <string.h>

#include "os/os.h"
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

/* Lines, each once: they begin in `text` at `at`; a function that was called from
 * several places is several frames of one name. */
struct formats_line {
    uint64_t hash, value;
    size_t at, length; /* 0: the place is free */
};

struct formats_lines {
    struct hak_out text;
    struct formats_line *line;
    size_t places; /* a power of two */
};

/* Adds what has just been put together, from `at` on. */
static void formats_add_line(struct formats_lines *lines, size_t at,
                             uint64_t value)
{
    size_t length = lines->text.used - at;
    const char *text = lines->text.at + at;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    struct formats_line *line;

    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    }
    for (size_t i = hash;; i++) {
        line = &lines->line[i & (lines->places - 1)];
        if (line->length == 0) {
            *line = (struct formats_line){hash, value, at, length};
            return;
        }
        if (line->hash == hash && line->length == length &&
            memcmp(lines->text.at + line->at, text, length) == 0) {
            line->value += value;
            lines->text.used = at;
            return;
        }
    }
}

/* The frames of a stack as one line. */
static void formats_join(struct hak_out *out, const struct hak_view *view,
                         const uint32_t *frames, unsigned n)
{
    char label[FORMATS_LABEL];

    for (unsigned k = 0; k < n; k++) {
        haki_view_label(&view->frame[frames[k]], label, sizeof(label));
        formats_clean(label);
        haki_out_text(out, k > 0 ? ";" : "");
        haki_out_text(out, label);
    }
}

static void formats_write_lines(struct hak_out *out,
                                const struct formats_lines *lines)
{
    for (size_t i = 0; i < lines->places; i++) {
        const struct formats_line *line = &lines->line[i];

        if (line->length != 0) {
            haki_out_bytes(out, lines->text.at + line->at, line->length);
            haki_out_text(out, " ");
            haki_out_number(out, line->value);
            haki_out_text(out, "\n");
        }
    }
}

void haki_write_collapsed(struct hak_out *out, struct hak_view *view,
                          const struct hak_view_wish *wish)
{
    struct formats_lines lines = {.places = 1024};
    uint32_t frames[HAK_VIEW_MOST];
    size_t bytes;

    while (lines.places < 2 * view->stacks->count) {
        lines.places *= 2;
    }
    bytes = haki_round_up(lines.places * sizeof(*lines.line), HAK_PAGE);
    lines.line = haki_os_map(bytes);
    out->full |= lines.line == NULL;
    for (uint32_t i = 0; !out->full && i < view->stacks->count; i++) {
        uint64_t value = haki_view_value(view, i, wish->alloc, wish->count);
        unsigned n = value != 0 ? haki_view_stack(view, i, frames) : 0;
        size_t at = lines.text.used;

        if (n > 0) {
            formats_join(&lines.text, view, frames, n);
            out->full |= lines.text.full;
        }
        if (n > 0 && !out->full) {
            formats_add_line(&lines, at, value);
        }
    }
    if (lines.line != NULL) {
        formats_write_lines(out, &lines);
        haki_os_unmap(lines.line, bytes);
    }
    haki_out_drop(&lines.text);
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
