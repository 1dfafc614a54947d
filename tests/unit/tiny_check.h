/*
 * tiny_check.h - walks a Tiny state and verifies what core/tiny/tiny.h promises.
 *
 * Used by the tests that work on a heap's lists. Call it from the thread that
 * uses the heap while nobody sends it blocks. The first broken promise ends
 * the process with a line naming it.
 */
#ifndef TINY_CHECK_H
#define TINY_CHECK_H

#include "unit.h"
#include "range/pages.h"
#include "pool/pool_class.h"
#include "range/slots.h"
#include "range/supers.h"
#include "tiny/tiny.h"
#include "tiny/tiny_seal.h"

/* A bit for every 8 bytes of every slab: block seen in some list. */
struct tiny_marks {
    uint8_t *bits;
    size_t slabs;
};

UNIT uint32_t tiny_number(const void *p)
{
    return (uint32_t)(hak_range_offset(p) >> HAK_SLAB_SHIFT);
}

/* p must be a carved block of the class, seen for the first time. */
UNIT void tiny_mark(struct tiny_marks *marks, const struct hak_tiny *tiny,
                    unsigned class, const void *p)
{
    size_t offset = hak_range_offset(p);
    size_t bit = offset / 8;
    const struct hak_slab *slab;

    NEED(hak_range_owns(p));
    NEED(tiny_number(p) < marks->slabs);
    NEED(hak_range_tag(offset) == (tiny->tag | class * HAK_TAG_TINY));
    NEED((offset & 0xffff) % hak_tiny_size[class] == 0);
    slab = hak_range_slab(tiny_number(p));
    NEED((offset & 0xffff) / hak_tiny_size[class] < slab->carved);
    NEED((hak_slab_pages_of(offset & 0xffff, slab->block) & slab->gone) == 0);
    NEED((marks->bits[bit / 8] >> (bit % 8) & 1) == 0);
    marks->bits[bit / 8] |= (uint8_t)(1 << bit % 8);
}

UNIT size_t tiny_mark_list(struct tiny_marks *marks,
                           const struct hak_tiny *tiny, unsigned class,
                           const struct hak_block *list)
{
    size_t count = 0;

    for (; list != NULL; list = hak_link_get(list)) {
        tiny_mark(marks, tiny, class, list);
        count++;
    }
    return count;
}

/* What the slabs of one class come to; the sealed ones are also in `remote`,
 * blocks of theirs that others freed, and in no other figure but the last. */
struct tiny_sums {
    size_t slabs, open, carved, nfree, idle, remote;
    size_t sealed_used; /* blocks of sealed slabs not counted as free */
    size_t stale;       /* those of them that are free all the same */
};

/* A sealed slab: only its counts mean something. */
UNIT void tiny_check_sealed(const struct hak_tiny *tiny, uint32_t number,
                            struct tiny_sums *sums)
{
    struct hak_slab *slab = hak_range_slab(number);
    unsigned class = slab->class;

    NEED(hak_range_tag((size_t)number << HAK_SLAB_SHIFT) ==
         (tiny->tag | class * HAK_TAG_TINY | HAK_TAG_SEALED));
    NEED(class < HAK_TINY_CLASSES);
    NEED(slab->block == hak_tiny_size[class]);
    NEED(slab->nfree < slab->carved && slab->carved <= slab->capacity);
    NEED(slab->ngone == 0);
    NEED(atomic_load(&slab->remote) <= slab->carved - slab->nfree);
    sums[class].sealed_used += slab->carved - slab->nfree;
    sums[class].remote += atomic_load(&slab->remote) != 0;
}

/* The pages of its slab that a block touches. */
UNIT uint32_t tiny_pages_at(const struct hak_slab *slab, const void *p)
{
    return hak_slab_pages_of(hak_range_offset(p) & 0xffff, slab->block);
}

/* As many blocks are gone as touch pages that are, all of them carved. */
UNIT void tiny_check_gone(const struct hak_slab *slab)
{
    size_t count = 0;

    for (uint32_t i = 0; slab->gone != 0 && i < slab->capacity; i++) {
        bool gone = (hak_slab_pages_of((size_t)i * slab->block, slab->block) &
                     slab->gone) != 0;

        NEED(!gone || i < slab->carved);
        count += gone;
    }
    NEED(count == slab->ngone);
}

