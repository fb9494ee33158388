/*
 * closed_loop.h - a fixed number of users: each sends its next request when its last one ends.
 *
 * At most `concurrency` requests are in flight. The instant at which a place becomes free is the
 * next request's planned arrival, so no waiting for the engine is lost from its latency.
 */
#ifndef LLMSCHED_LOAD_CLOSED_LOOP_H
#define LLMSCHED_LOAD_CLOSED_LOOP_H

#include <stdint.h>

#include "core/source.h"

struct closed_loop {
    struct request *requests; /* in order; arrival_ns is written when its place becomes free */
    uint32_t n;
    uint32_t concurrency;
    uint32_t issued;
    uint32_t done;
};

/* requests: borrowed until the run ends. concurrency >= 1. */
void closed_loop_init(struct closed_loop *c, struct request *requests, uint32_t n,
                      uint32_t concurrency);
struct source closed_loop_source(struct closed_loop *c);

#endif
