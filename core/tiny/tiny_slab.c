/*
 * tiny_slab.c - the Tiny lane's slabs, and queries about an address in one.
 */
#include "tiny/tiny_slab.h"

#include <string.h>

#include "base/msg.h"
#include "range/slabs.h"
#include "range/slots.h"
#include "settings/options.h"
#include "tiny/tiny_seal.h"

static void tiny_trace_slab(unsigned class)
{
    if (HAK_UNLIKELY(haki_option(HAK_OPT_trace) != 0)) {
        haki_msg_raw("[SP_INTERNAL_ALLOC] class_idx=%u block=%u",
                     haki_tiny_band(class), (unsigned)haki_tiny_size[class]);
    }
}

/*
 * Whether a new slab of the class will probably be filled: the heap has filled
 * one of the class, or most of its slabs. A thread's first slabs often hold
 * only a few blocks; thousands of threads would make every superslab a huge
 * page for those.
 */
static bool tiny_will_fill(const struct hak_tiny *tiny, unsigned class,
                           unsigned kind)
{
    return kind != HAK_TAG_PACKED &&
           (tiny->shelves[class].filled > 0 ||
            (tiny->nslabs > 1 &&
             haki_in_use(&tiny->allow) >= tiny->allow.slabs / 2));
}

uint32_t haki_tiny_slab_take(struct hak_tiny *tiny, unsigned class,
                             unsigned kind)
{
    struct hak_slab *slab;
    uint32_t number;

    haki_tiny_seal_collect(tiny); /* which may free one */
    number = haki_range_slabs_take(1, HAK_LANE_TINY, (uint8_t)kind,
                                   tiny_will_fill(tiny, class, kind)
                                       ? HAK_SLABS_ALL
                                       : HAK_SLABS_SOME);
    if (number == HAK_NO_SLAB) {
        return HAK_NO_SLAB;
    }
    slab = haki_range_slab(number);
    HAK_ASSERT(haki_range_tag((size_t)number << HAK_SLAB_SHIFT) == 0);
    HAK_ASSERT(slab->gone == 0 && (kind == class || kind == HAK_TAG_PACKED));
    atomic_store_explicit(&slab->remote, 0, memory_order_relaxed);
    slab->free = NULL;
    slab->nfree = 0;
    slab->ngone = slab->swept = 0;
    slab->carved = 0;
    slab->capacity = (uint32_t)(HAK_SLAB_SIZE / haki_tiny_size[class]);
    slab->block = haki_tiny_size[class];
    slab->class = (uint8_t)kind;
    slab->slabs = 1;
    haki_slab_join(&tiny->all, number);
    tiny->nslabs++;
    tiny->most_slabs = (uint32_t)haki_max(tiny->most_slabs, tiny->nslabs);
    tiny->allow.slabs += kind != HAK_TAG_PACKED ? (int64_t)HAK_SLAB_SIZE : 0;
    haki_range_set_tag(number,
                       tiny->tag | (kind != HAK_TAG_PACKED ? kind * HAK_TAG_TINY
                                                           : HAK_TAG_PACKED));
    tiny_trace_slab(class);
    HAK_WALK(haki_tiny_walk_due());
    return number;
}

void haki_tiny_slab_give(struct hak_tiny *tiny, uint32_t number)
{
    struct hak_slab *slab = haki_range_slab(number);
    struct hak_shelf *shelf = &tiny->shelves[slab->class];

    HAK_CHECK(slab->nfree + slab->ngone == slab->carved);
    HAK_ASSERT(haki_range_tag((size_t)number << HAK_SLAB_SHIFT) ==
               (tiny->tag | slab->class * HAK_TAG_TINY));
    HAK_ASSERT(tiny->nslabs > 0 && tiny->allow.slabs > 0);
    if (slab->nfree + slab->ngone > 0) {
        haki_slab_close(&shelf->open, number);
    }
    if (shelf->fresh == number) {
        shelf->fresh = HAK_NO_SLAB;
    }
    haki_slab_leave(&tiny->all, number);
    tiny->nslabs--;
    tiny->allow.slabs -= (int64_t)HAK_SLAB_SIZE;
    haki_range_slabs_give(number, 1, HAK_LANE_TINY);
    HAK_WALK(haki_tiny_walk_due());
}

void haki_tiny_slab_trim(struct hak_tiny *tiny, unsigned class)
{
    uint32_t number = tiny->shelves[class].open;

    while (tiny->nempty > 0 && number != HAK_NO_SLAB) {
        struct hak_slab *slab = haki_range_slab(number);
        uint32_t next = slab->open_next;

        HAK_ASSERT(slab->nfree + slab->ngone >
                   0); /* otherwise it is not open */
        if (slab->nfree + slab->ngone == slab->carved) {
            HAK_ASSERT(tiny->nempty > 0);
            tiny->nempty--;
            haki_tiny_slab_give(tiny, number);
        }
        number = next;
    }
    number = tiny->shelves[class].fresh;
    if (number != HAK_NO_SLAB && haki_range_slab(number)->carved == 0) {
        haki_tiny_slab_give(tiny, number);
    }
}

