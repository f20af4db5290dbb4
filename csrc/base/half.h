/* float16 and bfloat16 to float, without tables or branches, so that loops over them vectorise. */
#ifndef PS_HALF_H
#define PS_HALF_H
#include <stdint.h>
#include <string.h>

static inline float bits_to_float(uint32_t bits) {
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

/* Shift exponent and mantissa into a float's place and rebias by a multiplication, which also normalises the numbers
 * that are normal in half; subnormal ones are built by a subtraction from 0.5. */
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
