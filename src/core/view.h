/*
 * view.h - all that a policy may see. Read-only, borrowed for one policy_plan call.
 *
 * It has no true output length: a policy that wants one must predict it.
 */
#ifndef LLMSCHED_CORE_VIEW_H
#define LLMSCHED_CORE_VIEW_H

#include <stdbool.h>
#include <stdint.h>

/*
 *      prompt            generated
 *   |-----------------|-----------|          known    = prompt + generated so far
 *   |--- computed ---------|                 computed = has KV entries
 *                          |------|          known - computed: what can be scheduled (>= 1 while
 *                                            the sequence lives, unless in flight)
 */
struct seq_view {
    uint64_t id; /* request id; ties are broken by it */
    uint64_t arrival_ns;
    uint64_t deadline_ns;
    uint32_t slot; /* what a plan names */
    uint32_t prompt_tokens;
    uint32_t max_new_tokens;
    uint32_t known_tokens;
    uint32_t computed_tokens;
    uint32_t inflight_tokens;
    uint32_t blocks_held;
    uint32_t blocks_if_preempted; /* blocks that come back when it is preempted */
    uint32_t preempt_count;
    uint32_t tenant;
    int32_t priority;
    bool finished; /* held by a static batch until released; needs no more tokens */
};

struct view_limits {
    uint32_t max_seqs;      /* running sequences, <= PLAN_MAX_SEQS */
    uint32_t token_budget;  /* rows a step should hold at most (advice of the executor) */
    uint32_t max_model_len; /* prompt + output, tokens */
    bool can_mix;           /* prefill and decode in one step */
};

struct view {
    const struct seq_view *waiting; /* queue order: preempted first, then by arrival */
    const struct seq_view *running; /* order of admission */
    uint32_t n_waiting;
    uint32_t n_running;
    uint32_t block_tokens; /* tokens per KV block */
    uint32_t total_blocks;
    uint32_t free_blocks;
    double mem_used_frac;   /* KV blocks (or device memory) in use, 0..1 */
    uint64_t idle_since_ns; /* when the running set last became empty (run start at first) */
    struct view_limits limits;
};

static inline uint32_t view_blocks_for(const struct view *v, uint64_t tokens)
{
    return (uint32_t)((tokens + v->block_tokens - 1) / v->block_tokens);
}

#endif
