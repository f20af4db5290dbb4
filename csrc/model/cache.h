/* Keys (after qk-norm and rotation) and values of the tokens so far, by layer and sequence. Key j is position j. Of layers with another
 * mixer: states of ops/scan.h.
 *
 * A state cannot be taken back, so a decoder has two of each sequence. A step reads the one that has seen the tokens before it and
 * writes the other, so that after an error the first is still there; a pass from position 0 may keep its state after some token
 * in the second, from which a decoder that forgets the tokens behind goes on. */
#ifndef PS_CACHE_H
#define PS_CACHE_H
#include "model/batch.h"

enum { CACHE_NOTHING = 0 };

typedef struct {
    size_t n_seq;
    size_t *width;                  /* (n_layers of the model) of the keys that each layer sees: NKV*HS, or R + rope_dim of latent attention */
    size_t *at;                     /* (n_layers of the model) sum of the widths of the layers before whose keys are here */
    size_t *capacity, *length;      /* (n_seq) in tokens */
    size_t *offset;                 /* (n_seq) first token of the sequence in a layer's (total, width) block */
    size_t total;                   /* sum of capacities */
    real *k, *v;                    /* for each layer (total, width), from total * at[layer] on; of latent attention v is k */
    size_t n_scans, n_states, state; /* layers with states, states of each sequence, reals of one */
    real *states;                   /* (n_scans, n_seq*n_states, state) */
    size_t *seen;                   /* (n_seq, n_states) tokens that the state has seen; CACHE_NOTHING: it is not valid */
    size_t *keep;                   /* (n_seq) tokens after which a pass from position 0 keeps its state; 0: at its end alone */
    int *next;                      /* (n_seq*n_states) scratch: see ops/scan.h */
    arena memory;
} cache;

/* CACHE_ALL keeps every layer's keys, and two states of each sequence; CACHE_PASS, for one pass from position 0, those that several
 * layers see, and one state, and overwrites what only the layer at hand sees. capacity[s] <= n_ctx, copied. */
typedef enum { CACHE_PASS, CACHE_ALL } cache_kind;
ps_code cache_make(cache *c, const spec *m, cache_kind kind, size_t n_seq, const size_t *capacity, ps_status *st);
/* Adds the bytes of n_seq sequences with `total` tokens. */
ps_code cache_count(const spec *m, cache_kind kind, size_t n_seq, size_t total, size_t *bytes, ps_status *st);
void cache_free(cache *c); /* accepts a zeroed cache */
/* The rows (capacity, width[layer]) of sequence id that the queries of this layer see */
static inline real *cache_k(const cache *c, size_t layer, size_t id) { return c->k + c->total * c->at[layer] + c->offset[id] * c->width[layer]; }
static inline real *cache_v(const cache *c, size_t layer, size_t id) { return c->v + c->total * c->at[layer] + c->offset[id] * c->width[layer]; }
/* Writes k and v (n_rows, width), which may be one, of the batch, or of the rows of b->whole that they equal, in this layer at their positions. The caller checks the capacity. */
void cache_write(cache *c, size_t layer, const batch *b, const real *k, const real *v);

/* The states, numbers of slots in a layer, of a pass over sequence id from position start: begin, SCAN_NONE at 0; end, where it runs;
 * kept, which takes the state after c->keep[id] tokens, or SCAN_NONE. */
typedef struct {
    int begin, end, kept;
} cache_slots;
cache_slots cache_slots_of(const cache *c, size_t id, size_t start);
/* The states that a pass over the batch writes are not valid while it runs; behind it they have seen its tokens. */
void cache_begin_pass(cache *c, const batch *b);
void cache_end_pass(cache *c, const batch *b);
/* The last position, at most `length`, from which sequence id can go on. */
size_t cache_start(const cache *c, size_t id, size_t length);
/* Sequence id has `length` tokens, the rest is forgotten. */
void cache_cut(cache *c, size_t id, size_t length);
/* Reals of a state of one sequence in one layer */
size_t cache_state(const spec *m);

#endif
