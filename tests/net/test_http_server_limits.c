/* test_http_server_limits.c - what the HTTP server refuses and bounds, on the wire: every refused
 * request, sizes at the limit and one above, time limits, output that nobody takes. */
#include "net/http_server_rig.h"
#include "net/request_cases.h"

#define POST(p) "POST " p " HTTP/1.1\r\n" HOST_LINE
#define CHUNKED "Transfer-Encoding: chunked\r\n\r\n"

/* Until the server closes; the status of the first answer, 0: none. */
static int status_of(const struct fixture *f, const char *text, size_t n, bool *closed)
{
    static char out[65536];
    size_t len = 0;
    int fd = dial(f);
    say(fd, text, n);
    shutdown(fd, SHUT_WR); /* what is accepted is answered before, what is refused has no more */
    *closed = hear(fd, NULL, PATIENCE_MS, out, sizeof out, &len);
    close(fd);
    return strncmp(out, "HTTP/1.1 ", 9) == 0 ? atoi(out + 9) : 0;
}

/* Every row of the table, as a peer sees it. The refused ones close the connection: their bytes
 * that follow are no request. */
static void test_request_cases(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    uint64_t bad = 0;
    for (size_t i = 0; i < N_CASES; i++) {
        const struct request_case *c = &cases[i];
        static char out[4096];
        size_t len = 0;
        int fd = dial(f);
        say(fd, c->bytes, c->n);
        bool refused = c->bad != HTTP_BAD_NONE;
        char want[128];
        snprintf(want, sizeof want, "HTTP/1.1 %d ", refused ? c->status : 200);
        bool closed = hear(fd, refused ? NULL : "\r\n\r\n", PATIENCE_MS, out, sizeof out, &len);
        const char *head_end = strstr(out, "\r\n\r\n");
        if (strncmp(out, want, strlen(want)) != 0 || head_end == NULL ||
            (refused && (!closed || strstr(out, http_bad_text(c->bad)) == NULL ||
                         strstr(head_end, "HTTP/1.1") != NULL))) {
            fail_msg("%s: expected %s closed %d, got:\n%s", c->name, want, closed, out);
        }
        if (!refused && c->body[0] != '\0') {
            (void)hear(fd, c->body, PATIENCE_MS, out, sizeof out, &len);
            assert_string_equal(strstr(out, "\r\n\r\n") + 4, c->body);
        }
        bad += refused;
        close(fd);
    }
    finish(f);
    assert_int_equal(f->counts.bad_requests, bad);
    free(f);
}

/* ---------------------------------------------------------------- sizes */

static void append_n(struct strbuf *b, char c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        strbuf_putc(b, c);
    }
}

/* Requests that have `n` of something. */

static void head_of(struct strbuf *b, size_t n)
{
    strbuf_puts(b, "GET /echo HTTP/1.1\r\n" HOST_LINE "X: ");
    append_n(b, 'x', n - b->len - 4);
    strbuf_puts(b, "\r\n\r\n");
}

static void headers(struct strbuf *b, size_t n)
{
    strbuf_puts(b, "GET /echo HTTP/1.1\r\n" HOST_LINE);
    for (size_t i = 1; i < n; i++) {
        strbuf_puts(b, "A: b\r\n");
    }
    strbuf_puts(b, "\r\n");
}

static void target_of(struct strbuf *b, size_t n)
{
    strbuf_puts(b, "GET /");
    append_n(b, 't', n - 1);
    strbuf_puts(b, " HTTP/1.1\r\n" HOST_LINE "\r\n");
}

static void extension_of(struct strbuf *b, size_t n)
{
    strbuf_puts(b, POST("/echo") CHUNKED "1;");
    append_n(b, 'e', n - 1);
    strbuf_puts(b, "\r\nx\r\n0\r\n\r\n");
}

static void trailer_of(struct strbuf *b, size_t n)
{
    strbuf_puts(b, POST("/echo") CHUNKED "0\r\nT:");
    append_n(b, 't', n - 4);
    strbuf_puts(b, "\r\n\r\n");
}

static void length_of(struct strbuf *b, size_t n)
{
    strbuf_printf(b, POST("/echo") "Content-Length: %zu\r\n\r\n", n);
    append_n(b, 'l', n);
}

