#include "base/status.h"
#include <stdarg.h>
#include <stdio.h>

ps_code ps_fail(ps_status *st, ps_code code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    st->code = code;
    vsnprintf(st->message, sizeof st->message, format, args);
    va_end(args);
    return code;
}
