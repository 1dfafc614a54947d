/* plan.c - makes a plan of a trace; see plan.h. */
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* One thread, while the plan is made. */
struct making_thread {
    uint64_t steps, runs;   /* counted; then of them, filled in */
    uint64_t first, at_run; /* in the plan's arrays */
    uint32_t begins;
    uint32_t last_round; /* of its last run, and one; 0: none */
    bool ends;
    uint32_t *free; /* slots that are its */
    size_t frees, room;
};

/* A slot that anyone may use, from a round on. */
struct making_free {
    uint32_t slot;
    uint32_t since;
};

struct making {
    bool counting; /* the first of two passes */
    struct making_thread *threads;
    size_t thread_room;
    uint64_t thread_count;
    /* the round that is now */
    uint64_t round, round_steps, round_bytes, round_time, party_count;
    /* by block: made by which thread (counting); in which slot */
    uint32_t *owners;
    uint32_t *slots;
    uint8_t *crosses;
    uint64_t block_room;
    uint64_t slot_count;
    struct making_free *queue; /* from `head` on, in order */
    uint64_t queue_head, queue_tail, queue_room;
    bool no_memory;
    /* of the plan, in the second pass */
    struct plan *plan;
    struct plan_round *rounds;
    uint32_t *parties;
    struct plan_run *runs;
    struct plan_step *steps;
};

/* Makes room for `need` elements; false: no memory. */
static bool grow(struct making *making, void *array, uint64_t *room,
                 uint64_t need, size_t size)
{
    void *grown;
    uint64_t more = *room ? *room : 64;

    if (need <= *room) {
        return true;
    }
    while (more < need) {
        more *= 2;
    }
    memcpy(&grown, array, sizeof grown);
    grown = realloc(grown, (size_t)more * size);
    if (grown == NULL) {
        making->no_memory = true;
        return false;
    }
    memset((char *)grown + *room * size, 0, (size_t)(more - *room) * size);
    memcpy(array, &grown, sizeof grown);
    *room = more;
    return true;
}

/* ---- rounds --------------------------------------------------------------- */

/* A step of the thread in the round that is now, or in the next one. */
static struct making_thread *making_step(struct making *making, uint32_t number,
                                         uint64_t bytes,
                                         const struct trace_totals *totals)
{
    uint64_t room = making->thread_room;

    if (!grow(making, &making->threads, &room, (uint64_t)number + 1,
              sizeof *making->threads)) {
        return NULL;
    }
    making->thread_room = (size_t)room;
    if (number >= making->thread_count) {
        making->thread_count = (uint64_t)number + 1;
    }
    struct making_thread *thread = &making->threads[number];

    if (making->round_steps >= PLAN_ROUND_STEPS ||
        making->round_bytes >= PLAN_ROUND_BYTES ||
        (making->round_steps > 0 &&
         totals->time - making->round_time >= PLAN_ROUND_TIME)) {
        making->round++;
        making->round_steps = making->round_bytes = 0;
    }
    if (making->round_steps == 0) {
        making->round_time = totals->time;
    }
    if (making->round_steps == 0 && !making->counting) {
        making->rounds[making->round] = (struct plan_round){
            making->party_count, totals->time, totals->live_bytes};
    }
    making->round_steps++;
    making->round_bytes += bytes;
    if (thread->last_round != making->round + 1) {
        if (thread->last_round == 0) {
            thread->begins = (uint32_t)making->round;
        }
        thread->last_round = (uint32_t)making->round + 1;
        if (!making->counting) {
            making->parties[making->party_count] = number;
            making->runs[thread->at_run + thread->runs] =
                (struct plan_run){.round = (uint32_t)making->round};
        }
        making->party_count++;
        thread->runs++;
    }
    if (!making->counting) {
        making->runs[thread->at_run + thread->runs - 1].steps++;
    }
    return thread;
}

/* ---- the first pass: how many, and which blocks cross --------------------- */

