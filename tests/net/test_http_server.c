/*
 * test_http_server.c - the HTTP server on the wire: raw sockets against a loop on a thread.
 *
 * /echo answers with the body; /stream sends ten chunks; /flood sends a gigabyte, /much 16 MB;
 * /hold never answers; /late answers at the next turn of the loop; /early is refused by its head.
 */
#include "test.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "net/http_server.h"

#define HOST   "Host: a\r\n"
#define GET(p) "GET " p " HTTP/1.1\r\n" HOST "\r\n"

/* ---------------------------------------------------------------- the server under test */

struct fixture {
    struct event_base *base;
    struct http_server *server;
    pthread_t thread;
    int command[2]; /* 'q': end; 's': stop listening */
    uint16_t port;
    struct http_server_counts counts; /* after the end */
    _Atomic int gone[3];              /* by enum http_gone */
    _Atomic int requests;
};

static bool path_is(const struct http_request *r, const char *buf, const char *path)
{
    return http_span_is(buf, r->path, path);
}

static void on_head(void *self, struct http_exchange *x, const struct http_request *r,
                    const char *buf)
{
    (void)self;
    if (path_is(r, buf, "/early")) {
        http_exchange_answer(x, 404, "text/plain", "no", 2, NULL, 0);
    }
}

struct late {
    struct event *event;
    struct http_exchange *x;
};

static void answer_late(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct late *late = arg;
    http_exchange_set_user(late->x, NULL);
    http_exchange_answer(late->x, 200, "text/plain", "late", 4, NULL, 0);
    event_free(late->event);
    free(late);
}

static void stream(struct http_exchange *x, int chunks, size_t bytes)
{
    char *text = malloc(bytes);
    assert_non_null(text);
    memset(text, 'x', bytes);
    bool alive = http_exchange_begin(x, 200, "text/event-stream", NULL, 0);
    for (int i = 0; alive && i < chunks; i++) {
        alive = http_exchange_write(x, text, bytes);
    }
    free(text);
    if (alive) {
        http_exchange_end(x);
    }
}

static void on_request(void *self, struct http_exchange *x, const struct http_request *r,
                       const char *buf, const char *body, size_t len)
{
    struct fixture *f = self;
    atomic_fetch_add(&f->requests, 1);
    if (path_is(r, buf, "/stream")) {
        stream(x, 10, 100);
    } else if (path_is(r, buf, "/flood")) {
        stream(x, 1 << 20, 1000);
    } else if (path_is(r, buf, "/much")) {
        stream(x, 1 << 14, 1000);
    } else if (path_is(r, buf, "/late")) {
        struct late *late = malloc(sizeof *late);
        assert_non_null(late);
        *late = (struct late){.x = x, .event = event_new(f->base, -1, 0, answer_late, late)};
        http_exchange_set_user(x, late);
        struct timeval tv = {.tv_usec = 1000};
        event_add(late->event, &tv);
    } else if (!path_is(r, buf, "/hold")) {
        struct http_field field = {"X-Test", "yes"};
        http_exchange_answer(x, 200, "text/plain", body, len, &field, 1);
    }
}

static void on_gone(void *self, struct http_exchange *x, enum http_gone why)
{
    struct fixture *f = self;
    atomic_fetch_add(&f->gone[why], 1);
    struct late *late = http_exchange_user(x);
    if (late != NULL) {
        event_free(late->event);
        free(late);
    }
}

static void write_error(void *self, int status, const char *why, struct strbuf *out)
{
    (void)self;
    strbuf_printf(out, "{\"status\":%d,\"why\":\"%s\"}", status, why);
}

static void on_command(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct fixture *f = arg;
    char c;
    if (read(fd, &c, 1) == 1 && c == 's') {
        http_server_stop_listening(f->server);
    } else {
        event_base_loopbreak(f->base);
    }
}

static void *loop(void *arg)
{
    struct fixture *f = arg;
    struct event *command = event_new(f->base, f->command[0], EV_READ | EV_PERSIST, on_command, f);
    event_add(command, NULL);
    event_base_dispatch(f->base);
    event_free(command);
    return NULL;
}

