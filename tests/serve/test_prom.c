/*
 * test_prom.c - the server's metrics: vLLM's invariants on the engine in virtual time, every
 * histogram against the recorder's records, names and buckets, and the text under a strict reader,
 * also while the engine runs.
 */
#include "serve/prom_text.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/monotime.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "load/closed_loop.h"
#include "metrics/recorder.h"
#include "sanitized.h"
#include "sched/registry.h"
#include "serve/prom.h"
#include "sim/clock_virtual.h"
#include "sim/exec_sim.h"

#define MAX_REQUESTS 400
#define MAX_PROMPT   60

static struct request requests[MAX_REQUESTS];
static int32_t prompt[MAX_PROMPT];
static struct prom_text text;

struct world {
    const char *policy;
    uint32_t n;
    uint32_t concurrency;
    uint32_t total_blocks;
    uint32_t max_model_len;
    uint32_t n_new; /* 0: random, some end early */
};

static struct prom *make_prom(const struct world *w, const char *model)
{
    struct error err = ERROR_INIT;
    struct prom *p = NULL;
    assert_ok(prom_create(&(struct prom_config){.model_name = model,
                                                .total_blocks = w->total_blocks,
                                                .block_tokens = 4,
                                                .max_model_len = w->max_model_len,
                                                .max_jobs = w->concurrency},
                          &p, &err));
    return p;
}

static void scrape(const struct prom *p)
{
    struct strbuf out = {0};
    prom_write(p, &out);
    assert_false(out.failed);
    prom_text_read(&text, out.data, out.len);
    strbuf_deinit(&out);
}

static void make_requests(const struct world *w)
{
    struct rng rng = rng_stream(5, w->n);
    for (uint32_t i = 0; i < w->n; i++) {
        requests[i] = (struct request){
            .id = i,
            .prompt = prompt,
            .prompt_tokens = 1 + (uint32_t)rng_below(&rng, MAX_PROMPT),
            .max_new_tokens = w->n_new > 0 ? w->n_new : 1 + (uint32_t)rng_below(&rng, 30),
            .deadline_ns = TIME_NEVER,
            .sample_key = i,
            .sim_output_tokens = w->n_new > 0 ? 0 : (uint32_t)rng_below(&rng, 40),
        };
    }
}

/* A whole run in virtual time; the recorder, if any, sees the same events. */
static void run_world(const struct world *w, struct prom *p, struct recorder *recorder)
{
    struct error err = ERROR_INIT;
    struct exec_sim sim;
    exec_sim_init(&sim, &(struct exec_sim_config){.base_ns = 3 * NS_PER_MS,
                                                  .per_row_ns = 70000,
                                                  .info = {.max_model_len = w->max_model_len,
                                                           .token_budget = 64,
                                                           .block_tokens = 4,
                                                           .total_blocks = w->total_blocks,
                                                           .can_mix = true}});
    struct clock_virtual virtual = {.now_ns = 5 * NS_PER_S};
    struct clock clock = clock_virtual_clock(&virtual);
    struct event_sink sinks[2] = {prom_sink(p)};
    if (recorder != NULL) {
        sinks[1] = recorder_sink(recorder);
    }
    struct engine_config config = {.executor = &sim.executor,
                                   .clock = &clock,
                                   .sinks = sinks,
                                   .n_sinks = recorder != NULL ? 2 : 1,
                                   .max_seqs = 16,
                                   .guard_allocations = true};
    assert_ok(registry_find(w->policy, &config.policy, &err));
    config.params = policy_params_default(config.policy);
    struct engine *engine;
    assert_ok(engine_create(&config, &engine, &err));
    struct closed_loop loop;
    closed_loop_init(&loop, requests, w->n, w->concurrency);
    struct source source = closed_loop_source(&loop);
    assert_ok(engine_run(engine, &source, NULL, &err));
    engine_destroy(engine);
}

static double get(const char *name)
{
    char full[256];
    snprintf(full, sizeof full, "%s{engine=\"0\",model_name=\"sim\"}", name);
    return prom_text_get(&text, full);
}

static double get_success(const char *reason)
{
    char full[256];
    snprintf(full, sizeof full,
             "vllm:request_success_total{engine=\"0\",model_name=\"sim\",finished_reason=\"%s\"}",
             reason);
    return prom_text_get(&text, full);
}

