/*
 * system.c - tests of the registry of the system allocator's blocks.
 *
 * The source itself is compiled in, so that the table can be filled with any
 * pointers; the linker then leaves the library's copy out.
 */
#include <system/system.c>

#include "unit.h"

TestSuite(system, .timeout = 300);

/* ---- the table, on pointers that nobody allocated ------------------------- */

enum { POINTERS = 3000 };

struct shadow {
    uintptr_t p[POINTERS];
    size_t size[POINTERS];
    bool in[POINTERS];
    size_t live, bytes;
};

static void toggle(struct shadow *shadow, size_t i)
{
    struct entry *entry;

    haki_lock_take(&system_lock);
    entry = system_find((void *)shadow->p[i]);
    cr_assert_eq(entry != NULL, shadow->in[i]);
    if (shadow->in[i]) {
        cr_assert_eq(entry->p, shadow->p[i]);
        cr_assert_eq(entry->size, shadow->size[i]);
        system_erase(entry);
        shadow->live--;
        shadow->bytes -= shadow->size[i];
    } else {
        shadow->size[i] += 7;
        cr_assert(system_grow());
        system_add((void *)shadow->p[i], shadow->size[i],
                   (struct hak_heap *)(shadow->p[i] + 8));
        shadow->live++;
        shadow->bytes += shadow->size[i];
    }
    shadow->in[i] = !shadow->in[i];
    haki_lock_drop(&system_lock);
}

/* Every pointer is found exactly if it is in, and nothing else stands there. */
static void check(const struct shadow *shadow)
{
    size_t used = 0;

    cr_assert_eq(system_counts.live, shadow->live);
    cr_assert_eq(system_counts.live_bytes, shadow->bytes);
    for (size_t i = 0; system_table != NULL && i <= system_table->mask; i++) {
        used += system_table->entries[i].p != 0;
    }
    cr_assert_eq(used, shadow->live);
    cr_assert(used == 0 || 2 * used <= system_table->mask + 1);
    haki_lock_take(&system_lock);
    for (size_t i = 0; i < POINTERS; i++) {
        struct entry *entry = system_find((void *)shadow->p[i]);

        cr_assert_eq(entry != NULL, shadow->in[i], "pointer %zu", i);
        if (entry != NULL) {
            cr_assert_eq(entry->p, shadow->p[i]);
            cr_assert_eq(entry->size, shadow->size[i]);
            cr_assert_eq((uintptr_t)entry->owner, shadow->p[i] + 8);
        }
    }
    haki_lock_drop(&system_lock);
}

static struct entry *find_held(uintptr_t p)
{
    struct entry *entry;

    haki_lock_take(&system_lock);
    entry = system_find((void *)p);
    haki_lock_drop(&system_lock);
    return entry;
}

static void make_table(void)
{
    haki_lock_take(&system_lock);
    cr_assert(system_grow());
    haki_lock_drop(&system_lock);
}

/* Random insertions and removals of POINTERS pointers, `most` at a time. */
static void churn(struct shadow *shadow, size_t steps, size_t most)
{
    struct unit_random random = {3};

    for (size_t step = 0; step < steps; step++) {
        size_t i = unit_below(&random, POINTERS);

        if (shadow->in[i] || shadow->live < most) {
            toggle(shadow, i);
        }
        if (step % 1000 == 0) {
            check(shadow);
        }
    }
    for (size_t i = 0; i < POINTERS; i++) {
        if (shadow->in[i]) {
            toggle(shadow, i);
        }
    }
    check(shadow);
}

Test(system, random_pointers_agree_with_a_shadow)
{
    static struct shadow shadow;
    struct unit_random random = {4};

    for (size_t i = 0; i < POINTERS; i++) {
        shadow.p[i] =
            (0x700000000000 + unit_next(&random) % (1 << 30)) & ~(uintptr_t)15;
    }
    churn(&shadow, unit_scale(200000, 20000), 250); /* table of 512 */
    cr_assert_eq(system_table->mask, 511);
    churn(&shadow, unit_scale(200000, 20000), POINTERS);
    cr_assert_geq(system_table->mask, 2 * 1024 - 1);
}

/*
 * All homes in the last places and the first: long runs that go round the
 * table's end, where a removal must move the right entries up.
 */
