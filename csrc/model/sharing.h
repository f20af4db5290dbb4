/* Rows of a batch that are equal up to a layer are computed once.
 *
 * Row p of sequence s equals row p of sequence t up to layer l if
 *   tokens[s][0..p] = tokens[t][0..p], the rotations of both are the same (longrope's depend on the length), and
 *   at every position <= p the interventions of layers <= l are the same for s and t.
 *
 * The rows are the nodes of a trie: row p is the child of row p - 1 for its token and its interventions. A node belongs to the
 * first sequence that has it, so that a sequence's own rows are its last ones, positions n..length-1, and a sequence that
 * equals an earlier one has none. They form a batch whose queries attend over the keys of the whole sequence, as after a
 * prompt in a cache. Nodes are numbered as they are made, which is the order of the own rows.
 *
 * With l the interventions only grow, so that nodes only split. */
#ifndef PS_SHARING_H
#define PS_SHARING_H
#include "model/batch.h"
#include "model/hooks.h"

typedef struct {
    const batch *all;  /* NULL: nothing is shared */
    const spec *m;
    const hooks *v;
    size_t layer;      /* l */
    batch own;         /* the rows that are computed; own.of: the node of each row of `all` */
    size_t *of;
    size_t *first;     /* (n_seq + 1) first entry of each sequence in list */
    size_t *list;      /* the interventions of each sequence, as numbers in v->steer */
    int *child;        /* (n_rows + n_rope + 1) first child of each node, then of the roots, one for each choice of rotations */
    int *sibling;      /* (n_rows) the next child of the same parent */
    int *row, *seq;    /* (n_rows) the row of `all` that made the node, its sequence */
    size_t *from;      /* (n_rows) the node that the node was at the layers before */
    arena memory;
} sharing;

/* Finds the rows of `all` that are equal in layer 0. g must be zeroed, and freed also after an error; all and v must outlive it.
 * Only sequences from position 0 share. PS_ERR_MEMORY, PS_ERR_OVERFLOW. */
ps_code sharing_make(sharing *g, const spec *m, const batch *all, const hooks *v, ps_status *st);
/* Whether rows are equal, which then need a cache for all rows. */
int sharing_saves(const sharing *g);
void sharing_free(sharing *g); /* accepts a zeroed one */

/* The batch that is computed in this layer: own rows, or all if none are equal any more. Layers are entered in ascending order.
 * x (n_rows, d_model): the residual stream of the batch of the layer before, on return that of this one; so is e, or NULL. */
const batch *sharing_enter(sharing *g, const batch *all, size_t layer, real *x, real *e);

#endif
