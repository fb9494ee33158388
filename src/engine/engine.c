/* engine.c - see engine.h: creation, the run, requests in and out. The step is in step.c. */
#include "engine/engine.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "engine/engine_int.h"
#include "sched/policy_params.h"

void engine_emit(struct engine *e, const struct event *ev)
{
    for (uint32_t i = 0; i < e->config.n_sinks; i++) {
        const struct event_sink *sink = &e->config.sinks[i];
        if (sink->event != NULL) {
            sink->event(sink->self, ev);
        }
    }
}

void engine_notify(struct engine *e, struct policy_event ev, uint64_t now_ns)
{
    ev.n_waiting = e->waiting.n;
    ev.n_running = e->n_running;
    ev.n_finished = e->n_finished;
    ev.mem_used_frac = (double)(e->blocks.total - e->blocks.n_free) / e->blocks.total;
    e->config.policy->event(e->policy_state, now_ns, &ev);
}

static enum status choose_limits(const struct engine_config *c, struct engine_limits *limits,
                                 struct error *err)
{
    const struct exec_info *info = &c->executor->info;
    *limits = (struct engine_limits){
        .total_blocks = c->total_blocks > 0 ? c->total_blocks : info->total_blocks,
        .block_tokens = info->block_tokens,
        .max_seqs = c->max_seqs > 0 ? c->max_seqs : ENGINE_DEFAULT_MAX_SEQS,
        .max_queue = c->max_queue > 0 ? c->max_queue : ENGINE_DEFAULT_MAX_QUEUE,
        .token_budget = c->token_budget > 0 ? c->token_budget : info->token_budget,
        .max_model_len = info->max_model_len,
    };
    assert(limits->block_tokens > 0 && limits->token_budget > 0 && limits->max_model_len > 0);
    if (limits->total_blocks == 0 || limits->total_blocks > info->total_blocks) {
        return error_set(err, STATUS_USAGE, -1,
                         "%u KV blocks asked for, the executor stores 1..%u; lower --kv-blocks",
                         limits->total_blocks, info->total_blocks);
    }
    if (limits->max_seqs > PLAN_MAX_SEQS) {
        return error_set(err, STATUS_USAGE, -1, "%u running sequences asked for, the limit is %d",
                         limits->max_seqs, PLAN_MAX_SEQS);
    }
    if (limits->max_queue > ENGINE_QUEUE_LIMIT) {
        return error_set(err, STATUS_USAGE, -1, "a queue of %u asked for, the limit is %u",
                         limits->max_queue, ENGINE_QUEUE_LIMIT);
    }
    return policy_params_check(c->policy, &c->params, err);
}

/* Blocks that one sequence can own: a padded prompt and max_new_tokens may each come near the
 * model's length. */
static uint32_t table_blocks_for(const struct engine_limits *limits)
{
    uint64_t tokens = 2 * (uint64_t)limits->max_model_len;
    uint64_t blocks = (tokens + limits->block_tokens - 1) / limits->block_tokens;
    return blocks < limits->total_blocks ? (uint32_t)blocks : limits->total_blocks;
}

static void fill_descending(uint32_t *stack, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        stack[i] = n - 1 - i;
    }
}

enum status engine_create(const struct engine_config *config, struct engine **out,
                          struct error *err)
{
    struct engine_limits limits;
    enum status s = choose_limits(config, &limits, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct engine *e = mem_alloc(1, sizeof *e);
    if (e == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the engine");
    }
    e->config = *config;
    e->limits = limits;
    e->n_slots = limits.max_queue + limits.max_seqs;
    e->table_blocks = table_blocks_for(&limits);
    size_t state_bytes = config->policy->state_bytes;
    e->policy_state = mem_alloc(1, state_bytes > 0 ? state_bytes : 1);
    e->slots = mem_alloc(e->n_slots, sizeof *e->slots);
    e->free_slots = mem_alloc(e->n_slots, sizeof *e->free_slots);
    e->tables = mem_alloc((size_t)limits.max_seqs * e->table_blocks, sizeof *e->tables);
    e->free_tables = mem_alloc(limits.max_seqs, sizeof *e->free_tables);
    if (e->policy_state == NULL || e->slots == NULL || e->free_slots == NULL || e->tables == NULL ||
        e->free_tables == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "no memory for %u request slots", e->n_slots);
        goto fail;
    }
    s = queue_init(&e->waiting, e->n_slots, err);
    if (s != STATUS_OK) {
        goto fail;
    }
    s = blocks_init(&e->blocks, limits.total_blocks, err);
    if (s != STATUS_OK) {
        goto fail;
    }
    e->n_free_slots = e->n_slots;
    fill_descending(e->free_slots, e->n_slots);
    e->n_free_tables = limits.max_seqs;
    fill_descending(e->free_tables, limits.max_seqs);
    config->policy->init(e->policy_state, &config->params);
    *out = e;
    return STATUS_OK;
fail:
    engine_destroy(e);
    return s;
}

