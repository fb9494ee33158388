/*
 * test_engine.c - named scenarios: faults and limits of the loop, bugs known from other schedulers,
 * and runs with a closed formula. All are watched by harness.h. The random ones are in
 * test_properties.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/clock_real.h"
#include "engine/harness_run.h"

#define MS NS_PER_MS

static int32_t prompt_ids[MAX_PROMPT];
static struct scenario sc;
static struct outcome out;
static struct outcome other;

/* n requests of prompt + max_new tokens, due at once; 10 ms + 1 ms a row; plenty of everything. */
static void prepare(const char *policy, const char *params, uint32_t n, uint32_t prompt,
                    uint32_t max_new)
{
    memset(&sc, 0, sizeof sc);
    struct error err = ERROR_INIT;
    assert_int_equal(registry_find(policy, &sc.policy, &err), STATUS_OK);
    sc.params = policy_params_default(sc.policy);
    assert_int_equal(policy_params_parse(sc.policy, &sc.params, params, &err), STATUS_OK);
    sc.exec = (struct exec_sim_config){
        .info = {.max_model_len = 1000,
                 .token_budget = 256,
                 .block_tokens = 16,
                 .total_blocks = 1000,
                 .can_mix = true},
        .base_ns = 10 * MS,
        .per_row_ns = 1 * MS,
        .vocab = 1000,
    };
    sc.max_seqs = 64;
    sc.max_queue = 64;
    sc.n_requests = n;
    for (uint32_t i = 0; i < n; i++) {
        sc.requests[i] = (struct request){.id = i,
                                          .prompt = prompt_ids,
                                          .prompt_tokens = prompt,
                                          .max_new_tokens = max_new,
                                          .deadline_ns = TIME_NEVER,
                                          .sample_key = rng_key(7, i)};
        sc.cancel_ns[i] = TIME_NEVER;
    }
    for (uint32_t i = n; i < MAX_REQUESTS; i++) {
        sc.cancel_ns[i] = TIME_NEVER;
    }
}

static uint32_t count(enum event_kind kind)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < sc.n_requests; i++) {
        n += out.fates[i].n_terminal == 1 && out.fates[i].terminal == kind;
    }
    return n;
}

static void run(void)
{
    scenario_run(&sc, &out);
}

/* ---- limits ---- */

static void test_nothing_to_do(void **state)
{
    (void)state;
    prepare("continuous", "", 0, 1, 1);
    run();
    assert_int_equal(out.status, STATUS_OK);
    assert_int_equal(out.n_steps, 0);
}

/* Prompt + max_new at the model's length and at the pool's size, and one more of each. */
static void test_feasibility_at_the_limits(void **state)
{
    (void)state;
    static const struct {
        uint32_t tokens;
        uint32_t max_model_len;
        uint32_t total_blocks;
        enum event_kind kind;
        enum reject_reason reason;
    } rows[] = {
        {48, 48, 100, EVENT_FINISH, 0},
        {49, 48, 100, EVENT_REJECT, REJECT_TOO_LONG},
        {48, 100, 3, EVENT_FINISH, 0},
        {49, 100, 3, EVENT_REJECT, REJECT_NO_BLOCKS},
    };
    for (uint32_t p = 0; p < registry_count(); p++) {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            prepare(registry_at(p)->name, "", 1, rows[i].tokens - 5, 5);
            sc.exec.info.max_model_len = rows[i].max_model_len;
            sc.exec.info.total_blocks = rows[i].total_blocks;
            run();
            assert_int_equal(out.status, STATUS_OK);
            assert_int_equal(out.fates[0].terminal, rows[i].kind);
            if (rows[i].kind == EVENT_REJECT) {
                assert_int_equal(out.fates[0].reason, rows[i].reason);
            }
        }
    }
}

