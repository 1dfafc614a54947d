/*
 * tiny_walk.c - walks a Tiny state and checks the invariants of tiny.h.
 *
 * A heap that a forked child took over from a ghost (lock.h) may count a block
 * too many or too few in a bin, as a push or pop may have been half done: the
 * walk would fail there, so tests of forked children do without it.
 *
 * Tested by tests/unit/tiny/tiny.c, after every kind of use.
 */
#include "tiny/tiny_walk.h"

#include "tiny/tiny_seal.h"

#if HAK_WALKS

#include "os/os.h"
#include "range/pages.h"
#include "tiny/tiny.h"

/* A bit for every 8 bytes of every slab: block seen in some list. */
struct tiny_walk {
    const struct hak_tiny *tiny;
    uint8_t *bits; /* NULL: no memory for them */
    size_t slabs;
};

/*
 * Sums over the slabs of one class. Sealed slabs count only in `remote`, their
 * blocks that others freed, and in the last sums.
 */
struct tiny_walk_sums {
    size_t slabs, open, carved, nfree, idle, empty, remote;
    size_t sealed_used; /* blocks of sealed slabs not counted as free */
    size_t stale;       /* those of them that are free all the same */
};

static __thread bool tiny_walk_is_due;

void haki_tiny_walk_due(void)
{
    tiny_walk_is_due = true;
}

void haki_tiny_walk_if_due(const struct hak_tiny *tiny)
{
    if (tiny_walk_is_due) {
        tiny_walk_is_due = false;
        haki_tiny_walk(tiny, false);
    }
}

/* ---- blocks ------------------------------------------------------------------ */

/*
 * Checks that p, in a slab of the class, was carved and lies on no page that is
 * gone.
 */
static void tiny_walk_place(const struct tiny_walk *walk, unsigned class,
                            const void *p)
{
    size_t offset = haki_range_offset(p), at = offset & (HAK_SLAB_SIZE - 1);
    const struct hak_slab *slab = haki_range_slab(haki_range_number(p));
    uint32_t tag = haki_range_tag(offset);

    if (tag == (walk->tiny->tag | HAK_TAG_PACKED)) {
        HAK_PROVE(haki_tiny_class_at_tag(p, tag) == class);
        HAK_PROVE(haki_tiny_is_block(p, tag, class));
        return;
    }
    HAK_PROVE(tag == (walk->tiny->tag | class * HAK_TAG_TINY));
    HAK_PROVE(at % haki_tiny_size[class] == 0);
    HAK_PROVE(at / haki_tiny_size[class] < slab->carved);
    HAK_PROVE((haki_slab_pages_of(at, slab->block) & slab->gone) == 0);
}

/*
 * Walks a list of the class: each block is seen for the first time, and all are
 * in slab `number` unless that is 0.
 */
static size_t tiny_walk_list(struct tiny_walk *walk, unsigned class,
                             uint32_t number, const struct hak_block *list)
{
    size_t count = 0;

    for (; list != NULL; list = haki_link_get(list)) {
        size_t bit = haki_range_offset(list) / 8;

        HAK_PROVE(haki_range_owns(list));
        HAK_PROVE(haki_range_number(list) < walk->slabs);
        HAK_PROVE(number == HAK_NO_SLAB || haki_range_number(list) == number);
        tiny_walk_place(walk, class, list);
        count++;
        if (walk->bits != NULL) {
            HAK_PROVE((walk->bits[bit / 8] >> (bit % 8) & 1) == 0);
            walk->bits[bit / 8] |= (uint8_t)(1 << bit % 8);
        }
    }
    return count;
}

/* ---- slabs ------------------------------------------------------------------- */

/* A sealed slab: only its counts have a meaning. */
static void tiny_walk_sealed(const struct tiny_walk *walk, uint32_t number,
                             struct tiny_walk_sums *sums)
{
    struct hak_slab *slab = haki_range_slab(number);
    unsigned class = slab->class;
    uint64_t remote;

