/* Responses: status lines, how the body ends, what a measuring client refuses, every cut. */
#include "net/net_test.h"

#include "net/http_write.h"

#define OK200 "HTTP/1.1 200 OK\r\n"
#define TE    "Transfer-Encoding: chunked\r\n"
#define END   "\r\n"

struct response_case {
    const char *name;
    const char *bytes;
    size_t n;
    enum http_bad bad;
    enum http_framing framing;
    bool keep_alive;
    int status;
    const char *body; /* NULL where it ends only by closing */
};

#define GOOD(name, text, framing, keep_alive, status, body)                                        \
    {                                                                                              \
        name, text, sizeof(text) - 1, HTTP_BAD_NONE, framing, keep_alive, status, body             \
    }
#define REFUSED(name, text, bad)                                                                   \
    {                                                                                              \
        name, text, sizeof(text) - 1, HTTP_BAD_##bad, HTTP_NO_BODY, false, 0, NULL                 \
    }

static const struct response_case cases[] = {
    GOOD("length", OK200 "Content-Length: 2\r\n" END "ab", HTTP_LENGTH, true, 200, "ab"),
    GOOD("length 0", OK200 "Content-Length: 0\r\n" END, HTTP_LENGTH, true, 200, ""),
    GOOD("chunked", OK200 TE END "2\r\nab\r\n0\r\n\r\n", HTTP_CHUNKED, true, 200, "ab"),
    GOOD("chunked, close", OK200 TE "connection: close\r\n" END "0\r\n\r\n", HTTP_CHUNKED, false,
         200, ""),
    GOOD("no length", OK200 END "abc", HTTP_UNTIL_CLOSE, false, 200, NULL),
    GOOD("no length, says keep-alive", OK200 "Connection: keep-alive\r\n" END "abc",
         HTTP_UNTIL_CLOSE, false, 200, NULL),
    GOOD("1.0", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n" END "a", HTTP_LENGTH, false, 200, "a"),
    GOOD("1.0 keep-alive",
         "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n" END "a", HTTP_LENGTH,
         true, 200, "a"),
    GOOD("no reason", "HTTP/1.1 404 \r\nContent-Length: 0\r\n" END, HTTP_LENGTH, true, 404, ""),
    GOOD("no space", "HTTP/1.1 404\r\nContent-Length: 0\r\n" END, HTTP_LENGTH, true, 404, ""),
    GOOD("odd reason", "HTTP/1.1 429  a\tb \xC3\xA9\r\nContent-Length: 0\r\n" END, HTTP_LENGTH,
         true, 429, ""),
    GOOD("204", "HTTP/1.1 204 No Content\r\n" END, HTTP_NO_BODY, true, 204, ""),
    GOOD("204 with length", "HTTP/1.1 204 x\r\nContent-Length: 0\r\n" END, HTTP_NO_BODY, true, 204,
         ""),
    GOOD("304 with length", "HTTP/1.1 304 x\r\nContent-Length: 7\r\n" END, HTTP_NO_BODY, true, 304,
         ""),
    GOOD("interim", "HTTP/1.1 100 Continue\r\n" END, HTTP_NO_BODY, true, 100, ""),
    GOOD("early hints", "HTTP/1.1 103 x\r\nLink: y\r\n" END, HTTP_NO_BODY, true, 103, ""),
    GOOD("599", "HTTP/1.1 599 x\r\nContent-Length: 0\r\n" END, HTTP_LENGTH, true, 599, ""),
    GOOD("two Hosts and Expect mean nothing",
         OK200 "Host: a\r\nHost: b\r\nExpect: x\r\nContent-Length: 0\r\n" END, HTTP_LENGTH, true,
         200, ""),

    REFUSED("CL and TE", OK200 "Content-Length: 2\r\n" TE END "2\r\nab\r\n0\r\n\r\n",
            LENGTH_AND_CODING),
    REFUSED("two CL", OK200 "Content-Length: 2\r\nContent-Length: 3\r\n" END "ab", LENGTH),
    REFUSED("CL text", OK200 "Content-Length: two\r\n" END "ab", LENGTH),
    REFUSED("TE gzip", OK200 "Transfer-Encoding: gzip, chunked\r\n" END "ab", CODING_UNKNOWN),
    REFUSED("TE on 1.0", "HTTP/1.0 200 OK\r\n" TE END "0\r\n\r\n", CODING),
    REFUSED("switching", "HTTP/1.1 101 x\r\nUpgrade: y\r\n" END, STATUS_LINE),
    REFUSED("099", "HTTP/1.1 099 x\r\n" END, STATUS_LINE),
    REFUSED("600", "HTTP/1.1 600 x\r\n" END, STATUS_LINE),
    REFUSED("2000", "HTTP/1.1 2000 x\r\n" END, STATUS_LINE),
    REFUSED("20", "HTTP/1.1 20 x\r\n" END, STATUS_LINE),
    REFUSED("2x0", "HTTP/1.1 2x0 x\r\n" END, STATUS_LINE),
    REFUSED("-20", "HTTP/1.1 -20 x\r\n" END, STATUS_LINE),
    REFUSED("200x", "HTTP/1.1 200x\r\n" END, STATUS_LINE),
    REFUSED("two spaces", "HTTP/1.1  200 OK\r\n" END, STATUS_LINE),
    REFUSED("no status", "HTTP/1.1\r\n" END, STATUS_LINE),
    REFUSED("no status, space", "HTTP/1.1 \r\n" END, STATUS_LINE),
    REFUSED("empty line first", "\r\n" OK200 "Content-Length: 0\r\n" END, STATUS_LINE),
    REFUSED("ICY", "ICY 200 OK\r\n" END, STATUS_LINE),
    REFUSED("a request", "GET / HTTP/1.1\r\n" END, STATUS_LINE),
    REFUSED("HTTP/2.0", "HTTP/2.0 200 OK\r\n" END, VERSION),
    REFUSED("HTTP/1.2", "HTTP/1.2 200 OK\r\n" END, VERSION),
    REFUSED("bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", BARE_LF),
    REFUSED("bare CR", OK200 "X: a\rb\r\n" END, BARE_CR),
    REFUSED("NUL", OK200 "X: \0\r\n" END, CONTROL),
    REFUSED("fold", OK200 "X: a\r\n b\r\n" END, FOLD),
    REFUSED("no colon", OK200 "X\r\n" END, NO_COLON),
    REFUSED("space before colon", OK200 "X : a\r\n" END, HEADER_NAME),
    REFUSED("chunk size", OK200 TE END "x\r\n", CHUNK_SIZE),
    REFUSED("chunk end", OK200 TE END "1\r\nabc", CHUNK_END),
};

#define N_CASES (sizeof cases / sizeof cases[0])

static struct message got;
static struct http_response response;

static void check(const struct response_case *c, const char *how)
{
    enum http_outcome outcome = c->bad != HTTP_BAD_NONE ? HTTP_BAD
                                : c->body != NULL       ? HTTP_DONE
                                                        : HTTP_MORE;
    if (got.outcome != outcome || got.bad != c->bad) {
        fail_msg("%s, %s: outcome %d (%s), expected %d (%s)", c->name, how, got.outcome,
                 http_bad_text(got.bad), outcome, http_bad_text(c->bad));
    }
    if (outcome == HTTP_BAD) {
        return;
    }
    if (response.status != c->status || response.head.framing != c->framing ||
        response.head.keep_alive != c->keep_alive || response.is_interim != (c->status < 200) ||
        got.used != c->n) {
        fail_msg("%s, %s: status %d, framing %d, keep-alive %d, used %zu of %zu", c->name, how,
                 response.status, response.head.framing, response.head.keep_alive, got.used, c->n);
    }
    if (c->body != NULL &&
        (got.body_len != strlen(c->body) || memcmp(got.body, c->body, got.body_len) != 0)) {
        fail_msg("%s, %s: body \"%.*s\"", c->name, how, (int)got.body_len, got.body);
    }
}

static void test_table(void **state)
{
    (void)state;
    static const size_t steps[] = {1, 2, 3, 5, 7};
    for (size_t i = 0; i < N_CASES; i++) {
        const struct response_case *c = &cases[i];
        message_response(&got, &response, false, c->bytes, c->n, c->n);
        check(c, "whole");
        uint32_t bad_at = got.bad_at;
        for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
            message_response(&got, &response, false, c->bytes, c->n, steps[k]);
            check(c, "in steps");
            assert_int_equal(got.bad_at, bad_at);
        }
    }
}

