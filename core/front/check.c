/*
 * check.c - finds out what is wrong with a pointer that is not a block.
 *
 * All of it is cold: a pointer that the hot paths could not recognise comes
 * here, and either ends the program or is found to be a block after all.
 */
#include "front/lane.h"
#include "base/msg.h"
#include "front/large.h"
#include "range/superslabs.h"
#include "front/check.h"

#define NEVER "an address that was never given out"
#define MIDDLE "the middle of a block"

/* Ends the program; `size` is 0 if not known. */
static HAK_COLD void check_fatal(const void *p, const char *caller,
                                 const char *what, size_t size)
{
    if (size != 0) {
        haki_fatal("%s(%p): %s of %zu bytes", caller, p, what, size);
    }
    haki_fatal("%s(%p): %s", caller, p, what);
}

/* No lane has the slab: it is free, or inside a Huge block. */
static void check_untagged(const void *p, const char *caller)
{
    uint32_t super = haki_range_super_head((uint32_t)(haki_range_offset(p) /
                                                      HAK_SUPER_SIZE));
    struct hak_huge_block block;

    if (haki_huge_find(haki_range_super_start(super), &block)) {
        check_fatal(p, caller, MIDDLE, block.size);
    }
    check_fatal(p, caller, NEVER, 0);
}

static void check_tiny(const void *p, uint32_t tag, const char *caller)
{
    unsigned class = haki_tiny_class_at_tag(p, tag);

    if (!haki_tiny_is_carved(p, tag, class)) {
        check_fatal(p, caller, NEVER, 0);
    }
    if (!haki_tiny_is_block(p, tag, class)) {
        check_fatal(p, caller, MIDDLE, haki_tiny_bytes_of(p, tag));
    }
}

static void check_pool(const void *p, const char *caller)
{
    switch (haki_pool_state(p)) {
    case HAK_POOL_MIDDLE:
        check_fatal(p, caller, MIDDLE,
                    haki_pool_classes[haki_pool_class_at(p)].block);
        break;
    case HAK_POOL_NEVER: check_fatal(p, caller, NEVER, 0); break;
    case HAK_POOL_FREE:
        check_fatal(p, caller, "a block that is free", 0);
        break;
    case HAK_POOL_USED: break;
    }
}

static void check_ace(const void *p, const char *caller)
{
    struct hak_ace_run run;

    if (haki_ace_around(p, &run)) {
        check_fatal(p, caller, MIDDLE, run.bytes);
    }
    check_fatal(p, caller,
                "a block that is free, or an address never given out", 0);
}

static void check_sample(const void *p, const char *caller)
{
    struct hak_sampled sampled;

    if (haki_guarded_covers(p)) {
        haki_guarded_misuse(p, caller);
    }
    if (haki_sample_find(p, &sampled)) {
        return;
    }
    if (haki_sample_around(p, &sampled)) {
        check_fatal(p, caller, MIDDLE, sampled.bytes);
    }
    check_fatal(p, caller,
                "a block that is free, or an address never given out", 0);
}

void haki_lane_check(const void *p, const char *caller)
{
    uint32_t tag = haki_range_tag_of(p);
    struct hak_huge_block block;
    struct hak_ace_run run;

    if (tag == 0) {
        check_untagged(p, caller);
    } else if (HAK_TAG_CLASS(tag) == HAK_TAG_ACE) {
        if (!haki_ace_find(p, &run)) {
            check_ace(p, caller);
        }
    } else if (HAK_TAG_CLASS(tag) == HAK_TAG_HUGE) {
        if (!haki_huge_find(p, &block)) {
            check_untagged(p, caller);
        }
    } else if (HAK_TAG_CLASS(tag) == HAK_TAG_SAMPLE) {
        check_sample(p, caller);
    } else if (haki_tag_is_large(tag)) {
        check_pool(p, caller);
    } else {
        check_tiny(p, tag, caller);
    }
}

void haki_lane_misuse(const void *p, const char *caller)
{
    haki_lane_check(p, caller);
    check_fatal(p, caller, "a block that is free already", 0);
}
