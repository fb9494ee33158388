/*
 * app_rig.h - the app behind the real HTTP server on the loopback, with a backend that a test
 * scripts: it decides which tokens come when, and how jobs end. Client and loop share the thread.
 */
#ifndef LLMSCHED_TESTS_SERVE_APP_RIG_H
#define LLMSCHED_TESTS_SERVE_APP_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "base/rng.h"
#include "serve/app_int.h"
#include "test.h"

#define RIG_JOBS  64
#define RIG_VOCAB 300
#define RIG_EOS   299
#define RIG_TURNS 2000 /* of the loop, 1 ms each: only a hang takes so many */

struct app_rig {
    struct event_base *base;
    struct http_server *server;
    struct app *app;
    struct prom *prom;
    struct tokenizer *tokenizer;
    struct app_config config;
    const char *names[2];

    /* the scripted backend */
    struct backend backend;
    enum backend_state state;
    const char *error;
    struct job *jobs[RIG_JOBS]; /* by order of submission, for the whole life of the rig */
    bool is_cancelled[RIG_JOBS];
    bool is_over[RIG_JOBS];
    uint32_t n_jobs;
    uint32_t n_waiting;
    struct job *news[4 * RIG_JOBS];
    int ends[4 * RIG_JOBS];
    uint32_t news_at;
    uint32_t n_news;
    bool is_drained;
    bool is_aborted;
    int done_calls;
};

static uint32_t rig_idx(const struct app_rig *r, const struct job *job)
{
    for (uint32_t i = r->n_jobs; i-- > 0;) {
        if (r->jobs[i] == job) {
            return i;
        }
    }
    fail_msg("a job that was never submitted");
    return 0;
}

static enum backend_state rig_state(void *self)
{
    return ((struct app_rig *)self)->state;
}

static void rig_submit(void *self, struct job *job)
{
    struct app_rig *r = self;
    assert_true(r->state == BACKEND_READY && r->n_jobs < RIG_JOBS);
    r->jobs[r->n_jobs++] = job;
}

static void rig_cancel(void *self, struct job *job)
{
    struct app_rig *r = self;
    uint32_t i = rig_idx(r, job);
    assert_false(r->is_over[i] && job_end_of(job) != JOB_LIVE); /* it is the app's again */
    r->is_cancelled[i] = true;
}

static struct job *rig_take(void *self)
{
    struct app_rig *r = self;
    uint64_t count;
    if (r->news_at == r->n_news) {
        (void)!read(r->backend.fd, &count, sizeof count);
        r->news_at = r->n_news = 0;
        return NULL;
    }
    struct job *job = r->news[r->news_at];
    atomic_store(&job->end, r->ends[r->news_at++]);
    return job;
}

static uint32_t rig_waiting(void *self)
{
    return ((struct app_rig *)self)->n_waiting;
}

static void rig_drain(void *self)
{
    ((struct app_rig *)self)->is_drained = true;
}

static void rig_abort(void *self)
{
    ((struct app_rig *)self)->is_aborted = true;
}

static const char *rig_error(void *self)
{
    return ((struct app_rig *)self)->error;
}

static void rig_tell(struct app_rig *r, struct job *job, enum job_end end)
{
    uint64_t one = 1;
    assert_true(r->n_news < 4 * RIG_JOBS);
    r->ends[r->n_news] = end;
    r->news[r->n_news++] = job;
    assert_int_equal(write(r->backend.fd, &one, sizeof one), sizeof one);
}

/* The next tokens of job number i: the bytes of a text. */
static inline void rig_give(struct app_rig *r, uint32_t i, const char *text)
{
    assert_true(i < r->n_jobs && !r->is_over[i]);
    struct job *job = r->jobs[i];
    uint32_t n = job_tokens(job);
    for (; *text != '\0'; text++) {
        assert_true(n < job->request.max_new_tokens);
        job->tokens[n++] = (unsigned char)*text;
    }
    atomic_store(&job->n_tokens, n);
    rig_tell(r, job, JOB_LIVE);
}

static inline void rig_give_id(struct app_rig *r, uint32_t i, int32_t id)
{
    struct job *job = r->jobs[i];
    uint32_t n = job_tokens(job);
    assert_true(n < job->request.max_new_tokens);
    job->tokens[n] = id;
    atomic_store(&job->n_tokens, n + 1);
}

