/* y = exp(x), n at a time. Within 1.5 ulp in float (every float was tried); what is below e^-86.9 may be 0, too
 * large is infinity, NaN stays NaN. In double it is libm's: that build is the oracle. y may be x. */
#ifndef PS_VEXP_H
#define PS_VEXP_H
#include "base/cpu.h"
#include "base/real.h"

/* kind: one that the machine has */
void vexp(cpu_isa kind, size_t n, const real *x, real *y);

#endif
