/* The scalar of the core. The core is compiled twice from the same sources: float (_core32) and, with
 * -DPS_DOUBLE, double (_core64). Nothing outside this file may depend on which of the two it is. */
#ifndef PS_REAL_H
#define PS_REAL_H
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#ifdef PS_DOUBLE
typedef double real;
#define REAL_SIZE 8
#define REAL_EPS DBL_EPSILON
#define REAL_MAX DBL_MAX
#define FN(name) name        /* FN(exp)(x) is exp(x) or expf(x) */
#else
typedef float real;
#define REAL_SIZE 4 /* for the preprocessor */
#define REAL_EPS FLT_EPSILON
#define REAL_MAX FLT_MAX
#define FN(name) name##f
#endif

#endif
