/* Operations row by row, shared out to the threads: the norms, rotations and nonlinearities of a layer, and copies of rows.
 * Tangents have shape (n_t, n, width): n_t tangents of n rows. Row i of each belongs to row map[i] of the taped batch;
 * map NULL: to row i. */
#ifndef PS_ROWWISE_H
#define PS_ROWWISE_H
#include "kernels/runtime.h"
#include "ops/spec.h"

typedef struct {
    norm_kind kind;
    double eps;
    size_t width, groups;  /* a row is `groups` vectors of `width` numbers, each with a norm of its own */
    size_t ld;             /* row stride of x and y and their tangents; 0: groups * width */
    const real *gain, *bias; /* (groups * width) or NULL */
    real *xhat, *r;        /* (n_taped, groups * width), (n_taped, groups) */
    const size_t *map;     /* (n) */
    size_t n_t, n;
    real scale;            /* y is multiplied by it */
} norm_rows;

void rowwise_norm_forward(const runtime *rt, const norm_rows *a, const real *x, real *y); /* y may be x; n_t = 1 */
void rowwise_norm_jvp(const runtime *rt, const norm_rows *a, const real *dx, real *dy);   /* dy may be dx */
void rowwise_norm_vjp(const runtime *rt, const norm_rows *a, const real *gy, real *gx);   /* gx may be gy */

typedef struct {
    rope_style style;
    size_t rope_dim, head_dim, n_heads;
    size_t ld;                 /* row stride of cosine and sine; 0: rope_dim/2 */
    const real *cosine, *sine; /* (n_taped, rope_dim/2) */
    const size_t *map;
    size_t n_t, n;
} rope_rows;

void rowwise_rope(const runtime *rt, const rope_rows *a, int inverse, real *x);

/* x (n, width) limited to [-limit, limit]. kept (n, width): 1 where it was within, else 0 */
void rowwise_clip(const runtime *rt, size_t n, size_t width, real limit, real *x, real *kept);
/* Its jvp and vjp: x (n_t, n, width) *= kept */
void rowwise_keep(const runtime *rt, size_t n_t, size_t n, const size_t *map, size_t width, const real *kept, real *x);
/* x (n_t, n, width) *= the temperature of each row's position, pos (n) */
void rowwise_temper(const runtime *rt, const spec *m, size_t n_t, size_t n, const int *pos, size_t width, real *x);

void rowwise_mlp_forward(const runtime *rt, const activation *act, size_t n, size_t F, real *slope, real *lift, real *h);
void rowwise_mlp_jvp(const runtime *rt, size_t n_t, size_t n, const size_t *map, size_t F, const real *slope,
                     const real *lift, const real *dg, real *du);          /* dh over du */
void rowwise_mlp_vjp(const runtime *rt, size_t n_t, size_t n, const size_t *map, size_t F, const real *slope,
                     const real *lift, real *gg, real *gu);                /* gh in gu */

void rowwise_add(const runtime *rt, size_t n, const real *x, real *y);     /* y += x, n numbers */
void rowwise_multiply(const runtime *rt, size_t n, const real *x, real *y); /* y *= x */
void rowwise_scale(const runtime *rt, size_t n, real factor, real *x);

/* out (n_t, n, width) = rows row[0..n), ascending, of each tangent in (n_t, n_all, width); out may be in. */
void rowwise_gather(size_t n_t, size_t n_all, size_t n, const size_t *row, size_t width, const real *in, real *out);
/* The transpose, in place: x (n_t, n, width) becomes (n_t, n_all, width), with zeros in the other rows. */
void rowwise_expand(size_t n_t, size_t n_all, size_t n, const size_t *row, size_t width, real *x);
/* Rows row[] of out (n_t, n_all, width) += in (n_t, n, width) */
void rowwise_scatter_add(size_t n_t, size_t n_all, size_t n, const size_t *row, size_t width, const real *in, real *out);

#endif
