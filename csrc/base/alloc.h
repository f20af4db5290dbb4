/* The core's allocator: malloc, calloc and free. With -DPS_FAULTS (setup.py: POWERSTEER_FAULTS=1) a chosen allocation
 * fails and live blocks are counted, for tests/test_faults.py; python/faults.h counts the bindings' allocations as well. */
#ifndef PS_ALLOC_H
#define PS_ALLOC_H
#include <stdlib.h>

#ifdef PS_FAULTS
void *ps_malloc(size_t bytes);
void *ps_calloc(size_t n, size_t item);
void ps_free(void *p); /* accepts NULL */

void faults_arm(long n);  /* the n-th allocation from now on fails, once; 0: none */
long faults_made(void);   /* allocations since faults_arm */
long faults_alive(void);  /* blocks that are not freed */
int faults_due(void);     /* counts an allocation made elsewhere; 1 if it must fail */
#else
#define ps_malloc malloc
#define ps_calloc calloc
#define ps_free free
#endif

#endif
