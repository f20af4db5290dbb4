#include "model/sample.h"
#include "base/arena.h"
#include "kernels/vexp.h"
#include "base/reduce.h"

enum {
    PART = 16384, /* tokens of a row in one task */
    BLOCK = 256,  /* tokens whose weights are computed together */
    BINS = 512,   /* intervals of a histogram: four copies, 16 KiB of doubles, stay in the L1 cache beside a block */
    RUNS = 64,    /* independent maxima, several vectors of them, so that none waits for the last comparison */
    SCAN = 32,    /* tokens that are skipped together if none is in the bin */
    FEW = 48      /* tokens below which insertion sort, at most FEW^2 / 2 moves, costs less than clearing and summing BINS bins */
};
_Static_assert(BINS <= UINT16_MAX && PART % BLOCK == 0, "a bin's number fits its type; a part is whole blocks");
static const double REACH = 32; /* tokens of weight below exp(-REACH) share the last bin */

/* The weight of a token: exp((logit - top) * rate), or 1 if equal. */
typedef struct {
    cpu_isa isa; /* instruction set of the kernels */
    int equal;
    real top, rate;
} scale;

/* Weights of BINS intervals of logits, largest first: a logit is in bin floor((top - logit) / range * BINS), at most the last.
 * The bin never falls as the logit falls, so every token of a bin is before every token of the next in the order. */
typedef struct {
    real top, range;
    double weight[BINS];
} histogram;

static inline __attribute__((always_inline)) int bin_of(real logit, real top, real range) {
    real at = (top - logit) / range * BINS;
    return (int)(at < BINS - 1 ? at : BINS - 1); /* NaN, from 0 / 0 or inf / inf, goes to the last */
}

/* ---- operations on every token of a row, for each instruction set */

typedef struct {
    /* the largest and the smallest of n >= 1 logits */
    void (*extremes)(size_t n, const real *x, real *top, real *low);
    /* the bins of n logits and the arguments of the exponentials in their weights */
    void (*weigh)(const scale *by, size_t n, const real *logit, real top, real range, uint16_t *bins, real *arguments);
    /* whether one of n bins is `bin` */
    int (*contains)(size_t n, const uint16_t *bins, uint16_t bin);
} kernels;