    HAK_PROVE(class < HAK_TINY_CLASSES);
    HAK_PROVE(haki_range_tag((size_t)number << HAK_SLAB_SHIFT) ==
              (walk->tiny->tag | class * HAK_TAG_TINY | HAK_TAG_SEALED));
    HAK_PROVE(slab->block == haki_tiny_size[class]);
    HAK_PROVE(slab->nfree < slab->carved && slab->carved <= slab->capacity);
    HAK_PROVE(slab->ngone == 0);
    remote = atomic_load(&slab->remote);
    HAK_PROVE(remote <= slab->carved - slab->nfree);
    sums[class].sealed_used += slab->carved - slab->nfree;
    sums[class].remote += remote != 0;
}

/*
 * Checks that ngone is the number of blocks that touch gone pages, all carved.
 */
static void tiny_walk_gone(const struct hak_slab *slab)
{
    size_t count = 0;

    for (uint32_t i = 0; slab->gone != 0 && i < slab->capacity; i++) {
        bool gone = (haki_slab_pages_of((size_t)i * slab->block, slab->block) &
                     slab->gone) != 0;

        HAK_PROVE(!gone || i < slab->carved);
        count += gone;
    }
    HAK_PROVE(count == slab->ngone);
}

/* One slab: its own fields and its free list. */
static void tiny_walk_slab(struct tiny_walk *walk, uint32_t number,
                           struct tiny_walk_sums *sums)
{
    const struct hak_slab *slab = haki_range_slab(number);
    unsigned class = slab->class;
    bool fresh = walk->tiny->shelves[class].fresh == number;
    uint32_t left = slab->nfree + slab->ngone;

    HAK_PROVE(class < HAK_TINY_CLASSES);
    HAK_PROVE(slab->block == haki_tiny_size[class] && slab->slabs == 1);
    HAK_PROVE(slab->capacity == HAK_SLAB_SIZE / slab->block);
    HAK_PROVE(left <= slab->carved && slab->carved <= slab->capacity);
    tiny_walk_gone(slab);
    HAK_PROVE(slab->carved == slab->capacity || fresh);
    HAK_PROVE((size_t)slab->carved * slab->block <= slab->resident);
    HAK_PROVE(haki_range_tag((size_t)number << HAK_SLAB_SHIFT) ==
              (walk->tiny->tag | class * HAK_TAG_TINY));
    HAK_PROVE(tiny_walk_list(walk, class, number, slab->free) == slab->nfree);
    sums[class].slabs++;
    sums[class].open += left > 0;
    sums[class].carved += slab->carved;
    sums[class].nfree += left;
    sums[class].idle += left == slab->carved && !fresh;
    sums[class].empty += left == slab->carved && left > 0;
}

/* Whether packed slabs' blocks are known: not after a seal. */
static bool tiny_walk_counts_all(const struct hak_tiny *tiny)
{
    return tiny->packed || tiny->packed_at[0] == HAK_NO_SLAB;
}

/* The block of a packed slab that begins at a grain; its bytes. */
static size_t tiny_walk_grain(const struct hak_tiny *tiny, const char *p,
                              struct tiny_walk_sums *sums, size_t *larger)
{
    const struct hak_slab *slab = haki_range_slab(haki_range_number(p));
    uint32_t tag = haki_range_tag_of(p);
    unsigned class = haki_tiny_class_at_tag(p, tag);
    size_t bytes = haki_tiny_bytes_of(p, tag);

    HAK_PROVE(tag == (tiny->tag | HAK_TAG_PACKED));
    HAK_PROVE(haki_tiny_is_block(p, tag, class));
    HAK_PROVE(bytes > 0 && bytes % HAK_GRAIN == 0);
    HAK_PROVE((haki_slab_pages_of((uintptr_t)p & (HAK_SLAB_SIZE - 1), bytes) &
               slab->gone) == 0);
    if (class == HAK_TINY_LARGER) {
        *larger += bytes;
    } else {
        HAK_PROVE(class < HAK_TINY_CLASSES && bytes == haki_tiny_size[class]);
        sums[class].carved++;
    }
    return bytes;
}

/* The maps of packed slabs. */
static void tiny_walk_packed(const struct hak_tiny *tiny,
                             struct tiny_walk_sums *sums)
{
    const struct hak_unit *units = haki_tiny_units(tiny);
    size_t all = 0, larger = 0;

