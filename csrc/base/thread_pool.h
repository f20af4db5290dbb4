/* A pool of threads that shares out independent tasks.
 *
 * thread_pool_run calls task(ctx, i, worker) once for every i in 0..n-1 and returns when all calls have returned. `worker`
 * is in 0..thread_pool_threads-1 and differs between calls that run at the same time, so it can index scratch of the
 * caller. The result of a task must depend on i alone, never on worker: then it does not depend on scheduling.
 *
 * The calling thread runs every task itself, as worker 0, if the pool is busy with another caller, or if the tasks
 * together take fewer than THREAD_POOL_WORTH operations, which is less than waking a thread costs. The tasks are the
 * same, and so are the bits. After fork() the child's pool starts threads of its own at first use. */
#ifndef PS_THREAD_POOL_H
#define PS_THREAD_POOL_H
#include <stddef.h>
#include "base/status.h"

typedef struct thread_pool thread_pool;
typedef void (*thread_pool_task)(void *ctx, size_t i, int worker);

enum { MAX_THREADS = 4096 };
/* threads, the caller's included: 1..MAX_THREADS, else PS_ERR_VALUE. They start at the first run that needs them. */
ps_code thread_pool_create(thread_pool **out, int threads, ps_status *st);
void thread_pool_free(thread_pool *p); /* accepts NULL */
int thread_pool_threads(const thread_pool *p);
enum { THREAD_POOL_WORTH = 200 * 1000 };
/* operations: about how many all tasks take together */
void thread_pool_run(thread_pool *p, size_t n, double operations, thread_pool_task task, void *ctx);

/* The i-th of n nearly equal parts of 0..total: [*begin, *end) */
void part(size_t total, size_t n, size_t i, size_t *begin, size_t *end);

#endif
