/*
 * remote_conn.c - one connection: connect, TLS, send, read with stamps, close. See remote_int.h.
 *
 * Invariant: a connection that is CLOSED or IDLE is in the list of that name and has no request.
 */
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/monotime.h"
#include "net/http_write.h"
#include "net/remote_int.h"

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);

/* ---- states ---- */

enum status remote_conn_init(struct remote_conn *c, struct remote *r, struct error *err)
{
    enum status s = remote_reader_init(&c->reader, &r->scratch, r->config.keep_events, err);
    if (s != STATUS_OK) {
        return s;
    }
    c->remote = r;
    c->fd = -1;
    LIST_INSERT_HEAD(&r->closed, c, link);
    c->readable = event_new(r->base, -1, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(r->base, -1, EV_WRITE | EV_PERSIST, on_writable, c);
    return c->readable != NULL && c->writable != NULL
               ? STATUS_OK
               : error_set(err, STATUS_NO_MEMORY, -1, "no memory for a connection");
}

void remote_conn_deinit(struct remote_conn *c)
{
    if (c->remote == NULL) {
        return;
    }
    remote_conn_close(c);
    if (c->readable != NULL) {
        event_free(c->readable);
    }
    if (c->writable != NULL) {
        event_free(c->writable);
    }
    remote_reader_deinit(&c->reader);
}

static void enter(struct remote_conn *c, enum conn_state state)
{
    bool was_listed = c->state == CONN_CLOSED || c->state == CONN_IDLE;
    bool is_listed = state == CONN_CLOSED || state == CONN_IDLE;
    if (was_listed) {
        LIST_REMOVE(c, link);
    }
    c->state = state;
    if (is_listed) {
        assert(c->request == NULL);
        LIST_INSERT_HEAD(state == CONN_IDLE ? &c->remote->idle : &c->remote->closed, c, link);
    }
}

void remote_conn_close(struct remote_conn *c)
{
    if (c->fd >= 0) {
        (void)event_del(c->readable);
        (void)event_del(c->writable);
        (void)close(c->fd);
        c->fd = -1;
    }
    SSL_free(c->ssl);
    c->ssl = NULL;
    c->wants_write = false;
    c->is_sending = false;
    if (c->state != CONN_CLOSED) {
        enter(c, CONN_CLOSED);
    }
}

/* Opening came to nothing. */
static void open_failed(struct remote_conn *c, const char *why)
{
    remote_opened(c, why);
    remote_conn_close(c);
    remote_pump(c->remote);
}

static void open_failed_errno(struct remote_conn *c, int error)
{
    char host[64] = "?";
    char why[160];
    const struct addrinfo *a = c->remote->address;
    (void)getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST);
    const char *hint = error == EADDRNOTAVAIL               ? " (no local port is free)"
                       : error == EMFILE || error == ENFILE ? " (raise ulimit -n)"
                                                            : "";
    (void)snprintf(why, sizeof why, "%s port %u: %s%s", host, c->remote->config.url.port,
                   strerror(error), hint);
    if (error == ECONNREFUSED) {
        c->remote->refused_ns = monotime_now_ns();
    }
    open_failed(c, why);
}

static void opened(struct remote_conn *c)
{
    c->n_requests = 0;
    remote_opened(c, NULL);
}

void remote_conn_rest(struct remote_conn *c)
{
    enter(c, CONN_IDLE);
}

/* ---- sending ---- */

/* What is to be sent still; 0: nothing. */
static size_t unsent(const struct remote_conn *c, struct iovec iov[3])
{
    const char *bytes;
    if (c->ssl != NULL) {
        size_t n = remote_tls_pending(c->ssl, c->sent, &bytes);
        iov[0] = (struct iovec){n == 0 ? NULL : (void *)(uintptr_t)bytes, n};
        return n == 0 ? 0 : 1;
    }
    if (!c->is_sending) {
        return 0;
    }
    const struct iovec parts[3] = {{c->remote->head, c->remote->head_len},
                                   {(void *)(uintptr_t)c->head_end, c->head_end_len},
                                   {(void *)(uintptr_t)c->call->body, c->call->body_len}};
    size_t skip = c->sent;
    size_t n = 0;
    for (int i = 0; i < 3; i++) {
        size_t gone = skip < parts[i].iov_len ? skip : parts[i].iov_len;
        skip -= gone;
        if (gone < parts[i].iov_len) {
            iov[n++] = (struct iovec){(char *)parts[i].iov_base + gone, parts[i].iov_len - gone};
        }
    }
    return n;
}

static void want_write(struct remote_conn *c, bool wanted)
{
    if (wanted && !c->wants_write) {
        (void)event_add(c->writable, NULL);
    } else if (!wanted && c->wants_write) {
        (void)event_del(c->writable);
    }
    c->wants_write = wanted;
}

/* Sends what there is. A broken connection shows when it is read next, behind an answer that the
 * server may have sent before it closed. */