/* Bug list 1: a request larger than the pool must not wait for ever, nor block those behind it. */
static void test_oversize_request_blocks_nobody(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < registry_count(); p++) {
        prepare(registry_at(p)->name, "", 9, 20, 5);
        sc.exec.info.total_blocks = 4;
        sc.requests[0].prompt_tokens = 90;
        sc.requests[4].prompt_tokens = 90;
        run();
        assert_int_equal(count(EVENT_REJECT), 2);
        assert_int_equal(count(EVENT_FINISH), 7);
    }
}

/* Bug list 25: requests turned away by a full queue are answered. */
static void test_queue_bound(void **state)
{
    (void)state;
    static const uint32_t bounds[] = {1, 5, 8, 9};
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        prepare("continuous", "", 9, 20, 5);
        sc.max_queue = bounds[i];
        run();
        assert_int_equal(count(EVENT_FINISH), bounds[i]);
        assert_int_equal(count(EVENT_REJECT), 9 - bounds[i]);
        assert_int_equal(out.fates[8].reason, bounds[i] < 9 ? REJECT_QUEUE_FULL : FINISH_LENGTH);
    }
}

static void test_config_errors(void **state)
{
    (void)state;
    prepare("continuous", "", 0, 1, 1);
    struct exec_sim sim;
    struct clock_virtual cv = {0};
    struct clock clock = clock_virtual_clock(&cv);
    exec_sim_init(&sim, &sc.exec);
    struct engine_config good = {.policy = sc.policy,
                                 .params = sc.params,
                                 .executor = &sim.executor,
                                 .clock = &clock,
                                 .total_blocks = 1000,
                                 .max_seqs = PLAN_MAX_SEQS,
                                 .max_queue = 100};
    struct engine *e = NULL;
    struct error err = ERROR_INIT;
    assert_int_equal(engine_create(&good, &e, &err), STATUS_OK);
    assert_int_equal(engine_limits_of(e).token_budget, 256);
    engine_destroy(e);
    e = NULL;
    struct engine_config bad = good;
    bad.total_blocks = 1001;
    assert_int_equal(engine_create(&bad, &e, &err), STATUS_USAGE);
    bad = good;
    bad.max_seqs = PLAN_MAX_SEQS + 1;
    assert_int_equal(engine_create(&bad, &e, &err), STATUS_USAGE);
    bad = good;
    bad.max_queue = ENGINE_QUEUE_LIMIT + 1;
    assert_int_equal(engine_create(&bad, &e, &err), STATUS_USAGE);
    bad = good;
    bad.params.values[3] = 0.9;
    assert_int_equal(engine_create(&bad, &e, &err), STATUS_USAGE);
    assert_string_equal(err.message, "continuous.watermark=0.9: want a number in 0..0.5");
    assert_null(e);
    for (uint64_t n = 1; n < 100; n++) {
        mem_fail_at(n, false);
        enum status s = engine_create(&good, &e, &err);
        mem_fail_at(0, false);
        if (s == STATUS_OK) {
            assert_true(n > 5);
            engine_destroy(e);
            return;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
        assert_null(e);
    }
    fail_msg("engine_create never succeeded");
}

/* ---- faults ---- */

static const struct request *starved_next(void *self, uint64_t now_ns, uint64_t *next_at_ns)
{
    const struct request *r = source_next(self, now_ns, next_at_ns);
    mem_fail_at(r != NULL && r->id == 1 ? 1 : 0, false); /* its token buffer */
    return r;
}

static void test_refused_memory_fails_one_request(void **state)
{
    (void)state;
    prepare("continuous", "", 3, 20, 5);
    static struct watch w;
    memset(&w, 0, sizeof w);
    memset(&out, 0, sizeof out);
    w.sc = &sc;
    w.out = &out;
    w.claims = claims_of("continuous");
    memcpy(w.requests, sc.requests, sizeof w.requests);
    exec_sim_init(&w.sim, &sc.exec);
    struct clock clock = clock_virtual_clock(&w.clock);
    struct event_sink sink = {.event = sink_event, .self = &w};
    struct engine_config config = {.policy = sc.policy,
                                   .params = sc.params,
                                   .executor = &w.sim.executor,
                                   .clock = &clock,
                                   .sinks = &sink,
                                   .n_sinks = 1};
    struct source source = {.next = starved_next, .on_done = source_on_done, .self = &w};
    struct engine *e = NULL;
    assert_int_equal(engine_create(&config, &e, NULL), STATUS_OK);
    assert_int_equal(engine_run(e, &source, NULL, NULL), STATUS_OK);
    engine_destroy(e);
    mem_fail_at(0, false);
    assert_int_equal(count(EVENT_FINISH), 2);
    assert_int_equal(out.fates[1].terminal, EVENT_FAIL);
}

static void test_one_failed_step_fails_its_sequences_only(void **state)
{
    (void)state;
    for (int submit = 0; submit <= 1; submit++) {
        prepare("naive", "batch_size=2", 6, 20, 5);
        *(submit ? &sc.p_submit_error : &sc.p_poll_error) = 0.1;
        sc.seed = 3;
        run();
        assert_int_equal(out.status, STATUS_OK);
        assert_true(count(EVENT_FAIL) > 0 && count(EVENT_FINISH) > 0);
        assert_int_equal(count(EVENT_FAIL) + count(EVENT_FINISH), 6);
    }
}

/* A member that has finished loses nothing when a later step of its batch fails. */
static void test_finished_members_survive_a_failed_step(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        prepare("naive", "batch_size=2", 2, 20, 20);
        sc.requests[0].max_new_tokens = 1;
        sc.p_poll_error = 0.1;
        sc.seed = seed;
        run();
        if (out.fates[1].terminal == EVENT_FAIL && out.fates[1].n_tokens > 0) {
            assert_int_equal(out.fates[0].terminal, EVENT_FINISH);
            return;
        }
    }
    fail_msg("no seed failed a later step");
}

