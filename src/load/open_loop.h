/*
 * open_loop.h - requests at instants planned before the run, whatever the server does.
 */
#ifndef LLMSCHED_LOAD_OPEN_LOOP_H
#define LLMSCHED_LOAD_OPEN_LOOP_H

#include <stdint.h>

#include "core/source.h"

struct open_loop {
    const struct request *requests; /* ascending arrival_ns */
    uint32_t n;
    uint32_t issued;
    uint32_t done;
};

/* requests: borrowed until the run ends; their arrivals must ascend (asserted). */
void open_loop_init(struct open_loop *o, const struct request *requests, uint32_t n);
struct source open_loop_source(struct open_loop *o);

#endif
