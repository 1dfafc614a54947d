/*
 * ace_gone.c - tests of ACE's holes under a limit on address space: they are
 * unmapped, mapped again when a run is cut from them, and passed over where
 * somebody else has come in between.
 */
#include "ace_check.h"

TestSuite(ace_gone, .timeout = 300);

static void limit_to(size_t more)
{
    struct rlimit limit = {unit_address_space() + more, RLIM_INFINITY};

    NEED(haki_range_init());
    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
    usleep(50000); /* it is asked for now and then */
    haki_range_ask_limit(haki_os_tick());
    NEED(haki_range_limited());
}

static char *get_run(size_t pages, bool *zero)
{
    return haki_ace_alloc(pages, HAK_PAGE, HAK_ID_SHARED, zero);
}

static void put_run(void *p)
{
    struct hak_ace_run run;

    NEED(haki_ace_free(p, &run));
}

/* Pages of ACE's superslabs that are not mapped. */
static size_t count_gone(void)
{
    size_t gone = 0;

    for (uint32_t super = 0; super < haki_ace.top; super++) {
        uint32_t page = super * (uint32_t)HAK_ACE_PAGES;

        for (uint32_t at = 0; haki_range_tag((size_t)super * HAK_SUPER_SIZE) ==
                                  HAK_TAG_SHARED(HAK_TAG_ACE) &&
                              at < HAK_ACE_PAGES;
             at++) {
            gone += haki_bits_get(haki_ace_super(page)->gone, at);
        }
    }
    return gone;
}

/* ---- a model ------------------------------------------------------------------- */

enum { RUNS = 60 };

static struct {
    char *p;
    size_t pages;
} runs[RUNS];

static void step(struct unit_random *random, unsigned i)
{
    size_t pages = HAK_ACE_LEAST + unit_below(random, 300);
    bool zero = false;

    if (runs[i].p == NULL) {
        runs[i].p = get_run(pages, &zero);
        NEED(runs[i].p != NULL);
        for (size_t at = 0; zero && at < pages * HAK_PAGE; at += 512) {
            NEED(runs[i].p[at] == 0);
        }
        runs[i].pages = pages;
    } else {
        NEED(unit_filled(runs[i].p, runs[i].pages * HAK_PAGE, i));
        if (unit_below(random, 3) == 0 && haki_ace_resize(runs[i].p, pages)) {
            NEED(unit_filled(runs[i].p,
                             haki_min(pages, runs[i].pages) * HAK_PAGE, i));
            runs[i].pages = pages;
        } else {
            put_run(runs[i].p);
            runs[i].p = NULL;
            return;
        }
    }
    unit_fill(runs[i].p, runs[i].pages * HAK_PAGE, i);
}

static void work_at_random(void *arg)
{
    struct unit_random random = {11};
    size_t gone = 0;

    (void)arg;
    limit_to(300 * HAK_MIB);
    for (size_t n = 0; n < unit_scale(4000, 500); n++) {
        step(&random, (unsigned)unit_below(&random, RUNS));
        if (n % 50 == 0) {
            ace_check();
            gone += count_gone();
        }
        if (n % 700 == 0) {
            haki_ace_trim();
            ace_check();
        }
    }
    NEED(gone > 0);
    for (unsigned i = 0; i < RUNS; i++) {
        if (runs[i].p != NULL) {
            put_run(runs[i].p);
        }
    }
    ace_check();
    NEED(haki_ace.counts.live_bytes == 0);
    NEED(unit_stats().ace_held_bytes == 0);
}

Test(ace_gone, random_use_keeps_contents_and_calls_no_page_zero_that_is_not)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(work_at_random, NULL, "");
}

/* ---- one at a time --------------------------------------------------------------- */

/* A run of 200 pages with a hole of 312 behind it that is not mapped. */
static char *with_hole(void)
{
    bool zero;
    char *p = get_run(200, &zero);

    NEED(p != NULL && count_gone() == 312);
    return p;
}

static void leave_others_alone(void *arg)
{
    char *p, *q, *other;
    bool zero;

    (void)arg;
    limit_to(100 * HAK_MIB);
    p = with_hole();
    other = p + 250 * HAK_PAGE;
    NEED(mmap(other, HAK_PAGE, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
              0) == other);
    unit_fill(other, HAK_PAGE, 1);
    q = get_run(100, &zero);
    NEED(q != NULL && (q < p || q >= p + HAK_SUPER_SIZE));
    memset(q, 2, 100 * HAK_PAGE);
    NEED(!haki_ace_resize(p, 300));
    NEED(unit_filled(other, HAK_PAGE, 1));
    put_run(q);
    put_run(p);
    ace_check();
    q = get_run(100, &zero);
    NEED(q != NULL);
    memset(q, 2, 100 * HAK_PAGE);
    NEED(unit_filled(other, HAK_PAGE, 1));
}

Test(ace_gone, somebody_else_s_mapping_in_a_hole_is_passed_over)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(leave_others_alone, NULL, "");
}

static void refuse_calls(void *arg)
{
    bool zero;
    char *p, *q;

    (void)arg;
    limit_to(100 * HAK_MIB);
    p = with_hole();
    haki_os_test_kinds(HAK_OS_CLAIM);
    haki_os_test_refuse(1, true);
    NEED(get_run(100, &zero) == NULL);
    NEED(!haki_ace_resize(p, 300));
    ace_check();
    haki_os_test_refuse(0, false);
    q = get_run(100, &zero);
    NEED(q == p + 200 * HAK_PAGE && zero);
    memset(q, 1, 100 * HAK_PAGE);
    /* What can't be unmapped stays a hole, and is not called zero. */
    haki_os_test_kinds(HAK_OS_UNMAP);
    haki_os_test_refuse(1, true);
    put_run(q);
    put_run(p);
    ace_check();
    haki_ace_trim();
    haki_os_test_refuse(0, false);
    NEED(get_run(500, &zero) == p && !zero);
    ace_check();
}

Test(ace_gone, what_the_system_refuses_is_tried_again)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(refuse_calls, NULL, "");
}

/* Holes that were there before the limit make room for what comes after. */
static void limit_late(void *arg)
{
    char *p[20], *q;
    bool zero;

    (void)arg;
    NEED(haki_range_init());
    for (int i = 0; i < 20; i++) {
        NEED((p[i] = get_run(300, &zero)) != NULL);
    }
    NEED(count_gone() == 0);
    limit_to(HAK_MIB);
    for (int i = 0; i < 5; i++) {
        NEED((q = get_run(400, &zero)) != NULL);
        memset(q, 1, 400 * HAK_PAGE);
    }
    NEED(count_gone() > 10 * 200);
    ace_check();
}

Test(ace_gone, holes_from_before_a_limit_are_unmapped_when_memory_is_out)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(limit_late, NULL, "");
}

Test(ace_gone, without_a_limit_every_page_stays_mapped)
{
    char *p[20];
    bool zero;

    cr_assert(haki_range_init());
    for (int i = 0; i < 20; i++) {
        p[i] = get_run(200 + (size_t)i, &zero);
        cr_assert_not_null(p[i]);
    }
    for (int i = 0; i < 20; i++) {
        put_run(p[i]);
        cr_assert_eq(count_gone(), 0);
    }
    ace_check();
}