static inline void rig_end(struct app_rig *r, uint32_t i, enum job_end end, uint32_t reason)
{
    assert_true(i < r->n_jobs && !r->is_over[i]);
    r->is_over[i] = true;
    r->jobs[i]->reason = reason;
    rig_tell(r, r->jobs[i], end);
}

/* What a real backend does about cancelled jobs. */
static inline void rig_end_cancelled(struct app_rig *r)
{
    for (uint32_t i = 0; i < r->n_jobs; i++) {
        if (r->is_cancelled[i] && !r->is_over[i]) {
            rig_end(r, i, JOB_CANCELLED, 0);
        }
    }
}

/* The defaults, which a test may change before rig_start. */
static inline void rig_init(struct app_rig *r)
{
    struct error err = ERROR_INIT;
    memset(r, 0, sizeof *r);
    r->state = BACKEND_READY;
    r->error = "";
    r->names[0] = "tiny";
    r->names[1] = "alias";
    r->base = event_base_new();
    assert_ok(tokenizer_bytes(RIG_VOCAB, &r->tokenizer, &err));
    assert_ok(prom_create(&(struct prom_config){.model_name = "tiny",
                                                .total_blocks = 64,
                                                .block_tokens = 16,
                                                .max_model_len = 200,
                                                .max_jobs = RIG_JOBS},
                          &r->prom, &err));
    r->backend = (struct backend){
        .limits = {.max_model_len = 200,
                   .kv_tokens = 1024,
                   .total_blocks = 64,
                   .block_tokens = 16,
                   .max_seqs = 8},
        .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .state = rig_state,
        .submit = rig_submit,
        .cancel = rig_cancel,
        .take = rig_take,
        .waiting = rig_waiting,
        .drain = rig_drain,
        .abort = rig_abort,
        .error = rig_error,
        .self = r,
    };
    static const int32_t eos[] = {RIG_EOS};
    r->config = (struct app_config){.base = r->base,
                                    .backend = &r->backend,
                                    .prom = r->prom,
                                    .tokenizer = r->tokenizer,
                                    .chat_refusal = "the model has no chat template",
                                    .served_names = r->names,
                                    .n_served_names = 2,
                                    .eos_ids = eos,
                                    .n_eos = 1,
                                    .n_vocab = RIG_VOCAB,
                                    .max_queue = 16,
                                    .max_jobs = 24,
                                    .version = "1.2.3",
                                    .default_seed = 7};
}

static inline void rig_start(struct app_rig *r)
{
    struct error err = ERROR_INIT;
    assert_ok(app_create(&r->config, &r->app, &err));
    struct http_server_config config = {
        .base = r->base, .handler = app_handler(r->app), .max_body_bytes = API_MAX_BODY_BYTES};
    assert_ok(http_server_create(&config, &r->server, &err));
}

/* Everything must be over: nothing lives with the backend. */
static inline void rig_stop(struct app_rig *r)
{
    struct error err = ERROR_INIT;
    rig_end_cancelled(r);
    event_base_loop(r->base, EVLOOP_NONBLOCK);
    event_base_loop(r->base, EVLOOP_NONBLOCK);
    assert_int_equal(app_live_jobs(r->app), 0);
    assert_int_equal(r->app->n_exchanges, 0);
    assert_int_equal(r->app->n_logprobs, 0);
    http_server_destroy(r->server);
    assert_ok(app_destroy(r->app, &err));
    close(r->backend.fd);
    prom_destroy(r->prom);
    tokenizer_close(r->tokenizer);
    event_base_free(r->base);
}

/* ---- the client ---- */

struct client {
    struct app_rig *rig;
    int fd;
    char text[1 << 18]; /* all that was received, since the last request */
    size_t len;
    bool closed;
};

