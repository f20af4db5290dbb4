#include "ops/mamba.h"

typedef struct {
    const mamba_steps *a;
    size_t n;
    const real *gdecay;
    real *step, *decay;
} call;

static void forward_row(void *ctx, size_t row, int worker) {
    const mamba_steps *a = ((const call *)ctx)->a;
    (void)worker;
    for (size_t h = 0, i = row * a->heads; h < a->heads; h++, i++) {
        real x = a->step[i] + a->bias[h], t = x > 20 ? x : FN(log1p)(FN(exp)(x));
        a->slope[i] = t < a->min || t > a->max ? 0 : x > 20 ? 1 : 1 / (1 + FN(exp)(-x));
        a->step[i] = t < a->min ? a->min : t > a->max ? a->max : t;
        a->decay[i] = FN(exp)(-a->rate[h] * a->step[i]);
    }
}

static void jvp_row(void *ctx, size_t row, int worker) {
    const call *c = ctx;
    const mamba_steps *a = c->a;
    size_t taped = row % c->n * a->heads;
    (void)worker;
    for (size_t h = 0, i = row * a->heads; h < a->heads; h++, i++, taped++) {
        c->step[i] *= a->slope[taped];
        c->decay[i] = -a->rate[h] * a->decay[taped] * c->step[i];
    }
}

static void vjp_row(void *ctx, size_t row, int worker) {
    const call *c = ctx;
    const mamba_steps *a = c->a;
    size_t taped = row % c->n * a->heads;
    (void)worker;
    for (size_t h = 0, i = row * a->heads; h < a->heads; h++, i++, taped++)
        c->step[i] = a->slope[taped] * (c->step[i] - a->rate[h] * a->decay[taped] * c->gdecay[i]);
}

void mamba_steps_forward(const runtime *rt, const mamba_steps *a, size_t n) {
    runtime_run(rt, n, 100.0 * (double)n * (double)a->heads, forward_row, &(call){.a = a});
}

void mamba_steps_jvp(const runtime *rt, const mamba_steps *a, size_t n_t, size_t n, real *step, real *decay) {
    call c = {.a = a, .n = n, .step = step, .decay = decay};
    runtime_run(rt, n_t * n, 10.0 * (double)(n_t * n) * (double)a->heads, jvp_row, &c);
}

void mamba_steps_vjp(const runtime *rt, const mamba_steps *a, size_t n_t, size_t n, const real *decay, real *step) {
    call c = {.a = a, .n = n, .step = step, .gdecay = decay};
    runtime_run(rt, n_t * n, 10.0 * (double)(n_t * n) * (double)a->heads, vjp_row, &c);
}
