/*
 * http_server_int.h - one connection, shared by http_server.c (in) and http_exchange.c (out).
 *
 *   HEAD ──► BODY ──► HANDLING ──► HEAD (kept alive) | LINGER ──► closed
 *
 * A closed connection is not freed at once: whoever is up the stack may still hold it. It goes to
 * the server's graveyard, which an event of its own empties.
 *
 * Sockets are watched by edges. So a full input is no reason to spin, and a reset is still noticed
 * behind it, which libevent does not tell a level-triggered EV_CLOSED. In exchange, whoever stops
 * reading before the socket is empty must set `unread`, and come back by a kick.
 */
#ifndef LLMSCHED_NET_HTTP_SERVER_INT_H
#define LLMSCHED_NET_HTTP_SERVER_INT_H

#include <event2/event.h>
#include <event2/event_struct.h>

#include "net/http_body.h"
#include "net/http_server.h"

enum conn_state {
    CONN_HEAD,     /* between requests, or inside a head */
    CONN_BODY,     /* on_head was called, the body is read */
    CONN_HANDLING, /* the handler has the exchange */
    CONN_LINGER,   /* answered; what the peer still sends is thrown away */
    CONN_CLOSED
};

/* A head, and behind it a piece of the body or what was pipelined. */
#define CONN_INPUT_BYTES (HTTP_MAX_HEAD_BYTES + 16384U)

struct http_exchange {
    void *user;
    bool begun;      /* a head of an answer was made */
    bool ended;      /* the handler has let go of it */
    bool chunked;    /* of the answer */
    bool is_head;    /* the answer has no body */
    bool old;        /* HTTP/1.0 */
    bool keep_alive; /* after the answer */
};

struct conn {
    struct http_exchange x; /* first: an exchange is its connection */
    struct http_server *server;
    struct conn *next;
    struct conn *prev;
    int fd;
    enum conn_state state;
    struct event io_ev;
    struct event timer_ev;
    struct event kick_ev; /* what must not happen on the handler's stack */

    char *in; /* [CONN_INPUT_BYTES], or NULL while there is nothing to hold */
    size_t in_len;
    struct http_request request;
    struct http_body body;
    struct strbuf body_text;
    uint64_t body_seen; /* body bytes at the last look of the timer */
    bool head_timed;    /* the deadline of the head under way runs */
    bool is_reading;    /* inside read_input, which looks at all that is there */
    bool unread;        /* the socket may have input of which no edge will tell */

    struct strbuf out; /* [out_at, len) is not yet taken by the socket */
    size_t out_at;
    bool blocked; /* the socket is full; an edge will tell */
    size_t linger_left;
};

struct http_server {
    struct http_server_config config;
    int listen_fd; /* -1: stopped */
    int reserve_fd;
    uint16_t port;
    bool accepting;
    bool closing; /* stop_listening was called */
    struct event accept_ev;
    struct event pause_ev;
    struct event reaper_ev;
    const struct timeval *idle_tv; /* common timeouts: O(1) for any number of connections */
    const struct timeval *head_tv;
    const struct timeval *body_tv;
    const struct timeval *stall_tv;
    const struct timeval *linger_tv;
    struct conn *conns;
    struct conn *graveyard;
    size_t body_bytes; /* held for all requests under way */
    struct http_server_counts counts;
};

/* Leaves the handler with on_gone if it has the exchange, closes the socket, buries the rest. */
void http_conn_close(struct conn *c, enum http_gone why);
/* The answer is complete in out: the next request, or the end, once it is written. */
void http_conn_answered(struct conn *c);
/* Goes on from the loop: flushes, parses, reads. */
void http_conn_kick(struct conn *c);
/* Hands out's bytes to the socket. False: the connection is closed. */
bool http_conn_flush(struct conn *c) MUST_USE;
/* An answer of the server itself; then the connection ends. */
void http_conn_refuse(struct conn *c, int status, const char *why);

#endif
