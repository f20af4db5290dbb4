/* Counter-based random numbers: a draw is a function of (seed, stream, counter) alone, so that any number of threads and
 * any order of work give the same values. The state belongs to the caller. */
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