static struct fixture *start(struct http_server_config config)
{
    struct error err = ERROR_INIT;
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->base = event_base_new();
    assert_int_equal(pipe(f->command), 0);
    config.base = f->base;
    config.handler = (struct http_handler){.on_head = on_head,
                                           .on_request = on_request,
                                           .on_gone = on_gone,
                                           .write_error = write_error,
                                           .self = f};
    assert_ok(http_server_create(&config, &f->server, &err));
    f->port = http_server_port(f->server);
    assert_int_equal(pthread_create(&f->thread, NULL, loop, f), 0);
    return f;
}

static void command(struct fixture *f, char c)
{
    assert_int_equal(write(f->command[1], &c, 1), 1);
}

static void finish(struct fixture *f)
{
    command(f, 'q');
    pthread_join(f->thread, NULL);
    f->counts = http_server_counts_of(f->server);
    http_server_destroy(f->server);
    event_base_free(f->base);
    close(f->command[0]);
    close(f->command[1]);
}

/* ---------------------------------------------------------------- a peer */

static int dial(const struct fixture *f)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(f->port),
                             .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void say(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0) {
            return; /* the server has had enough */
        }
        text += n;
        len -= (size_t)n;
    }
}

/* Until the server closes (true) or nothing comes for ms milliseconds (false). */
static bool hear(int fd, int ms, char *out, size_t cap, size_t *len)
{
    *len = 0;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, ms) == 0) {
            break;
        }
        ssize_t n = recv(fd, out + *len, cap - 1 - *len, 0);
        if (n <= 0) {
            out[*len] = '\0';
            return true;
        }
        *len += (size_t)n;
    }
    out[*len] = '\0';
    return false;
}

/* One connection, one text, the whole answer; the connection is closed by the server or by us. */
static bool exchange(const struct fixture *f, const char *text, size_t n, char *out, size_t cap)
{
    int fd = dial(f);
    say(fd, text, n);
    size_t len;
    bool closed = hear(fd, 150, out, cap, &len);
    close(fd);
    return closed;
}

/* A well-behaved client among hostile ones: the answer comes, however long the server is busy. */
static void assert_answer(const struct fixture *f, const char *text, const char *part)
{
    char out[4096];
    size_t len = 0;
    int fd = dial(f);
    say(fd, text, strlen(text));
    do {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n = poll(&p, 1, 20000) > 0 ? recv(fd, out + len, sizeof out - 1 - len, 0) : 0;
        if (n <= 0) {
            fail_msg("no answer that has \"%s\"", part);
        }
        len += (size_t)n;
        out[len] = '\0';
    } while (strstr(out, part) == NULL);
    close(fd);
}

static void wait_until(const _Atomic int *value, int expected)
{
    for (int i = 0; i < 5000 && atomic_load(value) != expected; i++) {
        (void)poll(NULL, 0, 2);
    }
    assert_int_equal(atomic_load(value), expected);
}

static uint32_t open_files(void)
{
    uint32_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d) != NULL) {
        n++;
    }
    closedir(d);
    return n;
}

/* ---------------------------------------------------------------- tests */

#define OK_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Test: yes\r\n"

