/*
 * job.h - one sequence between the network thread and whatever makes its tokens.
 *
 *   network thread                              backend (engine thread, or a timetable)
 *   job_create ──submit──► job ───────────────► request is run
 *        ▲                  │ tokens[0, n_tokens), then end                │
 *        └────── take ◄─────┴──────────────────────────────────────────────┘
 *
 * A request with n choices of p prompts is n * p jobs. Ownership: the network thread makes a job
 * and frees it; from submit until take has shown its end, the backend may write to it, and only
 * the fields marked so. The network thread reads tokens below n_tokens (acquire), and the fields of
 * the end once `end` (acquire) is not JOB_LIVE.
 */
#ifndef LLMSCHED_SERVE_JOB_H
#define LLMSCHED_SERVE_JOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/request.h"
#include "base/status.h"

enum job_end {
    JOB_LIVE,
    JOB_FINISHED,  /* reason = enum finish_reason */
    JOB_REJECTED,  /* reason = enum reject_reason */
    JOB_CANCELLED, /* by the network thread, or because the backend stops */
    JOB_FAILED
};

/* Prompt ids, shared by the choices of one prompt. Counted on the network thread alone. */
struct job_prompt {
    int32_t *ids;
    uint32_t n_ids;
    uint32_t users;
};

struct job {
    struct request request; /* prompt, lengths, sampling, key: the caller's; id: the backend's */
    struct job_prompt *prompt;
    void *owner;     /* the network thread's exchange */
    uint32_t choice; /* index in the answer */

    /* Written by the backend. */
    int32_t *tokens; /* [request.max_new_tokens] */
    _Atomic uint32_t n_tokens;
    _Atomic int end; /* enum job_end */
    uint32_t reason;

    /* NULL, or [max_new_tokens]: when token i was due, and when the network thread handed its event
     * to the socket. Only a timetable backend asks for it. */
    uint64_t *due_ns;
    uint64_t *written_ns;

    struct logprob_store logprobs; /* request.logprobs points here, or is NULL */

    /* Why the network thread cancels, for the counters: FINISH_STOP when it found a stop string
     * (the request succeeded), FINISH_NONE when nobody wants the rest. Set before the first cancel.
     */
    enum finish_reason cancel_as;

    /* Private to backends. */
    _Atomic(struct job *) next_in;
    _Atomic(struct job *) next_out;
    _Atomic int is_queued_out; /* 0, or 1 + the enum job_end that take will show */
    _Atomic int is_cancelled;
    uint32_t live_idx;
};

/* Takes over ids (mem_alloc'ed), even on error. users starts at 0. Errors: NO_MEMORY. */
enum status job_prompt_create(int32_t *ids, uint32_t n_ids, struct job_prompt **out,
                              struct error *err) MUST_USE;

struct job_options {
    uint32_t max_new_tokens; /* >= 1 */
    bool want_logprobs;
    uint32_t n_top;       /* alternatives per token */
    bool prompt_logprobs; /* of the prompt's tokens too */
    bool want_stamps;
};

/* A job on that prompt (one more user), with its buffers; the request's prompt, lengths and
 * logprobs are set, the rest is the caller's. Errors: NO_MEMORY. */
enum status job_create(struct job_prompt *prompt, const struct job_options *options,
                       struct job **out, struct error *err) MUST_USE;
/* Frees the prompt with its last user. job may be NULL. Never while a backend has it. */
void job_destroy(struct job *job);
void job_prompt_destroy_unused(struct job_prompt *p);

static inline uint32_t job_tokens(const struct job *j)
{
    return atomic_load_explicit(&j->n_tokens, memory_order_acquire);
}

static inline enum job_end job_end_of(const struct job *j)
{
    return (enum job_end)atomic_load_explicit(&j->end, memory_order_acquire);
}

#endif