static void test_persistent_failure_ends_the_run(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < registry_count(); p++) {
        prepare(registry_at(p)->name, "", 40, 20, 5);
        sc.max_seqs = 2;
        sc.p_poll_error = 1.0;
        run();
        assert_int_equal(out.status, STATUS_IO);
        assert_string_equal(out.err.message, "injected: poll");
        assert_int_equal(count(EVENT_FAIL), 40);
        assert_int_equal(out.n_steps, ENGINE_MAX_FAILED_STEPS);
    }
}

static void test_stray_results_are_dropped(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < registry_count(); p++) {
        prepare(registry_at(p)->name, "", 9, 20, 5);
        sc.p_stray = 1.0;
        run();
        assert_int_equal(count(EVENT_FINISH), 9);
    }
}

/* Bug list 13: an abort during a forward pass must not be beaten by the pass's result. The request
 * would end with its only step, at 30 ms. */
static void test_cancel_during_the_last_step_wins(void **state)
{
    (void)state;
    static const struct {
        uint64_t cancel_ms;
        enum event_kind kind;
    } rows[] = {{0, EVENT_CANCEL}, {29, EVENT_CANCEL}, {30, EVENT_CANCEL}, {31, EVENT_FINISH}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        prepare("continuous", "", 1, 20, 1);
        sc.cancel_ns[0] = rows[i].cancel_ms * MS;
        run();
        assert_int_equal(out.fates[0].terminal, rows[i].kind);
        assert_int_equal(out.fates[0].end_ns, rows[i].cancel_ms == 0 ? 0 : 30 * MS);
    }
}

static void test_cancel_in_a_static_batch(void **state)
{
    (void)state;
    prepare("naive", "batch_size=3", 6, 20, 10);
    sc.cancel_ns[1] = 100 * MS; /* in the batch */
    sc.cancel_ns[4] = 100 * MS; /* waiting */
    run();
    assert_int_equal(count(EVENT_CANCEL), 2);
    assert_int_equal(count(EVENT_FINISH), 4);
}

