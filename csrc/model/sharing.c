#include "model/sharing.h"
#include <string.h>

enum { NONE = -1 };

/* Entry i of the list of sequence s, or the first behind it, that touches this position in the layers so far; or the list's end */
static size_t next(const sharing *g, size_t i, size_t s, int pos) {
    for (; i < g->first[s + 1]; i++) {
        const intervention *one = &g->v->steer[g->list[i]];
        if (one->layer <= g->layer && intervention_touches(one, g->all->id[s], pos)) break;
    }
    return i;
}

/* Whether row r of sequence s and row q of sequence t, at the same position, have the same token and interventions */
static int alike(const sharing *g, size_t s, size_t r, size_t t, size_t q) {
    int pos = g->all->pos[r];
    if (g->all->token[r] != g->all->token[q]) return 0;
    for (size_t i = g->first[s], j = g->first[t];; i++, j++) {
        i = next(g, i, s, pos);
        j = next(g, j, t, pos);
        if (i == g->first[s + 1] || j == g->first[t + 1]) return i == g->first[s + 1] && j == g->first[t + 1];
        if (!intervention_equal(&g->v->steer[g->list[i]], &g->v->steer[g->list[j]], g->m->d_model)) return 0;
    }
}

/* The number of rotary tables that a sequence is too long for says which ones */
static size_t root(const sharing *g, size_t s) {
    size_t n = 0, length = g->all->row0[s + 1] - g->all->row0[s];
    for (size_t t = 0; t < g->m->n_rope; t++) n += g->m->rope[t].long_inv_freq && length > g->m->rope[t].long_after;
    return g->all->n_rows + n;
}

/* Appends row r of sequence s as a node below parent. */
static void append(sharing *g, size_t s, size_t r, size_t parent) {
    size_t n = g->own.n_rows++;
    g->row[n] = (int)r;
    g->seq[n] = (int)s;
    g->child[n] = NONE;
    g->sibling[n] = g->child[parent];
    g->child[parent] = (int)n;
    g->from[n] = g->of[r];
    g->of[r] = n;
    g->own.token[n] = g->all->token[r];
    g->own.pos[n] = g->all->pos[r];
}

static void build(sharing *g) {
    const batch *all = g->all;
    batch *own = &g->own;
    size_t half = g->m->rope_dim / 2;
    own->n_seq = own->n_rows = 0;
    for (size_t i = 0; i <= g->m->n_rope; i++) g->child[all->n_rows + i] = NONE;
    for (size_t s = 0; s < all->n_seq; s++) {
        size_t node = root(g, s), r = all->row0[s];
        for (; r < all->row0[s + 1]; r++) {
            int c = g->child[node];
            while (c != NONE && !alike(g, s, r, (size_t)g->seq[c], (size_t)g->row[c])) c = g->sibling[c];
            if (c == NONE) break;
            g->of[r] = node = (size_t)c;
        }
        if (r == all->row0[s + 1]) continue;
        own->row0[own->n_seq] = own->n_rows;
        own->id[own->n_seq++] = all->id[s];
        for (; r < all->row0[s + 1]; r++, node = own->n_rows - 1) append(g, s, r, node);
    }
    own->row0[own->n_seq] = own->n_rows;
    for (size_t t = 0; t < g->m->n_rope; t++)
        for (size_t n = 0; n < own->n_rows; n++) {
            size_t to = (t * own->n_rows + n) * half, at = (t * all->n_rows + (size_t)g->row[n]) * half;
            memcpy(own->cosine + to, all->cosine + at, half * sizeof(real));
            memcpy(own->sine + to, all->sine + at, half * sizeof(real));
        }
}

static int from_the_start(const batch *all) {
    for (size_t s = 0; s < all->n_seq; s++)
        if (all->pos[all->row0[s]]) return 0;
    return 1;
}

static int concerns(const intervention *one, int id) { return one->sequence < 0 || one->sequence == id; }

ps_code sharing_make(sharing *g, const spec *m, const batch *all, const hooks *v, ps_status *st) {
    size_t n = all->n_rows, half = m->rope_dim / 2, entries = 0;
    if (all->n_seq < 2 || !from_the_start(all)) return PS_OK;
    for (size_t s = 0; s < all->n_seq; s++)
        for (size_t i = 0; i < v->n_steer; i++) entries += (size_t)concerns(&v->steer[i], all->id[s]);
    batch *own = &g->own;
    arena_slice table[] = {
        SLICE(own->row0, all->n_seq + 1), SLICE(own->id, all->n_seq), SLICE(own->token, n), SLICE(own->pos, n),
        SLICE(own->cosine, m->n_rope, n, half), SLICE(own->sine, m->n_rope, n, half), SLICE(g->of, n),
        SLICE(g->first, all->n_seq + 1), SLICE(g->list, entries), SLICE(g->child, n + m->n_rope + 1), SLICE(g->sibling, n),
        SLICE(g->row, n), SLICE(g->seq, n), SLICE(g->from, n),
    };
    if (arena_make(&g->memory, table, COUNT(table), st)) return st->code;
    g->m = m;
    g->v = v;
    g->all = own->whole = all;
    own->of = g->of;
    own->max_keys = all->max_keys;
    memset(g->of, 0, n * sizeof *g->of);
    g->first[0] = 0;
    for (size_t s = 0, at = 0; s < all->n_seq; s++) {
        for (size_t i = 0; i < v->n_steer; i++)
            if (concerns(&v->steer[i], all->id[s])) g->list[at++] = i;
        g->first[s + 1] = at;
    }
    build(g);
    return PS_OK;
}

void sharing_free(sharing *g) { arena_free(&g->memory); }

int sharing_saves(const sharing *g) { return g->all && g->own.n_rows < g->all->n_rows; }

/* x (nodes, C): from the nodes of the layer before to those of this one */
static void split_rows(const sharing *g, size_t C, real *x) {
    for (size_t n = g->own.n_rows; n-- > 0;) /* descending, and from[n] <= n: none is overwritten before it is read */
        if (g->from[n] != n) memcpy(x + n * C, x + g->from[n] * C, C * sizeof(real));
}

const batch *sharing_enter(sharing *g, const batch *all, size_t layer, real *x, real *e) {
    int splits = 0;
    if (!sharing_saves(g)) return all;
    for (size_t i = 0; i < g->v->n_steer; i++) splits |= g->v->steer[i].layer == layer;
    if (layer && splits) {
        g->layer = layer;
        build(g);
        split_rows(g, g->m->d_model, x);
        if (e) split_rows(g, g->m->d_model, e);
    }
    return sharing_saves(g) ? &g->own : all;
}