static const struct {
    const char *name;
    const char *text;
    const char *begins; /* of the answer */
    const char *holds;  /* somewhere in it */
    bool closes;
} wire_cases[] = {
    {"plain", GET("/echo"), OK_HEAD "Content-Length: 0\r\n\r\n", "", false},
    {"close", "GET /echo HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", OK_HEAD,
     "Connection: close", true},
    {"1.0", "GET /echo HTTP/1.0\r\n\r\n", OK_HEAD, "Connection: close", true},
    {"1.0 kept", "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", OK_HEAD,
     "Connection: keep-alive", false},
    {"body", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello", OK_HEAD,
     "\r\n\r\nhello", false},
    {"chunks",
     "POST /echo HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
     OK_HEAD, "\r\n\r\nhello", false},
    {"head", "HEAD /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nhi", OK_HEAD,
     "Content-Length: 2\r\n\r\n", false},
    {"stream", GET("/stream"),
     "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
     "Transfer-Encoding: chunked\r\n\r\n64\r\nx",
     "x\r\n0\r\n\r\n", false},
    {"stream of 1.0", "GET /stream HTTP/1.0\r\n\r\n",
     "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nx", "x", true},
    {"late", GET("/late"), "HTTP/1.1 200 OK\r\n", "\r\n\r\nlate", false},
    {"three at once", GET("/late") GET("/echo") GET("/stream"), "HTTP/1.1 200 OK\r\n",
     "late" OK_HEAD, false},
    {"early, no body", GET("/early") GET("/echo"), "HTTP/1.1 404 Not Found\r\n", OK_HEAD, false},
    {"early, body unread", "POST /early HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n",
     "HTTP/1.1 404 Not Found\r\n", "Connection: close", true},
    {"100", "POST /echo HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
     "HTTP/1.1 100 Continue\r\n\r\n", "", false},
    {"early without 100",
     "POST /early HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
     "HTTP/1.1 404 Not Found\r\n", "Connection: close", true},
    {"bad line", "GARBAGE\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "\"status\":400", true},
    {"bad behind good", GET("/echo") "BAD\r\n\r\n", OK_HEAD, "\"why\":\"not a request line\"",
     true},
    {"both lengths",
     "POST /echo HTTP/1.1\r\n" HOST
     "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "HTTP/1.1 400 ", "", true},
    {"bad chunk", "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nZ\r\n",
     "HTTP/1.1 400 ", "not a chunk size", true},
    {"body at the limit + 1", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1001\r\n\r\n",
     "HTTP/1.1 413 ", "", true},
    {"chunk at the limit + 1",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3E9\r\n", "HTTP/1.1 413 ",
     "", true},
    {"HTTP/2", "GET / HTTP/2.0\r\n\r\n", "HTTP/1.1 505 ", "", true},
};

static void test_wire(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_body_bytes = 1000});
    for (size_t i = 0; i < sizeof wire_cases / sizeof wire_cases[0]; i++) {
        char out[16384];
        bool closed = exchange(f, wire_cases[i].text, strlen(wire_cases[i].text), out, sizeof out);
        if (strncmp(out, wire_cases[i].begins, strlen(wire_cases[i].begins)) != 0 ||
            strstr(out, wire_cases[i].holds) == NULL || closed != wire_cases[i].closes) {
            fail_msg("%s: closed %d, got:\n%s", wire_cases[i].name, closed, out);
        }
    }
    finish(f);
    free(f);
}

/* A body that ends at the limit is taken; a HEAD answer has no body. */
static void test_limits_reached(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_body_bytes = 1000});
    char text[2048];
    int head =
        snprintf(text, sizeof text, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1000\r\n\r\n");
    memset(text + head, 'b', 1000);
    char out[4096];
    assert_false(exchange(f, text, (size_t)head + 1000, out, sizeof out));
    assert_contains(out, "Content-Length: 1000\r\n\r\nbbbb");
    assert_false(exchange(f, "HEAD /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nhi",
                          strlen("HEAD /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nhi"), out,
                          sizeof out));
    assert_string_equal(strstr(out, "\r\n\r\n"), "\r\n\r\n");
    finish(f);
    free(f);
}

static void test_byte_by_byte(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_body_bytes = 1000});
    static const char text[] =
        "POST /echo HTTP/1.1\r\n" HOST
        "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n" GET("/late");
    int fd = dial(f);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        say(fd, text + i, 1);
        sched_yield();
    }
    char out[4096];
    size_t len;
    assert_false(hear(fd, 150, out, sizeof out, &len));
    assert_contains(out, "\r\n\r\nhelloHTTP/1.1 200 OK");
    assert_contains(out, "\r\n\r\nlate");
    close(fd);
    finish(f);
    assert_int_equal(f->counts.requests, 2);
    assert_int_equal(f->counts.bad_requests, 0);
    free(f);
}

/* Reset, or FIN, at every byte of two requests: nothing stays behind. */
static void test_cut_everywhere(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_body_bytes = 1000});
    uint32_t files = open_files();
    static const char text[] = "POST /hold HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello";
    for (int how = 0; how < 2; how++) {
        for (size_t n = 0; n < sizeof text; n++) {
            int fd = dial(f);
            say(fd, text, n);
            struct linger reset = {.l_onoff = 1};
            if (how == 0) {
                setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            }
            close(fd);
        }
    }
    char out[4096];
    assert_false(exchange(f, GET("/echo"), strlen(GET("/echo")), out, sizeof out));
    for (int i = 0; i < 2000 && open_files() != files; i++) {
        (void)poll(NULL, 0, 2);
    }
    assert_int_equal(open_files(), files);
    finish(f);
    assert_int_equal(f->counts.connections, 0);
    /* Every exchange whose head was seen was told that its peer left. A reset may destroy what was
     * not yet read. */
    assert_true(atomic_load(&f->gone[HTTP_GONE_CLOSED]) >= 6);
    free(f);
}

