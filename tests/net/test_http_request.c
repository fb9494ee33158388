/* Requests: the cases that packaged servers get wrong and what we do with each (docs/HTTP.md),
 * limits, every cut of the bytes, spans and decisions. */
#include "net/net_test.h"
#include "net/request_cases.h"

#include "base/mem.h"
#include "net/http.h"

static struct message got;
static struct http_request request;

static void check(const struct request_case *c, const char *how)
{
    enum http_outcome outcome = c->bad == HTTP_BAD_NONE ? HTTP_DONE : HTTP_BAD;
    if (got.outcome != outcome || got.bad != c->bad) {
        fail_msg("%s, %s: outcome %d (%s), expected %d (%s)", c->name, how, got.outcome,
                 http_bad_text(got.bad), outcome, http_bad_text(c->bad));
    }
    if (outcome == HTTP_DONE && (got.used != c->n || got.body_len != strlen(c->body) ||
                                 memcmp(got.body, c->body, got.body_len) != 0)) {
        fail_msg("%s, %s: used %zu of %zu, body \"%.*s\", expected \"%s\"", c->name, how, got.used,
                 c->n, (int)got.body_len, got.body, c->body);
    }
}

/* Whole, in steps of 1, 2, 3, 5 and 7 bytes, each before the guard page: the same outcome, and the
 * fault of a head at the same byte. */
static void test_table(void **state)
{
    (void)state;
    static const size_t steps[] = {1, 2, 3, 5, 7};
    for (size_t i = 0; i < N_CASES; i++) {
        const struct request_case *c = &cases[i];
        message_request(&got, &request, c->bytes, c->n, c->n);
        check(c, "whole");
        assert_int_equal(http_bad_status(got.bad), c->status);
        uint32_t bad_at = got.bad_at;
        for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
            message_request(&got, &request, c->bytes, c->n, steps[k]);
            check(c, "in steps");
            assert_int_equal(got.bad_at, bad_at);
        }
    }
}

/* Every proper prefix of a good message needs more; one of a bad message needs more or is bad for
 * the same reason, and stays so. */
static void test_truncated(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const struct request_case *c = &cases[i];
        bool was_bad = false;
        for (size_t n = 0; n < c->n; n++) {
            message_request(&got, &request, c->bytes, n, n + 1);
            if (got.outcome == HTTP_DONE && c->bad == HTTP_BAD_NONE) {
                fail_msg("%s: done after %zu of %zu bytes", c->name, n, c->n);
            }
            if (got.outcome == HTTP_DONE) {
                fail_msg("%s: a bad message is done after %zu bytes", c->name, n);
            }
            if (got.outcome == HTTP_BAD && got.bad != c->bad) {
                fail_msg("%s: %zu bytes: %s", c->name, n, http_bad_text(got.bad));
            }
            assert_true(!was_bad || got.outcome == HTTP_BAD);
            was_bad = got.outcome == HTTP_BAD;
        }
    }
}

/* The next message behind a good one is not touched, whatever it is. */
static void test_pipelined(void **state)
{
    (void)state;
    static char two[4096];
    for (size_t i = 0; i < N_CASES; i++) {
        const struct request_case *c = &cases[i];
        if (c->bad != HTTP_BAD_NONE) {
            continue;
        }
        memcpy(two, c->bytes, c->n);
        memcpy(two + c->n, "\0\n garbage", 10);
        message_request(&got, &request, two, c->n + 10, c->n + 10);
        check(c, "with bytes behind it");
    }
}

/* ---- limits ---- */

static char *big; /* GUARD_BYTES */
static size_t big_n;

static void add(const char *text)
{
    size_t n = strlen(text);
    assert_true(big_n + n <= GUARD_BYTES);
    memcpy(big + big_n, text, n);
    big_n += n;
}

static void add_many(char c, size_t n)
{
    assert_true(big_n + n <= GUARD_BYTES);
    memset(big + big_n, c, n);
    big_n += n;
}

