/*
 * ace.c - tests of the ACE lane against a model of its pages: best fit, zero,
 * owners, resizing. What it gives back and misuse are in ace_back.c.
 */
#include "ace_check.h"

TestSuite(ace, .timeout = 300);

enum { SUPERS = 512, PAGES = SUPERS * HAK_ACE_PAGES, RUNS = 120 };

/* What we know of a page: whose it is, and what we wrote into it. */
struct page {
    uint16_t run; /* number + 1, 0: nobody's */
    bool given;   /* it was part of a run once */
    uint32_t word;
};

struct run {
    char *p;
    uint32_t page, pages, owner;
};

static struct page model[PAGES];
static struct run runs[RUNS];
static struct unit_random rnd;
static size_t zeros; /* blocks that came as zero over pages once written */

/* ---- the model ------------------------------------------------------------------ */

static bool is_ace(uint32_t super)
{
    return HAK_TAG_CLASS(haki_range_tag((size_t)super * HAK_SUPER_SIZE)) ==
           HAK_TAG_ACE;
}

/* The hole that a request should be cut from: 0 if there is none. */
static uint32_t model_best(uint32_t room)
{
    uint32_t found = 0, found_pages = UINT32_MAX;

    for (uint32_t super = 0; super < haki_ace.top; super++) {
        uint32_t page = super * (uint32_t)HAK_ACE_PAGES;
        uint32_t end = page + (uint32_t)HAK_ACE_PAGES;

        while (is_ace(super) && page < end) {
            uint32_t from = page;

            while (page < end && model[page].run == model[from].run) {
                page++;
            }
            if (model[from].run == 0 && page - from >= room &&
                page - from < found_pages) {
                found = from;
                found_pages = page - from;
            }
        }
    }
    return found;
}

/* Writes into a page, which the model keeps in mind. */
static void touch(struct run *run, uint32_t i)
{
    uint32_t word = (uint32_t)unit_next(&rnd) | 1;

    model[run->page + i].word = word;
    memcpy(run->p + (size_t)i * HAK_PAGE + 8, &word, sizeof(word));
}

static uint32_t word_at(const struct run *run, uint32_t i)
{
    uint32_t word;

    memcpy(&word, run->p + (size_t)i * HAK_PAGE + 8, sizeof(word));
    return word;
}

/* Every page holds what was last written, or zero after that. */
static void check_contents(const struct run *run, bool zero)
{
    for (uint32_t i = 0; i < run->pages; i++) {
        struct page *page = &model[run->page + i];

        NEED(page->run == run - runs + 1);
        if (page->word != 0) {
            NEED(word_at(run, i) == (zero ? 0 : page->word));
        }
    }
}

static void mark(const struct run *run, uint32_t from, uint32_t to, bool on)
{
    for (uint32_t i = from; i < to; i++) {
        struct page *page = &model[run->page + i];

        NEED(page->run == (on ? 0 : run - runs + 1));
        page->run = (uint16_t)(on ? run - runs + 1 : 0);
        page->given = true;
    }
}

/* Pages that were free may have been purged: they hold the word or zero. */
static void recall(const struct run *run, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        struct page *page = &model[run->page + i];

        if (page->word != 0) {
            NEED(word_at(run, i) == 0 || word_at(run, i) == page->word);
            page->word = word_at(run, i);
        }
    }
}

static void touch_some(struct run *run)
{
    touch(run, 0);
    touch(run, run->pages - 1);
    touch(run, (uint32_t)unit_below(&rnd, run->pages));
}

/* ---- steps ------------------------------------------------------------------------ */

static void alloc(struct run *run, uint32_t pages, uint32_t align,
                  uint32_t owner)
{
    uint32_t least = (uint32_t)haki_max(pages, HAK_ACE_LEAST);
    uint32_t room = (uint32_t)haki_min(least + align - 1, HAK_ACE_PAGES);
    uint32_t expect = model_best(room);
    struct hak_ace_run found;
    bool zero, touched = false, given = false;

    run->p = haki_ace_alloc(pages, align * HAK_PAGE, owner, &zero);
    NEED(run->p != NULL);
    NEED((uintptr_t)run->p % (align * HAK_PAGE) == 0);
    run->page = (uint32_t)(haki_range_offset(run->p) / HAK_PAGE);
    run->pages = least;
    run->owner = owner;
    NEED(run->page + least <= PAGES);
    if (expect != 0) { /* the smallest that fits, the lowest of those */
        NEED(run->page == ((expect + align - 1) & ~(align - 1)));
    } else {
        NEED(run->page % HAK_ACE_PAGES == 0);
    }
    NEED(haki_ace_find(run->p, &found));
    NEED(found.bytes == least * HAK_PAGE && found.owner == owner);
    for (uint32_t i = 0; i < least; i++) {
        touched |= model[run->page + i].word != 0;
        given |= model[run->page + i].given;
    }
    NEED(zero || given); /* what nobody has had is zero */
    mark(run, 0, least, true);
    zeros += zero && touched;
    recall(run, 0, least);
    check_contents(run, zero);
    touch_some(run);
}

