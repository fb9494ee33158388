/*
 * step.c - one turn of the engine: plan, commit, execute, apply.
 *
 * A plan is committed in one piece: it was counted on a view that nobody changed since, so that
 * whatever does not fit here is a bug of the policy and asserted. Nothing is allocated between
 * plan and apply.
 */
#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/monotime.h"
#include "engine/engine_int.h"

/* Results of other plans (late, doubled) that are skipped before the step counts as failed. */
#define MAX_STRAY_RESULTS 16

static void guard_begin(const struct engine *e)
{
    if (e->config.guard_allocations) {
        mem_step_begin();
    }
}

static void guard_end(const struct engine *e)
{
    if (e->config.guard_allocations) {
        mem_step_end();
    }
}

static void ask_policy(struct engine *e, uint64_t now_ns)
{
    struct view view = {
        .waiting = queue_items(&e->waiting),
        .running = e->running,
        .n_waiting = e->waiting.n,
        .n_running = e->n_running,
        .block_tokens = e->limits.block_tokens,
        .total_blocks = e->blocks.total,
        .free_blocks = e->blocks.n_free,
        .mem_used_frac = (double)(e->blocks.total - e->blocks.n_free) / e->blocks.total,
        .idle_since_ns = e->idle_since_ns,
        .limits = {.max_seqs = e->limits.max_seqs,
                   .token_budget = e->limits.token_budget,
                   .max_model_len = e->limits.max_model_len,
                   .can_mix = e->config.executor->info.can_mix},
    };
    plan_clear(&e->plan);
    e->plan.id = e->last_plan_id + 1;
    e->config.policy->plan(e->policy_state, &view, now_ns, &e->plan);
    assert(e->plan.n_items <= PLAN_MAX_SEQS && e->plan.n_preempts <= PLAN_MAX_SEQS);
    assert(e->plan.n_rejects <= PLAN_MAX_SEQS && e->plan.n_releases <= PLAN_MAX_SEQS);
}

static struct slot *planned_slot(struct engine *e, uint32_t slot, enum slot_state state)
{
    assert(slot < e->n_slots && e->slots[slot].state == state);
    return &e->slots[slot];
}

static void deliver(struct engine *e, struct slot *s, uint32_t n_output, uint64_t now_ns)
{
    if (n_output == s->delivered) {
        return;
    }
    const struct request *r = s->request;
    engine_emit(e, &(struct event){.time_ns = now_ns,
                                   .request_id = r->id,
                                   .kind = EVENT_DELIVER,
                                   .n = n_output - s->delivered,
                                   .tokens = s->tokens + r->prompt_tokens + s->delivered});
    s->delivered = n_output;
}

static void commit_releases(struct engine *e, uint64_t now_ns)
{
    for (uint32_t i = 0; i < e->plan.n_releases; i++) {
        uint32_t slot = e->plan.releases[i];
        struct slot *s = planned_slot(e, slot, SLOT_RUNNING);
        const struct seq_view *view = &e->running[s->running_idx];
        assert(view->finished);
        deliver(e, s, view->known_tokens - view->prompt_tokens, now_ns);
        engine_end_request(e, slot, EVENT_FINISH, s->finish, now_ns);
    }
}

static void commit_preempts(struct engine *e, uint64_t now_ns)
{
    for (uint32_t i = 0; i < e->plan.n_preempts; i++) {
        uint32_t slot = e->plan.preempts[i];
        struct slot *s = planned_slot(e, slot, SLOT_RUNNING);
        struct seq_view view = e->running[s->running_idx];
        assert(!view.finished);
        blocks_give(&e->blocks, slot, engine_table(e, s), view.blocks_held);
        e->free_tables[e->n_free_tables++] = s->table;
        engine_emit(e, &(struct event){.time_ns = now_ns,
                                       .request_id = view.id,
                                       .kind = EVENT_PREEMPT,
                                       .n = view.computed_tokens});
        view.computed_tokens = 0;
        view.blocks_held = 0;
        view.blocks_if_preempted = 0;
        view.preempt_count++;
        s->state = SLOT_WAITING;
        queue_push_front(&e->waiting, &view);
    }
}

