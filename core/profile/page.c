/*
 * page.c - a profile as one page with a flame graph, which needs nothing else.
 *
 * The page is page.html; make puts its lines into page_lines.inc, which is what is
 * compiled. The line that says DATA is replaced by the profile.
 *
 * Tested by tests/unit/profile/written.c.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "profile/view.h"

#define PAGE_LABEL 400

static const char *const page_lines[] = {
#include "profile/page_lines.inc"
};

/* {frames: [names], stacks: [[[frames], [values]]]} */
static void page_set(struct hak_out *out, struct hak_view *view)
{
    uint32_t frames[HAK_VIEW_MOST];
    const char *comma = "";
    char label[PAGE_LABEL];

    haki_out_text(out, "{stacks: [");
    for (uint32_t i = 0; i < view->stacks->count; i++) {
        bool any = haki_view_value(view, i, true, false) != 0 ||
                   haki_view_value(view, i, false, false) != 0;
        unsigned n = any ? haki_view_stack(view, i, frames) : 0;

        for (unsigned k = 0; k < n; k++) {
            haki_out_text(out, k == 0 ? comma : ",");
            haki_out_text(out, k == 0 ? "\n[[" : "");
            haki_out_number(out, frames[k]);
        }
        for (unsigned k = 0; k < 4 && n > 0; k++) {
            haki_out_text(out, k == 0 ? "],[" : ",");
            haki_out_number(out, haki_view_value(view, i, k >= 2, k % 2 != 0));
            comma = ",";
        }
        haki_out_text(out, n > 0 ? "]]" : "");
    }
    haki_out_text(out, "], frames: [\"\"");
    for (uint32_t i = 1; i <= view->frames; i++) {
        haki_view_label(&view->frame[i], label, sizeof(label));
        haki_out_text(out, ",\n");
        haki_out_quoted(out, label);
    }
    haki_out_text(out, "]}");
}

/* A rate, as one says it. */
static void page_rate(struct hak_out *out, size_t rate)
{
    const char *unit = rate == 1 ? " byte" : " bytes";

    if (rate != 0 && rate % HAK_MIB == 0) {
        rate /= HAK_MIB;
        unit = " MB";
    } else if (rate != 0 && rate % HAK_KIB == 0) {
        rate /= HAK_KIB;
        unit = " KB";
    }
    haki_out_number(out, rate);
    haki_out_text(out, unit);
}

static void page_data(struct hak_out *out, struct hak_view *view,
                      struct hak_view *grown, const struct hak_view_wish *wish)
{
    haki_out_text(out, "const DATA = {about: \"Process ");
    haki_out_number(out, (uint64_t)getpid());
    haki_out_text(out, ", one sample in ");
    page_rate(out, haki_profile_last_rate());
    haki_out_text(out, ":\", program: ");
    haki_out_quoted(out, program_invocation_short_name);
    haki_out_text(out, ", value: ");
    haki_out_number(out, 2u * wish->alloc + wish->count);
    haki_out_text(out, wish->grown ? ", showGrown: true, all: "
                                   : ", showGrown: false, all: ");
    page_set(out, view);
    haki_out_text(out, ", grown: ");
    if (grown != NULL) {
        page_set(out, grown);
    } else {
        haki_out_text(out, "null");
    }
    haki_out_text(out, "};");
}

void haki_write_page(struct hak_out *out, struct hak_view *view,
                     struct hak_view *grown, const struct hak_view_wish *wish)
{
    for (size_t i = 0; i < sizeof(page_lines) / sizeof(page_lines[0]); i++) {
        if (strcmp(page_lines[i], "/*DATA*/") == 0) {
            page_data(out, view, grown, wish);
        } else {
            haki_out_text(out, page_lines[i]);
        }
        haki_out_text(out, "\n");
    }
}
