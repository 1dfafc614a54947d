/*
 * profile.c - on and off, and the sums: see profile.h. records.c has the records.
 */
#include "profile/profile.h"

#include <errno.h>
#include <string.h>

#include "os/os.h"
#include "profile/blame.h"
#include "profile/fault.h"
#include "profile/guarded.h"
#include "profile/records.h"

HAK_OWN_LINE struct hak_profile haki_profile;

static _Atomic(haki_frames_fn *) profile_frames;
static _Atomic(haki_line_fn *) profile_line;
static _Atomic(uint64_t) profile_seed;
static atomic_bool profile_marked;
static _Atomic(size_t) profile_last_rate; /* not 0 once there was a profile */

/* ---- the runtime's frames --------------------------------------------------- */

void haki_profile_set_frames(haki_frames_fn *frames, haki_line_fn *line)
{
    atomic_store(&profile_line, line);
    atomic_store(&profile_frames, frames);
}

uint32_t haki_profile_line(const struct hak_frame *frame)
{
    haki_line_fn *line = atomic_load(&profile_line);

    return frame->line == 0 && frame->token != 0 && line != NULL ? line(frame)
                                                                 : frame->line;
}

/* `file` of such frames, whose address is in function and line: no name has that. */
#define PROFILE_C UINT32_MAX

void haki_profile_frame_of_c(struct hak_frame *frame, const void *function)
{
    uint64_t at = (uintptr_t)function;

    frame->file = PROFILE_C;
    frame->function = (uint32_t)(at >> 32);
    frame->line = (uint32_t)at;
    frame->token = 0;
}

const void *haki_profile_c_of_frame(const struct hak_frame *frame)
{
    uint64_t at = (uint64_t)frame->function << 32 | frame->line;

    return frame->file == PROFILE_C ? (const void *)(uintptr_t)at : NULL;
}

uint32_t haki_profile_name(const char *text, size_t length)
{
    uint32_t name = 0;

    haki_lock_take(&haki_records.lock);
    if (haki_records.stacks != NULL) {
        name = haki_stacks_name(haki_records.stacks, text, length);
    }
    haki_lock_drop(&haki_records.lock);
    return name;
}

void haki_profile_capture(struct hak_stack_words *words,
                          const struct hak_sampler *who, unsigned most)
{
    haki_frames_fn *frames =
        who->frames != NULL ? who->frames : atomic_load(&profile_frames);
    size_t below = SIZE_MAX;

    words->frames = 0;
    if (frames != NULL) {
        words->frames =
            frames(who->heap, words->frame,
                   (unsigned)haki_min(most, HAK_STACK_FRAMES), &below);
    }
    words->pcs = below == 0
                     ? 0
                     : haki_unwind(words->pc,
                                   (unsigned)haki_min(haki_min(below, most),
                                                      HAK_STACK_PCS),
                                   words->frames != 0);
}

/* ---- chance -------------------------------------------------------------------- */

/* The mean distance of two kinds that have these; 0: there is none of the kind. */
static size_t profile_both(size_t rate, size_t guards)
{
    hak_u128 product = (hak_u128)rate * guards;

    if (rate == 0 || guards == 0) {
        return rate + guards;
    }
    return haki_max((size_t)(product / ((hak_u128)rate + guards)), 1);
}

static size_t profile_load(const _Atomic(size_t) *rate)
{
    return atomic_load_explicit(rate, memory_order_relaxed);
}

int64_t haki_profile_draw(size_t bytes, uint64_t *random)
{
    return profile_load(&haki_profile.guards) == 1
               ? 0 /* each one */
               : haki_draw_blocks(haki_max(profile_load(&haki_profile.draw), 1),
                                  bytes, random);
}

static double profile_chance(size_t rate, size_t bytes)
{
    return rate != 0 ? haki_draw_chance(rate, bytes) : 0;
}

unsigned haki_profile_drawn(size_t bytes, uint64_t *random)
{
    size_t guards = profile_load(&haki_profile.guards);
    size_t rate = profile_load(&haki_profile.rate);
    double sample, guard, due, at;

    if (guards == 0) {
        return rate != 0 ? HAK_DRAWN_SAMPLE : 0;
    }
    due = guards == 1 ? 1 : profile_chance(profile_both(rate, guards), bytes);
    sample = profile_chance(rate, bytes);
    guard = guards == 1 ? 1 : profile_chance(guards, bytes);
    at = due * (double)(haki_draw_next(random) >> 11) / 9007199254740992.0;
    if (at < sample) {
        return at < sample * guard ? HAK_DRAWN_SAMPLE | HAK_DRAWN_GUARD
                                   : HAK_DRAWN_SAMPLE;
    }
    return at < sample + guard - sample * guard ? HAK_DRAWN_GUARD : 0;
}

uint64_t haki_sample_seed(void)
{
    uint64_t state =
        atomic_fetch_add(&profile_seed, UINT64_C(0xd1342543de82ef95));

    return haki_draw_next(&state);
}