static struct hak_block *tiny_new_block(char *start, size_t size, uint32_t i)
{
    return (struct hak_block *)(void *)(start + i * size);
}

/* Links `count` new blocks from `start` on, in random order. */
HAK_INLINE struct hak_block *tiny_link_shuffled(char *start, size_t size,
                                                uint32_t count)
{
    uint16_t order[HAK_TINY_CARVE_MOST / (2 * HAK_TINY_STEP)];
    struct hak_block *list = NULL;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = haki_hard_below(i + 1);

        order[i] = order[other];
        order[other] = (uint16_t)i;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct hak_block *block = tiny_new_block(start, size, order[i]);

        haki_link_set(block, list);
        list = block;
    }
    return list;
}

/*
 * Links each of `count` blocks from `start` on to the next; returns the last.
 */
HAK_INLINE struct hak_block *tiny_link_row(char *start, size_t size,
                                           uint32_t count)
{
    char *last = start + (count - 1) * size;

    for (char *at = start; at != last; at += size) {
        haki_link_set((struct hak_block *)(void *)at,
                      (struct hak_block *)(void *)(at + size));
    }
    return (struct hak_block *)(void *)last;
}

struct hak_block *haki_tiny_link_new(char *start, size_t size, uint32_t count)
{
    if (HAK_HARD) {
        return tiny_link_shuffled(start, size, count);
    }
    haki_link_set(tiny_link_row(start, size, count), NULL);
    return (struct hak_block *)(void *)start;
}

/* A shorter list is not worth a map. */
#define IN_ORDER_LEAST 16

void haki_tiny_slab_map(uint64_t *map, const struct hak_block *list,
                        uint32_t magic)
{
    for (; list != NULL; list = haki_link_get(list)) {
        uint64_t at = (uintptr_t)list & (HAK_SLAB_SIZE - 1);
        uint64_t i = at * magic >> 32;

        map[i / 64] |= (uint64_t)1 << (i % 64);
    }
}

/*
 * Links the blocks whose bits are set, ending in NULL; returns the first. Most
 * maps are nearly full: full words are linked without looking at their bits.
 */
static struct hak_block *tiny_link_map(const uint64_t *map, size_t words,
                                       char *start, size_t size)
{
    struct hak_block head = {0};
    struct hak_block *last = &head;

    for (size_t w = 0; w < words; w++, start += 64 * size) {
        if (map[w] == UINT64_MAX) {
            haki_link_set(last, (struct hak_block *)(void *)start);
            last = tiny_link_row(start, size, 64);
            continue;
        }
        for (uint64_t bits = map[w]; bits != 0; bits &= bits - 1) {
            struct hak_block *block =
                tiny_new_block(start, size, (uint32_t)__builtin_ctzll(bits));

            haki_link_set(last, block);
            last = block;
        }
    }
    haki_link_set(last, NULL);
    return haki_link_get(&head);
}

/* How many bits are set. */
static uint32_t tiny_map_count(const uint64_t *map, size_t words)
{
    uint32_t count = 0;

    for (size_t w = 0; w < words; w++) {
        count += (uint32_t)__builtin_popcountll(map[w]);
    }
    return count;
}

/* The number of blocks in a list, counted up to `most`. */
static uint32_t tiny_list_count(const struct hak_block *list, uint32_t most)
{
    uint32_t count = 0;

    for (; list != NULL && count <= most; list = haki_link_get(list)) {
        count++;
    }
    return count;
}

struct hak_block *haki_tiny_slab_take_free(uint32_t number)
{
    struct hak_slab *slab = haki_range_slab(number);
    struct hak_block *list = slab->free;
    size_t words = (slab->carved + 63) / 64;
    uint64_t map[HAK_TINY_MAP_WORDS];

    HAK_ASSERT(tiny_list_count(list, slab->nfree) == slab->nfree);
    if (!HAK_HARD && slab->nfree >= IN_ORDER_LEAST) {
        memset(map, 0, words * sizeof(map[0]));
        haki_tiny_slab_map(map, list, haki_tiny_magic[slab->class]);
        HAK_ASSERT(tiny_map_count(map, words) ==
                   slab->nfree); /* none occurs twice */
        list = tiny_link_map(map, words, haki_range_slab_start(number),
                             slab->block);
    }
    slab->free = NULL;
    slab->nfree = slab->swept = 0;
    return list;
}

unsigned haki_tiny_class_at_tag(const void *p, uint32_t tag)
{
    return HAK_TAG_CLASS(tag) != HAK_TAG_PACKED
               ? HAK_TAG_CLASS(tag) / HAK_TAG_TINY
               : haki_tiny_grain_class(p, tag);
}

