/* Texts for people: figures, marks, verdicts, advice, hostile labels, allocation failures. */
#include <locale.h>

#include "report/text.h"
#include "sample.h"

static void must_have(const struct strbuf *b, const char *part)
{
    if (strstr(strbuf_text(b), part) == NULL) {
        fail_msg("\"%s\" is not in:\n%s", part, strbuf_text(b));
    }
}

static void must_lack(const struct strbuf *b, const char *part)
{
    if (strstr(strbuf_text(b), part) != NULL) {
        fail_msg("\"%s\" is in:\n%s", part, strbuf_text(b));
    }
}

static void test_run_block(void **state)
{
    (void)state;
    struct run run = sample_run("naive", "naive", 25, 1, 1.0, true);
    run.summary.wall_time_s = 4.0;
    run.summary.throughput_req_per_sec = 6.25;
    run.summary.throughput_tokens_per_sec = 125.0;
    run.summary.latency.p50_s = 1.5;
    struct strbuf b = {0};
    text_run_block(&run, &b);
    must_have(&b, "NAIVE SCHEDULER - Run 1\n");
    must_have(&b, "total 25  successful 25  failed 0  wall time 4.000 s");
    must_have(&b, "6.25 requests/s  125.0 tokens/s");
    must_have(&b, "P50 1.500  P95"); /* 25 requests are enough for P50 ... */
    must_have(&b, "~  P99");         /* ... and too few for P95 */
    must_have(&b, "mean size 3.50  efficiency 81.2 %  padding 187 tokens");
    must_have(&b, "peak 12 blocks  preemptions 0");
    must_have(&b, "undefined: no answer came in more than one piece");
    must_lack(&b, "nan");
    must_lack(&b, "with failures");
    strbuf_deinit(&b);
    run_deinit(&run);
}

/* 1 of 25 failed: more than 1 %, so P99 with failures is infinite and P50 is not. */
static void test_failures_count_as_infinite(void **state)
{
    (void)state;
    struct run run = sample_run("naive", "naive", 25, 1, 1.0, true);
    run.summary.successful_requests = 24;
    run.summary.failed_requests = 1;
    run.rows[3].status = RECORD_FAILED;
    run.rows[3].latency_s = (double)NAN;
    struct strbuf b = {0};
    text_run_block(&run, &b);
    must_have(&b, "with failures  P50 ");
    must_have(&b, "P99 inf");
    strbuf_deinit(&b);
    run_deinit(&run);
}

static void test_comparison(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 3, 2, 3);
    struct strbuf b = {0};
    text_comparison(&r, &b);
    must_have(&b, "SCHEDULER COMPARISON SUMMARY\n");
    must_have(&b, "model SmolLM2-135M-Instruct, n = 3 runs per cell (low n");
    must_have(&b, "25 REQUESTS\n");
    must_have(&b, "50 REQUESTS\n");
    must_have(&b, " \u00B1 ");
    must_have(&b, "] higher; P95 latency ");
    must_have(&b, "] lower\n");
    must_have(&b,
              "naive: largest loss: fill wait, 30.0 % of the wall time at 25 requests; mends it: "
              "--set naive.timeout=0.05");
    must_have(&b,
              "continuous: largest loss: idle, 45.0 % of the wall time at 25 requests; mends it: "
              "a larger --max-concurrent");
    must_have(&b, "all schedulers gave the same text for the same request (450 answers compared)");
    must_lack(&b, "random weights");
    must_lack(&b, "warning");
    must_lack(&b, "PARTIAL");
    strbuf_deinit(&b);
    results_deinit(&r);
}

/* Batch size above --max-concurrent, random weights, another text, failures, an interruption. */
static void test_warnings(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 2, 1, 3);
    r.model.random_weights = true;
    r.partial = true;
    r.runs[0].fill_target = 16;
    r.runs[1].rows[7].output_hash ^= 1;
    r.runs[1].summary.failed_requests = 2;
    struct strbuf b = {0};
    text_comparison(&r, &b);
    must_have(&b, "(random weights)");
    must_have(&b, "PARTIAL");
    must_have(&b,
              "warning: naive: batch size 16 exceeds --max-concurrent 10: it then always waits out "
              "the timeout\n");
    must_have(&b, "mends it: --set naive.batch_size=10 or --max-concurrent 16");
    must_have(&b, "warning: dynamic, 25 requests, run 1: 2 of 25 failed");
    must_have(&b,
              "DIFFERENT TEXT: 1 of 75 answers differ at the same seed (a bug), e.g. size 25 run 1 "
              "request 7: naive and dynamic differ");
    strbuf_deinit(&b);
    results_deinit(&r);
}

static void test_variant_advice(void **state)
{
    (void)state;
    struct results r;
    sample_head(&r);
    struct run run = sample_run("big", "naive", 25, 1, 1.0, true);
    assert_int_equal(results_add(&r, &run, NULL), STATUS_OK);
    struct strbuf b = {0};
    text_comparison(&r, &b);
    must_have(&b, "--schedulers big=naive:timeout=0.05");
    must_have(&b, "n = 1 run per cell (one run: no intervals)");
    must_have(&b, "same text: one scheduler, nothing to compare");
    strbuf_deinit(&b);
    results_deinit(&r);
}