static void chunks_of(struct strbuf *b, size_t n)
{
    strbuf_puts(b, POST("/echo") CHUNKED);
    for (size_t i = 0; i < n; i += 7) {
        size_t piece = n - i < 7 ? n - i : 7;
        strbuf_printf(b, "%zx\r\n", piece);
        append_n(b, 'c', piece);
        strbuf_puts(b, "\r\n");
    }
    strbuf_puts(b, "0\r\n\r\n");
}

#define BODY_LIMIT 1000

static const struct {
    const char *name;
    void (*make)(struct strbuf *b, size_t n);
    size_t limit;
    int status;
} sizes[] = {
    {"head", head_of, HTTP_MAX_HEAD_BYTES, 431},
    {"headers", headers, HTTP_MAX_HEADERS, 431},
    {"target", target_of, HTTP_MAX_TARGET_BYTES, 414},
    {"extensions", extension_of, HTTP_MAX_EXTENSION_BYTES, 400},
    {"trailer", trailer_of, HTTP_MAX_TRAILER_BYTES, 431},
    {"length", length_of, BODY_LIMIT, 413},
    {"chunks", chunks_of, BODY_LIMIT, 413},
};

static void test_sizes(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_body_bytes = BODY_LIMIT});
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t over = 0; over < 2; over++) {
            struct strbuf text = {0};
            sizes[i].make(&text, sizes[i].limit + over);
            bool closed;
            int status = status_of(f, text.data, text.len, &closed);
            if (status != (over > 0 ? sizes[i].status : 200) || !closed) {
                fail_msg("%s of %zu: status %d", sizes[i].name, sizes[i].limit + over, status);
            }
            strbuf_deinit(&text);
        }
    }
    /* A handler that has seen the head is told that its request was refused. */
    assert_int_equal(atomic_load(&f->gone[HTTP_GONE_CLOSED]), 4);
    finish(f);
    free(f);
}

/* The bodies of all requests together: the one too many is refused, and when the others are gone
 * there is room again. */
static void test_bodies(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_bodies_bytes = 3000});
    struct strbuf body = {0};
    append_n(&body, 'b', 1000);
    int peers[3];
    for (int i = 0; i < 3; i++) {
        peers[i] = dial(f);
        say_text(peers[i], POST("/echo") "Content-Length: 1001\r\n\r\n");
        say(peers[i], body.data, body.len);
    }
    (void)poll(NULL, 0, 50);
    char out[4096];
    for (int i = 0; i < 20; i++) { /* none is forgotten */
        ask(f, POST("/echo") "Content-Length: 1\r\n\r\nx", "HTTP/1.1 503 ", out, sizeof out);
    }
    ask(f, GET("/echo"), "200 OK", out, sizeof out);
    for (int i = 0; i < 3; i++) {
        size_t len = 0;
        if (i < 2) {
            close(peers[i]);
            wait_until(&f->gone[HTTP_GONE_CLOSED], 20 + i + 1);
        } else {
            say_text(peers[i], "!");
            (void)hear(peers[i], "!", PATIENCE_MS, out, sizeof out, &len);
            assert_contains(out, "b!");
            close(peers[i]);
        }
    }
    bool closed;
    struct strbuf text = {0};
    length_of(&text, 3000);
    assert_int_equal(status_of(f, text.data, text.len, &closed), 200);
    struct strbuf over = {0};
    length_of(&over, 3001);
    assert_int_equal(status_of(f, over.data, over.len, &closed), 503);
    strbuf_deinit(&over);
    strbuf_deinit(&text);
    strbuf_deinit(&body);
    finish(f);
    free(f);
}

/* More connections than allowed wait in the backlog and are served when a place becomes free. */
static void test_most_connections(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_connections = 2});
    int a = dial(f);
    int b = dial(f);
    say_text(a, GET("/hold"));
    say_text(b, GET("/hold"));
    wait_until(&f->requests, 2);
    int c = dial(f);
    say_text(c, GET("/echo"));
    assert_silent(c, 100);
    assert_idle(f);
    close(a);
    char out[1024];
    size_t len = 0;
    (void)hear(c, "\r\n\r\n", PATIENCE_MS, out, sizeof out, &len);
    assert_contains(out, "200 OK");
    close(b);
    close(c);
    finish(f);
    free(f);
}

