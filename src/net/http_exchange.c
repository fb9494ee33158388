/* http_exchange.c - answers of the HTTP server: heads, chunks, the queue in front of a socket. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/mem.h"
#include "net/http_server_int.h"
#include "net/http_write.h"

#define HEAD_BYTES    4096 /* fields of an answer; the handler's are short */
#define KEEP_OUT_ROOM ((size_t)16384)

static struct conn *conn_of(struct http_exchange *x)
{
    return (struct conn *)x; /* its first member */
}

void http_exchange_set_user(struct http_exchange *x, void *user)
{
    x->user = user;
}

void *http_exchange_user(const struct http_exchange *x)
{
    return x->user;
}

/* ---------------------------------------------------------------- the queue */

static bool is_full(int e)
{
    return e == EAGAIN || e == EWOULDBLOCK;
}

/* The rest waits for the socket; a peer that takes nothing for stall_ns is dropped. */
static void wait_for_socket(struct conn *c, bool progress)
{
    if (c->state == CONN_HANDLING && (progress || !c->blocked)) {
        event_add(&c->timer_ev, c->server->stall_tv);
    }
    c->blocked = true;
}

bool http_conn_flush(struct conn *c)
{
    if (c->state == CONN_CLOSED) {
        return false;
    }
    bool progress = false;
    while (c->out_at < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->out_at, c->out.len - c->out_at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && is_full(errno)) {
            wait_for_socket(c, progress);
            return true;
        }
        if (n <= 0) {
            http_conn_close(c, HTTP_GONE_CLOSED);
            return false;
        }
        progress = true;
        c->out_at += (size_t)n;
    }
    c->out_at = 0;
    if (c->out.capacity > KEEP_OUT_ROOM) {
        strbuf_deinit(&c->out);
    } else {
        strbuf_clear(&c->out);
    }
    if (c->blocked && c->state == CONN_HANDLING) {
        event_del(&c->timer_ev);
    }
    c->blocked = false;
    return true;
}

/* Gives up the part that was sent once it is the larger one: amortised, a byte moves once. */
static void compact(struct conn *c)
{
    if (c->out_at > c->out.len / 2) {
        c->out.len -= c->out_at;
        memmove(c->out.data, c->out.data + c->out_at, c->out.len);
        c->out_at = 0;
    }
}

/* Behind what already waits. False: more than the peer may leave lying; it is gone. An answer that
 * is complete has its size from the handler, and only stall_ns to fear. */
static bool enqueue(struct conn *c, const struct iovec *parts, int n, size_t skip)
{
    compact(c);
    for (int i = 0; i < n; i++) {
        size_t drop = skip < parts[i].iov_len ? skip : parts[i].iov_len;
        skip -= drop;
        strbuf_append(&c->out, (const char *)parts[i].iov_base + drop, parts[i].iov_len - drop);
    }
    bool too_much = !c->x.ended && c->out.len - c->out_at > c->server->config.max_output_bytes;
    if (c->out.failed || too_much) {
        http_conn_close(c, HTTP_GONE_SLOW);
        return false;
    }
    return true;
}

/* All parts, behind what already waits, in one system call where the socket takes them. */
static bool put(struct conn *c, struct iovec *parts, int n)
{
    if (c->state == CONN_CLOSED) {
        return false;
    }
    if (c->out_at < c->out.len) {
        return enqueue(c, parts, n, 0) && (c->blocked || http_conn_flush(c));
    }
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = (size_t)n};
    ssize_t sent;
    do {
        sent = sendmsg(c->fd, &m, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && !is_full(errno)) {
        http_conn_close(c, HTTP_GONE_CLOSED);
        return false;
    }
    size_t done = sent > 0 ? (size_t)sent : 0;
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        total += parts[i].iov_len;
    }
    if (done == total) {
        return true;
    }
    if (!enqueue(c, parts, n, done)) {
        return false;
    }
    wait_for_socket(c, done > 0);
    return true;
}

/* ---------------------------------------------------------------- heads */

/* Into out[HEAD_BYTES]; 0 when a field cannot stand in a head. */
static size_t write_head(const struct conn *c, char *out, int status, const char *content_type,
                         const size_t *length, const struct http_field *fields, size_t n_fields)
{
    struct http_writer w = {.out = out, .cap = HEAD_BYTES};
    http_write_status_line(&w, status);
    if (content_type != NULL) {
        http_write_header(&w, "Content-Type", content_type);
    }
    for (size_t i = 0; i < n_fields; i++) {
        http_write_header(&w, fields[i].name, fields[i].value);
    }
    if (length != NULL) {
        http_write_header_u64(&w, "Content-Length", *length);
    } else if (c->x.chunked) {
        http_write_header(&w, "Transfer-Encoding", "chunked");
    }
    if (!c->x.keep_alive) {
        http_write_header(&w, "Connection", "close");
    } else if (c->x.old) {
        http_write_header(&w, "Connection", "keep-alive");
    }
    http_write_end(&w);
    return w.failed ? 0 : w.len;
}

