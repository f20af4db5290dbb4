/* Hints to the system about pages that are mapped from a file. They change no contents. */
#ifndef PS_PAGES_H
#define PS_PAGES_H
#include <stddef.h>

void pages_ahead(const void *p, size_t n); /* are needed soon: read them meanwhile */
void pages_done(const void *p, size_t n);  /* are not needed for a while: take these first */

#endif
