/*
 * http_server.c - see http_server.h: listening, connections, requests in. Answers: http_exchange.c.
 */
#include "net/http_server.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "net/http_server_int.h"
#include "net/http_write.h"

#define BACKLOG        4096
#define ACCEPT_BURST   64 /* connections taken in one turn of the loop */
#define PAUSE_US       100000
#define LINGER_NS      (2 * NS_PER_S)
#define LINGER_BYTES   ((size_t)65536)
#define BODY_RATE      1024U /* bytes a second, after body_ns */
#define READ_BURST     64    /* reads of one connection in one turn of the loop */
#define KEEP_BODY_ROOM ((size_t)16384)

/* ---------------------------------------------------------------- time limits */

static const struct timeval *common_timeout(struct event_base *base, uint64_t ns)
{
    struct timeval tv = {.tv_sec = (time_t)(ns / NS_PER_S),
                         .tv_usec = (suseconds_t)(ns % NS_PER_S / 1000)};
    return event_base_init_common_timeout(base, &tv);
}

static void arm(struct conn *c, const struct timeval *tv)
{
    event_add(&c->timer_ev, tv);
}

/* ---------------------------------------------------------------- ends */

static void reap(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct http_server *s = arg;
    while (s->graveyard != NULL) {
        struct conn *c = s->graveyard;
        s->graveyard = c->next;
        strbuf_deinit(&c->out);
        strbuf_deinit(&c->body_text);
        mem_free(c->in);
        mem_free(c);
    }
}

static void resume_accepting(struct http_server *s)
{
    if (!s->accepting && s->listen_fd >= 0) {
        s->accepting = event_add(&s->accept_ev, NULL) == 0;
    }
}

/* The body was handled, or nobody will. */
static void drop_body(struct conn *c)
{
    c->server->body_bytes -= c->body_text.len;
    if (c->body_text.capacity > KEEP_BODY_ROOM) {
        strbuf_deinit(&c->body_text);
    }
    strbuf_clear(&c->body_text);
}

void http_conn_close(struct conn *c, enum http_gone why)
{
    struct http_server *s = c->server;
    if (c->state == CONN_CLOSED) {
        return;
    }
    bool handled = (c->state == CONN_HANDLING || c->state == CONN_BODY) && !c->x.ended;
    c->state = CONN_CLOSED;
    event_del(&c->io_ev);
    event_del(&c->timer_ev);
    event_del(&c->kick_ev);
    close(c->fd);
    drop_body(c);
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        s->conns = c->next;
    }
    c->next = s->graveyard;
    s->graveyard = c;
    event_active(&s->reaper_ev, EV_TIMEOUT, 0);
    s->counts.connections--;
    if (why == HTTP_GONE_SLOW) {
        s->counts.dropped_slow++;
    }
    if (handled && s->config.handler.on_gone != NULL) {
        s->config.handler.on_gone(s->config.handler.self, &c->x, why);
    }
    event_del(&s->pause_ev);
    resume_accepting(s);
}

void http_conn_kick(struct conn *c)
{
    event_active(&c->kick_ev, EV_TIMEOUT, 0);
}

/* Output is on its way or there: what the peer still sends is read and dropped, so that the system
 * does not answer it with a reset that would overtake our answer. */
static void begin_linger(struct conn *c)
{
    c->state = CONN_LINGER;
    c->linger_left = LINGER_BYTES;
    shutdown(c->fd, SHUT_WR);
    arm(c, c->server->linger_tv);
    http_conn_kick(c);
}

void http_conn_answered(struct conn *c)
{
    if (c->state == CONN_CLOSED) {
        return;
    }
    bool go_on = c->x.keep_alive && !c->server->closing;
    c->x.ended = true;
    c->state = CONN_HANDLING;
    if (c->out_at < c->out.len) {
        return; /* on_writable comes back here */
    }
    if (!go_on) {
        begin_linger(c);
        return;
    }
    c->x = (struct http_exchange){0};
    c->state = CONN_HEAD;
    arm(c, c->server->idle_tv);
    if (!c->is_reading && (c->in_len > 0 || c->unread)) {
        http_conn_kick(c);
    }
}