static void flush(struct remote_conn *c)
{
    struct iovec iov[3];
    size_t n;
    while ((n = unsent(c, iov)) > 0) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = n};
        ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (sent >= 0) {
            c->sent += (size_t)sent;
        } else if (errno != EINTR) {
            want_write(c, errno == EAGAIN);
            return;
        }
    }
    if (c->ssl != NULL) {
        remote_tls_sent(c->ssl);
        c->sent = 0;
    }
    want_write(c, false);
    if (c->is_sending) {
        c->is_sending = false;
        c->answer->send_end_ns = monotime_now_ns();
    }
}

static void write_head_end(struct remote_conn *c)
{
    struct http_writer w = {.out = c->head_end, .cap = sizeof c->head_end};
    if (c->call->request_id != NULL) {
        http_write_header(&w, "X-Request-Id", c->call->request_id);
    }
    http_write_header_u64(&w, "Content-Length", c->call->body_len);
    http_write_end(&w);
    assert(!w.failed); /* remote_run has checked the ids */
    c->head_end_len = w.len;
}

void remote_conn_send(struct remote_conn *c)
{
    const struct remote *r = c->remote;
    enter(c, CONN_BUSY);
    write_head_end(c);
    remote_reader_begin(&c->reader, c->answer, c->call->least_tokens);
    if (c->ssl != NULL && (!remote_tls_write(c->ssl, r->head, r->head_len) ||
                           !remote_tls_write(c->ssl, c->head_end, c->head_end_len) ||
                           !remote_tls_write(c->ssl, c->call->body, c->call->body_len))) {
        remote_out_of_memory(c->remote); /* it is a filter on memory: nothing else can fail */
        return;
    }
    c->n_requests++;
    c->sent = 0;
    c->is_sending = true;
    c->answer->send_begin_ns = monotime_now_ns();
    flush(c);
}

/* ---- opening ---- */

static void shake_hands(struct remote_conn *c)
{
    char why[160];
    enum remote_tls_step step = remote_tls_handshake(c->ssl, why, sizeof why);
    flush(c); /* an alert, too */
    if (step == REMOTE_TLS_CLOSED) {
        open_failed(c, why);
    } else if (step == REMOTE_TLS_DONE) {
        opened(c);
    }
}

static void tcp_is_open(struct remote_conn *c)
{
    want_write(c, false);
    (void)event_add(c->readable, NULL);
    if (c->remote->tls == NULL) {
        opened(c);
        return;
    }
    enter(c, CONN_TLS);
    c->ssl = remote_tls_open(c->remote->tls, c->remote->config.url.host);
    if (c->ssl == NULL) {
        open_failed(c, "no memory for TLS");
        return;
    }
    shake_hands(c);
}

void remote_conn_open(struct remote_conn *c)
{
    struct remote *r = c->remote;
    const struct addrinfo *a = r->address;
    assert(c->state == CONN_CLOSED && a != NULL);
    enter(c, CONN_TCP);
    c->since_ns = monotime_now_ns();
    c->sent = 0;
    c->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (c->fd < 0) {
        open_failed_errno(c, errno);
        return;
    }
    (void)event_assign(c->readable, r->base, c->fd, EV_READ | EV_PERSIST, on_readable, c);
    (void)event_assign(c->writable, r->base, c->fd, EV_WRITE | EV_PERSIST, on_writable, c);
    int on = 1;
    if (setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) {
        open_failed_errno(c, errno);
    } else if (connect(c->fd, a->ai_addr, a->ai_addrlen) == 0) {
        tcp_is_open(c);
    } else if (errno == EINPROGRESS || errno == EINTR) {
        want_write(c, true);
    } else {
        open_failed_errno(c, errno);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct remote_conn *c = arg;
    if (c->state != CONN_TCP) {
        flush(c);
        return;
    }
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
        error = errno;
    }
    if (error != 0) {
        open_failed_errno(c, error);
    } else {
        tcp_is_open(c);
    }
}

/* ---- reading ---- */

/* What the answer's bytes came to: the request may have ended, the connection may be free. */
static void settle(struct remote_conn *c, uint64_t now)
{
    const struct remote_reader *reader = &c->reader;
    bool has_ended = c->request != NULL && remote_answer_has_ended(c->answer);
    if (reader->no_memory) {
        remote_out_of_memory(c->remote);
    }
    if (has_ended) {
        remote_ended(c);
    }
    if (reader->phase < READER_DRAIN) {
        return; /* goes on */
    }
    bool is_kept = reader->keep_alive && !c->remote->config.one_answer_each;
    if (c->is_sending || !is_kept || reader->phase == READER_BROKEN) {
        remote_conn_close(c);
    } else if (reader->phase == READER_COMPLETE) {
        remote_conn_rest(c);
    } else if (c->state == CONN_BUSY) {
        enter(c, CONN_DRAIN);
        c->since_ns = now;
    }
    remote_pump(c->remote);
}

