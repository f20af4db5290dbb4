/* The probe that closes a run of the Krylov solver: see svd_krylov.h for A, V, W and the Ritz triplets.
 *
 * A random unit vector x of the complement of V, which includes W, starts a Lanczos sequence. Let Vk be the k Ritz vectors,
 * Vr and Sigma the other ones and their values, Z a basis of the complement of V, limit = sigma_k + tol sigma_1. Nothing is missing if |A (I - Vk Vk')| <= limit, that is, if
 *   [Sigma^2, K'; K, Z'A'A Z] <= limit^2,  K = Z'A'A Vr,  which is as much as (Schur; Sigma <= sigma_k < limit)
 *   H = Z'A'A Z + K (limit^2 - Sigma^2)^-1 K' <= limit^2.
 * The sequence is one of H, which acts on the complement of V alone: the less V leaves, the sooner it ends. A step needs A'A
 * of one new vector, two applications; K is known. Let q_0 = x, q_1, ... be the Lanczos vectors and p_i the orthonormal
 * polynomials (p_0 = 1), q_i = p_i(H) x. Suppose that H y = mu y, |y| = 1, mu > limit^2. Then
 *   q_i'y = p_i(mu) x'y,  so (x'y)^2 sum_i p_i(mu)^2 <= 1,
 * and p_i(mu) > p_i(limit^2) > 0 as long as no Ritz value of the sequence exceeds limit^2 (Sturm; if one does, a
 * missed value is found, and the run continues until its triplets are certified, and probes again). For x uniform on the sphere in N
 * dimensions P(|x'y| <= s) <= s sqrt(2 N / pi). So the probe ends when
 *   sqrt(2 N / (pi sum_i p_i(limit^2)^2)) <= allowed,
 * and as limit and `allowed` are set before x is drawn, this bounds the probability that it ends while something is
 * missing. It is the argument of Kuczynski and Wozniakowski (SIAM J. Matrix Anal. Appl. 13, 1992) with the sequence's own
 * polynomials in place of Chebyshev's, that is, of 1.648 sqrt(N) exp(-(2j - 1) sqrt(eps)) for a value that is missed by
 * the fraction eps. The probes of a run share SVD_MISSED: the first may fail with 0.9 of it, each later one with half of
 * what is left. A value within tol sigma_1 of sigma_k is as good as sigma_k and counts as nothing missed. */
#ifndef PS_SVD_PROBE_H
#define PS_SVD_PROBE_H
#include "solver/svd_bases.h"

typedef enum {
    PROBE_STEP,      /* a step of one vector is to be made, then comes probe_continue */
    PROBE_PASSED,    /* nothing is missing */
    PROBE_FOUND,     /* a value above the limit exists, or the triplets are no longer certified */
    PROBE_FULL,      /* V was full and has been restarted; another probe must follow */
    PROBE_UNFINISHED /* no applications are left */
} probe_state;

typedef struct {
    probe_state state;
    double missed; /* failure probability of the probes so far together */
    size_t from, steps; /* size of V before the probe, steps of the sequence so far */
    double bound, allowed, scale, sum; /* limit^2; the probe ends when scale <= allowed^2 sum */
    double poly, poly_before;  /* p_i(bound), p_i-1(bound) */
    double beta, length; /* the last off-diagonal entry of the sequence, and the part of it outside of V */
    /* in coordinates of V: the Ritz vectors before the probe, (n_held, max_basis), and the Lanczos vectors,
     * (max_basis + 1, max_basis + 1) */
    size_t n_held;
    double *held, *held_sigma, *lanczos;
    arena memory;
} probe;

/* Allocates the buffers of zeroed probes of these bases; arena_free(&p->memory) frees them. */
ps_code probe_make(probe *p, const bases *s, ps_status *st);

/* A new probe of certified triplets. Sets p->state. */
ps_code probe_begin(probe *p, bases *s, ps_status *st);

/* After a step that the probe has asked for. Sets p->state. */
void probe_continue(probe *p, bases *s);

#endif
