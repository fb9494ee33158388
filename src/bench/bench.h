/*
 * bench.h - the main job: a matrix of (size, run, scheduler) cells on one loaded model.
 *
 *   prepare   files, prompts, servers, checks: nothing large is allocated, --dry-run stops here
 *   execute   load weights once; per cell: fresh policy and engine, warm-up, run, journal line
 *   save      CSV, JSON from the runs, each written whole
 *
 * Cells: for each size, run 1 of every scheduler, then run 2 ..., the order of schedulers rotating
 * by one each run, so that drift of the machine hits all alike. Run r uses seed + r for every
 * scheduler: same requests, same sample keys.
 */
#ifndef LLMSCHED_BENCH_BENCH_H
#define LLMSCHED_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/status.h"
#include "base/strbuf.h"
#include "bench/loaded_model.h"
#include "bench/scheduler_spec.h"
#include "load/workload.h"
#include "report/results.h"

#define BENCH_SUMMARIES_NAME "benchmark_summaries.csv"
#define BENCH_METRICS_NAME   "benchmark_detailed_metrics.csv"
#define BENCH_RESULTS_NAME   "benchmark_results.json"
#define BENCH_REPORT_NAME    "benchmark_report.txt"

#define BENCH_MAX_SIZES      64
#define BENCH_MAX_SIZE       1000000
#define BENCH_MAX_SCHEDULERS 32
#define BENCH_MAX_RUNS       1000

/* For rows over HTTP. */
struct remote_options {
    const char *endpoint;     /* of rows that name none */
    const char *api_key;      /* NULL: none */
    const char *ca_file;      /* NULL: the system's */
    const char *served_model; /* NULL: what the server says */
    uint64_t request_timeout_ns;
};

struct bench_options {
    struct model_options model;
    struct remote_options remote;
    uint32_t sizes[BENCH_MAX_SIZES];
    uint32_t n_sizes;
    uint32_t runs;
    struct scheduler_spec *specs; /* borrowed */
    uint32_t n_specs;
    uint32_t max_concurrent;
    uint32_t max_queue;
    uint32_t max_new_tokens;
    uint32_t warmup; /* requests before each run, not recorded */
    enum workload_kind workload;
    struct sampling sampling;
    bool ignore_eos;
    uint64_t seed;
    const char *prompts_path; /* NULL: built-in */
    const char *output_dir;
    const char *command_line;
    bool resume;
    bool csv_safe;
    bool dry_run; /* prepare leaves the output folder alone */
};

/* What a caller shows. print: text for stdout; progress: over all requests of the matrix. */
struct bench_hooks {
    void (*print)(void *self, const char *text);
    void *self;
    const struct progress *progress;
    const volatile int *stop; /* non-zero: stop, keep what is finished */
};

struct bench;

/* Errors: what the model's files, the prompts, the folder (unwritable, full), the servers and the
 * memory say. With rows over HTTP alone no model is needed, and UNREACHABLE says that none answers;
 * beside rows in process a server that does not answer is marked so and left out. */
enum status bench_prepare(const struct bench_options *options, struct bench **out,
                          struct error *err) MUST_USE;
void bench_destroy(struct bench *b);

/* Cells, requests, memory and estimated time, as text (for --dry-run). Measures the machine for
 * about 0.2 s. */
enum status bench_describe(struct bench *b, struct strbuf *out, struct error *err) MUST_USE;

/* UNREACHABLE: a server was lost on the way; the runs that could be made are there. INTERRUPTED:
 * results hold the finished runs and are marked partial. Any other error: the same,
 * so that they can still be saved. */
enum status bench_execute(struct bench *b, const struct bench_hooks *hooks,
                          struct error *err) MUST_USE;

/* Writes the two CSVs and the JSON into output_dir. */
enum status bench_save(struct bench *b, struct error *err) MUST_USE;

/* Borrowed, valid until destroy. */
struct results *bench_results(struct bench *b);

#endif