    HAK_PROVE(tiny->units <= HAK_UNITS);
    for (size_t at = 0; at < tiny->units * HAK_UNIT;) {
        const struct hak_unit *unit = &units[at / HAK_UNIT];
        uint64_t bit = (uint64_t)1 << (at % HAK_UNIT / HAK_GRAIN);
        char *p = haki_range_slab_start(tiny->packed_at[at / HAK_SLAB_SIZE]) +
                  at % HAK_SLAB_SIZE;

        if ((atomic_load(&unit->used) & bit) != 0) {
            size_t bytes = tiny_walk_grain(tiny, p, sums, &larger);

            all += bytes;
            at += bytes;
        } else {
            HAK_PROVE((atomic_load(&unit->last) & bit) == 0);
            at += HAK_GRAIN;
        }
    }
    HAK_PROVE(tiny->packed_bytes == all && tiny->larger_bytes == larger);
}

/* The list of all slabs, links in both directions. */
static void tiny_walk_all(struct tiny_walk *walk, struct tiny_walk_sums *sums)
{
    const struct hak_tiny *tiny = walk->tiny;
    uint32_t before = HAK_NO_SLAB;
    size_t count = 0, sealed = 0;

    for (uint32_t n = tiny->all; n != HAK_NO_SLAB;) {
        bool is_sealed = haki_range_sealed((size_t)n << HAK_SLAB_SHIFT);

        HAK_PROVE(n < walk->slabs);
        HAK_PROVE(haki_range_slab(n)->all_prev == before);
        if (haki_range_slab(n)->class == HAK_TAG_PACKED) {
            HAK_PROVE(n == tiny->packed_at[0] || n == tiny->packed_at[1]);
        } else if (is_sealed) {
            tiny_walk_sealed(walk, n, sums);
        } else {
            tiny_walk_slab(walk, n, sums);
        }
        sealed += is_sealed;
        count += !is_sealed;
        HAK_PROVE(count <= tiny->nslabs && sealed <= tiny->nsealed);
        before = n;
        n = haki_range_slab(n)->all_next;
    }
    HAK_PROVE(count == tiny->nslabs && sealed == tiny->nsealed);
}

/* The stale lists: free blocks of sealed slabs. */
static void tiny_walk_stale(const struct hak_tiny *tiny,
                            struct tiny_walk_sums *sums)
{
    struct hak_block **lists = haki_tiny_stale((void *)(uintptr_t)tiny);

    HAK_PROVE(tiny->nstale <= HAK_TINY_STALE);
    for (uint32_t i = 0; i < tiny->nstale; i++) {
        HAK_PROVE(lists[i] != NULL);
        for (struct hak_block *p = lists[i]; p != NULL; p = haki_link_get(p)) {
            HAK_PROVE(haki_range_sealed(haki_range_offset(p)));
            if (haki_range_slab(haki_range_number(p))->class !=
                HAK_TAG_PACKED) {
                sums[haki_tiny_class_at(p)].stale++;
            }
        }
    }
}

/* The inbox of sealed slabs: each that others freed blocks of. */
static void tiny_walk_inbox(const struct hak_tiny *tiny,
                            const struct tiny_walk_sums *sums)
{
    size_t count = 0, most = 0;

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        most += sums[c].remote;
    }
    for (uint32_t n = atomic_load(&tiny->sealed_inbox); n != HAK_NO_SLAB;
         n = haki_range_slab(n)->inbox_next) {
        HAK_PROVE(haki_range_sealed((size_t)n << HAK_SLAB_SHIFT));
        HAK_PROVE(atomic_load(&haki_range_slab(n)->remote) != 0);
        HAK_PROVE(++count <= most);
    }
    HAK_PROVE(count == most);
}

/* ---- classes ----------------------------------------------------------------- */

