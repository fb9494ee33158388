/*
 * harness.h - runs one scenario in virtual time and watches everything: the policy (plans against
 * views), the executor (a shadow KV cache of tagged positions), the sink (life of each request),
 * the source (on_done). A broken invariant prints the scenario's seed and aborts.
 *
 * The numbers in the messages are those of the invariants in docs/SCHEDULERS.md.
 */
#ifndef LLMSCHED_TESTS_ENGINE_HARNESS_H
#define LLMSCHED_TESTS_ENGINE_HARNESS_H

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/monotime.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "sanitized.h"
#include "sched/registry.h"
#include "sim/clock_virtual.h"
#include "sim/exec_sim.h"

#define MAX_REQUESTS 64
#define MAX_PROMPT   96
#define MAX_OUTPUT   64 /* most output tokens of a request */
#define MAX_SLOTS    4096

/* What a policy promises beyond the invariants that hold for all. A policy without a row is checked
 * for the general ones only. */
struct claims {
    const char *policy;
    bool fcfs;          /* admissions are the head of the queue */
    bool static_batch;  /* the timing, size and reservation rules of static batching */
    bool keeps_budget;  /* rows in a step <= token budget */
    bool head_advances; /* the first of the running set always gets an item (executor can mix) */
    bool preempts_tail; /* victims are the end of the running set; no admission beside them */
};

static const struct claims claims_table[] = {
    {.policy = "naive", .fcfs = true, .static_batch = true},
    {.policy = "dynamic", .fcfs = true, .static_batch = true},
    {.policy = "continuous",
     .fcfs = true,
     .keeps_budget = true,
     .head_advances = true,
     .preempts_tail = true},
};

struct scenario {
    uint64_t seed; /* of the faults; printed on failure */
    const struct policy_class *policy;
    struct policy_params params;
    struct exec_sim_config exec;
    uint32_t max_seqs;
    uint32_t max_queue;
    uint32_t n_requests;
    struct request requests[MAX_REQUESTS];
    uint64_t due_ns[MAX_REQUESTS];    /* open loop, ascending */
    uint64_t cancel_ns[MAX_REQUESTS]; /* TIME_NEVER: never */
    uint32_t closed_loop;             /* in flight at most; 0: open loop */
    double p_submit_error;
    double p_poll_error;
    double p_item_error;
    double p_stray; /* a result of an older plan comes first */
    double p_slow;  /* a step takes 100 times as long */
    uint64_t stop_after_events;
    uint64_t drain_after_events;
};

struct fate {
    uint32_t n_terminal;
    enum event_kind terminal;
    uint32_t reason;
    uint32_t n_arrive;
    uint32_t n_done;
    uint32_t n_tokens;
    uint32_t n_delivered;
    uint32_t n_preempt;
    uint32_t residency; /* SCHEDULED events */
    bool resident;
    uint64_t arrival_ns;
    uint64_t scheduled_ns;
    uint64_t first_deliver_ns;
    uint64_t last_token_ns;
    uint64_t end_ns;
    int32_t tokens[MAX_OUTPUT];
};

struct outcome {
    enum status status;
    struct error err;
    uint64_t trace_hash;
    uint64_t n_plans;
    uint64_t n_steps;
    uint64_t end_ns;
    uint64_t fill_ns;
    uint64_t idle_ns;
    uint64_t step_ns;
    uint64_t useful_rows;
    uint64_t pad_rows;
    uint64_t recomputed_rows;
    uint32_t peak_blocks;
    uint32_t largest_batch;
    struct fate fates[MAX_REQUESTS];
};