void engine_destroy(struct engine *e)
{
    if (e == NULL) {
        return;
    }
    for (uint32_t i = 0; e->slots != NULL && i < e->n_slots; i++) {
        mem_free(e->slots[i].tokens);
    }
    blocks_deinit(&e->blocks);
    queue_deinit(&e->waiting);
    mem_free(e->free_tables);
    mem_free(e->tables);
    mem_free(e->free_slots);
    mem_free(e->slots);
    mem_free(e->policy_state);
    mem_free(e);
}

struct engine_limits engine_limits_of(const struct engine *e)
{
    return e->limits;
}

void engine_end_request(struct engine *e, uint32_t slot, enum event_kind kind, uint32_t reason,
                        uint64_t now_ns)
{
    struct slot *s = &e->slots[slot];
    assert(s->state != SLOT_FREE && e->n_ended < MAX_ENDED);
    if (s->state == SLOT_RUNNING) {
        const struct seq_view *view = &e->running[s->running_idx];
        assert(view->slot == slot);
        blocks_give(&e->blocks, slot, engine_table(e, s), view->blocks_held);
        e->free_tables[e->n_free_tables++] = s->table;
        e->n_finished -= view->finished;
    }
    engine_emit(
        e, &(struct event){
               .time_ns = now_ns, .request_id = s->request->id, .kind = kind, .reason = reason});
    e->ended[e->n_ended++] = (struct ended){.request = s->request, .time_ns = now_ns};
    s->state = SLOT_FREE;
    s->plan_id = 0;
    s->request = NULL;
    e->free_slots[e->n_free_slots++] = slot;
}

void engine_compact_running(struct engine *e, uint64_t now_ns)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < e->n_running; i++) {
        struct slot *s = &e->slots[e->running[i].slot];
        if (s->state != SLOT_RUNNING) {
            continue;
        }
        if (kept != i) {
            e->running[kept] = e->running[i];
        }
        s->running_idx = kept++;
    }
    if (e->n_running > 0 && kept == 0) {
        e->idle_since_ns = now_ns;
    }
    e->n_running = kept;
}

void engine_flush_ended(struct engine *e)
{
    for (uint32_t i = 0; i < e->n_ended; i++) {
        e->source->on_done(e->source->self, e->ended[i].request, e->ended[i].time_ns);
    }
    e->n_ended = 0;
}

/* Ends one accepted request that is not finished; outside the guard. */
static void drop_request(struct engine *e, uint32_t slot, enum event_kind kind, uint64_t now_ns)
{
    uint64_t id = e->slots[slot].request->id;
    bool waits = e->slots[slot].state == SLOT_WAITING;
    if (waits) {
        queue_remove(&e->waiting, slot);
    }
    engine_end_request(e, slot, kind, kind == EVENT_FAIL ? FINISH_ERROR : 0, now_ns);
    if (!waits) {
        engine_compact_running(e, now_ns);
    }
    engine_notify(e, (struct policy_event){.kind = POLICY_CANCEL, .request_id = id}, now_ns);
    engine_flush_ended(e);
}

static bool find_request(const struct engine *e, uint64_t id, uint32_t *slot)
{
    for (uint32_t i = 0; i < e->n_running; i++) {
        if (e->running[i].id == id) {
            *slot = e->running[i].slot;
            return true;
        }
    }
    const struct seq_view *waiting = queue_items(&e->waiting);
    for (uint32_t i = 0; i < e->waiting.n; i++) {
        if (waiting[i].id == id) {
            *slot = waiting[i].slot;
            return true;
        }
    }
    return false; /* already answered, or unknown */
}

static enum reject_reason refuse(const struct engine *e, const struct request *r)
{
    uint64_t tokens = (uint64_t)r->prompt_tokens + r->max_new_tokens;
    uint64_t capacity = (uint64_t)e->limits.total_blocks * e->limits.block_tokens;
    if (e->config.drain != NULL && *e->config.drain != 0) {
        return REJECT_SHUTDOWN;
    }
    if (tokens > e->limits.max_model_len) {
        return REJECT_TOO_LONG;
    }
    if (tokens > capacity) {
        return REJECT_NO_BLOCKS;
    }
    return e->waiting.n >= e->limits.max_queue ? REJECT_QUEUE_FULL : REJECT_NONE;
}

static bool prepare_slot(struct slot *s, const struct request *r)
{
    uint32_t capacity = r->prompt_tokens + r->max_new_tokens;
    if (s->tokens_capacity < capacity) {
        int32_t *tokens = mem_alloc(capacity, sizeof *tokens);
        if (tokens == NULL) {
            return false;
        }
        mem_free(s->tokens);
        s->tokens = tokens;
        s->tokens_capacity = capacity;
    }
    memcpy(s->tokens, r->prompt, r->prompt_tokens * sizeof *s->tokens);
    *s = (struct slot){.request = r,
                       .tokens = s->tokens,
                       .tokens_capacity = s->tokens_capacity,
                       .state = SLOT_WAITING};
    return true;
}

