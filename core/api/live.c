/*
 * live.c - a profile that another process of the same user asks for: see live.h.
 *
 * Tested by tests/command/test_live.py, in programs that must not be harmed.
 */
#include "api/live.h"

#include <errno.h>
#include <string.h>

#include "os/os.h"
#include "profile/profile.h"
#include "upkeep/background.h"
#include "upkeep/look.h"

#define LIVE_EVERY 1000  /* milliseconds between two files, */
#define LIVE_SELDOM 5000 /* and where one takes long */
#define LIVE_COST 100    /* times that */
#define LIVE_MOST 120000 /* a lease of more is one of this */
#define MS 1000000       /* nanoseconds */

/* ---- on and off ------------------------------------------------------------------ */

/* Milliseconds that the order holds for; 0: it has ended. */
static uint32_t live_left(const struct hak_share *page)
{
    uint64_t until = atomic_load(&page->sample_until), now = haki_os_clock();

    return until > now ? (uint32_t)haki_min((until - now) / MS + 1, LIVE_MOST)
                       : 0;
}

/* Samples as the page wants it, on at an order alone; returns enum hak_live_state. */
static uint32_t live_switch(struct hak_live *live, struct hak_share *page,
                            bool ordered)
{
    size_t rate = atomic_load(&page->sample_rate);

    if (live_left(page) == 0) {
        haki_profile_end_lent();
        return HAK_LIVE_NONE;
    }
    if (atomic_load(&haki_profile.until) == &page->sample_until) {
        return HAK_LIVE_ON;
    }
    haki_profile_end_lent(); /* a parent's, which ends when that likes */
    live->began = 0;
    if (atomic_load(&haki_profile.rate) != 0) {
        return HAK_LIVE_OTHERS;
    }
    if (!ordered) { /* it was switched off by the program */
        return HAK_LIVE_NONE;
    }
    if (!haki_profile_lend(haki_max(haki_min(rate, HAK_GIB), 1),
                           &page->sample_until)) {
        atomic_store(&page->sample_error, (uint32_t)errno);
        return HAK_LIVE_FAILED;
    }
    live->began = haki_os_clock();
    return HAK_LIVE_ON;
}

/* ---- the file ---------------------------------------------------------------------- */

static bool live_is_told(const struct hak_stack *stack)
{
    return stack->sums.bytes[HAK_SUM_ALLOC] != 0 ||
           stack->sums.bytes[HAK_SUM_LIVE] != 0;
}

static void live_head(struct hak_live_file *head, const struct hak_stacks *from)
{
    memset(head, 0, sizeof(*head));
    head->version = HAK_LIVE_VERSION;
    head->head = sizeof(*head);
    for (uint32_t i = 0; i < from->count; i++) {
        if (live_is_told(&from->stack[i])) {
            head->stacks++;
            head->words += from->stack[i].pcs + 2u * from->stack[i].frames;
        }
    }
    head->names = from->names;
    head->bytes = from->name_bytes;
    head->stacks_at = head->head;
    head->words_at = head->stacks_at +
                     head->stacks * (uint32_t)sizeof(struct hak_live_stack);
    head->names_at = head->words_at + head->words * (uint32_t)sizeof(uint64_t);
    head->bytes_at = head->names_at + head->names * (uint32_t)sizeof(uint32_t);
    head->size = head->bytes_at + head->bytes;
}

/* All that stands behind the head. */
static void live_fill(char *to, const struct hak_live_file *head,
                      const struct hak_stacks *from)
{
    struct hak_live_stack *stack = (void *)(to + head->stacks_at);
    uint64_t *word = (void *)(to + head->words_at);
    uint32_t at = 0;

    for (uint32_t i = 0; i < from->count; i++) {
        const struct hak_stack *one = &from->stack[i];
        uint32_t n = one->pcs + 2u * one->frames;

        if (live_is_told(one)) {
            *stack = (struct hak_live_stack){
                at, one->pcs, one->frames, {0, 0}, {0, 0}};
            memcpy(stack->bytes, one->sums.bytes, sizeof(stack->bytes));
            memcpy(stack->count, one->sums.count, sizeof(stack->count));
            memcpy(word + at, from->word + one->at, n * sizeof(*word));
            at += n;
            stack++;
        }
    }
    memcpy(to + head->names_at, from->name_at, head->names * sizeof(uint32_t));
    memcpy(to + head->bytes_at, from->name_text, head->bytes);
}