Test(system, runs_round_the_end_of_the_table_agree_with_a_shadow)
{
    static struct shadow shadow;
    uintptr_t p = 0x10000;

    make_table();
    cr_assert_eq(system_table->mask, 511);
    for (size_t i = 0; i < POINTERS; p += 16) {
        if (system_home(system_table, p) >= 500 ||
            system_home(system_table, p) < 8) {
            shadow.p[i++] = p;
        }
    }
    churn(&shadow, unit_scale(300000, 30000), 200);
    cr_assert_eq(system_table->mask, 511);
}

Test(system, one_home_for_all_agrees_with_a_shadow)
{
    static struct shadow shadow;
    uintptr_t p = 0x10000;

    make_table();
    for (size_t i = 0; i < POINTERS; p += 16) {
        if (system_home(system_table, p) == 511) {
            shadow.p[i++] = p;
        }
    }
    churn(&shadow, unit_scale(100000, 10000), 100);
}

Test(system, growing_keeps_every_entry)
{
    static struct shadow shadow;
    struct unit_random random = {5};

    for (size_t i = 0; i < POINTERS; i++) {
        shadow.p[i] = (uintptr_t)unit_next(&random) | 16;
        toggle(&shadow, i);
        if (i % 100 == 0 || (i & (i - 1)) == 0) {
            check(&shadow);
        }
    }
    check(&shadow);
    cr_assert_eq(system_table->mask, 8191);
}

/* ---- the table as a ghost leaves it ----------------------------------------- */

/* The first entry that could move to the place of `gap`, or NULL. */
static struct entry *next_to_move(struct entry *gap)
{
    size_t at = (size_t)(gap - system_table->entries);

    for (size_t i = (at + 1) & system_table->mask;
         system_table->entries[i].p != 0; i = (i + 1) & system_table->mask) {
        if (((i - system_home(system_table, system_table->entries[i].p)) &
             system_table->mask) >= ((i - at) & system_table->mask)) {
            return &system_table->entries[i];
        }
    }
    return NULL;
}

/*
 * Erases pointer i as a thread does that does not come to the end: it has
 * moved `moves` entries, of one more all but `p`. True: it was cut short.
 */
static bool erase_half(struct shadow *shadow, size_t i, unsigned moves)
{
    struct entry *gap = system_find((void *)shadow->p[i]);
    struct entry *from;

    for (; (from = next_to_move(gap)) != NULL && moves > 0; moves--) {
        *gap = *from;
        gap = from;
    }
    if (from == NULL) {
        gap->p = 0;
        return false;
    }
    gap->size = from->size;
    gap->owner = from->owner;
    return true;
}

Test(system, a_removal_cut_short_is_mended)
{
    static struct shadow shadow;
    struct unit_random random = {8};
    uintptr_t p = 0x10000;
    unsigned cut = 0;

    make_table();
    for (size_t i = 0; i < POINTERS; p += 16) {
        if (system_home(system_table, p) >= 480 ||
            system_home(system_table, p) < 8) {
            shadow.p[i++] = p;
        }
    }
    for (unsigned round = 0; round < unit_scale(5000, 500); round++) {
        size_t i = unit_below(&random, POINTERS);
        unsigned moves = (unsigned)unit_below(&random, 5);

        for (size_t n = i; shadow.live < 60; n = (n + 1) % POINTERS) {
            if (!shadow.in[n]) {
                toggle(&shadow, n);
            }
        }
        for (i = unit_below(&random, POINTERS); !shadow.in[i];) {
            i = (i + 1) % POINTERS;
        }
        haki_lock_take(&system_lock);
        cut += erase_half(&shadow, i, moves);
        system_mend();
        haki_lock_drop(&system_lock);
        /* Nothing was moved: it is still there, with another's size. */
        if (find_held(shadow.p[i]) != NULL) {
            haki_lock_take(&system_lock);
            system_erase(system_find((void *)shadow.p[i]));
            haki_lock_drop(&system_lock);
        }
        shadow.in[i] = false;
        shadow.live--;
        shadow.bytes -= shadow.size[i];
        check(&shadow);
    }
    cr_assert_gt(cut, 100);
}

/* ---- blocks ------------------------------------------------------------------ */

