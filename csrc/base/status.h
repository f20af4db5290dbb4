/* Error codes and their message. The core never prints, exits or aborts: a function that can fail returns PS_OK = 0, or
 * another ps_code and writes a sentence to the caller's ps_status. */
#ifndef PS_STATUS_H
#define PS_STATUS_H

typedef enum {
    PS_OK = 0,
    PS_ERR_MEMORY,      /* an allocation failed */
    PS_ERR_VALUE,       /* an argument is outside its domain */
    PS_ERR_OVERFLOW,    /* a product of sizes does not fit */
    PS_ERR_NONFINITE,   /* NaN or infinity where a finite number is needed */
    PS_ERR_INTERRUPTED, /* the caller's poll requested a stop */
    PS_ERR_CALLBACK,    /* a callback of the caller failed, and has recorded why */
    PS_ERR_SYSTEM       /* the operating system refused (threads, dlopen) */
} ps_code;

typedef struct {
    ps_code code;
    char message[256];
} ps_status;

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
ps_code ps_fail(ps_status *st, ps_code code, const char *format, ...); /* returns code */

#endif
