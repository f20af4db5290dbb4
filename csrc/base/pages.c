#include "base/pages.h"
#if defined(__linux__) || defined(__APPLE__)
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* Hints may be refused, for example by an old kernel, and nothing is lost then: the result is not read. */
static void advise(const void *p, size_t n, int advice) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)p / page * page;
    if (n) (void)madvise((void *)begin, (uintptr_t)p + n - begin, advice);
}

void pages_ahead(const void *p, size_t n) { advise(p, n, MADV_WILLNEED); }

void pages_done(const void *p, size_t n) {
#ifdef MADV_COLD
    advise(p, n, MADV_COLD);
#else
    (void)p, (void)n;
#endif
}
#else
void pages_ahead(const void *p, size_t n) { (void)p, (void)n; }
void pages_done(const void *p, size_t n) { (void)p, (void)n; }
#endif