static void admit(struct engine *e, uint32_t slot, bool hold)
{
    struct slot *s = &e->slots[slot];
    assert(e->n_running < e->limits.max_seqs && e->n_free_tables > 0);
    e->running[e->n_running] = *queue_at(&e->waiting, slot);
    queue_remove(&e->waiting, slot);
    s->state = SLOT_RUNNING;
    s->running_idx = e->n_running++;
    s->table = e->free_tables[--e->n_free_tables];
    s->hold = hold;
}

static void reserve(struct engine *e, const struct slot *s, struct seq_view *view,
                    uint32_t kv_tokens)
{
    uint64_t need = ((uint64_t)kv_tokens + e->limits.block_tokens - 1) / e->limits.block_tokens;
    assert(need <= e->table_blocks);
    uint32_t *table = engine_table(e, s);
    while (view->blocks_held < need) {
        table[view->blocks_held++] = blocks_take(&e->blocks, view->slot);
    }
    view->blocks_if_preempted = view->blocks_held;
}

static void count_rows(struct step_record *record, const struct slot *s,
                       const struct plan_item *item, uint32_t computed)
{
    uint32_t again = s->high_water > computed ? s->high_water - computed : 0;
    again = again < item->n_tokens ? again : item->n_tokens;
    record->recomputed_rows += again;
    record->useful_rows += item->n_tokens - again;
    record->pad_rows += item->pad_tokens;
    record->live_sequences += item->n_tokens > 0;
}

/* Returns how many were admitted. */
static uint32_t commit_items(struct engine *e)
{
    uint32_t n_admitted = 0;
    for (uint32_t i = 0; i < e->plan.n_items; i++) {
        const struct plan_item *item = &e->plan.items[i];
        assert(item->slot < e->n_slots);
        struct slot *s = &e->slots[item->slot];
        if (s->state == SLOT_WAITING) {
            admit(e, item->slot, item->hold);
            n_admitted++;
        }
        assert(s->state == SLOT_RUNNING && s->plan_id != e->plan.id);
        struct seq_view *view = &e->running[s->running_idx];
        assert((uint64_t)item->n_tokens + item->pad_tokens >= 1);
        assert(item->n_tokens <= view->known_tokens - view->computed_tokens);
        assert(!view->finished || item->n_tokens == 0);
        assert(item->kv_tokens >= view->computed_tokens + item->n_tokens);
        reserve(e, s, view, item->kv_tokens);
        count_rows(&e->record, s, item, view->computed_tokens);
        s->plan_id = e->plan.id;
        e->item_slots[i] = item->slot;
        e->items[i] = (struct exec_item){
            .seq = {.request = s->request,
                    .tokens = s->tokens,
                    .known_tokens = view->known_tokens,
                    .computed_tokens = view->computed_tokens,
                    .blocks = engine_table(e, s),
                    .n_blocks = view->blocks_held},
            .n_tokens = item->n_tokens,
            .pad_tokens = item->pad_tokens,
        };
    }
    return n_admitted;
}

static void commit(struct engine *e, uint64_t now_ns)
{
    e->last_plan_id = e->plan.id;
    e->record = (struct step_record){.plan_id = e->plan.id, .sequences = e->plan.n_items};
    for (uint32_t i = 0; i < e->plan.n_rejects; i++) {
        uint32_t slot = e->plan.rejects[i].slot;
        planned_slot(e, slot, SLOT_WAITING);
        queue_remove(&e->waiting, slot);
        engine_end_request(e, slot, EVENT_REJECT, e->plan.rejects[i].reason, now_ns);
    }
    commit_releases(e, now_ns);
    commit_preempts(e, now_ns);
    if (e->plan.n_releases + e->plan.n_preempts > 0) {
        engine_compact_running(e, now_ns);
    }
    uint32_t n_admitted = commit_items(e);
    e->record.kv_blocks_used = e->blocks.total - e->blocks.n_free;
    e->record.waiting = e->waiting.n;
    engine_notify(e,
                  (struct policy_event){.kind = POLICY_COMMIT,
                                        .plan_id = e->plan.id,
                                        .n_admitted = n_admitted,
                                        .n_released = e->plan.n_releases},
                  now_ns);
}

