/*
 * test_properties.c - random workloads under every policy of the registry, all invariants watched
 * (harness.h), each run twice with byte-identical traces.
 *
 * LLMSCHED_SEED=n runs that workload alone (LLMSCHED_POLICY=name under that policy only);
 * LLMSCHED_TEST_FULL=1 runs ten times as many. Every probability is drawn per workload (swarm), so
 * that some have no faults at all and some little else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/harness_run.h"

/* A sanitizer makes each some ten times slower. */
#define N_WORKLOADS (SANITIZED ? 2000 : 10000)

struct coverage {
    uint64_t workloads;
    uint64_t plans;
    uint64_t steps;
    uint64_t terminal[EVENT_FAIL + 1];
    uint64_t preempts;
    uint64_t recomputed_rows;
    uint64_t pad_rows;
    uint64_t interrupted;
    uint64_t failed_runs;
};

static int32_t prompt_pool[4096];

/* Ints small enough to matter in a small workload, the rest over the whole range; the defaults
 * where the values contradict each other. */
static void draw_params(struct rng *r, struct scenario *sc)
{
    const struct policy_class *class = sc->policy;
    sc->params = policy_params_default(class);
    struct policy_params drawn = sc->params;
    for (uint32_t i = 0; i < class->n_params; i++) {
        const struct param_spec *spec = &class->params[i];
        if (rng_below(r, 2) == 0) {
            continue;
        }
        switch (spec->type) {
        case PARAM_INT: {
            uint64_t top = (uint64_t)fmin(spec->max - spec->min, 1 << rng_below(r, 6));
            drawn.values[i] = spec->min + (double)rng_below(r, top + 1);
            break;
        }
        case PARAM_BOOL:
            drawn.values[i] = (double)rng_below(r, 2);
            break;
        case PARAM_ENUM:
            drawn.values[i] = (double)rng_below(r, (uint64_t)spec->max + 1);
            break;
        case PARAM_REAL: /* the square: small shares, as of a watermark, matter most */
            drawn.values[i] = rng_real(r) * rng_real(r) * (spec->max - spec->min) + spec->min;
            break;
        case PARAM_SECONDS:
            drawn.values[i] = fmin(spec->max, rng_real(r) * 2.0);
            break;
        }
    }
    if (policy_params_check(class, &drawn, NULL) == STATUS_OK) {
        sc->params = drawn;
    }
}

static void draw_executor(struct rng *r, struct scenario *sc, uint32_t longest)
{
    uint32_t block_tokens = (uint32_t)rng_between(r, 1, 1U << rng_below(r, 6));
    uint32_t one = (longest + block_tokens - 1) / block_tokens;
    sc->exec = (struct exec_sim_config){
        .info = {.max_model_len = longest + (uint32_t)rng_below(r, 8),
                 .token_budget = (uint32_t)rng_between(r, 1, 1 + (1 << rng_below(r, 8))),
                 .block_tokens = block_tokens,
                 .total_blocks =
                     one + (uint32_t)rng_below(r, 1 + one * rng_below(r, rng_below(r, 2) ? 2 : 8)),
                 .can_mix = rng_below(r, 8) > 0},
        .base_ns = rng_below(r, 20) * NS_PER_MS,
        .per_row_ns = rng_below(r, 2000000),
        .per_seq_ns = rng_below(r, 100000),
        .vocab = (int32_t)rng_between(r, 1, 1000),
    };
    if (rng_below(r, 16) == 0) { /* some requests cannot fit */
        sc->exec.info.max_model_len = (uint32_t)rng_between(r, 2, longest);
    }
    if (rng_below(r, 16) == 0) {
        sc->exec.info.total_blocks = (uint32_t)rng_between(r, 1, one);
    }
}

static uint32_t draw_requests(struct rng *r, struct scenario *sc)
{
    uint32_t max_prompt = (uint32_t)rng_between(r, 1, 2U << rng_between(r, 1, 5));
    uint32_t max_output = (uint32_t)rng_between(r, 1, 2U << rng_between(r, 1, 5));
    uint64_t mean_gap = rng_below(r, 4) == 0 ? 0 : 1 + rng_below(r, 100 * NS_PER_MS);
    bool identical = rng_below(r, 8) == 0;
    double p_cancel = rng_below(r, 3) == 0 ? rng_real(r) : 0.0;
    uint32_t longest = 2;
    uint64_t due = 0;
    sc->n_requests = (uint32_t)rng_below(r, 33);
    for (uint32_t i = 0; i < sc->n_requests; i++) {
        struct request *q = &sc->requests[i];
        *q = (struct request){
            .id = i,
            .prompt = prompt_pool + (identical ? 0 : rng_below(r, 4096 - MAX_PROMPT)),
            .prompt_tokens = identical ? max_prompt : (uint32_t)rng_between(r, 1, max_prompt),
            .max_new_tokens = identical ? max_output : (uint32_t)rng_between(r, 1, max_output),
            .deadline_ns = TIME_NEVER,
            .sample_key = identical ? sc->seed : rng_key(sc->seed, i),
            .ignore_eos = rng_below(r, 4) == 0,
            .sim_output_tokens = (uint32_t)rng_below(r, 3 * max_output),
            .priority = (int32_t)rng_below(r, 3),
            .tenant = (uint32_t)rng_below(r, 3),
        };
        uint32_t tokens = q->prompt_tokens + q->max_new_tokens;
        longest = tokens > longest ? tokens : longest;
        due += rng_below(r, 2 * mean_gap + 1);
        sc->due_ns[i] = due;
        sc->cancel_ns[i] = rng_real(r) < p_cancel ? due + rng_below(r, 2 * NS_PER_S) : TIME_NEVER;
    }
    return longest;
}