static void test_report(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 3, 2, 3);
    struct strbuf b = {0};
    text_report(&r, &b);
    must_have(&b, "SCHEDULER BENCHMARK REPORT\n");
    must_have(&b, "highest req/s           continuous; against dynamic, the next: ");
    must_have(&b, "seeds           43 to 45");
    must_have(&b, "WHAT THIS CANNOT CONCLUDE\n");
    must_have(&b, "n is low (3 runs): intervals use t = 4.30");
    must_have(&b, "closed loop of 10 requests");
    must_have(&b, "Test CPU \"9000\", x2");
    must_lack(&b, "nan");
    strbuf_deinit(&b);
    results_deinit(&r);
}

/* Two schedulers that differ by noise only must not be called different. */
static void test_cannot_tell_apart(void **state)
{
    (void)state;
    struct results r;
    sample_head(&r);
    static const double speeds[2][3] = {{10.0, 11.0, 10.5}, {10.6, 10.4, 10.8}};
    for (uint64_t run_num = 1; run_num <= 3; run_num++) {
        for (int s = 0; s < 2; s++) {
            struct run run = sample_run(s == 0 ? "a" : "b", "naive", 25, run_num, 1.0, true);
            run.summary.throughput_req_per_sec = speeds[s][run_num - 1];
            assert_int_equal(results_add(&r, &run, NULL), STATUS_OK);
        }
    }
    struct strbuf b = {0};
    text_comparison(&r, &b);
    /* Ratios 1.06, 0.945, 1.029: logarithms with mean 0.0100 and deviation 0.0591; the half-width
     * is 4.303 * 0.0591 / sqrt 3 = 0.147. */
    must_have(&b, "req/s 1.01x [0.87, 1.17] cannot tell apart");
    strbuf_deinit(&b);
    results_deinit(&r);
}

static void test_hostile_labels(void **state)
{
    (void)state;
    struct results r;
    sample_head(&r);
    struct run run = sample_run("a\x1b[31mred\n\xE2\x80\xAE\xFF"
                                "very long label that goes on and on",
                                "x", 25, 1, 1.0, true);
    assert_int_equal(results_add(&r, &run, NULL), STATUS_OK);
    struct strbuf b = {0};
    text_run_block(&r.runs[0], &b);
    text_comparison(&r, &b);
    text_report(&r, &b);
    must_lack(&b, "\x1b");
    must_lack(&b, "\xE2\x80\xAE");
    must_lack(&b, "\xFF");
    must_have(&b, "a?[31mred??\xEF\xBF\xBDvery ...");
    strbuf_deinit(&b);
    results_deinit(&r);
}

static void test_empty_results(void **state)
{
    (void)state;
    struct results r = {0};
    struct strbuf b = {0};
    text_comparison(&r, &b);
    text_report(&r, &b);
    must_have(&b, "SCHEDULER COMPARISON SUMMARY\n");
    strbuf_deinit(&b);
}

/* Figures that are all undefined print as "-", never as nan. */
static void test_undefined_figures(void **state)
{
    (void)state;
    struct results r;
    sample_head(&r);
    struct run run = sample_run("remote", "vllm", 25, 1, 1.0, true);
    double undefined = (double)NAN;
    run.summary = (struct run_summary){.total_requests = 25,
                                       .failed_requests = 25,
                                       .wall_time_s = 1.0,
                                       .latency = sample_figures(undefined),
                                       .ttft = sample_figures(undefined),
                                       .tpot = sample_figures(undefined),
                                       .queue = sample_figures(undefined),
                                       .mean_batch_size = undefined,
                                       .batch_efficiency = undefined,
                                       .useful_s = undefined};
    assert_int_equal(results_add(&r, &run, NULL), STATUS_OK);
    struct strbuf b = {0};
    text_run_block(&r.runs[0], &b);
    text_comparison(&r, &b);
    text_report(&r, &b);
    must_lack(&b, "nan");
    must_have(&b, "not recorded");
    strbuf_deinit(&b);
    results_deinit(&r);
}

/* Rows over HTTP: what is not known is not printed, and what limits them is. */
static void test_server_rows(void **state)
{
    (void)state;
    struct results r;
    sample_with_server(&r, 2);
    r.settings.temperature = 0.0;
    struct strbuf b = {0};
    text_run_block(&r.runs[6], &b);
    must_have(&b, "VLLM SCHEDULER - Run 1");
    must_have(&b, "  client         lag  P50 0.020 ms  P99 0.200 ms  3.0 % of a core\n");
    must_have(&b, "  tokens         1.00 per event  counted by usage  prompts 425  25.0 % of them "
                  "cached\n");
    must_lack(&b, "queue");
    must_lack(&b, "batches");
    strbuf_clear(&b);
    text_report(&r, &b);
    must_have(&b, "a server's, not visible over HTTP");
    must_have(&b, "warning: away: unreachable, not measured: connection refused\n");
    must_have(&b, "warning: vllm: sent without top_k, seed, which the server refuses\n");
    must_have(&b, "all schedulers gave the same text for the same request (75 answers compared)");
    must_have(&b, "text of vllm at temperature 0: the first 100.0 % of characters equal those in "
                  "process; 75 of 75 texts are identical\n");
    must_have(&b, "vllm does not say the type of its arithmetic");
    must_have(&b, "SERVERS\nvllm\n  endpoint      http://127.0.0.1:8000/v1/completions\n");
    must_lack(&b, "nan");
    strbuf_clear(&b);
    text_comparison(&r, &b);
    must_have(&b, "away                  unreachable\n");
    must_have(&b, "  vllm                  req/s ");
    strbuf_deinit(&b);
    results_deinit(&r);
}

