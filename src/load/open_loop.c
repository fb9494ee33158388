/* open_loop.c - see open_loop.h. */
#include "load/open_loop.h"

#include <assert.h>
#include <stddef.h>

#include "base/monotime.h"

static const struct request *next(void *self, uint64_t now_ns, uint64_t *next_at_ns)
{
    struct open_loop *o = self;
    if (o->issued == o->n) {
        *next_at_ns = TIME_NEVER;
        return NULL;
    }
    const struct request *r = &o->requests[o->issued];
    if (r->arrival_ns > now_ns) {
        *next_at_ns = r->arrival_ns;
        return NULL;
    }
    o->issued++;
    return r;
}

static void on_done(void *self, const struct request *request, uint64_t now_ns)
{
    (void)request;
    (void)now_ns;
    struct open_loop *o = self;
    assert(o->done < o->issued);
    o->done++;
}

void open_loop_init(struct open_loop *o, const struct request *requests, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        assert(requests[i - 1].arrival_ns <= requests[i].arrival_ns);
    }
    *o = (struct open_loop){.requests = requests, .n = n};
}

struct source open_loop_source(struct open_loop *o)
{
    return (struct source){.next = next, .on_done = on_done, .self = o};
}
