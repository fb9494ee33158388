/* summary.c - see summary.h. */
#include "metrics/summary.h"

#include <assert.h>
#include <math.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "metrics/stats.h"

/* Seconds from a to b; NaN when either did not happen. */
static double span_s(uint64_t a, uint64_t b)
{
    if (a == TIME_NEVER || b == TIME_NEVER) {
        return (double)NAN;
    }
    assert(b >= a);
    return monotime_seconds(b - a);
}

double record_queue_s(const struct record *r)
{
    return span_s(r->arrival_ns, r->scheduled_ns);
}

double record_ttft_s(const struct record *r)
{
    return span_s(r->arrival_ns, r->first_deliver_ns);
}

double record_latency_s(const struct record *r)
{
    if (r->status != RECORD_OK) {
        return (double)NAN;
    }
    /* An answer without a text (or with an end token alone) is complete at its terminal event. */
    return span_s(r->arrival_ns, r->last_deliver_ns != TIME_NEVER ? r->last_deliver_ns : r->end_ns);
}

double record_tpot_s(const struct record *r)
{
    if (r->status != RECORD_OK || r->output_tokens <= r->first_tokens) {
        return (double)NAN;
    }
    return span_s(r->first_deliver_ns, r->last_deliver_ns) /
           (double)(r->output_tokens - r->first_tokens);
}

/* Figures of one quantity over all successful requests; values is scratch for all of them. */
static struct latency_figures figures(const struct record *records, uint32_t n_records,
                                      double (*value_of)(const struct record *), double *values,
                                      uint64_t *samples)
{
    size_t n = 0;
    for (uint32_t i = 0; i < n_records; i++) {
        double v = records[i].status == RECORD_OK ? value_of(&records[i]) : (double)NAN;
        if (!isnan(v)) {
            values[n++] = v;
        }
    }
    stats_sort(values, n);
    if (samples != NULL) {
        *samples = n;
    }
    return (struct latency_figures){.p50_s = stats_quantile_sorted(values, n, 0.50),
                                    .p95_s = stats_quantile_sorted(values, n, 0.95),
                                    .p99_s = stats_quantile_sorted(values, n, 0.99),
                                    .avg_s = stats_mean(values, n),
                                    .min_s = stats_quantile_sorted(values, n, 0.0),
                                    .max_s = stats_quantile_sorted(values, n, 1.0)};
}

/* 0 / 0 is undefined, not 0. */
static double quotient(uint64_t a, uint64_t b)
{
    return b > 0 ? (double)a / (double)b : (double)NAN;
}

/* Steps and gaps may overlap by the grain of the clock, not by more. */
#define OVERLAP_SLACK_NS      NS_PER_MS
#define OVERLAP_SLACK_DIVISOR 1000 /* and a thousandth of the wall time */

static enum status split_wall(const struct run_totals *t, uint64_t wall, struct run_summary *s,
                              struct error *err)
{
    uint64_t known = t->step_ns + t->fill_ns + t->idle_ns;
    if (known > wall && known - wall > OVERLAP_SLACK_NS + wall / OVERLAP_SLACK_DIVISOR) {
        return error_set(err, STATUS_INVALID, -1,
                         "steps and waits add up to %.6f s, more than the wall time of %.6f s",
                         monotime_seconds(known), monotime_seconds(wall));
    }
    s->useful_s = monotime_seconds(t->useful_ns);
    s->padding_s = monotime_seconds(t->pad_ns);
    s->recompute_s = monotime_seconds(t->recompute_ns);
    s->fill_wait_s = monotime_seconds(t->fill_ns);
    s->idle_s = monotime_seconds(t->idle_ns);
    s->overhead_s = wall > known ? monotime_seconds(wall - known) : 0.0;
    s->engine_idle_frac = quotient(t->fill_ns + t->idle_ns, wall);
    return STATUS_OK;
}

static void count_requests(const struct record *records, uint32_t n, struct run_summary *s)
{
    s->total_requests = n;
    for (uint32_t i = 0; i < n; i++) {
        if (records[i].status == RECORD_OK) {
            s->successful_requests++;
            s->output_tokens += records[i].output_tokens;
        }
    }
    /* What never ended is no success either. */
    s->failed_requests = s->total_requests - s->successful_requests;
}

static void fill_steps(const struct run_totals *t, struct run_summary *s)
{
    s->mean_batch_size = quotient(t->sequence_steps, t->n_steps);
    s->computed_rows = t->useful_rows + t->pad_rows + t->recomputed_rows;
    s->batch_efficiency = quotient(t->useful_rows, s->computed_rows);
    s->padding_tokens = t->pad_rows;
    s->recomputed_tokens = t->recomputed_rows;
    s->kv_peak_blocks = t->kv_peak_blocks;
    s->preemptions = t->preemptions;
    s->steps = t->n_steps;
    s->plan_mean_us = quotient(t->plan_ns, t->n_steps) * 1e-3;
}

static void leave_steps_unknown(struct run_summary *s)
{
    double *reals[] = {&s->mean_batch_size,  &s->batch_efficiency, &s->useful_s, &s->padding_s,
                       &s->recompute_s,      &s->fill_wait_s,      &s->idle_s,   &s->overhead_s,
                       &s->engine_idle_frac, &s->plan_mean_us};
    uint64_t *counts[] = {&s->computed_rows,  &s->padding_tokens, &s->recomputed_tokens,
                          &s->kv_peak_blocks, &s->preemptions,    &s->steps};
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        *reals[i] = (double)NAN;
    }
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        *counts[i] = COUNT_UNKNOWN;
    }
}

enum status summary_from_records(const struct record *records, uint32_t n,
                                 const struct run_totals *t, struct run_summary *out,
                                 struct error *err)
{
    struct run_summary s = {.peak_rss_bytes = COUNT_UNKNOWN};
    uint64_t wall = t->last_end_ns > t->first_send_ns ? t->last_end_ns - t->first_send_ns : 0;
    if (t->steps_unknown) {
        leave_steps_unknown(&s);
    } else {
        enum status status = split_wall(t, wall, &s, err);
        if (status != STATUS_OK) {
            return status;
        }
        fill_steps(t, &s);
    }
    double *values = mem_alloc(n > 0 ? n : 1, sizeof *values);
    if (values == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory to sort %u latencies", n);
    }
    count_requests(records, n, &s);
    s.wall_time_s = monotime_seconds(wall);
    /* Always numbers: nothing done in no time is a rate of 0. */
    s.throughput_req_per_sec = wall > 0 ? (double)s.successful_requests / s.wall_time_s : 0.0;
    s.throughput_tokens_per_sec = wall > 0 ? (double)s.output_tokens / s.wall_time_s : 0.0;
    s.latency = figures(records, n, record_latency_s, values, NULL);
    s.ttft = figures(records, n, record_ttft_s, values, NULL);
    s.tpot = figures(records, n, record_tpot_s, values, &s.tpot_samples);
    s.queue = figures(records, n, record_queue_s, values, NULL);
    mem_free(values);
    *out = s;
    return STATUS_OK;
}
