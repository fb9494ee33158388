/* sample.h - results made by formula, for tests of writers, readers, texts and charts. */
#ifndef TESTS_REPORT_SAMPLE_H
#define TESTS_REPORT_SAMPLE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/rng.h"
#include "report/results.h"

/* Everything that a format could trip over, without NUL. */
#define HOSTILE_TEXT                                                                               \
    "=cmd|' /C calc'!A0,\"quoted\"\r\n second line\n,,\r lone CR \t tab \\ \xE2\x80\xA8 U+2028 "   \
    "\xF0\x9F\x98\x80 \xC3\xA9 trailing quote\""

static inline char *copy(const char *text)
{
    char *p = mem_strdup(text);
    assert_non_null(p);
    return p;
}

static inline struct latency_figures sample_figures(double base)
{
    return (struct latency_figures){.p50_s = base,
                                    .p95_s = base * 1.6,
                                    .p99_s = base * 1.9,
                                    .avg_s = base * 1.1,
                                    .min_s = base * 0.3,
                                    .max_s = base * 2.0};
}

static inline struct request_row sample_row(uint64_t id, double latency, bool one_piece)
{
    char text[96];
    snprintf(text, sizeof text, "answer %llu", (unsigned long long)id);
    return (struct request_row){.request_id = id,
                                .status = RECORD_OK,
                                .arrival_s = 0.1 * (double)id,
                                .queue_s = latency * 0.25,
                                .ttft_s = one_piece ? latency : latency * 0.3,
                                .tpot_s = one_piece ? (double)NAN : latency * 0.03,
                                .latency_s = latency,
                                .input_tokens = 16 + id % 7,
                                .output_tokens = 20,
                                .tokens_per_sec = 20.0 / latency,
                                .batch_size = 4,
                                .output_hash = results_hash(text, strlen(text)),
                                .prompt = copy(id % 5 == 3 ? HOSTILE_TEXT : "Tell me a story"),
                                .generated_text = copy(text),
                                .error = copy(""),
                                .http_status = COUNT_UNKNOWN,
                                .longest_gap_s = (double)NAN};
}

/* speed: 1.0 is the slowest scheduler. A static one (one_piece) has no TPOT. */
static inline struct run sample_run(const char *label, const char *policy, uint64_t size,
                                    uint64_t run_num, double speed, bool one_piece)
{
    struct rng rng = rng_stream(size * 1000 + run_num, (uint64_t)(speed * 1000.0));
    double noise = 1.0 + 0.04 * (rng_real(&rng) - 0.5);
    double wall = (double)size / (7.5 * speed * noise);
    double latency = 1.2 / (speed * noise);
    struct run run;
    run_init(&run);
    run.scheduler = copy(label);
    run.policy = copy(policy);
    run.params = copy("batch_size=4 timeout=0.5 pad=true");
    run.fill_target = 4;
    run.request_size = size;
    run.run_num = run_num;
    run.seed = 42 + run_num;
    run.summary =
        (struct run_summary){.total_requests = size,
                             .successful_requests = size,
                             .wall_time_s = wall,
                             .throughput_req_per_sec = (double)size / wall,
                             .throughput_tokens_per_sec = (double)size * 20.0 / wall,
                             .latency = sample_figures(latency),
                             .ttft = sample_figures(one_piece ? latency : latency * 0.3),
                             .tpot = sample_figures(one_piece ? (double)NAN : latency * 0.03),
                             .queue = sample_figures(latency * 0.25),
                             .tpot_samples = one_piece ? 0 : size,
                             .mean_batch_size = 3.5,
                             .batch_efficiency = 0.8125,
                             .computed_rows = 1000,
                             .padding_tokens = one_piece ? 187 : 0,
                             .output_tokens = size * 20,
                             .kv_peak_blocks = 12,
                             .steps = 300,
                             .useful_s = wall * 0.5,
                             .padding_s = wall * (one_piece ? 0.1 : 0.0),
                             .recompute_s = 0.0,
                             .fill_wait_s = wall * (one_piece ? 0.3 : 0.0),
                             .idle_s = wall * (one_piece ? 0.05 : 0.45),
                             .overhead_s = wall * 0.05,
                             .engine_idle_frac = one_piece ? 0.35 : 0.45,
                             .plan_mean_us = 3.25,
                             .peak_rss_bytes = 700000000};
    run.rows = mem_alloc(size, sizeof *run.rows);
    assert_non_null(run.rows);
    run.n_rows = size;
    for (uint64_t i = 0; i < size; i++) {
        double spread = 0.5 + rng_real(&rng) + (i % 19 == 7 ? 1.5 : 0.0);
        run.rows[i] = sample_row(i, latency * spread, one_piece);
    }
    return run;
}

