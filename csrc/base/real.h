/* The scalar of the core. The core is compiled twice from the same sources: float (_core32) and, with
 * -DPS_DOUBLE, double (_core64). Code outside this file should hold for both; where it cannot, it tests PS_DOUBLE or
 * REAL_SIZE. */
#ifndef PS_REAL_H
#define PS_REAL_H
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if SIZE_MAX < UINT64_MAX || (defined __BYTE_ORDER__ && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
#error "powersteer needs a 64-bit, little-endian machine"
#endif

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
_Static_assert(sizeof(real) == REAL_SIZE, "the size for the preprocessor is that of the type");

#endif