static void test_stop_and_drain(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < registry_count(); p++) {
        prepare(registry_at(p)->name, "", 30, 20, 5);
        sc.closed_loop = 10;
        sc.stop_after_events = 140;
        run();
        assert_int_equal(out.status, STATUS_INTERRUPTED);
        assert_true(count(EVENT_CANCEL) > 0 && count(EVENT_FINISH) > 0);
        prepare(registry_at(p)->name, "", 30, 20, 5);
        sc.closed_loop = 10;
        sc.drain_after_events = 140;
        run();
        assert_int_equal(out.status, STATUS_OK);
        assert_int_equal(count(EVENT_CANCEL), 0);
        assert_true(count(EVENT_REJECT) > 0 && count(EVENT_FINISH) >= 10);
        assert_int_equal(count(EVENT_REJECT) + count(EVENT_FINISH), 30);
    }
}

/* A policy that sheds long prompts, otherwise continuous. */
static const struct policy_class *shed_inner;

static void shed_plan(const void *state, const struct view *view, uint64_t now_ns,
                      struct plan *plan)
{
    for (uint32_t i = 0; i < view->n_waiting; i++) {
        if (view->waiting[i].prompt_tokens > 30) {
            plan->rejects[plan->n_rejects++] =
                (struct plan_reject){.slot = view->waiting[i].slot, .reason = REJECT_POLICY};
        }
    }
    if (plan->n_rejects == 0) {
        shed_inner->plan(state, view, now_ns, plan);
    }
}

static void test_policy_may_shed(void **state)
{
    (void)state;
    prepare("continuous", "", 9, 20, 5);
    shed_inner = sc.policy;
    struct policy_class shedding = *sc.policy;
    shedding.name = "shedding";
    shedding.plan = shed_plan;
    sc.policy = &shedding;
    for (uint32_t i = 0; i < 9; i += 4) {
        sc.requests[i].prompt_tokens = 40;
    }
    sc.closed_loop = 5;
    run();
    assert_int_equal(out.status, STATUS_OK);
    assert_int_equal(count(EVENT_FINISH), 6);
    assert_int_equal(count(EVENT_REJECT), 3);
    assert_int_equal(out.fates[4].reason, REJECT_POLICY);
}

/* ---- bugs known from other schedulers ---- */

/* Bug list 8: a preempted request keeps its place before later arrivals. 9: and it is resumed once,
 * not again and again. 27: nobody starves while victims are taken in a walk. */
static void test_preemption_keeps_order_and_ends(void **state)
{
    (void)state;
    static const char *const params[] = {"watermark=0", "watermark=0:reserve_full=false", ""};
    for (size_t i = 0; i < sizeof params / sizeof params[0]; i++) {
        prepare("continuous", params[i], 24, 10, 40);
        sc.exec.info.block_tokens = 2;
        sc.exec.info.total_blocks = 60;
        run();
        assert_int_equal(count(EVENT_FINISH), 24);
        uint32_t n = 0;
        for (uint32_t r = 0; r < 24; r++) {
            n += out.fates[r].n_preempt;
            assert_true(r == 0 || out.fates[r - 1].end_ns <= out.fates[r].end_ns);
        }
        assert_true(n >= 3 && n < 24 * 4);
        assert_true(out.recomputed_rows > 0);
    }
}

/* Bug list 26 and 28: one sequence fills the pool to the last block. */
static void test_pool_of_one_request(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < registry_count(); p++) {
        for (uint32_t block_tokens = 1; block_tokens <= 32; block_tokens++) {
            prepare(registry_at(p)->name, "", 4, 20, 12);
            sc.exec.info.block_tokens = block_tokens;
            sc.exec.info.total_blocks = (32 + block_tokens - 1) / block_tokens;
            run();
            assert_int_equal(count(EVENT_FINISH), 4);
        }
    }
}