static inline void client_open(struct client *c, struct app_rig *r)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(http_server_port(r->server)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    memset(c, 0, sizeof *c);
    c->rig = r;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(c->fd >= 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(fcntl(c->fd, F_SETFL, O_NONBLOCK), 0);
}

static inline void client_close(struct client *c)
{
    close(c->fd);
    c->closed = true;
    for (int i = 0; i < 3; i++) {
        event_base_loop(c->rig->base, EVLOOP_NONBLOCK);
    }
}

/* One turn of the loop, and what has come. */
static inline void client_turn(struct client *c)
{
    event_base_loop(c->rig->base, EVLOOP_NONBLOCK);
    ssize_t n = recv(c->fd, c->text + c->len, sizeof c->text - 1 - c->len, 0);
    if (n > 0) {
        c->len += (size_t)n;
    } else if (n == 0 || errno != EAGAIN) {
        c->closed = true;
    }
    c->text[c->len] = '\0';
}

/* Turns until the text holds `part`, or nothing more can come. */
static inline void client_await(struct client *c, const char *part)
{
    for (int i = 0; i < RIG_TURNS && strstr(c->text, part) == NULL && !c->closed; i++) {
        client_turn(c);
        if (strstr(c->text, part) == NULL) {
            usleep(1000);
        }
    }
    assert_contains(c->text, part);
}

/* Whether a whole answer with a Content-Length is there. */
static inline bool client_is_answered(const struct client *c)
{
    const char *end = strstr(c->text, "\r\n\r\n");
    const char *length = strstr(c->text, "Content-Length: ");
    return end != NULL && length != NULL && length < end &&
           c->len >= (size_t)(end + 4 - c->text) + strtoul(length + 16, NULL, 10);
}

static inline void client_send(struct client *c, const char *method, const char *path,
                               const char *headers, const char *body)
{
    struct strbuf b = {0};
    strbuf_printf(&b, "%s %s HTTP/1.1\r\nHost: a\r\n%s", method, path, headers);
    if (body != NULL) {
        strbuf_printf(&b, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                      strlen(body));
    }
    strbuf_printf(&b, "\r\n%s", body != NULL ? body : "");
    c->len = 0;
    c->text[0] = '\0';
    for (size_t at = 0; at < b.len;) {
        ssize_t n = send(c->fd, b.data + at, b.len - at, MSG_NOSIGNAL);
        at += n > 0 ? (size_t)n : 0;
        event_base_loop(c->rig->base, EVLOOP_NONBLOCK);
    }
    strbuf_deinit(&b);
}

/* Sends a body and lets the app work on it. */
static inline void client_post(struct client *c, const char *path, const char *body)
{
    uint32_t before = c->rig->n_jobs;
    client_send(c, "POST", path, "", body);
    for (int i = 0; i < RIG_TURNS && c->rig->n_jobs == before && !client_is_answered(c); i++) {
        client_turn(c);
        usleep(100);
    }
}

static inline void client_await_answer(struct client *c)
{
    for (int i = 0; i < RIG_TURNS && !client_is_answered(c) && !c->closed; i++) {
        client_turn(c);
        usleep(100);
    }
    if (!client_is_answered(c)) {
        fail_msg("no answer, but: %s", c->text);
    }
}

/* The body of an answer, or what has come of a stream. */
static inline const char *client_body(const struct client *c)
{
    const char *end = strstr(c->text, "\r\n\r\n");
    assert_non_null(end);
    return end + 4;
}

static inline int client_status(const struct client *c)
{
    return c->len > 12 ? atoi(c->text + 9) : 0;
}

#define assert_answer(c, status, part)                                                             \
    do {                                                                                           \
        client_await_answer(c);                                                                    \
        if (client_status(c) != (status) || strstr((c)->text, (part)) == NULL) {                   \
            fail_msg("expected %d with \"%s\", got: %s", (status), (part), (c)->text);             \
        }                                                                                          \
    } while (0)

/* How often `part` stands in the text. */
static inline int client_count(const struct client *c, const char *part)
{
    int n = 0;
    for (const char *at = c->text; (at = strstr(at, part)) != NULL; at += strlen(part)) {
        n++;
    }
    return n;
}

static inline void give_logprobs(struct job *job)
{
    const struct request *q = &job->request;
    struct logprob_store *s = q->logprobs;
    assert_non_null(s);
    assert_int_equal(s->n_top, 1);
    for (uint32_t i = 0; i < q->prompt_tokens + q->max_new_tokens; i++) {
        int32_t id = i < q->prompt_tokens ? q->prompt[i] : 'A' + (int32_t)(i - q->prompt_tokens);
        s->chosen[i] = (struct token_prob){.id = id, .logprob = i == 0 ? NAN : -(float)i};
        s->top[i] = (struct token_prob){.id = '.', .logprob = -0.5F};
    }
}

#endif
