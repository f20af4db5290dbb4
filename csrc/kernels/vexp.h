/*  y = exp(x)  of n numbers; y may be x.
 *
 * In float the error is at most 1.5 ulp (measured on every float). A result below e^-86.9 may be 0, one beyond the largest
 * float is infinity, NaN stays NaN. In double it calls libm's exp: that build is the reference. */
#ifndef PS_VEXP_H
#define PS_VEXP_H
#include "base/cpu.h"
#include "base/real.h"

/* isa: one that this machine has */
void vexp(cpu_isa isa, size_t n, const real *x, real *y);

#endif
