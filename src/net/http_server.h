/*
 * http_server.h - an HTTP/1.1 server on one libevent base: sockets, time limits, requests whole.
 *
 * It owns its sockets and runs on one thread, the base's. It knows nothing of paths or JSON. One
 * request at a time per connection, answered in order (pipelined bytes wait). What it bounds: head
 * (HTTP_MAX_HEAD_BYTES, and an absolute deadline), body (size, least rate, and the sum of all that
 * are under way: 503), idle time, connections in all, output of a stream not yet taken by the peer
 * (then the peer is dropped; a whole answer may have any size), time without progress of a write.
 * At EMFILE it stops accepting for a moment instead of spinning. Bad requests are answered with the
 * status of http_bad_status and a closed connection, after a lingering read so that the peer sees
 * the answer. A FIN behind a complete request counts as "gone" (docs/HTTP.md). TLS is left to a
 * proxy.
 */
#ifndef LLMSCHED_NET_HTTP_SERVER_H
#define LLMSCHED_NET_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "net/http.h"

struct event_base;
struct http_server;

/* One request and its answer. Valid from on_head until http_exchange_end, an answer, or on_gone. */
struct http_exchange;

enum http_gone {
    HTTP_GONE_CLOSED, /* the peer closed or reset */
    HTTP_GONE_SLOW,   /* its output queue was full, or a write made no progress */
    HTTP_GONE_SERVER  /* http_server_destroy */
};

struct http_handler {
    /* A head is complete and its body (if any) not yet read. The place to answer early (key, path,
     * method, type); after an answer the body is not read and the connection is closed if one is
     * under way. Spans are of buf. */
    void (*on_head)(void *self, struct http_exchange *x, const struct http_request *r,
                    const char *buf);
    /* The whole request; r, buf and body are borrowed for the call. Answer now or later. Not called
     * when on_head answered. */
    void (*on_request)(void *self, struct http_exchange *x, const struct http_request *r,
                       const char *buf, const char *body, size_t body_len);
    /* The peer went away before the answer was ended. x must not be used after the call. May be
     * called from inside http_exchange_write (then that returns false). */
    void (*on_gone)(void *self, struct http_exchange *x, enum http_gone why);
    /* The body of an error that the server itself answers (bad head, deadline): appends JSON. NULL:
     * none. */
    void (*write_error)(void *self, int status, const char *why, struct strbuf *out);
    void *self;
};

struct http_server_config {
    struct event_base *base; /* borrowed */
    const char *host;        /* name or address; NULL: 127.0.0.1 */
    uint16_t port;           /* 0: the system chooses */
    struct http_handler handler;
    /* 0: the default beside it. */
    uint32_t max_connections; /* HTTP_SERVER_MAX_CONNECTIONS */
    size_t max_body_bytes;    /* HTTP_MAX_BODY_BYTES */
    size_t max_bodies_bytes;  /* HTTP_SERVER_MAX_BODIES: of all requests together */
    size_t max_output_bytes;  /* HTTP_SERVER_MAX_OUTPUT: of a stream, queued for one peer */
    uint64_t head_ns;         /* HTTP_SERVER_HEAD_NS: first to last byte of a head, absolute */
    uint64_t body_ns;         /* HTTP_SERVER_BODY_NS: in each such span at least 1 KiB/s */
    uint64_t idle_ns;         /* HTTP_SERVER_IDLE_NS: between requests */
    uint64_t stall_ns;        /* HTTP_SERVER_STALL_NS: a write without progress */
};

#define HTTP_SERVER_MAX_CONNECTIONS 4096U
#define HTTP_SERVER_MAX_OUTPUT      ((size_t)1 << 20)
/* 32 of the largest bodies: without it, every connection could hold one. */
#define HTTP_SERVER_MAX_BODIES ((size_t)256 << 20)
#define HTTP_SERVER_HEAD_NS    (10 * 1000000000ULL)
#define HTTP_SERVER_BODY_NS    (10 * 1000000000ULL)
#define HTTP_SERVER_IDLE_NS    (60 * 1000000000ULL)
#define HTTP_SERVER_STALL_NS   (30 * 1000000000ULL)

/* Listens at once. Errors: USAGE (no such host), IO naming host, port and the fix (port in use),
 * UNSUPPORTED (a base without edges and early close), NO_MEMORY. */
enum status http_server_create(const struct http_server_config *config, struct http_server **out,
                               struct error *err) MUST_USE;
/* Ends every exchange with on_gone(SERVER), closes everything. */
void http_server_destroy(struct http_server *s);
/* The port it listens on. */
uint16_t http_server_port(const struct http_server *s);
/* No new connections; idle ones are closed, others after their answer. */
void http_server_stop_listening(struct http_server *s);

struct http_server_counts {
    uint32_t connections; /* open now */
    uint64_t accepted;
    uint64_t requests;
    uint64_t bad_requests; /* answered by the server itself */
    uint64_t dropped_slow;
    uint64_t dropped_timeout;
};
struct http_server_counts http_server_counts_of(const struct http_server *s);

void http_exchange_set_user(struct http_exchange *x, void *user);
void *http_exchange_user(const struct http_exchange *x);

struct http_field {
    const char *name;
    const char *value;
};

/* A whole answer; ends the exchange. Before the body was read it closes the connection.
 * content_type NULL: no body. A HEAD request gets the head alone. fields: what may stand in a head,
 * 3 KiB in all; asserted. */
void http_exchange_answer(struct http_exchange *x, int status, const char *content_type,
                          const char *body, size_t len, const struct http_field *fields,
                          size_t n_fields);

/* A streamed answer: chunked for HTTP/1.1, until close for 1.0. The head leaves with the first
 * write or at the next turn of the loop. False: the peer is gone (on_gone was called). */
bool http_exchange_begin(struct http_exchange *x, int status, const char *content_type,
                         const struct http_field *fields, size_t n_fields) MUST_USE;
/* One chunk, handed to the socket before it returns as far as the socket takes it (one system call,
 * TCP_NODELAY). len >= 1. False: gone. */
bool http_exchange_write(struct http_exchange *x, const void *data, size_t len) MUST_USE;
/* The last chunk; ends the exchange. */
void http_exchange_end(struct http_exchange *x);

#endif
