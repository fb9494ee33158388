/* Summaries of small timelines, worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "metrics/summary.h"
#include "timeline.h"

#define NEAR(actual, expected)                                                                     \
    do {                                                                                           \
        double a_ = (actual);                                                                      \
        double e_ = (expected);                                                                    \
        if (!(fabs(a_ - e_) <= 1e-9)) {                                                            \
            fail_msg("%s = %.17g, expected %.17g", #actual, a_, e_);                               \
        }                                                                                          \
    } while (0)

static enum status summary_of(const struct recorder *r, struct run_summary *out, struct error *err)
{
    return summary_from_records(recorder_records(r), recorder_count(r), recorder_totals(r), out,
                                err);
}

static struct run_summary summarise(const struct recorder *r)
{
    struct run_summary s;
    struct error err = ERROR_INIT;
    if (summary_of(r, &s, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    double parts =
        s.useful_s + s.padding_s + s.recompute_s + s.fill_wait_s + s.idle_s + s.overhead_s;
    NEAR(parts, s.wall_time_s);
    return s;
}

/*
 * Continuous, two requests of 3 and 2 tokens:
 *   ms   0 A0   5 A1   10 step [10,30] both prefill   30 A0: token 1, A1: token 1
 *        step [30,50]: token 2 of both, A1 ends       step [52,62]: token 3 of A0, ends
 */
static struct recorder *streaming_run(struct request requests[2])
{
    make_requests(requests, 2, 4, 3);
    struct recorder *r = NULL;
    assert_int_equal(recorder_create(requests, 2, &r, NULL), STATUS_OK);
    send(r, 0, 0, EVENT_ARRIVE, 0, 0);
    send(r, 5, 1, EVENT_ARRIVE, 0, 0);
    send(r, 10, 0, EVENT_SCHEDULED, 2, 0);
    send(r, 10, 1, EVENT_SCHEDULED, 2, 0);
    for (uint64_t id = 0; id < 2; id++) {
        send(r, 30, id, EVENT_TOKEN, 1, 0);
        send(r, 30, id, EVENT_DELIVER, 1, 0);
    }
    step(r, 10, 30,
         (struct step_record){.sequences = 2,
                              .live_sequences = 2,
                              .useful_rows = 8,
                              .plan_ns = 2000,
                              .kv_blocks_used = 2});
    for (uint64_t id = 0; id < 2; id++) {
        send(r, 50, id, EVENT_TOKEN, 1, 0);
        send(r, 50, id, EVENT_DELIVER, 1, 0);
    }
    send(r, 50, 1, EVENT_FINISH, 0, FINISH_STOP);
    step(r, 30, 50,
         (struct step_record){.sequences = 2,
                              .live_sequences = 2,
                              .useful_rows = 2,
                              .plan_ns = 1000,
                              .kv_blocks_used = 3});
    send(r, 62, 0, EVENT_TOKEN, 1, 0);
    send(r, 62, 0, EVENT_DELIVER, 1, 0);
    send(r, 62, 0, EVENT_FINISH, 0, FINISH_LENGTH);
    step(r, 52, 62,
         (struct step_record){.sequences = 1,
                              .live_sequences = 1,
                              .useful_rows = 1,
                              .plan_ns = 3000,
                              .kv_blocks_used = 1});
    return r;
}

static void test_streaming_latencies(void **state)
{
    (void)state;
    struct request requests[2];
    struct recorder *r = streaming_run(requests);
    struct run_summary s = summarise(r);
    assert_int_equal(s.total_requests, 2);
    assert_int_equal(s.successful_requests, 2);
    assert_int_equal(s.failed_requests, 0);
    assert_int_equal(s.output_tokens, 5);
    NEAR(s.wall_time_s, 0.062);
    NEAR(s.throughput_req_per_sec, 2 / 0.062);
    NEAR(s.throughput_tokens_per_sec, 5 / 0.062);
    NEAR(s.latency.min_s, 0.045);
    NEAR(s.latency.max_s, 0.062);
    NEAR(s.latency.avg_s, 0.0535);
    NEAR(s.latency.p50_s, 0.0535);
    NEAR(s.latency.p95_s, 0.045 + 0.95 * 0.017);
    recorder_destroy(r);
}