/* Bug list 20: a chunk below the block size still advances. */
static void test_budget_of_one_token(void **state)
{
    (void)state;
    prepare("continuous", "token_budget=1", 3, 20, 5);
    run();
    assert_int_equal(count(EVENT_FINISH), 3);
    assert_int_equal(out.n_steps, 3 * 24);
}

/* ---- comparisons and formulas ---- */

/* Text, for every scheduler, at every size of the pool. */
static void test_same_text_under_every_policy(void **state)
{
    (void)state;
    for (uint32_t blocks = 8; blocks <= 64; blocks *= 2) {
        for (uint32_t p = 0; p < registry_count(); p++) {
            prepare(registry_at(p)->name, "", 20, 10, 40);
            sc.exec.info.total_blocks = blocks;
            for (uint32_t i = 0; i < 20; i++) {
                sc.requests[i].prompt_tokens = 1 + 3 * i;
                sc.requests[i].sim_output_tokens = 1 + 7 * i % 40;
            }
            scenario_run(&sc, p == 0 ? &other : &out);
            for (uint32_t i = 0; p > 0 && i < 20; i++) {
                assert_int_equal(out.fates[i].n_delivered, other.fates[i].n_delivered);
                assert_memory_equal(out.fates[i].tokens, other.fates[i].tokens,
                                    sizeof out.fates[i].tokens);
            }
        }
    }
}

/* A closed loop in lockstep: K requests of 1 + N tokens each; a round is N steps of K rows. */
static void test_lockstep_takes_the_computed_time(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"continuous", ""}, {"naive", "batch_size=5"}, {"dynamic", "batch_size=5"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        prepare(rows[i][0], rows[i][1], 40, 1, 12);
        sc.closed_loop = 5;
        run();
        assert_int_equal(out.end_ns, (40 / 5) * 12 * (10 * MS + 5 * MS));
        assert_int_equal(out.fill_ns + out.idle_ns, 0);
        assert_int_equal(out.largest_batch, 5);
    }
}

/* A static batch delivers all at its end; continuous delivers each token. */
static void test_delivery_times(void **state)
{
    (void)state;
    prepare("naive", "batch_size=2", 2, 4, 10);
    sc.requests[0].max_new_tokens = 3;
    run();
    uint64_t end = (10 + 8) * MS + 9 * 12 * MS; /* padded rows of the finished one included */
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(out.fates[i].first_deliver_ns, end);
        assert_int_equal(out.fates[i].end_ns, end);
    }
    assert_int_equal(out.fates[0].last_token_ns, 18 * MS + 2 * 12 * MS);
    assert_int_equal(out.pad_rows, 7);
    prepare("naive", "batch_size=2:pad=false", 2, 4, 10);
    sc.requests[0].max_new_tokens = 3;
    run();
    assert_int_equal(out.end_ns, 18 * MS + 2 * 12 * MS + 7 * 11 * MS);
    assert_int_equal(out.pad_rows, 0);
    prepare("continuous", "", 2, 4, 10);
    run();
    assert_int_equal(out.fates[0].first_deliver_ns, 18 * MS);
}

/* Ten in flight and batches of twelve: every batch waits out its timeout. grow=always gets there by
 * itself; grow=backlog does not. */
static void test_oversized_batches_idle(void **state)
{
    (void)state;
    prepare("dynamic", "batch_size=12", 60, 4, 5);
    sc.closed_loop = 10;
    run();
    assert_int_equal(out.fill_ns, 6 * 500 * MS);
    prepare("dynamic", "grow=always", 60, 4, 5);
    sc.closed_loop = 10;
    run();
    assert_true(out.fill_ns >= 4 * 500 * MS);
    prepare("dynamic", "grow=backlog", 60, 4, 5);
    sc.closed_loop = 10;
    run();
    /* 8, then 10 since two were left; a size of 10 leaves nobody, and stays. The first batch's two
     * wait for the eight; the last two of all wait out a timeout. */
    assert_int_equal(out.fill_ns, 500 * MS);
}

