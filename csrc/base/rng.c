#include "base/rng.h"

/* Philox 2x64-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"): ten rounds
 *   (x0, x1) <- (hi(M x0) ^ key ^ x1, lo(M x0)),   key += W
 * on the block (counter, stream), with the seed as the first key. */
static const uint64_t M = 0xD2B74407B1CE6E93u, W = 0x9E3779B97F4A7C15u;
static const double TWO_PI = 6.283185307179586;

static uint64_t multiply_high(uint64_t a, uint64_t b) {
    uint64_t al = a & 0xFFFFFFFFu, ah = a >> 32, bl = b & 0xFFFFFFFFu, bh = b >> 32;
    uint64_t mid = ah * bl + (al * bl >> 32); /* fits: (2^32-1)^2 + 2^32-1 < 2^64 */
    return ah * bh + (mid >> 32) + ((al * bh + (mid & 0xFFFFFFFFu)) >> 32);
}

static void philox(rng *g, uint64_t out[2]) {
    uint64_t x0 = g->counter++, x1 = g->stream, key = g->seed;
    for (int round = 0; round < 10; round++, key += W) {
        uint64_t high = multiply_high(M, x0), low = M * x0;
        x0 = high ^ key ^ x1;
        x1 = low;
    }
    out[0] = x0;
    out[1] = x1;
}

uint64_t rng_bits(rng *g) {
    uint64_t x[2];
    philox(g, x);
    return x[0];
}

static double unit(uint64_t bits) { return (double)(bits >> 11) * 0x1.0p-53; }

double rng_uniform(rng *g) { return unit(rng_bits(g)); }

/* Box-Muller: one block gives two numbers, so that n numbers cost (n+1)/2 of the counter. */
void rng_normal(rng *g, size_t n, real *out) {
    for (size_t i = 0; i < n; i += 2) {
        uint64_t x[2];
        philox(g, x);
        double radius = sqrt(-2 * log(1 - unit(x[0]))), angle = TWO_PI * unit(x[1]);
        out[i] = (real)(radius * cos(angle));
        if (i + 1 < n) out[i + 1] = (real)(radius * sin(angle));
    }
}
