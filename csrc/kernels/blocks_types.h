/* The numbers of every type of blocks, for one instruction set, TARGET, by vectors of VECTOR bytes. Included for each by blocks.c,
 * which writes the numbers to memory, and by gemv.c, which multiplies them in registers.
 *
 * A type is one function, for runs r0 .. r1 of the block at b, whose factor, if that lies apart, is at `factor`. It works on
 * bytes, 16 at a time, which are widened last, and gives vectors of float32 to `take`: a constant after inlining, as are the
 * sizes. Every function must be inlined into one that has TARGET.
 *
 * Products of a factor and a small integer are exact in float32 wherever a sum follows, so that a fused multiply-add
 * changes no bit. */
#ifndef PS_BLOCKS_TYPES_H
#define PS_BLOCKS_TYPES_H
#include <string.h>
#include "base/half.h"
#include "kernels/blocks.h"
#ifdef __x86_64__
#include <immintrin.h>
#endif

#ifndef ALWAYS
#define ALWAYS inline __attribute__((always_inline))
#endif

/* EACH(type, numbers of a block, bytes of a block, bytes of a factor that lies apart) */
#define BLOCK_TYPES(EACH)                                                                                  \
    EACH(Q4_0, 32, 18, 0) EACH(Q4_1, 32, 20, 0) EACH(Q5_0, 32, 22, 0) EACH(Q5_1, 32, 24, 0)                \
    EACH(Q8_0, 32, 34, 0) EACH(Q2_K, 256, 84, 0) EACH(Q3_K, 256, 110, 0) EACH(Q4_K, 256, 144, 0)           \
    EACH(Q5_K, 256, 176, 0) EACH(Q6_K, 256, 210, 0) EACH(IQ4_NL, 32, 18, 0) EACH(IQ4_XS, 256, 136, 0)      \
    EACH(MXFP4, 32, 17, 0) EACH(F8_E4M3, 1, 1, 4) EACH(MXFP4_APART, 32, 16, 1)

/* Blocks hold little-endian numbers, which are read as they are, and bytes of wider numbers are taken by their place. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a big-endian machine would compute other weights");

/* Vectors of 16 bytes, which every instruction set has */
typedef uint8_t bytes __attribute__((vector_size(16)));
typedef uint16_t pairs __attribute__((vector_size(16)));
typedef uint32_t words __attribute__((vector_size(16)));
#if defined(__clang__)
#define PERMUTED(type, x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define PERMUTED(type, x, y, ...) __builtin_shuffle(x, y, (type){__VA_ARGS__})
#endif
/* Elements of x and y by turns, of their lower or upper halves */
#define LOWER_BYTES(x, y) PERMUTED(bytes, x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define UPPER_BYTES(x, y) PERMUTED(bytes, x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define LOWER_PAIRS(x, y) PERMUTED(pairs, x, y, 0, 8, 1, 9, 2, 10, 3, 11)
#define UPPER_PAIRS(x, y) PERMUTED(pairs, x, y, 4, 12, 5, 13, 6, 14, 7, 15)

static ALWAYS bytes bytes_at(const uint8_t *p) {
    bytes q;
    memcpy(&q, p, 16);
    return q;
}

