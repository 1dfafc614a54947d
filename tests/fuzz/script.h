/*
 * script.h - the fuzzer's input, as its operations read it. At its end all is 0.
 */
#ifndef FUZZ_SCRIPT_H
#define FUZZ_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern struct script {
    const uint8_t *at, *end;
    size_t cost;
    size_t variant; /* of the operation that runs, 0 to 7 */
} script;

size_t script_next(void);  /* of a byte */
size_t script_next2(void); /* of two */

/* Sizes next to where something changes, and of every lane. */
size_t script_size(void);

size_t script_alignment(void);

/* How many blocks of this size an operation on many takes. */
size_t script_count(size_t size);

/* Whether there is input left, and an input may cost more. */
bool script_has_more(void);

/* A block of so many bytes is allocated or freed. */
void script_pay(size_t bytes);

#endif
