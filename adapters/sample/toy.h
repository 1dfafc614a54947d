/*
 * toy.h - a toy runtime, as somebody else might have written it: it knows
 * nothing of HAKMEM, and gets memory from its host through one function.
 *
 * A program consists of words that work on a stack of values:
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
 * osize is the size that block p was asked for with (0: p is NULL). nsize 0
 * frees p. Returns NULL if there is no memory; p is then untouched. Making a
 * block smaller must not fail.
 */
typedef void *(*toy_alloc)(void *ud, void *p, size_t osize, size_t nsize);

struct toy;

enum toy_status { TOY_OK, TOY_NO_MEMORY, TOY_WRONG };

/* NULL: no memory. */
struct toy *toy_new(toy_alloc alloc, void *ud);
void toy_free(struct toy *toy);

/* After an error the stack stays as it is, and more may be run. */
enum toy_status toy_run(struct toy *toy, const char *program);

/* The depth of the stack, and the length of the list or text on top of it. */
size_t toy_depth(const struct toy *toy);
size_t toy_length(const struct toy *toy);
/* The value of the number on top. */
long toy_number(const struct toy *toy);

/* The present allocator; a running toy may be given another one. */
toy_alloc toy_get_alloc(const struct toy *toy, void **ud);
void toy_set_alloc(struct toy *toy, toy_alloc alloc, void *ud);

#endif /* TOY_H */
