/*
 * fork_huge.c - tests of what a child makes of the list of Huge blocks when a
 * thread that does not exist there was at work on it.
 */
#include "huge_check.h"

#include "fork_check.h"

TestSuite(fork_huge, .timeout = 600);

#if FORK_CHECK

/* The list has the blocks that have a tag, each once, and their sum. */
static void look_at_huge(void)
{
    size_t listed = 0, tagged = 0, bytes = 0;
    uint32_t before = HAK_NO_SUPER;

    haki_lock_take(&huge_lock);
    for (uint32_t super = huge_blocks; super != HAK_NO_SUPER;) {
        const struct huge *huge = huge_at(super);

        NEED(huge->prev == before);
        NEED(huge->size <= huge->supers * HAK_SUPER_SIZE);
        bytes += huge->size;
        NEED(++listed < 1000);
        before = super;
        super = huge->next;
    }
    for (size_t at = 0; at < haki_range.size; at += HAK_SUPER_SIZE) {
        tagged += haki_range_tag(at) == HAK_TAG_SHARED(HAK_TAG_HUGE);
    }
    NEED(listed == tagged && huge_counts.live_bytes == bytes);
    haki_lock_drop(&huge_lock);
}

enum { PLACES = 3 };

static void *runs[PLACES];

static void huge_work(unsigned round)
{
    struct hak_huge_block block;
    size_t size = (2 + round % 3) * HAK_SUPER_SIZE;
    unsigned i = round % 3;
    bool zero;

    if (runs[i] != NULL) {
        WATCHED(haki_huge_free(runs[i], &block));
    }
    WATCHED(runs[i] = haki_huge_alloc(size, 1, HAK_ID_SHARED, &zero));
    NEED(runs[i] != NULL);
    *(char *)runs[i] = 1;
    WATCHED(runs[i] = haki_huge_resize(runs[i], size * 3));
    NEED(runs[i] != NULL && *(char *)runs[i] == 1);
    WATCHED(runs[i] = haki_huge_resize(runs[i], size));
}

Test(fork_huge, blocks_come_go_and_move)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    look = look_at_huge;
    watch(huge_work, (unsigned)unit_scale(12, 6));
}

#else

Test(fork_huge, a_thread_cannot_be_stopped_at_each_instruction_here)
{
}

#endif