/* ---- vLLM's own assertions ---- */

static void test_invariants_of_vllm(void **state)
{
    (void)state;
    const struct world w = {.policy = "continuous",
                            .n = 100,
                            .concurrency = 20,
                            .total_blocks = 2000,
                            .max_model_len = 1000,
                            .n_new = 17};
    make_requests(&w);
    struct prom *p = make_prom(&w, "sim");
    run_world(&w, p, NULL);
    scrape(p);
    double n_prompt = 0;
    for (uint32_t i = 0; i < w.n; i++) {
        n_prompt += requests[i].prompt_tokens;
    }
    assert_true(get("vllm:prompt_tokens_total") == n_prompt);
    assert_true(get("vllm:generation_tokens_total") == 100 * 17);
    assert_true(get("vllm:inter_token_latency_seconds_count") == 100 * 16);
    assert_true(get("vllm:time_to_first_token_seconds_count") == 100);
    assert_true(get("vllm:request_time_per_output_token_seconds_count") == 100);
    assert_true(get("vllm:e2e_request_latency_seconds_count") == 100);
    assert_true(get("vllm:iteration_tokens_total_sum") == n_prompt + 100 * 17);
    assert_true(get("vllm:request_prompt_tokens_sum") == n_prompt);
    assert_true(get("vllm:request_generation_tokens_sum") == 100 * 17);
    assert_true(get("vllm:prefix_cache_queries_total") == n_prompt);
    assert_true(get("vllm:prefix_cache_hits_total") == 0);
    assert_true(get("vllm:num_requests_running") == 0);
    assert_true(get("vllm:num_requests_waiting") == 0);
    assert_true(get("vllm:kv_cache_usage_perc") == 0);
    assert_true(get_success("length") == 100 && get_success("stop") == 0);
    assert_true(get_success("abort") == 0 && get_success("error") == 0);
    prom_destroy(p);
}

/* ---- every histogram against the recorder ---- */

struct expected {
    double count;
    double sum; /* as the sample's unit */
    const char *name;
};

/* One more observation. */
static void note(struct expected *e, const char *name, double value)
{
    e->name = name;
    e->count += 1;
    e->sum += value;
}

static void compare(const struct expected *e)
{
    char name[128];
    snprintf(name, sizeof name, "%s_count", e->name);
    if (get(name) != e->count) {
        fail_msg("%s is %.0f, expected %.0f", name, get(name), e->count);
    }
    snprintf(name, sizeof name, "%s_sum", e->name);
    if (!(fabs(get(name) - e->sum) <= 1e-6 * (1.0 + e->sum))) {
        fail_msg("%s is %.9f, expected %.9f", name, get(name), e->sum);
    }
}

enum { TTFT, E2E, QUEUE, TPOT, PROMPT, GENERATED, N_EXPECTED };

/* Of the buckets, one histogram in full: how many times to the first token are at most le. */
static void check_ttft_buckets(const struct recorder *r)
{
    uint32_t n_seen = 0;
    for (uint32_t i = 0; i < text.n; i++) {
        const char *start = "vllm:time_to_first_token_seconds_bucket{";
        if (strncmp(text.series[i].name, start, strlen(start)) != 0) {
            continue;
        }
        n_seen++;
        const char *le = strstr(text.series[i].name, "le=\"") + 4;
        double bound = strncmp(le, "+Inf", 4) == 0 ? (double)INFINITY : strtod(le, NULL);
        uint32_t want = 0;
        for (uint32_t k = 0; k < recorder_count(r); k++) {
            const struct record *rec = recorder_record(r, k);
            double ttft = (double)(rec->first_deliver_ns - rec->arrival_ns) / 1e9;
            want += rec->first_deliver_ns != TIME_NEVER && ttft <= bound;
        }
        if (text.series[i].value != want) {
            fail_msg("%s is %.0f, expected %u", text.series[i].name, text.series[i].value, want);
        }
    }
    assert_true(n_seen > 22);
}