static void expect_big(enum http_outcome outcome, enum http_bad bad, size_t step)
{
    message_request(&got, &request, big, big_n, step);
    if (got.outcome != outcome || got.bad != bad) {
        fail_msg("%zu bytes in steps of %zu: outcome %d (%s), expected %d (%s)", big_n, step,
                 got.outcome, http_bad_text(got.bad), outcome, http_bad_text(bad));
    }
}

static void target_of(size_t n)
{
    big_n = 0;
    add("GET /");
    add_many('a', n - 1);
    add(" HTTP/1.1\r\n" HOST END);
}

static void test_target_limit(void **state)
{
    (void)state;
    target_of(HTTP_MAX_TARGET_BYTES);
    expect_big(HTTP_DONE, HTTP_BAD_NONE, big_n);
    assert_int_equal(request.target.len, HTTP_MAX_TARGET_BYTES);
    target_of(HTTP_MAX_TARGET_BYTES + 1);
    expect_big(HTTP_BAD, HTTP_BAD_TARGET_LONG, big_n);
    expect_big(HTTP_BAD, HTTP_BAD_TARGET_LONG, 100);
    target_of(65536);
    expect_big(HTTP_BAD, HTTP_BAD_TARGET_LONG, big_n);
    expect_big(HTTP_BAD, HTTP_BAD_TARGET_LONG, 4096);
    assert_int_equal(http_bad_status(got.bad), 414);
    /* no target at all */
    big_n = 0;
    add("GET  HTTP/1.1\r\n" HOST END);
    expect_big(HTTP_BAD, HTTP_BAD_REQUEST_LINE, big_n);
    /* a line that never ends is refused long before its head is too large */
    big_n = 0;
    add_many('a', 4200);
    expect_big(HTTP_BAD, HTTP_BAD_TARGET_LONG, 1000);
}

static void head_of(size_t n)
{
    big_n = 0;
    add(G HOST "X: ");
    add_many('a', n - big_n - 4);
    add("\r\n\r\n");
    assert_int_equal(big_n, n);
}

static void test_head_limit(void **state)
{
    (void)state;
    head_of(HTTP_MAX_HEAD_BYTES);
    expect_big(HTTP_DONE, HTTP_BAD_NONE, big_n);
    assert_int_equal(request.head.bytes, HTTP_MAX_HEAD_BYTES);
    expect_big(HTTP_DONE, HTTP_BAD_NONE, 1000);
    head_of(HTTP_MAX_HEAD_BYTES + 1);
    expect_big(HTTP_BAD, HTTP_BAD_HEAD_LARGE, big_n);
    expect_big(HTTP_BAD, HTTP_BAD_HEAD_LARGE, 1000);
    head_of(200000);
    expect_big(HTTP_BAD, HTTP_BAD_HEAD_LARGE, big_n);
    assert_int_equal(http_bad_status(got.bad), 431);
    /* a full buffer without an end is bad at once: nothing more could be taken in */
    message_request(&got, &request, big, HTTP_MAX_HEAD_BYTES, HTTP_MAX_HEAD_BYTES);
    assert_int_equal(got.outcome, HTTP_BAD);
    message_request(&got, &request, big, HTTP_MAX_HEAD_BYTES - 1, HTTP_MAX_HEAD_BYTES);
    assert_int_equal(got.outcome, HTTP_MORE);
    message_request(&got, &request, big, 0, 1);
    assert_int_equal(got.outcome, HTTP_MORE);
}

static void headers_of(size_t n)
{
    big_n = 0;
    add("GET / HTTP/1.0\r\n");
    for (size_t i = 0; i < n; i++) {
        add("a:b\r\n");
    }
    add("\r\n");
}

static void test_header_limit(void **state)
{
    (void)state;
    headers_of(0);
    expect_big(HTTP_DONE, HTTP_BAD_NONE, big_n);
    assert_int_equal(request.head.n_headers, 0);
    headers_of(HTTP_MAX_HEADERS);
    expect_big(HTTP_DONE, HTTP_BAD_NONE, big_n);
    assert_int_equal(request.head.n_headers, HTTP_MAX_HEADERS);
    headers_of(HTTP_MAX_HEADERS + 1);
    expect_big(HTTP_BAD, HTTP_BAD_MANY_HEADERS, big_n);
    expect_big(HTTP_BAD, HTTP_BAD_MANY_HEADERS, 3);
    headers_of(5000);
    expect_big(HTTP_BAD, HTTP_BAD_MANY_HEADERS, big_n);
    assert_int_equal(http_bad_status(got.bad), 431);
}

