/* Vectors of VECTOR bytes by the compiler's own extension, loaded from a weight as stored. A vector longer than the
 * machine's is several registers. To be included once for each VECTOR; OF(name) makes the names differ. Functions are
 * to be inlined into one that names its instruction set, which is TARGET. */
#include <string.h>
#include "half.h"
#include "spec.h"

#ifndef ALWAYS
#define ALWAYS inline __attribute__((always_inline))
#define LOAD(name, type, p) \
    type name;              \
    memcpy(&name, p, sizeof name)
#endif

enum { OF(LANE) = VECTOR / sizeof(real) };
typedef real OF(wide) __attribute__((vector_size(VECTOR)));
typedef float OF(floats) __attribute__((vector_size(VECTOR / sizeof(real) * sizeof(float))));
typedef uint32_t OF(words) __attribute__((vector_size(VECTOR / sizeof(real) * sizeof(uint32_t))));
typedef int32_t OF(masks) __attribute__((vector_size(VECTOR / sizeof(real) * sizeof(int32_t))));
typedef uint16_t OF(halves) __attribute__((vector_size(VECTOR / sizeof(real) * sizeof(uint16_t))));

TARGET static ALWAYS void OF(wide_f32)(const void *p, size_t i, OF(wide) *out) {
    LOAD(x, OF(floats), (const float *)p + i);
    *out = __builtin_convertvector(x, OF(wide));
}
TARGET static ALWAYS void OF(wide_f64)(const void *p, size_t i, OF(wide) *out) {
    for (size_t j = 0; j < OF(LANE); j++) (*out)[j] = (real)((const double *)p)[i + j];
}
TARGET static ALWAYS void OF(wide_bf16)(const void *p, size_t i, OF(wide) *out) {
    LOAD(h, OF(halves), (const uint16_t *)p + i);
    OF(words) w = __builtin_convertvector(h, OF(words)) << 16;
    *out = __builtin_convertvector((OF(floats))w, OF(wide));
}
TARGET static ALWAYS void OF(wide_f16)(const void *p, size_t i, OF(wide) *out) { /* half.h, on vectors */
    LOAD(h, OF(halves), (const uint16_t *)p + i);
    OF(words) w = __builtin_convertvector(h, OF(words)) << 16, sign = w & 0x80000000u, twice = w + w;
    OF(floats) normal = (OF(floats))((twice >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
    OF(floats) small = (OF(floats))((twice >> 17) | (126u << 23)) - 0.5f;
    OF(words) mask = (OF(words))(OF(masks))(twice < (1u << 27));
    OF(words) bits = ((OF(words))small & mask) | ((OF(words))normal & ~mask) | sign;
    *out = __builtin_convertvector((OF(floats))bits, OF(wide));
}

/* element i of a weight of any type, converted */
#ifndef PS_WIDE_ONE
#define PS_WIDE_ONE
static inline real one_f32(const void *p, ptrdiff_t i) { return (real)((const float *)p)[i]; }
static inline real one_f64(const void *p, ptrdiff_t i) { return (real)((const double *)p)[i]; }
static inline real one_f16(const void *p, ptrdiff_t i) { return (real)half_to_float(((const uint16_t *)p)[i]); }
static inline real one_bf16(const void *p, ptrdiff_t i) { return (real)bf16_to_float(((const uint16_t *)p)[i]); }
#endif
