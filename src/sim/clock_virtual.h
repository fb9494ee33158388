/* clock_virtual.h - time that jumps: wait_until goes to the instant, advance adds a duration. */
#ifndef LLMSCHED_SIM_CLOCK_VIRTUAL_H
#define LLMSCHED_SIM_CLOCK_VIRTUAL_H

#include <stdint.h>

#include "core/clock.h"

struct clock_virtual {
    uint64_t now_ns; /* the start; the caller may set it before the run */
};

/* self is borrowed by the clock. */
struct clock clock_virtual_clock(struct clock_virtual *self);

#endif
