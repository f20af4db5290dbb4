/* Counter-based random numbers: the n-th draw of stream (seed, stream) is a pure function of the three, so any
 * number of threads and any order of work give the same values. State is the caller's. */
#ifndef PS_RNG_H
#define PS_RNG_H
#include "base/real.h"

typedef struct {
    uint64_t seed, stream, counter;
} rng;

uint64_t rng_bits(rng *g);                            /* 64 random bits; counter += 1 */
double rng_uniform(rng *g);                           /* in [0, 1), 53 bits */
void rng_normal(rng *g, size_t n, real *out);         /* standard normal */

#endif
