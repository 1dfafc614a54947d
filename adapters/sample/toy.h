/*
 * toy.h - a toy runtime, as somebody else might have written it: it knows
 * nothing of HAKMEM, and asks its host for memory by one function.
 *
 * A program is words, which work on a stack of values:
 *
 *     12 'abc          push a number, a text
 *     +  cat           add two numbers, join two texts
 *     list add         push an empty list; append the top to the list below it
 *     dup drop         copy the top, whole; drop it
 *     N { ... }        do what is in braces N times
 */
#ifndef TOY_H
#define TOY_H

#include <stddef.h>

/*
 * osize is the size of the block p as it was asked for (0: p is NULL). nsize 0
 * frees p. Returns NULL for want of memory; p is then as it was. A block may be
 * made smaller, which must not fail.
 */
typedef void *(*toy_alloc)(void *ud, void *p, size_t osize, size_t nsize);

struct toy;

enum toy_status { TOY_OK, TOY_NO_MEMORY, TOY_WRONG };

/* NULL: no memory. */
struct toy *toy_new(toy_alloc alloc, void *ud);
void toy_free(struct toy *toy);

/* What went wrong leaves the stack as it is then: more may be run. */
enum toy_status toy_run(struct toy *toy, const char *program);

/* Of the stack, and of the list or text on top of it. */
size_t toy_depth(const struct toy *toy);
size_t toy_length(const struct toy *toy);
/* Of the number on top. */
long toy_number(const struct toy *toy);

/* The allocator now; a running toy may be given another. */
toy_alloc toy_get_alloc(const struct toy *toy, void **ud);
void toy_set_alloc(struct toy *toy, toy_alloc alloc, void *ud);

#endif /* TOY_H */
