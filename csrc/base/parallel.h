/* The one thread pool.
 *
 * pool_run calls task(ctx, i, worker) once for every i in 0..n-1 and returns when all are done. `worker` is in
 * 0..pool_threads-1 and no two calls running at the same time share it, so it can index per-worker scratch of the
 * caller. What a task computes must depend on i alone, never on worker: then results do not depend on scheduling.
 * A pool that is busy with another caller's work is not waited for: the tasks run on the calling thread, with the
 * same i and so with the same bits. Work of less than POOL_WORTH operations is not worth waking anybody and stays on the
 * calling thread as well. After fork() the child's pool starts threads of its own at first use. */
#ifndef PS_PARALLEL_H
#define PS_PARALLEL_H
#include <stddef.h>
#include "base/status.h"

typedef struct pool pool;
typedef void (*pool_task)(void *ctx, size_t i, int worker);

ps_code pool_create(pool **out, int threads, ps_status *st); /* threads >= 1, the caller's included */
void pool_free(pool *p);                                     /* accepts NULL */
int pool_threads(const pool *p);
enum { POOL_WORTH = 200 * 1000 };
void pool_run(pool *p, size_t n, double operations, pool_task task, void *ctx); /* operations: about, of all tasks */

/* The i-th of n nearly equal parts of 0..total: [*begin, *end) */
void part(size_t total, size_t n, size_t i, size_t *begin, size_t *end);

#endif
