/*
 * static_batch_int.h - what naive and dynamic share: collect, run to completion, return as a whole.
 *
 * Rules:
 *   1. Nothing joins a batch that runs; the next is chosen when the engine is idle.
 *   2. It fires when `size` requests wait (or max_seqs, if less); or when `timeout_ns` has passed
 *      since max(engine idle, arrival of the oldest); or when the oldest has waited `max_wait_ns`
 *      since its arrival.
 *   3. It takes the head of the queue, up to `size`, cut to what fits: each member reserves its
 *      (padded) prompt + max_new_tokens for the life of the batch.
 *   4. First step: all prompts, padded to the longest; pad rows cost work and KV room. Then one
 *      token per live member and step; with pad, finished members still cost a row each.
 *   5. When all are finished, all are released in one plan without items.
 */
#ifndef LLMSCHED_SCHED_STATIC_BATCH_INT_H
#define LLMSCHED_SCHED_STATIC_BATCH_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/plan.h"
#include "core/view.h"

struct static_batch {
    uint32_t size;
    uint64_t timeout_ns;
    uint64_t max_wait_ns; /* TIME_NEVER: no bound */
    bool pad;
};

void static_batch_plan(const struct static_batch *rule, const struct view *view, uint64_t now_ns,
                       struct plan *plan);

/* Requests it waits for: size, or max_seqs if less. */
uint32_t static_batch_target(const struct static_batch *rule, const struct view *view);

#endif