/* ---------------------------------------------------------------- requests in */

static void begin_request(struct conn *c)
{
    http_request_begin(&c->request);
    c->head_timed = false;
}

static void begin_exchange(struct conn *c)
{
    const struct http_head *h = &c->request.head;
    c->x = (struct http_exchange){.is_head = c->request.method == HTTP_HEAD,
                                  .old = h->minor == 0,
                                  .keep_alive = h->keep_alive};
    c->server->counts.requests++;
}

/* Drops the request's bytes; what is behind them is the next one's. */
static void consume(struct conn *c, size_t n)
{
    memmove(c->in, c->in + n, c->in_len - n);
    c->in_len -= n;
}

/* The whole request is there: c->in begins with its head, behind_head bytes behind it are used. */
static void dispatch(struct conn *c)
{
    const struct http_handler *h = &c->server->config.handler;
    size_t head_bytes = c->request.head.bytes;
    event_del(&c->timer_ev);
    c->state = CONN_HANDLING;
    h->on_request(h->self, &c->x, &c->request, c->in, strbuf_text(&c->body_text), c->body_text.len);
    if (c->state == CONN_CLOSED) {
        return;
    }
    drop_body(c);
    consume(c, head_bytes);
    begin_request(c);
}

static bool keep_body(struct conn *c, const char *data, size_t len)
{
    struct http_server *s = c->server;
    if (len > s->config.max_bodies_bytes - s->body_bytes) {
        return false;
    }
    strbuf_append(&c->body_text, data, len);
    s->body_bytes += c->body_text.failed ? 0 : len;
    return !c->body_text.failed;
}

/* Body bytes stand behind the head. True: go on with what is left. */
static bool take_body(struct conn *c)
{
    size_t head_bytes = c->request.head.bytes;
    size_t at = head_bytes;
    for (;;) {
        size_t used;
        const char *data;
        size_t data_len;
        enum http_body_outcome o =
            http_body_next(&c->body, c->in + at, c->in_len - at, &used, &data, &data_len);
        at += used;
        if (o == HTTP_BODY_DATA) {
            if (!keep_body(c, data, data_len)) {
                http_conn_refuse(c, 503, "no memory for another large request now");
                return false;
            }
            continue;
        }
        if (o == HTTP_BODY_BAD) {
            http_conn_refuse(c, http_bad_status(c->body.bad), http_bad_text(c->body.bad));
            return false;
        }
        memmove(c->in + head_bytes, c->in + at, c->in_len - at);
        c->in_len -= at - head_bytes;
        if (o == HTTP_BODY_DONE) {
            dispatch(c);
            return true;
        }
        return false;
    }
}

static bool has_body(const struct http_head *h)
{
    return h->framing == HTTP_CHUNKED || (h->framing == HTTP_LENGTH && h->content_length > 0);
}

/* The handler has seen the head; now the body, if there is any. True: go on. */
static bool begin_body(struct conn *c, bool has_bytes)
{
    const struct http_server *s = c->server;
    const struct http_head *h = &c->request.head;
    c->state = CONN_BODY;
    if (h->framing == HTTP_LENGTH && h->content_length > s->config.max_body_bytes) {
        http_conn_refuse(c, 413, http_bad_text(HTTP_BAD_BODY_LARGE));
        return false;
    }
    http_body_begin(&c->body, h, s->config.max_body_bytes);
    c->body_seen = 0;
    if (!has_bytes) {
        return true;
    }
    arm(c, s->body_tv);
    if (c->request.expect_continue && c->in_len == h->bytes) {
        strbuf_puts(&c->out, HTTP_CONTINUE);
        return http_conn_flush(c);
    }
    return true;
}