/* ---------------------------------------------------------------- output */

/* The queue of a stream: full to the byte is allowed, one byte more is not. on_gone comes from
 * inside the write. */
static void test_output_limit(void **state)
{
    (void)state;
    for (int over = 0; over < 2; over++) {
        struct fixture *f = start((struct http_server_config){.max_output_bytes = 20000});
        int fd = dial(f);
        say_text(fd, over ? GET("/overfill") : GET("/fill"));
        wait_until(&f->filled, 1);
        if (over) {
            wait_until(&f->gone[HTTP_GONE_SLOW], 1);
        }
        assert_serves(f);
        finish(f);
        assert_int_equal(f->counts.dropped_slow, over);
        assert_int_equal(atomic_load(&f->gone[HTTP_GONE_SERVER]), 1 - over);
        close(fd);
        free(f);
    }
}

static void test_flood(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_output_bytes = 100000});
    int fd = dial(f);
    say_text(fd, GET("/flood"));
    wait_until(&f->gone[HTTP_GONE_SLOW], 1); /* a gigabyte was not queued */
    close(fd);
    assert_serves(f);
    finish(f);
    assert_int_equal(f->counts.dropped_slow, 1);
    free(f);
}

/* A write that makes no progress, though the queue is below its limit: of a stream that goes on, of
 * one that has ended, and of a whole answer. */
static void test_stall(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_output_bytes = (size_t)2 << 30,
                                                          .stall_ns = 200 * NS_PER_MS});
    int files = open_files();
    int fill = dial(f);
    say_text(fill, GET("/much"));
    int whole = dial(f);
    struct strbuf text = {0};
    length_of(&text, HTTP_MAX_BODY_BYTES);
    say(whole, text.data, text.len);
    wait_until(&f->requests, 2);
    wait_for_open_files(files + 2); /* the server's ends are closed */
    close(fill);
    close(whole);
    strbuf_deinit(&text);
    finish(f);
    assert_int_equal(f->counts.dropped_slow, 2);
    free(f);
}

/* One that is slow but takes something now and then is not dropped. */
static void test_slow_but_alive(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_output_bytes = (size_t)2 << 30,
                                                          .stall_ns = 1200 * NS_PER_MS});
    const size_t cap = (size_t)20 << 20;
    char *out = malloc(cap);
    assert_non_null(out);
    int fd = dial(f);
    say_text(fd, GET("/much"));
    size_t len = 0;
    for (int i = 0; i < 12; i++) { /* longer than stall_ns in all */
        (void)poll(NULL, 0, 150);
        size_t end = len + ((size_t)1 << 20);
        while (len < end) {
            ssize_t n = recv(fd, out + len, end - len, 0);
            assert_true(n > 0);
            len += (size_t)n;
        }
    }
    (void)hear(fd, "\r\n0\r\n\r\n", PATIENCE_MS, out, cap, &len);
    const size_t body = (size_t)(1 << 14) * (3 + 2 + 1000 + 2) + 5;
    assert_int_equal(strstr(out, "\r\n\r\n") + 4 + body - out, len);
    close(fd);
    free(out);
    finish(f);
    assert_int_equal(f->counts.dropped_slow, 0);
    free(f);
}

/* ---------------------------------------------------------------- time */

static void assert_408(int fd)
{
    char out[4096];
    size_t len = 0;
    assert_true(hear(fd, NULL, PATIENCE_MS, out, sizeof out, &len));
    assert_int_equal(strncmp(out, "HTTP/1.1 408 ", 13), 0);
    assert_contains(out, "Connection: close\r\n");
    close(fd);
}

/* A byte now and then does not help: the deadline is absolute. */
static void drip(int fd, const char *text, int every_ms)
{
    for (const char *p = text; *p != '\0'; p++) {
        struct pollfd answer = {.fd = fd, .events = POLLIN};
        say(fd, p, 1);
        if (poll(&answer, 1, every_ms) > 0) {
            return;
        }
    }
    fail_msg("\"%s\" was not cut off", text);
}

