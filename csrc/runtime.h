/* What a call of the core borrows from its caller: the matrix library, the threads, and a way to ask whether to stop. */
#ifndef PS_RUNTIME_H
#define PS_RUNTIME_H
#include "blas.h"
#include "parallel.h"

typedef struct {
    const blas *blas;
    pool *pool;
    /* Non-zero: stop. Called on the caller's thread between operations; once it has said stop it goes on saying so.
     * A product that finds it so is left undone, and whoever can return an error next asks again. */
    ps_code (*poll)(void *ctx, ps_status *st);
    void *poll_ctx;
} runtime;

static inline ps_code runtime_poll(const runtime *rt, ps_status *st) {
    return rt->poll ? rt->poll(rt->poll_ctx, st) : PS_OK;
}

#endif
