/*
 * copies.h - copies of a profile's sums (haki_profile_read): what grew from one to
 * the other, and what is in them. For adapters, whose programs compare and list
 * profiles in their own language.
 */
#ifndef HAK_COPIES_H
#define HAK_COPIES_H

#include "profile/profile.h"

/*
 * A copy of what is more in one than in an earlier one of this process or, before
 * a fork, of its parent's (NULL: nothing); what is less is nothing. For
 * haki_profile_drop; NULL: out of memory, errno says so.
 */
struct hak_stacks *haki_copies_grown(const struct hak_stacks *later,
                                     const struct hak_stacks *earlier);

/* The i-th stack: its sums, and the runtime's frames, leaf first, *count of them.
 * NULL: there are not so many stacks. */
const struct hak_frame *haki_copies_stack(const struct hak_stacks *copy,
                                          uint32_t i, struct hak_sums *sums,
                                          unsigned *count);

/* The text of a name in such a frame; of 0 NULL. */
const char *haki_copies_name(const struct hak_stacks *copy, uint32_t name);

#endif /* HAK_COPIES_H */
