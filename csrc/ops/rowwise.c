#include "ops/rowwise.h"
#include <string.h>
#include "ops/mlp.h"
#include "ops/norm.h"
#include "ops/rope.h"

/* out[i] = row(in[i]) for n rows, in `parts` tasks */
typedef struct {
    size_t n, parts;
    void (*row)(const void *op, size_t i, const real *in, real *out);
    const void *op;
    const real *in;
    real *out;
} pass;

static void pass_task(void *ctx, size_t task, int worker) {
    const pass *p = ctx;
    size_t i0, i1;
    (void)worker;
    part(p->n, p->parts, task, &i0, &i1);
    for (size_t i = i0; i < i1; i++) p->row(p->op, i, p->in, p->out);
}

static void each_row(const runtime *rt, size_t n, size_t width, void (*row)(const void *, size_t, const real *, real *),
                     const void *op, const real *in, real *out) {
    pass p = {n, (size_t)thread_pool_threads(rt->pool), row, op, in, out};
    double operations = 10.0 * (double)n * (double)width; /* a few for each number, and the time of reading it */
    if (operations < THREAD_POOL_WORTH) p.parts = 1;
    p.parts *= 1 + (size_t)(operations / RUNTIME_SLICE);
    runtime_run(rt, p.parts, operations, pass_task, &p);
}

static size_t taped_row(const size_t *map, size_t n, size_t i) { return map ? map[i % n] : i % n; }

static const real *at(const real *p, size_t i) { return p ? p + i : NULL; }

static void scale_row(const norm_rows *a, real *y) {
    if (a->scale != 1)
        for (size_t i = 0; i < a->groups * a->width; i++) y[i] *= a->scale;
}

static void norm_forward_row(const void *op, size_t i, const real *x, real *y) {
    const norm_rows *a = op;
    size_t w = a->width, all = w * a->groups, ld = a->ld ? a->ld : all;
    for (size_t g = 0; g < a->groups; g++)
        norm_forward(a->kind, a->eps, w, x + i * ld + g * w, at(a->gain, g * w), at(a->bias, g * w),
                     a->xhat + i * all + g * w, a->r + i * a->groups + g, y + i * ld + g * w);
    scale_row(a, y + i * ld);
}

static void norm_jvp_row(const void *op, size_t i, const real *dx, real *dy) {
    const norm_rows *a = op;
    size_t w = a->width, all = w * a->groups, ld = a->ld ? a->ld : all, t = taped_row(a->map, a->n, i);
    for (size_t g = 0; g < a->groups; g++)
        norm_jvp(a->kind, w, a->xhat + t * all + g * w, a->r[t * a->groups + g], at(a->gain, g * w),
                 dx + i * ld + g * w, dy + i * ld + g * w);
    scale_row(a, dy + i * ld);
}

static void norm_vjp_row(const void *op, size_t i, const real *gy, real *gx) {
    const norm_rows *a = op;
    size_t w = a->width, all = w * a->groups, ld = a->ld ? a->ld : all, t = taped_row(a->map, a->n, i);
    for (size_t g = 0; g < a->groups; g++)
        norm_vjp(a->kind, w, a->xhat + t * all + g * w, a->r[t * a->groups + g], at(a->gain, g * w),
                 gy + i * ld + g * w, gx + i * ld + g * w);
    scale_row(a, gx + i * ld);
}

void rowwise_norm_forward(const runtime *rt, const norm_rows *a, const real *x, real *y) {
    each_row(rt, a->n, a->width * a->groups, norm_forward_row, a, x, y);
}
void rowwise_norm_jvp(const runtime *rt, const norm_rows *a, const real *dx, real *dy) {
    each_row(rt, a->n_t * a->n, a->width * a->groups, norm_jvp_row, a, dx, dy);
}
void rowwise_norm_vjp(const runtime *rt, const norm_rows *a, const real *gy, real *gx) {
    each_row(rt, a->n_t * a->n, a->width * a->groups, norm_vjp_row, a, gy, gx);
}

typedef struct {
    const rope_rows *a;
    int inverse;
} rope_op;

