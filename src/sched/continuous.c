/*
 * continuous.c - iteration-level batching on a paged KV cache, the design of vLLM's V1 scheduler.
 *
 * There are no phases: a request has known and computed tokens, and catches up.
 *   1. Running requests, in order of admission, get min(missing, long_prefill_threshold, budget
 *      left). Where blocks are short, the last of the running set is preempted (its blocks are
 *      freed, its tokens are computed again later), at worst the request itself. So the first one
 *      always advances.
 *   2. Only if nothing was preempted, requests are admitted from the head of the queue while
 * budget, places and blocks last; the first that does not fit ends it (FCFS). A waiting request
 * never preempts another.
 *   3. reserve_full: the whole known sequence must fit at admission and owns its blocks at once;
 *      else only its first chunk, and then a long prompt may be preempted in the middle.
 *   4. While others run, an admission must leave watermark * total blocks (rounded up) free, so
 * that they can grow before anybody is preempted.
 *
 * An executor that cannot mix gets steps of prefill only, as long as there is any, then of decode
 * only; it always reserves in full, or a prefill that preempts itself would keep decode from
 * running. A preempted request comes back to the head of the queue: order of arrival survives.
 * Progress: engine and policy agree that a request which fits into the empty cache is admissible.
 *
 * Sources: Orca (OSDI'22, iteration-level scheduling), PagedAttention (SOSP'23, blocks and
 * recomputation), Sarathi-Serve (OSDI'24, chunked prefill beside decode); vLLM V1's published
 * behaviour.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/policy.h"

enum { TOKEN_BUDGET, MAX_SEQS, LONG_PREFILL, WATERMARK, RESERVE_FULL, N_PARAMS };

#define MAX_ROWS (1 << 20)

static const struct param_spec params_table[N_PARAMS] = {
    [TOKEN_BUDGET] = {"token_budget", PARAM_INT, 0, 0, MAX_ROWS, NULL,
                      "most tokens in a step; 0: what the executor advises"},
    [MAX_SEQS] = {"max_seqs", PARAM_INT, 0, 0, PLAN_MAX_SEQS, NULL,
                  "most running requests; 0: the engine's limit"},
    [LONG_PREFILL] = {"long_prefill_threshold", PARAM_INT, 0, 0, MAX_ROWS, NULL,
                      "most prompt tokens of one request in a step; 0: no bound but the budget"},
    [WATERMARK] = {"watermark", PARAM_REAL, 0.01, 0, 0.5, NULL,
                   "share of the KV blocks that an admission leaves free while others run"},
    [RESERVE_FULL] = {"reserve_full", PARAM_BOOL, 1, 0, 1, NULL,
                      "admit only when the whole known sequence fits, and give it its blocks"},
};

struct state {
    uint32_t token_budget;
    uint32_t max_seqs;
    uint32_t long_prefill;
    double watermark;
    bool reserve_full;
};

/* What is left while a plan is made; a copy of the view's figures. */
struct room {
    uint32_t free_blocks;
    uint32_t budget;
    uint32_t n_running; /* those that stay */
    bool reserve_full;
    bool decode_only;
    bool prefill_only;
};

static void continuous_init(void *state, const struct policy_params *params)
{
    const double *v = params->values;
    *(struct state *)state = (struct state){
        .token_budget = (uint32_t)v[TOKEN_BUDGET],
        .max_seqs = (uint32_t)v[MAX_SEQS],
        .long_prefill = (uint32_t)v[LONG_PREFILL],
        .watermark = v[WATERMARK],
        .reserve_full = v[RESERVE_FULL] != 0.0,
    };
}

