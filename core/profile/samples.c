/*
 * samples.c - where sampled blocks lie: see samples.h.
 *
 * Tested by tests/unit/profile/profile.c.
 */
#include "profile/samples.h"

#include "base/assert.h"
#include "os/lock.h"
#include "os/os.h"

#define SAMPLE_SHIFT_LEAST 6u /* places of 64 B */
#define SAMPLE_SHIFTS (HAK_SLAB_SHIFT + 1)
#define SAMPLE_WORDS (HAK_SLAB_SIZE >> SAMPLE_SHIFT_LEAST >> 6)
#define SAMPLE_NO_SLAB UINT32_MAX
#define SAMPLE_PARTS 4 /* of which the last is for guarded blocks */

struct sample_slab {
    uint8_t shift; /* of its places; 0: it is empty, or was never used */
    bool listed;
    bool foreign; /* somebody else has mapped something there */
    uint16_t taken;
    uint32_t next, prev; /* in the list of its size, or of empty ones */
    uint64_t bits[SAMPLE_WORDS];
};

/* Under the profile's lock. */
static struct sample_slab *samples_slabs; /* NULL: it has not begun */
static uint32_t samples_count, samples_high, samples_in_use;
static uint32_t samples_empty; /* first of the list */
static uint32_t samples_open[SAMPLE_SHIFTS];

size_t haki_samples_bytes(void)
{
    size_t bytes;

    haki_range_samples(&bytes);
    return bytes / HAK_SLAB_SIZE * sizeof(struct sample_slab);
}

static void samples_no_lists(void)
{
    samples_empty = SAMPLE_NO_SLAB;
    for (unsigned i = 0; i < SAMPLE_SHIFTS; i++) {
        samples_open[i] = SAMPLE_NO_SLAB;
    }
}

void haki_samples_begin(void *memory)
{
    size_t bytes;

    haki_range_samples(&bytes);
    samples_count =
        (uint32_t)(bytes / HAK_SLAB_SIZE / SAMPLE_PARTS * (SAMPLE_PARTS - 1));
    samples_no_lists();
    samples_slabs = memory;
}

bool haki_samples_covers(const void *p)
{
    size_t bytes;
    uint32_t first = haki_range_samples(&bytes);

    return haki_range_offset(p) - ((size_t)first << HAK_SLAB_SHIFT) < bytes;
}

static char *samples_start(uint32_t i)
{
    size_t bytes;

    return haki_range_slab_start(haki_range_samples(&bytes) + i);
}

static uint32_t samples_places(uint32_t i)
{
    return (uint32_t)(HAK_SLAB_SIZE >> samples_slabs[i].shift);
}

/* ---- guarded blocks' part --------------------------------------------------- */

char *haki_samples_guarded(size_t *bytes)
{
    size_t all;
    uint32_t first = haki_range_samples(&all);

    *bytes = all - (size_t)samples_count * HAK_SLAB_SIZE;
    return haki_range_slab_start(first + samples_count);
}

bool haki_samples_claim_guarded(size_t bytes)
{
    size_t all;
    char *at = haki_samples_guarded(&all);

    HAK_ASSERT(samples_slabs != NULL && bytes <= all);
    if (haki_os_claim(at, bytes) != HAK_OS_CLAIMED) {
        return false;
    }
    haki_os_name(at, bytes, "hakmem guarded");
    if (!haki_os_protect(at, bytes, false)) {
        haki_os_unmap(at, bytes);
        return false;
    }
    for (uint32_t i = 0; i < bytes / HAK_SLAB_SIZE; i++) {
        haki_range_set_tag(haki_range_number(at) + i,
                           HAK_TAG_SHARED(HAK_TAG_SAMPLE));
    }
    return true;
}

/* ---- lists ---------------------------------------------------------------- */

static void samples_list_add(uint32_t *first, uint32_t i)
{
    struct sample_slab *slab = &samples_slabs[i];

    slab->listed = true;
    slab->prev = SAMPLE_NO_SLAB;
    slab->next = *first;
    if (*first != SAMPLE_NO_SLAB) {
        samples_slabs[*first].prev = i;
    }
    *first = i;
}

static void samples_list_drop(uint32_t *first, uint32_t i)
{
    struct sample_slab *slab = &samples_slabs[i];

    HAK_ASSERT(slab->listed);
    slab->listed = false;
    if (slab->next != SAMPLE_NO_SLAB) {
        samples_slabs[slab->next].prev = slab->prev;
    }
    if (slab->prev != SAMPLE_NO_SLAB) {
        samples_slabs[slab->prev].next = slab->next;
    } else {
        *first = slab->next;
    }
}

/* ---- taking and giving ----------------------------------------------------- */

/* A slab that was never used, or a ghost's (lock.h) that it did not count. */
static uint32_t samples_claim(void)
{
    enum hak_os_claim claim = HAK_OS_TAKEN;
    uint32_t i = samples_high;
    size_t bytes;

    for (; i < samples_count; i++) {
        claim = haki_os_claim(samples_start(i), HAK_SLAB_SIZE);
        if (claim != HAK_OS_TAKEN) {
            break;
        }
        samples_slabs[i].foreign = true;
    }
    samples_high = i;
    if (claim != HAK_OS_CLAIMED) {
        return SAMPLE_NO_SLAB;
    }
    haki_os_name(samples_start(i), HAK_SLAB_SIZE, "hakmem samples");
    haki_range_set_tag(haki_range_samples(&bytes) + i,
                       HAK_TAG_SHARED(HAK_TAG_SAMPLE));
    haki_lock_step(); /* what is below `high` has the tag */
    samples_high = i + 1;
    return i;
}

