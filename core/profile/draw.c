/*
 * draw.c - chance: see draw.h.
 *
 * Tested by tests/unit/profile/profile.c.
 */
#include "profile/draw.h"

#include <string.h>

/* No distance is longer: 2^52 bytes, which a double holds exactly. */
#define DRAW_MOST 4503599627370496.0

/* The natural logarithm of x, 0 < x <= 1, to some 12 digits. */
static double draw_log(double x)
{
    uint64_t bits;
    double z, square, sum = 0;
    int exponent;

    memcpy(&bits, &x, sizeof(bits));
    exponent = (int)(bits >> 52) - 1022;
    bits = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1022) << 52;
    memcpy(&x, &bits, sizeof(x)); /* 0.5 <= x < 1 */
    if (x < 0.70710678118654752) {
        x *= 2;
        exponent--;
    }
    z = (x - 1) / (x + 1);
    square = z * z;
    for (int n = 15; n >= 1; n -= 2) {
        sum = sum * square + 1.0 / n;
    }
    return 2 * z * sum + exponent * 0.69314718055994531;
}

/* An exponential distance with the mean `rate`. */
static double draw_distance(size_t rate, uint64_t *state)
{
    double u =
        ((double)(haki_draw_next(state) >> 12) + 0.5) / 4503599627370496.0;
    double distance = -draw_log(u) * (double)rate;

    return distance < DRAW_MOST ? distance : DRAW_MOST;
}

int64_t haki_draw_bytes(size_t rate, uint64_t *state)
{
    return (int64_t)draw_distance(rate, state);
}

int64_t haki_draw_blocks(size_t rate, size_t bytes, uint64_t *state)
{
    return (int64_t)(draw_distance(rate, state) / (double)bytes);
}

double haki_draw_chance(size_t rate, size_t bytes)
{
    double x = (double)bytes / (double)rate;
    double term, sum = 0;
    int halved = 0;

    if (x > 40) {
        return 1;
    }
    for (; x > 0.5; x /= 2) {
        halved++;
    }
    term = x;
    for (int n = 2; n < 14; n++) { /* 1 - exp(-x) = x - x^2/2! + ... */
        sum += term;
        term *= -x / n;
    }
    for (; halved > 0; halved--) {
        sum *= 2 - sum;
    }
    return sum;
}
