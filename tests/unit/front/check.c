/*
 * check.c - tests of the messages about a pointer that is not a block: every
 * function that takes one names itself, the pointer and the reason, and aborts.
 */
#include "block.h"
#include "front/lane.h"
#include "front/large.h"
#include "tiny_check.h"
#include "unit.h"

TestSuite(check, .timeout = 300);

struct call {
    void *p;
    size_t size;
};

static void call_free(void *arg)
{
    hak_free(((struct call *)arg)->p);
}

static void call_free_sized(void *arg)
{
    hak_free_sized(((struct call *)arg)->p, ((struct call *)arg)->size);
}

static void call_realloc(void *arg)
{
    NEED(hak_realloc(((struct call *)arg)->p, 77) == arg);
}

static void call_usable_size(void *arg)
{
    NEED(hak_usable_size(((struct call *)arg)->p) == 77);
}

/* All that take a block must name themselves, p and the reason, and abort. */
static void expect_fatal(void *p, const char *reason)
{
    static const struct {
        const char *name;
        void (*run)(void *);
    } calls[] = {
        {"hak_free", call_free},
        {"hak_free_sized", call_free_sized},
        {"hak_realloc", call_realloc},
        {"hak_usable_size", call_usable_size},
    };
    struct call call = {unit_pointer(p), 4};

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        unit_expect_fatal(calls[i].run, &call, "hakmem: fatal: %s(%p): %s\n",
                          calls[i].name, p, reason);
    }
}

Test(check, foreign_pointers_are_fatal)
{
    static int in_data;
    int on_stack;
    char *block = hak_malloc(1); /* makes the range */
    char *of_system = unit_from_system(5000);
    char *of_libc = malloc(100);

    expect_fatal(&on_stack, "not a block of HAKMEM");
    expect_fatal(&in_data, "not a block of HAKMEM");
    expect_fatal(of_libc, "not a block of HAKMEM");
    expect_fatal(of_system + 16, "not a block of HAKMEM");
    expect_fatal((void *)(uintptr_t)1, "not a block of HAKMEM");
    expect_fatal((void *)UINTPTR_MAX, "not a block of HAKMEM");
    expect_fatal(haki_range_slab_start(0) - 1, "not a block of HAKMEM");
    expect_fatal(haki_range_slab_start(0) + haki_range.size,
                 "not a block of HAKMEM");
    hak_free(of_system);
    expect_fatal(of_system, "not a block of HAKMEM");
    free(of_libc);
    hak_free(block);
}

Test(check, foreign_pointers_are_fatal_before_the_first_allocation)
{
    int on_stack;

    expect_fatal(&on_stack, "not a block of HAKMEM");
}

Test(check, the_middle_of_a_block_is_fatal)
{
    for (size_t size = 16; size <= 1024; size += 144) {
        char *p = hak_malloc(size);
        size_t block = unit_block(p);
        char reason[60];

        snprintf(reason, sizeof(reason), "the middle of a block of %zu bytes",
                 block);
        expect_fatal(p + 1, reason);
        expect_fatal(p + 8, reason);
        expect_fatal(p + block - 1, reason);
        hak_free(p);
    }
}

Test(check, an_address_never_given_out_is_fatal)
{
    char *p = hak_malloc(100);
    uint32_t own = tiny_number(p);

    expect_fatal(haki_range_slab_start(own + 1),
                 "an address that was never given out");
    expect_fatal(haki_range_slab_start(own + 1) + 8,
                 "an address that was never given out");
    expect_fatal(haki_range_slab_start(0) + haki_range.size - 1,
                 "an address that was never given out");
    expect_fatal(haki_range_slab_start(0),
                 "an address that was never given out");
    hak_free(p);
    hak_trim();
    expect_fatal(p, "an address that was never given out");
}

static void *get_there(void *arg)
{
    *(void **)arg = hak_malloc(100);
    return NULL;
}

Test(check, the_middle_of_another_thread_s_block_is_fatal)
{
    char *p;

    hak_free(hak_malloc(1));
    unit_in_thread(get_there, &p);
    expect_fatal(p + 16, "the middle of a block of 112 bytes");
    hak_free(p);
}

Test(check, a_size_the_block_does_not_have_is_fatal)
{
    static const size_t sizes[] = {1,    8,      100,         1024,
                                   5000, 100000, 3 * HAK_MIB, 5000};
    char *there;

    unit_in_thread(get_there, &there);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct call call = {
            i < 7 ? hak_malloc(sizes[i]) : unit_from_system(sizes[i]), 0};
        size_t usable = hak_usable_size(call.p);

        call.size = usable + 1;
        unit_expect_fatal(call_free_sized, &call,
                          "hakmem: fatal: hak_free_sized(%p, %zu): the block "
                          "has only %zu bytes\n",
                          call.p, call.size, usable);
        call.size = SIZE_MAX;
        unit_expect_fatal(call_free_sized, &call,
                          "hakmem: fatal: hak_free_sized(%p, %zu): the block "
                          "has only %zu bytes\n",
                          call.p, call.size, usable);
        call.size = usable;
        unit_expect_said(call_free_sized, &call, "");
    }
    unit_expect_fatal(call_free_sized, &((struct call){there, 113}),
                      "hakmem: fatal: hak_free_sized(%p, 113): the block has "
                      "only %zu bytes\n",
                      (void *)there, unit_usable(112, 100));
}

static void usable_child(void *p)
{
    hak_usable_size(p);
}

/* The uncarved part of a slab in use: seen wherever the slab is looked at. */
Test(check, the_part_of_a_slab_not_yet_given_out_is_fatal)
{
    char *p = hak_malloc(64);
    char *end = (char *)(((uintptr_t)p | (HAK_SLAB_SIZE - 1)) + 1) - 64;

    unit_expect_fatal(usable_child, end,
                      "hakmem: fatal: hak_usable_size(%p): an address that was "
                      "never given out\n",
                      (void *)end);
    hak_free(p);
}