size_t haki_tiny_bytes_of(const void *p, uint32_t tag)
{
    return HAK_TAG_CLASS(tag) != HAK_TAG_PACKED
               ? haki_tiny_size[HAK_TAG_CLASS(tag) / HAK_TAG_TINY]
               : haki_tiny_grain_bytes(p, tag);
}

/*
 * The owner may be carving: only an address never given out can be misjudged.
 */
static HAK_RACY_READER bool tiny_was_carved(size_t offset, unsigned class)
{
    const struct hak_slab *slab =
        haki_range_slab((uint32_t)(offset >> HAK_SLAB_SHIFT));
    const volatile uint32_t *carved = &slab->carved;

    return (offset & (HAK_SLAB_SIZE - 1)) / haki_tiny_size[class] < *carved;
}

bool haki_tiny_is_carved(const void *p, uint32_t tag, unsigned class)
{
    return HAK_TAG_CLASS(tag) == HAK_TAG_PACKED
               ? class != HAK_TINY_NONE
               : class < HAK_TINY_CLASSES &&
                     tiny_was_carved(haki_range_offset(p), class);
}

bool haki_tiny_is_block(const void *p, uint32_t tag, unsigned class)
{
    if (HAK_TAG_CLASS(tag) == HAK_TAG_PACKED) {
        return haki_tiny_grain_is_block(p, tag);
    }
    return haki_tiny_is_start((uintptr_t)p & (HAK_SLAB_SIZE - 1),
                              haki_tiny_magic[class]);
}

/* A linked list of blocks of one slab and one class. */
struct hak_run {
    struct hak_block *first;
    struct hak_block *last;
    uint32_t count;
};

/*
 * Keeps or gives back a slab that has no block in use any more. The only open
 * slab of its class is usually needed again soon; but a slab for each class
 * would be too much for a small heap.
 */
static void tiny_keep_or_give(struct hak_tiny *tiny, uint32_t number)
{
    const struct hak_slab *slab = haki_range_slab(number);
    bool only = haki_slab_is_alone(number);

    if ((only || tiny->shelves[slab->class].fresh == number) &&
        tiny->nempty < haki_may_keep_empty(&tiny->allow, tiny->nslabs)) {
        tiny->nempty++;
    } else {
        haki_tiny_slab_give(tiny, number);
    }
}

/* Takes back a run of blocks of slab `number`. */
static void tiny_put_run(struct hak_tiny *tiny, uint32_t number,
                         const struct hak_run *run)
{
    struct hak_slab *slab = haki_range_slab(number);
    struct hak_shelf *shelf;

    if (HAK_UNLIKELY(slab->class == HAK_TAG_PACKED)) {
        haki_tiny_grain_put(tiny, run->first, run->count);
        return;
    }
    HAK_ASSERT(haki_range_tag((size_t)number << HAK_SLAB_SHIFT) ==
               (tiny->tag | slab->class * HAK_TAG_TINY));
    shelf = &tiny->shelves[slab->class];
    HAK_ASSERT(tiny->taken[slab->class] >= run->count);
    haki_link_set(run->last, slab->free);
    slab->free = run->first;
    tiny->taken[slab->class] -= run->count;
    haki_keep_taken(&tiny->allow, -(int64_t)run->count * slab->block);
    if (slab->nfree == 0) {
        if (slab->ngone > 0) { /* it was the last slab, and becomes the first */
            haki_slab_close(&shelf->open, number);
        }
        haki_slab_open(&shelf->open, number);
        HAK_WALK(haki_tiny_walk_due());
    }
    slab->nfree += run->count;
    HAK_CHECK(slab->nfree + slab->ngone <= slab->carved);
    if (slab->nfree + slab->ngone == slab->carved) {
        tiny_keep_or_give(tiny, number);
    }
}

static uint32_t tiny_slab_of(const struct hak_block *block)
{
    return (uint32_t)(haki_range_offset(block) >> HAK_SLAB_SHIFT);
}

void haki_tiny_slab_put(struct hak_tiny *tiny, struct hak_block *block)
{
    tiny_put_run(tiny, tiny_slab_of(block), &(struct hak_run){block, block, 1});
}

void haki_tiny_slab_put_list(struct hak_tiny *tiny, struct hak_block *list)
{
    while (list != NULL) {
        uint32_t number = tiny_slab_of(list);
        struct hak_run run = {list, list, 1};

        list = haki_link_get(list);
        while (list != NULL && tiny_slab_of(list) == number) {
            run.last = list;
            run.count++;
            list = haki_link_get(list);
        }
        tiny_put_run(tiny, number, &run);
    }
}

void haki_tiny_release(struct hak_tiny *tiny)
{
    uint32_t all = tiny->all;

    HAK_ASSERT((all == HAK_NO_SLAB) == (tiny->nslabs + tiny->nsealed == 0));
    tiny->all = HAK_NO_SLAB;
    tiny->nslabs = tiny->nsealed = tiny->nstale = tiny->nempty = 0;
    if (all != HAK_NO_SLAB) {
        haki_range_list_give(all, HAK_LANE_TINY);
    }
}
