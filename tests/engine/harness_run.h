/* harness_run.h - the watching policy, and scenario_run(). See harness.h. */
#ifndef LLMSCHED_TESTS_ENGINE_HARNESS_RUN_H
#define LLMSCHED_TESTS_ENGINE_HARNESS_RUN_H

#include "engine/harness.h"

/* ---- policy: general invariants on every plan ---- */

static uint64_t hash_plan(uint64_t h, uint64_t now_ns, const struct plan *p)
{
    h = hash_u64(h, now_ns);
    h = hash_u64(h, p->wake_at_ns);
    h = hash_u64(h, (uint64_t)p->n_items << 32 | p->n_preempts);
    h = hash_u64(h, (uint64_t)p->n_rejects << 32 | p->n_releases);
    for (uint32_t i = 0; i < p->n_items; i++) {
        const struct plan_item *item = &p->items[i];
        h = hash_u64(h, (uint64_t)item->slot << 32 | item->n_tokens);
        h = hash_u64(h, (uint64_t)item->pad_tokens << 32 | item->kv_tokens);
        h = hash_u64(h, item->hold);
    }
    for (uint32_t i = 0; i < p->n_preempts; i++) {
        h = hash_u64(h, p->preempts[i]);
    }
    for (uint32_t i = 0; i < p->n_rejects; i++) {
        h = hash_u64(h, (uint64_t)p->rejects[i].slot << 32 | p->rejects[i].reason);
    }
    for (uint32_t i = 0; i < p->n_releases; i++) {
        h = hash_u64(h, p->releases[i]);
    }
    return h;
}

static const struct seq_view *find_slot(const struct seq_view *list, uint32_t n, uint32_t slot)
{
    for (uint32_t i = 0; i < n; i++) {
        if (list[i].slot == slot) {
            return &list[i];
        }
    }
    return NULL;
}

static void check_view(const struct watch *w, const struct view *v, uint64_t now_ns)
{
    uint32_t held = 0;
    uint32_t finished = 0;
    for (uint32_t i = 0; i < v->n_running; i++) {
        held += v->running[i].blocks_held;
        finished += v->running[i].finished;
        REQUIRE(v->running[i].finished ||
                    v->running[i].known_tokens > v->running[i].computed_tokens,
                "7: a live sequence with nothing to compute");
    }
    for (uint32_t i = 0; i < v->n_waiting; i++) {
        const struct seq_view *s = &v->waiting[i];
        REQUIRE(s->blocks_held == 0 && s->computed_tokens == 0, "2: a waiting request holds KV");
        REQUIRE(view_blocks_for(v, (uint64_t)s->prompt_tokens + s->max_new_tokens) <=
                    v->total_blocks,
                "9: an infeasible request was queued");
        bool fresh = s->preempt_count == 0;
        REQUIRE(i == 0 || fresh || v->waiting[i - 1].preempt_count > 0,
                "10: a preempted request behind a new one");
        REQUIRE(i == 0 || !fresh || v->waiting[i - 1].preempt_count > 0 ||
                    v->waiting[i - 1].arrival_ns <= s->arrival_ns,
                "10: the queue is not in order of arrival");
        REQUIRE(i == 0 || !w->claims->fcfs || v->waiting[i - 1].id < s->id,
                "10: FCFS: %llu waits before %llu", (unsigned long long)v->waiting[i - 1].id,
                (unsigned long long)s->id);
    }
    REQUIRE(held + v->free_blocks == v->total_blocks, "2: %u held + %u free != %u", held,
            v->free_blocks, v->total_blocks);
    REQUIRE(w->n_live == v->n_waiting + v->n_running, "1: %u accepted, %u waiting, %u running",
            w->n_live, v->n_waiting, v->n_running);
    if (w->any_policy_event) {
        REQUIRE(w->last_counts.n_waiting == v->n_waiting &&
                    w->last_counts.n_running == v->n_running &&
                    w->last_counts.n_finished == finished &&
                    w->last_counts.mem_used_frac == v->mem_used_frac,
                "the last event's counts are not the view's");
    }
    REQUIRE(!w->last_plan_empty || now_ns <= w->last_wake_ns, "7: wake_at was slept through");
    REQUIRE(v->n_running > 0 || v->idle_since_ns == w->idle_since_ns, "idle since %llu, want %llu",
            (unsigned long long)v->idle_since_ns, (unsigned long long)w->idle_since_ns);
}

