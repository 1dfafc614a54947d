/*
 * copies.c - copies of a profile's sums: see copies.h.
 *
 * Tested by tests/python/test_profile.py.
 */
#include "profile/copies.h"

#include <string.h>

static void copies_subtract(struct hak_sums *from, const struct hak_sums *what)
{
    for (int i = 0; i < HAK_SUMS; i++) {
        from->bytes[i] -= haki_min(from->bytes[i], what->bytes[i]);
        from->count[i] -= haki_min(from->count[i], what->count[i]);
    }
}

/* Stacks keep their places and only become more: so a copy made now has those of
 * both, in the same places. */
struct hak_stacks *haki_copies_grown(const struct hak_stacks *later,
                                     const struct hak_stacks *earlier)
{
    struct hak_stacks *copy = haki_profile_read(false);

    for (uint32_t i = 0; copy != NULL && i < copy->count; i++) {
        struct hak_sums *sums = &copy->stack[i].sums;

        memset(sums, 0, sizeof(*sums));
        if (i < later->count) {
            *sums = later->stack[i].sums;
        }
        if (earlier != NULL && i < earlier->count) {
            copies_subtract(sums, &earlier->stack[i].sums);
        }
    }
    return copy;
}

const struct hak_frame *haki_copies_stack(const struct hak_stacks *copy,
                                          uint32_t i, struct hak_sums *sums,
                                          unsigned *count)
{
    const struct hak_stack *stack = &copy->stack[i];

    if (i >= copy->count) {
        return NULL;
    }
    *sums = stack->sums;
    *count = stack->frames;
    return (const void *)&copy->word[stack->at + stack->pcs];
}

const char *haki_copies_name(const struct hak_stacks *copy, uint32_t name)
{
    return name != 0 && name < copy->names
               ? copy->name_text + copy->name_at[name]
               : NULL;
}