/* A row over HTTP: the figures of an engine are unknown. */
static inline struct run sample_remote_run(const char *label, uint64_t size, uint64_t run_num)
{
    struct run run = sample_run(label, "vllm", size, run_num, 1.7, false);
    struct run unknown;
    run_init(&unknown);
    struct run_summary s = unknown.summary;
    s.total_requests = run.summary.total_requests;
    s.successful_requests = run.summary.successful_requests;
    s.wall_time_s = run.summary.wall_time_s;
    s.throughput_req_per_sec = run.summary.throughput_req_per_sec;
    s.throughput_tokens_per_sec = run.summary.throughput_tokens_per_sec;
    s.latency = run.summary.latency;
    s.ttft = run.summary.ttft;
    s.tpot = run.summary.tpot;
    s.tpot_samples = run.summary.tpot_samples;
    s.output_tokens = run.summary.output_tokens;
    run.summary = s;
    run.fill_target = 0;
    run.remote = (struct remote_figures){.endpoint = copy("http://127.0.0.1:8000/v1/completions"),
                                         .served_model = copy("SmolLM2-135M-Instruct"),
                                         .server_version = copy("0.11.0"),
                                         .token_source = copy("usage"),
                                         .errors = copy(""),
                                         .server_prompt_tokens = size * 17,
                                         .cached_prompt_frac = 0.25,
                                         .tokens_per_event = 1.0,
                                         .client_lag_p50_s = 2e-5,
                                         .client_lag_p99_s = 2e-4,
                                         .client_cpu_frac = 0.03};
    for (size_t i = 0; i < run.n_rows; i++) {
        run.rows[i].queue_s = (double)NAN;
        run.rows[i].batch_size = COUNT_UNKNOWN;
        run.rows[i].preemptions = COUNT_UNKNOWN;
        run.rows[i].output_hash = 0;
        run.rows[i].http_status = 200;
        run.rows[i].longest_gap_s = 0.06;
    }
    return run;
}

static inline struct server_facts sample_server(const char *label, const char *state)
{
    bool ok = strcmp(state, SERVER_OK) == 0;
    return (struct server_facts){.scheduler = copy(label),
                                 .endpoint = copy("http://127.0.0.1:8000/v1/completions"),
                                 .state = copy(state),
                                 .why = copy(ok ? "" : "connection refused"),
                                 .model = copy(ok ? "SmolLM2-135M-Instruct" : ""),
                                 .version = copy(ok ? "0.11.0" : ""),
                                 .dtype = copy(""),
                                 .cache_config = copy(ok ? "block_size=\"16\"" : ""),
                                 .max_model_len = ok ? 2048 : COUNT_UNKNOWN,
                                 .refused_fields = copy(ok ? "top_k, seed" : "")};
}

