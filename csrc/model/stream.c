#include "model/stream.h"
#include "base/arena.h"
#include "base/pages.h"
#include "kernels/blocks.h"

static void advise(const weight *W, void (*hint)(const void *, size_t)) {
    if (!W->data) return;
    const wtype_layout *type = &wtype_layouts[W->type];
    ptrdiff_t groups = (ptrdiff_t)(W->n_out / W->group), steps[] = {(groups - 1) * W->group_stride, (ptrdiff_t)(W->group - 1) * W->out_stride,
                                                                    (ptrdiff_t)(W->n_in - 1) * W->in_stride};
    ptrdiff_t low = 0, high = 0; /* of the elements' offsets */
    for (size_t i = 0; i < COUNT(steps); i++) *(steps[i] < 0 ? &low : &high) += steps[i];
    hint((const char *)W->data + low / type->numbers * type->bytes, (size_t)((high - low) / type->numbers + 1) * type->bytes);
}

static void advise_layer(const spec *m, size_t layer, int experts, void (*hint)(const void *, size_t)) {
    if (layer == m->n_layers) {
        advise(&m->lm_head, hint);
        return;
    }
    const layer_spec *y = &m->layer[layer];
    const weight *all[] = {&y->q_a, &y->kv_b, &y->q, &y->k, &y->v, &y->o, &y->z, &y->a, &y->b, &y->gate, &y->up, &y->down, &y->router,
                           &y->in_proj, &y->in_gate, &y->in_out,
                           &y->shared.gate, &y->shared.up, &y->shared.down, &y->shared_gate};
    for (size_t i = 0; i < COUNT(all); i++) advise(all[i], hint);
    for (size_t e = 0; experts && y->router.data && e < m->n_experts; e++) {
        const weight *of_expert[] = {&y->experts[e].gate, &y->experts[e].up, &y->experts[e].down};
        for (size_t i = 0; i < COUNT(of_expert); i++) advise(of_expert[i], hint);
    }
}

void stream_layer(const spec *m, size_t n_rows, ptrdiff_t done, ptrdiff_t next) {
    if (m->resident > m->n_layers) return;
    if (next != NO_LAYER) advise_layer(m, (size_t)next, n_rows * m->top_k >= m->n_experts, pages_ahead);
    if (done != NO_LAYER && (size_t)done >= m->resident) advise_layer(m, (size_t)done, 1, pages_done);
}
