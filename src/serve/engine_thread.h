/*
 * engine_thread.h - a backend: model loading and the engine's loop on a thread of their own.
 *
 *   network thread ──submit, cancel──► inbox ──source──► engine_run ──sink──► outbox ──take──►
 *
 * Both boxes are lock-free intrusive lists of jobs, so neither thread ever waits for the other, and
 * they are bounded by the jobs that exist. The network thread is woken at most once per step. The
 * engine's clock sleeps on an eventfd: an arrival, a cancellation, drain and abort wake it at once.
 * A cancelled job's KV blocks are free before the next step is planned.
 */
#ifndef LLMSCHED_SERVE_ENGINE_THREAD_H
#define LLMSCHED_SERVE_ENGINE_THREAD_H

#include "core/executor.h"
#include "core/policy.h"
#include "serve/backend.h"
#include "serve/prom.h"

struct engine_thread;

struct engine_thread_config {
    const struct policy_class *policy;
    struct policy_params params;
    /* The limits must be known before the model is loaded: total_blocks >= 1 is at most what the
     * executor will store, the other two are as it will have them (else state FAILED). */
    uint32_t total_blocks;
    uint32_t block_tokens;
    uint32_t max_model_len;
    uint32_t max_seqs;     /* 0: the engine's default */
    uint32_t token_budget; /* 0: the executor's advice */
    uint32_t max_jobs;     /* most jobs submitted and not ended at any time: sizes the slots */
    struct prom *prom;     /* borrowed, or NULL; fed from the engine's thread */
    /* Called once on the engine thread; gives the executor (borrowed until the thread has ended).
     */
    enum status (*load)(void *self, struct executor **out, struct error *err);
    void *load_self;
};

/* Starts the thread; returns at once, in state LOADING. What the engine refuses later (a failed
 * load, limits that contradict the executor's) shows as state FAILED. Errors: USAGE (max_jobs),
 * NO_MEMORY, IO (thread, eventfd). */
enum status engine_thread_start(const struct engine_thread_config *config,
                                struct engine_thread **out, struct error *err) MUST_USE;
/* The backend, borrowed until stop. */
struct backend *engine_thread_backend(struct engine_thread *t);
/* abort, then waits for the thread. All jobs are then ended; those not taken are the caller's. */
void engine_thread_stop(struct engine_thread *t);

#endif
