/*
 * test_app_ends.c - the app's logic where something ends early: failed jobs, aborts, drains, peers
 * that leave, refused memory; and what runs beside it: keep-alive comments, stamps.
 *
 * Tokens are bytes here, and the test says which ones come when (app_rig.h).
 */
#include "app_rig.h"

#define COMPLETIONS "/v1/completions"

static void test_bad_ends(void **state)
{
    (void)state;
    static const struct {
        enum job_end end;
        uint32_t reason;
        int status;
        const char *part;
    } cases[] = {
        {JOB_REJECTED, REJECT_TOO_LONG, 400, "longer than the model's context"},
        {JOB_REJECTED, REJECT_NO_BLOCKS, 400, "more KV blocks"},
        {JOB_REJECTED, REJECT_QUEUE_FULL, 429, "queue full"},
        {JOB_REJECTED, REJECT_SHUTDOWN, 503, "shutting down"},
        {JOB_FAILED, 0, 500, "the engine failed: broken"},
        {JOB_FINISHED, FINISH_ERROR, 500, "no usable result"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct app_rig r;
        struct client c;
        rig_init(&r);
        r.error = "broken";
        rig_start(&r);
        client_open(&c, &r);
        client_post(&c, COMPLETIONS, "{\"prompt\":\"a\",\"n\":2,\"stream\":true}");
        rig_end(&r, 0, cases[i].end, cases[i].reason);
        assert_answer(&c, cases[i].status, cases[i].part); /* nothing was sent: a status */
        assert_true(r.is_cancelled[1]);
        rig_end_cancelled(&r);
        client_post(&c, COMPLETIONS, "{\"prompt\":\"a\",\"n\":2,\"stream\":true}");
        rig_give(&r, 3, "t");
        client_await(&c, "\"index\":1,\"text\":\"t\"");
        rig_end(&r, 2, cases[i].end, cases[i].reason);
        client_await(&c, "data: {\"error\":");
        client_await(&c, "data: [DONE]");
        assert_contains(c.text, cases[i].part);
        assert_true(r.is_cancelled[3]);
        client_close(&c);
        rig_stop(&r);
    }
}

static void test_abort(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    rig_init(&r);
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS, "{\"prompt\":\"a\"}");
    rig_give(&r, 0, "half");
    client_turn(&c);
    app_abort(r.app);
    assert_true(r.is_aborted);
    rig_end(&r, 0, JOB_CANCELLED, 0);
    assert_answer(&c, 200, "\"text\":\"half\",\"logprobs\":null,\"finish_reason\":\"abort\"");
    client_close(&c);
    rig_stop(&r);
}

static void on_done(void *self)
{
    ((struct app_rig *)self)->done_calls++;
}

static void test_drain(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    struct client late;
    rig_init(&r);
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS, "{\"prompt\":\"a\"}");
    app_drain(r.app, on_done, &r);
    assert_true(r.is_drained);
    client_open(&late, &r);
    client_post(&late, COMPLETIONS, "{\"prompt\":\"a\"}");
    assert_answer(&late, 503, "shutting down");
    client_close(&late);
    assert_int_equal(r.done_calls, 0);
    rig_give(&r, 0, "end");
    rig_end(&r, 0, JOB_FINISHED, FINISH_STOP);
    assert_answer(&c, 200, "\"finish_reason\":\"stop\"");
    client_turn(&c);
    assert_int_equal(r.done_calls, 1);
    client_close(&c);
    rig_stop(&r);
}

static void test_drain_when_idle(void **state)
{
    (void)state;
    struct app_rig r;
    rig_init(&r);
    rig_start(&r);
    app_drain(r.app, on_done, &r);
    assert_int_equal(r.done_calls, 0); /* from the loop, not from inside the call */
    event_base_loop(r.base, EVLOOP_NONBLOCK);
    assert_int_equal(r.done_calls, 1);
    rig_stop(&r);
}

