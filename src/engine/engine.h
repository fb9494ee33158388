/*
 * engine.h - the loop: pulls requests, asks the policy, commits the plan, runs the executor,
 * applies the result, reports events.
 *
 *   arrivals -> waiting --plan--> running --result--> finish | preempt (back to waiting's head)
 *
 * It alone knows the time, and it alone owns the KV block accounting (blocks.h). One thread. The
 * step (plan, commit, submit, poll, apply) allocates nothing: slots and block tables come from a
 * pool sized at creation, a request's token buffer is made at its arrival.
 *
 * Order within one turn: arrivals, cancels, plan and commit, step, arrivals and cancels again (a
 * cancel that came during the step beats the step's result), apply.
 *
 * Events: every accepted request gets exactly one terminal event, and source->on_done is called
 * exactly once, right after the step that ended it, outside the allocation guard. All events are
 * in time order, except that ARRIVE carries the planned arrival (request->arrival_ns), which may
 * lie before events already sent: the engine takes arrivals between steps.
 */
#ifndef LLMSCHED_ENGINE_ENGINE_H
#define LLMSCHED_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/request.h"
#include "base/status.h"
#include "core/clock.h"
#include "core/executor.h"
#include "core/policy.h"
#include "core/source.h"

#define ENGINE_DEFAULT_MAX_SEQS  256
#define ENGINE_DEFAULT_MAX_QUEUE 4096
/* Slots cost memory: queue bounds beyond this are refused. */
#define ENGINE_QUEUE_LIMIT (1U << 20)
/* Steps that may fail in a row before the run ends with the executor's error. One failed step only
 * fails its own sequences. */
#define ENGINE_MAX_FAILED_STEPS 3

struct engine_config {
    const struct policy_class *policy;
    struct policy_params params;
    struct executor *executor;      /* borrowed */
    struct clock *clock;            /* borrowed */
    const struct event_sink *sinks; /* borrowed, n_sinks of them, each gets everything */
    uint32_t n_sinks;
    uint32_t total_blocks; /* KV budget; 0: all that the executor stores */
    uint32_t max_seqs;     /* 0: ENGINE_DEFAULT_MAX_SEQS; at most PLAN_MAX_SEQS */
    uint32_t max_queue;    /* waiting requests; 0: ENGINE_DEFAULT_MAX_QUEUE */
    uint32_t token_budget; /* rows a step; 0: the executor's advice */
    /* NULL, or: when it becomes non-zero, arrivals are rejected (REJECT_SHUTDOWN), accepted
     * requests are finished, and the run ends with OK. */
    const volatile int *drain;
    /* Any allocation by the engine's thread, or by a pool that works for it, during a step aborts
     * (base/mem.h). Other threads are free to allocate, so a server may leave it on. */
    bool guard_allocations;
};

struct engine;

/* Errors: USAGE (limits, parameters; nothing is clamped silently), NO_MEMORY. */
enum status engine_create(const struct engine_config *config, struct engine **out,
                          struct error *err) MUST_USE;
void engine_destroy(struct engine *e);

/*
 * One run, from the first request to the last terminal event. An engine runs once (policy state
 * and plan ids start fresh with each engine); the executor may be used again by the next one.
 *
 * Ends with OK when the source has no more requests and all are answered. `stop` (may be NULL):
 * once non-zero, the step in flight is applied, every accepted request that is left gets CANCEL,
 * and INTERRUPTED is returned. Errors: the executor's, after ENGINE_MAX_FAILED_STEPS failures in a
 * row (what is left gets FAIL). A request whose memory is refused gets FAIL, the run goes on.
 */
enum status engine_run(struct engine *e, struct source *source, const volatile int *stop,
                       struct error *err) MUST_USE;

/* The limits as a policy sees them, after defaults: for --dry-run and the result file. */
struct engine_limits {
    uint32_t total_blocks;
    uint32_t block_tokens;
    uint32_t max_seqs;
    uint32_t max_queue;
    uint32_t token_budget;
    uint32_t max_model_len;
};
struct engine_limits engine_limits_of(const struct engine *e);

#endif