/* First rows of a residency: SCHEDULED. */
static void announce(struct engine *e, uint64_t begin_ns)
{
    for (uint32_t i = 0; i < e->plan.n_items; i++) {
        const struct exec_item *item = &e->items[i];
        if (item->seq.computed_tokens == 0) {
            engine_emit(e, &(struct event){.time_ns = begin_ns,
                                           .request_id = item->seq.request->id,
                                           .kind = EVENT_SCHEDULED,
                                           .n = e->plan.n_items});
        }
    }
}

static enum status execute(struct engine *e, struct error *err)
{
    struct executor *x = e->config.executor;
    struct exec_step step = {.plan_id = e->plan.id, .items = e->items, .n_items = e->plan.n_items};
    e->result.duration_ns = 0;
    enum status s = x->submit(x->self, &step, err);
    for (uint32_t i = 0; s == STATUS_OK && i <= MAX_STRAY_RESULTS; i++) {
        s = x->poll(x->self, &e->result, err);
        if (s == STATUS_OK && e->result.plan_id == e->plan.id) {
            assert(e->result.n_items == e->plan.n_items);
            return STATUS_OK;
        }
    }
    return s != STATUS_OK
               ? s
               : error_set(err, STATUS_INTERNAL, -1, "the executor never answered plan %llu",
                           (unsigned long long)e->plan.id);
}

/* Ends a sequence of the step in flight with FAIL. */
static void fail_sequence(struct engine *e, uint32_t slot, uint64_t end_ns)
{
    uint64_t id = e->slots[slot].request->id;
    engine_end_request(e, slot, EVENT_FAIL, FINISH_ERROR, end_ns);
    engine_compact_running(e, end_ns);
    engine_notify(e, (struct policy_event){.kind = POLICY_CANCEL, .request_id = id}, end_ns);
}

static void apply_item(struct engine *e, uint32_t slot, const struct exec_item *item,
                       const struct exec_item_result *r, uint64_t end_ns)
{
    struct slot *s = &e->slots[slot];
    struct seq_view *view = &e->running[s->running_idx];
    s->plan_id = 0;
    if (item->n_tokens == 0) {
        return; /* pad rows only */
    }
    if (r->finish == FINISH_ERROR) {
        fail_sequence(e, slot, end_ns);
        return;
    }
    view->computed_tokens += item->n_tokens;
    s->high_water = view->computed_tokens > s->high_water ? view->computed_tokens : s->high_water;
    uint32_t n_output = view->known_tokens - view->prompt_tokens;
    bool caught_up = view->computed_tokens == view->known_tokens;
    assert(caught_up ? r->n_out > 0 || r->finish != FINISH_NONE : r->n_out == 0);
    assert(r->n_out <= EXEC_MAX_OUT && n_output + r->n_out <= view->max_new_tokens);
    if (r->n_out > 0) {
        memcpy(s->tokens + view->known_tokens, r->out, r->n_out * sizeof *s->tokens);
        view->known_tokens += r->n_out;
        n_output += r->n_out;
        engine_emit(
            e, &(struct event){
                   .time_ns = end_ns, .request_id = view->id, .kind = EVENT_TOKEN, .n = r->n_out});
    }
    assert(n_output < view->max_new_tokens || r->finish != FINISH_NONE);
    if (!s->hold) {
        deliver(e, s, n_output, end_ns);
    }
    if (r->finish != FINISH_NONE && s->hold) {
        s->finish = r->finish;
        view->finished = true;
        e->n_finished++;
    } else if (r->finish != FINISH_NONE) {
        engine_end_request(e, slot, EVENT_FINISH, r->finish, end_ns);
    }
}

