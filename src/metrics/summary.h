/*
 * summary.h - one run in numbers: the row of benchmark_summaries.csv.
 *
 * Definitions: docs/METRICS.md. A figure that is undefined for a run (TPOT of a static batch, steps
 * of a server that is not ours) is NaN or COUNT_UNKNOWN here and an empty cell in files, never 0.
 * Latencies are of successful requests only.
 */
#ifndef LLMSCHED_METRICS_SUMMARY_H
#define LLMSCHED_METRICS_SUMMARY_H

#include <stdint.h>

#include "base/status.h"
#include "metrics/recorder.h"

/* A count that is not known. */
#define COUNT_UNKNOWN UINT64_MAX

/* Quantiles are type 7 (linear), exact, from all samples. */
struct latency_figures {
    double p50_s, p95_s, p99_s, avg_s, min_s, max_s;
};

struct run_summary {
    uint64_t total_requests;
    uint64_t successful_requests;
    uint64_t failed_requests; /* failed, rejected and cancelled */
    double wall_time_s;       /* first send to last terminal event */
    double throughput_req_per_sec;
    double throughput_tokens_per_sec;
    struct latency_figures latency; /* last delivery - arrival */
    struct latency_figures ttft;    /* first delivery - arrival */
    struct latency_figures tpot;    /* (t_m - t_1) / (N - n_1) */
    struct latency_figures queue;   /* first scheduled - arrival */
    uint64_t tpot_samples;
    double mean_batch_size;  /* sequences per step, finished members included */
    double batch_efficiency; /* useful rows / computed rows */
    uint64_t computed_rows;
    uint64_t padding_tokens;
    uint64_t recomputed_tokens;
    uint64_t output_tokens; /* of successful requests */
    uint64_t kv_peak_blocks;
    uint64_t preemptions;
    uint64_t steps;
    double useful_s; /* wall time split; the six sum to wall_time_s within rounding */
    double padding_s;
    double recompute_s;
    double fill_wait_s;
    double idle_s;
    double overhead_s;       /* wall - steps - waits: planning and the loop */
    double engine_idle_frac; /* (fill + idle) / wall */
    double plan_mean_us;
    uint64_t peak_rss_bytes; /* set by the bench */
};

/* Figures of one request, in seconds; NaN: undefined. */
double record_queue_s(const struct record *r);   /* first scheduled - arrival */
double record_ttft_s(const struct record *r);    /* first delivery - arrival */
double record_latency_s(const struct record *r); /* last delivery - arrival; successes only */
double record_tpot_s(const struct record *r);    /* (t_m - t_1) / (N - n_1); successes only */

/* Of n records and the totals of their run. peak_rss_bytes stays unknown. Errors: NO_MEMORY;
 * INVALID when steps and waits overlap, so that the split of the wall time would be wrong. */
enum status summary_from_records(const struct record *records, uint32_t n,
                                 const struct run_totals *totals, struct run_summary *out,
                                 struct error *err) MUST_USE;

#endif