/* Errno; 0: it is there. */
static int live_write_stacks(const struct hak_live *live,
                             struct hak_share *page,
                             const struct hak_shared *file,
                             const struct hak_stacks *stacks)
{
    struct hak_profile_counts counts;
    struct hak_live_file head;
    struct hak_shared made;
    int error;

    live_head(&head, stacks);
    haki_profile_counts(&counts);
    head.pid = page->pid;
    head.state = atomic_load(&page->sample_state);
    head.rate = haki_profile_last_rate();
    head.began = live->began;
    head.written = haki_os_clock();
    head.core = page->core;
    head.samples = counts.samples;
    head.dropped = counts.dropped;
    memcpy(head.magic, HAK_LIVE_MAGIC, sizeof(head.magic));
    error = haki_shared_begin(&made, file, head.size);
    if (error != 0) {
        return error;
    }
    memcpy(made.memory, &head, sizeof(head));
    live_fill(made.memory, &head, stacks);
    return haki_shared_end(&made, file, ".profile");
}

/* Writes it, if there is a profile; `anew`: also if nothing has changed. */
static void live_write(struct hak_live *live, struct hak_share *page,
                       const struct hak_shared *file, bool anew)
{
    struct hak_profile_counts counts;
    struct hak_stacks *stacks;
    uint64_t mark;
    int error;

    haki_profile_counts(&counts);
    mark = counts.samples * HAK_RECORDS_MOST + counts.live;
    if (haki_profile_last_rate() == 0 ||
        (!anew && mark == atomic_load(&live->mark))) {
        return;
    }
    stacks = haki_profile_read(false);
    error =
        stacks == NULL ? errno : live_write_stacks(live, page, file, stacks);
    haki_profile_drop(stacks);
    atomic_store(&page->sample_error, (uint32_t)error);
    if (error == 0) {
        atomic_store(&live->mark, mark);
        atomic_fetch_add(&page->sample_files, 1);
    }
}

/* ---- looks -------------------------------------------------------------------------- */

bool haki_live_is_due(const struct hak_live *live, const struct hak_share *page,
                      uint32_t now)
{
    uint32_t due = atomic_load(&live->due);

    return atomic_load(&page->sampling) != atomic_load(&page->sampled) ||
           (due != 0 && haki_tick_reached(now, due));
}

/* When the next is due, and for how long somebody will look. */
static void live_plan(struct hak_live *live, struct hak_share *page,
                      uint64_t from)
{
    uint64_t took = (haki_os_clock() - from) / MS * LIVE_COST;
    uint32_t left = live_left(page), now = haki_os_tick();
    uint32_t watched = haki_share_watched(page);

    atomic_store(&haki_look_watched,
                 watched != 0 ? haki_some_time(now + watched) : 0);
    atomic_store(&live->due,
                 left != 0
                     ? haki_some_time(
                           now + (uint32_t)haki_min(haki_max(took, LIVE_EVERY),
                                                    LIVE_SELDOM))
                     : 0);
}

void haki_live_look(struct hak_live *live, struct hak_share *page,
                    const struct hak_shared *file, uint32_t now)
{
    uint64_t from = haki_os_clock();
    uint32_t order, state;
    int saved = errno;
    bool ordered;

    if (atomic_exchange(&live->busy, true)) {
        return;
    }
    order = atomic_load(&page->sampling);
    ordered = order != atomic_load(&page->sampled);
    if (ordered || haki_live_is_due(live, page, now)) {
        state = live_switch(live, page, ordered);
        atomic_store(&page->sample_state, state);
        if (state == HAK_LIVE_ON || state == HAK_LIVE_OTHERS) {
            live_write(live, page, file, ordered);
        }
        live_plan(live, page, from);
        atomic_store(&page->sampled, order);
    }
    atomic_store(&live->busy, false);
    errno = saved;
    haki_background_start();
}
