/*
 * http_server_rig.h - an HTTP server on a thread of its own, and raw sockets as its peers.
 *
 * /echo answers with the body; /stream sends ten chunks of 100 bytes, /small 10,000 of one byte,
 * /much 16 MB, /flood a gigabyte; /fill fills the queue to its limit, /overfill by one byte more;
 * /hold never answers; /late answers at a later turn of the loop; /later-stream streams then.
 * By their heads alone, before the body is read: /early is refused; /early-stream is streamed at a
 * later turn; /early-late is answered and /early-begin streamed at a later turn, while the body is
 * being read.
 */
#ifndef LLMSCHED_TESTS_HTTP_SERVER_RIG_H
#define LLMSCHED_TESTS_HTTP_SERVER_RIG_H

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
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "net/http_server.h"
#include "net/http_server_int.h"

#define HOST_LINE "Host: a\r\n"
#define GET(p)    "GET " p " HTTP/1.1\r\n" HOST_LINE "\r\n"
#define OK_HEAD   "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Test: yes\r\n"
/* What is awaited comes at once; so long only on a machine that has no time. */
#define PATIENCE_MS 20000

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
    _Atomic int filled; /* /fill reached the limit and was still alive */
};

/* An answer at a later turn of the loop. */
struct later {
    struct event *event;
    struct http_exchange *x;
    bool is_stream;
};

static inline void rig_stream(struct http_exchange *x, int chunks, size_t bytes)
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

static inline void rig_answer_later(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct later *later = arg;
    struct http_exchange *x = later->x;
    http_exchange_set_user(x, NULL);
    if (later->is_stream) {
        rig_stream(x, 10, 100);
    } else {
        http_exchange_answer(x, 200, "text/plain", "late", 4, NULL, 0);
    }
    event_free(later->event);
    free(later);
}

static inline void rig_later(const struct fixture *f, struct http_exchange *x, bool is_stream)
{
    struct later *later = malloc(sizeof *later);
    assert_non_null(later);
    *later = (struct later){.x = x,
                            .event = event_new(f->base, -1, 0, rig_answer_later, later),
                            .is_stream = is_stream};
    http_exchange_set_user(x, later);
    struct timeval tv = {.tv_usec = 1000};
    event_add(later->event, &tv);
}

static inline size_t rig_queued(struct http_exchange *x)
{
    const struct conn *c = (const struct conn *)x;
    return c->out.len - c->out_at;
}

/* Until the queue holds its limit to the byte; then one more, if asked for. */
static inline void rig_fill(struct fixture *f, struct http_exchange *x, bool overfill)
{
    static char text[4096];
    size_t limit = ((const struct conn *)x)->server->config.max_output_bytes;
    bool alive = http_exchange_begin(x, 200, "text/plain", NULL, 0);
    while (alive && !((const struct conn *)x)->blocked) {
        alive = http_exchange_write(x, text, sizeof text);
    }
    while (alive && limit - rig_queued(x) > 100) {
        alive = http_exchange_write(x, text, 1); /* a chunk of 6 bytes */
    }
    size_t rest = limit - rig_queued(x); /* 95..100: two digits, 89..94 bytes of data */
    alive = alive && http_exchange_write(x, text, rest - 6);
    assert_true(alive);
    assert_int_equal(rig_queued(x), limit);
    atomic_store(&f->filled, 1);
    if (overfill) {
        assert_false(http_exchange_write(x, text, 1));
    }
}

static inline bool rig_path_is(const struct http_request *r, const char *buf, const char *path)
{
    return http_span_is(buf, r->path, path);
}

static inline void rig_on_head(void *self, struct http_exchange *x, const struct http_request *r,
                               const char *buf)
{
    struct fixture *f = self;
    if (rig_path_is(r, buf, "/early")) {
        http_exchange_answer(x, 404, "text/plain", "no", 2, NULL, 0);
    } else if (rig_path_is(r, buf, "/early-stream")) {
        rig_stream(x, 10, 100);
    } else if (rig_path_is(r, buf, "/early-late")) {
        rig_later(f, x, false);
    } else if (rig_path_is(r, buf, "/early-begin")) {
        rig_later(f, x, true);
    }
}

static inline void rig_on_request(void *self, struct http_exchange *x, const struct http_request *r,
                                  const char *buf, const char *body, size_t len)
{
    struct fixture *f = self;
    atomic_fetch_add(&f->requests, 1);
    if (rig_path_is(r, buf, "/stream")) {
        rig_stream(x, 10, 100);
    } else if (rig_path_is(r, buf, "/small")) {
        rig_stream(x, 10000, 1);
    } else if (rig_path_is(r, buf, "/much")) {
        rig_stream(x, 1 << 14, 1000);
    } else if (rig_path_is(r, buf, "/flood")) {
        rig_stream(x, 1 << 20, 1000);
    } else if (rig_path_is(r, buf, "/fill")) {
        rig_fill(f, x, false);
    } else if (rig_path_is(r, buf, "/overfill")) {
        rig_fill(f, x, true);
    } else if (rig_path_is(r, buf, "/late")) {
        rig_later(f, x, false);
    } else if (rig_path_is(r, buf, "/later-stream")) {
        rig_later(f, x, true);
    } else if (!rig_path_is(r, buf, "/hold")) {
        struct http_field field = {"X-Test", "yes"};
        http_exchange_answer(x, 200, "text/plain", body, len, &field, 1);
    }
}

static inline void rig_on_gone(void *self, struct http_exchange *x, enum http_gone why)
{
    struct fixture *f = self;
    struct later *later = http_exchange_user(x);
    if (later != NULL) {
        event_free(later->event);
        free(later);
    }
    atomic_fetch_add(&f->gone[why], 1);
}

