/*
 * bench_malloc_patterns.c - rows of one thread that do what programs do: strings
 * that grow and are cut, phases, trees, aligned blocks, skewed sizes, blocks that
 * are written from end to end; and how long single operations take.
 */
#include "bench_malloc.h"

/* ---- strings --------------------------------------------------------------- */

struct string {
    char *text;
    size_t length;
};

/* To a new length by realloc; what was there must still be. */
static void set_length(struct string *string, size_t length)
{
    char last = string->text != NULL ? string->text[0] : 's';

    string->text = realloc(string->text, length + 1);
    if (string->text == NULL)
        fail("realloc returned NULL");
    if (string->length > 0 && string->text[0] != last)
        fail("realloc changed what a string held");
    if (length > string->length)
        memset(string->text + string->length, 's', length - string->length);
    string->text[length] = '\0';
    string->length = length;
}

/* Of eight steps five append, one cuts in half, two put a new string there. */
void run_strings(const struct row *row)
{
    struct string *strings = bench_array(row->slots * sizeof(*strings));
    uint64_t state = bench_first_state(20);

    if (strings == NULL)
        fail("no memory for the strings");
    meter_begin();
    for (uint64_t i = 0; i < row->ops; i++) {
        uint64_t r = bench_next(&state), kind = r % 8;
        struct string *string = &strings[bench_upper(r, row->slots)];

        if (kind < 5 && string->length + 200 < row->most) {
            set_length(string, string->length + row->least + r / 8 % 184);
        } else if (kind == 5 && string->length > 0) {
            set_length(string, string->length / 2);
        } else {
            free(string->text);
            *string = (struct string){NULL, 0};
            set_length(string, row->least + r / 8 % 64);
        }
    }
    meter_end();
    for (uint64_t i = 0; i < row->slots; i++)
        free(strings[i].text);
}

/* ---- phases ---------------------------------------------------------------- */

#define PHASES 8

/* In each phase other sizes; nine in ten of its blocks do not outlive it. */
void run_phases(const struct row *row)
{
    void **slots = new_slots(row);
    uint64_t state = bench_first_state(21), done = 0;

    meter_begin();
    for (unsigned phase = 0; done < row->ops; phase = (phase + 1) % PHASES) {
        size_t least = row->least << phase, most = 2 * least;
        uint64_t count = row->slots >> (phase > 4 ? phase - 4 : 0);

        for (uint64_t i = 0; i < count && done < row->ops; i++, done++) {
            uint64_t r = bench_next(&state);

            free(slots[i]);
            slots[i] = new_block(least + bench_upper(r, most - least), r);
        }
        for (uint64_t i = 0; i < row->slots; i++) {
            if (i % 10 != phase) {
                free(slots[i]);
                slots[i] = NULL;
            }
        }
    }
    meter_end();
    free_slots(row, slots);
}

/* ---- trees ----------------------------------------------------------------- */

struct node {
    struct node *left, *right;
    uint64_t word;
};

static struct node *new_tree(unsigned depth)
{
    struct node *node = malloc(sizeof(*node));

    if (node == NULL)
        fail("malloc returned NULL");
    node->left = depth > 0 ? new_tree(depth - 1) : NULL;
    node->right = depth > 0 ? new_tree(depth - 1) : NULL;
    node->word = depth;
    return node;
}

static void free_tree(struct node *node)
{
    if (node->left != NULL) {
        free_tree(node->left);
        free_tree(node->right);
    }
    free(node);
}

/* row->slots trees are alive; they have depth 9, 1,023 nodes. */
void run_trees(const struct row *row)
{
    struct node **trees = (struct node **)new_slots(row);

    meter_begin();
    for (uint64_t i = 0; i < row->ops / 1023; i++) {
        struct node **tree = &trees[i % row->slots];

        if (*tree != NULL)
            free_tree(*tree);
        *tree = new_tree(9);
    }
    meter_end();
    for (uint64_t i = 0; i < row->slots; i++) {
        if (trees[i] != NULL)
            free_tree(trees[i]);
    }
}

