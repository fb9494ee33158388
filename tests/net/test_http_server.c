/* test_http_server.c - the HTTP server on the wire: answers, streams, pipelining, early answers,
 * peers that leave, the end. Limits: test_http_server_limits.c. */
#include "net/http_server_rig.h"

#define X10    "xxxxxxxxxx"
#define X100   X10 X10 X10 X10 X10 X10 X10 X10 X10 X10
#define CHUNK  "64\r\n" X100 "\r\n"
#define TEN(c) c c c c c c c c c c

#define STREAM_HEAD                                                                                \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
#define STREAM    STREAM_HEAD "\r\n" TEN(CHUNK) "0\r\n\r\n"
#define LATE      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nlate"
#define NOT_FOUND "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
#define POST(p)   "POST " p " HTTP/1.1\r\n" HOST_LINE
#define EXPECT    "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"

static const struct {
    const char *name;
    const char *text;
    const char *answer; /* to the byte */
    bool closes;
} cases[] = {
    {"plain", GET("/echo"), OK_HEAD "Content-Length: 0\r\n\r\n", false},
    {"close", "GET /echo HTTP/1.1\r\n" HOST_LINE "Connection: close\r\n\r\n",
     OK_HEAD "Content-Length: 0\r\nConnection: close\r\n\r\n", true},
    {"1.0", "GET /echo HTTP/1.0\r\n\r\n", OK_HEAD "Content-Length: 0\r\nConnection: close\r\n\r\n",
     true},
    {"1.0 kept", "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
     OK_HEAD "Content-Length: 0\r\nConnection: keep-alive\r\n\r\n", false},
    {"body", POST("/echo") "Content-Length: 5\r\n\r\nhello",
     OK_HEAD "Content-Length: 5\r\n\r\nhello", false},
    {"chunks",
     POST("/echo") "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n",
     OK_HEAD "Content-Length: 5\r\n\r\nhello", false},
    {"head", "HEAD /echo HTTP/1.1\r\n" HOST_LINE "Content-Length: 2\r\n\r\nhi" GET("/echo"),
     OK_HEAD "Content-Length: 2\r\n\r\n" OK_HEAD "Content-Length: 0\r\n\r\n", false},
    {"head of a stream", "HEAD /stream HTTP/1.1\r\n" HOST_LINE "\r\n" GET("/echo"),
     "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" OK_HEAD
     "Content-Length: 0\r\n\r\n",
     false},
    {"stream", GET("/stream"), STREAM, false},
    {"stream later", GET("/later-stream"), STREAM, false},
    {"stream, then close", "GET /stream HTTP/1.1\r\n" HOST_LINE "Connection: close\r\n\r\n",
     STREAM_HEAD "Connection: close\r\n\r\n" TEN(CHUNK) "0\r\n\r\n", true},
    {"stream of 1.0", "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
     "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" TEN(X100),
     true},
    {"later", GET("/late"), LATE, false},
    {"four at once", GET("/late") GET("/echo") GET("/later-stream") GET("/echo"),
     LATE OK_HEAD "Content-Length: 0\r\n\r\n" STREAM OK_HEAD "Content-Length: 0\r\n\r\n", false},
    {"the last one closes", GET("/late") "GET /late HTTP/1.0\r\n\r\n" GET("/echo"),
     LATE "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n"
          "Connection: close\r\n\r\nlate",
     true},
    {"early, no body", GET("/early") GET("/echo"),
     NOT_FOUND "\r\nno" OK_HEAD "Content-Length: 0\r\n\r\n", false},
    {"early, empty body", POST("/early") "Content-Length: 0\r\n\r\n" GET("/echo"),
     NOT_FOUND "\r\nno" OK_HEAD "Content-Length: 0\r\n\r\n", false},
    {"early, body unread", POST("/early") "Content-Length: 5\r\n\r\n",
     NOT_FOUND "Connection: close\r\n\r\nno", true},
    {"early, body there", POST("/early") "Content-Length: 5\r\n\r\nGET /" GET("/echo"),
     NOT_FOUND "Connection: close\r\n\r\nno", true},
    {"early stream", GET("/early-stream") GET("/echo"), STREAM OK_HEAD "Content-Length: 0\r\n\r\n",
     false},
    {"early stream, body unread", POST("/early-stream") "Transfer-Encoding: chunked\r\n\r\n5\r\n",
     STREAM_HEAD "Connection: close\r\n\r\n" TEN(CHUNK) "0\r\n\r\n", true},
    {"answered within the body", POST("/early-late") "Content-Length: 40\r\n\r\n" GET("/echo"),
     "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n"
     "Connection: close\r\n\r\nlate",
     true},
    {"streamed within the body", POST("/early-begin") "Content-Length: 40\r\n\r\n" GET("/echo"),
     STREAM_HEAD "Connection: close\r\n\r\n" TEN(CHUNK) "0\r\n\r\n", true},
    {"early without 100", POST("/early") EXPECT, NOT_FOUND "Connection: close\r\n\r\nno", true},
    {"100 not needed", POST("/echo") EXPECT "hello", OK_HEAD "Content-Length: 5\r\n\r\nhello",
     false},
    {"100 to nothing", POST("/echo") "Expect: 100-continue\r\n\r\n",
     OK_HEAD "Content-Length: 0\r\n\r\n", false},
    {"bad behind good", GET("/echo") "BAD\r\n\r\n" GET("/echo"),
     OK_HEAD "Content-Length: 0\r\n\r\n"
             "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 41\r\n"
             "Connection: close\r\n\r\n{\"status\":400,\"why\":\"not a request line\"}",
     true},
};