/* ok: the result is there; else every sequence that had rows in the step fails. A member that has
 * finished loses nothing with a pad row. */
static void apply(struct engine *e, bool ok, uint64_t end_ns)
{
    for (uint32_t i = 0; i < e->plan.n_items; i++) {
        uint32_t slot = e->item_slots[i];
        if (e->slots[slot].plan_id != e->plan.id) {
            continue; /* cancelled during the step */
        }
        if (ok) {
            apply_item(e, slot, &e->items[i], &e->result.items[i], end_ns);
        } else if (e->items[i].n_tokens > 0) {
            fail_sequence(e, slot, end_ns);
        } else {
            e->slots[slot].plan_id = 0;
        }
    }
    engine_compact_running(e, end_ns);
    engine_notify(e, (struct policy_event){.kind = POLICY_STEP, .plan_id = e->plan.id}, end_ns);
}

static enum status run_step(struct engine *e, uint64_t now_ns, struct error *err)
{
    uint64_t begin_ns = engine_now(e);
    announce(e, begin_ns);
    enum status s = execute(e, err);
    guard_end(e);
    struct clock *clock = e->config.clock;
    if (clock->advance != NULL) {
        clock->advance(clock->self, e->result.duration_ns);
    }
    uint64_t end_ns = engine_now(e);
    engine_take_news(e, end_ns);
    guard_begin(e);
    e->record.begin_ns = begin_ns;
    e->record.end_ns = end_ns;
    e->record.plan_ns = begin_ns - now_ns;
    apply(e, s == STATUS_OK, end_ns);
    for (uint32_t i = 0; i < e->config.n_sinks; i++) {
        if (e->config.sinks[i].step != NULL) {
            e->config.sinks[i].step(e->config.sinks[i].self, &e->record);
        }
    }
    guard_end(e);
    engine_flush_ended(e);
    if (s == STATUS_OK) {
        e->n_failed_steps = 0;
        return STATUS_OK;
    }
    log_warn("a step failed: %s", err != NULL ? err->message : status_text(s));
    return ++e->n_failed_steps < ENGINE_MAX_FAILED_STEPS ? STATUS_OK : s;
}

/* Nothing to run now. Whoever waits must have an instant at which the policy acts. */
static void wait_idle(struct engine *e, uint64_t now_ns, uint64_t next_at_ns)
{
    uint64_t wake_ns = e->plan.wake_at_ns;
    if (e->waiting.n + e->n_running > 0) {
        assert(wake_ns > now_ns && wake_ns != TIME_NEVER);
    }
    wake_ns = next_at_ns < wake_ns ? next_at_ns : wake_ns;
    struct clock *clock = e->config.clock;
    clock->wait_until(clock->self, wake_ns);
    struct gap_record gap = {.begin_ns = now_ns, .end_ns = engine_now(e), .fill = e->waiting.n > 0};
    for (uint32_t i = 0; gap.end_ns > gap.begin_ns && i < e->config.n_sinks; i++) {
        if (e->config.sinks[i].gap != NULL) {
            e->config.sinks[i].gap(e->config.sinks[i].self, &gap);
        }
    }
}

enum status engine_turn(struct engine *e, uint64_t now_ns, uint64_t next_at_ns, struct error *err)
{
    guard_begin(e);
    ask_policy(e, now_ns);
    if (plan_is_empty(&e->plan)) {
        guard_end(e);
        wait_idle(e, now_ns, next_at_ns);
        return STATUS_OK;
    }
    commit(e, now_ns);
    if (e->plan.n_items > 0) {
        return run_step(e, now_ns, err);
    }
    guard_end(e);
    engine_flush_ended(e);
    return STATUS_OK;
}