static bool is_reading(const struct remote_conn *c)
{
    return (c->state == CONN_BUSY || c->state == CONN_DRAIN) && c->reader.phase < READER_COMPLETE;
}

/* The connection has ended; `how` says it for people. */
static void lose(struct remote_conn *c, uint64_t now, const char *how)
{
    if (c->state == CONN_TLS) {
        char why[200];
        (void)snprintf(why, sizeof why, "%s during the TLS handshake", how);
        open_failed(c, why);
        return;
    }
    if (c->state == CONN_BUSY) {
        struct remote_reader *reader = &c->reader;
        if (c->is_sending && !reader->has_bytes) {
            remote_reader_fail(reader, now, REMOTE_FAULT_SEND, "%s before the request was sent",
                               how);
        } else if (c->n_requests > 1 && !reader->has_bytes) {
            /* Servers close idle connections whenever they like; this time as we sent. */
            remote_reader_fail(reader, now, REMOTE_FAULT_SEND,
                               "%s as the request was sent on a kept connection", how);
        } else {
            remote_reader_close(reader, now, how);
        }
        settle(c, now);
        return;
    }
    remote_conn_close(c);
    remote_pump(c->remote);
}

/* Bytes of TLS records, all of one read. */
static void take_records(struct remote_conn *c, const char *bytes, size_t n, uint64_t now)
{
    struct remote *r = c->remote;
    char why[160] = "closed by the server";
    if (!remote_tls_put(c->ssl, bytes, n)) {
        remote_out_of_memory(r);
        return;
    }
    if (c->state == CONN_TLS) {
        shake_hands(c);
        if (c->state == CONN_TLS || c->ssl == NULL) { /* goes on, or failed */
            return;
        }
    }
    enum remote_tls_step step;
    size_t len;
    bool has_bytes = false;
    while ((step = remote_tls_read(c->ssl, r->plain_buf, REMOTE_READ_BYTES, &len, why,
                                   sizeof why)) == REMOTE_TLS_DONE &&
           is_reading(c)) {
        remote_reader_feed(&c->reader, r->plain_buf, len, now);
        has_bytes = true;
    }
    flush(c); /* what TLS itself has to say */
    if (step == REMOTE_TLS_MORE) {
        if (has_bytes) {
            settle(c, now);
        }
    } else if (c->state == CONN_BUSY && remote_answer_has_ended(c->answer)) {
        c->reader.keep_alive = false;
        settle(c, now);
    } else {
        lose(c, now, step == REMOTE_TLS_DONE ? "answered unasked" : why);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct remote_conn *c = arg;
    struct remote *r = c->remote;
    ssize_t n = recv(fd, r->read_buf, REMOTE_READ_BYTES, 0);
    uint64_t now = monotime_now_ns(); /* before anything looks at the bytes */
    r->cost.reads++;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        lose(c, now,
             n == 0                ? "closed by the server"
             : errno == ECONNRESET ? "reset by the server"
                                   : strerror(errno));
    } else if (c->ssl != NULL) {
        take_records(c, r->read_buf, (size_t)n, now);
    } else if (is_reading(c)) {
        remote_reader_feed(&c->reader, r->read_buf, (size_t)n, now);
        settle(c, now);
    } else {
        lose(c, now, "answered unasked");
    }
}

bool remote_conn_check(struct remote_conn *c)
{
    char byte;
    assert(c->state == CONN_IDLE);
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (n > 0 && c->ssl != NULL) { /* session tickets come when they like */
        on_readable(c->fd, EV_READ, c);
        return c->state == CONN_IDLE;
    }
    remote_conn_close(c);
    return false;
}

/* ---- deadlines ---- */

static bool is_past(uint64_t now, uint64_t since, uint64_t limit)
{
    return now > since && now - since >= limit;
}

void remote_conn_tick(struct remote_conn *c, uint64_t now)
{
    const struct remote_config *config = &c->remote->config;
    char why[80];
    switch (c->state) {
    case CONN_TCP:
    case CONN_TLS:
        if (is_past(now, c->since_ns, config->connect_timeout_ns)) {
            (void)snprintf(why, sizeof why, "no connection within %.3g s",
                           monotime_seconds(config->connect_timeout_ns));
            open_failed(c, why);
        }
        break;
    case CONN_BUSY:
        if (is_past(now, c->answer->send_begin_ns, config->request_timeout_ns)) {
            remote_reader_fail(&c->reader, now, REMOTE_FAULT_TIMEOUT,
                               "not answered whole within %.3g s",
                               monotime_seconds(config->request_timeout_ns));
            settle(c, now);
        }
        break;
    case CONN_DRAIN:
        if (is_past(now, c->since_ns, REMOTE_DRAIN_NS)) {
            remote_conn_close(c);
            remote_pump(c->remote);
        }
        break;
    default:
        break;
    }
}