/* A peer leaves while its answer is made: noticed at once, also behind pipelined bytes that fill
 * the input. */
static void test_gone(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_body_bytes = 1000});
    int fd = dial(f);
    say(fd, GET("/hold"), strlen(GET("/hold")));
    wait_until(&f->requests, 1);
    close(fd);
    wait_until(&f->gone[HTTP_GONE_CLOSED], 1);
    fd = dial(f);
    say(fd, GET("/hold"), strlen(GET("/hold")));
    wait_until(&f->requests, 2);
    shutdown(fd, SHUT_WR); /* half closed counts too */
    wait_until(&f->gone[HTTP_GONE_CLOSED], 2);
    close(fd);
    fd = dial(f);
    say(fd, GET("/hold"), strlen(GET("/hold")));
    char waste[60000];
    memset(waste, 'w', sizeof waste);
    say(fd, waste, sizeof waste);
    wait_until(&f->requests, 3);
    (void)poll(NULL, 0, 50);
    assert_int_equal(atomic_load(&f->gone[HTTP_GONE_CLOSED]), 2);
    close(fd);
    wait_until(&f->gone[HTTP_GONE_CLOSED], 3);
    finish(f);
    free(f);
}

static void test_slow_reader(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_output_bytes = 100000});
    int fd = dial(f);
    say(fd, GET("/flood"), strlen(GET("/flood")));
    wait_until(&f->gone[HTTP_GONE_SLOW], 1); /* a gigabyte was not queued */
    close(fd);
    char out[4096];
    assert_false(exchange(f, GET("/echo"), strlen(GET("/echo")), out, sizeof out));
    finish(f);
    assert_int_equal(f->counts.dropped_slow, 1);
    free(f);
}

/* A write that makes no progress: what the queue holds is below its limit. */
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
    int fd = dial(f);
    snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", n);
    say(fd, head, strlen(head));
    say(fd, body, n);
    wait_until(&f->requests, 1); /* nothing was read so far: most of it waits */
    size_t len;
    assert_false(hear(fd, 2000, out, n + 4096, &len));
    assert_true(len > n && memcmp(out + len - n, body, n) == 0);
    close(fd);
    finish(f);
    assert_int_equal(f->counts.dropped_slow, 0);
    free(body);
    free(out);
    free(f);
}

static void test_stall(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_output_bytes = (size_t)2 << 30,
                                                          .stall_ns = 100 * NS_PER_MS});
    int fd = dial(f);
    say(fd, GET("/much"), strlen(GET("/much")));
    wait_until(&f->requests, 1);
    for (int i = 0; i < 1000 && send(fd, "x", 1, MSG_NOSIGNAL) == 1; i++) {
        (void)poll(NULL, 0, 10); /* until the server has closed */
    }
    close(fd);
    finish(f);
    assert_int_equal(f->counts.dropped_slow, 1);
    free(f);
}

static void test_deadlines(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){
        .head_ns = 200 * NS_PER_MS, .body_ns = 200 * NS_PER_MS, .idle_ns = 150 * NS_PER_MS});
    char out[4096];
    size_t len;
    int idle = dial(f);
    assert_true(hear(idle, 3000, out, sizeof out, &len));
    assert_int_equal(len, 0); /* nothing was asked, nothing is answered */
    close(idle);
    int slow = dial(f); /* a byte now and then does not help: the deadline is absolute */
    uint64_t begin = monotime_now_ns();
    static const char head[] =
        "GET /echo HTTP/1.1\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for (size_t i = 0; i < sizeof head - 1 && monotime_now_ns() - begin < 3 * NS_PER_S; i++) {
        say(slow, head + i, 1);
        struct pollfd p = {.fd = slow, .events = POLLIN};
        if (poll(&p, 1, 20) > 0) {
            break;
        }
    }
    assert_true(hear(slow, 3000, out, sizeof out, &len));
    assert_contains(out, "HTTP/1.1 408 ");
    close(slow);
    int body = dial(f);
    static const char half[] = "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 500\r\n\r\nabc";
    say(body, half, sizeof half - 1);
    assert_true(hear(body, 3000, out, sizeof out, &len));
    assert_contains(out, "HTTP/1.1 408 ");
    close(body);
    finish(f);
    assert_int_equal(f->counts.dropped_timeout, 3);
    free(f);
}

