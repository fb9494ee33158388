/* engine_int.h - the engine's inside, shared by engine.c (run, requests in and out) and step.c
 * (plan, commit, execute, apply). */
#ifndef LLMSCHED_ENGINE_ENGINE_INT_H
#define LLMSCHED_ENGINE_ENGINE_INT_H

#include "engine/blocks.h"
#include "engine/engine.h"
#include "engine/queue_int.h"

enum slot_state { SLOT_FREE, SLOT_WAITING, SLOT_RUNNING };

/* What the engine knows of a request beyond its view. The view (lengths, blocks held) lives in the
 * waiting queue or in the running array, whichever the state says. */
struct slot {
    const struct request *request;
    int32_t *tokens; /* prompt, then output; kept for the slot's next request */
    uint32_t tokens_capacity;
    uint32_t running_idx; /* SLOT_RUNNING */
    uint32_t table;       /* SLOT_RUNNING: row of block numbers */
    uint32_t high_water;  /* most positions ever computed: below it, rows are recomputed */
    uint32_t delivered;   /* output tokens handed out */
    enum slot_state state;
    enum finish_reason finish; /* of a held sequence that is finished */
    bool hold;
    uint64_t plan_id; /* of the step it is in; 0: none */
};

/* A request that ended inside the step: its on_done is called after it. */
struct ended {
    const struct request *request;
    uint64_t time_ns;
};

/* One step: rejects, releases and results end at most this many requests. */
#define MAX_ENDED (3 * PLAN_MAX_SEQS)

struct engine {
    struct engine_config config;
    struct engine_limits limits;
    void *policy_state;
    struct source *source;

    struct blocks blocks;
    struct slot *slots;
    uint32_t n_slots;
    uint32_t *free_slots;
    uint32_t n_free_slots;
    uint32_t *tables; /* max_seqs rows of table_blocks numbers */
    uint32_t table_blocks;
    uint32_t *free_tables;
    uint32_t n_free_tables;

    struct queue waiting;
    uint32_t n_running;
    uint32_t n_finished;
    struct seq_view running[PLAN_MAX_SEQS];

    uint64_t idle_since_ns;
    uint64_t last_plan_id;
    uint32_t n_failed_steps;
    bool was_run;

    struct plan plan;
    struct step_record record;
    uint32_t item_slots[PLAN_MAX_SEQS];
    struct exec_item items[PLAN_MAX_SEQS];
    struct exec_result result;
    uint32_t n_ended;
    struct ended ended[MAX_ENDED];
};

static inline uint64_t engine_now(const struct engine *e)
{
    return e->config.clock->now(e->config.clock->self);
}

static inline uint32_t *engine_table(struct engine *e, const struct slot *s)
{
    return e->tables + (size_t)s->table * e->table_blocks;
}

void engine_emit(struct engine *e, const struct event *ev);
void engine_notify(struct engine *e, struct policy_event ev, uint64_t now_ns);

/* The request's terminal event; frees blocks, table and slot. The caller takes its view out of the
 * queue, or compacts the running array. on_done is left to engine_flush_ended. */
void engine_end_request(struct engine *e, uint32_t slot, enum event_kind kind, uint32_t reason,
                        uint64_t now_ns);
/* Drops running entries whose sequence has left; keeps the order. */
void engine_compact_running(struct engine *e, uint64_t now_ns);
void engine_flush_ended(struct engine *e);
/* What the source has now: arrivals, then cancels (of a request that has just arrived, too).
 * Outside the guard: token buffers are made here. Returns when to ask again. */
uint64_t engine_take_news(struct engine *e, uint64_t now_ns);

/* One turn: asks the policy, and runs a step, or waits until next_at_ns or the plan's wake-up.
 * Errors: the executor's, when it failed too often in a row. */
enum status engine_turn(struct engine *e, uint64_t now_ns, uint64_t next_at_ns,
                        struct error *err) MUST_USE;

#endif
