/*
 * remote_int.h - what the files of the measuring client share: connections, their TLS, the run.
 *
 * remote.c decides which request goes where and when it is over; remote_conn.c moves bytes. Every
 * connection has at most one request. The calls between them:
 *
 *   remote.c ──remote_conn_open, remote_conn_send──► remote_conn.c ──remote_opened, remote_ended,
 * remote_pump──►
 *
 * One thread; nothing here blocks but the event loop.
 */
#ifndef LLMSCHED_NET_REMOTE_INT_H
#define LLMSCHED_NET_REMOTE_INT_H

#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <event2/event.h>
#include <openssl/ssl.h>

#include "net/remote.h"
#include "net/remote_reader.h"

/* How often the stop flag and the deadlines are looked at. */
#define REMOTE_TICK_MS 20
/* [DONE] is there, the end of the body is not: so long the connection may take for it. */
#define REMOTE_DRAIN_NS (100 * 1000000ULL)
/* Nobody listens: so long no other connection is tried, requests fail with the same words. */
#define REMOTE_REFUSED_NS         (100 * 1000000ULL)
#define REMOTE_CONNECT_TIMEOUT_NS (10 * 1000000000ULL)
#define REMOTE_REQUEST_TIMEOUT_NS (300 * 1000000000ULL)
/* Of one read. Events have some 300 bytes; a socket may hold more, the next read gets it. */
#define REMOTE_READ_BYTES 32768U
/* Files, sockets and pipes that the process has besides the connections. */
#define REMOTE_SPARE_FILES 32U
/* X-Request-Id and Content-Length with the empty line. */
#define REMOTE_MAX_ID_BYTES   128U
#define REMOTE_HEAD_END_BYTES (REMOTE_MAX_ID_BYTES + 80U)

/* ---- TLS: a filter between socket bytes and ours (remote_tls.c) ---- */

/* Chain and host name are verified. Errors: USAGE for a ca_file that cannot be read. */
enum status remote_tls_context(const char *ca_file, SSL_CTX **out, struct error *err) MUST_USE;
/* A client's end for that host (SNI), on memory; NULL: no memory. */
SSL *remote_tls_open(SSL_CTX *context, const char *host);

enum remote_tls_step {
    REMOTE_TLS_MORE,  /* bytes from the peer are needed */
    REMOTE_TLS_DONE,  /* handshake: done; read: *n plain bytes */
    REMOTE_TLS_CLOSED /* closed by the peer, or broken: `why` */
};
/* What the socket gave. False: no memory. */
bool remote_tls_put(SSL *ssl, const char *bytes, size_t n) MUST_USE;
enum remote_tls_step remote_tls_handshake(SSL *ssl, char *why, size_t why_cap) MUST_USE;
enum remote_tls_step remote_tls_read(SSL *ssl, char *out, size_t cap, size_t *n, char *why,
                                     size_t why_cap) MUST_USE;
bool remote_tls_write(SSL *ssl, const void *bytes, size_t n) MUST_USE;
/* Bytes for the socket, from `from` on; borrowed until the next call. */
size_t remote_tls_pending(SSL *ssl, size_t from, const char **bytes);
/* All of them were sent. */
void remote_tls_sent(SSL *ssl);

/* ---- connections (remote_conn.c) ---- */

enum conn_state {
    CONN_CLOSED,
    CONN_TCP, /* connect under way */
    CONN_TLS, /* handshake under way */
    CONN_IDLE,
    CONN_BUSY, /* a request is sent or answered */
    CONN_DRAIN /* its answer has ended, the message has not */
};

struct remote_conn {
    LIST_ENTRY(remote_conn) link; /* CLOSED and IDLE: in the list of that state */
    struct remote *remote;
    enum conn_state state;
    int fd;
    struct event *readable; /* of libevent, as all struct event here; made once, assigned anew */
    struct event *writable;
    bool wants_write;              /* writable is added */
    SSL *ssl;                      /* NULL: plain */
    uint64_t since_ns;             /* connect begun, or drain begun */
    uint32_t n_requests;           /* sent since it was opened */
    const struct request *request; /* CONN_TCP, CONN_TLS: sent when open; CONN_BUSY: being served */
    const struct remote_call *call;
    struct remote_answer *answer;
    struct remote_reader reader;
    /* the request's bytes: remote->head, head_end, the body; or TLS records of them */
    char head_end[REMOTE_HEAD_END_BYTES];
    size_t head_end_len;
    size_t sent;
    bool is_sending; /* not all is sent yet */
};
LIST_HEAD(remote_conn_list, remote_conn);

/* Once: CLOSED, in the list of the closed. deinit closes it; c may be zeroes. */
enum status remote_conn_init(struct remote_conn *c, struct remote *r, struct error *err) MUST_USE;
void remote_conn_deinit(struct remote_conn *c);
/* Begins to connect; the outcome is a remote_opened, maybe before this returns. */
void remote_conn_open(struct remote_conn *c);
/* Of an IDLE one: false when the peer closed it or sent what nobody asked for; it is CLOSED then.
 */
bool remote_conn_check(struct remote_conn *c);
/* The request in c->request goes out on the open connection. */
void remote_conn_send(struct remote_conn *c);
/* An open one without a request, to IDLE. */
void remote_conn_rest(struct remote_conn *c);
/* To CLOSED, whatever it was; without a request. */
void remote_conn_close(struct remote_conn *c);
/* Deadlines at `now`. */
void remote_conn_tick(struct remote_conn *c, uint64_t now);

/* ---- the run (remote.c) ---- */

struct remote {
    struct remote_config config; /* texts are those below */
    char *ca_file;
    char *head; /* the head of every request up to head_end */
    size_t head_len;
    SSL_CTX *tls;
    struct addrinfo *addresses;
    const struct addrinfo *address; /* the one in use */
    struct event_base *base;
    struct event *tick;
    struct event *due;
    int due_fd; /* timerfd: the next planned request */
    uint64_t armed_ns;
    struct remote_scratch scratch;
    char *read_buf;
    char *plain_buf; /* what TLS deciphers */
    struct remote_conn *conns;
    struct remote_conn_list idle;
    struct remote_conn_list closed;
    uint64_t refused_ns; /* when it was last seen that nobody listens; TIME_NEVER: it was not */
    /* remote_connect */
    uint32_t opening;
    bool open_failed;
    char open_error[200];
    /* remote_run */
    struct remote_run run;
    bool is_running;
    bool is_pumping;
    bool is_over; /* nothing is sent any more */
    bool no_memory;
    bool is_stopped;
    const struct request **queue; /* due, not yet on a connection; [n] */
    uint32_t queue_head, queue_tail;
    uint32_t in_flight; /* on connections */
    uint32_t n_done;
    struct remote_cost cost;
};

/* Open (why NULL): c->request is sent, or c rests. Or failed: c->request ends; c is to be closed.
 */
void remote_opened(struct remote_conn *c, const char *why);
/* The answer of c->request has ended; c has no request any more. */
void remote_ended(struct remote_conn *c);
/* After an end, or when a connection became IDLE or CLOSED: what is due goes out. To be called
 * last: it may use any connection. */
void remote_pump(struct remote *r);
/* Ends the run. */
void remote_out_of_memory(struct remote *r);

#endif