/* ---------------------------------------------------------------- whole answers */

/* An answer begins. If the body is still being read, nobody will look at the rest of it. */
static void begin_answer(struct conn *c)
{
    assert(!c->x.begun && !c->x.ended);
    c->x.begun = true;
    c->x.keep_alive = c->x.keep_alive && !c->server->closing && c->state != CONN_BODY;
    if (c->state == CONN_BODY) {
        c->state = CONN_HANDLING;
        event_del(&c->timer_ev);
    }
    if (c->blocked) { /* by the 100 of Expect: from here on it is a stall */
        event_add(&c->timer_ev, c->server->stall_tv);
    }
}

void http_exchange_answer(struct http_exchange *x, int status, const char *content_type,
                          const char *body, size_t len, const struct http_field *fields,
                          size_t n_fields)
{
    struct conn *c = conn_of(x);
    begin_answer(c);
    char head[HEAD_BYTES];
    size_t head_len = write_head(c, head, status, content_type, &len, fields, n_fields);
    assert(head_len > 0);
    struct iovec parts[2] = {{.iov_base = head, .iov_len = head_len},
                             {.iov_base = (void *)body, .iov_len = x->is_head ? 0 : len}};
    x->ended = true; /* also when the peer is gone by now: nobody is told */
    if (put(c, parts, parts[1].iov_len > 0 ? 2 : 1)) {
        http_conn_answered(c);
    }
}

void http_conn_refuse(struct conn *c, int status, const char *why)
{
    struct http_server *s = c->server;
    const struct http_handler *h = &s->config.handler;
    s->counts.bad_requests++;
    if (c->state == CONN_BODY && h->on_gone != NULL) {
        h->on_gone(h->self, &c->x, HTTP_GONE_CLOSED); /* it saw the head */
    }
    c->x = (struct http_exchange){0};
    c->state = CONN_HANDLING;
    event_del(&c->timer_ev);
    struct strbuf body = {0};
    if (h->write_error != NULL) {
        h->write_error(h->self, status, why, &body);
    }
    http_exchange_answer(&c->x, status, body.len > 0 ? "application/json" : NULL,
                         strbuf_text(&body), body.len, NULL, 0);
    strbuf_deinit(&body);
}

/* ---------------------------------------------------------------- streams */

bool http_exchange_begin(struct http_exchange *x, int status, const char *content_type,
                         const struct http_field *fields, size_t n_fields)
{
    struct conn *c = conn_of(x);
    begin_answer(c);
    x->chunked = !x->old && !x->is_head;
    x->keep_alive = x->keep_alive && !x->old;
    char head[HEAD_BYTES];
    size_t len = write_head(c, head, status, content_type, NULL, fields, n_fields);
    assert(len > 0);
    struct iovec part = {.iov_base = head, .iov_len = len};
    if (!enqueue(c, &part, 1, 0)) {
        return false;
    }
    http_conn_kick(c); /* in case that the first write is long in coming */
    return true;
}

bool http_exchange_write(struct http_exchange *x, const void *data, size_t len)
{
    struct conn *c = conn_of(x);
    assert(x->begun && !x->ended && len > 0);
    if (x->is_head) {
        return c->state != CONN_CLOSED;
    }
    char size[HTTP_CHUNK_OVERHEAD];
    struct iovec parts[3] = {{.iov_base = size},
                             {.iov_base = (void *)data, .iov_len = len},
                             {.iov_base = "\r\n", .iov_len = 2}};
    if (!x->chunked) {
        return put(c, &parts[1], 1);
    }
    parts[0].iov_len = http_chunk_begin(size, sizeof size, len);
    return put(c, parts, 3);
}

void http_exchange_end(struct http_exchange *x)
{
    struct conn *c = conn_of(x);
    assert(x->begun && !x->ended);
    x->ended = true;
    struct iovec part = {.iov_base = HTTP_LAST_CHUNK, .iov_len = sizeof HTTP_LAST_CHUNK - 1};
    if (x->chunked ? put(c, &part, 1) : c->blocked || http_conn_flush(c)) {
        http_conn_answered(c);
    }
}