static double draw_probability(struct rng *r)
{
    return rng_below(r, 6) == 0 ? rng_real(r) * rng_real(r) * 0.5 : 0.0;
}

static void draw_scenario(uint64_t seed, const struct policy_class *class, struct scenario *sc)
{
    struct rng rng = rng_stream(seed, 1);
    struct rng *r = &rng;
    memset(sc, 0, sizeof *sc);
    sc->seed = seed;
    sc->policy = class;
    uint32_t longest = draw_requests(r, sc);
    draw_executor(r, sc, longest);
    draw_params(r, sc);
    sc->max_seqs = (uint32_t)rng_between(r, 1, 16);
    sc->max_queue = rng_below(r, 3) == 0 ? (uint32_t)rng_between(r, 1, 12) : MAX_REQUESTS;
    sc->closed_loop = rng_below(r, 2) == 0 ? 0 : (uint32_t)rng_between(r, 1, 12);
    sc->p_submit_error = draw_probability(r);
    sc->p_poll_error = draw_probability(r);
    sc->p_item_error = draw_probability(r);
    sc->p_stray = draw_probability(r);
    sc->p_slow = draw_probability(r);
    sc->stop_after_events = rng_below(r, 8) == 0 ? rng_between(r, 1, 100) : 0;
    sc->drain_after_events = rng_below(r, 8) == 0 ? rng_between(r, 1, 100) : 0;
}

static void add_coverage(struct coverage *c, const struct scenario *sc, const struct outcome *o)
{
    c->workloads++;
    c->plans += o->n_plans;
    c->steps += o->n_steps;
    c->recomputed_rows += o->recomputed_rows;
    c->pad_rows += o->pad_rows;
    c->interrupted += o->status == STATUS_INTERRUPTED;
    c->failed_runs += o->status != STATUS_OK && o->status != STATUS_INTERRUPTED;
    for (uint32_t i = 0; i < sc->n_requests; i++) {
        c->terminal[o->fates[i].terminal] += o->fates[i].n_terminal;
        c->preempts += o->fates[i].n_preempt;
    }
}

static void run_twice(uint64_t seed, const struct policy_class *class, struct coverage *c)
{
    static struct scenario sc;
    static struct outcome first;
    static struct outcome second;
    draw_scenario(seed, class, &sc);
    scenario_run(&sc, &first);
    scenario_run(&sc, &second);
    REQUIRE(first.trace_hash == second.trace_hash, "11: the same seed gave another trace");
    add_coverage(c, &sc, &first);
}

static void print_coverage(const char *name, const struct coverage *c)
{
    print_message("%s: %llu workloads, each twice; %llu plans, %llu steps; finished %llu, "
                  "rejected %llu, cancelled %llu, failed %llu; preemptions %llu, recomputed rows "
                  "%llu, pad rows %llu; runs interrupted %llu, given up %llu\n",
                  name, (unsigned long long)c->workloads, (unsigned long long)c->plans,
                  (unsigned long long)c->steps, (unsigned long long)c->terminal[EVENT_FINISH],
                  (unsigned long long)c->terminal[EVENT_REJECT],
                  (unsigned long long)c->terminal[EVENT_CANCEL],
                  (unsigned long long)c->terminal[EVENT_FAIL], (unsigned long long)c->preempts,
                  (unsigned long long)c->recomputed_rows, (unsigned long long)c->pad_rows,
                  (unsigned long long)c->interrupted, (unsigned long long)c->failed_runs);
}

static void test_every_policy_keeps_the_invariants(void **state)
{
    (void)state;
    const char *seed_text = getenv("LLMSCHED_SEED");
    const char *only = getenv("LLMSCHED_POLICY");
    uint64_t n = getenv("LLMSCHED_TEST_FULL") != NULL ? 10 * N_WORKLOADS : N_WORKLOADS;
    uint64_t first = seed_text != NULL ? strtoull(seed_text, NULL, 10) : 0;
    n = seed_text != NULL ? 1 : n;
    for (uint32_t p = 0; p < registry_count(); p++) {
        const struct policy_class *class = registry_at(p);
        if (only != NULL && strcmp(only, class->name) != 0) {
            continue;
        }
        struct coverage c = {0};
        for (uint64_t i = 0; i < n; i++) {
            run_twice(first + i, class, &c);
        }
        print_coverage(class->name, &c);
        if (n == 1) {
            continue;
        }
        /* The swarm must have reached what it is for. */
        assert_true(c.terminal[EVENT_FINISH] > n && c.terminal[EVENT_REJECT] > n / 10);
        assert_true(c.terminal[EVENT_CANCEL] > n / 10 && c.terminal[EVENT_FAIL] > n / 10);
        assert_true(c.interrupted > n / 50 && c.failed_runs > 0);
        if (claims_of(class->name)->preempts_tail) {
            assert_true(c.preempts > n / 10 && c.recomputed_rows > n);
        }
        if (claims_of(class->name)->static_batch) {
            assert_true(c.pad_rows > n);
            assert_int_equal(c.preempts, 0);
            assert_int_equal(c.recomputed_rows, 0);
        }
    }
}

int main(void)
{
    struct rng r = rng_stream(1, 2);
    for (size_t i = 0; i < sizeof prompt_pool / sizeof prompt_pool[0]; i++) {
        prompt_pool[i] = (int32_t)rng_below(&r, 1000);
    }
    log_set_level(LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_policy_keeps_the_invariants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