static void rope_row(const void *op, size_t i, const real *in, real *x) {
    const rope_op *o = op;
    const rope_rows *a = o->a;
    size_t t = taped_row(a->map, a->n, i), ld = a->ld ? a->ld : a->rope_dim / 2;
    (void)in;
    rope_apply(a->style, a->rope_dim, a->n_heads, a->head_dim, a->cosine + t * ld, a->sine + t * ld, o->inverse,
              x + i * a->n_heads * a->head_dim);
}

void rowwise_rope(const runtime *rt, const rope_rows *a, int inverse, real *x) {
    rope_op op = {a, inverse};
    each_row(rt, a->n_t * a->n, a->n_heads * a->head_dim, rope_row, &op, NULL, x);
}

typedef struct {
    size_t n, width;
    const size_t *map;
    real limit, *kept;
    const real *taped;
    const spec *m;
    const int *pos;
} attention_input_op;

static void clip_row(const void *op, size_t i, const real *in, real *x) {
    const attention_input_op *o = op;
    (void)in;
    for (size_t j = i * o->width; j < (i + 1) * o->width; j++) {
        o->kept[j] = x[j] >= -o->limit && x[j] <= o->limit;
        if (!o->kept[j] && x[j] == x[j]) x[j] = x[j] > 0 ? o->limit : -o->limit; /* a NaN stays */
    }
}

static void keep_row(const void *op, size_t i, const real *in, real *x) {
    const attention_input_op *o = op;
    const real *kept = o->taped + taped_row(o->map, o->n, i) * o->width;
    (void)in;
    for (size_t j = 0; j < o->width; j++) x[i * o->width + j] *= kept[j];
}

static void temper_row(const void *op, size_t i, const real *in, real *x) {
    const attention_input_op *o = op;
    size_t periods = ((size_t)o->pos[i % o->n] + o->m->temper_offset) / o->m->temper_length;
    real factor = (real)(1 + o->m->temper_rate * log1p((double)periods));
    (void)in;
    for (size_t j = 0; j < o->width; j++) x[i * o->width + j] *= factor;
}

void rowwise_clip(const runtime *rt, size_t n, size_t width, real limit, real *x, real *kept) {
    attention_input_op op = {.n = n, .width = width, .limit = limit, .kept = kept};
    each_row(rt, n, width, clip_row, &op, NULL, x);
}

void rowwise_keep(const runtime *rt, size_t n_t, size_t n, const size_t *map, size_t width, const real *kept, real *x) {
    attention_input_op op = {.n = n, .width = width, .map = map, .taped = kept};
    each_row(rt, n_t * n, width, keep_row, &op, NULL, x);
}

void rowwise_temper(const runtime *rt, const spec *m, size_t n_t, size_t n, const int *pos, size_t width, real *x) {
    attention_input_op op = {.n = n, .width = width, .m = m, .pos = pos};
    each_row(rt, n_t * n, width, temper_row, &op, NULL, x);
}

typedef struct {
    cpu_isa isa;
    const activation *act;
    size_t F, n;
    const size_t *map;
    const real *slope, *lift; /* taped */
    real *slope_out, *lift_out, *gate;
} mlp_op;

static real *at_row(real *p, size_t i) { return p ? p + i : NULL; }

static void mlp_forward_row(const void *op, size_t i, const real *in, real *h) {
    const mlp_op *o = op;
    (void)in;
    mlp_forward(o->isa, o->act, o->F, at_row(o->slope_out, i * o->F), o->lift_out + i * o->F, h + i * o->F);
}

static void mlp_jvp_row(const void *op, size_t i, const real *dg, real *du) {
    const mlp_op *o = op;
    size_t F = o->F, t = taped_row(o->map, o->n, i);
    mlp_jvp(F, at(o->slope, t * F), o->lift + t * F, at(dg, i * F), du + i * F, du + i * F);
}

static void mlp_vjp_row(const void *op, size_t i, const real *in, real *gu) {
    const mlp_op *o = op;
    size_t F = o->F, t = taped_row(o->map, o->n, i);
    (void)in;
    mlp_vjp(F, at(o->slope, t * F), o->lift + t * F, gu + i * F, at_row(o->gate, i * F), gu + i * F);
}

