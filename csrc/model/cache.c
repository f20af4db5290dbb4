#include "model/cache.h"
#include <string.h>
#include "ops/latent.h"
#include "ops/scan.h"

static size_t key_width(const spec *m) { return m->kv_rank ? latent_key(m) : m->n_kv_heads * m->head_dim; }
static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Sizes are ints, and weights with so many rows exist. */
size_t cache_state(const spec *m) {
    size_t most = 0, delta = m->state_v_heads * m->state_k_dim * m->state_v_dim;
    for (size_t l = 0; l < m->n_layers; l++) {
        const layer_spec *y = &m->layer[l];
        size_t taps = m->conv_taps ? m->conv_taps - 1 : 0, n = 0;
        if (y->mixer == MIX_CONV) n = taps * m->d_model;
        if (y->mixer == MIX_DELTA || y->mixer == MIX_MAMBA) n = taps * (y->q.n_out + y->k.n_out + y->v.n_out) + delta;
        if (n > most) most = n;
    }
    return most;
}

static ps_code make_or_count(cache *c, const spec *m, size_t n_layers, size_t n_states, size_t n_seq, size_t total, size_t *bytes,
                             ps_status *st) {
    size_t rows, scans = smaller(n_layers, m->n_recurrent), slots = n_seq * (scans ? n_states : 0);
    if (size_mul(smaller(n_layers, m->n_attention), total, &rows, st)) return st->code;
    arena_slice table[] = {SLICE(c->capacity, n_seq), SLICE(c->length, n_seq), SLICE(c->offset, n_seq),
                           SLICE(c->k, rows, key_width(m)), SLICE(c->v, m->kv_rank ? 0 : rows, key_width(m)),
                           SLICE(c->states, scans, slots, cache_state(m)), SLICE(c->seen, slots), SLICE(c->keep, n_seq),
                           SLICE(c->next, slots)};
    if (arena_make_or_count(&c->memory, table, COUNT(table), bytes, st)) return st->code;
    c->n_scans = scans;
    c->n_states = scans ? n_states : 0;
    return PS_OK;
}

ps_code cache_count(const spec *m, size_t n_layers, size_t n_states, size_t n_seq, size_t total, size_t *bytes, ps_status *st) {
    return make_or_count(&(cache){0}, m, n_layers, n_states, n_seq, total, bytes, st);
}

ps_code cache_make(cache *c, const spec *m, size_t n_layers, size_t n_states, size_t n_seq, const size_t *capacity, ps_status *st) {
    size_t total = 0;
    *c = (cache){0};
    for (size_t s = 0; s < n_seq; s++) total += capacity[s]; /* each <= n_ctx: the caller has checked */
    if (make_or_count(c, m, n_layers, n_states, n_seq, total, NULL, st)) return st->code;
    c->n_seq = n_seq;
    c->n_layers = smaller(n_layers, m->n_attention);
    c->width = key_width(m);
    if (m->kv_rank) c->v = c->k;
    c->total = total;
    c->state = cache_state(m);
    for (size_t s = 0, at = 0; s < n_seq; at += capacity[s++]) {
        c->capacity[s] = capacity[s];
        c->length[s] = c->keep[s] = 0;
        c->offset[s] = at;
    }
    for (size_t i = 0; i < n_seq * c->n_states; i++) c->seen[i] = CACHE_NOTHING;
    return PS_OK;
}

void cache_free(cache *c) { arena_free(&c->memory); }

void cache_write(cache *c, size_t l, const batch *b, const real *k, const real *v) {
    const batch *all = b->whole ? b->whole : b;
    for (size_t s = 0; s < all->n_seq; s++)
        for (size_t r = all->row0[s], id = (size_t)all->id[s]; r < all->row0[s + 1]; r++) {
            size_t from = (b->whole ? b->of[r] : r) * c->width, at = (size_t)all->pos[r] * c->width;
            memcpy(cache_k(c, l, id) + at, k + from, c->width * sizeof(real));
            if (v != k) memcpy(cache_v(c, l, id) + at, v + from, c->width * sizeof(real));
        }
}

/* ---- states ---- */

cache_slots cache_slots_of(const cache *c, size_t id, size_t start) {
    int first = (int)(id * c->n_states);
    if (start) {
        int second = c->seen[first] != start;
        return (cache_slots){first + second, first + !second, SCAN_NONE};
    }
    return (cache_slots){SCAN_NONE, first, c->n_states > 1 && c->keep[id] ? first + 1 : SCAN_NONE};
}

static void mark_written(cache *c, const batch *b, int valid) {
    for (size_t s = 0; c->n_states && s < b->n_seq; s++) {
        size_t id = (size_t)b->id[s], start = (size_t)b->pos[b->row0[s]];
        cache_slots at = cache_slots_of(c, id, start);
        c->seen[at.end] = valid ? (size_t)b->pos[b->row0[s + 1] - 1] + 1 : CACHE_NOTHING;
        if (!start && c->n_states > 1) c->seen[at.end + 1] = valid && at.kept != SCAN_NONE ? c->keep[id] : CACHE_NOTHING;
    }
}

void cache_begin_pass(cache *c, const batch *b) { mark_written(c, b, 0); }
void cache_end_pass(cache *c, const batch *b) { mark_written(c, b, 1); }

size_t cache_start(const cache *c, size_t id, size_t length) {
    size_t most = c->n_states ? 0 : length;
    for (size_t i = id * c->n_states; i < (id + 1) * c->n_states; i++)
        if (c->seen[i] <= length && c->seen[i] > most) most = c->seen[i];
    return most;
}

void cache_cut(cache *c, size_t id, size_t length) {
    c->length[id] = length;
    for (size_t i = id * c->n_states; i < (id + 1) * c->n_states; i++)
        if (c->seen[i] > length) c->seen[i] = CACHE_NOTHING;
}