/* Counts blocks and places of the plan on a copy, as the engine will. */
static void check_plan_fits(const struct watch *w, const struct view *v, const struct plan *p)
{
    int64_t free_blocks = v->free_blocks;
    uint32_t n_running = v->n_running - p->n_preempts - p->n_releases;
    uint64_t rows = 0;
    uint32_t n_prefill = 0;
    uint32_t n_decode = 0;
    for (uint32_t i = 0; i < p->n_releases + p->n_preempts; i++) {
        bool release = i < p->n_releases;
        uint32_t slot = release ? p->releases[i] : p->preempts[i - p->n_releases];
        const struct seq_view *s = find_slot(v->running, v->n_running, slot);
        REQUIRE(s != NULL && s->finished == release, "release or preempt of slot %u", slot);
        free_blocks += s->blocks_if_preempted;
    }
    for (uint32_t i = 0; i < p->n_items; i++) {
        const struct plan_item *item = &p->items[i];
        const struct seq_view *s = find_slot(v->running, v->n_running, item->slot);
        if (s == NULL) {
            s = find_slot(v->waiting, v->n_waiting, item->slot);
            n_running++;
        }
        REQUIRE(s != NULL, "an item for slot %u, which is nobody's", item->slot);
        REQUIRE(item->n_tokens <= s->known_tokens - s->computed_tokens, "4: more than is missing");
        REQUIRE(item->n_tokens + item->pad_tokens >= 1, "4: an empty item");
        uint32_t need = view_blocks_for(v, item->kv_tokens);
        free_blocks -= need > s->blocks_held ? need - s->blocks_held : 0;
        rows += item->n_tokens;
        bool decode = s->computed_tokens > 0 && s->known_tokens - s->computed_tokens == 1;
        n_decode += decode && item->n_tokens > 0;
        n_prefill += !decode && item->n_tokens > 0;
    }
    REQUIRE(free_blocks >= 0, "5: the plan is short of %lld blocks", (long long)-free_blocks);
    REQUIRE(n_running <= v->limits.max_seqs, "4: %u running of %u", n_running, v->limits.max_seqs);
    REQUIRE(v->limits.can_mix || n_prefill == 0 || n_decode == 0, "4: mixed a step");
    if (w->claims->keeps_budget) {
        double own = param_or(w->sc, "token_budget", 0);
        uint32_t budget = own > 0.0 ? (uint32_t)own : v->limits.token_budget;
        REQUIRE(rows <= budget, "4: %llu rows of %u", (unsigned long long)rows, budget);
    }
}

static void check_plan_order(const struct watch *w, const struct view *v, const struct plan *p)
{
    uint32_t n_admitted = 0;
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (find_slot(v->running, v->n_running, p->items[i].slot) != NULL) {
            continue;
        }
        REQUIRE(!w->claims->fcfs || v->waiting[n_admitted].slot == p->items[i].slot,
                "10: admission %u is not the head of the queue", n_admitted);
        n_admitted++;
    }
    if (w->claims->preempts_tail) {
        REQUIRE(p->n_preempts == 0 || n_admitted == 0, "8: admitted beside a preemption");
        for (uint32_t i = 0; i < p->n_preempts; i++) {
            REQUIRE(v->running[v->n_running - 1 - i].slot == p->preempts[i],
                    "10: the victim is not the last of the running set");
        }
    }
    if (w->claims->head_advances && v->limits.can_mix && v->n_running > 0) {
        REQUIRE(p->n_items > 0 && p->items[0].slot == v->running[0].slot,
                "8: the first of the running set did not advance");
    }
}

/* ---- policy: the rules of static batching, recomputed from the views alone ---- */