/* ---- M/D/1: an open loop against Lindley's recursion, and the Pollaczek-Khinchine mean ---- */

struct queue_source {
    uint64_t n;
    uint64_t n_given;
    uint64_t due_ns;
    struct rng rng;
    struct request *requests;
    double sum_wait_s;
    uint64_t free_at_ns; /* the recursion's server */
    uint64_t n_wrong;
};

#define SERVICE_NS (10 * MS)
#define LOAD       0.7

static const struct request *md1_next(void *self, uint64_t now_ns, uint64_t *next_at_ns)
{
    struct queue_source *s = self;
    *next_at_ns = s->n_given == s->n ? TIME_NEVER : s->due_ns;
    if (s->n_given == s->n || s->due_ns > now_ns) {
        return NULL;
    }
    struct request *r = &s->requests[s->n_given];
    *r = (struct request){.id = s->n_given++,
                          .prompt = prompt_ids,
                          .prompt_tokens = 1,
                          .max_new_tokens = 1,
                          .arrival_ns = s->due_ns};
    s->due_ns += (uint64_t)(-log(1.0 - rng_real(&s->rng)) * SERVICE_NS / LOAD);
    return r;
}

static void md1_done(void *self, const struct request *r, uint64_t now_ns)
{
    struct queue_source *s = self;
    uint64_t begin = r->arrival_ns > s->free_at_ns ? r->arrival_ns : s->free_at_ns;
    s->free_at_ns = begin + SERVICE_NS;
    s->n_wrong += s->free_at_ns != now_ns;
    s->sum_wait_s += monotime_seconds(now_ns - SERVICE_NS - r->arrival_ns);
}