static void test_truncated(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const struct response_case *c = &cases[i];
        for (size_t n = 0; n < c->n; n++) {
            message_response(&got, &response, false, c->bytes, n, n + 1);
            if (got.outcome == HTTP_DONE ||
                (got.outcome == HTTP_BAD && (c->bad == HTTP_BAD_NONE || got.bad != c->bad))) {
                fail_msg("%s, %zu bytes: outcome %d (%s)", c->name, n, got.outcome,
                         http_bad_text(got.bad));
            }
        }
    }
}

/* An answer to HEAD has the fields of a body and none. */
static void test_to_head(void **state)
{
    (void)state;
    static const char *const answers[] = {OK200 "Content-Length: 100\r\n" END, OK200 TE END,
                                          OK200 END};
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(answers[i]);
        message_response(&got, &response, true, answers[i], n, n);
        assert_int_equal(got.outcome, HTTP_DONE);
        assert_int_equal(got.used, n);
        assert_true(response.head.keep_alive);
    }
}

static void test_reason_and_limits(void **state)
{
    (void)state;
    const char *text = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n";
    http_response_begin(&response, false);
    assert_int_equal(http_response_parse(&response, text, strlen(text)), HTTP_DONE);
    assert_true(http_span_is(text, response.reason, "Service Unavailable"));
    assert_true(
        http_span_is(text, http_header_find(&response.head, text, "retry-after")->value, "1"));

    static char big[HTTP_MAX_HEAD_BYTES + 64];
    memset(big, 'a', sizeof big);
    memcpy(big, "HTTP/1.1 200 ", 13);
    memcpy(big + HTTP_MAX_HEAD_BYTES - 4, "\r\n\r\n", 4);
    message_response(&got, &response, false, big, HTTP_MAX_HEAD_BYTES, HTTP_MAX_HEAD_BYTES);
    assert_int_equal(response.head.bytes, HTTP_MAX_HEAD_BYTES);
    assert_int_equal(response.head.framing, HTTP_UNTIL_CLOSE);
    memset(big, 'a', sizeof big);
    memcpy(big, "HTTP/1.1 200 ", 13);
    memcpy(big + HTTP_MAX_HEAD_BYTES - 3, "\r\n\r\n", 4);
    message_response(&got, &response, false, big, HTTP_MAX_HEAD_BYTES + 1, 500);
    assert_int_equal(got.bad, HTTP_BAD_HEAD_LARGE);
}

/* Interim answers before the one that counts, as a client reads them. */
static void test_interim_sequence(void **state)
{
    (void)state;
    const char *text =
        HTTP_CONTINUE "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" OK200 "Content-Length: 0\r\n\r\n";
    const char *at = text;
    const char *end = text + strlen(text);
    int statuses[3];
    for (int i = 0; i < 3; i++) {
        http_response_begin(&response, false);
        assert_int_equal(http_response_parse(&response, at, (size_t)(end - at)), HTTP_DONE);
        statuses[i] = response.status;
        assert_int_equal(response.is_interim, i < 2);
        at += response.head.bytes;
    }
    assert_int_equal(statuses[0], 100);
    assert_int_equal(statuses[1], 103);
    assert_int_equal(statuses[2], 200);
    assert_ptr_equal(at, end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_to_head),
        cmocka_unit_test(test_reason_and_limits),
        cmocka_unit_test(test_interim_sequence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
