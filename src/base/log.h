/*
 * log.h - messages for people, on stderr. Results never go through here.
 *
 * Library code logs sparingly: warnings that the user can act on. Progress has its own type,
 * handed in by the caller.
 */
#ifndef LLMSCHED_BASE_LOG_H
#define LLMSCHED_BASE_LOG_H

#include <stdint.h>

#include "base/status.h"

enum log_level { LOG_QUIET, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_debug(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* Long work reports through this: done of total units ("bytes", "requests", ...). A NULL fn means
 * silence. Returning nothing: progress never stops the work. */
struct progress {
    void (*fn)(void *self, const char *what, uint64_t done, uint64_t total);
    void *self;
};

void progress_report(const struct progress *p, const char *what, uint64_t done, uint64_t total);

#endif