static bool count_block(struct making *making, const struct trace_event *event)
{
    uint64_t room = making->block_room;

    if (!grow(making, &making->owners, &room, event->block + 1,
              sizeof *making->owners)) {
        return false;
    }
    room = making->block_room;
    if (!grow(making, &making->crosses, &room, event->block + 1, 1)) {
        return false;
    }
    making->block_room = room;
    making->owners[event->block] = event->thread;
    return true;
}

static void count_gone(struct making *making, uint64_t block, uint32_t thread)
{
    if (making->owners[block] != thread) {
        making->crosses[block] = 1;
    }
}

static bool count(void *context, const struct trace_event *event,
                  const struct trace_totals *totals)
{
    struct making *making = context;

    if (event->op == TRACE_THREAD_END) {
        if (event->thread < making->thread_count) {
            making->threads[event->thread].ends = true;
        }
        return true;
    }
    struct making_thread *thread =
        making_step(making, event->thread, event->size, totals);

    if (thread == NULL) {
        return false;
    }
    thread->steps++;
    if (event->op == TRACE_FREE || event->op == TRACE_LOST) {
        count_gone(making, event->block, event->thread);
        return true;
    }
    if (event->op == TRACE_REALLOC) {
        count_gone(making, event->old, event->thread);
    }
    return count_block(making, event);
}

/* ---- the second: slots and steps ------------------------------------------ */

static uint32_t slot_take(struct making *making, struct making_thread *thread,
                          uint64_t block)
{
    if (!making->crosses[block] && thread->frees > 0) {
        return thread->free[--thread->frees];
    }
    if (making->queue_head < making->queue_tail &&
        making->queue[making->queue_head].since <= making->round) {
        return making->queue[making->queue_head++].slot;
    }
    return (uint32_t)making->slot_count++;
}

static bool slot_give(struct making *making, struct making_thread *thread,
                      uint64_t block)
{
    const uint32_t slot = making->slots[block];

    if (!making->crosses[block]) {
        uint64_t room = thread->room;

        if (!grow(making, &thread->free, &room, thread->frees + 1,
                  sizeof *thread->free)) {
            return false;
        }
        thread->room = (size_t)room;
        thread->free[thread->frees++] = slot;
        return true;
    }
    if (!grow(making, &making->queue, &making->queue_room,
              making->queue_tail + 1, sizeof *making->queue)) {
        return false;
    }
    making->queue[making->queue_tail++] =
        (struct making_free){slot, (uint32_t)making->round + PLAN_WINDOW + 1};
    return true;
}

static enum plan_op op_of(enum trace_op op)
{
    switch (op) {
    case TRACE_MALLOC: return PLAN_MALLOC;
    case TRACE_CALLOC: return PLAN_CALLOC;
    case TRACE_ALIGNED: return PLAN_ALIGNED;
    case TRACE_FREE:
    case TRACE_LOST: return PLAN_FREE;
    default: return PLAN_REALLOC;
    }
}

static bool fill(void *context, const struct trace_event *event,
                 const struct trace_totals *totals)
{
    struct making *making = context;

    if (event->op == TRACE_THREAD_END) {
        return true;
    }
    struct making_thread *thread =
        making_step(making, event->thread, event->size, totals);
    const enum plan_op op = op_of(event->op);
    struct plan_step *step = &making->steps[thread->first + thread->steps++];

    step->what = event->size << 16 | (uint64_t)event->log << 8 | op;
    step->old = PLAN_NO_SLOT;
    if (op == PLAN_FREE) {
        step->slot = making->slots[event->block];
        return slot_give(making, thread, event->block);
    }
    /* First the new slot: both are in use at once. */
    step->slot = making->slots[event->block] =
        slot_take(making, thread, event->block);
    if (event->op == TRACE_REALLOC) {
        step->old = making->slots[event->old];
        return slot_give(making, thread, event->old);
    }
    return making->slot_count < PLAN_NO_SLOT;
}

/* ---- the file ------------------------------------------------------------- */

static uint64_t place(struct plan *plan, uint64_t count, size_t size)
{
    const uint64_t at = plan->bytes;

    plan->bytes += (count * size + 63) & ~(uint64_t)63;
    return at;
}

