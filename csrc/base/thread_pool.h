/* The one thread pool.
 *
 * thread_pool_run calls task(ctx, i, worker) once for every i in 0..n-1 and returns when all are done. `worker` is in
 * 0..thread_pool_threads-1 and no two calls running at the same time share it, so it can index per-worker scratch of the
 * caller. What a task computes must depend on i alone, never on worker: then results do not depend on scheduling.
 * A pool that is busy with another caller's work is not waited for: the tasks run on the calling thread, with the
 * same i and so with the same bits. Work of less than THREAD_POOL_WORTH operations is not worth waking anybody and stays on the
 * calling thread as well. After fork() the child's pool starts threads of its own at first use. */
#ifndef PS_THREAD_POOL_H
#define PS_THREAD_POOL_H
#include <stddef.h>
#include "base/status.h"

typedef struct thread_pool thread_pool;
typedef void (*thread_pool_task)(void *ctx, size_t i, int worker);

ps_code thread_pool_create(thread_pool **out, int threads, ps_status *st); /* threads >= 1, the caller's included */
void thread_pool_free(thread_pool *p);                                     /* accepts NULL */
int thread_pool_threads(const thread_pool *p);
enum { THREAD_POOL_WORTH = 200 * 1000 };
void thread_pool_run(thread_pool *p, size_t n, double operations, thread_pool_task task, void *ctx); /* operations: about, of all tasks */

/* The i-th of n nearly equal parts of 0..total: [*begin, *end) */
void part(size_t total, size_t n, size_t i, size_t *begin, size_t *end);

#endif