/* A head is complete. True: go on. */
static bool take_head(struct conn *c)
{
    const struct http_server *s = c->server;
    const struct http_handler *h = &s->config.handler;
    size_t head_bytes = c->request.head.bytes;
    bool body = has_body(&c->request.head);
    begin_exchange(c);
    c->state = CONN_HANDLING;
    event_del(&c->timer_ev);
    if (h->on_head != NULL) {
        bool keep_alive = c->x.keep_alive;
        c->x.keep_alive = keep_alive && !body; /* an early answer leaves a body unread */
        h->on_head(h->self, &c->x, &c->request, c->in);
        if (c->state == CONN_CLOSED || c->state == CONN_LINGER) {
            return false;
        }
        if (c->state == CONN_HEAD || c->x.begun) { /* answered */
            consume(c, head_bytes);
            begin_request(c);
            return true;
        }
        c->x.keep_alive = keep_alive;
    }
    return begin_body(c, body);
}

/* As many requests as c->in holds, one at a time. */
static void advance(struct conn *c)
{
    for (;;) {
        if (c->state == CONN_BODY) {
            if (!take_body(c)) {
                return;
            }
            continue;
        }
        if (c->state != CONN_HEAD || c->in_len == 0) {
            return;
        }
        switch (http_request_parse(&c->request, c->in, c->in_len)) {
        case HTTP_MORE:
            if (!c->head_timed) { /* absolute: not armed again by later bytes */
                arm(c, c->server->head_tv);
                c->head_timed = true;
            }
            return;
        case HTTP_BAD:
            http_conn_refuse(c, http_bad_status(c->request.head.bad),
                             http_bad_text(c->request.head.bad));
            return;
        case HTTP_DONE:
            break;
        }
        if (!take_head(c)) {
            return;
        }
    }
}

/* ---------------------------------------------------------------- the socket */

/* All of these: true to go on reading. */

static bool linger_read(struct conn *c)
{
    char waste[8192];
    ssize_t n = recv(c->fd, waste, sizeof waste, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return errno == EINTR;
    }
    if (n <= 0 || (size_t)n > c->linger_left) {
        http_conn_close(c, HTTP_GONE_CLOSED);
        return false;
    }
    c->linger_left -= (size_t)n;
    return true;
}

/* No room, which happens only while a request is handled. Nothing is read until it is, but the end
 * of the connection is noticed. */
static bool look_behind_input(struct conn *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
    c->unread = true;
    if (poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) {
        http_conn_close(c, HTTP_GONE_CLOSED);
    }
    return false;
}

static bool request_read(struct conn *c)
{
    size_t room = CONN_INPUT_BYTES - c->in_len;
    if (room == 0) {
        return look_behind_input(c);
    }
    if (c->in == NULL && (c->in = mem_resize(NULL, CONN_INPUT_BYTES, 1)) == NULL) {
        http_conn_close(c, HTTP_GONE_SERVER); /* this peer is dropped, the others go on */
        return false;
    }
    ssize_t n = recv(c->fd, c->in + c->in_len, room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return errno == EINTR;
    }
    if (n <= 0) { /* a FIN behind a complete request means that nobody waits for its answer */
        http_conn_close(c, HTTP_GONE_CLOSED);
        return false;
    }
    c->in_len += (size_t)n;
    advance(c);
    return c->state != CONN_CLOSED;
}

static void read_input(struct conn *c)
{
    bool more = true;
    c->is_reading = true;
    c->unread = false;
    for (int i = 0; i < READ_BURST && more; i++) {
        more = c->state == CONN_LINGER ? linger_read(c) : request_read(c);
    }
    c->is_reading = false;
    if (c->state == CONN_CLOSED) {
        return;
    }
    if (c->in_len == 0) {
        mem_free(c->in);
        c->in = NULL;
    }
    if (more) { /* first the others, whom only a timer of the loop lets in */
        struct timeval now = {0, 0};
        c->unread = true;
        event_add(&c->kick_ev, &now);
    }
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct conn *c = arg;
    if (!c->blocked && !http_conn_flush(c)) {
        return;
    }
    advance(c);
    if (c->state == CONN_LINGER || (c->state != CONN_CLOSED && c->unread)) {
        read_input(c);
    }
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct conn *c = arg;
    if ((what & EV_WRITE) != 0 && c->blocked && http_conn_flush(c) && !c->blocked && c->x.ended) {
        http_conn_answered(c);
    }
    if (c->state != CONN_CLOSED && (what & (EV_READ | EV_CLOSED)) != 0) {
        read_input(c);
    }
}

