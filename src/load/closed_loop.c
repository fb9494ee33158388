/* closed_loop.c - see closed_loop.h. */
#include "load/closed_loop.h"

#include <assert.h>
#include <stddef.h>

#include "base/monotime.h"

static const struct request *next(void *self, uint64_t now_ns, uint64_t *next_at_ns)
{
    struct closed_loop *c = self;
    if (c->issued == c->n || c->issued - c->done == c->concurrency) {
        *next_at_ns = TIME_NEVER;
        return NULL;
    }
    struct request *r = &c->requests[c->issued];
    if (c->issued++ < c->concurrency) {
        r->arrival_ns = now_ns; /* the first ones follow no completion */
    }
    return r;
}

static void on_done(void *self, const struct request *request, uint64_t now_ns)
{
    (void)request;
    struct closed_loop *c = self;
    assert(c->done < c->issued);
    /* The n-th completion makes place for request concurrency + n, whenever that is asked for. */
    uint64_t follower = (uint64_t)c->concurrency + c->done++;
    if (follower < c->n) {
        c->requests[follower].arrival_ns = now_ns;
    }
}

void closed_loop_init(struct closed_loop *c, struct request *requests, uint32_t n,
                      uint32_t concurrency)
{
    assert(concurrency >= 1);
    *c = (struct closed_loop){.requests = requests, .n = n, .concurrency = concurrency};
}

struct source closed_loop_source(struct closed_loop *c)
{
    return (struct source){.next = next, .on_done = on_done, .self = c};
}