static void drop(struct run *run)
{
    struct hak_ace_run freed;

    check_contents(run, false);
    mark(run, 0, run->pages, false);
    NEED(haki_ace_free(run->p, &freed));
    NEED(freed.bytes == run->pages * HAK_PAGE && freed.owner == run->owner);
    run->p = NULL;
}

/* How many free pages follow a run in its superslab. */
static uint32_t room_behind(const struct run *run)
{
    uint32_t page = run->page + run->pages, n = 0;

    while ((page + n) % HAK_ACE_PAGES != 0 && model[page + n].run == 0) {
        n++;
    }
    return n;
}

static void resize(struct run *run, uint32_t pages)
{
    uint32_t least = (uint32_t)haki_max(pages, HAK_ACE_LEAST);
    bool fits = least <= run->pages + room_behind(run);
    struct hak_ace_run found;

    check_contents(run, false);
    NEED(haki_ace_resize(run->p, pages) == fits);
    if (fits && least > run->pages) {
        mark(run, run->pages, least, true);
        recall(run, run->pages, least);
    } else if (fits) {
        mark(run, least, run->pages, false);
    }
    run->pages = fits ? least : run->pages;
    NEED(haki_ace_find(run->p, &found));
    NEED(found.bytes == run->pages * HAK_PAGE && found.owner == run->owner);
    check_contents(run, false);
    touch_some(run);
}

static void free_owner(uint32_t owner)
{
    for (size_t i = 0; i < RUNS; i++) {
        if (runs[i].p != NULL && runs[i].owner == owner) {
            check_contents(&runs[i], false);
            mark(&runs[i], 0, runs[i].pages, false);
            runs[i].p = NULL;
        }
    }
    haki_ace_free_owner(owner);
}

static uint32_t some_pages(void)
{
    return (uint32_t)(unit_below(&rnd, 3) == 0
                          ? HAK_ACE_LEAST +
                                unit_below(&rnd,
                                           HAK_ACE_PAGES - HAK_ACE_LEAST + 1)
                          : 1 + unit_below(&rnd, 60));
}

static void step(void)
{
    struct run *run = &runs[unit_below(&rnd, RUNS)];
    size_t what = unit_below(&rnd, 1000);
    uint32_t align = 1;

    if (what < 3) {
        free_owner(1 + (uint32_t)unit_below(&rnd, 3));
    } else if (what < 8) {
        haki_ace_trim();
    } else if (run->p == NULL) {
        if (what < 150) {
            align = (uint32_t)1 << unit_below(&rnd, 10);
        }
        alloc(run, some_pages(), align,
              what % 2 ? HAK_ID_SHARED : 1 + (uint32_t)unit_below(&rnd, 3));
    } else if (what < 400) {
        resize(run, some_pages());
    } else {
        drop(run);
    }
}

static void begin(uint64_t seed)
{
    rnd.state = seed;
    NEED(haki_range_init());
}

Test(ace, a_random_stream_agrees_with_a_model)
{
    size_t used = 0;

    begin(1);
    for (size_t i = 0; i < unit_scale(40000, 1500); i++) {
        step();
        ace_check();
    }
    for (size_t i = 0; i < RUNS; i++) {
        used += runs[i].p != NULL;
    }
    cr_assert_eq(ace_check().runs, used);
    cr_assert_gt(used, RUNS / 4);
    cr_assert_gt(zeros, 0); /* purged pages came back as zero */
    for (size_t i = 0; i < RUNS; i++) {
        if (runs[i].p != NULL) {
            drop(&runs[i]);
        }
    }
    cr_assert_eq(ace_check().runs, 0);
    cr_assert_leq(ace_check().supers, HAK_ACE_FULL_HOLES);
    haki_ace_trim();
    cr_assert_eq(ace_check().supers, 0);
    cr_assert_eq(haki_hole_best(&haki_ace.holes, 1), 0);
}

/* ---- by hand ------------------------------------------------------------------------ */

static char *get_run(size_t pages)
{
    bool zero;
    char *p = haki_ace_alloc(pages, HAK_PAGE, HAK_ID_SHARED, &zero);

    NEED(p != NULL);
    return p;
}

