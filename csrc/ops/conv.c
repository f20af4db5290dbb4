#include "ops/conv.h"

enum { CHUNK = 256 }; /* channels of a task: its rows stay in the L1 cache */

size_t conv_scratch(size_t taps) { return taps * CHUNK; }

typedef struct {
    const conv *c;
    const scan *s;
    size_t chunks;
    int derivative, backward; /* derivative: of tangents, which have neither bias nor states */
    real *x;
} call;

/* One row of n channels from c0 on: x becomes y, and past (taps - 1, n), the rows before it, takes in x. */
static void pass_row(const conv *c, size_t c0, size_t n, const real *bias, real *past, real *x) {
    size_t before = c->taps - 1;
    real y[CHUNK];
    for (size_t i = 0; i < n; i++) y[i] = bias ? bias[c0 + i] : 0;
    for (size_t j = 0; j < c->taps; j++) {
        const real *w = c->w + j * c->ldw + c0, *row = j < before ? past + j * n : x;
        for (size_t i = 0; i < n; i++) y[i] += w[i] * row[i];
    }
    if (before) {
        memmove(past, past + n, (before - 1) * n * sizeof(real));
        memcpy(past + (before - 1) * n, x, n * sizeof(real));
    }
    memcpy(x, y, n * sizeof(real));
}

/* Task: a chunk of the channels of one tangent, through all sequences */
static void conv_task(void *ctx, size_t task, int worker) {
    const call *k = ctx;
    const conv *c = k->c;
    const scan *s = k->s;
    size_t c0 = task % k->chunks * CHUNK, n = c->width - c0 < CHUNK ? c->width - c0 : CHUNK;
    size_t at = c->state + (c->taps - 1) * c0, size = (c->taps - 1) * n; /* the chunks of a state follow each other */
    const scan without = {.n_seq = s->n_seq, .row0 = s->row0}, *states = k->derivative ? &without : s;
    real *x = k->x + task / k->chunks * s->row0[s->n_seq] * c->width + c0, *own = c->scratch + (size_t)worker * c->scratch_stride;
    for (size_t i = 0; i < s->n_seq; i++) {
        real *past = scan_begin(states, i, at, size, own);
        for (size_t r = s->row0[i]; r < s->row0[i + 1]; r++) {
            size_t row = k->backward ? s->row0[i] + s->row0[i + 1] - 1 - r : r;
            pass_row(c, c0, n, k->derivative ? NULL : c->bias, past, x + row * c->width);
            scan_passed(states, row, at, size, past);
        }
    }
}

static void run(const runtime *rt, call *k, size_t n_t) {
    k->chunks = (k->c->width + CHUNK - 1) / CHUNK;
    double operations = (double)n_t * (double)k->s->row0[k->s->n_seq] * (double)k->c->width * (double)(2 * k->c->taps);
    runtime_run(rt, n_t * k->chunks, operations, conv_task, k);
}

void conv_forward(const runtime *rt, const conv *c, const scan *s, real *x) {
    run(rt, &(call){.c = c, .s = s, .x = x}, 1);
}

void conv_jvp(const runtime *rt, const conv *c, const scan *s, size_t n_t, real *dx) {
    run(rt, &(call){.c = c, .s = s, .derivative = 1, .x = dx}, n_t);
}

/*  y_r = sum over j of w_j x_{r - (taps-1) + j}
 * gx_r = sum over j of w_j gy_{r + (taps-1) - j} */
void conv_vjp(const runtime *rt, const conv *c, const scan *s, size_t n_t, real *gy) {
    run(rt, &(call){.c = c, .s = s, .derivative = 1, .backward = 1, .x = gy}, n_t);
}
