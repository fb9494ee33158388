/* clock_real.h - CLOCK_MONOTONIC; sleeping ends early when *stop becomes non-zero. */
#ifndef LLMSCHED_ENGINE_CLOCK_REAL_H
#define LLMSCHED_ENGINE_CLOCK_REAL_H

#include "core/clock.h"

/* A sleep is cut into pieces of this length to look at the stop flag (a signal may be delivered to
 * another thread, which then does not interrupt the sleep). */
#define CLOCK_REAL_POLL_NS 10000000ULL

struct clock_real {
    const volatile int *stop; /* NULL: none */
};

/* self is borrowed by the clock. Fill stop, then call. */
struct clock clock_real_clock(struct clock_real *self);

#endif
