/*
 * executor.h - the only thing that computes: a model on this machine, or a cost model.
 *
 * The engine submits one step and polls its result. Per item the result has 0..k new tokens and a
 * finish reason: end of sequence and length are detected here. One plan in flight on the CPU.
 */
#ifndef LLMSCHED_CORE_EXECUTOR_H
#define LLMSCHED_CORE_EXECUTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/request.h"
#include "base/status.h"
#include "core/plan.h"

/* A sequence as an executor sees it; owner: the engine; constant while a step is in flight. */
struct exec_seq {
    const struct request *request;
    const int32_t *tokens; /* known_tokens ids: prompt, then output so far */
    uint32_t known_tokens;
    uint32_t computed_tokens; /* before this step */
    const uint32_t *blocks;   /* KV block numbers; block i holds positions i*block_tokens ... */
    uint32_t n_blocks;
};

struct exec_item {
    struct exec_seq seq;
    uint32_t n_tokens;   /* compute positions computed_tokens .. + n_tokens - 1 */
    uint32_t pad_tokens; /* rows to compute and discard; they touch no KV */
};

struct exec_step {
    uint64_t plan_id;
    const struct exec_item *items;
    uint32_t n_items;
};

/* Tokens one item can gain in a step (speculation later); now 1. */
#define EXEC_MAX_OUT 4

/* A new token appears exactly when the step computed the last known position
 * (computed + n_tokens == known). */
struct exec_item_result {
    uint32_t n_out;
    int32_t out[EXEC_MAX_OUT];
    enum finish_reason finish;
};

struct exec_result {
    uint64_t plan_id;
    uint64_t duration_ns; /* how long the step took, in the executor's time */
    uint32_t n_items;
    struct exec_item_result items[PLAN_MAX_SEQS];
};

struct exec_info {
    uint32_t max_model_len;
    uint32_t token_budget; /* rows per step it works well with */
    uint32_t block_tokens;
    uint32_t total_blocks; /* KV blocks it can store */
    bool can_mix;
};

struct executor {
    struct exec_info info;
    /* Starts a step; items are borrowed until poll returns it. An error of submit or poll ends the
     * step: the engine fails the sequences that had tokens in it. */
    enum status (*submit)(void *self, const struct exec_step *step, struct error *err);
    /* Waits for the step in flight and fills result. Allocates nothing. */
    enum status (*poll)(void *self, struct exec_result *result, struct error *err);
    void *self;
};

#endif
