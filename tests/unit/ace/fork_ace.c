/*
 * fork_ace.c - tests of what a child makes of ACE's holes and runs when a thread
 * that does not exist there was at work on them.
 */
#include "ace_check.h"
#include "fork_check.h"

TestSuite(fork_ace, .timeout = 600);

#if FORK_CHECK

/* Runs and holes are as core/ace/ace.h says; what is lost counts as runs. */
static void look_at_ace(void)
{
    haki_lock_take(&haki_ace.lock);
    haki_ace_walk(false);
    haki_lock_drop(&haki_ace.lock);
}

enum { PLACES = 12 };

static void *runs[PLACES];

/* Runs are cut from holes of all kinds, joined, resized; superslabs come, go. */
static void ace_work(unsigned round)
{
    static const uint16_t pages[] = {14, 300, 15, 40, 17, 90, 512, 200};
    struct hak_ace_run run;
    unsigned i = round * 5 % PLACES;
    bool zero;

    if (runs[i] != NULL) {
        WATCHED(haki_ace_free(runs[i], &run));
    }
    WATCHED(runs[i] = haki_ace_alloc(pages[round % 8],
                                     HAK_PAGE << (round % 3 == 0 ? 4 : 0),
                                     HAK_ID_SHARED, &zero));
    NEED(runs[i] != NULL);
    if (zero) {
        NEED(is_zero(runs[i], 14 * HAK_PAGE));
    }
    memset(runs[i], 1, 14 * HAK_PAGE);
    WATCHED(haki_ace_resize(runs[i], pages[round % 8] + 20u));
    WATCHED(haki_ace_resize(runs[i], pages[round % 8] - (round % 2 != 0)));
    if (round % 7 == 6) {
        WATCHED(haki_ace_trim());
    }
}

Test(fork_ace, runs_are_cut_joined_and_resized)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    look = look_at_ace;
    watch(ace_work, (unsigned)unit_scale(40, 10));
}

#else

Test(fork_ace, a_thread_cannot_be_stopped_at_each_instruction_here)
{
}

#endif
