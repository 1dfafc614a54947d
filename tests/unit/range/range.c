/*
 * range.c - tests of the range: the window, ownership, tags, heap slots.
 */
#include "range/range.h"

#include "settings/options.h"
#include "os/os.h"
#include "range/slots.h"
#include "range_check.h"
#include "system/system.h"
#include "unit.h"

TestSuite(range, .timeout = 300);

/* ---- the window ---------------------------------------------------------- */

Test(range, nothing_is_owned_before_the_first_use)
{
    int here = 0;

    cr_assert_eq(haki_range.size, 0);
    cr_assert_not(hak_owns(&here));
    cr_assert_not(hak_owns(NULL));
    cr_assert_not(hak_owns((void *)UINTPTR_MAX));
    cr_assert_not(hak_owns((void *)(uintptr_t)1));
}

Test(range, is_reserved_once_and_aligned)
{
    char *base;

    cr_assert(haki_range_init());
    base = haki_range_slab_start(0);
    /* The thread sanitizer has less of the address space for a program. */
    cr_assert(haki_range.window == HAK_RANGE_DEFAULT ||
              (UNIT_WATCHED && haki_range.window >= HAK_GIB));
    cr_assert_eq(haki_range.size, HAK_GIB, "the first extent");
    cr_assert_eq((uintptr_t)base % HAK_SUPER_SIZE, 0);
    cr_assert(haki_range_init());
    cr_assert_eq(haki_range_slab_start(0), base);
    range_check();
}

Test(range, all_tags_are_0_at_first)
{
    size_t used = 0;

    cr_assert(haki_range_init());
    for (size_t at = 0; at < haki_range.size; at += HAK_SLAB_SIZE) {
        used += haki_range_tag(at) != 0;
    }
    cr_assert_eq(used, 0);
}

Test(range, owns_is_arithmetic_on_any_address)
{
    static int in_data;
    int on_stack;
    void *of_libc = malloc(100);
    char *block = hak_malloc(24);
    void *of_system = haki_system_alloc(16, 100, NULL, HAK_REASON_LARGE);
    char *base = haki_range_slab_start(0);
    char *end = base + haki_range.size;
    struct unit_random random = {1};

    cr_assert(hak_owns(base));
    cr_assert(hak_owns(base + 1));
    cr_assert(hak_owns(end - 1));
    cr_assert_not(hak_owns(base - 1));
    cr_assert_not(hak_owns(end));
    cr_assert_not(hak_owns(NULL));
    cr_assert_not(hak_owns((void *)(uintptr_t)1));
    cr_assert_not(hak_owns((void *)UINTPTR_MAX));
    cr_assert_not(hak_owns((void *)((uintptr_t)1 << 63)));
    cr_assert_not(hak_owns(&on_stack));
    cr_assert_not(hak_owns(&in_data));
    cr_assert_not(hak_owns(of_libc));
    cr_assert_not(hak_owns(of_system));
    cr_assert_not(hak_owns((void *)(uintptr_t)&hak_owns));
    cr_assert(hak_owns(block));
    cr_assert(hak_owns(block + 23));
    for (int i = 0; i < 100000; i++) {
        uintptr_t p = (uintptr_t)unit_next(&random) >> unit_below(&random, 40);

        cr_assert_eq(hak_owns((void *)p),
                     p >= (uintptr_t)base && p < (uintptr_t)end);
    }
    hak_free(block);
    hak_free(of_system);
    free(of_libc);
}

/* ---- heap slots -------------------------------------------------------------- */

Test(range, heap_slots_are_pages_found_by_their_id_and_reused)
{
    static char *slots[101];
    uint32_t id;

    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= 100; i++) {
        slots[i] = haki_range_heap_take(&id);
        cr_assert_eq(id, i);
        cr_assert_eq(slots[i], haki_range_heap(i));
        cr_assert_eq((uintptr_t)slots[i] % HAK_PAGE, 0);
        cr_assert_not(hak_owns(slots[i]));
        memset(slots[i], (int)i, HAK_HEAP_SLOT);
    }
    for (uint32_t i = 1; i <= 100; i++) {
        cr_assert_eq(slots[i][0], (char)i);
        cr_assert_eq(slots[i][HAK_HEAP_SLOT - 1], (char)i);
    }
    haki_range_heap_give(17);
    haki_range_heap_give(99);
    cr_assert_eq(haki_range_heap_count(), 100);
    cr_assert_eq(haki_range_heap_take(&id), slots[99]);
    cr_assert_eq(id, 99);
    cr_assert_eq(haki_range_heap_take(&id), slots[17]);
    cr_assert_eq(id, 17);
    haki_range_heap_take(&id);
    cr_assert_eq(id, 101);
    cr_assert_eq(haki_range_heap_count(), 101);
}

