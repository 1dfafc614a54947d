/*
 * bench_malloc_growth.c - rows of vectors that grow by realloc, and of a
 * process that has only just begun.
 */
#include "bench_malloc.h"
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

/* A word in this many bytes of a vector is written and checked. */
#define STRIDE 256

struct vector {
    char *data;
    size_t size;
};

/* Half of the vectors grow by 2, half by 1.5; a full one begins anew. */
static void grow(const struct row *row, struct vector *vector, bool twice)
{
    size_t more = twice ? vector->size : (vector->size / 2 + 7) & ~(size_t)7;
    size_t size = vector->size + more;

    if (vector->size == row->most) {
        free(vector->data);
        *vector = (struct vector){NULL, 0};
    }
    if (vector->size == 0)
        size = row->least;
    if (size > row->most)
        size = row->most;
    vector->data = realloc(vector->data, size);
    if (vector->data == NULL)
        fail("realloc returned NULL");
    for (size_t at = 0; at < vector->size; at += STRIDE) {
        if (load_word(vector->data, at) != at)
            fail("realloc changed what a block held");
    }
    for (size_t at = (vector->size + STRIDE - 1) / STRIDE * STRIDE; at < size;
         at += STRIDE)
        store_word(vector->data, at, at);
    vector->size = size;
}

void run_realloc(const struct row *row)
{
    struct vector *vectors = bench_array(row->slots * sizeof(*vectors));
    uint64_t state = bench_first_state(6);

    if (vectors == NULL)
        fail("no memory for the vectors");
    meter_begin();
    for (uint64_t i = 0; i < row->ops; i++) {
        uint64_t which = bench_upper(bench_next(&state), row->slots);

        grow(row, &vectors[which], which % 2 == 0);
    }
    meter_end();
    for (uint64_t i = 0; i < row->slots; i++)
        free(vectors[i].data);
}

void run_start(const struct row *row)
{
    void **slots = new_slots(row);
    uint64_t state = bench_first_state(7);

    for (uint64_t i = 0; i < row->slots; i++) {
        uint64_t r = bench_next(&state);

        slots[i] = new_block(size_of(row, r), r);
    }
}

/* Runs this program with the argument "start". */
static void run_process(void)
{
    static char name[] = "bench_malloc", what[] = "start";
    char *arguments[] = {name, what, NULL};
    int status;
    pid_t child;

    if (posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ) !=
        0)
        fail("cannot start a process");
    if (waitpid(child, &status, 0) != child || status != 0)
        fail("a process it started failed");
}

/* At last this process does the same, so that its peak is one of theirs. */
void run_cold(const struct row *row)
{
    meter_begin();
    for (uint64_t i = 0; i < row->ops; i++)
        run_process();
    meter_end();
    run_start(row);
}