static void put_run(void *p)
{
    struct hak_ace_run run;

    NEED(haki_ace_free(p, &run));
}

Test(ace, a_run_is_at_least_14_pages_and_wastes_less_than_one)
{
    struct hak_ace_run run;

    begin(0);
    for (size_t pages = 1; pages <= HAK_ACE_PAGES; pages++) {
        char *p = get_run(pages);

        cr_assert(haki_ace_find(p, &run));
        cr_assert_eq(run.bytes, haki_max(pages, 14) * HAK_PAGE);
        ace_check();
        put_run(p);
    }
}

Test(ace, runs_fill_a_superslab_without_a_gap)
{
    char *p[36];

    begin(0);
    for (int i = 0; i < 36; i++) {
        p[i] = get_run(14);
        cr_assert_eq(p[i], p[0] + (size_t)i * 14 * HAK_PAGE);
    }
    cr_assert_eq(ace_check().hole_pages, HAK_ACE_PAGES - 36 * 14);
    cr_assert_eq(ace_check().supers, 1);
    /* The 8 pages left over are enough for nothing but the last one. */
    cr_assert(!haki_ace_resize(p[35], 23));
    cr_assert(!haki_ace_resize(p[34], 15));
    cr_assert(haki_ace_resize(p[35], 22));
    cr_assert_eq(ace_check().holes, 0);
    for (int i = 0; i < 36; i += 2) {
        put_run(p[i]);
    }
    cr_assert_eq(ace_check().holes, 18);
    for (int i = 35; i > 0; i -= 2) {
        put_run(p[i]);
    }
    cr_assert_eq(ace_check().holes, 1);
}

Test(ace, the_smallest_hole_is_taken_and_of_equals_the_lowest)
{
    static const size_t pages[] = {40, 14, 20, 14, 30, 14, 20, 14};
    char *p[8];

    begin(0);
    for (int i = 0; i < 8; i++) {
        p[i] = get_run(pages[i]);
    }
    for (int i = 0; i < 8; i += 2) {
        put_run(p[i]);
    }
    cr_assert_eq(get_run(18), p[2]); /* 2 pages stay a hole */
    cr_assert_eq(get_run(20), p[6]);
    cr_assert_eq(get_run(20), p[4]);
    cr_assert_eq(get_run(20), p[0]);
    ace_check();
}

/* Every second run of an owner's frees holes that join behind the walk. */
Test(ace, free_owner_frees_that_owner_s_alone)
{
    struct hak_ace_run run;
    bool zero;
    char *p[90], *q;

    begin(0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 90; i++) {
            p[i] = haki_ace_alloc(14 + i % 5, HAK_PAGE, i % 7 ? 5 : 6, &zero);
        }
        for (int i = 3; i < 90; i += 5) {
            if (i % 7) {
                put_run(p[i]);
            }
        }
        haki_ace_free_owner(5);
        cr_assert_eq(ace_check().runs, 13);
        for (int i = 0; i < 90; i += 7) {
            cr_assert(haki_ace_find(p[i], &run));
            cr_assert_eq(run.owner, 6);
        }
        haki_ace_free_owner(7);
        cr_assert_eq(ace_check().runs, 13);
        q = get_run(14);
        haki_ace_free_owner(6);
        cr_assert_eq(ace_check().runs, 1);
        put_run(q);
        cr_assert_eq(haki_ace.counts.live_bytes, 0);
    }
}

Test(ace, around_tells_the_run_that_an_address_lies_in)
{
    struct hak_ace_run run;
    char *p, *q;
    bool zero;

    begin(0);
    p = haki_ace_alloc(20, HAK_PAGE, 9, &zero);
    q = get_run(14);
    for (size_t at = 0; at < 20 * HAK_PAGE; at += 1000) {
        cr_assert(haki_ace_around(p + at, &run));
        cr_assert_eq(run.bytes, 20 * HAK_PAGE);
        cr_assert_eq(run.owner, 9);
        cr_assert_eq(haki_ace_find(p + at, &run), at == 0);
    }
    put_run(p);
    cr_assert(!haki_ace_around(p, &run));
    cr_assert(!haki_ace_around(p + 19 * HAK_PAGE, &run));
    cr_assert(!haki_ace_find(p, &run));
    cr_assert(!haki_ace_free(p, &run));
    cr_assert(!haki_ace_resize(p, 30));
    cr_assert(!haki_ace_free(q + 1, &run));
    cr_assert(!haki_ace_free(q + HAK_PAGE, &run));
    cr_assert(haki_ace_around(q, &run));
    ace_check();
}
