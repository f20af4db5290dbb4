#include "solver/svd_krylov.h"
#include <string.h>
#include "base/alloc.h"
#include "solver/svd_bases.h"
#include "solver/svd_probe.h"

/* NOISY_CHECKS: that many steps whose residual is above tol though the recurrence is below NOISE * tol end the run. */
enum { NOISY_CHECKS = 3 };
static const double NOISE = 0.1;

typedef enum { STARTED, WAITS_FOR_AX, WAITS_FOR_ATU, FINISHED } phase;

struct krylov {
    bases bases;
    probe probe;
    int flipped;    /* A = J' */
    int only_probe; /* the run ends with the first probe that is not PROBE_FULL */
    size_t noisy;   /* checks after which noise_only held */
    phase phase;
    krylov_request request;
    svd_stop stop;
};

size_t krylov_min_basis(size_t rows, size_t cols, size_t k, size_t block) {
    size_t full = min2(rows, cols);
    return min2(full, k + max2(2 * min2(block, full), PROBE_ROOM + 2));
}

/* Whether the operator's rounding errors alone keep the residuals above tol */
static int noise_only(const bases *s) { return s->worst > s->tol && s->recurrence <= NOISE * s->tol; }

static void request(krylov *run, phase phase, size_t n, const real *X, real *Y) {
    run->phase = phase;
    run->request = (krylov_request){(phase == WAITS_FOR_ATU) != run->flipped, n, X, Y};
}

/* The first half of a step, which moves n candidates to V: at most 2n applications */
static void begin_step(krylov *run, size_t n) {
    const bases *s = &run->bases;
    request(run, WAITS_FOR_AX, n, candidate(s, 0), s->AV + s->n_v * s->rows);
}

/* The second half. Returns its number of products, 0 if U gets no new row. */
static size_t continue_step(krylov *run) {
    bases *s = &run->bases;
    size_t r = bases_take_right(s, run->request.n);
    request(run, WAITS_FOR_ATU, r, s->U + s->n_u * s->rows, s->AtU + s->n_u * s->cols);
    return r;
}

static void finish(krylov *run, svd_stop stop) {
    run->stop = stop;
    run->phase = FINISHED;
    run->request = (krylov_request){0};
}

/* The next step of the iteration, or the end of the run */
static ps_code extend(krylov *run, ps_status *st) {
    bases *s = &run->bases;
    if (!s->n_w) bases_add_random(s, s->block);
    if (!s->n_w) { /* V spans everything: B is exact */
        run->probe.missed = 0;
        finish(run, s->worst <= s->tol ? SVD_CERTIFIED : SVD_PRECISION);
        return PS_OK;
    }
    if (!applications_left(s)) {
        finish(run, SVD_MAX_APPLICATIONS);
        return PS_OK;
    }
    size_t n = min2(min2(s->block, s->n_w), (applications_left(s) + 1) / 2);
    if (s->n_v + n > s->max_basis) bases_restart(s, bases_restart_size(s));
    if (s->n_w > n && bases_order(s, st)) return st->code;
    begin_step(run, n);
    return PS_OK;
}

/* What follows the triplets that are there now: a step of a probe, the next step of the iteration, or the end */
static ps_code advance(krylov *run, ps_status *st) {
    bases *s = &run->bases;
    probe *p = &run->probe;
    if (p->state == PROBE_STEP) probe_continue(p, s);
    else if (!run->only_probe) p->state = PROBE_FOUND;
    while (s->worst <= s->tol && (p->state == PROBE_FULL || (p->state == PROBE_FOUND && !run->only_probe)))
        if (probe_begin(p, s, st)) return st->code;
    if (p->state == PROBE_STEP) begin_step(run, 1);
    else if (s->worst <= s->tol || run->only_probe) finish(run, p->state == PROBE_PASSED ? SVD_CERTIFIED : SVD_MAX_APPLICATIONS);
    else if (noise_only(s) && ++run->noisy == NOISY_CHECKS) finish(run, SVD_PRECISION);
    else return extend(run, st);
    return PS_OK;
}

ps_code krylov_next(krylov *run, krylov_request *r, ps_status *st) {
    bases *s = &run->bases;
    krylov_request *w = &run->request;
    *r = (krylov_request){0};
    if (svd_accept(&s->A, w->transposed, w->n, w->Y, st)) return st->code;
    if (run->phase == WAITS_FOR_ATU || (run->phase == WAITS_FOR_AX && !continue_step(run))) {
        bases_take_left(s, w->n);
        if (bases_check(s, st) || advance(run, st)) return st->code;
    } else if (run->phase == STARTED && advance(run, st)) return st->code;
    *r = *w;
    return PS_OK;
}

double krylov_operations(const krylov *run) {
    const bases *s = &run->bases;
    double n = (double)(s->n_v + s->block);
    return 4 * n * (double)((s->rows + s->cols) * (s->k + s->block)) + 20 * n * n * n; /* products with the bases, SVD of B */
}