static void test_body_limit(void **state)
{
    (void)state;
    static const char at[] = P HOST "Content-Length: 8388608\r\n" END;
    message_request(&got, &request, at, sizeof at - 1, sizeof at);
    assert_int_equal(got.outcome, HTTP_MORE);
    assert_int_equal(request.head.content_length, HTTP_MAX_BODY_BYTES);
}

/* ---- what is read ---- */

static void parse(const char *text)
{
    size_t n = strlen(text);
    http_request_begin(&request);
    enum http_outcome outcome = http_request_parse(&request, text, n);
    if (outcome != HTTP_DONE) {
        fail_msg("\"%s\": outcome %d, %s", text, outcome, http_bad_text(request.head.bad));
    }
}

#define assert_span(text, span, expected)                                                          \
    do {                                                                                           \
        struct http_span s_ = (span);                                                              \
        if (!http_span_is((text), s_, (expected))) {                                               \
            fail_msg("\"%.*s\", expected \"%s\"", (int)s_.len, (text) + s_.at, (expected));        \
        }                                                                                          \
    } while (0)

static void test_parts(void **state)
{
    (void)state;
    const char *text = "\r\nPOST /v1/completions?a=b?c HTTP/1.1\r\nHost: localhost:8000\r\n"
                       "AUTHORIZATION: \t Bearer x y \t\r\nempty:\r\nempty: second\r\n\r\nbody";
    parse(text);
    assert_int_equal(request.method, HTTP_POST);
    assert_span(text, request.method_name, "POST");
    assert_span(text, request.target, "/v1/completions?a=b?c");
    assert_span(text, request.path, "/v1/completions");
    assert_span(text, request.query, "a=b?c");
    assert_int_equal(request.head.minor, 1);
    assert_int_equal(request.head.n_headers, 4);
    assert_int_equal(request.head.bytes, strlen(text) - 4);
    const struct http_header *h = http_header_find(&request.head, text, "authorization");
    assert_non_null(h);
    assert_span(text, h->name, "AUTHORIZATION");
    assert_span(text, h->value, "Bearer x y");
    h = http_header_find(&request.head, text, "Empty");
    assert_non_null(h);
    assert_span(text, h->value, "");
    assert_null(http_header_find(&request.head, text, "Hos"));
    assert_null(http_header_find(&request.head, text, "Host:"));
    assert_null(http_header_find(&request.head, text, ""));
    assert_true(http_span_is_nocase(text, request.method_name, "post"));
    assert_false(http_span_is(text, request.method_name, "post"));
}

static void test_targets(void **state)
{
    (void)state;
    static const struct {
        const char *target;
        const char *path;
        const char *query;
    } targets[] = {
        {"/", "/", ""},
        {"/?", "/", ""},
        {"//a/b", "//a/b", ""},
        {"/a%2Fb?x=/y", "/a%2Fb", "x=/y"},
        {"/\"<>[]{}|\\^`", "/\"<>[]{}|\\^`", ""},
        {"http://h/a/b?c", "/a/b", "c"},
        {"HTTPS://h:1/", "/", ""},
        {"http://h", "/", ""},
        {"http://h?q/r", "/", "q/r"},
        {"http://[::1]:80/x", "/x", ""},
    };
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        char text[128];
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", targets[i].target);
        parse(text);
        assert_span(text, request.target, targets[i].target);
        assert_span(text, request.path, targets[i].path);
        assert_span(text, request.query, targets[i].query);
    }
    parse("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(request.method, HTTP_OPTIONS);
    assert_int_equal(request.path.len, 1);
}

