/*
 * test_app.c - the app's logic: what is refused and how, what a request becomes, when events go
 * out and what they hold, how choices end. Ends that nobody wished for: test_app_ends.c.
 *
 * Tokens are bytes here, and the test says which ones come when (app_rig.h).
 */
#include "app_rig.h"

#include <math.h>

#define COMPLETIONS "/v1/completions"

/* ---- heads ---- */

static void test_heads(void **state)
{
    (void)state;
    static const struct {
        const char *method;
        const char *path;
        const char *headers;
        int status;
        const char *part;
    } cases[] = {
        {"GET", "/", "", 404, "NotFoundError"},
        {"GET", "/v1/completions/", "", 404, "NotFoundError"},
        {"GET", COMPLETIONS, "", 405, "Allow: POST"},
        {"DELETE", "/v1/models", "", 405, "Allow: GET, HEAD"},
        {"GET", "/health", "", 200, "Content-Length: 0"},
        {"GET", "/version?x=1", "", 200, "{\"version\":\"1.2.3\"}"},
        {"GET", "/v1/models", "X-Request-Id: mine-1\r\n", 200, "x-request-id: mine-1"},
        {"GET", "/v1/models", "", 200, "\"id\":\"alias\""},
        {"GET", "/v1/models", "", 200, "\"max_model_len\":200"},
        {"GET", "/metrics", "", 200, "vllm:num_requests_running"},
        {"POST", COMPLETIONS, "Content-Length: 0\r\n", 415, "UnsupportedMediaTypeError"},
        {"POST", COMPLETIONS, "Content-Length: 0\r\nContent-Type: text/plain\r\n", 415, "415"},
        {"POST", COMPLETIONS, "Content-Length: 0\r\nContent-Type: application/jsonx\r\n", 415,
         "415"},
        {"POST", COMPLETIONS,
         "Content-Length: 0\r\nContent-Type: Application/JSON ; charset=utf-8\r\n", 400,
         "not valid JSON"},
        {"POST", COMPLETIONS, "Content-Length: 4194305\r\nContent-Type: application/json\r\n", 413,
         "4194305"},
        {"POST", COMPLETIONS,
         "Content-Length: 0\r\nContent-Type: application/json\r\nX-Request-Id: me\r\n", 400,
         "x-request-id: me"},
        {"BREW", "/health", "", 405, "MethodNotAllowedError"},
    };
    struct app_rig r;
    struct client c;
    rig_init(&r);
    rig_start(&r);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        client_open(&c, &r);
        client_send(&c, cases[i].method, cases[i].path, cases[i].headers, NULL);
        assert_answer(&c, cases[i].status, cases[i].part);
        client_close(&c);
    }
    assert_int_equal(r.n_jobs, 0);
    rig_stop(&r);
}

static void test_key(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *headers;
        int status;
    } cases[] = {
        {"/health", "", 200},
        {"/v1/models", "", 401},
        {"/metrics", "", 401},
        {"/v1/models", "Authorization: Bearer secreT\r\n", 401},
        {"/v1/models", "Authorization: Bearer secre\r\n", 401},
        {"/v1/models", "Authorization: Bearer secrets\r\n", 401},
        {"/v1/models", "Authorization: Bearer secretsecret\r\n", 401},
        {"/v1/models", "Authorization: Bearer\r\n", 401},
        {"/v1/models", "Authorization: secret\r\n", 401},
        {"/v1/models", "Authorization: Basic secret\r\n", 401},
        {"/v1/models", "Authorization: Bearer secret\r\n", 200},
        {"/v1/models", "authorization: bearer secret\r\n", 200},
        {"/nowhere", "", 404},
    };
    struct app_rig r;
    struct client c;
    rig_init(&r);
    r.config.api_key = "secret";
    rig_start(&r);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        client_open(&c, &r);
        client_send(&c, "GET", cases[i].path, cases[i].headers, NULL);
        assert_answer(&c, cases[i].status,
                      cases[i].status == 401 ? "WWW-Authenticate: Bearer" : "HTTP/1.1");
        client_close(&c);
    }
    rig_stop(&r);
}