void rowwise_mlp_forward(const runtime *rt, const activation *act, size_t n, size_t F, real *slope, real *lift, real *h) {
    mlp_op op = {.isa = rt->isa, .act = act, .F = F, .n = n, .slope_out = slope, .lift_out = lift};
    each_row(rt, n, F, mlp_forward_row, &op, NULL, h);
}
void rowwise_mlp_jvp(const runtime *rt, size_t n_t, size_t n, const size_t *map, size_t F, const real *slope,
                  const real *lift, const real *dg, real *du) {
    mlp_op op = {.F = F, .n = n, .map = map, .slope = slope, .lift = lift};
    each_row(rt, n_t * n, F, mlp_jvp_row, &op, dg, du);
}
void rowwise_mlp_vjp(const runtime *rt, size_t n_t, size_t n, const size_t *map, size_t F, const real *slope,
                  const real *lift, real *gg, real *gu) {
    mlp_op op = {.F = F, .n = n, .map = map, .slope = slope, .lift = lift, .gate = gg};
    each_row(rt, n_t * n, F, mlp_vjp_row, &op, NULL, gu);
}

enum { STRIP = 4096 }; /* numbers in a row of the operations that treat an array as flat */

typedef struct {
    size_t n;
    real factor;
} flat_op;

static void add_row(const void *op, size_t i, const real *x, real *y) {
    const flat_op *o = op;
    for (size_t j = i * STRIP; j < o->n && j < (i + 1) * STRIP; j++) y[j] += x[j];
}

static void multiply_row(const void *op, size_t i, const real *x, real *y) {
    const flat_op *o = op;
    for (size_t j = i * STRIP; j < o->n && j < (i + 1) * STRIP; j++) y[j] *= x[j];
}

static void factor_row(const void *op, size_t i, const real *in, real *x) {
    const flat_op *o = op;
    (void)in;
    for (size_t j = i * STRIP; j < o->n && j < (i + 1) * STRIP; j++) x[j] *= o->factor;
}

void rowwise_add(const runtime *rt, size_t n, const real *x, real *y) {
    flat_op op = {n, 1};
    each_row(rt, (n + STRIP - 1) / STRIP, STRIP, add_row, &op, x, y);
}

void rowwise_multiply(const runtime *rt, size_t n, const real *x, real *y) {
    flat_op op = {n, 1};
    each_row(rt, (n + STRIP - 1) / STRIP, STRIP, multiply_row, &op, x, y);
}

void rowwise_scale(const runtime *rt, size_t n, real factor, real *x) {
    flat_op op = {n, factor};
    if (factor != 1) each_row(rt, (n + STRIP - 1) / STRIP, STRIP, factor_row, &op, NULL, x);
}

void rowwise_gather(size_t n_t, size_t n_all, size_t n, const size_t *row, size_t width, const real *in, real *out) {
    if (n == n_all && in == out) return; /* every row is in place already */
    for (size_t t = 0; t < n_t; t++)
        for (size_t i = 0; i < n; i++) /* ascending, so that in place no row is overwritten before it is read */
            memmove(out + (t * n + i) * width, in + (t * n_all + row[i]) * width, width * sizeof(real));
}

void rowwise_expand(size_t n_t, size_t n_all, size_t n, const size_t *row, size_t width, real *x) {
    if (n == n_all) return;
    for (size_t t = n_t; t-- > 0;)
        for (size_t r = n_all, i = n; r-- > 0;) { /* descending, so that no row is overwritten before it is read */
            real *to = x + (t * n_all + r) * width;
            if (i && row[i - 1] == r) memmove(to, x + (t * n + --i) * width, width * sizeof(real));
            else memset(to, 0, width * sizeof(real));
        }
}

void rowwise_scatter_add(size_t n_t, size_t n_all, size_t n, const size_t *row, size_t width, const real *in, real *out) {
    for (size_t t = 0; t < n_t; t++)
        for (size_t i = 0; i < n; i++) {
            const real *x = in + (t * n + i) * width;
            real *y = out + (t * n_all + row[i]) * width;
            for (size_t c = 0; c < width; c++) y[c] += x[c];
        }
}
