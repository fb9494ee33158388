/*
 * bench_plan.c - what scheduling costs: plan() alone, and view + plan() + commit, per step, with 16
 * to 1024 sequences running and as many waiting. The real clock, the real engine, an executor that
 * computes nothing. Goal: <= 10 us at 256.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "engine/clock_real.h"
#include "engine/engine.h"
#include "sched/registry.h"
#include "sim/exec_sim.h"

#define PROMPT    48
#define MAX_NEW   200
#define MAX_STEPS 100000

static const struct policy_class *inner;
static uint64_t plan_ns[MAX_STEPS];
static uint64_t turn_ns[MAX_STEPS];
static uint32_t n_plans;
static uint32_t n_turns;

static void timed_plan(const void *state, const struct view *view, uint64_t now_ns,
                       struct plan *plan)
{
    uint64_t begin = monotime_now_ns();
    inner->plan(state, view, now_ns, plan);
    uint64_t end = monotime_now_ns();
    if (view->n_running > 0 && plan->n_items > 0 && n_plans < MAX_STEPS) {
        plan_ns[n_plans++] = end - begin;
    }
}

static void on_step(void *self, const struct step_record *step)
{
    (void)self;
    if (step->useful_rows == step->sequences && n_turns < MAX_STEPS) { /* a decode step */
        turn_ns[n_turns++] = step->plan_ns;
    }
}

struct burst {
    struct request *requests;
    uint32_t n;
    uint32_t n_given;
};

static const struct request *next(void *self, uint64_t now_ns, uint64_t *next_at_ns)
{
    struct burst *b = self;
    *next_at_ns = TIME_NEVER;
    if (b->n_given == b->n) {
        return NULL;
    }
    b->requests[b->n_given].arrival_ns = now_ns;
    return &b->requests[b->n_given++];
}

static void on_done(void *self, const struct request *r, uint64_t now_ns)
{
    (void)self;
    (void)r;
    (void)now_ns;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double quantile_us(uint64_t *ns, uint32_t n, double q)
{
    qsort(ns, n, sizeof *ns, by_size);
    return n == 0 ? 0.0 : (double)ns[(uint32_t)(q * (n - 1))] / 1000.0;
}

static int measure(const struct policy_class *class, uint32_t n_seqs)
{
    static int32_t prompt[PROMPT];
    struct error err = ERROR_INIT;
    struct policy_params params = policy_params_default(class);
    for (uint32_t i = 0; i < class->n_params; i++) { /* static batches of that size */
        if (strstr(class->params[i].name, "batch_size") != NULL) {
            params.values[i] = n_seqs;
        }
    }
    struct burst burst = {.n = 2 * n_seqs};
    burst.requests = mem_alloc(burst.n, sizeof *burst.requests);
    if (burst.requests == NULL) {
        return 1;
    }
    for (uint32_t i = 0; i < burst.n; i++) {
        burst.requests[i] = (struct request){
            .id = i, .prompt = prompt, .prompt_tokens = PROMPT, .max_new_tokens = MAX_NEW};
    }
    struct exec_sim sim;
    exec_sim_init(&sim, &(struct exec_sim_config){.info = {.max_model_len = 1024,
                                                           .token_budget = 4096,
                                                           .block_tokens = 16,
                                                           .total_blocks = 1024 * 32,
                                                           .can_mix = true}});
    struct clock_real real = {0};
    struct clock clock = clock_real_clock(&real);
    inner = class;
    n_plans = n_turns = 0;
    struct policy_class timed = *class;
    timed.plan = timed_plan;
    struct event_sink sink = {.step = on_step};
    struct engine_config config = {.policy = &timed,
                                   .params = params,
                                   .executor = &sim.executor,
                                   .clock = &clock,
                                   .sinks = &sink,
                                   .n_sinks = 1,
                                   .max_seqs = n_seqs,
                                   .guard_allocations = true};
    struct source source = {.next = next, .on_done = on_done, .self = &burst};
    struct engine *e = NULL;
    enum status s = engine_create(&config, &e, &err);
    if (s == STATUS_OK) {
        s = engine_run(e, &source, NULL, &err);
        engine_destroy(e);
    }
    mem_free(burst.requests);
    if (s != STATUS_OK) {
        fprintf(stderr, "%s: %s\n", class->name, err.message);
        return 1;
    }
    printf("%-12s %5u %10.2f %10.2f %14.2f %14.2f\n", class->name, n_seqs,
           quantile_us(plan_ns, n_plans, 0.5), quantile_us(plan_ns, n_plans, 0.99),
           quantile_us(turn_ns, n_turns, 0.5), quantile_us(turn_ns, n_turns, 0.99));
    return 0;
}

int main(void)
{
    static const uint32_t sizes[] = {16, 64, 256, 1024};
    printf("%-12s %5s %10s %10s %14s %14s   (us per decode step)\n", "policy", "seqs", "plan p50",
           "plan p99", "view..commit", "p99");
    int bad = 0;
    for (uint32_t p = 0; p < registry_count(); p++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            bad |= measure(registry_at(p), sizes[i]);
        }
    }
    return bad;
}