static void continuous_event(void *state, uint64_t now_ns, const struct policy_event *ev)
{
    (void)state;
    (void)now_ns;
    (void)ev;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t missing_tokens(const struct seq_view *s)
{
    return s->finished ? 0 : s->known_tokens - s->computed_tokens - s->inflight_tokens;
}

/* One token is missing and all others have KV entries. */
static bool is_decode(const struct seq_view *s)
{
    return s->computed_tokens > 0 && missing_tokens(s) == 1;
}

static uint32_t chunk_of(const struct state *st, const struct seq_view *s, const struct room *room)
{
    uint32_t n = min_u32(missing_tokens(s), room->budget);
    return st->long_prefill > 0 ? min_u32(n, st->long_prefill) : n;
}

static void add_item(struct plan *plan, struct room *room, const struct seq_view *s,
                     uint32_t n_tokens, uint32_t kv_tokens, uint32_t new_blocks)
{
    plan->items[plan->n_items++] =
        (struct plan_item){.slot = s->slot, .n_tokens = n_tokens, .kv_tokens = kv_tokens};
    room->budget -= n_tokens;
    room->free_blocks -= new_blocks;
}

/* Rule 1. */
static void plan_running(const struct state *st, const struct view *view, struct room *room,
                         struct plan *plan)
{
    for (uint32_t i = 0; i < room->n_running && room->budget > 0; i++) {
        const struct seq_view *s = &view->running[i];
        if ((room->decode_only && !is_decode(s)) || (room->prefill_only && is_decode(s))) {
            continue;
        }
        uint32_t n = chunk_of(st, s, room);
        if (n == 0) {
            continue; /* skipped, not a barrier */
        }
        uint32_t kv_tokens = s->computed_tokens + s->inflight_tokens + n;
        uint32_t need = view_blocks_for(view, kv_tokens);
        need = need > s->blocks_held ? need - s->blocks_held : 0;
        /* Victims come from behind i, which this walk has not visited: no item is withdrawn. */
        while (need > room->free_blocks && room->n_running > i) {
            const struct seq_view *victim = &view->running[--room->n_running];
            plan->preempts[plan->n_preempts++] = victim->slot;
            room->free_blocks += victim->blocks_if_preempted;
        }
        if (room->n_running > i) {
            add_item(plan, room, s, n, kv_tokens, need);
        }
    }
}

/* Rules 2 to 4. */
static void plan_waiting(const struct state *st, const struct view *view, struct room *room,
                         struct plan *plan)
{
    uint32_t max_seqs = view->limits.max_seqs;
    if (st->max_seqs > 0) {
        max_seqs = min_u32(max_seqs, st->max_seqs);
    }
    uint32_t reserve = (uint32_t)ceil(st->watermark * view->total_blocks);
    for (uint32_t i = 0; i < view->n_waiting && room->budget > 0; i++) {
        const struct seq_view *s = &view->waiting[i];
        uint32_t n = chunk_of(st, s, room);
        uint32_t kv_tokens = room->reserve_full ? s->known_tokens : n;
        uint32_t need = view_blocks_for(view, kv_tokens);
        uint64_t kept = room->n_running > 0 ? reserve : 0;
        if (room->n_running >= max_seqs || need + kept > room->free_blocks) {
            return;
        }
        add_item(plan, room, s, n, kv_tokens, need);
        room->n_running++;
    }
}

static bool any_prefill(const struct view *view)
{
    for (uint32_t i = 0; i < view->n_running; i++) {
        if (missing_tokens(&view->running[i]) > 0 && !is_decode(&view->running[i])) {
            return true;
        }
    }
    return false;
}

static void continuous_plan(const void *state, const struct view *view, uint64_t now_ns,
                            struct plan *plan)
{
    const struct state *st = state;
    (void)now_ns;
    struct room room = {
        .free_blocks = view->free_blocks,
        .budget = st->token_budget > 0 ? st->token_budget : view->limits.token_budget,
        .n_running = view->n_running,
        .reserve_full = st->reserve_full || !view->limits.can_mix,
    };
    if (view->limits.can_mix) {
        plan_running(st, view, &room, plan);
        if (plan->n_preempts == 0) {
            plan_waiting(st, view, &room, plan);
        }
        return;
    }
    room.prefill_only = true;
    if (any_prefill(view)) {
        plan_running(st, view, &room, plan);
    }
    if (plan->n_preempts == 0) {
        plan_waiting(st, view, &room, plan);
    }
    if (plan->n_items == 0 && plan->n_preempts == 0) {
        room.prefill_only = false;
        room.decode_only = true;
        plan_running(st, view, &room, plan);
    }
}

const struct policy_class policy_continuous = {
    .name = "continuous",
    .summary = "iteration-level batching on a paged KV cache: chunked prefill beside decode, FCFS, "
               "preemption by recomputation",
    .params = params_table,
    .n_params = N_PARAMS,
    .state_bytes = sizeof(struct state),
    .init = continuous_init,
    .event = continuous_event,
    .plan = continuous_plan,
};