static uint32_t brute_force_batch(const struct watch *w, const struct view *v, uint32_t target)
{
    bool pad = param_or(w->sc, "pad", 1) != 0.0;
    uint32_t best = 0;
    for (uint32_t n = 1; n <= v->n_waiting && n <= target; n++) {
        uint32_t width = 0;
        uint64_t blocks = 0;
        for (uint32_t i = 0; i < n; i++) {
            width = v->waiting[i].prompt_tokens > width ? v->waiting[i].prompt_tokens : width;
        }
        for (uint32_t i = 0; i < n; i++) {
            uint32_t prompt = pad ? width : v->waiting[i].prompt_tokens;
            blocks += view_blocks_for(v, (uint64_t)prompt + v->waiting[i].max_new_tokens);
        }
        best = blocks <= v->free_blocks ? n : best;
    }
    return best;
}

static void model_adapt(struct watch *w)
{
    double min = param_or(w->sc, "min_batch_size", 0);
    double max = param_or(w->sc, "max_batch_size", 0);
    if (max == 0.0) {
        return; /* a fixed size */
    }
    double size = w->static_size;
    if (w->batch_peak >= param_or(w->sc, "memory_threshold", 1)) {
        size = fmax(size - 1, min);
    } else if (w->batch_backlog || param_or(w->sc, "grow", 0) == 1.0) {
        size = fmin(size + 2, max);
    }
    w->static_size = (uint32_t)size;
}

static void check_fired(struct watch *w, const struct view *v, const struct plan *p,
                        uint32_t target)
{
    bool pad = param_or(w->sc, "pad", 1) != 0.0;
    uint32_t width = 0;
    uint32_t blocks = 0;
    REQUIRE(p->n_items == brute_force_batch(w, v, target), "10: a batch of %u, brute force says %u",
            p->n_items, brute_force_batch(w, v, target));
    for (uint32_t i = 0; i < p->n_items; i++) {
        width = v->waiting[i].prompt_tokens > width ? v->waiting[i].prompt_tokens : width;
    }
    for (uint32_t i = 0; i < p->n_items; i++) {
        const struct seq_view *s = &v->waiting[i];
        const struct plan_item *item = &p->items[i];
        uint32_t prompt = pad ? width : s->prompt_tokens;
        REQUIRE(item->hold && item->n_tokens == s->prompt_tokens &&
                    item->n_tokens + item->pad_tokens == prompt &&
                    item->kv_tokens == prompt + s->max_new_tokens,
                "member %u is not padded and reserved as a whole", i);
        blocks += view_blocks_for(v, item->kv_tokens);
    }
    w->batch_open = true;
    w->batch_backlog = p->n_items == w->static_size && v->n_waiting > p->n_items;
    w->batch_peak = (double)blocks / v->total_blocks;
}

static void check_static(struct watch *w, const struct view *v, uint64_t now_ns,
                         const struct plan *p)
{
    if (v->n_running > 0) {
        uint32_t n_finished = 0;
        for (uint32_t i = 0; i < v->n_running; i++) {
            n_finished += v->running[i].finished;
        }
        for (uint32_t i = 0; i < p->n_items; i++) {
            REQUIRE(find_slot(v->running, v->n_running, p->items[i].slot) != NULL,
                    "10: a request joined a running batch");
        }
        bool pad = param_or(w->sc, "pad", 1) != 0.0;
        bool all = n_finished == v->n_running;
        uint32_t rows = all ? 0 : pad ? v->n_running : v->n_running - n_finished;
        REQUIRE(p->n_items == rows, "%u items, want %u", p->n_items, rows);
        REQUIRE(p->n_releases == (all ? v->n_running : 0), "%u releases", p->n_releases);
        return;
    }
    if (w->batch_open) {
        w->batch_open = false;
        model_adapt(w);
    }
    if (v->n_waiting == 0) {
        REQUIRE(plan_is_empty(p), "a plan for nobody");
        return;
    }
    uint32_t target = w->static_size < v->limits.max_seqs ? w->static_size : v->limits.max_seqs;
    uint64_t arrival = v->waiting[0].arrival_ns;
    uint64_t from = arrival > v->idle_since_ns ? arrival : v->idle_since_ns;
    uint64_t fire_ns = from + monotime_from_seconds(param_or(w->sc, "timeout", 0));
    double max_wait = param_or(w->sc, "max_time_wait", -1);
    if (max_wait >= 0.0) {
        uint64_t by_wait = arrival + monotime_from_seconds(max_wait);
        REQUIRE(now_ns < by_wait || p->n_items > 0, "10: max_time_wait passed on an idle engine");
        fire_ns = by_wait < fire_ns ? by_wait : fire_ns;
    }
    bool must_fire = v->n_waiting >= target || now_ns >= fire_ns;
    REQUIRE((p->n_items > 0) == must_fire, "timing: fired %d, must %d", p->n_items > 0, must_fire);
    if (must_fire) {
        check_fired(w, v, p, target);
    } else {
        REQUIRE(p->wake_at_ns == fire_ns, "7: wakes at %llu, want %llu",
                (unsigned long long)p->wake_at_ns, (unsigned long long)fire_ns);
    }
}

