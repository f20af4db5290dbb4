/* float16 and bfloat16 to float, exactly, without tables or branches, so that loops over them vectorise. */
#ifndef PS_HALF_H
#define PS_HALF_H
#include <stdint.h>
#include <string.h>

static inline float bits_to_float(uint32_t bits) {
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

/* Normal numbers: shift exponent and mantissa to a float's positions and correct the bias by a multiplication.
 * Subnormal numbers: put the mantissa under the exponent of 0.5 and subtract 0.5. The sign is added last. */
static inline float half_to_float(uint16_t h) {
    uint32_t w = (uint32_t)h << 16, sign = w & 0x80000000u, twice = w + w, bits;
    float normal = bits_to_float((twice >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
    float small = bits_to_float((twice >> 17) | (126u << 23)) - 0.5f;
    float out = twice < (1u << 27) ? small : normal;
    memcpy(&bits, &out, 4);
    return bits_to_float(bits | sign);
}

static inline float bf16_to_float(uint16_t h) { return bits_to_float((uint32_t)h << 16); }

#endif
