/*
 * tiny_draw.c - the bins' count-downs to samples: see profile.h.
 *
 * Called by the heap's one user.
 *
 * Tested by tests/unit/profile/profile.c.
 */
#include "tiny/tiny.h"

#include "tiny/tiny_class.h"
#include "tiny/tiny_slab.h"

_Static_assert(HAK_TINY_CLASSES <= HAK_SAMPLING_POOL,
               "Pool's bins come behind");
_Static_assert(HAK_SAMPLING_AT + HAK_PAGE + HAK_PAGE <= HAK_HEAP_SLOT &&
                   sizeof(struct hak_sampling) <= HAK_PAGE,
               "the slot's last page is the seal's");

/*
 * The bin's next sample. A class none of whose blocks is out of slabs is not drawn for:
 * haki_tiny_take does so when the first one is. Most heaps use few of the classes.
 */
static void tiny_draw(struct hak_tiny *tiny, unsigned class)
{
    struct hak_sampling *sampling = haki_tiny_sampling(tiny);
    int64_t pops = (int64_t)haki_bin_pops(tiny, class);
    int64_t until = haki_profile_draw(haki_tiny_size[class], &sampling->random);

    sampling->at[class] = pops + until;
    tiny->bins[class].until = until;
}

void haki_tiny_draw_first(struct hak_tiny *tiny, unsigned class)
{
    if (haki_tiny_sampling(tiny)->at[class] == HAK_NEVER) {
        tiny_draw(tiny, class);
    }
}

/* The class is not drawn for any more. */
static void tiny_undraw(struct hak_tiny *tiny, unsigned class)
{
    struct hak_sampling *sampling = haki_tiny_sampling(tiny);

    if (sampling->at[class] != HAK_NEVER) {
        int64_t pops = (int64_t)haki_bin_pops(tiny, class);

        sampling->at[class] = HAK_NEVER;
        tiny->bins[class].until = HAK_NEVER - pops;
    }
}

void haki_tiny_draw_never(struct hak_tiny *tiny)
{
    if (tiny->sampled) {
        for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
            tiny->bins[c].until = HAK_NEVER - (int64_t)haki_bin_pops(tiny, c);
        }
        tiny->sampled = false;
    }
    tiny->round =
        0; /* none: if there are rounds, it draws at its next occasion */
}

/* From here on the heap takes part in a profile. */
static void tiny_draw_begin(struct hak_tiny *tiny, size_t rate)
{
    struct hak_sampling *sampling = haki_tiny_sampling(tiny);

    if (!tiny->sampled) {
        for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
            sampling->at[c] = HAK_NEVER;
        }
        tiny->sampled = tiny->was_sampled = true;
    }
    sampling->random = haki_sample_seed();
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        if (tiny->taken[c] != 0) {
            tiny_draw(tiny, c);
        } else {
            tiny_undraw(tiny, c);
        }
    }
    haki_tiny_sampling(tiny)->until_larger =
        haki_draw_bytes(rate, &sampling->random);
}

void haki_tiny_draw_round(struct hak_tiny *tiny)
{
    uint32_t round =
        atomic_load_explicit(&haki_profile.round, memory_order_acquire);
    size_t rate =
        atomic_load_explicit(&haki_profile.draw, memory_order_relaxed);

    HAK_ASSERT(atomic_load(&tiny->busy));
    if (rate != 0) {
        tiny_draw_begin(tiny, rate);
    } else {
        haki_tiny_draw_never(tiny);
    }
    tiny->round = round;
}

/* A sample of the class was due, or there is another round: the next one. */
static void tiny_draw_next(struct hak_tiny *tiny, unsigned class)
{
    size_t rate =
        atomic_load_explicit(&haki_profile.draw, memory_order_relaxed);

    haki_tiny_busy(tiny, true);
    if (haki_tiny_must_draw(tiny, 0) || rate == 0 || !tiny->sampled) {
        haki_tiny_draw_round(tiny);
    } else {
        tiny_draw(tiny, class);
    }
    haki_tiny_busy(tiny, false);
}

struct hak_sampler haki_tiny_sampler(struct hak_tiny *tiny)
{
    return (struct hak_sampler){
        .heap = (struct hak_heap *)(void *)tiny, /* it is its first member */
        .random = &haki_tiny_sampling(tiny)->random,
        .frames = tiny->frames,
        .live = tiny->accounted ? &haki_tiny_sampling(tiny)->samples : NULL,
        .owner = tiny->accounted ? tiny->id : HAK_ID_SHARED,
    };
}

/* There was no room for a sample: a block of the bin, or NULL, without a count. */
static void *tiny_pop_uncounted(struct hak_tiny *tiny, unsigned class)
{
    struct hak_bin *bin = &tiny->bins[class];
    void *p;

    haki_tiny_busy(tiny, true);
    if (tiny->sampled && bin->head != NULL) {
        bin->until += 1;
        haki_tiny_sampling(tiny)->at[class] += 1;
    }
    p = haki_bin_pop(bin);
    haki_tiny_busy(tiny, false);
    return p;
}

void *haki_tiny_pop_drawn(struct hak_tiny *tiny, unsigned class)
{
    bool due = tiny->bins[class].until < 0;
    struct hak_sampler who = haki_tiny_sampler(tiny);
    void *p = NULL;

    tiny_draw_next(tiny, class);
    if (!due) {
        p = haki_bin_pop(&tiny->bins[class]);
        due = tiny->bins[class].until < 0;
        if (due) {
            tiny_draw_next(tiny, class);
        }
    }
    if (due) {
        p = haki_sample_take(haki_tiny_size[class], &who);
        p = p != NULL ? p : tiny_pop_uncounted(tiny, class);
    }
    return p;
}

bool haki_tiny_is_due_slow(struct hak_tiny *tiny, size_t bytes)
{
    size_t rate;

    if (haki_tiny_must_draw(tiny, 0)) {
        tiny_draw_next(tiny, 0);
    }
    if (!tiny->sampled) {
        return false;
    }
    haki_tiny_sampling(tiny)->until_larger -= (int64_t)bytes;
    if (haki_tiny_sampling(tiny)->until_larger >= 0) {
        return false;
    }
    rate = atomic_load_explicit(&haki_profile.draw, memory_order_relaxed);
    haki_tiny_sampling(tiny)->until_larger =
        haki_draw_bytes(haki_max(rate, 1), &haki_tiny_sampling(tiny)->random);
    return true;
}
