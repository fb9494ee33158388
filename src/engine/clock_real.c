/* clock_real.c - see clock_real.h. */
#include "engine/clock_real.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "base/monotime.h"

static uint64_t now(void *self)
{
    (void)self;
    return monotime_now_ns();
}

static bool is_stopped(const struct clock_real *c)
{
    return c->stop != NULL && *c->stop != 0;
}

static void wait_until(void *self, uint64_t t_ns)
{
    const struct clock_real *c = self;
    uint64_t at = monotime_now_ns();
    while (at < t_ns && !is_stopped(c)) {
        uint64_t left = t_ns - at;
        uint64_t piece = at + (left < CLOCK_REAL_POLL_NS ? left : CLOCK_REAL_POLL_NS);
        struct timespec ts = {.tv_sec = (time_t)(piece / NS_PER_S),
                              .tv_nsec = (long)(piece % NS_PER_S)};
        if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR) {
            return; /* the caller looks at its flags */
        }
        at = monotime_now_ns();
    }
}

struct clock clock_real_clock(struct clock_real *self)
{
    return (struct clock){.now = now, .wait_until = wait_until, .advance = NULL, .self = self};
}