static void test_states(void **state)
{
    (void)state;
    static const struct {
        enum backend_state state;
        const char *part;
    } cases[] = {{BACKEND_LOADING, "being loaded"},
                 {BACKEND_DRAINING, "shutting down"},
                 {BACKEND_STOPPED, "shutting down"},
                 {BACKEND_FAILED, "the device is gone"}};
    struct app_rig r;
    struct client c;
    rig_init(&r);
    r.error = "the device is gone";
    rig_start(&r);
    client_open(&c, &r);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        r.state = cases[i].state;
        client_send(&c, "GET", "/health", "", NULL);
        assert_answer(&c, 503, cases[i].part);
        assert_contains(c.text, "Retry-After: ");
        client_send(&c, "POST", COMPLETIONS, "", "{\"prompt\":\"a\"}");
        assert_answer(&c, 503, cases[i].part);
        client_close(&c); /* an early answer leaves the body unread, and closes */
        client_open(&c, &r);
    }
    client_close(&c);
    rig_stop(&r);
}

/* ---- requests that are refused ---- */

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *body;
        int status;
        const char *part;
    } cases[] = {
        {COMPLETIONS, "{\"prompt\":\"a\",\"model\":\"other\"}", 404, "`other` does not exist"},
        {COMPLETIONS, "{\"prompt\":[300]}", 400, "out of vocabulary"},
        {COMPLETIONS, "{\"prompt\":\"a\",\"max_tokens\":200}", 400, "context length is 200"},
        {COMPLETIONS, "{\"prompt\":\"a\",\"n\":17}", 400, "more than this server queues, 16"},
        {COMPLETIONS, "[]", 400, "must be a JSON object"},
        {"/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", 400,
         "no chat template"},
        {"/tokenize", "{\"prompt\":\"a\",\"model\":\"other\"}", 404, "`other` does not exist"},
        {"/detokenize", "{\"tokens\":[1],\"model\":\"other\"}", 404, "`other` does not exist"},
        {"/detokenize", "{\"tokens\":[300]}", 400, "out of vocabulary"},
        {"/tokenize", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", 400,
         "no chat template"},
    };
    struct app_rig r;
    struct client c;
    rig_init(&r);
    rig_start(&r);
    client_open(&c, &r);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        client_post(&c, cases[i].path, cases[i].body);
        assert_answer(&c, cases[i].status, cases[i].part);
    }
    assert_int_equal(r.n_jobs, 0);
    client_close(&c);
    rig_stop(&r);
}

/* At the limit, one beyond; the quick refusal of a text; max_tokens 0 needs room for its token. */
static void test_lengths(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_prompt;
        const char *rest;
        int status; /* 0: accepted */
        uint32_t max_new;
    } cases[] = {
        {190, "\"max_tokens\":10", 0, 10},
        {191, "\"max_tokens\":10", 400, 0},
        {199, "\"max_tokens\":1", 0, 1},
        {199, "\"max_tokens\":0,\"echo\":true", 0, 1},
        {200, "\"max_tokens\":0,\"echo\":true", 400, 0},
        {200, "\"max_tokens\":1", 400, 0},
        {201, "\"max_tokens\":1", 400, 0},
    };
    struct app_rig r;
    struct client c;
    rig_init(&r);
    rig_start(&r);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[512];
        uint32_t before = r.n_jobs;
        snprintf(body, sizeof body, "{\"prompt\":\"%0*d\",%s}", (int)cases[i].n_prompt, 7,
                 cases[i].rest);
        client_open(&c, &r);
        client_post(&c, COMPLETIONS, body);
        if (cases[i].status == 0) {
            assert_int_equal(r.n_jobs, before + 1);
            assert_int_equal(r.jobs[before]->request.max_new_tokens, cases[i].max_new);
        } else {
            assert_answer(&c, cases[i].status, "context length");
            assert_int_equal(r.n_jobs, before);
        }
        client_close(&c);
    }
    rig_stop(&r);
}

static void test_small_cache_bounds_the_context(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    rig_init(&r);
    r.backend.limits.kv_tokens = 64;
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS, "{\"prompt\":\"abcd\",\"max_tokens\":61}");
    assert_answer(&c, 400, "context length is 64");
    client_post(&c, COMPLETIONS, "{\"prompt\":\"abcd\",\"max_tokens\":60}");
    assert_int_equal(r.n_jobs, 1);
    client_close(&c);
    rig_stop(&r);
}