static void test_streaming_tokens_and_steps(void **state)
{
    (void)state;
    struct request requests[2];
    struct recorder *r = streaming_run(requests);
    struct run_summary s = summarise(r);
    NEAR(s.ttft.min_s, 0.025);
    NEAR(s.ttft.max_s, 0.030);
    NEAR(s.queue.min_s, 0.005);
    NEAR(s.queue.max_s, 0.010);
    assert_int_equal(s.tpot_samples, 2);
    NEAR(s.tpot.max_s, 0.020); /* request 1: (50 - 30) / 1 */
    NEAR(s.tpot.min_s, 0.016); /* request 0: (62 - 30) / 2 */
    NEAR(s.mean_batch_size, 5 / 3.0);
    NEAR(s.batch_efficiency, 1.0);
    assert_int_equal(s.computed_rows, 11);
    assert_int_equal(s.steps, 3);
    assert_int_equal(s.kv_peak_blocks, 3);
    NEAR(s.plan_mean_us, 2.0);
    NEAR(s.useful_s, 0.050);
    NEAR(s.overhead_s, 0.012);
    NEAR(s.engine_idle_frac, 0.0);
    recorder_destroy(r);
}

/* Static batch: all tokens at the end, so TPOT is undefined and TTFT is the latency. Request 1 is
 * done after one token and costs pad rows from then on. */
static void test_static_batch(void **state)
{
    (void)state;
    struct request requests[2];
    make_requests(requests, 2, 4, 3);
    struct recorder *r = NULL;
    assert_int_equal(recorder_create(requests, 2, &r, NULL), STATUS_OK);
    send(r, 0, 0, EVENT_ARRIVE, 0, 0);
    send(r, 0, 1, EVENT_ARRIVE, 0, 0);
    gap(r, 0, 100, true);
    send(r, 100, 0, EVENT_SCHEDULED, 2, 0);
    send(r, 100, 1, EVENT_SCHEDULED, 2, 0);
    step(
        r, 100, 180,
        (struct step_record){.sequences = 2, .live_sequences = 2, .useful_rows = 6, .pad_rows = 2});
    send(r, 180, 0, EVENT_TOKEN, 1, 0);
    send(r, 180, 1, EVENT_TOKEN, 1, 0);
    step(
        r, 180, 200,
        (struct step_record){.sequences = 2, .live_sequences = 1, .useful_rows = 1, .pad_rows = 1});
    send(r, 200, 0, EVENT_TOKEN, 1, 0);
    send(r, 200, 0, EVENT_DELIVER, 2, 0);
    send(r, 200, 1, EVENT_DELIVER, 1, 0);
    send(r, 200, 0, EVENT_FINISH, 0, FINISH_STOP);
    send(r, 200, 1, EVENT_FINISH, 0, FINISH_STOP);
    struct run_summary s = summarise(r);
    assert_int_equal(s.tpot_samples, 0);
    assert_true(isnan(s.tpot.p50_s) && isnan(s.tpot.avg_s) && isnan(s.tpot.max_s));
    NEAR(s.ttft.p50_s, 0.200);
    NEAR(s.latency.p99_s, 0.200);
    NEAR(s.mean_batch_size, 2.0); /* finished members included */
    NEAR(s.batch_efficiency, 0.7);
    assert_int_equal(s.padding_tokens, 3);
    NEAR(s.fill_wait_s, 0.100);
    NEAR(s.engine_idle_frac, 0.5);
    NEAR(s.useful_s, 0.060 + 0.010);
    NEAR(s.padding_s, 0.020 + 0.010);
    recorder_destroy(r);
}