static void test_answers(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[16384];
        size_t len = 0;
        int fd = dial(f);
        say_text(fd, cases[i].text);
        bool closed =
            hear(fd, cases[i].closes ? NULL : cases[i].answer, PATIENCE_MS, out, sizeof out, &len);
        if (!cases[i].closes) { /* and nothing behind it */
            closed = hear(fd, NULL, 10, out, sizeof out, &len);
        }
        if (strcmp(out, cases[i].answer) != 0 || closed != cases[i].closes) {
            fail_msg("%s: closed %d, got:\n%s", cases[i].name, closed, out);
        }
        close(fd);
    }
    finish(f);
    assert_int_equal(atomic_load(&f->gone[HTTP_GONE_SLOW]), 0);
    free(f);
}

/* The peer waits for the 100 before it sends the body. */
static void test_continue(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    int fd = dial(f);
    for (int i = 0; i < 3; i++) {
        char out[1024];
        size_t len = 0;
        say_text(fd, POST("/echo") EXPECT);
        (void)hear(fd, "\r\n\r\n", PATIENCE_MS, out, sizeof out, &len);
        assert_string_equal(out, "HTTP/1.1 100 Continue\r\n\r\n");
        say_text(fd, "hel");
        assert_silent(fd, 10);
        say_text(fd, "lo");
        len = 0;
        (void)hear(fd, "hello", PATIENCE_MS, out, sizeof out, &len);
        assert_string_equal(out, OK_HEAD "Content-Length: 5\r\n\r\nhello");
    }
    close(fd);
    finish(f);
    free(f);
}

static void test_byte_by_byte(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    static const char text[] = POST(
        "/echo") "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n" GET("/late");
    int fd = dial(f);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        say(fd, text + i, 1);
        sched_yield();
    }
    char out[4096];
    size_t len = 0;
    (void)hear(fd, LATE, PATIENCE_MS, out, sizeof out, &len);
    assert_string_equal(out, OK_HEAD "Content-Length: 5\r\n\r\nhello" LATE);
    close(fd);
    finish(f);
    assert_int_equal(f->counts.requests, 2);
    assert_int_equal(f->counts.bad_requests, 0);
    free(f);
}