static void check_against_records(const struct recorder *r, bool held)
{
    struct expected want[N_EXPECTED] = {{0}};
    double n_stop = 0;
    double n_length = 0;
    for (uint32_t i = 0; i < recorder_count(r); i++) {
        const struct record *rec = recorder_record(r, i);
        assert_int_equal(rec->status, RECORD_OK);
        n_stop += rec->reason == FINISH_STOP;
        n_length += rec->reason == FINISH_LENGTH;
        double arrival = (double)rec->arrival_ns;
        note(&want[TTFT], "vllm:time_to_first_token_seconds",
             ((double)rec->first_deliver_ns - arrival) / 1e9);
        note(&want[E2E], "vllm:e2e_request_latency_seconds", ((double)rec->end_ns - arrival) / 1e9);
        note(&want[QUEUE], "vllm:request_queue_time_seconds",
             ((double)rec->scheduled_ns - arrival) / 1e9);
        note(&want[PROMPT], "vllm:request_prompt_tokens", rec->input_tokens);
        note(&want[GENERATED], "vllm:request_generation_tokens", rec->output_tokens);
        if (rec->output_tokens > rec->first_tokens) {
            note(&want[TPOT], "vllm:request_time_per_output_token_seconds",
                 (double)(rec->last_deliver_ns - rec->first_deliver_ns) / 1e9 /
                     (rec->output_tokens - rec->first_tokens));
        }
    }
    want[TPOT].name = "vllm:request_time_per_output_token_seconds";
    assert_true(held == (want[TPOT].count == 0));
    for (uint32_t i = 0; i < N_EXPECTED; i++) {
        compare(&want[i]);
    }
    check_ttft_buckets(r);
    double n = recorder_count(r);
    assert_true(get_success("stop") == n_stop && get_success("length") == n_length);
    assert_true(get("vllm:num_preemptions_total") == (double)recorder_totals(r)->preemptions);
    assert_true(get("vllm:iteration_tokens_total_count") == (double)recorder_totals(r)->n_steps);
    assert_true(get("vllm:iteration_tokens_total_sum") == want[PROMPT].sum + want[GENERATED].sum);
    assert_true(get("vllm:inter_token_latency_seconds_count") ==
                (held ? 0 : want[GENERATED].sum - n));
    double inference = get("vllm:request_inference_time_seconds_sum");
    assert_true(fabs(inference - get("vllm:request_prefill_time_seconds_sum") -
                     get("vllm:request_decode_time_seconds_sum")) < 1e-6);
    assert_true(inference + want[QUEUE].sum <= want[E2E].sum + 1e-6);
    assert_true(held || fabs(inference + want[QUEUE].sum - want[E2E].sum) < 1e-6);
}

/* Few blocks, so that continuous batching preempts. */
static void test_against_the_recorder(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    for (uint32_t i = 0; i < registry_count(); i++) {
        const struct world w = {.policy = registry_at(i)->name,
                                .n = MAX_REQUESTS,
                                .concurrency = 40,
                                .total_blocks = 80,
                                .max_model_len = 100};
        make_requests(&w);
        struct prom *p = make_prom(&w, "sim");
        struct recorder *r;
        assert_ok(recorder_create(requests, w.n, &r, &err));
        run_world(&w, p, r);
        scrape(p);
        bool held = strcmp(w.policy, "continuous") != 0;
        check_against_records(r, held);
        print_message("%s: %.0f preemptions, %.0f steps\n", w.policy,
                      get("vllm:num_preemptions_total"), get("vllm:iteration_tokens_total_count"));
        assert_true(held || get("vllm:num_preemptions_total") > 0);
        recorder_destroy(r);
        prom_destroy(p);
    }
}

/* ---- single events ---- */

static void send(struct prom *p, uint64_t ms, uint64_t id, enum event_kind kind, uint32_t n,
                 uint32_t reason)
{
    struct event_sink sink = prom_sink(p);
    sink.event(
        sink.self,
        &(struct event){
            .time_ns = ms * NS_PER_MS, .request_id = id, .kind = kind, .n = n, .reason = reason});
}

static void send_step(struct prom *p, uint32_t kv_blocks_used)
{
    struct event_sink sink = prom_sink(p);
    sink.step(sink.self, &(struct step_record){.kv_blocks_used = kv_blocks_used});
}

static const struct world small = {
    .n = 1, .concurrency = 8, .total_blocks = 40, .max_model_len = 100};

