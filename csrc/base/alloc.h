/* The core's allocations: malloc, calloc and free. With -DPS_FAULTS (setup.py: POWERSTEER_FAULTS=1) one of them can be
 * made to fail and those that live are counted, for tests/test_faults.py; the bindings' allocations then count, too. */
#ifndef PS_ALLOC_H
#define PS_ALLOC_H
#include <stdlib.h>

#ifdef PS_FAULTS
void *ps_malloc(size_t bytes);
void *ps_calloc(size_t n, size_t item);
void ps_free(void *p); /* accepts NULL */

/* The n-th allocation from now on fails, once; 0: none. */
void faults_arm(long n);
/* Allocations since faults_arm, and blocks not freed. */
long faults_made(void);
long faults_alive(void);
/* Counts an allocation that somebody else makes: 1 if it is to fail. */
int faults_due(void);
#else
#define ps_malloc malloc
#define ps_calloc calloc
#define ps_free free
#endif

#endif
