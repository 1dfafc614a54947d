/*
 * draw.h - chance: when the next sample is due, and what it stands for.
 *
 * A profile samples bytes: with the rate R each byte given out begins a sample with
 * the probability 1/R, whatever came before. The distance to the next one in bytes
 * is then exponential; a block of s bytes is a sample with the probability
 *
 *     chance(s) = 1 - exp(-s / R)
 *
 * and stands for 1 / chance(s) blocks, s / chance(s) bytes: sums of these are
 * unbiased for every size and any mixture. Of blocks of one size so many pass by
 * before the next sample as fit into the distance. It has no memory: to draw anew
 * at any time changes nothing, as long as what came of the draw is not looked at.
 *
 * No thread-local state, no libm: called from slow paths of allocation.
 */
#ifndef HAK_DRAW_H
#define HAK_DRAW_H

#include "base/base.h"

/* The next number of a sequence (splitmix64). */
HAK_INLINE uint64_t haki_draw_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Bytes to the next sample; rate at least 1. */
int64_t haki_draw_bytes(size_t rate, uint64_t *state);

/* Blocks of `bytes` bytes that are given out before the next sample. */
int64_t haki_draw_blocks(size_t rate, size_t bytes, uint64_t *state);

/* The probability that a block of so many bytes is a sample: above 0, at most 1. */
double haki_draw_chance(size_t rate, size_t bytes);

#endif /* HAK_DRAW_H */