static void test_queue(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    struct client other;
    rig_init(&r);
    rig_start(&r);
    client_open(&c, &r);
    client_open(&other, &r);
    r.n_waiting = 13; /* of 16 */
    client_post(&c, COMPLETIONS, "{\"prompt\":\"a\",\"n\":4}");
    assert_answer(&c, 429, "13 requests are waiting");
    assert_contains(c.text, "Retry-After: 1");
    client_post(&c, COMPLETIONS, "{\"prompt\":\"a\",\"n\":3}");
    assert_int_equal(r.n_jobs, 3);
    r.n_waiting = 0;
    client_post(&other, COMPLETIONS, "{\"prompt\":[\"a\",\"b\"],\"n\":8}");
    assert_int_equal(app_live_jobs(r.app), 19);
    client_close(&c);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS, "{\"prompt\":\"a\",\"n\":6}"); /* 24 at once are the limit */
    assert_answer(&c, 429, "try again later");
    rig_end_cancelled(&r);
    client_turn(&c);
    assert_int_equal(app_live_jobs(r.app), 16);
    client_post(&c, COMPLETIONS, "{\"prompt\":\"a\",\"n\":8}");
    assert_int_equal(app_live_jobs(r.app), 24);
    client_close(&c);
    client_close(&other);
    rig_stop(&r);
}

static void test_logprobs_are_bounded(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    rig_init(&r);
    r.backend.limits.max_model_len = 100000;
    r.backend.limits.kv_tokens = 100000;
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS, "{\"prompt\":\"a\",\"max_tokens\":50000,\"logprobs\":20}");
    assert_answer(&c, 400, "lower max_tokens");
    client_post(&c, COMPLETIONS, "{\"prompt\":\"a\",\"max_tokens\":49000,\"logprobs\":20}");
    assert_int_equal(r.n_jobs, 1);
    assert_int_equal(r.app->n_logprobs, 49000 * 21);
    client_close(&c);
    rig_stop(&r);
}

/* ---- what a request becomes ---- */

static void test_fields_reach_the_engine(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    rig_init(&r);
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS,
                "{\"model\":\"alias\",\"prompt\":[[1,2],[3]],\"n\":2,\"seed\":-5,\"max_tokens\":9,"
                "\"temperature\":0.5,\"top_p\":0.25,\"top_k\":7,\"min_p\":0.125,"
                "\"repetition_penalty\":1.5,\"frequency_penalty\":-0.5,\"presence_penalty\":0.75,"
                "\"logit_bias\":{\"9\":-100,\"4\":2.5},\"stop_token_ids\":[8,6],\"priority\":3,"
                "\"ignore_eos\":true,\"min_tokens\":4}");
    assert_int_equal(r.n_jobs, 4);
    for (uint32_t i = 0; i < 4; i++) {
        const struct request *q = &r.jobs[i]->request;
        assert_int_equal(q->prompt_tokens, i < 2 ? 2 : 1);
        assert_int_equal(q->prompt[0], i < 2 ? 1 : 3);
        assert_int_equal(q->max_new_tokens, 9);
        assert_true(q->deadline_ns == TIME_NEVER);
        assert_true(q->sample_key == sample_key_of_choice((uint64_t)-5, i % 2));
        assert_true(q->sampling.temperature == 0.5F && q->sampling.top_p == 0.25F);
        assert_true(q->sampling.top_k == 7 && q->sampling.min_p == 0.125F);
        assert_true(q->sampling.repetition_penalty == 1.5F);
        assert_true(q->sampling.frequency_penalty == -0.5F);
        assert_true(q->sampling.presence_penalty == 0.75F);
        assert_int_equal(q->sampling.n_bias, 2);
        assert_true(q->sampling.bias[0].id == 4 && q->sampling.bias[0].bias == 2.5F);
        assert_true(q->sampling.bias[1].id == 9 && q->sampling.bias[1].bias == -100.0F);
        assert_int_equal(q->n_stop_ids, 2);
        assert_true(q->stop_ids[0] == 8 && q->stop_ids[1] == 6);
        assert_int_equal(q->priority, 3);
        assert_true(q->ignore_eos);
        assert_int_equal(q->min_new_tokens, 4);
        assert_null(q->logprobs);
    }
    client_close(&c);
    rig_stop(&r);
}

