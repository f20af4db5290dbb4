/* The environment of a call of the core: the matrix library, the threads, the instruction set of the core's own kernels,
 * and a poll that can stop it. All of it belongs to the caller. */
#ifndef PS_RUNTIME_H
#define PS_RUNTIME_H
#include "kernels/blas.h"
#include "base/cpu.h"
#include "base/thread_pool.h"

typedef struct {
    const blas *blas;
    thread_pool *pool;
    cpu_isa isa;
    int few_rows; /* linear uses gemv.h, whose sums have another order, with weights that it can read */
    /* Returns an error to stop the call, and then goes on returning it. Called on the caller's thread between operations. A
     * function that cannot return an error leaves its result unfinished; the next one that can polls again. NULL: never
     * stop. */
    ps_code (*poll)(void *ctx, ps_status *st);
    void *poll_ctx;
} runtime;

static inline ps_code runtime_poll(const runtime *rt, ps_status *st) {
    return rt->poll ? rt->poll(rt->poll_ctx, st) : PS_OK;
}

/* Whether to stop, for functions that cannot return an error. */
int runtime_stopped(const runtime *rt);

/* thread_pool_run that polls after every RUNTIME_SLICE operations, some tenths of a second, and stops there. */
static const double RUNTIME_SLICE = 1e10;
void runtime_run(const runtime *rt, size_t n, double operations, thread_pool_task task, void *ctx);

#endif