/* What a scrape shows between the steps: preempted requests wait. */
static void test_gauges(void **state)
{
    (void)state;
    struct prom *p = make_prom(&small, "sim");
    send(p, 0, 1, EVENT_ARRIVE, 10, 0);
    send(p, 0, 2, EVENT_ARRIVE, 10, 0);
    prom_set_waiting(p, 2);
    scrape(p);
    assert_true(get("vllm:num_requests_waiting") == 2 && get("vllm:num_requests_running") == 0);
    prom_set_waiting(p, 0);
    send(p, 5, 1, EVENT_SCHEDULED, 2, 0);
    send(p, 5, 2, EVENT_SCHEDULED, 2, 0);
    send(p, 9, 1, EVENT_TOKEN, 1, 0);
    send(p, 9, 1, EVENT_DELIVER, 1, 0);
    send_step(p, 10);
    send(p, 9, 2, EVENT_PREEMPT, 10, 0);
    scrape(p);
    assert_true(get("vllm:num_requests_waiting") == 1 && get("vllm:num_requests_running") == 1);
    assert_true(get("vllm:kv_cache_usage_perc") == 0.25);
    send(p, 9, 2, EVENT_SCHEDULED, 1, 0);
    send(p, 12, 2, EVENT_CANCEL, 0, FINISH_NONE);
    send(p, 12, 1, EVENT_FINISH, 0, FINISH_LENGTH);
    scrape(p);
    assert_true(get("vllm:num_requests_waiting") == 0 && get("vllm:num_requests_running") == 0);
    assert_true(get("vllm:kv_cache_usage_perc") == 0);
    assert_true(get("vllm:num_preemptions_total") == 1);
    /* Queue time counts to the first residency. Aborted requests have no latency. */
    assert_true(get("vllm:request_queue_time_seconds_count") == 1);
    assert_true(get("vllm:request_queue_time_seconds_sum") == 0.005);
    prom_destroy(p);
}

static void test_ends_by_reason(void **state)
{
    (void)state;
    static const struct {
        enum event_kind kind;
        uint32_t reason;
        const char *label;
    } ends[] = {
        {EVENT_FINISH, FINISH_STOP, "stop"},        {EVENT_FINISH, FINISH_LENGTH, "length"},
        {EVENT_FINISH, FINISH_ERROR, "error"},      {EVENT_CANCEL, FINISH_NONE, "abort"},
        {EVENT_CANCEL, FINISH_STOP, "stop"},        {EVENT_CANCEL, FINISH_LENGTH, "length"},
        {EVENT_REJECT, REJECT_QUEUE_FULL, "error"}, {EVENT_FAIL, FINISH_ERROR, "error"},
        {EVENT_REJECT, REJECT_TOO_LONG, "error"},
    };
    static const char *const labels[] = {"stop", "length", "abort", "error"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct prom *p = make_prom(&small, "sim");
        bool runs = ends[i].kind != EVENT_REJECT;
        send(p, 0, 7, EVENT_ARRIVE, 10, 0);
        if (runs) {
            send(p, 1, 7, EVENT_SCHEDULED, 1, 0);
            send(p, 2, 7, EVENT_TOKEN, 1, 0);
            send(p, 2, 7, EVENT_DELIVER, 1, 0);
            send_step(p, 1);
        }
        send(p, 3, 7, ends[i].kind, 0, ends[i].reason);
        scrape(p);
        bool well = strcmp(ends[i].label, "stop") == 0 || strcmp(ends[i].label, "length") == 0;
        for (size_t k = 0; k < 4; k++) {
            double want = strcmp(labels[k], ends[i].label) == 0 ? 1 : 0;
            if (get_success(labels[k]) != want) {
                fail_msg("row %zu: %s is %.0f", i, labels[k], get_success(labels[k]));
            }
        }
        assert_true(get("vllm:e2e_request_latency_seconds_count") == well);
        assert_true(get("vllm:time_to_first_token_seconds_count") == runs);
        prom_destroy(p);
    }
}

