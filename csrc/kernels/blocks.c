#include "kernels/blocks.h"

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define OF(name) PASTE(name, ISA)
#define DECODER                                                                                \
    TARGET static void OF(decode)(const weight *W, size_t o, size_t i, size_t n, float *out) { \
        OF(take_numbers)(W, o, i, n, OF(store), out);                                          \
    }

#define ISA plain
#define TARGET
#define VECTOR 16
#include "kernels/blocks_types.h"
DECODER
#undef ISA
#undef TARGET
#undef VECTOR

#if HAS_TARGETS
#define ISA avx2
#define TARGET TARGET_AVX2
#define VECTOR 32
#include "kernels/blocks_types.h"
DECODER
#undef ISA
#undef TARGET
#undef VECTOR

#define ISA avx512
#define TARGET TARGET_AVX512
#define VECTOR 64
#include "kernels/blocks_types.h"
DECODER
#else
#define decode_avx2 decode_plain
#define decode_avx512 decode_plain
#endif

#define LAYOUT(name, numbers, bytes, factor_bytes) [W_##name] = {#name, numbers, bytes, factor_bytes},
const wtype_layout wtype_layouts[N_WTYPES] = {
    LAYOUT(F32, 1, 4, 0) LAYOUT(F64, 1, 8, 0) LAYOUT(F16, 1, 2, 0) LAYOUT(BF16, 1, 2, 0) BLOCK_TYPES(LAYOUT)};

block_decoder blocks_decoder(cpu_isa isa) {
    static const block_decoder decoders[] = {[PLAIN] = decode_plain, [AVX2] = decode_avx2, [AVX512] = decode_avx512};
    return decoders[isa];
}