/* More requests at once than the input holds: all answered, in order. */
static void test_deep_pipeline(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct fixture *f = start((struct http_server_config){0});
    struct strbuf text = {0};
    for (int i = 0; i < N; i++) {
        char body[16];
        int n = snprintf(body, sizeof body, "<%d>", i);
        strbuf_printf(&text, POST("/echo") "Content-Length: %d\r\n\r\n%s", n, body);
        if (i % 100 == 0) {
            strbuf_puts(&text, GET("/late"));
        }
    }
    assert_true(text.len > 3 * CONN_INPUT_BYTES);
    int fd = dial(f);
    const size_t cap = (size_t)1 << 20;
    char *out = malloc(cap);
    assert_non_null(out);
    size_t len = 0;
    say(fd, text.data, text.len);
    (void)hear(fd, "<2999>", PATIENCE_MS, out, cap, &len);
    const char *at = out;
    for (int i = 0; i < N; i++) {
        char body[32];
        snprintf(body, sizeof body, "\r\n\r\n<%d>", i);
        at = strstr(at, body);
        assert_non_null(at);
    }
    close(fd);
    free(out);
    strbuf_deinit(&text);
    finish(f);
    assert_int_equal(f->counts.requests, N + N / 100);
    free(f);
}

/* Many small chunks to a peer that pauses: each of them is there, in order, once. */
static void test_small_chunks(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    const size_t cap = (size_t)1 << 20;
    char *out = malloc(cap);
    assert_non_null(out);
    int fd = dial(f);
    int small = 1; /* the least that the system gives */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    say_text(fd, GET("/small"));
    wait_until(&f->requests, 1);
    (void)poll(NULL, 0, 20);
    size_t len = 0;
    (void)hear(fd, "\r\n0\r\n\r\n", PATIENCE_MS, out, cap, &len);
    const char *body = strstr(out, "\r\n\r\n") + 4;
    assert_int_equal(out + len - body, 10000 * 6 + 5);
    for (int i = 0; i < 10000; i++) {
        assert_memory_equal(body + (size_t)i * 6, "1\r\nx\r\n", 6);
    }
    close(fd);
    free(out);
    finish(f);
    free(f);
}

/* The queue's bound is for streams: an answer that is complete may exceed it, and arrives whole. */
static void test_large_answer(void **state)
{
    (void)state;
    const size_t n = (size_t)8 << 20;
    char head[128];
    struct fixture *f = start((struct http_server_config){.max_output_bytes = 1000});
    char *body = malloc(n);
    char *out = malloc(n + 4096);
    assert_true(body != NULL && out != NULL);
    for (size_t i = 0; i < n; i++) {
        body[i] = (char)('a' + i % 23);
    }
    body[n - 1] = '!';
    int fd = dial(f);
    snprintf(head, sizeof head, POST("/echo") "Content-Length: %zu\r\n\r\n", n);
    say_text(fd, head);
    say(fd, body, n);
    wait_until(&f->requests, 1); /* nothing was read so far: most of it waits */
    say_text(fd, GET("/late"));
    size_t len = 0;
    (void)hear(fd, "!" LATE, PATIENCE_MS, out, n + 4096, &len);
    size_t late = sizeof LATE - 1;
    assert_true(len > n + late && memcmp(out + len - late - n, body, n) == 0);
    close(fd);
    finish(f);
    assert_int_equal(f->counts.dropped_slow, 0);
    free(body);
    free(out);
    free(f);
}

/* A peer leaves while its answer is made: noticed at once. */
static void test_gone(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    static const char *const holds[] = {GET("/hold"), GET("/hold") GET("/echo"),
                                        POST("/hold") "Content-Length: 2\r\n\r\nhi"};
    int gone = 0;
    for (size_t i = 0; i < sizeof holds / sizeof holds[0]; i++) {
        for (int how = 0; how < 3; how++) {
            int fd = dial(f);
            say_text(fd, holds[i]);
            wait_until(&f->requests, gone + 1);
            if (how == 0) {
                close(fd);
            } else if (how == 1) {
                reset(fd);
            } else {
                shutdown(fd, SHUT_WR); /* half closed counts too */
            }
            wait_until(&f->gone[HTTP_GONE_CLOSED], ++gone);
            if (how == 2) {
                close(fd);
            }
        }
    }
    int fd = dial(f); /* also between head and body's end: the handler has seen the head */
    say_text(fd, POST("/hold") "Content-Length: 2\r\n\r\nh");
    assert_silent(fd, 20);
    close(fd);
    wait_until(&f->gone[HTTP_GONE_CLOSED], gone + 1);
    finish(f);
    free(f);
}

/* Behind so many pipelined bytes that no more are read, the end is still noticed, and nobody spins
 * meanwhile. */
