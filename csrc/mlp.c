#include "mlp.h"

static const double SQRT_HALF = 0.70710678118654752440, INV_SQRT_2PI = 0.39894228040143267794;
static const double SQRT_2_OVER_PI = 0.79788456080286535588, GELU_CUBIC = 0.044715;

/* y = act(x), *slope = act'(x) */
static inline real activate(act_kind act, real x, real *slope) {
    switch (act) {
    case ACT_SILU: { /* x s,  s = 1/(1 + exp(-x));  s (1 + x (1 - s)) */
        real s = 1 / (1 + FN(exp)(-x));
        *slope = s * (1 + x * (1 - s));
        return x * s;
    }
    case ACT_GELU: { /* x Phi(x);  Phi(x) + x phi(x) */
        real cdf = (real)0.5 * (1 + FN(erf)(x * (real)SQRT_HALF));
        *slope = cdf + x * (real)INV_SQRT_2PI * FN(exp)((real)-0.5 * x * x);
        return x * cdf;
    }
    case ACT_GELU_TANH: { /* x (1 + t)/2,  t = tanh(k (x + c x^3));  (1 + t)/2 + x/2 (1 - t^2) k (1 + 3 c x^2) */
        real t = FN(tanh)((real)SQRT_2_OVER_PI * (x + (real)GELU_CUBIC * x * x * x));
        *slope = (real)0.5 * (1 + t)
               + (real)0.5 * x * (1 - t * t) * (real)SQRT_2_OVER_PI * (1 + 3 * (real)GELU_CUBIC * x * x);
        return (real)0.5 * x * (1 + t);
    }
    case ACT_RELU: *slope = x > 0; return x > 0 ? x : 0;
    case ACT_RELU2: *slope = x > 0 ? 2 * x : 0; return x > 0 ? x * x : 0;
    }
    *slope = 0;
    return 0;
}

void mlp_forward(act_kind act, size_t F, real *g_slope, real *u_lift, real *h) {
    for (size_t i = 0; i < F; i++) {
        real slope, u = u_lift[i];
        if (g_slope) {
            u_lift[i] = activate(act, g_slope[i], &slope);
            g_slope[i] = slope * u;
            h[i] = u_lift[i] * u;
        } else {
            h[i] = activate(act, u, &slope);
            u_lift[i] = slope;
        }
    }
}

void mlp_jvp(size_t F, const real *slope, const real *lift, const real *dg, const real *du, real *dh) {
    if (slope)
        for (size_t i = 0; i < F; i++) dh[i] = slope[i] * dg[i] + lift[i] * du[i];
    else
        for (size_t i = 0; i < F; i++) dh[i] = lift[i] * du[i];
}

void mlp_vjp(size_t F, const real *slope, const real *lift, const real *gh, real *gg, real *gu) {
    for (size_t i = 0; i < F; i++) {
        real g = gh[i];
        if (slope) gg[i] = slope[i] * g;
        gu[i] = lift[i] * g;
    }
}