/* One slab: its own fields and its free list. */
UNIT void tiny_check_slab(struct tiny_marks *marks, const struct hak_tiny *tiny,
                          uint32_t number, struct tiny_sums *sums)
{
    const struct hak_slab *slab = hak_range_slab(number);
    unsigned class = slab->class;
    bool fresh = tiny->shelves[class].fresh == number;

    NEED(class < HAK_TINY_CLASSES);
    NEED(slab->block == hak_tiny_size[class]);
    NEED(slab->slabs == 1);
    NEED(slab->capacity == HAK_SLAB_SIZE / slab->block);
    NEED(slab->nfree + slab->ngone <= slab->carved &&
         slab->carved <= slab->capacity);
    tiny_check_gone(slab);
    NEED(slab->carved == slab->capacity || fresh);
    NEED((size_t)slab->carved * slab->block <= slab->populated);
    NEED(hak_range_tag((size_t)number << HAK_SLAB_SHIFT) ==
         (tiny->tag | class * HAK_TAG_TINY));
    for (const struct hak_block *p = slab->free; p != NULL;
         p = hak_link_get(p)) {
        NEED(tiny_number(p) == number);
        NEED((tiny_pages_at(slab, p) & slab->gone) == 0);
    }
    NEED(tiny_mark_list(marks, tiny, class, slab->free) == slab->nfree);
    sums[class].slabs++;
    sums[class].open += slab->nfree + slab->ngone > 0;
    sums[class].carved += slab->carved;
    sums[class].nfree += slab->nfree + slab->ngone;
    sums[class].idle += slab->nfree + slab->ngone == slab->carved && !fresh;
}

/* The list of all slabs, links in both directions. */
UNIT void tiny_check_all(struct tiny_marks *marks, const struct hak_tiny *tiny,
                         struct tiny_sums *sums)
{
    uint32_t before = HAK_NO_SLAB;
    size_t count = 0, sealed = 0;

    for (uint32_t n = tiny->all; n != HAK_NO_SLAB;) {
        NEED(n < marks->slabs);
        NEED(hak_range_slab(n)->all_prev == before);
        if (hak_range_sealed((size_t)n << HAK_SLAB_SHIFT)) {
            tiny_check_sealed(tiny, n, sums);
            sealed++;
        } else {
            tiny_check_slab(marks, tiny, n, sums);
            count++;
        }
        NEED(count <= tiny->nslabs && sealed <= tiny->nsealed);
        before = n;
        n = hak_range_slab(n)->all_next;
    }
    NEED(count == tiny->nslabs && sealed == tiny->nsealed);
}

/* The stale lists: free blocks of sealed slabs. */
UNIT void tiny_check_stale(const struct hak_tiny *tiny, struct tiny_sums *sums)
{
    struct hak_block **lists = hak_tiny_stale((void *)(uintptr_t)tiny);

    NEED(tiny->nstale <= HAK_TINY_STALE);
    for (uint32_t i = 0; i < tiny->nstale; i++) {
        NEED(lists[i] != NULL);
        for (struct hak_block *p = lists[i]; p != NULL; p = hak_link_get(p)) {
            NEED(hak_range_sealed(hak_range_offset(p)));
            sums[hak_tiny_class_at(p)].stale++;
        }
    }
}

/* The inbox of sealed slabs: each that others freed blocks of. */
UNIT void tiny_check_inbox(const struct hak_tiny *tiny,
                           const struct tiny_sums *sums)
{
    struct hak_tiny *mine = (struct hak_tiny *)(uintptr_t)tiny;
    size_t count = 0, most = 0;

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        most += sums[c].remote;
    }
    for (uint32_t n = atomic_load(&mine->sealed_inbox); n != HAK_NO_SLAB;
         n = hak_range_slab(n)->inbox_next) {
        NEED(hak_range_sealed((size_t)n << HAK_SLAB_SHIFT));
        NEED(atomic_load(&hak_range_slab(n)->remote) != 0);
        NEED(++count <= most);
    }
    NEED(count == most);
}

/* The open list of a class: exactly the slabs with free blocks. */
UNIT void tiny_check_open(const struct hak_tiny *tiny, unsigned class,
                          size_t open)
{
    uint32_t before = HAK_NO_SLAB;
    size_t count = 0;

    for (uint32_t n = tiny->shelves[class].open; n != HAK_NO_SLAB;) {
        const struct hak_slab *slab = hak_range_slab(n);

        NEED(slab->class == class && slab->nfree + slab->ngone > 0);
        NEED(slab->nfree == 0 || before == HAK_NO_SLAB ||
             hak_range_slab(before)->nfree > 0);
        NEED(before == HAK_NO_SLAB || slab->open_before == before);
        NEED(++count <= open);
        before = n;
        n = slab->open_next;
    }
    NEED(count == open);
    NEED(count == 0 ||
         hak_range_slab(tiny->shelves[class].open)->open_before == before);
}