/* What the timer means depends on what the connection is at. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct conn *c = arg;
    struct http_server *s = c->server;
    if (c->state == CONN_BODY) {
        uint64_t least = BODY_RATE * s->config.body_ns / NS_PER_S;
        if (c->body.total_bytes - c->body_seen >= least) {
            c->body_seen = c->body.total_bytes;
            arm(c, s->body_tv);
            return;
        }
        s->counts.dropped_timeout++;
        http_conn_refuse(c, 408, "the body came too slowly");
        return;
    }
    if (c->state == CONN_HEAD && c->in_len > 0) {
        s->counts.dropped_timeout++;
        http_conn_refuse(c, 408, "the head came too slowly");
        return;
    }
    bool stalled = c->state == CONN_HANDLING;
    s->counts.dropped_timeout += c->state != CONN_LINGER;
    http_conn_close(c, stalled ? HTTP_GONE_SLOW : HTTP_GONE_CLOSED);
}

/* ---------------------------------------------------------------- connections */

static void welcome(struct http_server *s, int fd)
{
    struct conn *c = mem_alloc(1, sizeof *c);
    if (c == NULL) {
        close(fd); /* this peer is dropped, the others go on */
        return;
    }
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->server = s;
    c->fd = fd;
    c->state = CONN_HEAD;
    struct event_base *base = s->config.base;
    event_assign(&c->io_ev, base, fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST,
                 on_socket, c);
    event_assign(&c->timer_ev, base, -1, 0, on_timer, c);
    event_assign(&c->kick_ev, base, -1, 0, on_kick, c);
    c->next = s->conns;
    if (s->conns != NULL) {
        s->conns->prev = c;
    }
    s->conns = c;
    s->counts.connections++;
    s->counts.accepted++;
    begin_request(c);
    if (event_add(&c->io_ev, NULL) != 0) {
        http_conn_close(c, HTTP_GONE_SERVER);
        return;
    }
    arm(c, s->idle_tv);
}

/* No descriptor is left: one is kept for this moment, so that the peer is turned away and does not
 * keep the listening socket readable for ever. */
static void turn_away(struct http_server *s)
{
    close(s->reserve_fd);
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        close(fd);
    }
    s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct timeval tv = {.tv_usec = PAUSE_US};
    event_del(&s->accept_ev);
    s->accepting = false;
    event_add(&s->pause_ev, &tv);
}