/* A slab for places of this size, in its list. */
static uint32_t samples_new_slab(unsigned shift)
{
    uint32_t i = samples_empty;

    if (i != SAMPLE_NO_SLAB) {
        samples_list_drop(&samples_empty, i);
    } else {
        i = samples_claim();
    }
    if (i != SAMPLE_NO_SLAB) {
        samples_slabs[i].shift = (uint8_t)shift;
        samples_slabs[i].taken = 0;
        samples_in_use++;
        samples_list_add(&samples_open[shift], i);
    }
    return i;
}

static unsigned samples_shift(size_t bytes)
{
    unsigned shift = SAMPLE_SHIFT_LEAST;

    while (((size_t)1 << shift) < bytes) {
        shift++;
    }
    return shift;
}

void *haki_samples_take(size_t bytes)
{
    unsigned shift = samples_shift(bytes);
    uint32_t i = samples_open[shift], place = 0;
    struct sample_slab *slab;

    HAK_ASSERT(bytes <= HAK_SAMPLES_MOST && samples_slabs != NULL);
    i = i != SAMPLE_NO_SLAB ? i : samples_new_slab(shift);
    if (i == SAMPLE_NO_SLAB) {
        return NULL;
    }
    slab = &samples_slabs[i];
    while (slab->bits[place] == UINT64_MAX) {
        place++;
    }
    place = place * 64 + (uint32_t)__builtin_ctzll(~slab->bits[place]);
    HAK_ASSERT(place < samples_places(i));
    slab->bits[place / 64] |= (uint64_t)1 << (place % 64);
    slab->taken++;
    if (slab->taken == samples_places(i)) {
        samples_list_drop(&samples_open[shift], i);
    }
    return samples_start(i) + ((size_t)place << shift);
}

/* The last of its blocks was freed. */
static void samples_empty_slab(uint32_t i)
{
    struct sample_slab *slab = &samples_slabs[i];

    samples_list_drop(&samples_open[slab->shift], i);
    haki_os_purge(samples_start(i), HAK_SLAB_SIZE);
    slab->shift = 0;
    samples_in_use--;
    samples_list_add(&samples_empty, i);
}

void haki_samples_give(const void *p)
{
    size_t offset = (size_t)((const char *)p - samples_start(0));
    uint32_t i = (uint32_t)(offset / HAK_SLAB_SIZE), place;
    struct sample_slab *slab = &samples_slabs[i];

    place = (uint32_t)((offset % HAK_SLAB_SIZE) >> slab->shift);
    HAK_ASSERT(slab->shift != 0 && slab->taken > 0);
    HAK_ASSERT((slab->bits[place / 64] >> (place % 64) & 1) != 0);
    slab->bits[place / 64] &= ~((uint64_t)1 << (place % 64));
    slab->taken--;
    if (!slab->listed) {
        samples_list_add(&samples_open[slab->shift], i);
    }
    if (slab->taken == 0 &&
        (slab->next != SAMPLE_NO_SLAB || slab->prev != SAMPLE_NO_SLAB)) {
        samples_empty_slab(i); /* another has room for the next */
    }
}

const void *haki_samples_place(const void *p)
{
    size_t offset = (size_t)((const char *)p - samples_start(0));
    uint32_t i = (uint32_t)(offset / HAK_SLAB_SIZE);

    if (i >= samples_high || samples_slabs[i].shift == 0) {
        return NULL;
    }
    return (const char *)p -
           (offset & (((size_t)1 << samples_slabs[i].shift) - 1));
}

size_t haki_samples_held(void)
{
    return samples_in_use * HAK_SLAB_SIZE;
}

/* ---- fork -------------------------------------------------------------------- */

void haki_samples_mend_begin(void)
{
    samples_no_lists();
    samples_in_use = 0;
    for (uint32_t i = 0; i < samples_high; i++) {
        samples_slabs[i].taken = 0;
        samples_slabs[i].listed = false;
        for (unsigned w = 0; w < SAMPLE_WORDS; w++) {
            samples_slabs[i].bits[w] = 0;
        }
    }
}

void haki_samples_mend_take(const void *p)
{
    size_t offset = (size_t)((const char *)p - samples_start(0));
    struct sample_slab *slab = &samples_slabs[offset / HAK_SLAB_SIZE];
    uint32_t place;

    HAK_ASSERT(slab->shift != 0);
    place = (uint32_t)((offset % HAK_SLAB_SIZE) >> slab->shift);
    slab->bits[place / 64] |= (uint64_t)1 << (place % 64);
    slab->taken++;
}

void haki_samples_mend_end(void)
{
    for (uint32_t i = 0; i < samples_high; i++) {
        struct sample_slab *slab = &samples_slabs[i];

        if (slab->taken == 0) {
            slab->shift = 0;
            if (!slab->foreign) {
                samples_list_add(&samples_empty, i);
            }
            continue;
        }
        samples_in_use++;
        if (slab->taken < samples_places(i)) {
            samples_list_add(&samples_open[slab->shift], i);
        }
    }
}
