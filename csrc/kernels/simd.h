/* Vectors of VECTOR bytes by the compiler's vector extension, loaded from a weight of any type. A vector longer than the
 * processor's takes several registers. Included once for each VECTOR; OF(name) makes the names differ. Every function
 * must be inlined into one that has TARGET, its instruction set. */
#include <string.h>
#include "base/half.h"
#include "kernels/weight.h"
#ifdef __x86_64__
#include <immintrin.h>
#endif

#ifndef ALWAYS
#if defined(__clang__)
#define SHUFFLE(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLE(x, y, ...) __builtin_shuffle(x, y, (OF(indices)){__VA_ARGS__})
#endif
#define WIDTH_ ((int)OF(WIDTH))
#define ALWAYS inline __attribute__((always_inline))
#define PRAGMA(text) _Pragma(#text)
#ifdef __SANITIZE_ADDRESS__
#define UNROLL(n) /* every access is instrumented: unrolled, gemv.c takes many minutes to compile */
#else
#define UNROLL(n) PRAGMA(GCC unroll n)
#endif
#define LOAD(name, type, p) \
    type name;              \
    memcpy(&name, p, sizeof name)
#endif

enum { OF(WIDTH) = VECTOR / sizeof(real) };
typedef real OF(simd) __attribute__((vector_size(VECTOR)));
typedef float OF(floats) __attribute__((vector_size(VECTOR / sizeof(real) * sizeof(float))));
typedef uint32_t OF(words) __attribute__((vector_size(VECTOR / sizeof(real) * sizeof(uint32_t))));
typedef int32_t OF(masks) __attribute__((vector_size(VECTOR / sizeof(real) * sizeof(int32_t))));
typedef uint16_t OF(halves) __attribute__((vector_size(VECTOR / sizeof(real) * sizeof(uint16_t))));

TARGET static ALWAYS void OF(simd_f32)(const void *p, size_t i, OF(simd) *out) {
    LOAD(x, OF(floats), (const float *)p + i);
    *out = __builtin_convertvector(x, OF(simd));
}
TARGET static ALWAYS void OF(simd_f64)(const void *p, size_t i, OF(simd) *out) {
    for (size_t j = 0; j < OF(WIDTH); j++) (*out)[j] = (real)((const double *)p)[i + j];
}
TARGET static ALWAYS void OF(simd_bf16)(const void *p, size_t i, OF(simd) *out) {
    LOAD(h, OF(halves), (const uint16_t *)p + i);
    OF(words) w = __builtin_convertvector(h, OF(words)) << 16;
    *out = __builtin_convertvector((OF(floats))w, OF(simd));
}
/* half_to_float of half.h on a vector: each word holds a float16 in its upper half and 0 in the lower one */
TARGET static ALWAYS OF(simd) OF(f16_of)(OF(words) w) {
    OF(words) sign = w & 0x80000000u, twice = w + w;
    OF(floats) normal = (OF(floats))((twice >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
    OF(floats) small = (OF(floats))((twice >> 17) | (126u << 23)) - 0.5f;
    OF(words) mask = (OF(words))(OF(masks))(twice < (1u << 27));
    OF(words) bits = ((OF(words))small & mask) | ((OF(words))normal & ~mask) | sign;
    return __builtin_convertvector((OF(floats))bits, OF(simd));
}
TARGET static ALWAYS void OF(simd_f16)(const void *p, size_t i, OF(simd) *out) {
    LOAD(h, OF(halves), (const uint16_t *)p + i);
#if VECTOR / REAL_SIZE == 16
    *out = __builtin_convertvector((OF(floats))_mm512_cvtph_ps((__m256i)h), OF(simd));
#elif VECTOR / REAL_SIZE == 8
    *out = __builtin_convertvector((OF(floats))_mm256_cvtph_ps((__m128i)h), OF(simd));
#else
    *out = OF(f16_of)(__builtin_convertvector(h, OF(words)) << 16);
#endif
}

#if REAL_SIZE == 8
typedef int64_t OF(indices) __attribute__((vector_size(VECTOR)));
#else
typedef int32_t OF(indices) __attribute__((vector_size(VECTOR)));
#endif

/* Rows a and b, s apart: exchanges the elements of a in columns with bit s set with those of b in columns without. */
TARGET static ALWAYS void OF(exchange)(OF(simd) *a, OF(simd) *b, int s) {
    OF(simd) x = *a, y = *b;
#define LOW(j, s) ((j) & (s) ? WIDTH_ + (j) - (s) : (j))
#define HIGH(j, s) ((j) & (s) ? WIDTH_ + (j) : (j) + (s))
#if VECTOR / REAL_SIZE == 16
#define EACH(f, s) f(0, s), f(1, s), f(2, s), f(3, s), f(4, s), f(5, s), f(6, s), f(7, s), f(8, s), f(9, s), f(10, s), \
                   f(11, s), f(12, s), f(13, s), f(14, s), f(15, s)
#elif VECTOR / REAL_SIZE == 8
#define EACH(f, s) f(0, s), f(1, s), f(2, s), f(3, s), f(4, s), f(5, s), f(6, s), f(7, s)
#elif VECTOR / REAL_SIZE == 4
#define EACH(f, s) f(0, s), f(1, s), f(2, s), f(3, s)
#else
#define EACH(f, s) f(0, s), f(1, s)
#endif
#define STEP(s)                                                                                       \
    case s:                                                                                           \
        *a = SHUFFLE(x, y, EACH(LOW, s));                                                             \
        *b = SHUFFLE(x, y, EACH(HIGH, s));                                                            \
        return;
    switch (s) {
        STEP(1)
#if VECTOR / REAL_SIZE > 2
        STEP(2)
#endif
#if VECTOR / REAL_SIZE > 4
        STEP(4)
#endif
#if VECTOR / REAL_SIZE > 8
        STEP(8)
#endif
    }
#undef LOW
#undef HIGH
#undef EACH
#undef STEP
}

/* Transposes a WIDTH x WIDTH block in registers: step s exchanges the off-diagonal blocks of size s. */
TARGET static ALWAYS void OF(transpose)(OF(simd) *rows) {
    UNROLL(4)
    for (int s = 1; s < WIDTH_; s *= 2)
        UNROLL(16)
        for (int i = 0; i < WIDTH_; i++)
            if (!(i & s)) OF(exchange)(&rows[i], &rows[i + s], s);
}

/* Element i of a weight of any type, converted to real */
#ifndef PS_SIMD_ONE
#define PS_SIMD_ONE
static inline real one_f32(const void *p, ptrdiff_t i) { return (real)((const float *)p)[i]; }
static inline real one_f64(const void *p, ptrdiff_t i) { return (real)((const double *)p)[i]; }
static inline real one_f16(const void *p, ptrdiff_t i) { return (real)half_to_float(((const uint16_t *)p)[i]); }
static inline real one_bf16(const void *p, ptrdiff_t i) { return (real)bf16_to_float(((const uint16_t *)p)[i]); }
#endif
