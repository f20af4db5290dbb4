#include "kernels/vexp.h"
#include <string.h>

#ifdef PS_DOUBLE
static inline double one(double x) { return exp(x); }
#else
/*  exp(x) = 2^n exp(r),  x = n ln 2 + r,  |r| <= ln(2)/2
 * ln 2 is split in two parts so that r is exact. exp(r) is the polynomial of Cephes' expf (S. Moshier): Taylor's, economised
 * on that interval. There is no branch, so that a loop of it vectorises. */
static inline __attribute__((always_inline)) float one(float x) {
    x = x < -87.3f ? -87.3f : x > 89.0f ? 89.0f : x; /* n in -126..128 */
    float shifted = x * 1.44269504088896341f + 0x1.8p23f, n = shifted - 0x1.8p23f; /* rounded to an integer */
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits + 126) << 23; /* 2^(n-1), 0 for n = -126: the low bits of `shifted` hold n */
    float power;
    memcpy(&power, &bits, 4);
    return p * power * 2;
}
#endif

#define BODY for (size_t i = 0; i < n; i++) y[i] = one(x[i]);

static void plain(size_t n, const real *x, real *y) { BODY }

#if HAS_TARGETS
TARGET_AVX2 static void avx2(size_t n, const real *x, real *y) { BODY }
TARGET_AVX512 static void avx512(size_t n, const real *x, real *y) { BODY }
#else
#define avx2 plain
#define avx512 plain
#endif

void vexp(cpu_isa isa, size_t n, const real *x, real *y) {
    static void (*const kernels[])(size_t, const real *, real *) = {[PLAIN] = plain, [AVX2] = avx2, [AVX512] = avx512};
    kernels[isa](n, x, y);
}
