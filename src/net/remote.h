/*
 * remote.h - the measuring client of an OpenAI-compatible completions endpoint.
 *
 *   source (open or closed loop) ──next──► connection ──► endpoint
 *        ▲                                     │ stamps, tokens, text
 *        └────────────── on_done ◄─────────────┴──► struct remote_answer
 *
 * An instrument: connections are opened before the first send and kept alive; bodies are built
 * before the run; time is stamped once per read, before the bytes are looked at; TCP_NODELAY; no
 * retries. One thread (the caller's), one libevent loop. What happened to a request stands in its
 * answer; sent = ok + failed always, also after Ctrl-C or a dead server. Definitions:
 * docs/METRICS.md.
 */
#ifndef LLMSCHED_NET_REMOTE_H
#define LLMSCHED_NET_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "core/source.h"
#include "net/event_scan.h"

/* name, as in the CSV's `error` */
#define REMOTE_FAULT_LIST(X)                                                                       \
    X(NONE, "")                                                                                    \
    X(CONNECT, "connect") /* no connection, or TLS not verified */                                 \
    X(SEND, "send")       /* closed before the request was sent, or as it came on a kept one */    \
    X(STATUS, "status")   /* an HTTP status other than 200 */                                      \
    X(CUT, "stream cut")  /* ended before finish_reason and [DONE] */                              \
    X(PARSE, "parse")     /* not HTTP, not SSE, not the JSON expected */                           \
    X(TIMEOUT, "timeout")                                                                          \
    X(SERVER, "server error")       /* an error event, or finish_reason abort or error */          \
    X(SHORT_OUTPUT, "short output") /* fewer tokens than asked for with ignore_eos */              \
    X(CANCELLED, "cancelled")       /* the run was stopped */

enum remote_fault {
#define REMOTE_FAULT_ENUM(name, text) REMOTE_FAULT_##name,
    REMOTE_FAULT_LIST(REMOTE_FAULT_ENUM)
#undef REMOTE_FAULT_ENUM
        REMOTE_FAULT_COUNT
};
const char *remote_fault_name(enum remote_fault f);

/* How output tokens were counted, best first. */
enum remote_token_source {
    REMOTE_TOKENS_NONE,
    REMOTE_TOKENS_USAGE,  /* usage.completion_tokens */
    REMOTE_TOKENS_IDS,    /* token ids in the events */
    REMOTE_TOKENS_EVENTS, /* one per content event: a lower bound */
};
const char *remote_token_source_name(enum remote_token_source s);

struct remote_url {
    bool tls;
    char host[256]; /* without brackets; 0.0.0.0 reads as 127.0.0.1 */
    uint16_t port;
    char path[1024]; /* "/v1/completions" */
};

/* http:// or https://, an optional port, a path; a URL that ends in /v1 or has no path means
 * /v1/completions. No user, no query. Errors: USAGE with the fault and an example. */
enum status remote_url_parse(const char *text, struct remote_url *out, struct error *err) MUST_USE;
/* "http://127.0.0.1:8000" + path */
void remote_url_print(const struct remote_url *u, const char *path, struct strbuf *out);

struct remote_config {
    struct remote_url url;
    uint32_t connections;        /* >= 1 */
    const char *api_key;         /* NULL: none */
    const char *ca_file;         /* NULL: the system's certificates */
    uint64_t request_timeout_ns; /* from the first byte sent to [DONE]; 0: 300 s */
    uint64_t connect_timeout_ns; /* 0: 10 s */
    bool keep_events;            /* fill remote_answer.events */
    bool one_answer_each;        /* connections are not kept: the server closes them anyway */
};

/* One request, prepared before the run; index = request id. */
struct remote_call {
    const char *body; /* JSON, "stream": true */
    size_t body_len;
    const char *request_id; /* NULL, or the X-Request-Id to send: a field value of <= 128 bytes */
    /* Fewer are SHORT_OUTPUT, unless only events were counted, which is a lower bound, and the
     * server says that the length was reached. 0: any number is right. */
    uint32_t least_tokens;
};

struct remote_event {
    uint64_t time_ns;
    uint32_t n_tokens;
};