/* Without a seed no two choices, prompts or requests share a key. */
static void test_keys_without_a_seed(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c[3];
    rig_init(&r);
    rig_start(&r);
    for (int i = 0; i < 3; i++) {
        client_open(&c[i], &r);
        client_post(&c[i], COMPLETIONS, "{\"prompt\":[\"a\",\"b\"],\"n\":2}");
    }
    assert_int_equal(r.n_jobs, 12);
    for (uint32_t i = 0; i < 12; i++) {
        for (uint32_t j = 0; j < i; j++) {
            assert_true(r.jobs[i]->request.sample_key != r.jobs[j]->request.sample_key);
        }
    }
    for (int i = 0; i < 3; i++) {
        client_close(&c[i]);
    }
    rig_stop(&r);
}

/* ---- answers ---- */

static void test_whole_answer(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    rig_init(&r);
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS, "{\"prompt\":\"abc\",\"max_tokens\":4,\"request_id\":\"q1\"}");
    rig_give(&r, 0, "wx");
    client_turn(&c);
    rig_give(&r, 0, "yz");
    rig_end(&r, 0, JOB_FINISHED, FINISH_LENGTH);
    assert_answer(&c, 200, "\"id\":\"cmpl-q1\"");
    assert_contains(c.text, "\"model\":\"tiny\"");
    assert_contains(c.text, "\"text\":\"wxyz\",\"logprobs\":null,\"finish_reason\":\"length\"");
    assert_contains(c.text, "\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7,");
    assert_contains(c.text, "x-request-id: cmpl-");
    client_close(&c);
    rig_stop(&r);
}

