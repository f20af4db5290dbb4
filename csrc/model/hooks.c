#include "model/hooks.h"
#include <string.h>

/* Whether the intervention adds its vector at this position of sequence id. */
static int touches(const intervention *s, int id, int pos) {
    if (s->sequence >= 0 && s->sequence != id) return 0;
    for (size_t i = 0; i < s->n_ranges; i++)
        if (pos >= s->ranges[2 * i] && pos < s->ranges[2 * i + 1]) return 1;
    return 0;
}

void run_hooks(const hooks *v, size_t layer, site at, const batch *b, size_t C, real *x) {
    for (size_t i = 0; i < v->n_steer; i++) {
        const intervention *s = &v->steer[i];
        if (s->layer != layer || s->site != at) continue;
        for (size_t q = 0; q < b->n_seq; q++)
            for (size_t r = b->row0[q]; r < b->row0[q + 1]; r++)
                if (touches(s, b->id[q], b->pos[r]))
                    for (size_t c = 0; c < C; c++) x[r * C + c] += s->vector[c];
    }
    for (size_t i = 0; i < v->n_captures; i++)
        if (v->captures[i].layer == layer && v->captures[i].site == at)
            memcpy(v->captures[i].out, x, b->n_rows * C * sizeof(real));
}
