/*
 * policy.h - a scheduler is a pure state machine.
 *
 *   event(state, now, ev)         the only call that changes state
 *   plan(state, view, now, plan)  reads both, fills the plan; unchanged inputs give the same plan
 *
 * No clock, malloc, I/O, globals, threads; randomness only from its own state. One thread owns it.
 * To add one: a file with a `const struct policy_class`, and a line in sched/registry.c
 * (docs/ADDING_A_SCHEDULER.md).
 */
#ifndef LLMSCHED_CORE_POLICY_H
#define LLMSCHED_CORE_POLICY_H

#include <stddef.h>
#include <stdint.h>

#include "core/plan.h"
#include "core/view.h"

enum param_type { PARAM_INT, PARAM_REAL, PARAM_BOOL, PARAM_ENUM, PARAM_SECONDS };

/* One typed parameter: from this row come --set, --help, `info schedulers` and the docs.
 * Every value travels as a double: ints exactly, bools 0/1, enums the index in choices. */
struct param_spec {
    const char *name;
    enum param_type type;
    double fallback; /* the default */
    double min;
    double max;
    const char *choices; /* PARAM_ENUM: "backlog|always" */
    const char *help;
};

#define POLICY_MAX_PARAMS 16

struct policy_params {
    double values[POLICY_MAX_PARAMS]; /* in the order of the class's table */
};

enum policy_event_kind {
    POLICY_ARRIVE,  /* a request joined the waiting queue */
    POLICY_CANCEL,  /* a request left without finishing */
    POLICY_COMMIT,  /* a non-empty plan was committed */
    POLICY_STEP,    /* a step's result was applied */
    POLICY_CAPACITY /* total_blocks changed */
};

/* Counts are taken right after the event was applied. */
struct policy_event {
    enum policy_event_kind kind;
    uint64_t request_id; /* ARRIVE, CANCEL */
    uint64_t plan_id;    /* COMMIT, STEP */
    uint32_t n_waiting;
    uint32_t n_running;
    uint32_t n_finished; /* running but marked finished (held) */
    uint32_t n_admitted; /* COMMIT: moved from waiting to running by this plan */
    uint32_t n_released; /* COMMIT */
    double mem_used_frac;
};

struct policy_class {
    const char *name;
    const char *summary; /* one line */
    const struct param_spec *params;
    uint32_t n_params;
    size_t state_bytes; /* the engine's owner allocates, zeroed */
    void (*init)(void *state, const struct policy_params *params);
    void (*event)(void *state, uint64_t now_ns, const struct policy_event *ev);
    void (*plan)(const void *state, const struct view *view, uint64_t now_ns, struct plan *plan);
    /* NULL, or why these parameter values contradict each other (min above max); text with the
     * fix. */
    const char *(*check)(const struct policy_params *params);
    /* The batch size the policy tries to fill before it runs, 0 if it never waits for one: lets
     * bench warn that a closed loop with fewer requests in flight always waits out the timeout. */
    uint32_t (*fill_target)(const struct policy_params *params);
};

#endif