Test(system, blocks_are_known_until_they_are_freed)
{
    struct hak_heap *owner, *me = (struct hak_heap *)0x5000;
    size_t size;
    char *p = haki_system_alloc(16, 100, me, HAK_REASON_LARGE);

    cr_assert_not_null(p);
    cr_assert(haki_system_find(p, &owner, &size));
    cr_assert(owner == me && size == 100);
    cr_assert_not(haki_system_find(p + 1, &owner, &size));
    cr_assert_not(haki_system_find(p + 16, &owner, &size));
    cr_assert_not(haki_system_find(NULL, &owner, &size));
    cr_assert_not(haki_system_find((void *)UINTPTR_MAX, &owner, &size));
    size = 0;
    owner = NULL;
    cr_assert(haki_system_free(p, &owner, &size));
    cr_assert(owner == me && size == 100);
    cr_assert_not(haki_system_free(p, &owner, &size));
    cr_assert_not(haki_system_find(p, &owner, &size));
}

Test(system, nothing_is_known_before_the_first_block)
{
    struct hak_heap *owner;
    size_t size = 0;

    cr_assert_not(haki_system_find(&size, &owner, &size));
    cr_assert_not(haki_system_free(unit_pointer(&size), &owner, &size));
    haki_system_free_owner((struct hak_heap *)0x5000);
}

Test(system, alignment_is_kept)
{
    for (size_t align = 16; align <= HAK_MIB; align *= 2) {
        for (size_t size = 0; size < 5000; size += 777) {
            struct hak_heap *owner;
            size_t known;
            void *p = haki_system_alloc(align, size, NULL, HAK_REASON_ALIGNED);

            cr_assert(p != NULL && (uintptr_t)p % align == 0);
            cr_assert(haki_system_free(p, &owner, &known));
            cr_assert_eq(known, size);
        }
    }
}

Test(system, reasons_are_counted)
{
    struct hak_system_counts now;
    struct hak_heap *owner;
    size_t size;

    for (int reason = 0; reason < HAK_REASONS; reason++) {
        for (int i = 0; i <= reason; i++) {
            void *p = haki_system_alloc(16, 10, NULL, (enum hak_reason)reason);

            cr_assert(haki_system_free(p, &owner, &size));
        }
    }
    haki_system_counts(&now);
    for (int reason = 0; reason < HAK_REASONS; reason++) {
        cr_assert_eq(now.fallback[reason], (uint64_t)reason + 1);
    }
    cr_assert_eq(now.live, 0);
    cr_assert_eq(now.live_bytes, 0);
}

Test(system, out_of_memory_is_null_enomem_and_counts_nothing)
{
    struct hak_system_counts now;

    errno = 0;
    cr_assert_null(haki_system_alloc(16, unit_size(PTRDIFF_MAX), NULL,
                                     HAK_REASON_LARGE));
    cr_assert_eq(errno, ENOMEM);
    haki_system_counts(&now);
    cr_assert_eq(now.fallback[HAK_REASON_LARGE], 0);
    cr_assert_eq(now.live, 0);
}

Test(system, without_room_in_the_table_nothing_is_allocated)
{
    void *p;

    haki_os_test_refuse(1, false);
    errno = 0;
    cr_assert_null(haki_system_alloc(16, 10, NULL, HAK_REASON_LARGE));
    cr_assert_eq(errno, ENOMEM);
    p = haki_system_alloc(16, 10, NULL, HAK_REASON_LARGE);
    cr_assert_not_null(p);
    cr_assert_eq(system_counts.live, 1);
}

Test(system, resize_keeps_contents_owner_and_accounts)
{
    struct hak_heap *owner, *me = (struct hak_heap *)0x7000;
    size_t size = 2000, known;
    char *p = haki_system_alloc(16, size, me, HAK_REASON_LARGE);
    struct unit_random random = {6};

    unit_fill(p, size, 9);
    for (int i = 0; i < 300; i++) {
        size_t wish = i % 20 == 5 ? 0 : unit_below(&random, 300000);

        p = haki_system_resize(p, wish);
        cr_assert_not_null(p);
        cr_assert(unit_filled(p, haki_min(size, wish), 9));
        unit_fill(p, wish, 9);
        size = wish;
        cr_assert(haki_system_find(p, &owner, &known));
        cr_assert(owner == me && known == size);
        cr_assert(system_counts.live == 1 && system_counts.live_bytes == size);
    }
    errno = 0;
    cr_assert_null(haki_system_resize(p, unit_size(PTRDIFF_MAX)));
    cr_assert_eq(errno, ENOMEM);
    cr_assert(unit_filled(p, size, 9));
    cr_assert(haki_system_find(p, &owner, &known) && known == size);
}