static void test_of_the_network(void **state)
{
    (void)state;
    struct prom *p = make_prom(&small, "sim");
    prom_request_params(p, 2, 64);
    prom_request_params(p, 1, 100);
    prom_request_done(p, 40);
    prom_client_disconnected(p);
    scrape(p);
    assert_true(get("vllm:request_params_n_sum") == 3 && get("vllm:request_params_n_count") == 2);
    assert_true(get("vllm:request_params_max_tokens_sum") == 164);
    assert_true(get("vllm:request_max_num_generation_tokens_sum") == 40);
    assert_true(get("vllm:http_requests_client_disconnected_total") == 1);
    prom_destroy(p);
}

/* Ids as the engine's thread makes them, many at once, in random order of ending. */
static void test_many_live_requests(void **state)
{
    (void)state;
    const struct world w = {.n = 1, .concurrency = 1000, .total_blocks = 9, .max_model_len = 9};
    struct prom *p = make_prom(&w, "sim");
    struct rng rng = rng_stream(3, 3);
    static uint64_t live[1000];
    uint32_t n = 0;
    uint64_t serial = 0;
    for (uint32_t i = 0; i < 200000; i++) {
        if (n < 1000 && rng_below(&rng, 1000) >= n / 2) {
            live[n] = serial++ * (1 << 20) + rng_below(&rng, 3) * n;
            send(p, 0, live[n++], EVENT_ARRIVE, 1, 0);
        } else if (n > 0) {
            uint32_t k = (uint32_t)rng_below(&rng, n);
            send(p, 0, live[k], EVENT_CANCEL, 0, 0);
            live[k] = live[--n];
        }
    }
    while (n > 0) {
        send(p, 0, live[--n], EVENT_CANCEL, 0, 0);
    }
    scrape(p);
    assert_true(get_success("abort") == (double)serial);
    prom_destroy(p);
}

/* ---- the text ---- */

/* vLLM 0.32's, from its vllm/v1/metrics/buckets.py, as its client library prints them. */
static const struct {
    const char *name;
    const char *bounds;
} vllm_buckets[] = {
    {"time_to_first_token_seconds",
     "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0 "
     "160.0 640.0 2560.0"},
    {"inter_token_latency_seconds", "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5 "
                                    "5.0 7.5 10.0 20.0 40.0 80.0"},
    {"request_time_per_output_token_seconds",
     "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0"},
    {"e2e_request_latency_seconds",
     "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 15.0 20.0 30.0 40.0 50.0 60.0 120.0 240.0 480.0 960.0 "
     "1920.0 7680.0"},
    {"request_queue_time_seconds", "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 7680.0"},
    {"request_inference_time_seconds", "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 7680.0"},
    {"request_prefill_time_seconds", "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 7680.0"},
    {"request_decode_time_seconds", "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 7680.0"},
    {"request_prompt_tokens", "1.0 2.0 5.0 10.0 20.0 50.0 100.0"},
    {"request_generation_tokens", "1.0 2.0 5.0 10.0 20.0 50.0 100.0"},
    {"request_params_max_tokens", "1.0 2.0 5.0 10.0 20.0 50.0 100.0"},
    {"request_max_num_generation_tokens", "1.0 2.0 5.0 10.0 20.0 50.0 100.0"},
    {"request_params_n", "1.0 2.0 5.0 10.0 20.0"},
    {"iteration_tokens_total", "1.0 8.0 16.0 32.0 64.0 128.0 256.0 512.0 1024.0 2048.0 4096.0 "
                               "8192.0 16384.0"},
};

static void test_names_and_buckets(void **state)
{
    (void)state;
    struct prom *p = make_prom(&small, "sim");
    scrape(p);
    for (size_t i = 0; i < sizeof vllm_buckets / sizeof vllm_buckets[0]; i++) {
        char bounds[512];
        snprintf(bounds, sizeof bounds, "%s", vllm_buckets[i].bounds);
        for (char *le = strtok(bounds, " "); le != NULL; le = strtok(NULL, " ")) {
            char name[256];
            snprintf(name, sizeof name, "vllm:%s_bucket{engine=\"0\",model_name=\"sim\",le=\"%s\"}",
                     vllm_buckets[i].name, le);
            assert_true(prom_text_get(&text, name) == 0);
        }
    }
    /* Up to the model's length, no further. */
    for (uint32_t i = 0; i < text.n; i++) {
        assert_null(strstr(text.series[i].name, "request_prompt_tokens_bucket{engine=\"0\","
                                                "model_name=\"sim\",le=\"200.0\"}"));
    }
    assert_true(prom_text_get(&text, "vllm:cache_config_info{block_size=\"4\","
                                     "enable_prefix_caching=\"False\",engine=\"0\","
                                     "num_gpu_blocks=\"40\"}") == 1);
    assert_true(get("vllm:prompt_tokens_cached_total") == 0);
    prom_destroy(p);
}