/* A peer that leaves cancels all its jobs, streaming or not, before and after the first token. */
static void test_disconnect(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{\"prompt\":\"a\",\"n\":3}",
                                         "{\"prompt\":\"a\",\"n\":3,\"stream\":true}"};
    for (size_t i = 0; i < 4; i++) {
        struct app_rig r;
        struct client c;
        rig_init(&r);
        rig_start(&r);
        client_open(&c, &r);
        client_post(&c, COMPLETIONS, bodies[i % 2]);
        if (i >= 2) {
            rig_give(&r, 1, "x");
            client_turn(&c);
        }
        client_close(&c);
        assert_true(r.is_cancelled[0] && r.is_cancelled[1] && r.is_cancelled[2]);
        assert_int_equal(app_live_jobs(r.app), 3);
        rig_give(&r, 0, "late"); /* computed before the backend saw the cancellation */
        rig_end_cancelled(&r);
        event_base_loop(r.base, EVLOOP_NONBLOCK);
        assert_int_equal(app_live_jobs(r.app), 0);
        rig_stop(&r);
    }
}

/* The peer goes away while an event is written: jobs are cancelled, nothing is used after. */
static void test_reset_before_a_write(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    rig_init(&r);
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS, "{\"prompt\":\"a\",\"n\":2,\"stream\":true}");
    rig_give(&r, 0, "x");
    client_await(&c, "\"text\":\"x\"");
    struct linger reset = {.l_onoff = 1};
    setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    for (int i = 0; i < 3; i++) {
        rig_give(&r, 0, "y");
        rig_give(&r, 1, "z");
    }
    client_close(&c);
    assert_true(r.is_cancelled[0] && r.is_cancelled[1]);
    rig_stop(&r);
}

static void test_keep_alive(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    rig_init(&r);
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS, "{\"prompt\":\"a\",\"stream\":true}");
    struct exchange *ex = r.app->exchanges;
    exchange_keep_alive(ex, ex->last_sent_ns + APP_KEEP_ALIVE_NS - 1);
    client_turn(&c);
    assert_int_equal(c.len, 0);
    exchange_keep_alive(ex, ex->last_sent_ns + APP_KEEP_ALIVE_NS);
    client_await(&c, ": keep-alive\n\n");
    rig_end(&r, 0, JOB_REJECTED, REJECT_POLICY); /* the head is out: an error in the stream */
    client_await(&c, "data: {\"error\":");
    client_await(&c, "data: [DONE]");
    client_post(&c, COMPLETIONS, "{\"prompt\":\"a\"}");
    ex = r.app->exchanges;
    exchange_keep_alive(ex, ex->last_sent_ns + 2 * APP_KEEP_ALIVE_NS); /* no stream: nothing */
    rig_end(&r, 1, JOB_FINISHED, FINISH_STOP);
    assert_answer(&c, 200, "\"text\":\"\"");
    assert_int_equal(client_count(&c, "keep-alive"), 0);
    client_close(&c);
    rig_stop(&r);
}