#ifdef HAK_TESTING
void haki_profile_test_seed(uint64_t seed)
{
    atomic_store(&profile_seed, seed);
}
#endif

/* ---- on and off -------------------------------------------------------------- */

static size_t profile_fixed_bytes(void)
{
    return haki_round_up(sizeof(struct hak_stacks), HAK_PAGE) +
           haki_round_up(sizeof(struct hak_record) * HAK_RECORDS_MOST,
                         HAK_PAGE) +
           haki_round_up(sizeof(uint32_t) * HAK_RECORD_PLACES, HAK_PAGE);
}

/* Memory for the records and all, once. */
static bool profile_begin(void)
{
    char *memory;

    HAK_HELD(&haki_records.lock);
    if (haki_records.stacks != NULL) {
        return true;
    }
    memory = haki_os_map(profile_fixed_bytes() +
                         haki_round_up(haki_samples_bytes(), HAK_PAGE));
    if (memory == NULL) {
        return false;
    }
    haki_os_name(memory, profile_fixed_bytes(), "hakmem profile");
    haki_samples_begin(memory + profile_fixed_bytes());
    haki_records.record =
        (void *)(memory + haki_round_up(sizeof(struct hak_stacks), HAK_PAGE));
    haki_records.table =
        (void *)((char *)haki_records.record +
                 haki_round_up(sizeof(struct hak_record) * HAK_RECORDS_MOST,
                               HAK_PAGE));
    ((struct hak_stacks *)(void *)memory)->count = 1;
    ((struct hak_stacks *)(void *)memory)->names = 1;
    haki_lock_step();
    haki_records.stacks = (void *)memory;
    return true;
}

/* From here on heaps draw anew. */
static void profile_next_round(void)
{
    uint32_t round = atomic_load(&haki_profile.round) + 1;

    atomic_store(&haki_profile.round, round != 0 ? round : 1);
}

/* What was given out before does not count. */
static void profile_forget_allocs(void)
{
    struct hak_stacks *stacks = haki_records.stacks;

    for (uint32_t i = 0; stacks != NULL && i < stacks->count; i++) {
        struct hak_stack *stack = &stacks->stack[i];

        stack->sums.bytes[HAK_SUM_ALLOC] = stack->sums.count[HAK_SUM_ALLOC] = 0;
        stack->mark.bytes[HAK_SUM_ALLOC] = stack->mark.count[HAK_SUM_ALLOC] = 0;
    }
}

/* Before the first sample of any kind; false: there is no range. */
static bool profile_prepare(void)
{
    uint64_t seed = 0;

    if (!haki_range_init()) {
        errno = ENOMEM;
        return false;
    }
    if (atomic_load(&profile_seed) == 0) {
        haki_os_random(&seed, sizeof(seed));
        atomic_fetch_or(&profile_seed, seed | 1);
    }
    return true;
}

/* The rate of one of the two kinds is another. */
static void profile_change(_Atomic(size_t) *kind, size_t rate)
{
    HAK_HELD(&haki_records.lock);
    if (rate != atomic_load(kind)) {
        atomic_store(kind, rate);
        atomic_store(&haki_profile.draw,
                     profile_both(atomic_load(&haki_profile.rate),
                                  atomic_load(&haki_profile.guards)));
        profile_next_round();
    }
}

/* Under the lock; false: there is no memory. */
static bool profile_switch(size_t rate, const _Atomic(uint64_t) *until)
{
    HAK_HELD(&haki_records.lock);
    if (rate != 0 && !profile_begin()) {
        return false;
    }
    if (rate != 0 && atomic_load(&haki_profile.rate) == 0) {
        profile_forget_allocs();
        atomic_store(&profile_marked, false);
    }
    if (rate != 0) {
        atomic_store(&profile_last_rate, rate);
    }
    atomic_store(&haki_profile.until, until);
    profile_change(&haki_profile.rate, rate);
    return true;
}

bool haki_profile_set(size_t rate)
{
    bool done;

    if (rate != 0) {
        if (!profile_prepare()) {
            return false;
        }
        haki_unwind_begin();
    }
    haki_lock_take(&haki_records.lock);
    done = profile_switch(rate, NULL);
    haki_lock_drop(&haki_records.lock);
    if (!done) {
        errno = ENOMEM;
    }
    return done;
}

bool haki_profile_set_guards(size_t rate, size_t memory)
{
    bool done;

    if (rate != 0) {
        if (!profile_prepare()) {
            return false;
        }
        haki_unwind_begin();
        haki_blame_begin();
    }
    haki_lock_take(&haki_records.lock);
    done = rate == 0 || (profile_begin() && haki_guarded_begin(memory));
    if (done && rate != 0) {
        haki_fault_begin();
    } else if (rate == 0) {
        haki_fault_end();
    }
    if (done) {
        profile_change(&haki_profile.guards, rate);
    }
    haki_lock_drop(&haki_records.lock);
    if (!done) {
        errno = ENOMEM;
    }
    return done;
}