/* ---- policy: the wrapper ---- */

static void watch_init(void *state, const struct policy_params *params)
{
    watched->sc->policy->init(state, params);
}

static void watch_event(void *state, uint64_t now_ns, const struct policy_event *ev)
{
    watched->last_counts = *ev;
    watched->committed = ev->kind == POLICY_COMMIT ? *ev : watched->committed;
    watched->any_policy_event = true;
    watched->sc->policy->event(state, now_ns, ev);
}

static void watch_plan(const void *state, const struct view *view, uint64_t now_ns,
                       struct plan *plan)
{
    static struct plan again;
    struct watch *w = watched;
    const struct policy_class *class = w->sc->policy;
    check_view(w, view, now_ns);
    plan_clear(&again);
    again.id = plan->id;
    class->plan(state, view, now_ns, &again);
    class->plan(state, view, now_ns, plan);
    uint64_t h = hash_plan(HASH_START, now_ns, plan);
    REQUIRE(h == hash_plan(HASH_START, now_ns, &again), "11: plan is not repeatable");
    w->out->trace_hash = hash_u64(w->out->trace_hash, h);
    w->out->n_plans++;
    w->last_plan_empty = plan_is_empty(plan);
    w->last_wake_ns = plan->wake_at_ns;
    if (w->last_plan_empty && view->n_waiting + view->n_running > 0) {
        REQUIRE(plan->wake_at_ns > now_ns && plan->wake_at_ns != TIME_NEVER,
                "7: deadlock: %u wait, %u run, no plan and no wake-up", view->n_waiting,
                view->n_running);
    }
    check_plan_fits(w, view, plan);
    check_plan_order(w, view, plan);
    if (w->claims->static_batch) {
        check_static(w, view, now_ns, plan);
    }
}

/* ---- one run ---- */

static const struct claims *claims_of(const char *policy)
{
    static const struct claims none = {0};
    for (size_t i = 0; i < sizeof claims_table / sizeof claims_table[0]; i++) {
        if (strcmp(claims_table[i].policy, policy) == 0) {
            return &claims_table[i];
        }
    }
    return &none;
}

/* The head of the running set, or of a batch, makes a token of progress in every step; without
 * mixing a decode step may cost one round of prefills again. */
static uint64_t step_bound(const struct scenario *sc)
{
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < sc->n_requests; i++) {
        tokens += sc->requests[i].prompt_tokens + sc->requests[i].max_new_tokens;
    }
    bool tight = claims_of(sc->policy->name)->head_advances && sc->exec.info.can_mix;
    return tight || claims_of(sc->policy->name)->static_batch ? tokens : tokens * (tokens + 1);
}