static void test_stamps(void **state)
{
    (void)state;
    char path[] = "/tmp/llmsched-stamps-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    struct app_rig r;
    struct client c;
    rig_init(&r);
    r.backend.limits.wants_stamps = true;
    r.config.stamps_path = path;
    rig_start(&r);
    client_open(&c, &r);
    uint64_t begin_ns = monotime_now_ns();
    client_send(&c, "POST", COMPLETIONS, "X-Request-Id: a,\"b\r\n",
                "{\"prompt\":\"a\",\"max_tokens\":3,\"stream\":true,\"n\":2}");
    while (r.n_jobs < 2) {
        client_turn(&c);
    }
    for (uint32_t i = 0; i < 3; i++) {
        r.jobs[0]->due_ns[i] = 100 + i;
        r.jobs[1]->due_ns[i] = 200 + i;
    }
    rig_give(&r, 0, "x\xC3"); /* one event tells of both tokens */
    client_await(&c, "\"text\":\"x\"");
    rig_give(&r, 0, "\xA9");
    rig_end(&r, 0, JOB_FINISHED, FINISH_LENGTH);
    rig_give(&r, 1, "y");
    rig_end(&r, 1, JOB_FINISHED, FINISH_STOP);
    client_await(&c, "[DONE]");
    client_close(&c);
    rig_stop(&r);
    char text[1024];
    close(fd);
    fd = open(path, O_RDONLY); /* it was replaced, not written into */
    ssize_t n = read(fd, text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    close(fd);
    unlink(path);
    unsigned long long w[4];
    int read_to = 0;
    int got =
        sscanf(text,
               "request_id,token,due_ns,written_ns\n\"a,\"\"b\",0,100,%llu\n\"a,\"\"b\",1,101,"
               "%llu\n\"a,\"\"b\",2,102,%llu\n\"a,\"\"b.1\",0,200,%llu\n%n",
               &w[0], &w[1], &w[2], &w[3], &read_to);
    if (got != 4 || read_to != n) {
        fail_msg("stamps: %s", text);
    }
    assert_true(begin_ns <= w[0] && w[0] == w[1] && w[1] <= w[2] && w[2] <= w[3]);
    assert_true(w[3] <= monotime_now_ns());
}

/* Each allocation from a request's first byte to its answer refused in turn: it is answered, or its
 * connection ends; nothing leaks, and the next one is served. Names and texts of the bodies have at
 * most 13 bytes: jansson 2.14 loses bytes of longer ones when memory is refused, and then asserts.
 */
static void sweep(struct app_rig *r, const char *body)
{
    for (uint64_t k = 1;; k++) {
        struct client c;
        client_open(&c, r);
        for (int i = 0; i < 3; i++) {
            event_base_loop(r->base, EVLOOP_NONBLOCK);
        }
        r->n_jobs = 0;
        memset(r->is_over, 0, sizeof r->is_over);
        memset(r->is_cancelled, 0, sizeof r->is_cancelled);
        uint64_t refused = mem_refused_count();
        mem_fail_at(k, false);
        client_post(&c, COMPLETIONS, body);
        for (uint32_t i = 0; i < r->n_jobs; i++) {
            if (r->jobs[i]->request.logprobs != NULL) {
                give_logprobs(r->jobs[i]);
            }
            rig_give(r, i, "AB");
        }
        for (int i = 0; i < 5; i++) {
            client_turn(&c);
        }
        for (uint32_t i = 0; i < r->n_jobs; i++) {
            rig_end(r, i, r->is_cancelled[i] ? JOB_CANCELLED : JOB_FINISHED, FINISH_LENGTH);
        }
        for (int i = 0; i < 5; i++) {
            client_turn(&c);
        }
        mem_fail_at(0, false);
        bool was_refused = mem_refused_count() != refused;
        if (!was_refused) {
            assert_int_equal(client_status(&c), 200);
        } else if (c.len > 0 && client_status(&c) != 200) {
            assert_int_equal(client_status(&c), 503);
        }
        client_close(&c);
        assert_int_equal(app_live_jobs(r->app), 0);
        assert_int_equal(r->app->n_exchanges, 0);
        if (!was_refused) {
            print_message("%llu allocations refused in turn\n", (unsigned long long)k - 1);
            assert_true(k > 20);
            return;
        }
    }
}

static void test_refused_memory(void **state)
{
    (void)state;
    struct app_rig r;
    rig_init(&r);
    rig_start(&r);
    sweep(&r, "{\"prompt\":[\"pq\",\"rs\"],\"n\":2,\"max_tokens\":2,\"stop\":[\"xx\"],"
              "\"logit_bias\":{\"1\":1},\"echo\":true,\"logprobs\":1}");
    sweep(&r, "{\"prompt\":\"pq\",\"max_tokens\":2,\"echo\":true,\"logprobs\":1,"
              "\"stream\":true}");
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_ends),       cmocka_unit_test(test_abort),
        cmocka_unit_test(test_drain),          cmocka_unit_test(test_drain_when_idle),
        cmocka_unit_test(test_disconnect),     cmocka_unit_test(test_reset_before_a_write),
        cmocka_unit_test(test_keep_alive),     cmocka_unit_test(test_stamps),
        cmocka_unit_test(test_refused_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