static void test_methods(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum http_method method;
    } methods[] = {
        {"GET", HTTP_GET},          {"HEAD", HTTP_HEAD},
        {"POST", HTTP_POST},        {"PUT", HTTP_PUT},
        {"DELETE", HTTP_DELETE},    {"OPTIONS", HTTP_OPTIONS},
        {"PATCH", HTTP_PATCH},      {"TRACE", HTTP_TRACE},
        {"get", HTTP_OTHER_METHOD}, {"GETT", HTTP_OTHER_METHOD},
        {"GE", HTTP_OTHER_METHOD},  {"!#$%&'*+-.^_`|~", HTTP_OTHER_METHOD},
    };
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        char text[128];
        snprintf(text, sizeof text, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", methods[i].name);
        parse(text);
        assert_int_equal(request.method, methods[i].method);
    }
}

static void test_keep_alive(void **state)
{
    (void)state;
    static const struct {
        const char *version;
        const char *connection;
        bool keep_alive;
    } rows[] = {
        {"1.1", NULL, true},
        {"1.0", NULL, false},
        {"1.1", "close", false},
        {"1.1", "CLOSE", false},
        {"1.0", "keep-alive", true},
        {"1.0", "Keep-Alive", true},
        {"1.1", "keep-alive", true},
        {"1.1", "keep-alive, close", false},
        {"1.0", "close, keep-alive", false},
        {"1.1", "x, \t close ,", false},
        {"1.1", "closed", true},
        {"1.1", "close;", true},
        {"1.1", "", true},
        {"1.0", "upgrade", false},
        {"1.0", "upgrade\r\nConnection: keep-alive", true},
        {"1.1", "upgrade\r\nConnection: close", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[160];
        snprintf(text, sizeof text, "GET / HTTP/%s\r\nHost: a\r\n%s%s%s\r\n", rows[i].version,
                 rows[i].connection != NULL ? "Connection: " : "",
                 rows[i].connection != NULL ? rows[i].connection : "",
                 rows[i].connection != NULL ? "\r\n" : "");
        parse(text);
        if (request.head.keep_alive != rows[i].keep_alive) {
            fail_msg("%s", text);
        }
    }
}

static void test_expect_and_framing(void **state)
{
    (void)state;
    parse(P HOST "Expect: 100-continue\r\nContent-Length: 3\r\n" END);
    assert_true(request.expect_continue);
    assert_int_equal(request.head.framing, HTTP_LENGTH);
    assert_int_equal(request.head.content_length, 3);
    parse(P10 "Expect: 100-continue\r\nContent-Length: 3\r\n" END);
    assert_false(request.expect_continue);
    parse(P HOST END);
    assert_false(request.expect_continue);
    assert_int_equal(request.head.framing, HTTP_NO_BODY);
    parse(P HOST TE END);
    assert_int_equal(request.head.framing, HTTP_CHUNKED);
}

/* Every reason has words, and a status where a request can have it. */
static void test_reasons(void **state)
{
    (void)state;
    static const int statuses[] = {400, 413, 414, 417, 431, 501, 505};
    for (int bad = 1; bad < HTTP_BAD_COUNT; bad++) {
        assert_true(strlen(http_bad_text((enum http_bad)bad)) > 5);
        int status = http_bad_status((enum http_bad)bad);
        bool known = bad == HTTP_BAD_STATUS_LINE ? status == 0 : false;
        for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
            known = known || status == statuses[i];
        }
        assert_true(known);
    }
}

static void test_no_allocation(void **state)
{
    (void)state;
    uint64_t before = mem_alloc_count();
    for (size_t i = 0; i < N_CASES; i++) {
        message_request(&got, &request, cases[i].bytes, cases[i].n, 3);
    }
    assert_int_equal(mem_alloc_count(), before);
}

static int set_up(void **state)
{
    (void)state;
    big = malloc(GUARD_BYTES);
    return big == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    free(big);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),      cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_pipelined),  cmocka_unit_test(test_target_limit),
        cmocka_unit_test(test_head_limit), cmocka_unit_test(test_header_limit),
        cmocka_unit_test(test_body_limit), cmocka_unit_test(test_parts),
        cmocka_unit_test(test_targets),    cmocka_unit_test(test_methods),
        cmocka_unit_test(test_keep_alive), cmocka_unit_test(test_expect_and_framing),
        cmocka_unit_test(test_reasons),    cmocka_unit_test(test_no_allocation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
