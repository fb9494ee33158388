/*
 * clock.h - the only way the engine learns the time.
 *
 * The real clock sleeps; the virtual one jumps. In virtual time the engine advances the clock by
 * the duration that the executor reports (advance); a real clock leaves advance NULL.
 */
#ifndef LLMSCHED_CORE_CLOCK_H
#define LLMSCHED_CORE_CLOCK_H

#include <stdint.h>

struct clock {
    uint64_t (*now)(void *self);
    /* Returns at instant t or earlier (a signal, a wake-up from outside). */
    void (*wait_until)(void *self, uint64_t t_ns);
    void (*advance)(void *self, uint64_t duration_ns); /* NULL: real time */
    void *self;
};

#endif