/* The open list of a class: exactly the slabs with free blocks. */
static void tiny_walk_open(const struct hak_tiny *tiny, unsigned class,
                           size_t open)
{
    uint32_t before = HAK_NO_SLAB;
    size_t count = 0;

    for (uint32_t n = tiny->shelves[class].open; n != HAK_NO_SLAB;) {
        const struct hak_slab *slab = haki_range_slab(n);

        HAK_PROVE(slab->class == class && slab->nfree + slab->ngone > 0);
        HAK_PROVE(slab->nfree == 0 || before == HAK_NO_SLAB ||
                  haki_range_slab(before)->nfree > 0);
        HAK_PROVE(before == HAK_NO_SLAB || slab->open_before == before);
        HAK_PROVE(++count <= open);
        before = n;
        n = slab->open_next;
    }
    HAK_PROVE(count == open);
    HAK_PROVE(count == 0 ||
              haki_range_slab(tiny->shelves[class].open)->open_before ==
                  before);
}

static void tiny_walk_class(struct tiny_walk *walk, unsigned class,
                            const struct tiny_walk_sums *sums)
{
    const struct hak_tiny *tiny = walk->tiny;
    const struct hak_bin *bin = &tiny->bins[class];
    const struct hak_shelf *shelf = &tiny->shelves[class];
    size_t head = tiny_walk_list(walk, class, HAK_NO_SLAB, bin->head);
    size_t spare = tiny_walk_list(walk, class, HAK_NO_SLAB, bin->spare);

    HAK_PROVE(bin->magic == haki_tiny_magic[class]);
    HAK_PROVE(bin->left >= 0);
    HAK_PROVE((uint32_t)head == shelf->base - (uint32_t)bin->left -
                                    (uint32_t)haki_bin_pops(tiny, class));
    HAK_PROVE(spare == shelf->spare_count);
    HAK_PROVE(tiny->taken[class] >= 0 &&
              (size_t)tiny->taken[class] >= head + spare);
    HAK_PROVE(!tiny_walk_counts_all(tiny) ||
              (size_t)tiny->taken[class] ==
                  sums->carved - sums->nfree + sums->sealed_used - sums->stale);
    HAK_PROVE(haki_tiny_live(tiny, class) ==
              (size_t)tiny->taken[class] - head - spare);
    HAK_PROVE(shelf->filled == UINT16_MAX ||
              shelf->filled >= sums->slabs - (shelf->fresh != HAK_NO_SLAB));
    HAK_PROVE(shelf->step >= 512 && shelf->step <= 8192 &&
              haki_is_pow2(shelf->step));
    HAK_PROVE(sums->idle <= 1);
    if (shelf->fresh != HAK_NO_SLAB) {
        const struct hak_slab *slab = haki_range_slab(shelf->fresh);

        HAK_PROVE(slab->class == class && slab->carved < slab->capacity);
    }
    tiny_walk_open(tiny, class, sums->open);
}

/* Checks the sums over all classes. */
static void tiny_walk_totals(const struct hak_tiny *tiny,
                             const struct tiny_walk_sums *sums)
{
    size_t empty = 0;
    int64_t kept = 0;

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        kept += (int64_t)tiny->shelves[c].seen * haki_tiny_size[c];
        empty += sums[c].empty;
    }
    HAK_PROVE(tiny->allow.kept[HAK_KEEPS_TINY] == kept);
    HAK_PROVE(tiny->nempty == empty);
}

void haki_tiny_walk(const struct hak_tiny *tiny, bool quiet)
{
    struct tiny_walk_sums sums[HAK_TINY_CLASSES] = {{0}};
    size_t bytes = HAK_LOAD(haki_range.size) / 64 + HAK_PAGE;
    struct tiny_walk walk = {.tiny = tiny};

    walk.slabs = HAK_LOAD(haki_range.size) / HAK_SLAB_SIZE;
    walk.bits = haki_os_map(bytes); /* much, but little of it is touched */
    tiny_walk_all(&walk, sums);
    tiny_walk_stale(tiny, sums);
    if (tiny->packed) {
        tiny_walk_packed(tiny, sums);
    }
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        tiny_walk_class(&walk, c, &sums[c]);
    }
    tiny_walk_totals(tiny, sums);
    if (quiet) {
        tiny_walk_inbox(tiny, sums);
    }
    if (walk.bits != NULL) {
        haki_os_unmap(walk.bits, bytes);
    }
}

#endif /* HAK_WALKS */
