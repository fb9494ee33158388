/* monotime.h - CLOCK_MONOTONIC in nanoseconds. The engine never calls it: it is handed a clock. */
#ifndef LLMSCHED_BASE_MONOTIME_H
#define LLMSCHED_BASE_MONOTIME_H

#include <stdint.h>

#define NS_PER_S   1000000000ULL
#define NS_PER_MS  1000000ULL
#define TIME_NEVER UINT64_MAX

uint64_t monotime_now_ns(void);

/* Seconds as a double, for printing and for parameters. */
double monotime_seconds(uint64_t ns);
/* Nanoseconds of a non-negative number of seconds; saturates at TIME_NEVER - 1. */
uint64_t monotime_from_seconds(double seconds);

#endif