/* An end token is counted and not shown, also when its job's end is taken later. */
static void test_end_tokens(void **state)
{
    (void)state;
    static const struct {
        int32_t id;
        const char *ignore;
        const char *reason;
    } cases[] = {
        {RIG_EOS, "false", "\"stop_reason\":null"},
        {'!', "false", "\"stop_reason\":33"},
        {'!', "true", "\"stop_reason\":33"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct app_rig r;
        struct client c;
        char body[256];
        rig_init(&r);
        rig_start(&r);
        client_open(&c, &r);
        snprintf(body, sizeof body, "{\"prompt\":\"a\",\"stop_token_ids\":[33],\"ignore_eos\":%s}",
                 cases[i].ignore);
        client_post(&c, COMPLETIONS, body);
        rig_give(&r, 0, "ok");
        rig_give_id(&r, 0, cases[i].id);
        rig_tell(&r, r.jobs[0], JOB_LIVE);
        client_turn(&c);
        rig_end(&r, 0, JOB_FINISHED, FINISH_STOP);
        assert_answer(&c, 200, "\"text\":\"ok\"");
        assert_contains(c.text, "\"finish_reason\":\"stop\"");
        assert_contains(c.text, cases[i].reason);
        assert_contains(c.text, "\"completion_tokens\":3");
        client_close(&c);
        rig_stop(&r);
    }
}

static void test_stop_string(void **state)
{
    (void)state;
    for (int streams = 0; streams < 2; streams++) {
        struct app_rig r;
        struct client c;
        rig_init(&r);
        rig_start(&r);
        client_open(&c, &r);
        client_post(&c, COMPLETIONS,
                    streams ? "{\"prompt\":\"a\",\"stop\":[\"##\",\"END\"],\"stream\":true,"
                              "\"stream_options\":{\"include_usage\":true}}"
                            : "{\"prompt\":\"a\",\"stop\":[\"##\",\"END\"]}");
        rig_give(&r, 0, "helloE");
        client_turn(&c);
        rig_give(&r, 0, "NDmore");
        client_await(&c, "\"stop_reason\":\"END\"");
        assert_true(r.is_cancelled[0]);
        assert_int_equal(r.jobs[0]->cancel_as, FINISH_STOP);
        assert_contains(c.text, "hello");
        assert_null(strstr(c.text, "helloE"));
        assert_null(strstr(c.text, "more"));
        assert_contains(c.text, "\"completion_tokens\":8");
        if (streams) {
            client_await(&c, "[DONE]");
        }
        assert_int_equal(app_live_jobs(r.app), 1); /* the backend still has it */
        client_close(&c);
        rig_stop(&r);
    }
}

/* One event each time tokens are taken; none while all of the text is held back. */
static void test_events(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    rig_init(&r);
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS,
                "{\"prompt\":\"a\",\"max_tokens\":8,\"stop\":\"xyz\",\"stream\":true,"
                "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}");
    client_turn(&c);
    assert_int_equal(c.len, 0); /* no head before there is something to say */
    rig_give(&r, 0, "a");
    client_await(&c, "\"text\":\"a\"");
    assert_int_equal(client_status(&c), 200);
    assert_contains(c.text, "Content-Type: text/event-stream");
    assert_contains(c.text, "Cache-Control: no-cache");
    assert_contains(c.text, "X-Accel-Buffering: no");
    assert_int_equal(client_count(&c, "data: "), 1);
    rig_give(&r, 0, "xy");
    client_turn(&c);
    client_turn(&c);
    assert_int_equal(client_count(&c, "data: "), 1);
    rig_give(&r, 0, "b\xC3");
    client_await(&c, "\"text\":\"xyb\"");
    assert_contains(c.text, "\"completion_tokens\":5");
    assert_int_equal(client_count(&c, "data: "), 2);
    rig_give(&r, 0, "\xA9x");
    client_await(&c, "\"text\":\"\xC3\xA9\"");
    rig_give(&r, 0, "y");
    rig_end(&r, 0, JOB_FINISHED, FINISH_LENGTH);
    client_await(&c, "[DONE]");
    assert_contains(c.text, "\"text\":\"xy\",\"logprobs\":null,\"finish_reason\":\"length\"");
    assert_int_equal(client_count(&c, "\"finish_reason\":\"length\""), 1);
    assert_contains(c.text,
                    "\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":8");
    assert_int_equal(client_count(&c, "data: "), 6);
    client_await(&c, "0\r\n\r\n");
    client_close(&c);
    rig_stop(&r);
}

/* Who asks for ids hears of every token, also of those without text. */
static void test_token_ids(void **state)
{
    (void)state;
    for (int streams = 0; streams < 2; streams++) {
        struct app_rig r;
        struct client c;
        rig_init(&r);
        rig_start(&r);
        client_open(&c, &r);
        client_post(&c, COMPLETIONS,
                    streams ? "{\"prompt\":[5,6],\"return_token_ids\":true,\"stream\":true,"
                              "\"stop\":\"BC\"}"
                            : "{\"prompt\":[5,6],\"return_token_ids\":true,\"stop\":\"BC\"}");
        rig_give(&r, 0, "A");
        client_turn(&c);
        rig_give(&r, 0, "B");
        if (streams) {
            client_await(&c, "\"text\":\"A\"");
            assert_contains(c.text, "\"token_ids\":[65],\"prompt_token_ids\":[5,6]}");
            client_await(&c, "\"text\":\"\",");
            assert_contains(c.text, "\"finish_reason\":null,\"stop_reason\":null,"
                                    "\"token_ids\":[66]}");
        }
        rig_give(&r, 0, "CD");
        client_await(&c, "\"stop_reason\":\"BC\"");
        assert_contains(c.text, streams ? "\"token_ids\":[67]}"
                                        : "\"token_ids\":[65,66,67],\"prompt_token_ids\":[5,6]}");
        client_close(&c);
        rig_stop(&r);
    }
}

static void test_choices_interleave(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    rig_init(&r);
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS,
                "{\"prompt\":[\"p\",\"q\"],\"n\":2,\"max_tokens\":2,\"stream\":true}");
    for (uint32_t i = 4; i-- > 0;) {
        char text[2] = {(char)('A' + i), '\0'};
        rig_give(&r, i, text);
    }
    client_await(&c, "\"index\":0,\"text\":\"A\"");
    for (uint32_t i = 0; i < 4; i++) {
        char part[40];
        rig_give(&r, i, "-");
        rig_end(&r, i, JOB_FINISHED, FINISH_LENGTH);
        snprintf(part, sizeof part, "\"index\":%u,\"text\":\"%c\"", i, 'A' + i);
        assert_contains(c.text, part);
        assert_null(strstr(c.text, "[DONE]"));
        client_turn(&c);
    }
    client_await(&c, "[DONE]");
    assert_int_equal(client_count(&c, "\"finish_reason\":\"length\""), 4);
    client_close(&c);
    rig_stop(&r);
}

