#include "ops/rope.h"

void rope_angles(const rope_table *t, int pos, size_t length, real *cosine, real *sine) {
    const double *inv_freq = t->long_inv_freq && length > t->long_after ? t->long_inv_freq : t->inv_freq;
    for (size_t i = 0; i < t->dim / 2; i++) {
        float angle = (float)pos * (float)inv_freq[i];
        cosine[i] = (real)(cos((double)angle) * t->scale);
        sine[i] = (real)(sin((double)angle) * t->scale);
    }
}

void rope_apply(rope_style style, size_t rope_dim, size_t n_heads, size_t HS, const real *cosine, const real *sine,
                int inverse, real *x) {
    size_t half = rope_dim / 2;
    size_t step = style == ROPE_HALF ? 1 : 2, apart = style == ROPE_HALF ? half : 1;
    for (size_t h = 0; h < n_heads; h++, x += HS)
        for (size_t i = 0; i < half; i++) {
            real a = x[i * step], b = x[i * step + apart];
            real c = cosine[i], s = inverse ? -sine[i] : sine[i];
            x[i * step] = a * c - b * s;
            x[i * step + apart] = b * c + a * s;
        }
}
