#include "ops/mlp.h"
#include "kernels/vexp.h"

static const double SQRT_HALF = 0.70710678118654752440, INV_SQRT_2PI = 0.39894228040143267794;
static const double SQRT_2_OVER_PI = 0.79788456080286535588, GELU_CUBIC = 0.044715;

enum { STRIP = 256 }; /* numbers at a time: they and their exponentials stay in the L1 cache */

/* Argument of the exponential in act(x), computed for a whole strip first so that exp can be vectorised */
static inline real exp_argument(act_kind act, const double *c, real x) {
    switch (act) {
    case ACT_SILU:
    case ACT_SIGMOID: return -x;
    case ACT_GELU: return (real)-0.5 * x * x;
    case ACT_GELU_TANH: return (real)(-2 * c[0]) * (x + (real)GELU_CUBIC * x * x * x);
    default: return 0;
    }
}

/*  y = act(x)
 *  *slope = act'(x)
 * e = exp(exp_argument(x)); the comments state act, then act'. */
static inline real activate(act_kind act, const double *c, real x, real e, real *slope) {
    switch (act) {
    case ACT_SILU: { /* x s,  s = 1/(1 + exp(-x));  s (1 + x (1 - s)) */
        real s = 1 / (1 + e);
        *slope = s * (1 + x * (1 - s));
        return x * s;
    }
    case ACT_GELU: { /* x Phi(x);  Phi(x) + x phi(x) */
        real cdf = (real)0.5 * (1 + FN(erf)(x * (real)SQRT_HALF));
        *slope = cdf + x * (real)INV_SQRT_2PI * e;
        return x * cdf;
    }
    case ACT_GELU_TANH: { /* x s,  s = (1 + tanh z)/2 = 1/(1 + exp(-2z)),  z = k (x + c x^3);  s + 2 x s (1 - s) z' */
        real s = 1 / (1 + e);
        *slope = s * (1 + 2 * x * (1 - s) * (real)c[0] * (1 + 3 * (real)GELU_CUBIC * x * x));
        return x * s;
    }
    case ACT_RELU: *slope = x > 0; return x > 0 ? x : 0;
    case ACT_RELU2: *slope = x > 0 ? 2 * x : 0; return x > 0 ? x * x : 0;
    case ACT_SILU_CLAMPED: break; /* see clamped_strip */
    case ACT_SIGMOID: { /* s = 1/(1 + exp(-x));  s (1 - s) */
        real s = 1 / (1 + e);
        *slope = s * (1 - s);
        return s;
    }
    case ACT_XIELU: { /* c0 x^2 + c2 x, 2 c0 x + c2;  or with m = min(x, c3):  c1 (exp(m) - 1 - x) + c2 x, c1 (exp(m) m' - 1) + c2 */
        real linear = (real)c[2], minus = (real)c[1], last = (real)c[3];
        if (x > 0) {
            *slope = 2 * (real)c[0] * x + linear;
            return ((real)c[0] * x + linear) * x;
        }
        real y = FN(expm1)(x < last ? x : last);
        *slope = linear + minus * (x < last ? y : -1);
        return minus * (y - x) + linear * x;
    }
    }
    *slope = 0;
    return 0;
}

/* mlp_forward for n <= STRIP. Inlined for each act, so that the loop has no branch on it. */
static inline __attribute__((always_inline)) void strip(cpu_isa isa, act_kind act, const double *c, size_t n, real *g_slope,
                                                        real *u_lift, real *h) {
    const real *x = g_slope ? g_slope : u_lift;
    real e[STRIP] = {0};
    if (act != ACT_RELU && act != ACT_RELU2 && act != ACT_XIELU) {
        for (size_t i = 0; i < n; i++) e[i] = exp_argument(act, c, x[i]);
        vexp(isa, n, e, e);
    }
    for (size_t i = 0; i < n; i++) {
        real slope, u = u_lift[i];
        if (g_slope) {
            u_lift[i] = activate(act, c, g_slope[i], e[i], &slope);
            g_slope[i] = slope * u;
            h[i] = u_lift[i] * u;
        } else {
            h[i] = activate(act, c, u, e[i], &slope);
            u_lift[i] = slope;
        }
    }
}

/* The same for ACT_SILU_CLAMPED:  h = x s (1 + y),  s = 1/(1 + exp(-alpha x)),  x = min(g, limit),  y = u within +-limit
 *  slope = s (1 + alpha x (1 - s)) (1 + y)  where g <= limit,  lift = x s  where |u| <= limit */
static void clamped_strip(cpu_isa isa, const activation *act, size_t n, real *g_slope, real *u_lift, real *h) {
    real alpha = (real)act->c[0], limit = (real)act->c[1], e[STRIP] = {0};
    for (size_t i = 0; i < n; i++) e[i] = -alpha * (g_slope[i] > limit ? limit : g_slope[i]);
    vexp(isa, n, e, e);
    for (size_t i = 0; i < n; i++) {
        real g = g_slope[i], u = u_lift[i], s = 1 / (1 + e[i]);
        real x = g > limit ? limit : g, y = u > limit ? limit : u < -limit ? -limit : u;
        h[i] = x * s * (1 + y);
        g_slope[i] = g <= limit ? s * (1 + alpha * x * (1 - s)) * (1 + y) : 0;
        u_lift[i] = u == y ? x * s : 0;
    }
}

void mlp_forward(cpu_isa isa, const activation *act, size_t F, real *g_slope, real *u_lift, real *h) {
    const double usual[4] = {SQRT_2_OVER_PI}, *c = act->kind == ACT_GELU_TANH && act->c[0] == 0 ? usual : act->c;
    for (size_t i = 0; i < F; i += STRIP) {
        size_t n = F - i < STRIP ? F - i : STRIP;
        real *g = g_slope ? g_slope + i : NULL;
#define CASE(kind) \
    case kind: strip(isa, kind, c, n, g, u_lift + i, h + i); break;
        switch (act->kind) {
            CASE(ACT_SILU) CASE(ACT_GELU) CASE(ACT_GELU_TANH) CASE(ACT_RELU) CASE(ACT_RELU2) CASE(ACT_SIGMOID) CASE(ACT_XIELU)
            case ACT_SILU_CLAMPED: clamped_strip(isa, act, n, g, u_lift + i, h + i); break;
        }
#undef CASE
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
