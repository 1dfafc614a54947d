/*
 * ops.h - the fuzzer's door: one input is run, or a part of it.
 */
#ifndef FUZZ_OPS_H
#define FUZZ_OPS_H

#include <stddef.h>
#include <stdint.h>

/*
 * Runs the operations that `data` stands for, from a state in which nothing
 * is allocated to another such. A contradiction ends the program with one
 * line. Returns 0. libFuzzer knows it by this name.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Runs `count` of the input's operations, or as many as there are. */
void ops_run(size_t count);

#endif /* FUZZ_OPS_H */
