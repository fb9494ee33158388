/*
 * backend.h - what makes the tokens of a server: the engine on its thread (engine_thread.h), or an
 * exact timetable (synthetic.h).
 *
 * All functions are called on the network thread and never block.
 */
#ifndef LLMSCHED_SERVE_BACKEND_H
#define LLMSCHED_SERVE_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "serve/job.h"

enum backend_state {
    BACKEND_LOADING,
    BACKEND_READY,
    BACKEND_DRAINING, /* takes no new jobs */
    BACKEND_STOPPED,  /* every job has ended; nothing runs any more */
    BACKEND_FAILED    /* as STOPPED, because of an error: see error() */
};

struct backend_limits {
    uint32_t max_model_len; /* prompt + output, tokens */
    uint64_t kv_tokens;     /* what one sequence can at most own */
    uint32_t total_blocks;
    uint32_t block_tokens;
    uint32_t max_seqs; /* running at once */
    bool wants_stamps; /* jobs need due_ns and written_ns */
};

struct backend {
    struct backend_limits limits; /* valid from creation on */
    /* Readable whenever take may have something, or state has changed. */
    int fd;
    enum backend_state (*state)(void *self);
    /* Only in state READY. The backend has the job until its end was taken. It sets the request's
     * id and arrival_ns. */
    void (*submit)(void *self, struct job *job);
    /* Asks for the end of a submitted job; harmless when it has ended. */
    void (*cancel)(void *self, struct job *job);
    /* A job with news (new tokens, or its end) since it was last taken, oldest first; NULL: none,
     * and fd is quiet until there is. `end` changes inside take alone: a job whose end is set when
     * it is taken is the caller's again and is never given out once more. Tokens may appear at
     * any time, so a job can be taken with nothing left to read. */
    struct job *(*take)(void *self);
    /* Submitted jobs that have not been in any step yet. */
    uint32_t (*waiting)(void *self);
    /* No more submits; jobs run to their end, then the state is STOPPED. */
    void (*drain)(void *self);
    /* Ends all jobs as JOB_CANCELLED as soon as the step in flight is done, then STOPPED. */
    void (*abort)(void *self);
    /* Why it failed; "" if it did not. Borrowed. */
    const char *(*error)(void *self);
    void *self;
};

#endif