static void test_name_of_the_model_is_escaped(void **state)
{
    (void)state;
    struct prom *p = make_prom(&small, "a\"b\\c\nd} \xC3\xA9 \xFFx\xE2\x82");
    scrape(p);
    assert_true(prom_text_get(&text,
                              "vllm:num_preemptions_total{engine=\"0\",model_name="
                              "\"a\\\"b\\\\c\\nd} \xC3\xA9 \xEF\xBF\xBDx\xEF\xBF\xBD\"}") == 0);
    prom_destroy(p);
}

static void test_longest_model_fits(void **state)
{
    (void)state;
    struct world w = small;
    w.max_model_len = UINT32_MAX;
    struct prom *p = make_prom(&w, "sim");
    scrape(p);
    assert_true(prom_text_get(&text, "vllm:request_prompt_tokens_bucket{engine=\"0\","
                                     "model_name=\"sim\",le=\"2000000000.0\"}") == 0);
    prom_destroy(p);
}

static void test_refused_memory(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    struct prom *p = NULL;
    const struct prom_config config = {
        .model_name = "m", .total_blocks = 1, .block_tokens = 1, .max_model_len = 1, .max_jobs = 1};
    for (uint64_t nth = 1; nth <= 2; nth++) {
        mem_fail_at(nth, false);
        assert_status(prom_create(&config, &p, &err), STATUS_NO_MEMORY);
        assert_null(p);
    }
    mem_fail_at(3, false);
    assert_ok(prom_create(&config, &p, &err));
    mem_fail_at(0, false);
    prom_destroy(p);
}

/* ---- scrapes beside a running engine ---- */

struct beside {
    struct world w;
    struct prom *p;
    _Atomic bool is_over;
};

static void *run_beside(void *arg)
{
    struct beside *b = arg;
    for (int i = 0; i < (SANITIZED ? 3 : 20); i++) {
        run_world(&b->w, b->p, NULL);
    }
    atomic_store(&b->is_over, true);
    return NULL;
}

/* Every scrape is strictly right, and no count ever falls. */
static void test_scrapes_beside_the_engine(void **state)
{
    (void)state;
    static struct prom_text before;
    struct beside b = {.w = {.policy = "continuous",
                             .n = MAX_REQUESTS,
                             .concurrency = 40,
                             .total_blocks = 80,
                             .max_model_len = 100}};
    make_requests(&b.w);
    b.p = make_prom(&b.w, "sim");
    scrape(b.p);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_beside, &b), 0);
    uint32_t n_scrapes = 0;
    do {
        before = text;
        scrape(b.p);
        n_scrapes++;
        assert_int_equal(text.n, before.n);
        for (uint32_t i = 0; i < text.n; i++) {
            bool counts = strstr(text.series[i].name, "_total") != NULL ||
                          strstr(text.series[i].name, "_seconds") != NULL;
            assert_true(!counts || text.series[i].value >= before.series[i].value);
        }
    } while (!atomic_load(&b.is_over));
    pthread_join(thread, NULL);
    print_message("%u scrapes\n", n_scrapes);
    prom_destroy(b.p);
}

int main(void)
{
    log_set_level(LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invariants_of_vllm),
        cmocka_unit_test(test_against_the_recorder),
        cmocka_unit_test(test_gauges),
        cmocka_unit_test(test_ends_by_reason),
        cmocka_unit_test(test_of_the_network),
        cmocka_unit_test(test_many_live_requests),
        cmocka_unit_test(test_names_and_buckets),
        cmocka_unit_test(test_name_of_the_model_is_escaped),
        cmocka_unit_test(test_longest_model_fits),
        cmocka_unit_test(test_refused_memory),
        cmocka_unit_test(test_scrapes_beside_the_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
