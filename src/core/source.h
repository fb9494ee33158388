/*
 * source.h - where requests come from.
 *
 * An open loop replays a plan made before the run; a closed loop issues the next request at the
 * completion that frees a place, and that instant is its planned time.
 */
#ifndef LLMSCHED_CORE_SOURCE_H
#define LLMSCHED_CORE_SOURCE_H

#include <stdint.h>

#include "base/request.h"

struct source {
    /*
     * The next request that is due at `now` (arrival_ns <= now), or NULL. After NULL, *next_at_ns
     * is when to ask again: an instant, or TIME_NEVER when only on_done can make one due, or none
     * is left. The request stays valid until the run ends. Call until NULL.
     */
    const struct request *(*next)(void *self, uint64_t now_ns, uint64_t *next_at_ns);
    /* The request reached its terminal event. Called exactly once per request. */
    void (*on_done)(void *self, const struct request *request, uint64_t now_ns);
    /* A request, handed out before, whose caller asks for cancellation; or UINT64_MAX: none. Called
     * until none. NULL function: never. */
    uint64_t (*next_cancel)(void *self, uint64_t now_ns);
    void *self;
};

#endif
