/*
 * bench_malloc_blocks.c - rows of one thread: hot loops, batches, random
 * replacement,
 * calloc.
 */
#include "bench_malloc.h"

/* The batches of a row are freed in this many random orders, in turn. */
#define SHUFFLES 16

void **new_slots(const struct row *row)
{
    void **slots = bench_array(row->slots * sizeof(*slots));

    if (slots == NULL)
        fail("no memory for the slots");
    return slots;
}

void free_slots(const struct row *row, void **slots)
{
    for (uint64_t i = 0; i < row->slots; i++)
        free(slots[i]);
}

void run_hot(const struct row *row)
{
    meter_begin();
    for (uint64_t i = 0; i < row->ops; i++)
        free(new_block(row->most, i));
    meter_end();
}

void replace(const struct row *row, void **slots, uint64_t ops, uint64_t *state)
{
    for (uint64_t i = 0; i < ops; i++) {
        uint64_t r = bench_next(state);
        void **slot = &slots[bench_upper(r, row->slots)];

        free(*slot);
        *slot = new_block(size_of(row, r), r);
    }
}

void run_mixed(const struct row *row)
{
    void **slots = new_slots(row);
    uint64_t state = bench_first_state(1);

    meter_begin();
    replace(row, slots, row->ops, &state);
    meter_end();
    free_slots(row, slots);
}

/* SHUFFLES random orders in which to free a batch, one behind the other. */
static uint32_t *new_orders(const struct row *row)
{
    uint64_t state = bench_first_state(2);
    uint32_t *orders = bench_array(SHUFFLES * row->slots * sizeof(*orders));

    if (orders == NULL)
        fail("no memory for the orders");
    for (uint32_t *order = orders; order < orders + SHUFFLES * row->slots;
         order += row->slots) {
        for (uint32_t i = 0; i < row->slots; i++) {
            uint64_t other = bench_upper(bench_next(&state), i + 1);

            order[i] = order[other];
            order[other] = i;
        }
    }
    return orders;
}

static void free_batch(const struct row *row, void **slots,
                       const uint32_t *order)
{
    switch (row->order) {
    case LIFO:
        for (uint64_t i = row->slots; i > 0; i--)
            free(slots[i - 1]);
        break;
    case FIFO:
        for (uint64_t i = 0; i < row->slots; i++)
            free(slots[i]);
        break;
    case RANDOM:
        for (uint64_t i = 0; i < row->slots; i++)
            free(slots[order[i]]);
        break;
    }
}

/* Batches of row->slots blocks: all allocated, then all freed. */
void run_batch(const struct row *row)
{
    void **slots = new_slots(row);
    uint32_t *orders = row->order == RANDOM ? new_orders(row) : NULL;
    uint64_t state = bench_first_state(3);

    meter_begin();
    for (uint64_t batch = 0; batch < row->ops / row->slots; batch++) {
        for (uint64_t i = 0; i < row->slots; i++) {
            uint64_t r = bench_next(&state);

            slots[i] = new_block(size_of(row, r), r);
        }
        free_batch(row, slots,
                   orders != NULL ? orders + batch % SHUFFLES * row->slots
                                  : NULL);
    }
    meter_end();
}

/* Of 64 sizes, one is up to row->most, six up to 64 KB, the others to 1 KB. */
static size_t calloc_size(const struct row *row, uint64_t *state)
{
    uint64_t kind = bench_next(state) % 64;
    uint64_t most = kind == 0 ? row->most : kind < 7 ? 64 * KB : KB;

    return row->least + bench_upper(bench_next(state), most - row->least + 1);
}

/* Like a table that is filled in part: only the first 4 KB are used. */
static void *new_zeroed(size_t size)
{
    size_t used = size < 4 * KB ? size : 4 * KB;
    char *block = calloc(1, size);

    if (block == NULL)
        fail("calloc returned NULL");
    for (size_t at = 0; at + 8 <= used; at += 64) {
        if (load_word(block, at) != 0)
            fail("calloc returned a block that is not zero");
        store_word(block, at, size);
    }
    return block;
}

void run_calloc(const struct row *row)
{
    void **slots = new_slots(row);
    uint64_t state = bench_first_state(5);

    meter_begin();
    for (uint64_t i = 0; i < row->ops; i++) {
        void **slot = &slots[bench_upper(bench_next(&state), row->slots)];

        free(*slot);
        *slot = new_zeroed(calloc_size(row, &state));
    }
    meter_end();
    free_slots(row, slots);
}
