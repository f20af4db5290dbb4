/* How a recurrence runs through the rows of a batch, and where its states are.
 *
 * A state is what a recurrence carries from a row of a sequence to the next. The sequences are run through in their order, each
 * from the state that it begins with. A state that is needed after the pass, or by another sequence that parts from this one
 * (model/sharing.h), is copied to a slot when its row has been passed. */
#ifndef PS_SCAN_H
#define PS_SCAN_H
#include <stddef.h>
#include <string.h>
#include "base/real.h"

enum { SCAN_NONE = -1 };

typedef struct {
    size_t n_seq;
    const size_t *row0;      /* (n_seq + 1) first row of each sequence */
    real *states;            /* (slots, stride); NULL: every sequence begins with 0, and no state is kept */
    size_t stride;           /* reals of a slot */
    const int *begin, *end;  /* (n_seq) the slot with its first state, SCAN_NONE: 0; the slot in which it runs */
    const int *keep, *next;  /* (rows) the first slot that takes the state behind this row; (slots) the next such slot; or SCAN_NONE */
} scan;

/* The state of sequence i, numbers at .. at + n of it, before its first row. own (n): where it is if there are no slots */
static inline real *scan_begin(const scan *s, size_t i, size_t at, size_t n, real *own) {
    real *state = s->states ? s->states + (size_t)s->end[i] * s->stride + at : own;
    if (!s->states || s->begin[i] == SCAN_NONE) memset(state, 0, n * sizeof(real));
    else if (s->begin[i] != s->end[i]) memcpy(state, s->states + (size_t)s->begin[i] * s->stride + at, n * sizeof(real));
    return state;
}

/* Copies these numbers of the state behind a row to the slots that take it. */
static inline void scan_passed(const scan *s, size_t row, size_t at, size_t n, const real *state) {
    for (int k = s->states ? s->keep[row] : SCAN_NONE; k != SCAN_NONE; k = s->next[k])
        memcpy(s->states + (size_t)k * s->stride + at, state, n * sizeof(real));
}

#endif
