#include "model/footprint.h"
#include "model/sweep.h"

ps_code forward_footprint(const spec *m, const batch *shape, size_t n_logits, int threads, size_t *bytes, ps_status *st) {
    real *x, *logits;
    arena_slice table[] = {SLICE(x, shape->n_rows, m->d_model), SLICE(logits, n_logits, m->n_vocab)};
    size_t blocks = 0, lm_head = 0;
    if (arena_make_or_count(NULL, table, COUNT(table), bytes, st) || block_scratch_count(m, shape, threads, &blocks, st)
        || tape_count(m, m->n_layers, shape->n_rows, &blocks, st) || forward_keys_count(m, shape, &blocks, st)
        || lm_head_count(m, n_logits, threads, &lm_head, st))
        return st->code;
    *bytes += blocks > lm_head ? blocks : lm_head; /* one after the other */
    return PS_OK;
}

ps_code jacobian_footprint(const spec *m, const batch *shape, const footprint_plan *p, int threads, footprint *f, ps_status *st) {
    int lm_head = p->kind != TARGET_SITE;
    size_t first = jacobian_first_taped(m, p->source_layer, p->source_site), last = lm_head ? m->n_layers - 1 : p->target_layer;
    size_t blocks = 0, logits = 0;
    real *u;
    arena_slice products[] = {SLICE(u, p->n_columns, p->n_target, lm_head ? m->n_vocab : m->d_model)};
    *f = (footprint){0};
    for (size_t l = first; l <= last; l++)
        if (tape_count(m, l, shape->n_rows, &f->tape, st)) return st->code;
    if (m->shares_keys && forward_keys_count(m, shape, &f->tape, st)) return st->code;
    if (target_count(m, p->kind, p->n_target, &f->tape, st) || record_count(m, shape->n_rows, 2, &f->record, st)
        || block_scratch_count(m, shape, threads, &blocks, st)
        || (first > 0 && tape_count(m, m->n_layers, shape->n_rows, &blocks, st))
        || (lm_head && lm_head_count(m, p->n_target, threads, &logits, st))
        || sweep_scratch_count(m, shape, jacobian_block(shape->n_rows, p->n_columns), p->n_columns, threads, &f->sweep, st)
        || (lm_head && lm_head_sweep_count(m, jacobian_block(shape->n_rows, p->n_columns), p->n_target, threads, &f->sweep, st))
        || arena_make_or_count(NULL, products, COUNT(products), &f->sweep, st))
        return st->code;
    f->record += blocks > logits ? blocks : logits; /* one after the other */
    return PS_OK;
}