/* How long it is and where what is. */
static struct plan lay_out(const struct making *making,
                           const struct trace_totals *totals)
{
    struct plan plan = {.magic = PLAN_MAGIC,
                        .threads = making->thread_count,
                        .parties = making->party_count,
                        .runs = making->party_count,
                        .totals = *totals};

    plan.rounds = making->party_count ? making->round + 1 : 0;
    for (uint64_t i = 0; i < making->thread_count; i++) {
        plan.steps += making->threads[i].steps;
    }
    place(&plan, 1, sizeof plan);
    plan.at_threads = place(&plan, plan.threads, sizeof(struct plan_thread));
    plan.at_rounds = place(&plan, plan.rounds + 1, sizeof(struct plan_round));
    plan.at_parties = place(&plan, plan.parties, sizeof(uint32_t));
    plan.at_runs = place(&plan, plan.runs, sizeof(struct plan_run));
    plan.at_steps = place(&plan, plan.steps, sizeof(struct plan_step));
    return plan;
}

/* The threads' places; their counts begin anew. */
static void lay_threads(struct making *making, struct plan_thread *threads)
{
    uint64_t step = 0, run = 0;

    for (uint64_t i = 0; i < making->thread_count; i++) {
        struct making_thread *thread = &making->threads[i];

        threads[i] = (struct plan_thread){.run = run,
                                          .runs = thread->runs,
                                          .step = step,
                                          .steps = thread->steps,
                                          .begins = thread->begins,
                                          .ends = thread->ends};
        thread->first = step;
        thread->at_run = run;
        step += thread->steps;
        run += thread->runs;
        thread->steps = thread->runs = 0;
        thread->last_round = 0;
    }
    making->round = making->round_steps = making->round_bytes = 0;
    making->party_count = 0;
    making->counting = false;
}

/* A file of that length, mapped; NULL: errno. */
static void *make_file(const char *name, uint64_t bytes)
{
    const int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    void *map = MAP_FAILED;

    if (fd < 0) {
        return NULL;
    }
    /* All of it at once: a full disk is an error here, and no signal later. */
    const int error = posix_fallocate(fd, 0, (off_t)bytes);

    if (error == 0) {
        map = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                   0);
    } else {
        errno = error;
    }
    const int kept = errno;

    close(fd);
    errno = kept;
    return map == MAP_FAILED ? NULL : map;
}

static bool make_second(struct making *making, struct trace *trace,
                        bool partial, const char *file, struct plan laid)
{
    struct trace_totals totals;
    char *map = make_file(file, laid.bytes);

    if (map == NULL) {
        snprintf(trace->error, sizeof trace->error, "%.400s: %s", file,
                 strerror(errno));
        return false;
    }
    making->plan = (struct plan *)map;
    making->rounds = (struct plan_round *)(map + laid.at_rounds);
    making->parties = (uint32_t *)(map + laid.at_parties);
    making->runs = (struct plan_run *)(map + laid.at_runs);
    making->steps = (struct plan_step *)(map + laid.at_steps);
    making->slots = making->owners; /* not needed any more */
    lay_threads(making, (struct plan_thread *)(map + laid.at_threads));
    const bool good = trace_each(trace, partial, fill, making, &totals);

    making->rounds[laid.rounds] =
        (struct plan_round){laid.parties, totals.time, totals.live_bytes};
    laid.slots = making->slot_count;
    *making->plan = laid;
    munmap(map, (size_t)laid.bytes);
    return good;
}

bool plan_make(struct trace *trace, bool partial, const char *file,
               bool *system)
{
    struct making making = {.counting = true};
    struct trace_totals totals;
    bool good = trace_each(trace, partial, count, &making, &totals);

    *system = false;
    if (good) {
        good = make_second(&making, trace, partial, file,
                           lay_out(&making, &totals));
        *system = !good;
    }
    if (making.no_memory) {
        snprintf(trace->error, sizeof trace->error,
                 "not enough memory to read the trace");
        *system = true;
    }
    for (uint64_t i = 0; i < making.thread_count; i++) {
        free(making.threads[i].free);
    }
    free(making.threads);
    free(making.owners);
    free(making.crosses);
    free(making.queue);
    return good;
}