/* Never accepted: terminal event and on_done at once. */
static void turn_away(struct engine *e, const struct request *r, enum event_kind kind,
                      uint32_t reason, uint64_t now_ns)
{
    engine_emit(
        e, &(struct event){.time_ns = now_ns, .request_id = r->id, .kind = kind, .reason = reason});
    e->source->on_done(e->source->self, r, now_ns);
}

static void accept(struct engine *e, const struct request *r, uint64_t now_ns)
{
    assert(r->prompt_tokens >= 1 && r->max_new_tokens >= 1 && r->prompt != NULL);
    assert(r->arrival_ns <= now_ns);
    engine_emit(e, &(struct event){.time_ns = r->arrival_ns,
                                   .request_id = r->id,
                                   .kind = EVENT_ARRIVE,
                                   .n = r->prompt_tokens});
    enum reject_reason reason = refuse(e, r);
    if (reason != REJECT_NONE) {
        turn_away(e, r, EVENT_REJECT, reason, now_ns);
        return;
    }
    assert(e->n_free_slots > 0); /* waiting <= max_queue when it joins, running <= max_seqs */
    uint32_t slot = e->free_slots[e->n_free_slots - 1];
    if (!prepare_slot(&e->slots[slot], r)) {
        turn_away(e, r, EVENT_FAIL, FINISH_ERROR, now_ns);
        return;
    }
    e->n_free_slots--;
    queue_push_back(&e->waiting, &(struct seq_view){.id = r->id,
                                                    .arrival_ns = r->arrival_ns,
                                                    .deadline_ns = r->deadline_ns,
                                                    .slot = slot,
                                                    .prompt_tokens = r->prompt_tokens,
                                                    .max_new_tokens = r->max_new_tokens,
                                                    .known_tokens = r->prompt_tokens,
                                                    .tenant = r->tenant,
                                                    .priority = r->priority});
    engine_notify(e, (struct policy_event){.kind = POLICY_ARRIVE, .request_id = r->id}, now_ns);
}

uint64_t engine_take_news(struct engine *e, uint64_t now_ns)
{
    struct source *source = e->source;
    uint64_t next_at_ns = TIME_NEVER;
    const struct request *r;
    while ((r = source->next(source->self, now_ns, &next_at_ns)) != NULL) {
        accept(e, r, now_ns);
    }
    uint64_t id;
    while (source->next_cancel != NULL &&
           (id = source->next_cancel(source->self, now_ns)) != UINT64_MAX) {
        uint32_t slot;
        if (find_request(e, id, &slot)) {
            drop_request(e, slot, EVENT_CANCEL, now_ns);
            next_at_ns = now_ns; /* a closed loop may have the next request ready */
        }
    }
    return next_at_ns;
}

static void end_all(struct engine *e, enum event_kind kind)
{
    uint64_t now_ns = engine_now(e);
    while (e->n_running > 0) {
        drop_request(e, e->running[e->n_running - 1].slot, kind, now_ns);
    }
    while (e->waiting.n > 0) {
        drop_request(e, queue_items(&e->waiting)[0].slot, kind, now_ns);
    }
}

/* Nobody is left: all blocks, tables and slots must be back. */
static void check_quiet(const struct engine *e)
{
    blocks_check(&e->blocks);
    assert(e->blocks.n_free == e->blocks.total);
    assert(e->n_free_tables == e->limits.max_seqs && e->n_free_slots == e->n_slots);
    assert(e->n_finished == 0 && e->n_ended == 0);
}

enum status engine_run(struct engine *e, struct source *source, const volatile int *stop,
                       struct error *err)
{
    assert(!e->was_run);
    e->was_run = true;
    e->source = source;
    e->idle_since_ns = engine_now(e);
    enum status s = STATUS_OK;
    while (s == STATUS_OK) {
        uint64_t now_ns = engine_now(e);
        if (stop != NULL && *stop != 0) {
            end_all(e, EVENT_CANCEL);
            check_quiet(e);
            return error_set(err, STATUS_INTERRUPTED, -1, "interrupted");
        }
        uint64_t next_at_ns = engine_take_news(e, now_ns);
        bool draining = e->config.drain != NULL && *e->config.drain != 0;
        if (e->waiting.n + e->n_running == 0 && (next_at_ns == TIME_NEVER || draining)) {
            break;
        }
        s = engine_turn(e, now_ns, next_at_ns, err);
    }
    if (s != STATUS_OK) {
        end_all(e, EVENT_FAIL);
    }
    check_quiet(e);
    return s;
}
