#include "model/batch.h"
#include <limits.h>
#include <string.h>
#include "ops/rope.h"

static ps_code check_sequence(const spec *m, size_t s, const int *tokens, size_t length, size_t start, ps_status *st) {
    if (!length) return ps_fail(st, PS_ERR_VALUE, "sequence %zu is empty", s);
    if (length > m->n_ctx || start > m->n_ctx - length)
        return ps_fail(st, PS_ERR_VALUE, "sequence %zu would have %zu tokens; the model's context is %zu", s,
                       start + length, m->n_ctx);
    for (size_t i = 0; i < length; i++)
        if (tokens[i] < 0 || (size_t)tokens[i] >= m->n_vocab)
            return ps_fail(st, PS_ERR_VALUE, "token id %d (sequence %zu, position %zu) is outside the vocabulary of %zu",
                           tokens[i], s, start + i, m->n_vocab);
    return PS_OK;
}

ps_code batch_make(batch *b, const spec *m, size_t n_seq, const int *const *tokens, const size_t *length,
                   const size_t *start, const int *id, ps_status *st) {
    size_t rows = 0, half = m->rope_dim / 2;
    *b = (batch){0};
    for (size_t s = 0; s < n_seq; s++) {
        if (check_sequence(m, s, tokens[s], length[s], start ? start[s] : 0, st)) return st->code;
        rows += length[s];
    }
    if (!rows) return ps_fail(st, PS_ERR_VALUE, "no sequence given");
    if (rows > INT_MAX) return ps_fail(st, PS_ERR_OVERFLOW, "%zu tokens are too many for one call", rows);
    arena_slice table[] = {SLICE(b->row0, n_seq + 1), SLICE(b->id, n_seq), SLICE(b->token, rows), SLICE(b->pos, rows),
                           SLICE(b->cosine, m->n_rope, rows, half), SLICE(b->sine, m->n_rope, rows, half)};
    if (arena_make(&b->memory, table, COUNT(table), st)) return st->code;
    b->n_seq = n_seq;
    b->n_rows = rows;
    b->row0[0] = 0;
    for (size_t s = 0, r = 0; s < n_seq; s++) {
        b->id[s] = id ? id[s] : (int)s;
        for (size_t i = 0; i < length[s]; i++, r++) {
            b->token[r] = tokens[s][i];
            b->pos[r] = (int)((start ? start[s] : 0) + i);
        }
        b->row0[s + 1] = r;
        if ((size_t)b->pos[r - 1] + 1 > b->max_keys) b->max_keys = (size_t)b->pos[r - 1] + 1;
    }
    for (size_t t = 0; t < m->n_rope; t++)
        for (size_t s = 0; s < n_seq; s++)
            for (size_t r = b->row0[s]; r < b->row0[s + 1]; r++)
                rope_angles(&m->rope[t], b->pos[r], (size_t)b->pos[b->row0[s + 1] - 1] + 1,
                            b->cosine + (t * rows + r) * half, b->sine + (t * rows + r) * half);
    return PS_OK;
}

void batch_free(batch *b) { arena_free(&b->memory); }

void batch_spread(const batch *b, size_t width, const real *x, real *out) {
    for (size_t r = b->whole ? b->whole->n_rows : b->n_rows; r-- > 0;) { /* descending: none is overwritten before it is read */
        size_t from = b->whole ? b->of[r] : r;
        if (out + r * width != x + from * width) memcpy(out + r * width, x + from * width, width * sizeof(real));
    }
}

ps_code subset_make(subset *q, const batch *b, const int *const *positions, const size_t *n, ps_status *st) {
    size_t total = 0;
    *q = (subset){0};
    for (size_t s = 0; s < b->n_seq; s++) {
        size_t length = b->row0[s + 1] - b->row0[s];
        for (size_t i = 0; positions && i < n[s]; i++)
            if (positions[s][i] < 0 || (size_t)positions[s][i] >= length || (i && positions[s][i] <= positions[s][i - 1]))
                return ps_fail(st, PS_ERR_VALUE, "position %d of sequence %zu is outside its %zu tokens or out of order",
                               positions[s][i], s, length);
        total += positions ? n[s] : length;
    }
    if (!total) return ps_fail(st, PS_ERR_VALUE, "no positions given");
    arena_slice table[] = {SLICE(q->row, total), SLICE(q->row0, b->n_seq + 1), SLICE(q->pos, total)};
    if (arena_make(&q->memory, table, COUNT(table), st)) return st->code;
    q->row0[0] = 0;
    for (size_t s = 0, r = 0; s < b->n_seq; s++) {
        size_t count = positions ? n[s] : b->row0[s + 1] - b->row0[s];
        for (size_t i = 0; i < count; i++, r++) {
            q->row[r] = b->row0[s] + (positions ? (size_t)positions[s][i] : i);
            q->pos[r] = b->pos[q->row[r]];
        }
        q->row0[s + 1] = r;
    }
    q->n = total;
    return PS_OK;
}

void subset_free(subset *q) { arena_free(&q->memory); }
