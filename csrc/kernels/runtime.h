/* What a call of the core borrows from its caller: the matrix library, the threads, the instruction set of the core's own
 * kernels, and a way to ask whether to stop. */
#ifndef PS_RUNTIME_H
#define PS_RUNTIME_H
#include "kernels/blas.h"
#include "base/cpu.h"
#include "base/thread_pool.h"

typedef struct {
    const blas *blas;
    thread_pool *pool;
    cpu_isa kind;
    int few_rows; /* products of up to GEMV_MAX_ROWS rows go through gemv.h, whose sums have another order than the rest */
    /* Non-zero: stop. Called on the caller's thread between operations; once it has said stop it goes on saying so.
     * A product that finds it so is left undone, and whoever can return an error next asks again. */
    ps_code (*poll)(void *ctx, ps_status *st);
    void *poll_ctx;
} runtime;

static inline ps_code runtime_poll(const runtime *rt, ps_status *st) {
    return rt->poll ? rt->poll(rt->poll_ctx, st) : PS_OK;
}

/* Whether to leave the rest undone, for those who cannot return an error. */
int runtime_stopped(const runtime *rt);

/* thread_pool_run, with a look at the poll every RUNTIME_SLICE operations, some tenths of a second. */
static const double RUNTIME_SLICE = 1e10;
void runtime_run(const runtime *rt, size_t n, double operations, thread_pool_task task, void *ctx);

#endif
