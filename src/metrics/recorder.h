/*
 * recorder.h - events of one run in, one record per request and the run's totals out.
 *
 * It is an event_sink: the engine and the simulator feed it. The remote client makes records
 * itself; summary.h turns either kind into figures, so every row of a comparison is measured by the
 * same code. All memory is taken at creation (requests and their max_new_tokens are known), none
 * while events arrive. Each event costs O(1). An event out of order (a token before SCHEDULED, a
 * second terminal event, more tokens than asked for) is a bug of its sender and aborts.
 * Definitions: docs/METRICS.md.
 */
#ifndef LLMSCHED_METRICS_RECORDER_H
#define LLMSCHED_METRICS_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/request.h"
#include "base/status.h"

enum record_status { RECORD_PENDING, RECORD_OK, RECORD_FAILED, RECORD_REJECTED, RECORD_CANCELLED };

const char *record_status_name(enum record_status s); /* "ok", "failed", "rejected", "cancelled" */

struct record {
    uint64_t arrival_ns;       /* TIME_NEVER: did not arrive */
    uint64_t scheduled_ns;     /* first time in a step; TIME_NEVER: never */
    uint64_t first_deliver_ns; /* TIME_NEVER: nothing delivered */
    uint64_t last_deliver_ns;
    uint64_t end_ns; /* terminal event */
    uint32_t input_tokens;
    uint32_t output_tokens; /* delivered */
    uint32_t first_tokens;  /* n_1: tokens in the first delivery */
    uint32_t batch_size;    /* sequences in the step that first ran it */
    uint32_t preemptions;
    enum record_status status;
    uint32_t reason;       /* enum reject_reason or finish_reason, by status */
    const int32_t *tokens; /* output_tokens ids; owner: the recorder */
};

/* Of steps and waits, the time between first_send_ns and last_end_ns counts. */
struct run_totals {
    bool steps_unknown;     /* a server's: all but the next two are not known */
    uint64_t first_send_ns; /* earliest arrival */
    uint64_t last_end_ns;   /* latest terminal event */
    uint64_t n_steps;
    uint64_t step_ns; /* sum of step durations */
    uint64_t plan_ns;
    uint64_t useful_ns; /* step time x useful / computed rows, summed */
    uint64_t pad_ns;    /* step time x pad / computed rows */
    uint64_t recompute_ns;
    uint64_t fill_ns; /* engine idle while requests waited */
    uint64_t idle_ns; /* engine idle, nothing waited */
    uint64_t useful_rows;
    uint64_t pad_rows;
    uint64_t recomputed_rows;
    uint64_t live_sequence_steps; /* sum over steps of live sequences */
    uint64_t sequence_steps;      /* sum over steps of sequences, finished members included */
    uint64_t preemptions;
    uint32_t kv_peak_blocks;
};

struct recorder;

/* requests: the n requests of the run, ids 0 .. n-1 in order; borrowed until destroy. */
enum status recorder_create(const struct request *requests, uint32_t n, struct recorder **out,
                            struct error *err) MUST_USE;
void recorder_destroy(struct recorder *r);
struct event_sink recorder_sink(struct recorder *r);

uint32_t recorder_count(const struct recorder *r);
const struct record *recorder_record(const struct recorder *r, uint32_t id);
const struct record *recorder_records(const struct recorder *r); /* all, by id */
const struct run_totals *recorder_totals(const struct recorder *r);
/* Requests without a terminal event (0 after a clean run). */
uint32_t recorder_pending(const struct recorder *r);

#endif