/* ---- replaced in random slots ----------------------------------------------- */

/* As run_mixed, aligned to 64. */
void run_aligned(const struct row *row)
{
    void **slots = new_slots(row);
    uint64_t state = bench_first_state(22);

    meter_begin();
    for (uint64_t i = 0; i < row->ops; i++) {
        uint64_t r = bench_next(&state);
        void **slot = &slots[bench_upper(r, row->slots)];

        free(*slot);
        if (posix_memalign(slot, 64, size_of(row, r)) != 0)
            fail("posix_memalign failed");
        store_word(*slot, 0, r);
    }
    meter_end();
    free_slots(row, slots);
}

/* As run_mixed; half of the blocks have the least eighth of the sizes, and so on. */
void run_skewed(const struct row *row)
{
    void **slots = new_slots(row);
    uint64_t state = bench_first_state(23);

    meter_begin();
    for (uint64_t i = 0; i < row->ops; i++) {
        uint64_t r = bench_next(&state);
        void **slot = &slots[bench_upper(r, row->slots)];
        unsigned halves = (unsigned)__builtin_ctzll(r | 1 << 10);
        size_t most = row->least + (row->most >> (10 - halves));

        free(*slot);
        *slot = new_block(row->least + (r >> 12) % (most - row->least), r);
    }
    meter_end();
    free_slots(row, slots);
}

/* As run_mixed; every byte of a block is written. */
void run_written(const struct row *row)
{
    void **slots = new_slots(row);
    uint64_t state = bench_first_state(24);

    meter_begin();
    for (uint64_t i = 0; i < row->ops; i++) {
        uint64_t r = bench_next(&state);
        void **slot = &slots[bench_upper(r, row->slots)];
        size_t size = size_of(row, r);

        free(*slot);
        *slot = new_block(size, r);
        memset(*slot, (int)r, size);
    }
    meter_end();
    free_slots(row, slots);
}

/* As run_mixed, by calloc. */
void run_calloc_small(const struct row *row)
{
    void **slots = new_slots(row);
    uint64_t state = bench_first_state(25);

    meter_begin();
    for (uint64_t i = 0; i < row->ops; i++) {
        uint64_t r = bench_next(&state);
        void **slot = &slots[bench_upper(r, row->slots)];

        free(*slot);
        *slot = calloc(1, size_of(row, r));
        if (*slot == NULL)
            fail("calloc returned NULL");
        store_word(*slot, 0, r);
    }
    meter_end();
    free_slots(row, slots);
}

/* ---- how long single operations take ----------------------------------------- */

/* Times in buckets an eighth wide: 8 for each power of two nanoseconds. */
#define BUCKETS (64 * 8)

static uint32_t times[BUCKETS];

static unsigned bucket_of(uint64_t ns)
{
    unsigned power = 63u - (unsigned)__builtin_clzll(ns | 8);

    return ns < 8 ? (unsigned)ns : power * 8 + (ns >> (power - 3) & 7);
}

static double bucket_end(unsigned bucket)
{
    unsigned power = bucket / 8;

    return power < 3 ? bucket + 1
                     : (double)((uint64_t)(8 + bucket % 8 + 1) << (power - 3));
}

static double percentile(uint64_t ops, double part)
{
    uint64_t left = (uint64_t)((double)ops * (1 - part));
    unsigned bucket = BUCKETS - 1;

    while (bucket > 0 && times[bucket] <= left)
        left -= times[bucket--];
    return bucket_end(bucket);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* As run_mixed, with a look at the clock, 20 to 40 ns, in every step. */
void run_latency(const struct row *row)
{
    void **slots = new_slots(row);
    uint64_t state = bench_first_state(26), before, after;

    meter_begin();
    before = now_ns();
    for (uint64_t i = 0; i < row->ops; i++) {
        replace(row, slots, 1, &state);
        after = now_ns();
        times[bucket_of(after - before)]++;
        before = after;
    }
    meter_end();
    meter_percentiles(percentile(row->ops, 0.99), percentile(row->ops, 0.999));
    free_slots(row, slots);
}
