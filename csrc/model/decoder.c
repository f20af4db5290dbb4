#include "model/decoder.h"
#include <string.h>

ps_code decoder_make(decoder *d, const spec *m, size_t n_seq, const size_t *capacity, const sampling *how,
                     const uint64_t *seeds, ps_status *st) {
    d->m = m;
    d->n_seq = n_seq;
    d->how = *how;
    for (size_t s = 0; s < n_seq; s++)
        if (capacity[s] > m->n_ctx)
            return ps_fail(st, PS_ERR_VALUE, "sequence %zu may reach %zu tokens; the model's context is %zu", s, capacity[s], m->n_ctx);
    size_t total = 0; /* n_ctx and so each capacity fit in an int */
    for (size_t s = 0; s < n_seq; s++) total += capacity[s];
    arena_slice table[] = {SLICE(d->streams, n_seq), SLICE(d->next, n_seq), SLICE(d->history, total),
                           SLICE(d->logits, n_seq, m->n_vocab)};
    if (arena_make(&d->memory, table, COUNT(table), st)) return st->code;
    memset(d->logits, 0, n_seq * m->n_vocab * sizeof(real));
    for (size_t s = 0; s < n_seq; s++) {
        d->streams[s] = (rng){.seed = seeds[s]};
        d->next[s] = 0;
    }
    return cache_make(&d->cache, m, CACHE_ALL, n_seq, capacity, st);
}

void decoder_free(decoder *d) {
    cache_free(&d->cache);
    arena_free(&d->memory);
}

/* Logits of the last row of each sequence of the batch, and the next tokens. x (n_rows, C) is overwritten. same: of forward.h */
static ps_code choose(decoder *d, const runtime *rt, const batch *b, const size_t *same, real *x, ps_status *st) {
    size_t V = d->m->n_vocab, *one;
    arena memory = {0};
    real *logits;
    arena_slice table[] = {SLICE(logits, b->n_seq, V), SLICE(one, b->n_seq)};
    if (arena_make(&memory, table, COUNT(table), st)) return st->code;
    for (size_t i = 0; i < b->n_seq; i++) one[i] = 1;
    if (!lm_head_last(rt, d->m, b, one, same, x, logits, st)
        && !sample_rows(rt, &d->how, b->n_seq, V, logits, b->id, d->streams, d->next, st))
        for (size_t i = 0; i < b->n_seq; i++) memcpy(d->logits + (size_t)b->id[i] * V, logits + i * V, V * sizeof(real));
    arena_free(&memory);
    return st->code;
}

/* Whether a rotary table changes when a sequence grows from `from` to `to` tokens. */
static int rotation_changes(const spec *m, size_t from, size_t to) {
    for (size_t t = 0; t < m->n_rope; t++)
        if (m->rope[t].long_inv_freq && from <= m->rope[t].long_after && to > m->rope[t].long_after) return 1;
    return 0;
}

/* Appends tokens[i][0..length[i]) at position start[i] to sequence id[i], i < n, and chooses the next tokens. The time of a
 * step is mostly that of reading the weights, and so is the head's, which has one row a sequence: both use gemv.h.
 * A prompt does not: its activations have the bits of any other forward pass. */
static ps_code feed(decoder *d, const runtime *rt, int is_step, size_t n, const int *id, const int *const *tokens,
                    const size_t *length, const size_t *start, const hooks *v, ps_status *st) {
    runtime few = *rt;
    few.few_rows = 1;
    batch b = {0};
    arena memory = {0};
    real *x;
    size_t *same;
    for (size_t i = 0; i < n; i++) {
        size_t s = (size_t)id[i];
        if (length[i] > d->cache.capacity[s] - start[i])
            return ps_fail(st, PS_ERR_VALUE, "sequence %zu is full: it has its %zu tokens", s, d->cache.capacity[s]);
        d->cache.keep[s] = 0;
    }
    if (batch_make(&b, d->m, n, tokens, length, start, id, st)) goto done;
    arena_slice table[] = {SLICE(x, b.n_rows, d->m->d_model), SLICE(same, b.n_rows)};
    if (arena_make(&memory, table, COUNT(table), st)) goto done;
    forward_plan plan = {.hooks = v, .cache = &d->cache, .n_layers = d->m->n_layers, .first_taped = d->m->n_layers, .same = same,
                         .n_computed = &d->n_computed};
    if (forward_stream(is_step ? &few : rt, d->m, &b, &plan, x, st) || choose(d, &few, &b, same, x, st)) goto done;
    for (size_t i = 0; i < n; i++) d->cache.length[id[i]] = start[i] + length[i];
done:
    arena_free(&memory);
    batch_free(&b);
    return st->code;
}

/* Arguments of feed */
typedef struct {
    const int **tokens;
    size_t *length, *start;
    int *id;
    arena memory;
} feeding;

static ps_code feeding_make(feeding *f, size_t n, ps_status *st) {
    *f = (feeding){0};
    arena_slice table[] = {SLICE(f->tokens, n), SLICE(f->length, n), SLICE(f->start, n), SLICE(f->id, n)};
    return arena_make(&f->memory, table, COUNT(table), st);
}

ps_code decoder_start(decoder *d, const runtime *rt, const int *const *tokens, const size_t *length, const hooks *v,
                      ps_status *st) {
    feeding f;
    if (feeding_make(&f, d->n_seq, st)) return st->code;
    for (size_t s = 0; s < d->n_seq; s++) {
        f.id[s] = (int)s;
        f.start[s] = 0;
        if (length[s] <= d->cache.capacity[s])
            memcpy(d->history + d->cache.offset[s], tokens[s], length[s] * sizeof *d->history);
    }
    feed(d, rt, 0, d->n_seq, f.id, tokens, length, f.start, v, st);
    arena_free(&f.memory);
    return st->code;
}

ps_code decoder_step(decoder *d, const runtime *rt, const hooks *v, ps_status *st) {
    feeding f;
    size_t n = 0;
    if (feeding_make(&f, d->n_seq, st)) return st->code;
    for (size_t s = 0; s < d->n_seq; s++) {
        size_t length = d->cache.length[s];
        int *history = d->history + d->cache.offset[s];
        if (d->next[s] < 0) continue;
        if (length < d->cache.capacity[s]) history[length] = d->next[s]; /* feed refuses a full sequence */
        int again = rotation_changes(d->m, length, length + 1);
        f.id[n] = (int)s;
        f.start[n] = again ? 0 : cache_start(&d->cache, s, length);
        f.length[n] = length + 1 - f.start[n];
        f.tokens[n] = history + f.start[n];
        n++;
    }
    if (n) feed(d, rt, 1, n, f.id, f.tokens, f.length, f.start, v, st);
    arena_free(&f.memory);
    return st->code;
}

void decoder_note(decoder *d, size_t s, const int *tokens, size_t length) {
    memcpy(d->history + d->cache.offset[s], tokens, length * sizeof *tokens);
    d->cache.length[s] = length;
    d->next[s] = -1;
}

ps_code decoder_resume(decoder *d, size_t s, size_t length, int next, ps_status *st) {
    size_t held = d->cache.length[s];
    if (!length || length > held)
        return ps_fail(st, PS_ERR_VALUE, "sequence %zu holds %zu tokens, and cannot go on after %zu", s, held, length);
    if (next >= 0 && ((size_t)next >= d->m->n_vocab || rotation_changes(d->m, length, held)))
        return ps_fail(st, PS_ERR_VALUE, "sequence %zu cannot go on after %zu tokens with token %d", s, length, next);
    cache_cut(&d->cache, s, length);
    d->next[s] = next < 0 ? -1 : next;
    return PS_OK;
}