void krylov_result(const krylov *run, svd_result *out) {
    const bases *s = &run->bases;
    bases_ritz_vectors(s, run->flipped ? out->U : out->V, run->flipped ? out->V : out->U);
    double unit = s->A.unit != 0 ? s->A.unit : 1;
    for (size_t i = 0; i < s->k; i++) {
        out->sigma[i] = s->sigma[i] * unit;
        out->residuals[2 * i] = s->residual[2 * i + (run->flipped ? 1 : 0)];
        out->residuals[2 * i + 1] = s->residual[2 * i + (run->flipped ? 0 : 1)];
    }
    out->next_sigma = s->n_ritz > s->k ? s->sigma[s->k] * unit : (double)NAN;
    out->applications = s->A.applications;
    out->certificate_applications = 0;
    out->stop = run->stop;
    out->missed_probability = run->stop == SVD_CERTIFIED ? run->probe.missed : 1;
}

void krylov_free(krylov *run) {
    if (!run) return;
    arena_free(&run->bases.memory);
    arena_free(&run->probe.memory);
    ps_free(run);
}

static ps_code check_options(size_t rows, size_t cols, const krylov_options *o, ps_status *st) {
    size_t full = min2(rows, cols);
    if (o->k < 1 || o->k > full)
        return ps_fail(st, PS_ERR_VALUE, "k = %zu, but an operator of %zu x %zu has 1 to %zu singular triplets", o->k,
                       rows, cols, full);
    if (o->block < 1) return ps_fail(st, PS_ERR_VALUE, "block must be at least 1");
    if (!(o->tol > 0) || !isfinite(o->tol))
        return ps_fail(st, PS_ERR_VALUE, "tol must be a positive number, not %g", o->tol);
    if (o->max_applications / 2 < o->k)
        return ps_fail(st, PS_ERR_VALUE, "max_applications = %zu is not enough for k = %zu triplets: 2 k is the least",
                       o->max_applications, o->k);
    size_t least = krylov_min_basis(rows, cols, o->k, o->block);
    if (o->max_basis < least)
        return ps_fail(st, PS_ERR_VALUE, "max_basis = %zu is too small: k = %zu with block = %zu needs %zu",
                       o->max_basis, o->k, o->block, least);
    return PS_OK;
}

/* A run whose bases have these sizes, NULL with an error */
static krylov *run_of(const bases *sizes, ps_status *st) {
    krylov *run = ps_calloc(1, sizeof *run);
    if (!run) return ps_fail(st, PS_ERR_MEMORY, "out of memory"), NULL;
    run->bases = *sizes;
    if (!bases_make(&run->bases, st) && !probe_make(&run->probe, &run->bases, st)) return run;
    krylov_free(run);
    return NULL;
}

ps_code krylov_make(krylov **out, const blas *b, size_t rows, size_t cols, const krylov_options *o,
                    const svd_observer *observer, ps_status *st) {
    if (check_options(rows, cols, o, st)) return st->code;
    size_t least = min2(rows, cols);
    const bases sizes = {.b = b, .observer = observer, .A = {.rows = rows, .cols = cols}, .g = {.seed = o->seed},
                         .rows = max2(rows, cols), .cols = least, .k = o->k, .block = min2(o->block, least),
                         .max_basis = min2(o->max_basis, least), .max_applications = o->max_applications, .tol = o->tol};
    *out = run_of(&sizes, st);
    if (!*out) return st->code;
    (*out)->flipped = rows < cols;
    return PS_OK;
}

/* Goes on with a run to its end. */
static ps_code drive(krylov *run, const linop *J, ps_status *st) {
    krylov_request r;
    ps_code code;
    while (!(code = krylov_next(run, &r, st)) && r.n)
        if ((code = linop_multiply(J, r.transposed, r.n, r.X, r.Y, st))) break;
    return code;
}

ps_code svd_krylov(const blas *b, const linop *J, const krylov_options *o, const svd_observer *observer, svd_result *out,
                   ps_status *st) {
    krylov *run;
    ps_code code = krylov_make(&run, b, J->rows, J->cols, o, observer, st);
    if (code) return code;
    code = drive(run, J, st);
    if (!code) krylov_result(run, out);
    krylov_free(run);
    return code;
}

ps_code krylov_probe(const blas *b, const linop *J, const svd_found *f, const krylov_options *o, size_t *spent,
                     double *missed_probability, ps_status *st) {
    size_t cols = J->cols, least = krylov_min_basis(cols, cols, o->k, o->k);
    const bases sizes = {.b = b, .A = f->A, .g = {.seed = o->seed, .stream = 1}, .rows = J->rows, .cols = cols, .k = o->k,
                         .block = o->k, .max_basis = min2(cols, max2(o->max_basis, least)), .tol = o->tol,
                         .max_applications = f->A.applications + o->max_applications};
    krylov *run = run_of(&sizes, st);
    *missed_probability = 1;
    *spent = 0;
    if (!run) return st->code;
    run->only_probe = 1;
    run->probe.state = PROBE_FULL;
    bases_start(&run->bases, f);
    ps_code code = bases_check(&run->bases, st);
    if (!code) code = drive(run, J, st);
    if (!code && run->stop == SVD_CERTIFIED) *missed_probability = run->probe.missed;
    *spent = run->bases.A.applications - f->A.applications;
    krylov_free(run);
    return code;
}
