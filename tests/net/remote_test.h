/* remote_test.h - a client, its requests and answers, against a raw_server. */
#ifndef LLMSCHED_TESTS_REMOTE_TEST_H
#define LLMSCHED_TESTS_REMOTE_TEST_H

#include "raw_server.h"

#include "base/monotime.h"
#include "load/closed_loop.h"
#include "net/remote.h"

#define BODY "{\"prompt\": \"p\", \"stream\": true}"
#define HEAD_OK                                                                                    \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"                        \
    "Transfer-Encoding: chunked\r\n\r\n"
#define LAST_CHUNK "0\r\n\r\n"

/* One choice's text as an event, in a chunk of its own. */
static inline void text_chunk(char *out, size_t cap, const char *text, const char *finish)
{
    char event[512];
    int n = snprintf(event, sizeof event,
                     "data: {\"choices\":[{\"index\":0,\"text\":\"%s\",\"finish_reason\":%s}]}\n\n",
                     text, finish);
    assert_true(n > 0 && (size_t)n < sizeof event);
    n = snprintf(out, cap, "%x\r\n%s\r\n", (unsigned)n, event);
    assert_true(n > 0 && (size_t)n < cap);
}

static inline bool raw_event(int fd, const char *text, const char *finish)
{
    char chunk[600];
    text_chunk(chunk, sizeof chunk, text, finish);
    return raw_puts(fd, chunk);
}

static inline bool raw_done(int fd)
{
    return raw_puts(fd, "e\r\ndata: [DONE]\n\n\r\n");
}

/* A complete answer of n tokens "ab". */
static inline bool raw_answer(int fd, int n)
{
    bool ok = raw_puts(fd, HEAD_OK);
    for (int i = 0; ok && i < n; i++) {
        ok = raw_event(fd, "ab", i == n - 1 ? "\"length\"" : "null");
    }
    /* In one piece: a machine that stands still between them would cost the connection. */
    return ok && raw_puts(fd, "e\r\ndata: [DONE]\n\n\r\n" LAST_CHUNK);
}

struct load {
    struct remote *client;
    struct remote_config config;
    struct request *requests;
    struct remote_call *calls;
    struct remote_answer *answers;
    uint32_t n;
    struct closed_loop loop;
    struct source source;
    uint32_t n_done;     /* as on_done of the run said */
    uint32_t n_ended;    /* calls of the source's on_done */
    uint8_t *ended;      /* [n]: how often */
    struct source inner; /* what source counts around */
    struct error err;
    const volatile int *stop;
};

static const struct request *load_next(void *self, uint64_t now, uint64_t *next_at)
{
    struct load *l = self;
    return l->inner.next(l->inner.self, now, next_at);
}

static void load_ended(void *self, const struct request *q, uint64_t now)
{
    struct load *l = self;
    l->n_ended++;
    l->ended[q->id]++;
    assert_int_equal(now, l->answers[q->id].end_ns);
    l->inner.on_done(l->inner.self, q, now);
}

static void load_done(void *self, uint32_t done)
{
    struct load *l = self;
    assert_int_equal(done, l->n_done + 1);
    l->n_done = done;
}

static inline void load_init(struct load *l, uint16_t port, uint32_t n, uint32_t concurrency)
{
    *l = (struct load){.n = n, .err = ERROR_INIT};
    l->config = (struct remote_config){.connections = concurrency,
                                       .request_timeout_ns = 20 * NS_PER_S,
                                       .connect_timeout_ns = 10 * NS_PER_S};
    l->config.url =
        (struct remote_url){.host = "127.0.0.1", .port = port, .path = "/v1/completions"};
    l->requests = calloc(n, sizeof *l->requests);
    l->calls = calloc(n, sizeof *l->calls);
    l->answers = calloc(n, sizeof *l->answers);
    l->ended = calloc(n, 1);
    assert_true(l->requests != NULL && l->calls != NULL && l->answers != NULL && l->ended != NULL);
    for (uint32_t i = 0; i < n; i++) {
        l->requests[i].id = i;
        l->calls[i] = (struct remote_call){.body = BODY, .body_len = sizeof BODY - 1};
    }
    closed_loop_init(&l->loop, l->requests, n, concurrency);
    l->inner = closed_loop_source(&l->loop);
    l->source = (struct source){.next = load_next, .on_done = load_ended, .self = l};
}

static inline enum status load_connect(struct load *l)
{
    enum status s = remote_create(&l->config, &l->client, &l->err);
    return s == STATUS_OK ? remote_connect(l->client, &l->err) : s;
}

/* Every request ended once; whatever happened, it is written down. */
static inline void load_check(const struct load *l)
{
    uint32_t n_ended = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        const struct remote_answer *a = &l->answers[i];
        assert_true(l->ended[i] <= 1);
        n_ended += l->ended[i];
        assert_true(l->ended[i] == 1 || a->fault == REMOTE_FAULT_CANCELLED);
        assert_true(a->end_ns != TIME_NEVER);
        const char *name = remote_fault_name(a->fault);
        assert_memory_equal(a->error, name, strlen(name));
        assert_true((a->fault == REMOTE_FAULT_NONE) == (a->error[0] == '\0'));
        assert_int_equal(a->n_events == 0, a->first_ns == TIME_NEVER);
        if (a->n_events > 0) {
            assert_true(a->send_begin_ns <= a->first_ns && a->first_ns <= a->last_ns &&
                        a->last_ns <= a->end_ns && a->head_ns <= a->first_ns);
            assert_true(a->longest_gap_ns <= a->last_ns - a->first_ns);
        }
        if (a->send_begin_ns != TIME_NEVER) {
            assert_true(a->planned_ns <= a->send_begin_ns && a->send_begin_ns <= a->end_ns);
        }
    }
    assert_int_equal(n_ended, l->n_ended);
    assert_int_equal(l->n_done, l->n_ended);
}

static inline enum status load_run(struct load *l)
{
    struct remote_run run = {.source = &l->source,
                             .calls = l->calls,
                             .answers = l->answers,
                             .n = l->n,
                             .stop = l->stop,
                             .on_done = load_done,
                             .self = l};
    enum status s = remote_run(l->client, &run, &l->err);
    load_check(l);
    return s;
}

static inline void load_deinit(struct load *l)
{
    remote_destroy(l->client);
    for (uint32_t i = 0; i < l->n; i++) {
        remote_answer_deinit(&l->answers[i]);
    }
    free(l->requests);
    free(l->calls);
    free(l->answers);
    free(l->ended);
}

static inline uint32_t load_count(const struct load *l, enum remote_fault fault)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        n += l->answers[i].fault == fault;
    }
    return n;
}

#endif
