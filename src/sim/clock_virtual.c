/* clock_virtual.c - see clock_virtual.h. */
#include "sim/clock_virtual.h"

static uint64_t now(void *self)
{
    return ((struct clock_virtual *)self)->now_ns;
}

static void wait_until(void *self, uint64_t t_ns)
{
    struct clock_virtual *c = self;
    c->now_ns = t_ns > c->now_ns ? t_ns : c->now_ns;
}

static void advance(void *self, uint64_t duration_ns)
{
    ((struct clock_virtual *)self)->now_ns += duration_ns;
}

struct clock clock_virtual_clock(struct clock_virtual *self)
{
    return (struct clock){.now = now, .wait_until = wait_until, .advance = advance, .self = self};
}