/* The blocks of one owner go, those of all others stay. */
Test(system, free_owner_frees_exactly_its_blocks)
{
    static void *blocks[2000];
    struct unit_random random = {7};
    struct hak_heap *owner;
    size_t size, left = 2000;

    for (size_t i = 0; i < 2000; i++) {
        blocks[i] = haki_system_alloc(16, 32 + i % 100,
                                      (struct hak_heap *)((i % 3 + 1) << 12),
                                      HAK_REASON_LARGE);
        cr_assert_not_null(blocks[i]);
    }
    for (size_t i = 0; i < 700; i++) {
        size_t k = unit_below(&random, 2000);

        left -= blocks[k] != NULL && haki_system_free(blocks[k], &owner, &size);
        blocks[k] = NULL;
    }
    for (size_t gone = 0; gone < 3; gone++) {
        haki_system_free_owner((struct hak_heap *)((gone + 1) << 12));
        for (size_t i = 0; i < 2000; i++) {
            if (blocks[i] != NULL) {
                cr_assert_eq(haki_system_find(blocks[i], &owner, &size),
                             i % 3 > gone);
                left -= i % 3 == gone;
            }
        }
        cr_assert_eq(system_counts.live, left);
    }
    cr_assert_eq(system_counts.live_bytes, 0);
}

/* As above, where the owner's entries go round the table's end. */
Test(system, free_owner_works_round_the_end_of_the_table)
{
    for (size_t gone = 1; gone <= 2; gone++) {
        void *kept[250];
        struct hak_heap *owner;
        size_t size, count = 0, tries = 0;

        make_table();
        haki_lock_take(&system_lock);
        while (count < 200 && tries++ < 1000000) {
            void *p = malloc(16);

            if (system_table->mask == 511 &&
                system_home(system_table, (uintptr_t)p) >= 12 &&
                system_home(system_table, (uintptr_t)p) < 490) {
                continue; /* left to the test's process */
            }
            system_add(p, 16, (struct hak_heap *)((count % 2 + 1) << 12));
            kept[count++] = p;
        }
        haki_lock_drop(&system_lock);
        cr_assert_eq(count, 200);
        haki_system_free_owner((struct hak_heap *)(gone << 12));
        cr_assert_eq(system_counts.live, 100);
        for (size_t i = 0; i < 200; i++) {
            cr_assert_eq(haki_system_find(kept[i], &owner, &size),
                         i % 2 + 1 != gone);
        }
        haki_system_free_owner((struct hak_heap *)((3 - gone) << 12));
        cr_assert_eq(system_counts.live, 0);
    }
}

/* ---- threads ------------------------------------------------------------------- */

static void *use_blocks(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};
    char *blocks[50] = {NULL};
    size_t sizes[50];
    struct hak_heap *owner;
    size_t size;

    for (size_t i = 0; i < unit_scale(60000, 2000); i++) {
        size_t k = unit_below(&random, 50);

        if (blocks[k] == NULL) {
            sizes[k] = unit_below(&random, 3000);
            blocks[k] = haki_system_alloc(16, sizes[k], arg, HAK_REASON_LARGE);
            NEED(blocks[k] != NULL);
            unit_fill(blocks[k], sizes[k], (unsigned)k);
        } else if (i % 3 == 0) {
            size_t wish = unit_below(&random, 3000) + 1;

            blocks[k] = haki_system_resize(blocks[k], wish);
            NEED(unit_filled(blocks[k], haki_min(wish, sizes[k]), (unsigned)k));
            sizes[k] = wish;
            unit_fill(blocks[k], wish, (unsigned)k);
        } else {
            NEED(unit_filled(blocks[k], sizes[k], (unsigned)k));
            NEED(haki_system_free(blocks[k], &owner, &size));
            NEED(owner == arg && size == sizes[k]);
            blocks[k] = NULL;
        }
    }
    haki_system_free_owner(arg);
    return NULL;
}

Test(system, threads_do_not_disturb_each_other)
{
    pthread_t threads[4];

    for (uintptr_t i = 0; i < 4; i++) {
        threads[i] = unit_start(use_blocks, (void *)((i + 1) << 12));
    }
    for (int i = 0; i < 4; i++) {
        unit_join(threads[i]);
    }
    cr_assert_eq(system_counts.live, 0);
    cr_assert_eq(system_counts.live_bytes, 0);
}