static inline void rig_write_error(void *self, int status, const char *why, struct strbuf *out)
{
    (void)self;
    strbuf_printf(out, "{\"status\":%d,\"why\":\"%s\"}", status, why);
}

static inline void rig_on_command(evutil_socket_t fd, short what, void *arg)
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

static inline void *rig_loop(void *arg)
{
    struct fixture *f = arg;
    struct event *command =
        event_new(f->base, f->command[0], EV_READ | EV_PERSIST, rig_on_command, f);
    event_add(command, NULL);
    event_base_dispatch(f->base);
    event_free(command);
    return NULL;
}

static inline struct fixture *start(struct http_server_config config)
{
    struct error err = ERROR_INIT;
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->base = event_base_new();
    assert_int_equal(pipe(f->command), 0);
    config.base = f->base;
    config.handler = (struct http_handler){.on_head = rig_on_head,
                                           .on_request = rig_on_request,
                                           .on_gone = rig_on_gone,
                                           .write_error = rig_write_error,
                                           .self = f};
    assert_ok(http_server_create(&config, &f->server, &err));
    f->port = http_server_port(f->server);
    assert_int_equal(pthread_create(&f->thread, NULL, rig_loop, f), 0);
    return f;
}

static inline void command(struct fixture *f, char c)
{
    assert_int_equal(write(f->command[1], &c, 1), 1);
}

/* Ends it; the counts stay readable until free(f). */
static inline void finish(struct fixture *f)
{
    command(f, 'q');
    pthread_join(f->thread, NULL);
    f->counts = http_server_counts_of(f->server);
    http_server_destroy(f->server);
    event_base_free(f->base);
    close(f->command[0]);
    close(f->command[1]);
}

/* What the loop's thread has computed so far: a loop that spins shows here. */
static inline uint64_t cpu_ns(const struct fixture *f)
{
    clockid_t clock;
    struct timespec t;
    assert_int_equal(pthread_getcpuclockid(f->thread, &clock), 0);
    assert_int_equal(clock_gettime(clock, &t), 0);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static inline void assert_idle(const struct fixture *f)
{
    uint64_t before = cpu_ns(f);
    (void)poll(NULL, 0, 300);
    assert_true(cpu_ns(f) - before < 30 * NS_PER_MS);
}

/* ---------------------------------------------------------------- a peer */

static inline struct sockaddr_in address_of(const struct fixture *f)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons(f->port),
                                .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
}

static inline int dial(const struct fixture *f)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    struct sockaddr_in to = address_of(f);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static inline void say(int fd, const char *text, size_t len)
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

static inline void say_text(int fd, const char *text)
{
    say(fd, text, strlen(text));
}

static inline void reset(int fd)
{
    struct linger now = {.l_onoff = 1};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

/* Reads into out (with a closing NUL), behind the *len bytes that are there, until `until` stands
 * in it (false), or the server closes (true), or ms milliseconds are over (false). NULL: only the
 * close. */
static inline bool hear(int fd, const char *until, int ms, char *out, size_t cap, size_t *len)
{
    uint64_t end = monotime_now_ns() + (uint64_t)ms * NS_PER_MS;
    size_t looked = 0;
    out[*len] = '\0';
    for (;;) {
        if (until != NULL && strstr(out + looked, until) != NULL) {
            return false;
        }
        size_t tail = until != NULL ? strlen(until) : 0;
        looked = *len > tail ? *len - tail : 0;
        uint64_t now = monotime_now_ns();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (now >= end || poll(&p, 1, (int)((end - now) / NS_PER_MS) + 1) <= 0) {
            return false;
        }
        assert_true(*len + 1 < cap);
        ssize_t n = recv(fd, out + *len, cap - 1 - *len, 0);
        if (n <= 0) {
            return true;
        }
        *len += (size_t)n;
        out[*len] = '\0';
    }
}

/* Nothing has come, and the server has not closed. */
static inline void assert_silent(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, ms), 0);
}

static inline void assert_closed(int fd)
{
    char out[65536];
    size_t len = 0;
    assert_true(hear(fd, NULL, PATIENCE_MS, out, sizeof out, &len));
    assert_int_equal(len, 0);
}

/* A request on a connection of its own, whose answer must hold `part`; all that came is in out. */
static inline void ask(const struct fixture *f, const char *text, const char *part, char *out,
                       size_t cap)
{
    int fd = dial(f);
    say_text(fd, text);
    size_t len = 0;
    (void)hear(fd, part, PATIENCE_MS, out, cap, &len);
    assert_contains(out, part);
    close(fd);
}

/* A well-behaved peer is served, right to the byte. */
static inline void assert_serves(const struct fixture *f)
{
    char out[4096];
    ask(f, "POST /echo HTTP/1.1\r\n" HOST_LINE "Content-Length: 5\r\n\r\nhello", "hello", out,
        sizeof out);
    assert_string_equal(out, OK_HEAD "Content-Length: 5\r\n\r\nhello");
}

static inline void wait_until(const _Atomic int *value, int expected)
{
    uint64_t end = monotime_now_ns() + (uint64_t)PATIENCE_MS * NS_PER_MS;
    while (atomic_load(value) != expected && monotime_now_ns() < end) {
        (void)poll(NULL, 0, 2);
    }
    assert_int_equal(atomic_load(value), expected);
}

static inline int open_files(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d) != NULL) {
        n++;
    }
    closedir(d);
    return n;
}

static inline void wait_for_open_files(int expected)
{
    uint64_t end = monotime_now_ns() + (uint64_t)PATIENCE_MS * NS_PER_MS;
    while (open_files() != expected && monotime_now_ns() < end) {
        (void)poll(NULL, 0, 2);
    }
    assert_int_equal(open_files(), expected);
}

#endif
