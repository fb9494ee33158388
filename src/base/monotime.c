/* monotime.c - see monotime.h. */
#include "base/monotime.h"

#include <time.h>

uint64_t monotime_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

double monotime_seconds(uint64_t ns)
{
    return (double)ns * 1e-9;
}

uint64_t monotime_from_seconds(double seconds)
{
    if (!(seconds > 0.0)) {
        return 0;
    }
    return seconds >= 1.8e10 ? TIME_NEVER - 1 : (uint64_t)(seconds * 1e9 + 0.5);
}