Test(range, refused_heap_slots_are_no_heap_and_the_next_try_works)
{
    uint32_t id;

    cr_assert(haki_range_init());
    haki_os_test_refuse(1, false);
    cr_assert_null(haki_range_heap_take(&id));
    cr_assert_eq(haki_range_heap_count(), 0);
    cr_assert_not_null(haki_range_heap_take(&id));
    cr_assert_eq(id, 1);
    /* The next step of slots, likewise. */
    for (uint32_t i = 2; i <= HAK_META_STEP / HAK_HEAP_SLOT; i++) {
        cr_assert_not_null(haki_range_heap_take(&id));
    }
    haki_os_test_refuse(1, false);
    cr_assert_null(haki_range_heap_take(&id));
    cr_assert_eq(haki_range_heap_count(), HAK_META_STEP / HAK_HEAP_SLOT);
    cr_assert_not_null(haki_range_heap_take(&id));
    cr_assert_eq(id, HAK_META_STEP / HAK_HEAP_SLOT + 1);
}

Test(range, heap_slots_end_with_null)
{
    uint32_t id, count = 0;
    char *slot, *last = NULL;

    setenv("HAKMEM_RANGE", "1G", 1);
    cr_assert(haki_range_init());
    while ((slot = haki_range_heap_take(&id)) != NULL) {
        count++;
        last = slot;
    }
    cr_assert_eq(count, HAK_GIB / 8 / HAK_HEAP_SLOT);
    last[HAK_HEAP_SLOT - 1] = 1;
    haki_range_heap_give(5);
    cr_assert_eq(haki_range_heap_take(&id), haki_range_heap(5));
}

/* ---- several threads ------------------------------------------------------ */

static void *init_and_note(void *arg)
{
    NEED(haki_range_init());
    *(char **)arg = haki_range_slab_start(0);
    return NULL;
}

Test(range, threads_that_come_first_together_find_one_range)
{
    pthread_t threads[4];
    char *bases[4];

    for (int i = 0; i < 4; i++) {
        threads[i] = unit_start(init_and_note, &bases[i]);
    }
    for (int i = 0; i < 4; i++) {
        unit_join(threads[i]);
        cr_assert_eq(bases[i], bases[0]);
    }
}

enum { SLOTS = 3000, THREADS = 4 };

static atomic_uint slot_holder[THREADS * SLOTS + 1];

static void *take_slots(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};
    uint32_t mine[20] = {0};

    for (size_t i = 0; i < unit_scale(SLOTS, 300); i++) {
        uint32_t *at = &mine[unit_below(&random, 20)];

        if (*at != 0) {
            NEED(atomic_exchange(&slot_holder[*at], 0) == (uintptr_t)arg);
            haki_range_heap_give(*at);
            *at = 0;
        } else {
            NEED(haki_range_heap_take(at) == haki_range_heap(*at));
            NEED(*at <= THREADS * SLOTS);
            NEED(atomic_exchange(&slot_holder[*at], (unsigned)(uintptr_t)arg) ==
                 0);
        }
    }
    return NULL;
}

Test(range, threads_never_hold_the_same_heap_slot)
{
    pthread_t threads[THREADS];

    cr_assert(haki_range_init());
    for (uintptr_t i = 0; i < THREADS; i++) {
        threads[i] = unit_start(take_slots, (void *)(i + 1));
    }
    for (int i = 0; i < THREADS; i++) {
        unit_join(threads[i]);
    }
    cr_assert_leq(haki_range_heap_count(), THREADS * 20);
}
