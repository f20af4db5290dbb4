#include "kernels/runtime.h"

int runtime_stopped(const runtime *rt) {
    ps_status st = {0};
    return runtime_poll(rt, &st) != PS_OK;
}

typedef struct {
    thread_pool_task task;
    void *ctx;
    size_t first;
} slice;

static void slice_task(void *ctx, size_t i, int worker) {
    const slice *s = ctx;
    s->task(s->ctx, s->first + i, worker);
}

void runtime_run(const runtime *rt, size_t n, double operations, thread_pool_task task, void *ctx) {
    size_t slices = 1 + (size_t)(operations / RUNTIME_SLICE);
    for (size_t i = 0; i < slices && !runtime_stopped(rt); i++) {
        size_t begin, end;
        part(n, slices, i, &begin, &end);
        slice s = {task, ctx, begin};
        if (end > begin) thread_pool_run(rt->pool, end - begin, operations / (double)slices, slice_task, &s);
    }
}
