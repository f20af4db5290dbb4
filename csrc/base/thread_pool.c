#include "base/thread_pool.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"

/* How long a thread spins before it sleeps: longer than the gaps between the operations of one forward pass, because
 * waking costs both sides tens of microseconds. */
static const long SPIN_NANOSECONDS = 200 * 1000;

struct thread_pool {
    int n_threads;          /* the caller's included */
    int n_workers;          /* threads that have started, <= n_threads - 1 */
    pthread_t *workers;     /* (n_threads - 1) */
    _Atomic long owner;     /* process that the threads belong to; 0: not started; -1: being started */
    atomic_flag busy;       /* a caller of thread_pool_run has the workers */
    pthread_mutex_t lock;   /* guards the two conditions */
    pthread_cond_t start, done;
    atomic_uint generation; /* number of runs so far: workers start when it changes */
    atomic_int asleep;      /* workers that wait for `start` or are about to */
    atomic_int waiting;     /* 1 while the caller waits for `done` or is about to */
    atomic_int stop;
    atomic_int running;     /* workers that have not finished this run */
    atomic_size_t next;     /* the first task that no worker has taken */
    size_t n;
    thread_pool_task task;
    void *ctx;
};

typedef struct {
    thread_pool *p;
    int worker;
    unsigned seen; /* generation of its last run */
} worker_arg;

void part(size_t total, size_t n, size_t i, size_t *begin, size_t *end) {
    size_t q = total / n, r = total % n;
    *begin = i * q + (i < r ? i : r);
    *end = *begin + q + (i < r ? 1 : 0);
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Takes and runs tasks until none is left. */
static void drain(thread_pool *p, int worker) {
    for (;;) {
        size_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (i >= p->n) return;
        p->task(p->ctx, i, worker);
    }
}

/* Spins until ready() is true or SPIN_NANOSECONDS have passed; returns whether it became true. */
static int spin(int (*ready)(thread_pool *, unsigned), thread_pool *p, unsigned seen) {
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    do {
        for (int i = 0; i < 16; i++) {
            if (ready(p, seen)) return 1;
            relax();
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec < SPIN_NANOSECONDS);
    return ready(p, seen);
}

/* Sleeps until ready() is true. The sleeper raises `sleepers` and then tests ready(); the other side makes ready() true and
 * then tests `sleepers` in wake(). With sequential consistency at least one of the two sees the other's write, so that
 * no wake-up is lost. */
static void sleep_until(int (*ready)(thread_pool *, unsigned), thread_pool *p, unsigned seen, pthread_cond_t *condition,
                        atomic_int *sleepers) {
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(sleepers, 1);
    while (!ready(p, seen)) pthread_cond_wait(condition, &p->lock);
    atomic_fetch_sub(sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

/* Wakes the threads that sleep_until has put to sleep. ready() is true already. */
static void wake(thread_pool *p, pthread_cond_t *condition, atomic_int *sleepers) {
    if (!atomic_load(sleepers)) return;
    pthread_mutex_lock(&p->lock); /* a thread that has raised `sleepers` holds the lock until it waits */
    pthread_mutex_unlock(&p->lock);
    pthread_cond_broadcast(condition); /* without the lock, so that a woken thread does not wait for it */
}

static int is_started(thread_pool *p, unsigned seen) { return atomic_load(&p->generation) != seen || atomic_load(&p->stop); }

static int is_done(thread_pool *p, unsigned seen) {
    (void)seen;
    return !atomic_load(&p->running);
}

static void *worker_main(void *arg) {
    worker_arg w = *(worker_arg *)arg;
    thread_pool *p = w.p;
    ps_free(arg);
    for (;;) {
        if (!spin(is_started, p, w.seen)) sleep_until(is_started, p, w.seen, &p->start, &p->asleep);
        if (atomic_load(&p->stop)) return NULL;
        w.seen = atomic_load(&p->generation);
        drain(p, w.worker);
        if (atomic_fetch_sub(&p->running, 1) == 1) wake(p, &p->done, &p->waiting);
    }
}

/* Starts the workers in this process. If fewer threads can be started, the caller and those there are share the tasks. */
static void start_workers(thread_pool *p) {
    pthread_mutex_init(&p->lock, NULL); /* after fork() threads that no longer exist may hold the old lock */
    pthread_cond_init(&p->start, NULL);
    pthread_cond_init(&p->done, NULL);
    atomic_store(&p->running, 0);
    atomic_store(&p->asleep, 0);
    atomic_store(&p->waiting, 0);
    p->n_workers = 0;
    sigset_t all, old; /* workers block every signal: the caller's threads handle them */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (p->n_workers < p->n_threads - 1) {
        worker_arg *arg = ps_malloc(sizeof *arg);
        if (!arg) break;
        *arg = (worker_arg){p, p->n_workers + 1, atomic_load(&p->generation)};
        if (pthread_create(&p->workers[p->n_workers], NULL, worker_main, arg)) {
            ps_free(arg);
            break;
        }
        p->n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Takes the workers for this caller; 0 if another caller has them. */
static int acquire(thread_pool *p) {
    long owner = atomic_load(&p->owner), self = (long)getpid();
    if (owner != self) {
        if (owner == -1 || !atomic_compare_exchange_strong(&p->owner, &owner, -1)) return 0;
        start_workers(p);
        atomic_flag_clear(&p->busy);
        atomic_store(&p->owner, self);
    }
    return !atomic_flag_test_and_set(&p->busy);
}

ps_code thread_pool_create(thread_pool **out, int threads, ps_status *st) {
    if (threads < 1 || threads > MAX_THREADS)
        return ps_fail(st, PS_ERR_VALUE, "threads must be between 1 and %d, got %d", MAX_THREADS, threads);
    thread_pool *p = ps_calloc(1, sizeof *p);
    pthread_t *workers = ps_calloc((size_t)threads, sizeof *workers);
    if (!p || !workers) {
        ps_free(p);
        ps_free(workers);
        return ps_fail(st, PS_ERR_MEMORY, "out of memory for a pool of %d threads", threads);
    }
    p->n_threads = threads;
    p->workers = workers;
    atomic_flag_clear(&p->busy);
    *out = p;
    return PS_OK;
}

void thread_pool_free(thread_pool *p) {
    if (!p) return;
    if (atomic_load(&p->owner) == (long)getpid()) { /* in a forked child the threads do not exist */
        atomic_store(&p->stop, 1);
        wake(p, &p->start, &p->asleep);
        for (int i = 0; i < p->n_workers; i++) pthread_join(p->workers[i], NULL);
        pthread_cond_destroy(&p->start);
        pthread_cond_destroy(&p->done);
        pthread_mutex_destroy(&p->lock);
    }
    ps_free(p->workers);
    ps_free(p);
}

int thread_pool_threads(const thread_pool *p) { return p->n_threads; }

void thread_pool_run(thread_pool *p, size_t n, double operations, thread_pool_task task, void *ctx) {
    if (p->n_threads == 1 || n <= 1 || operations < THREAD_POOL_WORTH || !acquire(p)) {
        for (size_t i = 0; i < n; i++) task(ctx, i, 0);
        return;
    }
    p->n = n;
    p->task = task;
    p->ctx = ctx;
    atomic_store(&p->next, 0);
    atomic_store(&p->running, p->n_workers);
    atomic_fetch_add(&p->generation, 1);
    wake(p, &p->start, &p->asleep);
    drain(p, 0);
    if (!spin(is_done, p, 0)) sleep_until(is_done, p, 0, &p->done, &p->waiting);
    atomic_flag_clear(&p->busy);
}