static inline void sample_head(struct results *r)
{
    *r = (struct results){.environment = {.llmsched_version = copy("0.1.0"),
                                          .commit = copy("0123abcd"),
                                          .compiler = copy("gcc 12"),
                                          .command_line = copy("llmsched bench --seed 42"),
                                          .started_at = copy("2026-11-24T07:00:00Z"),
                                          .cpu = copy("Test CPU \"9000\", x2"),
                                          .isa = copy("avx2"),
                                          .kernel = copy("6.1"),
                                          .cores = 2,
                                          .threads = 2,
                                          .memory_bytes = 8000000000},
                          .model = {.name = copy("SmolLM2-135M-Instruct"),
                                    .path = copy("models/smol.gguf"),
                                    .architecture = copy("llama"),
                                    .format = copy("gguf"),
                                    .dtype = copy("f32"),
                                    .kv_dtype = copy("bf16"),
                                    .tokenizer = copy("gguf (gpt2, smollm)"),
                                    .parameters = 134515008},
                          .settings = {.workload = copy("short"),
                                       .device = copy("cpu"),
                                       .max_concurrent = 10,
                                       .max_new_tokens = 20,
                                       .kv_blocks = 4096,
                                       .block_tokens = 16,
                                       .max_queue = 4096,
                                       .warmup_requests = 20,
                                       .seed = 42,
                                       .temperature = 0.7,
                                       .top_k = 50,
                                       .top_p = 0.95}};
}

static const struct sample_scheduler {
    const char *label;
    const char *policy;
    double speed;
    bool one_piece;
} sample_schedulers[] = {
    {"naive", "naive", 1.0, true},
    {"dynamic", "dynamic", 1.3, true},
    {"continuous", "continuous", 2.1, false},
    {"naive-batch-10", "naive", 1.2, true},
    {"dynamic-always-growing", "dynamic", 1.05, true},
    {"continuous-small-budget", "continuous", 1.9, false},
};

/* n_schedulers (up to 6) x n_sizes of 25, 50, 100 x n_runs, runs interleaved. */
static inline void sample_results(struct results *r, size_t n_schedulers, size_t n_sizes,
                                  uint64_t n_runs)
{
    static const uint64_t sizes[] = {25, 50, 100};
    sample_head(r);
    r->settings.runs_planned = n_schedulers * n_sizes * n_runs;
    for (size_t k = 0; k < n_sizes; k++) {
        for (uint64_t run_num = 1; run_num <= n_runs; run_num++) {
            for (size_t s = 0; s < n_schedulers; s++) {
                const struct sample_scheduler *p = &sample_schedulers[s];
                struct run run =
                    sample_run(p->label, p->policy, sizes[k], run_num, p->speed, p->one_piece);
                struct error err = ERROR_INIT;
                if (results_add(r, &run, &err) != STATUS_OK) {
                    fail_msg("%s", err.message);
                }
            }
        }
    }
}

/* n_local schedulers in process, and then `vllm`, one size, three runs; a server `away` that did
 * not answer. */
static inline void sample_with_server(struct results *r, size_t n_local)
{
    sample_results(r, n_local, 1, 3);
    r->settings.runs_planned += 3;
    for (uint64_t run_num = 1; run_num <= 3; run_num++) {
        struct run run = sample_remote_run("vllm", 25, run_num);
        assert_int_equal(results_add(r, &run, NULL), STATUS_OK);
    }
    struct server_facts facts = sample_server("vllm", SERVER_OK);
    assert_int_equal(results_set_server(r, &facts, NULL), STATUS_OK);
    facts = sample_server("away", SERVER_UNREACHABLE);
    assert_int_equal(results_set_server(r, &facts, NULL), STATUS_OK);
}

/* A fresh folder below TMPDIR; remove_dir takes it and all in it away. */
static inline char *make_dir(void)
{
    const char *base = getenv("TMPDIR");
    char *path = fs_join(base != NULL ? base : "/tmp", "llmsched-test-XXXXXX");
    assert_non_null(path);
    assert_non_null(mkdtemp(path));
    return path;
}

static inline void remove_dir(char *path)
{
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
    mem_free(path);
}

static inline char *read_whole(const char *dir, const char *name, size_t *len)
{
    char *path = fs_join(dir, name);
    char *data = NULL;
    struct error err = ERROR_INIT;
    if (fs_read_file(path, (size_t)1 << 28, &data, len, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    mem_free(path);
    return data;
}

#endif
