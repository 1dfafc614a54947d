/*
 * model.h - the shadow model: what the fuzzer knows of every live block.
 *
 * For each block: where it is, its size, its contents and its owner. The model
 * compares what the allocator returns with that and ends the program with one
 * line at the first contradiction. It uses only the public interface, and no
 * memory except its own static tables.
 *
 * One thread at a time uses it: the fuzzer's threads take turns.
 */
#ifndef FUZZ_MODEL_H
#define FUZZ_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hakmem.h>

#define MODEL_BLOCKS 8192
#define MODEL_HEAPS 4
#define MODEL_NO_HEAP (-1)
/* Bytes in live blocks at most, as asked for. */
#define MODEL_BYTES ((size_t)64 << 20)

struct model_block {
    unsigned char *p;
    size_t size;   /* as asked for */
    size_t usable; /* what hak_usable_size said */
    size_t filled; /* bytes that carry the pattern, size to usable */
    uint64_t seed; /* of the pattern */
    int heap;      /* its heap's place in model.heaps, or MODEL_NO_HEAP */
    uint16_t rank; /* its place in model.live */
};

struct model_heap {
    hak_heap *heap; /* NULL: the place is free */
    size_t limit;   /* 0: none */
    size_t bytes;   /* of its live blocks, as asked for */
    size_t usable;  /* the same, as hak_usable_size said */
    size_t blocks;
};

struct model {
    struct model_block blocks[MODEL_BLOCKS];
    uint16_t unused[MODEL_BLOCKS]; /* places in blocks, a stack */
    uint16_t live[MODEL_BLOCKS];   /* places of live blocks, in no order */
    uint16_t sorted[MODEL_BLOCKS]; /* the same by address */
    size_t count;                  /* live blocks */
    size_t bytes;                  /* in them, as asked for */
    struct model_heap heaps[MODEL_HEAPS];
    uint64_t seeds; /* blocks added so far */
    /* for messages */
    const char *operation;
    size_t step;
};

extern struct model model;

/* Empties the model. */
void model_begin(void);

/* Says in one line what is wrong, and at which operation; aborts. */
_Noreturn __attribute__((format(printf, 1, 2))) void
model_fail(const char *format, ...);

/* Whether one more block of `size` bytes may be asked for. */
bool model_room(size_t size);

/*
 * A new block p. Checks that it is there, aligned, large enough, and apart
 * from every other; if `zeroed`, that it is zero. Then fills it with a
 * pattern, all that is usable of it if `brim`. Returns its place.
 */
uint16_t model_add(void *p, size_t size, size_t alignment, int heap,
                   bool zeroed, bool brim);

/* Checks that the block still is what it was when it was added. */
void model_check(uint16_t at);
void model_check_all(void);

/* The block is about to be freed: checks it, then forgets it. */
struct model_block model_remove(uint16_t at);

/* Checks that the first `bytes` at p are those of the block `old`. */
void model_kept(const struct model_block *old, const void *p, size_t bytes);

/* Where a live block stands in the order of addresses. */
size_t model_position(uint16_t at);

/* The statistics, when all is as the model says; or when all was freed. */
void model_check_figures(void);
void model_check_end(void);
void model_check_heap(int heap);

#endif /* FUZZ_MODEL_H */