static void check_end(struct watch *w)
{
    bool quiet = w->out->status == STATUS_OK && harness_drain == 0;
    uint64_t rows = 0;
    bool all_finished = true;
    bool given_up = w->out->status != STATUS_OK && w->out->status != STATUS_INTERRUPTED;
    REQUIRE(given_up == (w->worst_streak >= ENGINE_MAX_FAILED_STEPS),
            "status %d after %u failures in a row", (int)w->out->status, w->worst_streak);
    REQUIRE(w->n_live == 0, "1: %u requests without an answer", w->n_live);
    REQUIRE(!quiet || w->n_issued == w->sc->n_requests, "%u requests were never taken",
            w->sc->n_requests - w->n_issued);
    for (uint32_t i = 0; i < w->n_issued; i++) {
        const struct fate *f = &w->out->fates[i];
        REQUIRE(f->n_arrive == 1 && f->n_terminal == 1 && f->n_done == 1,
                "1: request %u: %u arrivals, %u ends, %u done", i, f->n_arrive, f->n_terminal,
                f->n_done);
        const struct request *r = &w->requests[i];
        uint64_t tokens = (uint64_t)r->prompt_tokens + r->max_new_tokens;
        const struct exec_info *info = &w->sc->exec.info;
        bool fits = tokens <= info->max_model_len &&
                    tokens <= (uint64_t)info->total_blocks * info->block_tokens;
        REQUIRE(fits || f->terminal == EVENT_REJECT, "9: request %u cannot fit, kind %d", i,
                (int)f->terminal);
        if (f->terminal != EVENT_REJECT) { /* the last token is never computed again */
            rows += r->prompt_tokens + f->n_tokens - 1;
            all_finished = all_finished && f->terminal == EVENT_FINISH;
        }
    }
    if (all_finished) {
        REQUIRE(w->out->useful_rows == rows, "%llu useful rows, want %llu",
                (unsigned long long)w->out->useful_rows, (unsigned long long)rows);
        REQUIRE(w->out->recomputed_rows == w->lost_tokens, "%llu rows recomputed, %llu lost",
                (unsigned long long)w->out->recomputed_rows, (unsigned long long)w->lost_tokens);
    }
    uint64_t accounted = w->out->step_ns + w->out->fill_ns + w->out->idle_ns;
    REQUIRE(accounted == w->clock.now_ns, "steps and gaps cover %llu of %llu ns",
            (unsigned long long)accounted, (unsigned long long)w->clock.now_ns);
}

/* Runs the scenario; aborts when an invariant breaks. out is large: static or heap. */
static void scenario_run(const struct scenario *sc, struct outcome *out)
{
    static struct watch w;
    memset(&w, 0, sizeof w);
    memset(out, 0, sizeof *out);
    out->trace_hash = HASH_START;
    watched = &w;
    harness_scenario = sc;
    harness_stop = 0;
    harness_drain = 0;
    signal(SIGABRT, name_the_seed);
    w.sc = sc;
    w.out = out;
    w.claims = claims_of(sc->policy->name);
    w.faults = rng_stream(sc->seed, 77);
    w.max_steps = step_bound(sc);
    w.static_size = (uint32_t)param_or(sc, "batch_size", 0);
    memcpy(w.requests, sc->requests, sizeof w.requests);
    exec_sim_init(&w.sim, &sc->exec);
    w.executor = (struct executor){
        .info = sc->exec.info, .submit = watch_submit, .poll = watch_poll, .self = &w};
    w.kv = mem_alloc((size_t)sc->exec.info.total_blocks * sc->exec.info.block_tokens, sizeof *w.kv);
    REQUIRE(w.kv != NULL, "memory");

    struct policy_class class = *sc->policy;
    class.init = watch_init;
    class.event = watch_event;
    class.plan = watch_plan;
    struct clock clock = clock_virtual_clock(&w.clock);
    struct event_sink sink = {.event = sink_event, .step = sink_step, .gap = sink_gap, .self = &w};
    struct engine_config config = {.policy = &class,
                                   .params = sc->params,
                                   .executor = &w.executor,
                                   .clock = &clock,
                                   .sinks = &sink,
                                   .n_sinks = 1,
                                   .max_seqs = sc->max_seqs,
                                   .max_queue = sc->max_queue,
                                   .drain = &harness_drain,
                                   .guard_allocations = true};
    struct source source = {.next = source_next,
                            .on_done = source_on_done,
                            .next_cancel = source_next_cancel,
                            .self = &w};
    struct engine *engine = NULL;
    out->err = (struct error)ERROR_INIT;
    out->status = engine_create(&config, &engine, &out->err);
    REQUIRE(out->status == STATUS_OK, "%s", out->err.message);
    out->status = engine_run(engine, &source, &harness_stop, &out->err);
    out->end_ns = w.clock.now_ns;
    engine_destroy(engine);
    check_end(&w);
    mem_free(w.kv);
}

#endif
