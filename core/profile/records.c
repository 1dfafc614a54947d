/*
 * records.c - samples are taken and freed: see profile.h.
 *
 * Tested by tests/unit/profile/profile.c.
 */
#include "profile/records.h"

#include <string.h>

#include <hakmem.h>

#include "base/probe.h"
#include "os/os.h"
#include "profile/guarded.h"

struct hak_records haki_records = {.lock = HAK_LOCK_INIT(haki_records_mend)};

/* The thread is taking a sample: what it allocates meanwhile is none. */
static __thread bool records_inside __attribute__((tls_model("initial-exec")));

/* See records_thread_id. */
static __thread int32_t records_thread
    __attribute__((tls_model("initial-exec")));
static __thread uint64_t records_thread_process
    __attribute__((tls_model("initial-exec")));

/* ---- the table of addresses --------------------------------------------------- */

static uint32_t records_home(uintptr_t p)
{
    return (uint32_t)((p >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 40) %
           HAK_RECORD_PLACES;
}

/* The place of p in the table, or the free one where it would go. */
static uint32_t records_place(uintptr_t p)
{
    uint32_t i = records_home(p);

    while (haki_records.table[i] != 0 &&
           haki_records.record[haki_records.table[i]].p != p) {
        i = (i + 1) % HAK_RECORD_PLACES;
    }
    return i;
}

/* Takes a place out; later ones move up. */
static void records_close_gap(uint32_t gap)
{
    uint32_t *table = haki_records.table;

    for (uint32_t i = (gap + 1) % HAK_RECORD_PLACES; table[i] != 0;
         i = (i + 1) % HAK_RECORD_PLACES) {
        uint32_t home = records_home(haki_records.record[table[i]].p);

        if ((i - home) % HAK_RECORD_PLACES >= (i - gap) % HAK_RECORD_PLACES) {
            table[gap] = table[i];
            gap = i;
        }
    }
    table[gap] = 0;
}

/* ---- records ------------------------------------------------------------------- */

static unsigned records_lane(const struct hak_record *record)
{
    return record->size > HAK_TINY_MAX;
}

/* Adds what a record stands for to its stack and the counts, or takes it off. */
static void records_count_live(const struct hak_record *record, bool on)
{
    struct hak_sums *sums = &haki_records.stacks->stack[record->stack].sums;
    uint64_t sign = on ? 1 : UINT64_MAX;

    sums->bytes[HAK_SUM_LIVE] += sign * record->bytes;
    sums->count[HAK_SUM_LIVE] += sign * record->count;
    haki_records.counts.live += (uint32_t)sign;
    if (haki_samples_covers((void *)record->p)) {
        haki_records.counts.live_bytes[records_lane(record)] +=
            sign * record->size;
    }
}

/* A free record, or 0. */
static uint32_t records_take(void)
{
    uint32_t i = haki_records.free;

    HAK_HELD(&haki_records.lock);
    if (i != 0) {
        haki_records.free = haki_records.record[i].next;
        return i;
    }
    return haki_records.high + 1 < HAK_RECORDS_MOST ? ++haki_records.high : 0;
}

/* The calling thread's number, asked for once in each process. */
static int32_t records_thread_id(void)
{
    HAK_HELD(&haki_records.lock); /* `seen` is of this process */
    if (records_thread == 0 || records_thread_process != haki_lock_self.seen) {
        records_thread = haki_os_thread_id();
        records_thread_process = haki_lock_self.seen;
    }
    return records_thread;
}

/* What a sample stands for; of a block that is guarded and no sample: nothing. */
static void records_weigh(struct hak_record *record, bool sample)
{
    size_t rate = haki_max(atomic_load(&haki_profile.rate), 1);
    double stands_for = sample ? 1 / haki_draw_chance(rate, record->size) : 0;

    record->bytes = (uint64_t)((double)record->size * stands_for + 0.5);
    record->count = (uint64_t)(stands_for * HAK_COUNT_ONE + 0.5);
    haki_records.counts.samples += sample;
}

/* A live record is found by its block. */
static void records_enter(uint32_t i)
{
    uintptr_t p = haki_records.record[i].p;

    if (!haki_guarded_covers((void *)p)) { /* its slot knows it */
        haki_records.table[records_place(p)] = i;
    }
    records_count_live(&haki_records.record[i], true);
}

/* Makes the record live, of a block at p. */
static void records_fill(uint32_t i, void *p, size_t bytes, uint32_t stack,
                         const struct hak_sampler *who, bool sample)
{
    struct hak_record *record = &haki_records.record[i];
    struct hak_sums *sums = &haki_records.stacks->stack[stack].sums;

    record->size = bytes;
    records_weigh(record, sample);
    record->time = haki_os_clock();
    record->stack = stack;
    record->owner = who->owner;
    record->thread = records_thread_id();
    haki_lock_step();
    record->p = (uintptr_t)p;
    records_enter(i);
    sums->bytes[HAK_SUM_ALLOC] += record->bytes;
    sums->count[HAK_SUM_ALLOC] += record->count;
    if (haki_samples_covers(p)) {
        haki_records.counts.allocs[records_lane(record)]++;
    }
}

/* A new block, whose record is the i-th: a guarded one or in samples' slabs. */
static void *records_block(uint32_t i, size_t bytes, unsigned drawn,
                           const struct hak_sampler *who,
                           const struct hak_stack_words *words)
{
    bool at_end;
    void *p = NULL;

    if ((drawn & HAK_DRAWN_GUARD) != 0) {
        at_end = (haki_draw_next(who->random) >> 63) != 0;
        p = haki_guarded_take(bytes, i, at_end, who, words);
    }
    return p == NULL && (drawn & HAK_DRAWN_SAMPLE) != 0
               ? haki_samples_take(bytes)
               : p;
}

/* A record of p, or if that is NULL of a new block. */
static void *records_add(void *p, size_t bytes, unsigned drawn,
                         const struct hak_sampler *who,
                         const struct hak_stack_words *words)
{
    bool sample = (drawn & HAK_DRAWN_SAMPLE) != 0;
    uint32_t i, stack = 0;
    uint64_t stands_for = 0;

    haki_lock_take(&haki_records.lock);
    i = records_take();
    if (i != 0 && p == NULL) {
        p = records_block(i, bytes, drawn, who, words);
    }
    if (i == 0 || p == NULL) {
        haki_records.counts.dropped += sample;
        p = NULL;
    }
    if (p != NULL) {
        stack = sample ? haki_stacks_find(haki_records.stacks, words) : 0;
        records_fill(i, p, bytes, stack, who, sample);
        stands_for = haki_records.record[i].bytes;
    } else if (i != 0) {
        haki_records.record[i].next = haki_records.free;
        haki_records.free = i;
    }
    HAK_POINT("sample");
    haki_lock_drop(&haki_records.lock);
    if (p != NULL) {
        HAK_PROBE4(allocated, p, bytes, stands_for, stack);
    }
    return p;
}

static void records_miss_guard(void)
{
    atomic_fetch_add_explicit(&haki_guarded_count.missed, 1,
                              memory_order_relaxed);
}

/* What a block is that may be a sample; it stays where it is if p is not NULL. */
static unsigned records_drawn(const void *p, size_t bytes,
                              const struct hak_sampler *who)
{
    unsigned drawn = haki_profile_drawn(bytes, who->random);

    if (p != NULL || bytes > HAK_GUARDED_MOST) {
        return drawn & HAK_DRAWN_SAMPLE;
    }
    if ((drawn & HAK_DRAWN_GUARD) != 0 && !haki_guarded_has_room(bytes)) {
        records_miss_guard();
        return drawn & HAK_DRAWN_SAMPLE;
    }
    return drawn;
}

static HAK_NOINLINE void *records_sample(void *p, size_t bytes,
                                         const struct hak_sampler *who)
{
    struct hak_stack_words words;
    unsigned drawn;

    if (records_inside || !haki_profile_goes_on()) {
        return NULL;
    }
    drawn = records_drawn(p, bytes, who);
    if (drawn == 0) {
        return NULL;
    }
    records_inside = true;
    haki_profile_capture(&words, who,
                         (drawn & HAK_DRAWN_SAMPLE) != 0 ? HAK_STACK_PCS
                                                         : HAK_GUARDED_PCS);
    p = records_add(p, bytes, drawn, who, &words);
    if ((drawn & HAK_DRAWN_GUARD) != 0 && !haki_guarded_covers(p)) {
        records_miss_guard();
    }
    if (p != NULL && who->live != NULL) {
        atomic_fetch_add_explicit(who->live, 1, memory_order_relaxed);
    }
    records_inside = false;
    return p;
}

void *haki_sample_take(size_t bytes, const struct hak_sampler *who)
{
    return bytes <= HAK_SAMPLES_MOST ? records_sample(NULL, bytes, who) : NULL;
}

bool haki_sample_note(void *p, size_t bytes, const struct hak_sampler *who)
{
    return records_sample(p, bytes, who) != NULL;
}

/* The live record of p, or 0. */
static uint32_t records_find(const void *p)
{
    uint32_t guarded = 0;
    size_t size;

    HAK_HELD(&haki_records.lock);
    if (haki_guarded_covers(p)) {
        return haki_guarded_around(p, &guarded, &size) == p ? guarded : 0;
    }
    return haki_records.stacks != NULL && p != NULL
               ? haki_records.table[records_place((uintptr_t)p)]
               : 0;
}

/* The block of a record goes; `words`: as haki_guarded_give has them. */
static void records_end(uint32_t i, const struct hak_stack_words *words)
{
    struct hak_record *record = &haki_records.record[i];
    void *p = (void *)record->p;
    bool guarded = haki_guarded_covers(p);

    HAK_PROBE4(freed, p, record->size, record->bytes, record->stack);
    records_count_live(record, false);
    if (!guarded) {
        records_close_gap(records_place((uintptr_t)p));
    }
    record->p = 0;
    haki_lock_step(); /* a record's slab has places; an empty one has none */
    if (haki_samples_covers(p)) {
        haki_records.counts.frees[records_lane(record)]++;
    }
    if (guarded) {
        haki_guarded_give(p, words);
    } else if (haki_samples_covers(p)) {
        haki_samples_give(p);
    }
    record->next = haki_records.free;
    haki_records.free = i;
}

static void records_tell(uint32_t i, struct hak_sampled *sampled)
{
    const struct hak_record *record = &haki_records.record[i];
    uint32_t same;

    if (i != 0) {
        sampled->bytes = sampled->usable = record->size;
        sampled->owner = record->owner;
        if (haki_guarded_covers((void *)record->p)) {
            haki_guarded_around((void *)record->p, &same, &sampled->usable);
        }
    }
}

bool haki_sample_find(const void *p, struct hak_sampled *sampled)
{
    uint32_t i;

    haki_lock_take(&haki_records.lock);
    i = records_find(p);
    records_tell(i, sampled);
    haki_lock_drop(&haki_records.lock);
    return i != 0;
}

bool haki_sample_around(const void *p, struct hak_sampled *sampled)
{
    uint32_t i;

    haki_lock_take(&haki_records.lock);
    i = haki_guarded_covers(p) ? 0 : records_find(haki_samples_place(p));
    if (i != 0 && (uintptr_t)p - haki_records.record[i].p >=
                      haki_records.record[i].size) {
        i = 0;
    }
    records_tell(i, sampled);
    haki_lock_drop(&haki_records.lock);
    return i != 0;
}

bool haki_sample_free(void *p, struct hak_sampled *sampled)
{
    uint32_t i;

    haki_lock_take(&haki_records.lock);
    i = records_find(p);
    if (i != 0) {
        records_tell(i, sampled);
        records_end(i, NULL);
    }
    haki_lock_drop(&haki_records.lock);
    return i != 0;
}

bool haki_sample_lift(void *p, struct hak_record *kept)
{
    uint32_t i;

    haki_lock_take(&haki_records.lock);
    i = records_find(p);
    if (i != 0) {
        *kept = haki_records.record[i];
        kept->p = 0; /* until it is put back */
        records_end(i, NULL);
    }
    haki_lock_drop(&haki_records.lock);
    return i != 0;
}

bool haki_sample_put_back(void *p, const struct hak_record *kept)
{
    uint32_t i;

    haki_lock_take(&haki_records.lock);
    i = records_take();
    if (i != 0) {
        haki_records.record[i] = *kept;
        haki_lock_step();
        haki_records.record[i].p = (uintptr_t)p;
        records_enter(i);
        HAK_PROBE4(allocated, p, kept->size, kept->bytes, kept->stack);
    }
    haki_lock_drop(&haki_records.lock);
    return i != 0;
}

void haki_sample_free_owner(uint32_t owner)
{
    const struct hak_sampler who = {.owner = owner};
    struct hak_stack_words words = {.pcs = 0, .frames = 0};

    if (haki_guarded_held() != 0) {
        haki_profile_capture(&words, &who, HAK_GUARDED_PCS);
    }
    haki_lock_take(&haki_records.lock);
    for (uint32_t i = 1; i <= haki_records.high; i++) {
        if (haki_records.record[i].p != 0 &&
            haki_records.record[i].owner == owner) {
            records_end(i, &words);
        }
    }
    haki_lock_drop(&haki_records.lock);
}

/* ---- fork ------------------------------------------------------------------------ */

/* The sums of what is live, and all lists, as no record had begun. */
static void records_forget_all(void)
{
    memset(haki_records.table, 0, HAK_RECORD_PLACES * sizeof(uint32_t));
    haki_records.free = 0;
    haki_records.counts.live = 0;
    haki_records.counts.live_bytes[0] = haki_records.counts.live_bytes[1] = 0;
    for (uint32_t i = 0; i < haki_records.stacks->count; i++) {
        struct hak_sums *sums = &haki_records.stacks->stack[i].sums;

        sums->bytes[HAK_SUM_LIVE] = sums->count[HAK_SUM_LIVE] = 0;
    }
    haki_samples_mend_begin();
    haki_guarded_mend_begin();
}

void haki_records_mend(void)
{
    if (haki_records.stacks == NULL) {
        return;
    }
    records_forget_all();
    for (uint32_t i = 1; i <= haki_records.high; i++) {
        struct hak_record *record = &haki_records.record[i];

        if (record->p == 0) {
            record->next = haki_records.free;
            haki_records.free = i;
            continue;
        }
        records_enter(i);
        if (haki_guarded_covers((void *)record->p)) {
            haki_guarded_mend_take((void *)record->p, i);
        } else if (haki_samples_covers((void *)record->p)) {
            haki_samples_mend_take((void *)record->p);
        }
    }
    haki_samples_mend_end();
    haki_guarded_mend_end();
}