/* Instants that did not happen are TIME_NEVER. Owner: the caller (remote_answer_deinit). */
struct remote_answer {
    uint64_t planned_ns;    /* the request's arrival */
    uint64_t send_begin_ns; /* before the first byte was written */
    uint64_t send_end_ns;   /* the last one */
    uint64_t head_ns;
    uint64_t first_ns;     /* first content event: t_1 */
    uint64_t last_ns;      /* last content event: t_m */
    uint64_t end_ns;       /* [DONE], end of the connection, or the fault */
    uint32_t n_events;     /* content events */
    uint32_t first_tokens; /* n_1 */
    uint32_t output_tokens;
    uint32_t prompt_tokens;  /* as the server counts them; 0: it does not say */
    uint32_t cached_tokens;  /* of the prompt */
    bool has_cached_tokens;  /* the server says so */
    uint64_t longest_gap_ns; /* between content events */
    enum remote_token_source token_source;
    enum scan_finish finish;
    enum remote_fault fault;
    uint16_t http_status; /* 0: none came */
    bool coalesced;       /* two content events lay in one read */
    char error[200];      /* "" when ok; begins with the fault's name */
    struct strbuf text;
    struct remote_event *events; /* keep_events: n_events of them */
    uint32_t events_capacity;
};
void remote_answer_deinit(struct remote_answer *a);

struct remote;
/* Raises the process's soft limit of open files to the hard one. Errors: USAGE for more connections
 * than there are files or local ports, for an API key that no header can hold, for a ca_file
 * without certificates; NO_MEMORY; IO. */
enum status remote_create(const struct remote_config *config, struct remote **out,
                          struct error *err) MUST_USE;
void remote_destroy(struct remote *r);

/* Opens all connections that are not open (TLS handshakes included), so it also serves between two
 * runs. The name is resolved once; the first of its addresses that answers is taken for all.
 * Errors: UNREACHABLE naming the endpoint and the cause; no connection is open then. */
enum status remote_connect(struct remote *r, struct error *err) MUST_USE;

struct remote_run {
    struct source *source;
    const struct remote_call *calls; /* by request id */
    struct remote_answer *answers;   /* n, zeroed; filled by request id */
    uint32_t n;
    const volatile int *stop;                   /* NULL, or: non-zero ends the run */
    void (*on_done)(void *self, uint32_t done); /* NULL, or: after each request */
    void *self;
};
/* After remote_connect. Until the source has no more requests and all are answered. on_done of the
 * source is called with the instant of the request's end stamp. A connection that closed is opened
 * anew before its next request (that time is the request's). The source's next_cancel must be NULL.
 * Where the process may, the calling thread runs at the lowest real-time priority until the end, so
 * that a server that fills all cores of this machine does not make its own clock late.
 * Errors: INTERRUPTED when stopped (within 50 ms; answers are complete: what was in flight is
 * CANCELLED, what the source did not give out too, with planned_ns TIME_NEVER and no on_done);
 * NO_MEMORY, likewise. A dead server is no error: its requests fail, while nobody listens without
 * further attempts within 100 ms. */
enum status remote_run(struct remote *r, const struct remote_run *run, struct error *err) MUST_USE;

/* What the client itself cost during the last run. */
struct remote_cost {
    uint64_t wall_ns;
    uint64_t cpu_ns; /* of the calling thread */
    uint64_t reads;
    uint64_t events;
    bool is_real_time; /* the calling thread ran at real-time priority */
};
struct remote_cost remote_cost_of(const struct remote *r);

/* After a run over one connection: does the server keep its connections open? Waits wait_ns for it
 * to close one that it had promised to keep. Some servers do, and a request sent meanwhile is lost.
 */
bool remote_keeps_connections(const struct remote *r, uint64_t wait_ns);

/* What the server says of itself; texts are "" where it does not. */
struct remote_identity {
    char model[256];         /* the only or first id of /v1/models */
    char version[64];        /* /version */
    char cache_config[1024]; /* labels of vllm:cache_config_info in /metrics */
    uint32_t n_models;
    uint32_t max_model_len; /* 0: not said */
};
/* GET /v1/models (required), /version and /metrics (optional). model NULL, or one that must be
 * served. Errors: UNREACHABLE (no connection, no HTTP 200), USAGE (that model is not served: lists
 * those that are; 401: says which key to give). */
enum status remote_identify(const struct remote_config *config, const char *model,
                            struct remote_identity *out, struct error *err) MUST_USE;

#endif