static void set_text(char **p, const char *text)
{
    mem_free(*p);
    *p = copy(text);
}

static void test_server_rows_apart(void **state)
{
    (void)state;
    struct results r;
    sample_with_server(&r, 2);
    set_text(&r.runs[6].incomparable, "serves gpt2, the others run SmolLM2");
    set_text(&r.runs[0].invalid, "client lag P99 3 ms exceeds 5 % of the median TTFT");
    r.runs[7].summary.failed_requests = 3;
    set_text(&r.runs[7].remote.errors, "connect 2, timeout 1");
    r.runs[6].remote.tokens_per_event = 3.5;
    set_text(&r.runs[6].remote.token_source, "events");
    struct strbuf b = {0};
    text_report(&r, &b);
    must_have(&b, "against dynamic (ratio of paired runs");
    must_have(&b, "naive                 no ratio: measurement invalid\n");
    must_have(&b, "vllm                  no ratio: serves gpt2, the others run SmolLM2\n");
    must_have(&b, "warning: vllm: serves gpt2, the others run SmolLM2: no ratios\n");
    must_have(&b, "warning: vllm: chunked: 3.50 tokens per event");
    must_have(&b, "its events are counted, a lower bound");
    must_have(&b, "run 2: 3 of 25 failed (connect 2, timeout 1); latencies are of the others\n");
    must_have(&b, "highest req/s           dynamic\n");
    must_lack(&b, "at temperature 0"); /* 0.7 */
    strbuf_clear(&b);
    text_comparison(&r, &b);
    must_have(&b, "  INVALID\n");
    strbuf_deinit(&b);
    results_deinit(&r);
}

/* Characters, not bytes; half a character is none; the longer text counts. */
static void test_equal_prefix(void **state)
{
    (void)state;
    static const struct {
        const char *server, *ours;
        uint64_t characters, equal;
    } cases[] = {
        {"abc", "abc", 3, 3},
        {"abc", "abd", 3, 2},
        {"abc", "abcdef", 6, 3},
        {"", "abc", 3, 0},
        {"", "", 0, 0},
        {"x\xC3\xA9", "x\xC3\xA8", 2, 1}, /* e acute, e grave: one byte in common */
        {"\xC3\xA9z", "\xC3\xA9", 2, 1},
        {"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x81", 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct results r;
        sample_head(&r);
        struct run local = sample_run("naive", "naive", 1, 1, 1.0, true);
        struct run remote = sample_remote_run("vllm", 1, 1);
        set_text(&local.rows[0].generated_text, cases[i].ours);
        set_text(&remote.rows[0].generated_text, cases[i].server);
        assert_int_equal(results_add(&r, &remote, NULL), STATUS_OK);
        assert_int_equal(results_add(&r, &local, NULL), STATUS_OK);
        struct prefix_verdict v;
        results_equal_prefix(&r, "vllm", &v);
        assert_int_equal(v.compared, 1);
        assert_int_equal(v.identical, strcmp(cases[i].server, cases[i].ours) == 0);
        assert_int_equal(v.characters, cases[i].characters);
        assert_int_equal(v.equal_characters, cases[i].equal);
        struct text_verdict same;
        results_same_text(&r, &same);
        assert_int_equal(same.compared, 0); /* a server's text is no part of it */
        results_deinit(&r);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 2, 1, 2);
    uint64_t n = 1;
    for (;; n++) {
        struct strbuf b = {0};
        mem_fail_at(n, false);
        text_report(&r, &b);
        text_comparison(&r, &b);
        text_run_block(&r.runs[0], &b);
        bool done = !b.failed;
        mem_fail_at(0, false);
        strbuf_deinit(&b);
        if (done) {
            break;
        }
    }
    assert_true(n > 20);
    results_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_block),         cmocka_unit_test(test_failures_count_as_infinite),
        cmocka_unit_test(test_comparison),        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_variant_advice),    cmocka_unit_test(test_report),
        cmocka_unit_test(test_cannot_tell_apart), cmocka_unit_test(test_hostile_labels),
        cmocka_unit_test(test_empty_results),     cmocka_unit_test(test_undefined_figures),
        cmocka_unit_test(test_server_rows),       cmocka_unit_test(test_server_rows_apart),
        cmocka_unit_test(test_equal_prefix),      cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
