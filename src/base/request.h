/*
 * request.h - the plain types everybody shares: a request, what happens to it, what a step did.
 *
 * Request and event types hold no behaviour. Instants and durations are CLOCK_MONOTONIC (or
 * virtual) nanoseconds.
 */
#ifndef LLMSCHED_BASE_REQUEST_H
#define LLMSCHED_BASE_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

/* Added to one token's logit. */
struct token_bias {
    int32_t id;
    float bias;
};

/* temperature 0: greedy (argmax, lowest id wins ties). top_k 0: off. top_p 1: off. The others are
 * off at 0. Order: bias, penalties, temperature, top-k, top-p, min-p, as in Transformers'
 * generate(). */
struct sampling {
    float temperature;
    uint32_t top_k;
    float top_p;
    float min_p;
    float repetition_penalty;      /* 1 is off, too; over prompt and output */
    float frequency_penalty;       /* over the output */
    float presence_penalty;        /* over the output */
    const struct token_bias *bias; /* ascending ids; owner: as the prompt */
    uint32_t n_bias;
};

struct token_prob {
    int32_t id;
    float logprob; /* natural logarithm, of the raw logits */
};

/*
 * Where the executor writes the log-probabilities of one request; owner: the request's maker.
 * Row r is that of output token r, or, with `prompt`, of position r of the sequence (row 0, before
 * which nothing stands, has id = its token and logprob NAN). A row is written before its token is
 * delivered, and not again after a preemption. Alternatives that there are none of (of row 0,
 * beyond the vocabulary, of logits that are not finite) have id -1 and logprob NAN.
 */
struct logprob_store {
    uint32_t n_top;            /* alternatives a row */
    bool prompt;               /* rows of prompt positions too */
    struct token_prob *chosen; /* [rows], rows = (prompt ? prompt_tokens : 0) + max_new_tokens */
    struct token_prob *top;    /* [rows][n_top], best first, lowest id first among equals */
};

struct request {
    uint64_t id;             /* index in its run: 0, 1, 2 ... */
    const int32_t *prompt;   /* token ids; owner: the workload */
    uint32_t prompt_tokens;  /* >= 1 */
    uint32_t max_new_tokens; /* >= 1 */
    uint64_t arrival_ns;     /* planned arrival; a closed loop sets it when it issues */
    uint64_t deadline_ns;    /* TIME_NEVER: none */
    uint64_t sample_key;     /* all randomness of this request: rng_at(sample_key, position) */
    uint32_t tenant;
    int32_t priority; /* lower runs first */
    struct sampling sampling;
    bool ignore_eos;
    uint32_t min_new_tokens; /* before them no end-of-sequence or stop token is sampled */
    const int32_t *stop_ids; /* tokens that end the output (FINISH_STOP); owner: as the prompt */
    uint32_t n_stop_ids;
    struct logprob_store *logprobs; /* NULL: none wanted */
    uint32_t sim_output_tokens; /* simulators only: true length, 0 unknown; hidden from policies */
};

enum finish_reason {
    FINISH_NONE,   /* goes on */
    FINISH_STOP,   /* an end-of-sequence or stop token, or a stop string */
    FINISH_LENGTH, /* max_new_tokens or the model's length */
    FINISH_ERROR   /* the executor failed this sequence */
};

enum reject_reason {
    REJECT_NONE,
    REJECT_QUEUE_FULL, /* more than --max-queue wait */
    REJECT_TOO_LONG,   /* prompt + max_new_tokens exceed the model's length */
    REJECT_NO_BLOCKS,  /* would not fit into an empty KV cache */
    REJECT_POLICY,     /* the policy shed it */
    REJECT_SHUTDOWN    /* arrived while draining */
};

const char *finish_reason_name(enum finish_reason r);
const char *reject_reason_name(enum reject_reason r);

/* A request's life: ARRIVE, then SCHEDULED (again after each PREEMPT), TOKEN ..., DELIVER ..., and
 * exactly one terminal event: FINISH, REJECT, CANCEL or FAIL. */
enum event_kind {
    EVENT_ARRIVE,    /* n = prompt tokens */
    EVENT_SCHEDULED, /* first rows of a residency are in a plan; n = batch size then */
    EVENT_TOKEN,     /* n tokens computed */
    EVENT_DELIVER,   /* n tokens handed to the caller (a static batch: all at its end) */
    EVENT_PREEMPT,   /* its KV blocks are freed, it starts over; n = computed tokens lost */
    EVENT_FINISH,    /* reason = enum finish_reason */
    EVENT_REJECT,    /* reason = enum reject_reason */
    EVENT_CANCEL,
    EVENT_FAIL
};

struct event {
    uint64_t time_ns; /* ARRIVE: the planned arrival, maybe before events already sent */
    uint64_t request_id;
    enum event_kind kind;
    uint32_t n;
    uint32_t reason;
    const int32_t *tokens; /* DELIVER: the n ids; borrowed for the call */
};

static inline bool event_is_terminal(enum event_kind k)
{
    return k >= EVENT_FINISH;
}

/* What one committed plan cost; sent after the events of the step's result. Rows are token
 * positions pushed through the model: computed rows = useful + pad + recomputed. */
struct step_record {
    uint64_t plan_id;
    uint64_t begin_ns;
    uint64_t end_ns;
    uint64_t plan_ns;   /* time inside policy_plan and the commit (wall clock; 0 in virtual time) */
    uint32_t sequences; /* items of the plan */
    uint32_t live_sequences; /* items with n_tokens > 0 */
    uint32_t useful_rows;
    uint32_t pad_rows;
    uint32_t recomputed_rows;
    uint32_t kv_blocks_used; /* after the commit */
    uint32_t waiting;        /* after the commit */
};

/* Time in which no step ran: FILL = requests waited while the engine stood idle (a batcher's
 * timeout), IDLE = nothing waited either. */
struct gap_record {
    uint64_t begin_ns;
    uint64_t end_ns;
    bool fill;
};

/* Receives everything, in time order, on the engine's thread. Must not allocate in `event`,
 * `step` or `gap`. */
struct event_sink {
    void (*event)(void *self, const struct event *ev);
    void (*step)(void *self, const struct step_record *step);
    void (*gap)(void *self, const struct gap_record *gap);
    void *self;
};

#endif