/* One of each end: only the success has a latency, the others count as failed. */
static void test_failures(void **state)
{
    (void)state;
    struct request requests[5];
    make_requests(requests, 5, 4, 3);
    struct recorder *r = NULL;
    assert_int_equal(recorder_create(requests, 5, &r, NULL), STATUS_OK);
    for (uint64_t id = 0; id < 4; id++) {
        send(r, 0, id, EVENT_ARRIVE, 0, 0);
    }
    send(r, 0, 1, EVENT_REJECT, 0, REJECT_QUEUE_FULL);
    send(r, 10, 0, EVENT_SCHEDULED, 2, 0);
    send(r, 10, 2, EVENT_SCHEDULED, 2, 0);
    send(r, 20, 0, EVENT_TOKEN, 1, 0);
    send(r, 20, 0, EVENT_DELIVER, 1, 0);
    send(r, 20, 0, EVENT_FINISH, 0, FINISH_STOP);
    send(r, 20, 2, EVENT_TOKEN, 1, 0);
    send(r, 20, 2, EVENT_DELIVER, 1, 0);
    send(r, 30, 2, EVENT_FAIL, 0, 0);
    send(r, 40, 3, EVENT_CANCEL, 0, 0);
    /* Request 4 never arrived: an interrupted run. */
    assert_int_equal(recorder_pending(r), 1);
    assert_int_equal(recorder_record(r, 4)->arrival_ns, TIME_NEVER);
    assert_true(isnan(record_queue_s(recorder_record(r, 4))));
    struct run_summary s = summarise(r);
    assert_int_equal(s.total_requests, 5);
    assert_int_equal(s.successful_requests, 1);
    assert_int_equal(s.failed_requests, 4);
    assert_int_equal(s.output_tokens, 1); /* not that of the failed request */
    NEAR(s.wall_time_s, 0.040);
    NEAR(s.throughput_req_per_sec, 25.0);
    NEAR(s.throughput_tokens_per_sec, 25.0);
    NEAR(s.latency.min_s, 0.020);
    NEAR(s.latency.max_s, 0.020);
    assert_true(isnan(record_latency_s(recorder_record(r, 2))));
    NEAR(record_ttft_s(recorder_record(r, 2)), 0.020); /* what it did get is known */
    assert_true(isnan(s.mean_batch_size) && isnan(s.batch_efficiency) && isnan(s.plan_mean_us));
    recorder_destroy(r);
}

static void test_all_rejected(void **state)
{
    (void)state;
    struct request requests[1];
    make_requests(requests, 1, 4, 3);
    struct recorder *r = NULL;
    assert_int_equal(recorder_create(requests, 1, &r, NULL), STATUS_OK);
    send(r, 0, 0, EVENT_ARRIVE, 0, 0);
    send(r, 0, 0, EVENT_REJECT, 0, REJECT_TOO_LONG);
    struct run_summary s = summarise(r);
    NEAR(s.throughput_req_per_sec, 0.0); /* numeric, also in no time */
    NEAR(s.throughput_tokens_per_sec, 0.0);
    assert_true(isnan(s.latency.p50_s));
    recorder_destroy(r);
}

/* An answer of no tokens is complete at its end. */
static void test_empty_answer(void **state)
{
    (void)state;
    struct request requests[1];
    make_requests(requests, 1, 4, 3);
    struct recorder *r = NULL;
    assert_int_equal(recorder_create(requests, 1, &r, NULL), STATUS_OK);
    send(r, 0, 0, EVENT_ARRIVE, 0, 0);
    send(r, 10, 0, EVENT_SCHEDULED, 1, 0);
    send(r, 30, 0, EVENT_FINISH, 0, FINISH_STOP);
    struct run_summary s = summarise(r);
    NEAR(s.latency.avg_s, 0.030);
    assert_true(isnan(s.ttft.avg_s));
    assert_true(isnan(s.tpot.avg_s));
    recorder_destroy(r);
}

