/*
 * dynamic.c - static batching whose size adapts to memory and backlog.
 *
 * Rules 1 to 5 of static_batch_int.h, and: when a batch has ended, one change of the size:
 *   - 1 when the peak of memory in use over the batch reached memory_threshold;
 *   else + 2, with grow=backlog only after a full batch that left requests waiting as it fired;
 *   within [min_batch_size, max_batch_size].
 * With grow=always the size outgrows a closed loop, and then every batch waits out its timeout.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/monotime.h"
#include "core/policy.h"
#include "sched/static_batch_int.h"

#define GROW_STEP   2
#define SHRINK_STEP 1

enum {
    BATCH_SIZE,
    MIN_BATCH_SIZE,
    MAX_BATCH_SIZE,
    TIMEOUT,
    MAX_TIME_WAIT,
    MEMORY_THRESHOLD,
    GROW,
    PAD,
    N_PARAMS
};

enum { GROW_BACKLOG, GROW_ALWAYS };

static const struct param_spec params_table[N_PARAMS] = {
    [BATCH_SIZE] = {"batch_size", PARAM_INT, 8, 1, PLAN_MAX_SEQS, NULL, "size of the first batch"},
    [MIN_BATCH_SIZE] = {"min_batch_size", PARAM_INT, 4, 1, PLAN_MAX_SEQS, NULL,
                        "the size never shrinks below this"},
    [MAX_BATCH_SIZE] = {"max_batch_size", PARAM_INT, 32, 1, PLAN_MAX_SEQS, NULL,
                        "the size never grows above this"},
    [TIMEOUT] = {"timeout", PARAM_SECONDS, 0.5, 0, 3600, NULL,
                 "runs a smaller batch this long after max(engine idle, oldest arrival)"},
    [MAX_TIME_WAIT] = {"max_time_wait", PARAM_SECONDS, 2.0, 0, 3600, NULL,
                       "an idle engine runs once the oldest request has waited this long"},
    [MEMORY_THRESHOLD] = {"memory_threshold", PARAM_REAL, 0.8, 0, 1, NULL,
                          "peak share of memory in use from which the size shrinks by 1"},
    [GROW] = {"grow", PARAM_ENUM, GROW_BACKLOG, 0, GROW_ALWAYS, "backlog|always",
              "grow by 2 after a full batch that left requests waiting, or after every batch"},
    [PAD] = {"pad", PARAM_BOOL, 1, 0, 1, NULL,
             "pad prompts to the longest and keep finished members as rows; false: ragged batch"},
};

struct state {
    struct static_batch rule; /* rule.size is the size now */
    uint32_t min_size;
    uint32_t max_size;
    double threshold;
    bool grow_always;
    bool open;    /* a batch runs */
    bool backlog; /* it was full as it fired, and left requests waiting */
    double peak;  /* memory in use, most over the batch */
};

static void dynamic_init(void *state, const struct policy_params *params)
{
    struct state *s = state;
    const double *v = params->values;
    *s = (struct state){
        .rule = {.size = (uint32_t)v[BATCH_SIZE],
                 .timeout_ns = monotime_from_seconds(v[TIMEOUT]),
                 .max_wait_ns = monotime_from_seconds(v[MAX_TIME_WAIT]),
                 .pad = v[PAD] != 0.0},
        .min_size = (uint32_t)v[MIN_BATCH_SIZE],
        .max_size = (uint32_t)v[MAX_BATCH_SIZE],
        .threshold = v[MEMORY_THRESHOLD],
        .grow_always = v[GROW] == GROW_ALWAYS,
    };
}

static void adapt(struct state *s)
{
    uint32_t size = s->rule.size;
    if (s->peak >= s->threshold) {
        s->rule.size = size > s->min_size + SHRINK_STEP ? size - SHRINK_STEP : s->min_size;
    } else if (s->grow_always || s->backlog) {
        s->rule.size = size + GROW_STEP < s->max_size ? size + GROW_STEP : s->max_size;
    }
}

static void dynamic_event(void *state, uint64_t now_ns, const struct policy_event *ev)
{
    struct state *s = state;
    (void)now_ns;
    if (!s->open && ev->kind == POLICY_COMMIT && ev->n_admitted > 0) {
        s->open = true;
        s->peak = 0.0;
        s->backlog = ev->n_admitted == s->rule.size && ev->n_waiting > 0;
    }
    if (s->open) {
        s->peak = ev->mem_used_frac > s->peak ? ev->mem_used_frac : s->peak;
        if (ev->n_running == 0) { /* released, or all its members left */
            s->open = false;
            adapt(s);
        }
    }
}

static void dynamic_plan(const void *state, const struct view *view, uint64_t now_ns,
                         struct plan *plan)
{
    const struct state *s = state;
    static_batch_plan(&s->rule, view, now_ns, plan);
}

static const char *dynamic_check(const struct policy_params *params)
{
    const double *v = params->values;
    if (v[MIN_BATCH_SIZE] > v[MAX_BATCH_SIZE]) {
        return "min_batch_size is above max_batch_size; lower the one or raise the other";
    }
    if (v[BATCH_SIZE] < v[MIN_BATCH_SIZE] || v[BATCH_SIZE] > v[MAX_BATCH_SIZE]) {
        return "batch_size (the first batch) must lie within min_batch_size..max_batch_size; set "
               "all three";
    }
    return NULL;
}

static uint32_t dynamic_fill_target(const struct policy_params *params)
{
    const double *v = params->values;
    return (uint32_t)(v[GROW] == GROW_ALWAYS ? v[MAX_BATCH_SIZE] : v[BATCH_SIZE]);
}

const struct policy_class policy_dynamic = {
    .name = "dynamic",
    .summary = "static batching whose size grows by 2 with backlog and shrinks by 1 on memory "
               "pressure, with a bound on the wait",
    .params = params_table,
    .n_params = N_PARAMS,
    .state_bytes = sizeof(struct state),
    .init = dynamic_init,
    .event = dynamic_event,
    .plan = dynamic_plan,
    .check = dynamic_check,
    .fill_target = dynamic_fill_target,
};
