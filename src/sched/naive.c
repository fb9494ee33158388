/* naive.c - static batching with a fixed size: the baseline. Rules: static_batch_int.h. It has no
 * state: the view says whether a batch runs. */
#include <stdint.h>

#include "base/monotime.h"
#include "core/policy.h"
#include "sched/static_batch_int.h"

enum { BATCH_SIZE, TIMEOUT, PAD, N_PARAMS };

static const struct param_spec params_table[N_PARAMS] = {
    [BATCH_SIZE] = {"batch_size", PARAM_INT, 4, 1, PLAN_MAX_SEQS, NULL,
                    "requests collected before a batch runs"},
    [TIMEOUT] = {"timeout", PARAM_SECONDS, 0.5, 0, 3600, NULL,
                 "runs a smaller batch this long after max(engine idle, oldest arrival)"},
    [PAD] = {"pad", PARAM_BOOL, 1, 0, 1, NULL,
             "pad prompts to the longest and keep finished members as rows; false: ragged batch"},
};

struct state {
    struct static_batch rule;
};

static void naive_init(void *state, const struct policy_params *params)
{
    struct state *s = state;
    s->rule = (struct static_batch){
        .size = (uint32_t)params->values[BATCH_SIZE],
        .timeout_ns = monotime_from_seconds(params->values[TIMEOUT]),
        .max_wait_ns = TIME_NEVER,
        .pad = params->values[PAD] != 0.0,
    };
}

static void naive_event(void *state, uint64_t now_ns, const struct policy_event *ev)
{
    (void)state;
    (void)now_ns;
    (void)ev;
}

static void naive_plan(const void *state, const struct view *view, uint64_t now_ns,
                       struct plan *plan)
{
    const struct state *s = state;
    static_batch_plan(&s->rule, view, now_ns, plan);
}

static uint32_t naive_fill_target(const struct policy_params *params)
{
    return (uint32_t)params->values[BATCH_SIZE];
}

const struct policy_class policy_naive = {
    .name = "naive",
    .summary = "static batching: collect batch_size requests or wait timeout, run the padded batch "
               "to its end, return it as a whole",
    .params = params_table,
    .n_params = N_PARAMS,
    .state_bytes = sizeof(struct state),
    .init = naive_init,
    .event = naive_event,
    .plan = naive_plan,
    .fill_target = naive_fill_target,
};
