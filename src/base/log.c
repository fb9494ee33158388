/* log.c - see log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static enum log_level current = LOG_INFO;

void log_set_level(enum log_level level)
{
    current = level;
}

static void write_line(enum log_level level, const char *prefix, const char *fmt, va_list args)
{
    if (level > current) {
        return;
    }
    char line[1024];
    vsnprintf(line, sizeof line, fmt, args);
    fprintf(stderr, "%s%s\n", prefix, line);
}

void log_warn(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    write_line(LOG_WARN, "llmsched: warning: ", fmt, args);
    va_end(args);
}

void log_info(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    write_line(LOG_INFO, "llmsched: ", fmt, args);
    va_end(args);
}

void log_debug(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    write_line(LOG_DEBUG, "llmsched: debug: ", fmt, args);
    va_end(args);
}

void progress_report(const struct progress *p, const char *what, uint64_t done, uint64_t total)
{
    if (p != NULL && p->fn != NULL) {
        p->fn(p->self, what, done, total);
    }
}
