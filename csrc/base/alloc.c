#include "base/alloc.h"

#ifdef PS_FAULTS
#include <stdatomic.h>

/* The core's only static state, and in this build only: counters of the whole process. */
atomic_long faults_at, faults_n, faults_live;

void faults_arm(long n) {
    atomic_store(&faults_n, 0);
    atomic_store(&faults_at, n);
}

long faults_made(void) { return atomic_load(&faults_n); }
long faults_alive(void) { return atomic_load(&faults_live); }
int faults_due(void) { return atomic_fetch_add(&faults_n, 1) + 1 == atomic_load(&faults_at); }

static void *counted(void *p) {
    if (p) atomic_fetch_add(&faults_live, 1);
    return p;
}

void *ps_malloc(size_t bytes) { return faults_due() ? NULL : counted(malloc(bytes)); }
void *ps_calloc(size_t n, size_t item) { return faults_due() ? NULL : counted(calloc(n, item)); }

void ps_free(void *p) {
    if (p) atomic_fetch_sub(&faults_live, 1);
    free(p);
}
#else
typedef int alloc_is_empty; /* ISO C forbids an empty file */
#endif