static void test_stop_listening(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    int idle = dial(f);
    int busy = dial(f);
    say(busy, GET("/hold"), strlen(GET("/hold")));
    wait_until(&f->requests, 1);
    command(f, 's');
    char out[256];
    size_t len;
    assert_true(hear(idle, 3000, out, sizeof out, &len));
    assert_int_equal(len, 0);
    assert_false(hear(busy, 50, out, sizeof out, &len)); /* it is still being served */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(f->port),
                             .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), -1);
    close(fd);
    finish(f);
    assert_int_equal(atomic_load(&f->gone[HTTP_GONE_SERVER]), 1);
    close(idle);
    close(busy);
    free(f);
}

/* No descriptor left: peers are turned away, the server does not spin, and recovers. */
static void test_no_descriptors(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){0});
    int peers[3];
    for (int i = 0; i < 3; i++) {
        peers[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_true(peers[i] >= 0);
    }
    struct rlimit before;
    getrlimit(RLIMIT_NOFILE, &before);
    struct rlimit none = {.rlim_cur = 3, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(f->port),
                             .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(connect(peers[i], (struct sockaddr *)&to, sizeof to), 0);
    }
    (void)poll(NULL, 0, 150);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    char out[4096];
    int fd = dial(f);
    say(fd, GET("/echo"), strlen(GET("/echo")));
    size_t len;
    for (int i = 0; i < 20 && (hear(fd, 200, out, sizeof out, &len), len == 0); i++) {
    }
    assert_contains(out, "200 OK");
    close(fd);
    for (int i = 0; i < 3; i++) {
        close(peers[i]);
    }
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
    say(a, GET("/hold"), strlen(GET("/hold")));
    say(b, GET("/hold"), strlen(GET("/hold")));
    wait_until(&f->requests, 2);
    int c = dial(f);
    say(c, GET("/echo"), strlen(GET("/echo")));
    char out[1024];
    size_t len;
    assert_false(hear(c, 100, out, sizeof out, &len));
    assert_int_equal(len, 0);
    close(a);
    assert_false(hear(c, 500, out, sizeof out, &len));
    assert_contains(out, "200 OK");
    close(b);
    close(c);
    finish(f);
    free(f);
}

/* Many peers of every kind; those who behave are served, and nothing stays behind. */
static void test_hostile(void **state)
{
    (void)state;
    struct fixture *f = start((struct http_server_config){.max_body_bytes = 1000});
    uint32_t files = open_files();
    static const char *const texts[] = {
        "",
        "G",
        "GET /echo HTTP/1.1\r\nHost",
        "\x16\x03\x01\x02\x01\x01",
        "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 900\r\n\r\nhalf",
        GET("/hold"),
        GET("/flood"),
        "GET /echo HTTP/1.1\r\nA: b\r\n B: folded\r\n\r\n",
        "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    };
    enum { N = 1800, KINDS = sizeof texts / sizeof texts[0] };
    int held[64] = {0};
    for (int i = 0; i < N; i++) {
        int fd = dial(f);
        say(fd, texts[i % KINDS], strlen(texts[i % KINDS]));
        int *slot = &held[i % 64];
        if (*slot > 0) {
            struct linger reset = {.l_onoff = i % 2};
            setsockopt(*slot, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            close(*slot);
        }
        *slot = fd;
        if (i % 100 == 0) {
            assert_answer(f, GET("/late"), "\r\n\r\nlate");
        }
    }
    for (int i = 0; i < 64; i++) {
        close(held[i]);
    }
    for (int i = 0; i < 2500 && open_files() != files; i++) {
        (void)poll(NULL, 0, 2);
    }
    assert_int_equal(open_files(), files);
    finish(f);
    assert_int_equal(f->counts.connections, 0);
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
    finish(f);
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wire),           cmocka_unit_test(test_limits_reached),
        cmocka_unit_test(test_byte_by_byte),   cmocka_unit_test(test_cut_everywhere),
        cmocka_unit_test(test_gone),           cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_large_answer),   cmocka_unit_test(test_stall),
        cmocka_unit_test(test_deadlines),      cmocka_unit_test(test_stop_listening),
        cmocka_unit_test(test_no_descriptors), cmocka_unit_test(test_most_connections),
        cmocka_unit_test(test_hostile),        cmocka_unit_test(test_bad_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