static void test_gone_behind_input(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    static char waste[2 * CONN_INPUT_BYTES];
    memset(waste, 'w', sizeof waste);
    for (int how = 0; how < 2; how++) {
        int fd = dial(f);
        say_text(fd, GET("/hold"));
        wait_until(&f->requests, how + 1);
        say(fd, waste, sizeof waste);
        assert_silent(fd, 50);
        assert_int_equal(atomic_load(&f->gone[HTTP_GONE_CLOSED]), how);
        assert_idle(f);
        if (how == 0) {
            close(fd);
        } else {
            reset(fd);
        }
        wait_until(&f->gone[HTTP_GONE_CLOSED], how + 1);
        assert_idle(f);
    }
    finish(f);
    assert_int_equal(f->counts.connections, 0);
    free(f);
}

/* Input that stood behind a full buffer is read on when the answer is out. */
static void test_input_goes_on(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    const size_t n = 4 * CONN_INPUT_BYTES;
    struct strbuf text = {0};
    strbuf_puts(&text, GET("/late"));
    strbuf_printf(&text, POST("/echo") "Content-Length: %zu\r\n\r\n", n);
    for (size_t i = 0; i < n; i++) {
        strbuf_putc(&text, i + 1 < n ? 'b' : '!');
    }
    strbuf_puts(&text, GET("/late"));
    char *out = malloc(n + 4096);
    assert_non_null(out);
    size_t len = 0;
    int fd = dial(f);
    say(fd, text.data, text.len);
    (void)hear(fd, "!" LATE, PATIENCE_MS, out, n + 4096, &len);
    assert_memory_equal(out, LATE, sizeof LATE - 1);
    assert_contains(out, "!" LATE);
    close(fd);
    free(out);
    strbuf_deinit(&text);
    finish(f);
    free(f);
}

static void test_stop_listening(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    int idle = dial(f);
    int busy = dial(f);
    int half = dial(f);
    say_text(busy, GET("/hold"));
    wait_until(&f->requests, 1);
    say_text(half, "GET /echo HTTP/1.1\r\n");
    (void)poll(NULL, 0, 50);
    command(f, 's');
    assert_closed(idle);
    assert_silent(busy, 50); /* it is still being served */
    say_text(half, HOST_LINE "\r\n");
    char out[4096];
    size_t len = 0;
    assert_true(hear(half, NULL, PATIENCE_MS, out, sizeof out, &len));
    assert_string_equal(out, OK_HEAD "Content-Length: 0\r\nConnection: close\r\n\r\n");
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = address_of(f);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), -1);
    close(fd);
    finish(f);
    assert_int_equal(atomic_load(&f->gone[HTTP_GONE_SERVER]), 1);
    close(idle);
    close(busy);
    close(half);
    free(f);
}

static void test_bad_address(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    struct fixture *f = start((struct http_server_config){0});
    struct http_server_config config = {.base = f->base, .port = f->port};
    struct http_server *s;
    assert_status(http_server_create(&config, &s, &err), STATUS_IO);
    assert_contains(err.message, "choose another --port");
    config = (struct http_server_config){.base = f->base, .host = "no such host"};
    assert_status(http_server_create(&config, &s, &err), STATUS_USAGE);
    assert_contains(err.message, "no such host");
    struct event_config *plain = event_config_new();
    assert_int_equal(event_config_avoid_method(plain, "epoll"), 0);
    config = (struct http_server_config){.base = event_base_new_with_config(plain)};
    assert_non_null(config.base);
    assert_status(http_server_create(&config, &s, &err), STATUS_UNSUPPORTED);
    assert_contains(err.message, event_base_get_method(config.base));
    event_base_free(config.base);
    event_config_free(plain);
    finish(f);
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),       cmocka_unit_test(test_continue),
        cmocka_unit_test(test_byte_by_byte),  cmocka_unit_test(test_deep_pipeline),
        cmocka_unit_test(test_small_chunks),  cmocka_unit_test(test_large_answer),
        cmocka_unit_test(test_gone),          cmocka_unit_test(test_gone_behind_input),
        cmocka_unit_test(test_input_goes_on), cmocka_unit_test(test_stop_listening),
        cmocka_unit_test(test_bad_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