/* 2^(e - 128): half of what the exponent e of MXFP4 means */
static ALWAYS float half_power(uint32_t e) { return bits_to_float(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

/* Levels of IQ4_NL and IQ4_XS; those of FP4 (one sign bit, 2 of exponent, 1 of mantissa) doubled, and with the sign apart */
static const bytes UNEVEN = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const bytes FP4_DOUBLED = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
static const bytes FP4_SIGN_SIZE = {0, 1, 2, 3, 4, 6, 8, 12, 128, 129, 130, 131, 132, 134, 136, 140};

#endif

typedef float OF(values) __attribute__((vector_size(VECTOR)));
typedef int32_t OF(ints) __attribute__((vector_size(VECTOR)));

TARGET static ALWAYS float OF(half_at)(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
#if VECTOR > 16
    return _cvtsh_ss(h);
#else
    return half_to_float(h);
#endif
}

/* Signed bytes j*VECTOR/4 and following, as many as the vector holds */
TARGET static ALWAYS OF(ints) OF(widened)(bytes q, int j) {
#if VECTOR == 64
    (void)j;
    return (OF(ints))_mm512_cvtepi8_epi32((__m128i)q);
#elif VECTOR == 32
    return (OF(ints))_mm256_cvtepi8_epi32(j ? _mm_bsrli_si128((__m128i)q, 8) : (__m128i)q);
#else /* to the highest byte of a word, and down again with the sign */
    bytes zero = {0}, high = j < 2 ? LOWER_BYTES(zero, q) : UPPER_BYTES(zero, q);
    pairs none = {0}, both = (pairs)high;
    return (OF(ints))(j % 2 ? UPPER_PAIRS(none, both) : LOWER_PAIRS(none, both)) >> 24;
#endif
}


/* Takes numbers n .. n + VECTOR/4 of a run. at: the number of runs before this one; n is a constant after inlining. */
typedef void OF(taker)(void *to, size_t at, size_t n, OF(values) *v);
typedef void OF(runs)(const uint8_t *b, size_t r0, size_t r1, const uint8_t *factor, OF(taker) *take, void *to, size_t at);

/* What the 16 numbers x of an expression become, vector by vector */
#define PUT(x)                                         \
    for (int j = 0; j < 64 / VECTOR; j++) {            \
        OF(ints) q = OF(widened)(numbers, j);          \
        OF(values) value = x;                          \
        take(to, at, n + (size_t)j * VECTOR / 4, &value); \
    }
#define TAKER OF(taker) *take, void *to, size_t at, const size_t n
TARGET static ALWAYS void OF(put_scaled)(bytes numbers, float d, TAKER) { PUT(__builtin_convertvector(q, OF(values)) * d) }
TARGET static ALWAYS void OF(put)(bytes numbers, float d, float m, TAKER) { PUT(__builtin_convertvector(q, OF(values)) * d + m) }
/* The same for numbers of one sign bit and 7 of size, which can be a negative zero */
TARGET static ALWAYS void OF(put_sign_size)(bytes numbers, float d, TAKER) {
    PUT((OF(values))((OF(ints))(__builtin_convertvector(q & 127, OF(values)) * d) | (q & INT32_MIN)))
}

/* Floats of one sign bit, 4 of exponent (bias 7) and 3 of mantissa. Normal numbers: move exponent and mantissa to their places
 * in a float32. Subnormal ones: put the mantissa under the exponent of 2^-6 and subtract 2^-6. */
TARGET static ALWAYS OF(values) OF(of_e4m3)(OF(ints) q) {
    OF(ints) size = q & 127, normal = (size << 20) + (120 << 23), is_small = size < 8, is_nan = size == 127;
    OF(ints) small = (OF(ints))((OF(values))((size << 20) + (121 << 23)) - 0x1p-6f);
    return (OF(values))((q & INT32_MIN) | (small & is_small) | (normal & ~is_small) | (is_nan & 0x7F800000));
}
TARGET static ALWAYS void OF(put_e4m3)(bytes numbers, float d, TAKER) { PUT(OF(of_e4m3)(q) * d) }
#undef PUT
#undef TAKER

/* 16 for each of the first 16 bits at p that is set, else 0. Reads 16 bytes. */
TARGET static ALWAYS bytes OF(fifth_bits)(const uint8_t *p) {
    const bytes bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    bytes all = bytes_at(p), twice = LOWER_BYTES(all, all);
    pairs four_times = LOWER_PAIRS((pairs)twice, (pairs)twice);
    words eight_times = PERMUTED(words, (words)four_times, (words)four_times, 0, 0, 1, 1);
    return (bytes)(((bytes)eight_times & bit) != 0) & 16;
}

/* levels[q], q < 16 */
TARGET static ALWAYS bytes OF(looked_up)(bytes levels, bytes q) {
#ifdef __clang__
    bytes out;
    for (int j = 0; j < 16; j++) out[j] = levels[q[j]];
    return out;
#else
    return __builtin_shuffle(levels, q);
#endif
}

/* Bits 0 .. 7 of each byte, moved down by n */
TARGET static ALWAYS bytes OF(down)(bytes q, size_t n, uint8_t mask) { return (bytes)((pairs)q >> (int)n) & mask; }

/* The 16 six-bit numbers of Q4_K and Q5_K: 8 scales, then 8 minima, which lie as
 *   EEAAAAAA FFBBBBBB GGCCCCCC HHDDDDDD  eeaaaaaa ffbbbbbb ggcccccc hhdddddd  eeeeEEEE ffffFFFF ggggGGGG hhhhHHHH */
TARGET static ALWAYS bytes OF(scales_and_minima)(const uint8_t *p) {
    uint32_t w[3];
    memcpy(w, p, 12);
    return (bytes)(words){w[0] & 0x3F3F3F3F, (w[2] & 0x0F0F0F0F) | (w[0] >> 2 & 0x30303030), w[1] & 0x3F3F3F3F,
                          (w[2] >> 4 & 0x0F0F0F0F) | (w[1] >> 2 & 0x30303030)};
}

/* 16 products of d as floats in memory */
TARGET static ALWAYS void OF(store)(void *to, size_t at, size_t n, OF(values) *v) { memcpy((float *)to + at * BLOCK_RUN + n, v, VECTOR); }
TARGET static ALWAYS void OF(scales)(bytes numbers, float d, float *out) { OF(put_scaled)(numbers, d, OF(store), out, 0, 0); }

#define TYPE(name)                                                                                                       \
    TARGET static ALWAYS void OF(runs_##name)(const uint8_t *b, size_t r0, size_t r1, const uint8_t *factor, OF(taker) *take, \
                                              void *to, size_t at)
#define ONE_RUN (void)r0, (void)r1
#define EACH_RUN for (size_t r = r0; r < r1; r++, at++)
#define EACH_HALF for (size_t half = 0; half < 2; half++)
#define TO(n) take, to, at, n

TYPE(Q4_0) {
    float d = OF(half_at)(b);
    bytes q = bytes_at(b + 2);
    ONE_RUN, (void)factor;
    OF(put_scaled)((q & 15) - 8, d, TO(0));
    OF(put_scaled)((q >> 4) - 8, d, TO(16));
}

TYPE(Q4_1) {
    float d = OF(half_at)(b), m = OF(half_at)(b + 2);
    bytes q = bytes_at(b + 4);
    ONE_RUN, (void)factor;
    OF(put)(q & 15, d, m, TO(0));
    OF(put)(q >> 4, d, m, TO(16));
}

TYPE(Q5_0) {
    float d = OF(half_at)(b);
    bytes q = bytes_at(b + 6);
    ONE_RUN, (void)factor;
    OF(put_scaled)(((q & 15) | OF(fifth_bits)(b + 2)) - 16, d, TO(0));
    OF(put_scaled)(((q >> 4) | OF(fifth_bits)(b + 4)) - 16, d, TO(16));
}

TYPE(Q5_1) {
    float d = OF(half_at)(b), m = OF(half_at)(b + 2);
    bytes q = bytes_at(b + 8);
    ONE_RUN, (void)factor;
    OF(put)((q & 15) | OF(fifth_bits)(b + 4), d, m, TO(0));
    OF(put)((q >> 4) | OF(fifth_bits)(b + 6), d, m, TO(16));
}

TYPE(Q8_0) {
    float d = OF(half_at)(b);
    ONE_RUN, (void)factor;
    OF(put_scaled)(bytes_at(b + 2), d, TO(0));
    OF(put_scaled)(bytes_at(b + 18), d, TO(16));
}

/* Of the types below a block has 8 runs. Of Q2_K, Q3_K and Q6_K runs 0 to 3 share bytes, of which each takes two bits, and so
 * do runs 4 to 7. */

TYPE(Q2_K) {
    bytes both = bytes_at(b);
    float d[16], m[16];
    OF(scales)(both & 15, OF(half_at)(b + 80), d);
    OF(scales)(both >> 4, -OF(half_at)(b + 82), m);
    (void)factor;
    EACH_RUN EACH_HALF {
        bytes q = bytes_at(b + 16 + r / 4 * 32 + half * 16);
        OF(put)(OF(down)(q, r % 4 * 2, 3), d[2 * r + half], m[2 * r + half], TO(half * 16));
    }
}

/* The third bit, which lies apart, is stored inverted. Scales have 4 bits in the first two words, 2 in the third. */
TYPE(Q3_K) {
    uint32_t w[3];
    float d[16];
    memcpy(w, b + 96, 12);
    const uint32_t four = 0x0F0F0F0F, two = 0x30303030;
    words scales = {(w[0] & four) | (w[2] << 4 & two), (w[1] & four) | (w[2] << 2 & two), (w[0] >> 4 & four) | (w[2] & two),
                    (w[1] >> 4 & four) | (w[2] >> 2 & two)};
    OF(scales)((bytes)scales - 32, OF(half_at)(b + 108), d);
    (void)factor;
    EACH_RUN EACH_HALF {
        bytes q = bytes_at(b + 32 + r / 4 * 32 + half * 16), third = bytes_at(b + half * 16) & (uint8_t)(1 << r);
        OF(put_scaled)(OF(down)(q, r % 4 * 2, 3) - ((bytes)(third == 0) & 4), d[2 * r + half], TO(half * 16));
    }
}

TYPE(Q4_K) {
    bytes scales = OF(scales_and_minima)(b + 4);
    float d[16], m[16];
    OF(scales)(scales, OF(half_at)(b), d);
    OF(scales)(scales, -OF(half_at)(b + 2), m);
    (void)factor;
    EACH_RUN EACH_HALF {
        bytes q = bytes_at(b + 16 + r / 2 * 32 + half * 16);
        OF(put)(OF(down)(q, r % 2 * 4, 15), d[r], m[8 + r], TO(half * 16));
    }
}

TYPE(Q5_K) {
    bytes scales = OF(scales_and_minima)(b + 4);
    float d[16], m[16];
    OF(scales)(scales, OF(half_at)(b), d);
    OF(scales)(scales, -OF(half_at)(b + 2), m);
    (void)factor;
    EACH_RUN EACH_HALF {
        bytes q = bytes_at(b + 48 + r / 2 * 32 + half * 16), fifth = bytes_at(b + 16 + half * 16) & (uint8_t)(1 << r);
        OF(put)(OF(down)(q, r % 2 * 4, 15) | ((bytes)(fifth != 0) & 16), d[r], m[8 + r], TO(half * 16));
    }
}

TYPE(Q6_K) {
    float d[16];
    OF(scales)(bytes_at(b + 192), OF(half_at)(b + 208), d);
    (void)factor;
    EACH_RUN EACH_HALF {
        bytes low = bytes_at(b + r / 4 * 64 + r % 2 * 32 + half * 16), high = bytes_at(b + 128 + r / 4 * 32 + half * 16);
        bytes q = OF(down)(low, r % 4 / 2 * 4, 15) | (bytes)((pairs)OF(down)(high, r % 4 * 2, 3) << 4);
        OF(put_scaled)(q - 32, d[2 * r + half], TO(half * 16));
    }
}

TYPE(IQ4_NL) {
    float d = OF(half_at)(b);
    bytes q = bytes_at(b + 2);
    ONE_RUN, (void)factor;
    OF(put_scaled)(OF(looked_up)(UNEVEN, q & 15), d, TO(0));
    OF(put_scaled)(OF(looked_up)(UNEVEN, q >> 4), d, TO(16));
}

TYPE(IQ4_XS) {
    float d = OF(half_at)(b);
    (void)factor;
    EACH_RUN {
        int scale = (b[4 + r / 2] >> r % 2 * 4 & 15) | ((b[2 + r / 4] >> r % 4 * 2 & 3) << 4);
        bytes q = bytes_at(b + 8 + r * 16);
        OF(put_scaled)(OF(looked_up)(UNEVEN, q & 15), d * (float)(scale - 32), TO(0));
        OF(put_scaled)(OF(looked_up)(UNEVEN, q >> 4), d * (float)(scale - 32), TO(16));
    }
}

/* Twice the numbers, times half the power of two */
TYPE(MXFP4) {
    float d = half_power(b[0]);
    bytes q = bytes_at(b + 1);
    ONE_RUN, (void)factor;
    OF(put_scaled)(OF(looked_up)(FP4_DOUBLED, q & 15), d, TO(0));
    OF(put_scaled)(OF(looked_up)(FP4_DOUBLED, q >> 4), d, TO(16));
}

TYPE(F8_E4M3) {
    float d;
    memcpy(&d, factor, 4);
    ONE_RUN;
    OF(put_e4m3)(bytes_at(b), d, TO(0));
    OF(put_e4m3)(bytes_at(b + 16), d, TO(16));
}

/* The same numbers, in pairs, and with a negative zero */
TYPE(MXFP4_APART) {
    float d = half_power(*factor);
    bytes q = bytes_at(b), even = OF(looked_up)(FP4_SIGN_SIZE, q & 15), odd = OF(looked_up)(FP4_SIGN_SIZE, q >> 4);
    ONE_RUN;
    OF(put_sign_size)(LOWER_BYTES(even, odd), d, TO(0));
    OF(put_sign_size)(UPPER_BYTES(even, odd), d, TO(16));
}
#undef TYPE
#undef ONE_RUN
#undef EACH_RUN
#undef EACH_HALF
#undef TO

/* Numbers i .. i + n of row o of a type with blocks of `numbers` numbers in `bytes` bytes; i and n are multiples of BLOCK_RUN. */
TARGET static ALWAYS void OF(take_type)(OF(runs) *runs, const size_t numbers, const size_t bytes, const size_t factor_bytes,
                                        const weight *W, size_t o, size_t i, size_t n, OF(taker) *take, void *to) {
    const uint8_t *b = block_at(W, numbers, bytes, o, i), *factor = W->factors;
    const size_t per = numbers < BLOCK_RUN ? 1 : numbers / BLOCK_RUN;
    size_t r0 = i / BLOCK_RUN % per, used = 0;
    if (factor_bytes) {
        factor += ((ptrdiff_t)o * W->factor_stride + (ptrdiff_t)(i / W->factor_run)) * (ptrdiff_t)factor_bytes;
        used = i % W->factor_run;
    }
    for (size_t at = 0, end = n / BLOCK_RUN; at < end;) {
        size_t r1 = end - at < per - r0 ? r0 + end - at : per;
        runs(b, r0, r1, factor, take, to, at);
        at += r1 - r0;
        r0 = 0;
        b += numbers < BLOCK_RUN ? bytes * BLOCK_RUN : bytes;
        if (factor_bytes && (used += BLOCK_RUN) == W->factor_run) used = 0, factor += factor_bytes;
    }
}

/* The same of any type */
TARGET static ALWAYS void OF(take_numbers)(const weight *W, size_t o, size_t i, size_t n, OF(taker) *take, void *to) {
#define TAKE(name, numbers, bytes, factor_bytes) \
    case W_##name: OF(take_type)(OF(runs_##name), numbers, bytes, factor_bytes, W, o, i, n, take, to); break;
    switch (W->type) {
    BLOCK_TYPES(TAKE)
    default: break; /* numbers */
    }
#undef TAKE
}