static void on_acceptable(evutil_socket_t listen_fd, short what, void *arg)
{
    (void)what;
    struct http_server *s = arg;
    for (int i = 0; i < ACCEPT_BURST; i++) {
        if (s->counts.connections >= s->config.max_connections) {
            event_del(&s->accept_ev); /* the others wait in the backlog until one closes */
            s->accepting = false;
            return;
        }
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            welcome(s, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            turn_away(s);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    resume_accepting(arg);
}

/* ---------------------------------------------------------------- the server */

static enum status listen_on(const char *host, uint16_t port, int *out, struct error *err)
{
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list;
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc != 0) {
        return error_set(err, STATUS_USAGE, -1, "%s: %s", host, gai_strerror(rc));
    }
    int failed = 0;
    int fd = -1;
    for (const struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
        int on = 1;
        if (fd < 0) {
            failed = errno;
            continue;
        }
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
            failed = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0) {
        return error_set(
            err, STATUS_IO, -1, "cannot listen on %s, port %u: %s%s", host, port, strerror(failed),
            failed == EADDRINUSE ? "; choose another --port, or 0 for a free one" : "");
    }
    *out = fd;
    return STATUS_OK;
}

static uint16_t port_of(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {.v6 = {.sin6_family = AF_UNSPEC}};
    socklen_t len = sizeof address;
    if (getsockname(fd, &address.any, &len) != 0) {
        return 0;
    }
    return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

static void set_defaults(struct http_server_config *c)
{
    c->host = c->host != NULL ? c->host : "127.0.0.1";
    c->max_connections = c->max_connections > 0 ? c->max_connections : HTTP_SERVER_MAX_CONNECTIONS;
    c->max_body_bytes = c->max_body_bytes > 0 ? c->max_body_bytes : HTTP_MAX_BODY_BYTES;
    c->max_bodies_bytes = c->max_bodies_bytes > 0 ? c->max_bodies_bytes : HTTP_SERVER_MAX_BODIES;
    c->max_output_bytes = c->max_output_bytes > 0 ? c->max_output_bytes : HTTP_SERVER_MAX_OUTPUT;
    c->head_ns = c->head_ns > 0 ? c->head_ns : HTTP_SERVER_HEAD_NS;
    c->body_ns = c->body_ns > 0 ? c->body_ns : HTTP_SERVER_BODY_NS;
    c->idle_ns = c->idle_ns > 0 ? c->idle_ns : HTTP_SERVER_IDLE_NS;
    c->stall_ns = c->stall_ns > 0 ? c->stall_ns : HTTP_SERVER_STALL_NS;
}

enum status http_server_create(const struct http_server_config *config, struct http_server **out,
                               struct error *err)
{
    const int needed = EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE;
    if ((event_base_get_features(config->base) & needed) != needed) {
        return error_set(err, STATUS_UNSUPPORTED, -1,
                         "the HTTP server needs epoll, libevent chose %s; is an EVENT_NO... "
                         "variable set?",
                         event_base_get_method(config->base));
    }
    struct http_server *s = mem_alloc(1, sizeof *s);
    if (s == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the HTTP server");
    }
    s->config = *config;
    set_defaults(&s->config);
    s->listen_fd = -1;
    enum status status = listen_on(s->config.host, s->config.port, &s->listen_fd, err);
    if (status != STATUS_OK) {
        mem_free(s);
        return status;
    }
    struct event_base *base = s->config.base;
    s->port = port_of(s->listen_fd);
    s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    s->idle_tv = common_timeout(base, s->config.idle_ns);
    s->head_tv = common_timeout(base, s->config.head_ns);
    s->body_tv = common_timeout(base, s->config.body_ns);
    s->stall_tv = common_timeout(base, s->config.stall_ns);
    s->linger_tv = common_timeout(base, LINGER_NS);
    event_assign(&s->accept_ev, base, s->listen_fd, EV_READ | EV_PERSIST, on_acceptable, s);
    event_assign(&s->pause_ev, base, -1, 0, on_pause_over, s);
    event_assign(&s->reaper_ev, base, -1, 0, reap, s);
    resume_accepting(s);
    if (s->reserve_fd < 0 || s->idle_tv == NULL || s->head_tv == NULL || s->body_tv == NULL ||
        s->stall_tv == NULL || s->linger_tv == NULL || !s->accepting) {
        http_server_destroy(s);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory or descriptors for the HTTP server");
    }
    *out = s;
    return STATUS_OK;
}

void http_server_stop_listening(struct http_server *s)
{
    s->closing = true;
    if (s->listen_fd >= 0) {
        event_del(&s->accept_ev);
        event_del(&s->pause_ev);
        close(s->listen_fd);
        s->listen_fd = -1;
        s->accepting = false;
    }
    for (struct conn *c = s->conns, *next; c != NULL; c = next) {
        next = c->next;
        if (c->state == CONN_HEAD && c->in_len == 0) {
            http_conn_close(c, HTTP_GONE_SERVER);
        }
    }
}

void http_server_destroy(struct http_server *s)
{
    if (s == NULL) {
        return;
    }
    http_server_stop_listening(s);
    while (s->conns != NULL) {
        http_conn_close(s->conns, HTTP_GONE_SERVER);
    }
    event_del(&s->reaper_ev);
    reap(-1, 0, s);
    if (s->reserve_fd >= 0) {
        close(s->reserve_fd);
    }
    mem_free(s);
}

uint16_t http_server_port(const struct http_server *s)
{
    return s->port;
}

struct http_server_counts http_server_counts_of(const struct http_server *s)
{
    return s->counts;
}