static void test_overlap_is_refused(void **state)
{
    (void)state;
    struct request requests[1];
    make_requests(requests, 1, 4, 3);
    struct recorder *r = NULL;
    assert_int_equal(recorder_create(requests, 1, &r, NULL), STATUS_OK);
    send(r, 0, 0, EVENT_ARRIVE, 0, 0);
    send(r, 0, 0, EVENT_SCHEDULED, 1, 0);
    step(r, 0, 100, (struct step_record){.sequences = 1, .live_sequences = 1, .useful_rows = 1});
    gap(r, 50, 100, false);
    send(r, 100, 0, EVENT_FINISH, 0, FINISH_STOP);
    struct run_summary s = {.steps = 77};
    struct error err = ERROR_INIT;
    assert_int_equal(summary_of(r, &s, &err), STATUS_INVALID);
    assert_int_equal(s.steps, 77); /* untouched */
    recorder_destroy(r);
}

/* Records of a server: its latencies by the same definitions, its steps unknown and never 0. */
static void test_steps_unknown(void **state)
{
    (void)state;
    const uint64_t ms = NS_PER_MS;
    struct record records[2] = {
        {.arrival_ns = 1000 * ms,
         .scheduled_ns = TIME_NEVER,
         .first_deliver_ns = 1010 * ms,
         .last_deliver_ns = 1050 * ms,
         .end_ns = 1051 * ms,
         .output_tokens = 5,
         .first_tokens = 1,
         .status = RECORD_OK},
        {.arrival_ns = 1000 * ms,
         .scheduled_ns = TIME_NEVER,
         .first_deliver_ns = 1020 * ms,
         .last_deliver_ns = 1030 * ms,
         .end_ns = 1080 * ms,
         .output_tokens = 2,
         .first_tokens = 1,
         .status = RECORD_FAILED},
    };
    struct run_totals totals = {
        .steps_unknown = true, .first_send_ns = 1000 * ms, .last_end_ns = 1080 * ms};
    struct run_summary s;
    assert_int_equal(summary_from_records(records, 2, &totals, &s, NULL), STATUS_OK);
    assert_int_equal(s.successful_requests, 1);
    assert_int_equal(s.failed_requests, 1);
    assert_int_equal(s.output_tokens, 5);
    NEAR(s.wall_time_s, 0.080);
    NEAR(s.latency.max_s, 0.050);
    NEAR(s.ttft.max_s, 0.010);
    NEAR(s.tpot.avg_s, 0.010);
    assert_true(isnan(s.queue.avg_s) && isnan(s.mean_batch_size) && isnan(s.useful_s));
    assert_true(isnan(s.overhead_s) && isnan(s.engine_idle_frac) && isnan(s.plan_mean_us));
    assert_true(s.steps == COUNT_UNKNOWN && s.computed_rows == COUNT_UNKNOWN);
    assert_true(s.kv_peak_blocks == COUNT_UNKNOWN && s.preemptions == COUNT_UNKNOWN);
    assert_true(s.peak_rss_bytes == COUNT_UNKNOWN);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct request requests[1];
    make_requests(requests, 1, 4, 3);
    struct recorder *r = NULL;
    assert_int_equal(recorder_create(requests, 1, &r, NULL), STATUS_OK);
    struct run_summary s;
    mem_fail_at(1, false);
    assert_int_equal(summary_of(r, &s, NULL), STATUS_NO_MEMORY);
    mem_fail_at(0, false);
    recorder_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streaming_latencies),
        cmocka_unit_test(test_streaming_tokens_and_steps),
        cmocka_unit_test(test_static_batch),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_all_rejected),
        cmocka_unit_test(test_empty_answer),
        cmocka_unit_test(test_overlap_is_refused),
        cmocka_unit_test(test_steps_unknown),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