UNIT void tiny_check_class(struct tiny_marks *marks,
                           const struct hak_tiny *tiny, unsigned class,
                           const struct tiny_sums *sums)
{
    const struct hak_bin *bin = &tiny->bins[class];
    const struct hak_shelf *shelf = &tiny->shelves[class];
    size_t head = tiny_mark_list(marks, tiny, class, bin->head);
    size_t spare = tiny_mark_list(marks, tiny, class, bin->spare);

    NEED(bin->magic == hak_tiny_magic[class]);
    NEED(bin->left >= 0 && bin->left <= shelf->grant);
    NEED((int64_t)head ==
         shelf->base + (shelf->grant - bin->left) - (int64_t)bin->pops);
    NEED(spare == shelf->spare_count);
    NEED(tiny->taken[class] >= 0);
    NEED((size_t)tiny->taken[class] ==
         sums->carved - sums->nfree + sums->sealed_used - sums->stale);
    NEED((size_t)tiny->taken[class] >= head + spare);
    NEED(hak_tiny_live(tiny, class) ==
         (size_t)tiny->taken[class] - head - spare);
    NEED(shelf->filled >= sums->slabs - (shelf->fresh != HAK_NO_SLAB));
    NEED(shelf->step >= 512 && shelf->step <= 8192 && hak_is_pow2(shelf->step));
    NEED(sums->idle <= 1);
    if (shelf->fresh != HAK_NO_SLAB) {
        const struct hak_slab *slab = hak_range_slab(shelf->fresh);

        NEED(slab->class == class && slab->carved < slab->capacity);
        NEED(hak_range_tag((size_t)shelf->fresh << HAK_SLAB_SHIFT) ==
             (tiny->tag | class * HAK_TAG_TINY));
    }
    tiny_check_open(tiny, class, sums->open);
}

/*
 * No slab outside the heap's list may carry its tag; what else is the heap's
 * must be a slab of Pool's.
 */
UNIT void tiny_check_tags(const struct hak_tiny *tiny)
{
    size_t count = 0;

    for (size_t n = 0; n < hak_range.size / HAK_SLAB_SIZE; n++) {
        uint32_t tag;

        if (hak_supers.at[n / HAK_SUPER_SLABS].state == HAK_SUPER_FRESH) {
            n += HAK_SUPER_SLABS - 1;
            continue;
        }
        tag = hak_range_tag(n << HAK_SLAB_SHIFT);
        if (HAK_TAG_HEAP(tag) == tiny->id) {
            count += HAK_TAG_CLASS(tag) < HAK_TAG_TINY_END;
            NEED(HAK_TAG_CLASS(tag) < HAK_TAG_TINY_END ||
                 HAK_TAG_CLASS(tag) - HAK_TAG_POOL < HAK_POOL_CLASSES);
        }
    }
    NEED(count == tiny->nslabs + tiny->nsealed);
}

UNIT void tiny_check(const struct hak_tiny *tiny)
{
    struct tiny_sums sums[HAK_TINY_CLASSES] = {{0}};
    size_t bytes = hak_range.size / 64 + HAK_PAGE;
    struct tiny_marks marks;

    marks.slabs = hak_range.size / HAK_SLAB_SIZE;
    /* Much, but only what is marked is ever touched. */
    marks.bits = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    NEED(marks.bits != MAP_FAILED);
    NEED(!atomic_load(&tiny->busy));
    tiny_check_all(&marks, tiny, sums);
    tiny_check_stale(tiny, sums);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        tiny_check_class(&marks, tiny, c, &sums[c]);
    }
    tiny_check_inbox(tiny, sums);
    tiny_check_tags(tiny);
    munmap(marks.bits, bytes);
}

/* ---- Tiny states without a heap around them ------------------------------ */

/*
 * A Tiny state in a heap slot of its own (so that others find it by its id),
 * not marked as a thread's or as made by hand.
 */
UNIT struct hak_tiny *tiny_new(bool direct)
{
    struct hak_tiny *tiny;
    uint32_t id;

    NEED(hak_range_init());
    tiny = hak_range_heap_take(&id);
    NEED(tiny != NULL);
    hak_tiny_init(tiny, id, direct);
    return tiny;
}

UNIT void tiny_delete(struct hak_tiny *tiny)
{
    hak_tiny_release(tiny);
    hak_range_heap_give(tiny->id);
}

#endif /* TINY_CHECK_H */