bool haki_profile_lend(size_t rate, const _Atomic(uint64_t) *until)
{
    bool done;

    if (!profile_prepare()) {
        return false;
    }
    haki_lock_take(&haki_records.lock);
    done = atomic_load(&haki_profile.rate) != 0 || profile_switch(rate, until);
    haki_lock_drop(&haki_records.lock);
    if (!done) {
        errno = ENOMEM;
    }
    return done;
}

void haki_profile_end_lent(void)
{
    haki_lock_take(&haki_records.lock);
    if (atomic_load(&haki_profile.until) != NULL) {
        profile_switch(0, NULL);
    }
    haki_lock_drop(&haki_records.lock);
}

bool haki_profile_goes_on(void)
{
    const _Atomic(uint64_t) *until = atomic_load(&haki_profile.until);

    if (until != NULL && haki_os_clock() >= atomic_load(until)) {
        haki_profile_end_lent();
    }
    return atomic_load_explicit(&haki_profile.draw, memory_order_acquire) != 0;
}

/* ---- what is read ---------------------------------------------------------------- */

void haki_profile_mark(void)
{
    struct hak_stacks *stacks;

    haki_lock_take(&haki_records.lock);
    stacks = haki_records.stacks;
    for (uint32_t i = 0; stacks != NULL && i < stacks->count; i++) {
        stacks->stack[i].mark = stacks->stack[i].sums;
    }
    atomic_store(&profile_marked, stacks != NULL);
    haki_lock_drop(&haki_records.lock);
}

size_t haki_profile_last_rate(void)
{
    return atomic_load(&profile_last_rate);
}

bool haki_profile_is_marked(void)
{
    return atomic_load(&profile_marked);
}

void haki_profile_counts(struct hak_profile_counts *counts)
{
    haki_lock_take(&haki_records.lock);
    *counts = haki_records.counts;
    counts->held = haki_samples_held() + haki_guarded_held();
    haki_lock_drop(&haki_records.lock);
}

HAK_RACY_READER size_t haki_profile_live_bytes(void)
{
    const volatile uint64_t *live = haki_records.counts.live_bytes;

    return live[0] + live[1];
}

size_t haki_profile_bytes(void)
{
    const struct hak_stacks *stacks;
    size_t bytes = 0;

    haki_lock_take(&haki_records.lock);
    stacks = haki_records.stacks;
    if (stacks != NULL) {
        bytes = haki_samples_held() +
                haki_records.high *
                    (sizeof(struct hak_record) + 2 * sizeof(uint32_t)) +
                stacks->count * sizeof(struct hak_stack) +
                stacks->words * sizeof(uint64_t) + stacks->name_bytes;
    }
    haki_lock_drop(&haki_records.lock);
    return bytes;
}

static void profile_copy(struct hak_stacks *to, const struct hak_stacks *from)
{
    to->count = from->count;
    to->words = from->words;
    to->names = from->names;
    to->name_bytes = from->name_bytes;
    memcpy(to->stack, from->stack, from->count * sizeof(from->stack[0]));
    memcpy(to->word, from->word, from->words * sizeof(from->word[0]));
    memcpy(to->name_at, from->name_at, from->names * sizeof(from->name_at[0]));
    memcpy(to->name_text, from->name_text, from->name_bytes);
}

/* What grew: less than nothing is nothing. */
static void profile_subtract(struct hak_stack *stack)
{
    for (int i = 0; i < HAK_SUMS; i++) {
        uint64_t *bytes = &stack->sums.bytes[i], *count = &stack->sums.count[i];

        *bytes -= haki_min(*bytes, stack->mark.bytes[i]);
        *count -= haki_min(*count, stack->mark.count[i]);
    }
}

struct hak_stacks *haki_profile_read(bool grown)
{
    struct hak_stacks *copy =
        haki_os_map(haki_round_up(sizeof(struct hak_stacks), HAK_PAGE));
    bool any;

    if (copy == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    haki_lock_take(&haki_records.lock);
    any = haki_records.stacks != NULL;
    if (any) {
        profile_copy(copy, haki_records.stacks);
    }
    haki_lock_drop(&haki_records.lock);
    if (!any) {
        haki_profile_drop(copy);
        errno = ENODATA;
        return NULL;
    }
    for (uint32_t i = 0; grown && i < copy->count; i++) {
        profile_subtract(&copy->stack[i]);
    }
    return copy;
}

void haki_profile_drop(struct hak_stacks *stacks)
{
    if (stacks != NULL) {
        haki_os_unmap(stacks,
                      haki_round_up(sizeof(struct hak_stacks), HAK_PAGE));
    }
}

/* ---- fork ------------------------------------------------------------------------- */

bool haki_profile_forked(void)
{
    bool none = haki_lock_settle(&haki_records.lock);

    if (none && haki_records.stacks != NULL) {
        profile_forget_allocs();
        /* Heaps go on with other numbers than their copies in the parent. */
        atomic_fetch_add(&profile_seed,
                         haki_os_clock() << 20 | (uint32_t)haki_os_thread_id());
        profile_next_round();
    }
    return none;
}