#define KERNELS(NAME, TARGET)                                                                           \
    TARGET static void NAME##_extremes(size_t n, const real *x, real *top, real *low) {                 \
        real t[RUNS], l[RUNS];                                                                          \
        size_t i = 0;                                                                                   \
        for (int j = 0; j < RUNS; j++) t[j] = l[j] = x[0];                                              \
        for (; i + RUNS <= n; i += RUNS)                                                                \
            for (int j = 0; j < RUNS; j++) {                                                            \
                t[j] = x[i + j] > t[j] ? x[i + j] : t[j];                                               \
                l[j] = x[i + j] < l[j] ? x[i + j] : l[j];                                               \
            }                                                                                           \
        for (int j = 0; i < n; i++, j++) {                                                              \
            t[j] = x[i] > t[j] ? x[i] : t[j];                                                           \
            l[j] = x[i] < l[j] ? x[i] : l[j];                                                           \
        }                                                                                               \
        *top = t[0], *low = l[0];                                                                       \
        for (int j = 1; j < RUNS; j++) {                                                                \
            *top = t[j] > *top ? t[j] : *top;                                                           \
            *low = l[j] < *low ? l[j] : *low;                                                           \
        }                                                                                               \
    }                                                                                                   \
    TARGET static void NAME##_weigh(const scale *by, size_t n, const real *logit, real top, real range, \
                                    uint16_t *bins, real *arguments) {                                  \
        real from = by->top, rate = by->equal ? 0 : by->rate;                                           \
        for (size_t i = 0; i < n; i++) bins[i] = (uint16_t)bin_of(logit[i], top, range);                \
        for (size_t i = 0; i < n; i++) arguments[i] = (logit[i] - from) * rate;                         \
    }                                                                                                   \
    TARGET static int NAME##_contains(size_t n, const uint16_t *bins, uint16_t bin) {                   \
        uint16_t any = 0;                                                                               \
        for (size_t i = 0; i < n; i++) any |= (uint16_t)(bins[i] == bin);                               \
        return any;                                                                                     \
    }                                                                                                   \
    static const kernels NAME = {NAME##_extremes, NAME##_weigh, NAME##_contains};

KERNELS_BY_ISA

/* out (BINS) = the weights of n tokens by bin. There are four copies of the sums, so that neighbouring tokens of one bin do not
 * wait for each other's addition. Writes the bins to bins (n) unless that is NULL. */
static void weigh_bins(const scale *by, size_t n, const real *logit, real top, real range, double *out, uint16_t *bins) {
    double sums[4][BINS] = {0};
    real weight[BLOCK];
    uint16_t here[BLOCK];
    const kernels *k = kernels_of(by->isa);
    for (size_t start = 0; start < n; start += BLOCK) {
        size_t m = n - start < BLOCK ? n - start : BLOCK;
        uint16_t *bin = bins ? bins + start : here;
        k->weigh(by, m, logit + start, top, range, bin, weight);
        vexp(by->isa, m, weight, weight);
        for (size_t i = 0; i < m; i++) sums[i & 3][bin[i]] += (double)weight[i];
    }
    for (int b = 0; b < BINS; b++) out[b] = (sums[0][b] + sums[1][b]) + (sums[2][b] + sums[3][b]);
}

static double total(const histogram *h) {
    double sum = 0;
    for (int b = 0; b < BINS; b++) sum += h->weight[b];
    return sum;
}

/* ---- one row */

typedef struct {
    size_t n;
    real *logit;
    int *id; /* ascending */
} token_list;

/* The tokens to choose from: a whole row with its bins in h, or a list. */
typedef struct {
    scale by;
    histogram *h;
    size_t n;
    const real *logit;
    const int *id;        /* NULL: the whole row */
    const uint16_t *bins; /* of the whole row */
} choice;

/* A prefix of the order: its last token and its weight */
typedef struct {
    real logit;
    int id;
    double weight;
} prefix;

static int is_after(real logit, int id, const prefix *e) {
    return logit < e->logit || (logit == e->logit && id > e->id);
}

/* The bin in which the prefix of weight `goal` ends; if rounding makes the total too small, the last bin with any weight.
 * Adds the weights of the bins before it to *before. */
static int bin_reaching(const histogram *h, double goal, double *before) {
    int found = 0;
    double sum = *before;
    for (int b = 0; b < BINS; b++) {
        if (h->weight[b] <= 0) continue;
        found = b;
        *before = sum;
        sum += h->weight[b];
        if (sum >= goal) break;
    }
    return found;
}

/* out = the tokens of one bin, by ascending id. In a list `out` may be the list itself. */
static void gather(const choice *c, int bin, token_list *out) {
    size_t n = 0;
    if (c->id) {
        for (size_t i = 0; i < c->n; i++) {
            out->logit[n] = c->logit[i];
            out->id[n] = c->id[i];
            n += bin_of(c->logit[i], c->h->top, c->h->range) == bin;
        }
    } else {
        const kernels *k = kernels_of(c->by.isa);
        for (size_t start = 0; start < c->n; start += SCAN) {
            size_t m = c->n - start < SCAN ? c->n - start : SCAN;
            if (!k->contains(m, c->bins + start, (uint16_t)bin)) continue;
            for (size_t i = start; i < start + m; i++) {
                if (c->bins[i] != bin) continue;
                out->logit[n] = c->logit[i];
                out->id[n++] = (int)i;
            }
        }
    }
    out->n = n;
}

/* Sorts by falling logit, without changing the order of ties. */
static void sort_few(token_list *l) {
    for (size_t i = 1; i < l->n; i++) {
        real logit = l->logit[i];
        int id = l->id[i];
        size_t j = i;
        for (; j > 0 && l->logit[j - 1] < logit; j--) {
            l->logit[j] = l->logit[j - 1];
            l->id[j] = l->id[j - 1];
        }
        l->logit[j] = logit;
        l->id[j] = id;
    }
}

/* The shortest prefix of weight `goal` or more. l: scratch for c->n tokens. */
static prefix shortest_prefix(const choice *c, double goal, token_list *l) {
    histogram finer;
    double before = 0;
    gather(c, bin_reaching(c->h, goal, &before), l);
    for (;;) {
        real top, low;
        kernels_of(c->by.isa)->extremes(l->n, l->logit, &top, &low);
        if (top == low) break;
        if (l->n <= FEW) {
            sort_few(l);
            break;
        }
        finer.top = top; /* the largest is in the first bin and the smallest in the last, so that every round leaves fewer */
        finer.range = top - low;
        weigh_bins(&c->by, l->n, l->logit, top, finer.range, finer.weight, NULL);
        gather(&(choice){.h = &finer, .n = l->n, .logit = l->logit, .id = l->id}, bin_reaching(&finer, goal, &before), l);
    }
    prefix e = {l->logit[0], l->id[0], before};
    real weight = 1;
    for (size_t i = 0; i < l->n && (i == 0 || e.weight < goal); i++) {
        if (i == 0 || l->logit[i] != l->logit[i - 1]) {
            real x = (l->logit[i] - c->by.top) * c->by.rate;
            if (!c->by.equal) vexp(c->by.isa, 1, &x, &weight);
            if (weight <= 0 && i > 0) break; /* by rounding, goal exceeds the total */
        }
        e = (prefix){l->logit[i], l->id[i], e.weight + (double)weight};
    }
    return e;
}

typedef struct {
    const sampling *how;
    size_t n_vocab, n_parts;
    const real *logits;
    const int *id;
    rng *streams;
    int *next;
    scale by;                /* without the row's top */
    real *part_top, *part_low, *top, *range;
    double *part_weight;     /* (n, n_parts, BINS) */
    uint16_t *bins;          /* (n, n_vocab) */
    real *kept_logit, *some_logit; /* (threads, n_vocab) */
    int *kept_id, *some_id;
} call;

static void part_extremes(void *ctx, size_t i, int worker) {
    const call *c = ctx;
    size_t row = i / c->n_parts, begin = i % c->n_parts * PART;
    size_t n = c->n_vocab - begin < PART ? c->n_vocab - begin : PART;
    (void)worker;
    kernels_of(c->by.isa)->extremes(n, c->logits + row * c->n_vocab + begin, &c->part_top[i], &c->part_low[i]);
}

static void part_weights(void *ctx, size_t i, int worker) {
    const call *c = ctx;
    size_t row = i / c->n_parts, begin = i % c->n_parts * PART, at = row * c->n_vocab + begin;
    size_t n = c->n_vocab - begin < PART ? c->n_vocab - begin : PART;
    scale by = {c->by.isa, c->by.equal, c->top[row], c->by.rate};
    (void)worker;
    weigh_bins(&by, n, c->logits + at, c->top[row], c->range[row], c->part_weight + i * BINS, c->bins + at);
}

static void finish_row(void *ctx, size_t row, int worker) {
    const call *c = ctx;
    const sampling *how = c->how;
    size_t V = c->n_vocab, at = (size_t)worker * V;
    token_list kept = {0, c->kept_logit + at, c->kept_id + at}, some = {0, c->some_logit + at, c->some_id + at};
    const real *logits = c->logits + row * V;
    histogram h = {c->top[row], c->range[row], {0}};
    choice from = {.by = {c->by.isa, c->by.equal, h.top, c->by.rate}, .h = &h, .n = V, .logit = logits, .bins = c->bins + row * V};
    for (size_t p = 0; p < c->n_parts; p++)
        for (int b = 0; b < BINS; b++) h.weight[b] += c->part_weight[(row * c->n_parts + p) * BINS + b];
    if (from.by.equal) { /* top_k first, with weight 1 for every token; then the histogram of the tokens that are left */
        prefix last = shortest_prefix(&from, (double)how->top_k, &some);
        for (size_t i = 0; i < V; i++) {
            if (is_after(logits[i], (int)i, &last)) continue;
            kept.logit[kept.n] = logits[i];
            kept.id[kept.n++] = (int)i;
        }
        from = (choice){.by = {c->by.isa, 0, h.top, c->by.rate}, .h = &h, .n = kept.n, .logit = kept.logit, .id = kept.id};
        h.range = h.top - last.logit;
        weigh_bins(&from.by, kept.n, kept.logit, h.top, h.range, h.weight, NULL);
    }
    int s = c->id[row];
    prefix nucleus = {.weight = total(&h)};
    if (how->top_p < 1) nucleus = shortest_prefix(&from, how->top_p * nucleus.weight, &some);
    double u = rng_uniform(&c->streams[s]);
    prefix drawn = shortest_prefix(&from, nextafter(u * nucleus.weight, INFINITY), &some);
    if (how->top_p < 1 && is_after(drawn.logit, drawn.id, &nucleus)) drawn = nucleus; /* by rounding */
    c->next[s] = drawn.id;
}

/* The first token with the largest logit, which is in the first part with that maximum */
static void greedy(const call *c, size_t n) {
    for (size_t row = 0; row < n; row++) {
        size_t p = 0, i;
        while (c->part_top[row * c->n_parts + p] != c->top[row]) p++;
        for (i = p * PART; c->logits[row * c->n_vocab + i] != c->top[row];) i++;
        c->next[c->id[row]] = (int)i;
    }
}

ps_code sample_rows(const runtime *rt, const sampling *how, size_t n, size_t n_vocab, const real *logits, const int *id,
                    rng *streams, int *next, ps_status *st) {
    size_t n_parts = (n_vocab + PART - 1) / PART, T = (size_t)thread_pool_threads(rt->pool);
    int random = how->temperature > 0, by_rank = random && how->top_k && how->top_k < n_vocab;
    size_t sampled = random ? n : 0, V = random ? n_vocab : 0, ranked = by_rank ? n_vocab : 0;
    call c = {.how = how, .n_vocab = n_vocab, .n_parts = n_parts, .logits = logits, .id = id, .streams = streams, .next = next,
              .by = {rt->isa, by_rank, 0, (real)fmin(1 / how->temperature, (double)REAL_MAX)}};
    arena memory = {0};
    arena_slice table[] = {SLICE(c.part_top, n, n_parts), SLICE(c.part_low, n, n_parts), SLICE(c.top, n), SLICE(c.range, n),
                           SLICE(c.part_weight, sampled, n_parts, BINS), SLICE(c.bins, sampled, n_vocab),
                           SLICE(c.kept_logit, T, ranked), SLICE(c.kept_id, T, ranked),
                           SLICE(c.some_logit, T, V), SLICE(c.some_id, T, V)};
    if (arena_make(&memory, table, COUNT(table), st)) return st->code;
    double all = (double)n * (double)n_vocab;
    thread_pool_run(rt->pool, n * n_parts, all, part_extremes, &c);
    for (size_t row = 0; row < n; row++) {
        real low = c.part_low[row * n_parts];
        c.top[row] = reduce_max(n_parts, c.part_top + row * n_parts);
        for (size_t p = 1; p < n_parts; p++) low = fmin(low, c.part_low[row * n_parts + p]);
        c.range[row] = c.top[row] - low;
        if (!by_rank && REACH * how->temperature < (double)c.range[row]) c.range[row] = (real)(REACH * how->temperature);
    }
    if (!random) greedy(&c, n);
    else {
        thread_pool_run(rt->pool, n * n_parts, 20 * all, part_weights, &c);
        thread_pool_run(rt->pool, n, 2 * all, finish_row, &c);
    }
    arena_free(&memory);
    return PS_OK;
}