static void test_echo_with_logprobs(void **state)
{
    (void)state;
    for (int streams = 0; streams < 2; streams++) {
        struct app_rig r;
        struct client c;
        rig_init(&r);
        rig_start(&r);
        client_open(&c, &r);
        client_post(&c, COMPLETIONS,
                    streams ? "{\"prompt\":\"pq\",\"max_tokens\":2,\"echo\":true,\"logprobs\":1,"
                              "\"stream\":true}"
                            : "{\"prompt\":[112,113],\"max_tokens\":2,\"echo\":true,"
                              "\"logprobs\":1}");
        give_logprobs(r.jobs[0]);
        rig_give(&r, 0, "A");
        client_turn(&c);
        rig_give(&r, 0, "B");
        rig_end(&r, 0, JOB_FINISHED, FINISH_LENGTH);
        client_await(&c, "\"finish_reason\":\"length\"");
        if (streams) {
            assert_contains(c.text, "\"text\":\"pqA\",\"logprobs\":{\"tokens\":[\"p\",\"q\","
                                    "\"A\"],\"token_logprobs\":[null,-1,-2],\"top_logprobs\":"
                                    "[null,{\".\":-0.5,\"q\":-1},{\".\":-0.5,\"A\":-2}],"
                                    "\"text_offset\":[0,1,2]}");
            client_await(&c, "\"text\":\"B\",\"logprobs\":{\"tokens\":[\"B\"],\"token_logprobs\":"
                             "[-3],\"top_logprobs\":[{\".\":-0.5,\"B\":-3}],"
                             "\"text_offset\":[3]}");
        } else {
            client_await_answer(&c);
            assert_contains(c.text, "\"text\":\"pqAB\"");
            assert_contains(c.text, "\"token_logprobs\":[null,-1,-2,-3]");
            assert_contains(c.text, "\"text_offset\":[0,1,2,3]");
        }
        client_close(&c);
        rig_stop(&r);
    }
}

static void test_max_tokens_0(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    rig_init(&r);
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, COMPLETIONS,
                "{\"prompt\":\"pq\",\"max_tokens\":0,\"echo\":true,\"logprobs\":1}");
    give_logprobs(r.jobs[0]);
    rig_give(&r, 0, "A");
    rig_end(&r, 0, JOB_FINISHED, FINISH_STOP);
    assert_answer(&c, 200, "\"text\":\"pq\"");
    assert_contains(c.text, "\"tokens\":[\"p\",\"q\"]");
    assert_contains(c.text, "\"finish_reason\":\"length\"");
    assert_contains(c.text, "\"completion_tokens\":0");
    client_close(&c);
    rig_stop(&r);
}

static void test_tokenize(void **state)
{
    (void)state;
    struct app_rig r;
    struct client c;
    rig_init(&r);
    r.state = BACKEND_LOADING; /* it needs no engine */
    rig_start(&r);
    client_open(&c, &r);
    client_post(&c, "/tokenize", "{\"prompt\":\"h\xC3\xA9\",\"return_token_strs\":true}");
    assert_answer(&c, 200, "{\"count\":3,\"max_model_len\":200,\"tokens\":[104,195,169],");
    client_post(&c, "/detokenize", "{\"tokens\":[104,195,169,256]}");
    assert_answer(&c, 200, "{\"prompt\":\"h\xC3\xA9<256>\"}");
    client_close(&c);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_key),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_small_cache_bounds_the_context),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_logprobs_are_bounded),
        cmocka_unit_test(test_fields_reach_the_engine),
        cmocka_unit_test(test_keys_without_a_seed),
        cmocka_unit_test(test_whole_answer),
        cmocka_unit_test(test_end_tokens),
        cmocka_unit_test(test_stop_string),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_token_ids),
        cmocka_unit_test(test_choices_interleave),
        cmocka_unit_test(test_echo_with_logprobs),
        cmocka_unit_test(test_max_tokens_0),
        cmocka_unit_test(test_tokenize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