static void test_deadlines(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){
        .head_ns = 200 * NS_PER_MS, .body_ns = 250 * NS_PER_MS, .idle_ns = 600 * NS_PER_MS});
    int idle = dial(f);
    assert_closed(idle); /* nothing was asked, nothing is answered */
    close(idle);
    char out[4096];
    size_t len = 0;
    int kept = dial(f); /* idle behind an answer, too */
    say_text(kept, GET("/echo"));
    assert_true(hear(kept, NULL, PATIENCE_MS, out, sizeof out, &len));
    assert_string_equal(out, OK_HEAD "Content-Length: 0\r\n\r\n");
    close(kept);
    static const char slow_head[] = "GET /echo HTTP/1.1\r\nX-Slow: "
                                    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    int head = dial(f);
    drip(head, slow_head, 15);
    assert_408(head);
    int second = dial(f); /* a pipelined beginning has its deadline as well */
    say_text(second, GET("/echo") "GET /");
    (void)hear(second, "\r\n\r\n", PATIENCE_MS, out, sizeof out, (len = 0, &len));
    assert_408(second);
    int body = dial(f);
    say_text(body, POST("/echo") "Content-Length: 500\r\n\r\n");
    drip(body, slow_head, 15); /* about 66 bytes a second */
    assert_408(body);
    int chunked = dial(f);
    say_text(chunked, POST("/echo") CHUNKED "1\r\nx\r\n");
    assert_408(chunked);
    int hold = dial(f); /* while a request is handled, no limit runs */
    say_text(hold, GET("/hold"));
    assert_silent(hold, 800);
    close(hold);
    wait_until(&f->gone[HTTP_GONE_CLOSED], 3);
    finish(f);
    assert_int_equal(f->counts.dropped_timeout, 6);
    assert_int_equal(f->counts.bad_requests, 4);
    free(f);
}

/* Above the least rate a body may take any time: 1 KiB/s in each second. */
static void test_least_rate(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.body_ns = NS_PER_S});
    int fd = dial(f);
    say_text(fd, POST("/echo") "Content-Length: 20000\r\n\r\n");
    char piece[400];
    memset(piece, 'p', sizeof piece);
    for (int i = 0; i < 50; i++) { /* eight times as fast, for 2.5 s */
        (void)poll(NULL, 0, 50);
        piece[sizeof piece - 1] = i < 49 ? 'p' : '!';
        say(fd, piece, sizeof piece);
    }
    static char out[32768];
    size_t len = 0;
    (void)hear(fd, "!", PATIENCE_MS, out, sizeof out, &len);
    assert_contains(out, "Content-Length: 20000\r\n\r\npppp");
    close(fd);
    finish(f);
    assert_int_equal(f->counts.dropped_timeout, 0);
    free(f);
}

/* The answer to a bad request arrives although the peer goes on sending; but not for ever. */
static void test_linger(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    static char waste[60000];
    memset(waste, 'w', sizeof waste);
    int files = open_files();
    int fd = dial(f);
    say_text(fd, "BAD\r\n\r\n");
    (void)poll(NULL, 0, 20);
    say(fd, waste, sizeof waste); /* below 64 KiB */
    char out[4096];
    size_t len = 0;
    assert_true(hear(fd, NULL, PATIENCE_MS, out, sizeof out, &len));
    assert_contains(out, "{\"status\":400,");
    close(fd);
    wait_for_open_files(files);
    fd = dial(f);
    wait_for_open_files(files + 2);
    say_text(fd, "BAD\r\n\r\n");
    for (int i = 0; i < 100; i++) { /* more: it is cut off at once */
        say(fd, waste, sizeof waste);
    }
    wait_for_open_files(files + 1);
    close(fd);
    fd = dial(f);
    wait_for_open_files(files + 2);
    say_text(fd, "BAD\r\n\r\n");
    wait_for_open_files(files + 1); /* silent: after two seconds */
    close(fd);
    finish(f);
    assert_int_equal(f->counts.bad_requests, 3);
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_cases), cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_bodies),        cmocka_unit_test(test_most_connections),
        cmocka_unit_test(test_output_limit),  cmocka_unit_test(test_flood),
        cmocka_unit_test(test_stall),         cmocka_unit_test(test_slow_but_alive),
        cmocka_unit_test(test_deadlines),     cmocka_unit_test(test_least_rate),
        cmocka_unit_test(test_linger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