static void test_md1_queue(void **state)
{
    (void)state;
    static const char *const rows[][2] = {{"naive", "batch_size=1"}, {"continuous", "max_seqs=1"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        prepare(rows[i][0], rows[i][1], 0, 1, 1);
        struct queue_source s = {.n = 100000, .rng = rng_stream(11, 0)};
        s.requests = mem_alloc(s.n, sizeof *s.requests);
        assert_non_null(s.requests);
        struct exec_sim sim;
        struct clock_virtual cv = {0};
        struct clock clock = clock_virtual_clock(&cv);
        sc.exec.base_ns = SERVICE_NS;
        sc.exec.per_row_ns = 0;
        exec_sim_init(&sim, &sc.exec);
        struct engine_config config = {.policy = sc.policy,
                                       .params = sc.params,
                                       .executor = &sim.executor,
                                       .clock = &clock,
                                       .guard_allocations = true};
        struct source source = {.next = md1_next, .on_done = md1_done, .self = &s};
        struct engine *e = NULL;
        assert_int_equal(engine_create(&config, &e, NULL), STATUS_OK);
        assert_int_equal(engine_run(e, &source, NULL, NULL), STATUS_OK);
        engine_destroy(e);
        assert_int_equal(s.n_given, s.n);
        assert_int_equal(s.n_wrong, 0);
        double mean = s.sum_wait_s / (double)s.n;
        double formula = LOAD * monotime_seconds(SERVICE_NS) / (2.0 * (1.0 - LOAD));
        print_message("M/D/1 at load %.1f, %s: mean wait %.3f ms, formula %.3f ms\n", LOAD,
                      rows[i][0], mean * 1e3, formula * 1e3);
        assert_true(fabs(mean - formula) <= 0.03 * formula);
        mem_free(s.requests);
    }
}

/* ---- the real clock ---- */

static volatile int real_stop;

static void raise_stop(int signal_number)
{
    (void)signal_number;
    real_stop = 1;
}

static void test_real_clock(void **state)
{
    (void)state;
    struct clock_real self = {.stop = &real_stop};
    struct clock clock = clock_real_clock(&self);
    assert_null(clock.advance);
    uint64_t begin = clock.now(clock.self);
    clock.wait_until(clock.self, begin + 35 * MS);
    uint64_t end = clock.now(clock.self);
    assert_true(end >= begin + 35 * MS);
    clock.wait_until(clock.self, begin); /* the past */
    signal(SIGALRM, raise_stop);
    alarm(1);
    begin = clock.now(clock.self);
    while (real_stop == 0) {
        clock.wait_until(clock.self, begin + 60 * NS_PER_S);
    }
    clock.wait_until(clock.self, begin + 60 * NS_PER_S);
    end = clock.now(clock.self);
    assert_true(end - begin >= 900 * MS && end - begin < 30 * NS_PER_S);
}

/* The real clock under the engine: a timeout is waited out, not spun through. */
static void test_engine_in_real_time(void **state)
{
    (void)state;
    prepare("naive", "timeout=50ms", 1, 4, 3);
    static struct watch w;
    memset(&w, 0, sizeof w);
    memset(&out, 0, sizeof out);
    w.sc = &sc;
    w.out = &out;
    w.claims = claims_of("naive");
    memcpy(w.requests, sc.requests, sizeof w.requests);
    exec_sim_init(&w.sim, &sc.exec);
    struct clock_real self = {0};
    struct clock clock = clock_real_clock(&self);
    struct event_sink sink = {.event = sink_event, .gap = sink_gap, .self = &w};
    struct engine_config config = {.policy = sc.policy,
                                   .params = sc.params,
                                   .executor = &w.sim.executor,
                                   .clock = &clock,
                                   .sinks = &sink,
                                   .n_sinks = 1,
                                   .guard_allocations = true};
    struct source source = {.next = source_next, .on_done = source_on_done, .self = &w};
    sc.closed_loop = 1; /* arrives now */
    struct engine *e = NULL;
    assert_int_equal(engine_create(&config, &e, NULL), STATUS_OK);
    assert_int_equal(engine_run(e, &source, NULL, NULL), STATUS_OK);
    engine_destroy(e);
    assert_int_equal(count(EVENT_FINISH), 1);
    assert_true(out.fates[0].scheduled_ns >= out.fates[0].arrival_ns + 50 * MS);
    assert_true(out.fill_ns >= 49 * MS);
}

int main(void)
{
    for (int32_t i = 0; i < MAX_PROMPT; i++) {
        prompt_ids[i] = i;
    }
    log_set_level(LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_to_do),
        cmocka_unit_test(test_feasibility_at_the_limits),
        cmocka_unit_test(test_oversize_request_blocks_nobody),
        cmocka_unit_test(test_queue_bound),
        cmocka_unit_test(test_config_errors),
        cmocka_unit_test(test_refused_memory_fails_one_request),
        cmocka_unit_test(test_one_failed_step_fails_its_sequences_only),
        cmocka_unit_test(test_finished_members_survive_a_failed_step),
        cmocka_unit_test(test_persistent_failure_ends_the_run),
        cmocka_unit_test(test_stray_results_are_dropped),
        cmocka_unit_test(test_cancel_during_the_last_step_wins),
        cmocka_unit_test(test_cancel_in_a_static_batch),
        cmocka_unit_test(test_stop_and_drain),
        cmocka_unit_test(test_policy_may_shed),
        cmocka_unit_test(test_preemption_keeps_order_and_ends),
        cmocka_unit_test(test_pool_of_one_request),
        cmocka_unit_test(test_budget_of_one_token),
        cmocka_unit_test(test_same_text_under_every_policy),
        cmocka_unit_test(test_lockstep_takes_the_computed_time),
        cmocka_unit_test(test_delivery_times),
        cmocka_unit_test(test_oversized_batches_idle),
        cmocka_unit_test(test_md1_queue),
        cmocka_unit_test(test_real_clock),
        cmocka_unit_test(test_engine_in_real_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
