/* The bases of the Krylov solver, and what a step, a restart and a probe do to them: see svd_krylov.h. Private to the
 * solver. Nothing here waits for a product: the products of the operator are the caller's. */
#ifndef PS_SVD_BASES_H
#define PS_SVD_BASES_H
#include "base/arena.h"
#include "base/rng.h"
#include "solver/svd.h"

enum { PROBE_ROOM = 10 }; /* vectors of V that a probe needs at least */

typedef struct {
    const blas *b;
    const svd_observer *observer;
    svd_operator A;
    rng g;
    size_t rows, cols, k, block, max_basis, max_candidates, max_applications;
    double tol;
    size_t n_v, n_u, n_w, n_ritz;
    real *V, *AV, *U, *AtU;   /* (max_basis + max_candidates, cols) with W behind V; (max_basis, rows | rows | cols) */
    double *B, *R;            /* (max_basis, max_basis), (max_basis, max_candidates) */
    double *P, *Q, *sigma;    /* the SVD of B: P (n_u, n_ritz), Q (n_ritz, n_v), contiguous */
    double *residual;         /* (k, 2) */
    double worst, recurrence; /* the largest residual: the certificate's, the recurrence's |R'p| */
    double *coef, *copy, *left, *rotation, *weight;
    real *work, *x, *y;
    arena memory;
} bases;

static inline size_t max2(size_t a, size_t b) { return a > b ? a : b; }
static inline size_t min2(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t applications_left(const bases *s) { return s->max_applications - s->A.applications; }
static inline real *candidate(const bases *s, size_t l) { return s->V + (s->n_v + l) * s->cols; }

/* Allocates the buffers of bases whose sizes are set; arena_free(&s->memory) frees them. The pages of a vector that is never
 * reached are never written. */
ps_code bases_make(bases *s, ps_status *st);

/* Starts with the k triplets of another method instead of none. */
void bases_start(bases *s, const svd_found *f);

/* Adds up to m random candidates. */
void bases_add_random(bases *s, size_t m);

/* Reflects the candidates so that the first is sum_l e_l W_l / |e| or its opposite. Returns |e|, negative for the opposite,
 * 0 if e is 0. */
double bases_aim(bases *s, const double *e);

/* Rotates the candidates by the right singular vectors of the residuals R'p of the triplets that are not certified, or of
 * all k if all are: the first candidates then carry most of them. */
ps_code bases_order(bases *s, ps_status *st);

/* A step in two halves. AV holds A times the first n candidates behind its n_v rows: they become vectors of V, and U and B
 * grow. Returns the number r of new rows behind the n_u of U to multiply by A'. */
size_t bases_take_right(bases *s, size_t n);
/* AtU holds A' times these r rows: they become rows of U, and W and R grow. */
void bases_take_left(bases *s, size_t r);

/* The Ritz triplets of the bases as they are now, their residuals, and a report */
ps_code bases_check(bases *s, ps_status *st);

/* Ritz triplets that a restart keeps: the k that are wanted and half of the room beside them. Those beyond k keep their
 * convergence, and the k-th converges at the rate of the gap to the first that is dropped; the other half is for new
 * directions, so that restarts, which cost as much as several steps, are few. The room for a step or a probe stays free. */
size_t bases_restart_size(const bases *s);

/* V and U become the p leading Ritz vectors; W stays. */
void bases_restart(bases *s, size_t p);

/* right (k, cols), left (k, rows): the k leading Ritz vectors */
void bases_ritz_vectors(const bases *s, real *right, real *left);

#endif