struct watch {
    const struct scenario *sc;
    const struct claims *claims;
    struct outcome *out;
    struct request requests[MAX_REQUESTS];
    struct exec_sim sim;
    struct executor executor;
    struct clock_virtual clock;
    struct rng faults;
    /* source */
    uint32_t n_issued;
    uint32_t n_in_flight;
    bool cancel_given[MAX_REQUESTS];
    /* sink */
    uint64_t n_events;
    uint64_t last_event_ns;
    uint32_t n_live;
    uint32_t n_resident;
    uint64_t idle_since_ns;
    uint64_t lost_tokens; /* by preemption */
    /* policy */
    struct policy_event last_counts;
    struct policy_event committed;
    bool any_policy_event;
    bool last_plan_empty;
    uint64_t last_wake_ns;
    uint64_t max_steps;
    uint32_t static_size; /* model of the batch size */
    bool batch_open;
    bool batch_backlog;
    double batch_peak;
    /* executor */
    uint64_t *kv; /* tag of each position's place: request, residency, position */
    uint64_t step_plan_id;
    bool stray_due;
    bool poll_fails;
    uint32_t planned_rows;
    uint32_t fail_streak; /* steps that failed in a row, now and at most */
    uint32_t worst_streak;
};

/* One scenario at a time: a policy_class has no place for a context. */
static struct watch *watched;
static volatile int harness_stop;
static volatile int harness_drain;
static const struct scenario *harness_scenario;

#define HASH_START 0xCBF29CE484222325ULL

static inline uint64_t hash_u64(uint64_t h, uint64_t x)
{
    return (h ^ x) * 0x9E3779B97F4A7C15ULL ^ (h >> 29);
}

#define REQUIRE(condition, ...)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: broken: %s: ", __FILE__, __LINE__, #condition);                \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Also for the engine's own asserts. */
static void name_the_seed(int signal_number)
{
    char text[160];
    /* NOLINTNEXTLINE(bugprone-signal-handler): the process is about to abort anyway */
    int n = snprintf(text, sizeof text,
                     "policy %s, seed %llu: replay with LLMSCHED_SEED=%llu LLMSCHED_POLICY=%s "
                     "test_properties\n",
                     harness_scenario != NULL ? harness_scenario->policy->name : "?",
                     (unsigned long long)(harness_scenario != NULL ? harness_scenario->seed : 0),
                     (unsigned long long)(harness_scenario != NULL ? harness_scenario->seed : 0),
                     harness_scenario != NULL ? harness_scenario->policy->name : "?");
    ssize_t written = write(STDERR_FILENO, text, n > 0 ? (size_t)n : 0);
    (void)written;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static inline double param_or(const struct scenario *sc, const char *name, double otherwise)
{
    for (uint32_t i = 0; i < sc->policy->n_params; i++) {
        if (strcmp(sc->policy->params[i].name, name) == 0) {
            return sc->params.values[i];
        }
    }
    return otherwise;
}

/* ---- source ---- */

static const struct request *source_next(void *self, uint64_t now_ns, uint64_t *next_at_ns)
{
    struct watch *w = self;
    const struct scenario *sc = w->sc;
    *next_at_ns = TIME_NEVER;
    if (w->n_issued == sc->n_requests) {
        return NULL;
    }
    struct request *r = &w->requests[w->n_issued];
    if (sc->closed_loop > 0) {
        if (w->n_in_flight >= sc->closed_loop) {
            return NULL;
        }
        r->arrival_ns = now_ns;
    } else {
        if (sc->due_ns[w->n_issued] > now_ns) {
            *next_at_ns = sc->due_ns[w->n_issued];
            return NULL;
        }
        r->arrival_ns = sc->due_ns[w->n_issued];
    }
    w->n_issued++;
    w->n_in_flight++;
    return r;
}

static void source_on_done(void *self, const struct request *r, uint64_t now_ns)
{
    struct watch *w = self;
    struct fate *f = &w->out->fates[r->id];
    REQUIRE(!mem_in_step(), "on_done inside the guard");
    REQUIRE(f->n_terminal == 1 && f->n_done == 0, "1: request %llu: %u terminal, %u done",
            (unsigned long long)r->id, f->n_terminal, f->n_done);
    REQUIRE(f->end_ns == now_ns, "on_done at another instant than the terminal event");
    f->n_done++;
    w->n_in_flight--;
}

static uint64_t source_next_cancel(void *self, uint64_t now_ns)
{
    struct watch *w = self;
    for (uint32_t i = 0; i < w->n_issued; i++) {
        if (w->sc->cancel_ns[i] <= now_ns && !w->cancel_given[i]) {
            w->cancel_given[i] = true;
            return i;
        }
    }
    return UINT64_MAX;
}

/* ---- sink ---- */

static void check_terminal(struct watch *w, const struct event *ev, struct fate *f)
{
    const struct request *r = &w->requests[ev->request_id];
    f->n_terminal++;
    f->terminal = ev->kind;
    f->reason = ev->reason;
    f->end_ns = ev->time_ns;
    f->resident = false;
    w->n_live--;
    REQUIRE(f->n_terminal == 1, "1: request %llu ended %u times", (unsigned long long)r->id,
            f->n_terminal);
    if (ev->kind != EVENT_FINISH) {
        return;
    }
    uint32_t expected = exec_sim_output_tokens(r);
    REQUIRE(f->n_delivered == expected && f->n_tokens == expected,
            "6: request %llu: %u computed, %u delivered, want %u", (unsigned long long)r->id,
            f->n_tokens, f->n_delivered, expected);
    REQUIRE(ev->reason == (expected < r->max_new_tokens ? FINISH_STOP : FINISH_LENGTH),
            "finish reason %u", ev->reason);
    REQUIRE(f->arrival_ns <= f->scheduled_ns && f->scheduled_ns <= f->first_deliver_ns &&
                f->first_deliver_ns <= f->end_ns,
            "11: request %llu: effects before causes", (unsigned long long)r->id);
}

static void check_deliver(struct watch *w, const struct event *ev, struct fate *f)
{
    const struct request *r = &w->requests[ev->request_id];
    f->first_deliver_ns = f->n_delivered == 0 ? ev->time_ns : f->first_deliver_ns;
    REQUIRE(f->n_delivered + ev->n <= f->n_tokens, "6: delivered before computed");
    for (uint32_t i = 0; i < ev->n; i++) {
        uint32_t position = r->prompt_tokens + f->n_delivered;
        int32_t want = exec_sim_token(r->sample_key, position, w->sim.config.vocab);
        REQUIRE(ev->tokens[i] == want, "6: request %llu, output %u: id %d, want %d",
                (unsigned long long)r->id, f->n_delivered, ev->tokens[i], want);
        f->tokens[f->n_delivered++] = ev->tokens[i];
    }
}

static void sink_event(void *self, const struct event *ev)
{
    struct watch *w = self;
    REQUIRE(ev->request_id < w->n_issued, "an unknown request");
    struct fate *f = &w->out->fates[ev->request_id];
    w->n_events++;
    w->out->trace_hash = hash_u64(w->out->trace_hash, ev->time_ns ^ (ev->request_id << 48));
    w->out->trace_hash = hash_u64(w->out->trace_hash, (uint64_t)ev->kind << 32 | ev->n);
    if (w->sc->stop_after_events == w->n_events) {
        harness_stop = 1;
    }
    if (w->sc->drain_after_events == w->n_events) {
        harness_drain = 1;
    }
    REQUIRE(ev->kind == EVENT_ARRIVE || ev->time_ns >= w->last_event_ns, "11: time runs back");
    w->last_event_ns = ev->kind == EVENT_ARRIVE ? w->last_event_ns : ev->time_ns;
    REQUIRE(f->n_terminal == 0, "1: request %llu: event %d after its end",
            (unsigned long long)ev->request_id, (int)ev->kind);
    REQUIRE(f->n_arrive == (ev->kind == EVENT_ARRIVE ? 0 : 1), "1: ARRIVE is not the first event");
    REQUIRE(ev->kind == EVENT_ARRIVE || ev->kind == EVENT_REJECT || ev->kind == EVENT_CANCEL ||
                ev->time_ns < w->sc->cancel_ns[ev->request_id],
            "12: request %llu: event %d after its cancel", (unsigned long long)ev->request_id,
            (int)ev->kind);
    bool was_resident = f->resident;
    switch (ev->kind) {
    case EVENT_ARRIVE:
        f->n_arrive++;
        f->arrival_ns = ev->time_ns;
        w->n_live++;
        break;
    case EVENT_SCHEDULED:
        REQUIRE(!f->resident, "SCHEDULED twice in one residency");
        f->scheduled_ns = f->residency == 0 ? ev->time_ns : f->scheduled_ns;
        f->residency++;
        f->resident = true;
        break;
    case EVENT_TOKEN:
        REQUIRE(f->resident && ev->n >= 1, "a token of a request that does not run");
        f->n_tokens += ev->n;
        f->last_token_ns = ev->time_ns;
        break;
    case EVENT_DELIVER:
        check_deliver(w, ev, f);
        break;
    case EVENT_PREEMPT:
        REQUIRE(f->resident, "preempted while it does not run");
        f->n_preempt++;
        w->lost_tokens += ev->n;
        f->resident = false;
        break;
    case EVENT_FINISH:
    case EVENT_REJECT:
    case EVENT_CANCEL:
    case EVENT_FAIL:
        check_terminal(w, ev, f);
        break;
    }
    w->n_resident += (uint32_t)f->resident - (uint32_t)was_resident;
    if (was_resident && w->n_resident == 0) {
        w->idle_since_ns = ev->time_ns;
    }
}

static void sink_step(void *self, const struct step_record *step)
{
    struct watch *w = self;
    struct outcome *out = w->out;
    REQUIRE(step->useful_rows + step->pad_rows + step->recomputed_rows == w->planned_rows,
            "rows of step %llu do not add up", (unsigned long long)step->plan_id);
    REQUIRE(step->plan_id == w->step_plan_id, "a record of another step");
    double used = (double)step->kv_blocks_used / w->sc->exec.info.total_blocks;
    REQUIRE(step->waiting == w->committed.n_waiting && used == w->committed.mem_used_frac,
            "the record is not of the commit");
    out->step_ns += step->end_ns - step->begin_ns;
    out->useful_rows += step->useful_rows;
    out->pad_rows += step->pad_rows;
    out->recomputed_rows += step->recomputed_rows;
    out->peak_blocks =
        step->kv_blocks_used > out->peak_blocks ? step->kv_blocks_used : out->peak_blocks;
    out->largest_batch =
        step->sequences > out->largest_batch ? step->sequences : out->largest_batch;
}

static void sink_gap(void *self, const struct gap_record *gap)
{
    struct watch *w = self;
    REQUIRE(gap->end_ns > gap->begin_ns, "an empty gap");
    *(gap->fill ? &w->out->fill_ns : &w->out->idle_ns) += gap->end_ns - gap->begin_ns;
}

/* ---- executor: the simulator behind a shadow KV cache and faults ---- */

static uint64_t kv_tag(const struct watch *w, uint64_t id, uint32_t position)
{
    return (id + 1) << 40 | (uint64_t)w->out->fates[id].residency << 20 | position;
}

static void check_item(struct watch *w, const struct exec_item *item)
{
    const struct exec_seq *s = &item->seq;
    const struct request *r = s->request;
    uint32_t block_tokens = w->sc->exec.info.block_tokens;
    uint32_t end = s->computed_tokens + item->n_tokens;
    REQUIRE(item->n_tokens + item->pad_tokens >= 1 && end <= s->known_tokens, "4: item rows");
    REQUIRE(end <= w->sc->exec.info.max_model_len, "4: beyond the model's length");
    REQUIRE((uint64_t)s->n_blocks * block_tokens >= end, "5: %u blocks do not cover %u positions",
            s->n_blocks, end);
    for (uint32_t p = 0; p < end; p++) {
        uint32_t block = s->blocks[p / block_tokens];
        REQUIRE(block < w->sc->exec.info.total_blocks, "2: block %u", block);
        uint64_t *place = &w->kv[(size_t)block * block_tokens + p % block_tokens];
        uint64_t tag = kv_tag(w, r->id, p);
        if (p < s->computed_tokens) {
            REQUIRE(*place == tag, "3: request %llu: position %u was overwritten",
                    (unsigned long long)r->id, p);
        } else {
            REQUIRE(*place != tag, "6: request %llu: position %u computed twice in a residency",
                    (unsigned long long)r->id, p);
            *place = tag;
        }
    }
    for (uint32_t p = 0; p < s->known_tokens; p++) {
        int32_t want = p < r->prompt_tokens ? r->prompt[p]
                                            : exec_sim_token(r->sample_key, p, w->sim.config.vocab);
        REQUIRE(s->tokens[p] == want, "6: request %llu: token %u", (unsigned long long)r->id, p);
    }
}

/* Every block of every sequence in the step is its own. */
static void check_ownership(struct watch *w, const struct exec_step *step)
{
    static uint64_t seen_in[MAX_SLOTS];
    static uint64_t stamp;
    stamp++;
    for (uint32_t i = 0; i < step->n_items; i++) {
        const struct exec_seq *s = &step->items[i].seq;
        for (uint32_t b = 0; b < s->n_blocks; b++) {
            REQUIRE(s->blocks[b] < w->sc->exec.info.total_blocks && s->blocks[b] < MAX_SLOTS,
                    "2: block %u", s->blocks[b]);
            REQUIRE(seen_in[s->blocks[b]] != stamp, "3: block %u has two owners", s->blocks[b]);
            seen_in[s->blocks[b]] = stamp;
        }
    }
}

static bool strikes(struct watch *w, double probability)
{
    return probability > 0.0 && rng_real(&w->faults) < probability;
}

static void count_failure(struct watch *w, bool failed)
{
    w->fail_streak = failed ? w->fail_streak + 1 : 0;
    w->worst_streak = w->fail_streak > w->worst_streak ? w->fail_streak : w->worst_streak;
}

static enum status watch_submit(void *self, const struct exec_step *step, struct error *err)
{
    struct watch *w = self;
    REQUIRE(mem_in_step(), "a step outside the allocation guard");
    w->planned_rows = 0;
    for (uint32_t i = 0; i < step->n_items; i++) {
        w->planned_rows += step->items[i].n_tokens + step->items[i].pad_tokens;
    }
    REQUIRE(step->plan_id > w->step_plan_id, "plan ids do not grow");
    w->step_plan_id = step->plan_id;
    w->out->n_steps++;
    REQUIRE(w->out->n_steps <= w->max_steps, "8: livelock: more than %llu steps",
            (unsigned long long)w->max_steps);
    check_ownership(w, step);
    for (uint32_t i = 0; i < step->n_items; i++) {
        check_item(w, &step->items[i]);
    }
    if (strikes(w, w->sc->p_submit_error)) {
        count_failure(w, true);
        return error_set(err, STATUS_INTERNAL, -1, "injected: submit");
    }
    w->poll_fails = strikes(w, w->sc->p_poll_error);
    w->stray_due = strikes(w, w->sc->p_stray);
    return w->sim.executor.submit(w->sim.executor.self, step, err);
}

static enum status watch_poll(void *self, struct exec_result *result, struct error *err)
{
    struct watch *w = self;
    if (w->stray_due) {
        w->stray_due = false;
        result->plan_id = w->step_plan_id - 1;
        result->n_items = 0;
        return STATUS_OK;
    }
    enum status s = w->sim.executor.poll(w->sim.executor.self, result, err);
    if (strikes(w, w->sc->p_slow)) {
        result->duration_ns *= 100;
    }
    for (uint32_t i = 0; w->sc->p_item_error > 0.0 && i < result->n_items; i++) {
        if (strikes(w, w->sc->p_item_error)) {
            result->items[i] = (struct exec_item_result){.finish = FINISH_ERROR};
        }
    }
    count_failure(w, w->poll_fails);
    return s != STATUS_OK || !w->poll_fails ? s : error_set(err, STATUS_IO, -1, "injected: poll");
}

#endif
