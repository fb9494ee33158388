/* selftest_client.c - see selftest_client.h: the run and its evaluation. The child process is in
 * selftest_server.c, what is printed in selftest_text.c. */
#include "bench/selftest_client.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/monotime.h"
#include "bench/selftest_int.h"
#include "load/open_loop.h"
#include "metrics/stats.h"
#include "net/remote.h"

#define TTFT_NS      (50 * NS_PER_MS)
#define SPREAD_NS    NS_PER_S /* the first sends */
#define STAMPS_LIMIT ((size_t)4 << 30)

struct test {
    const struct selftest_config *config;
    uint32_t tokens;
    uint64_t tpot_ns;
    struct request *requests;
    struct remote_call *calls;
    struct remote_answer *answers;
    struct arena texts; /* bodies and ids */
    uint64_t *due;
    uint64_t *written;
    double *errors; /* scratch: one value per token */
};

static enum status no_memory(const struct test *t, struct error *err)
{
    return error_set(err, STATUS_NO_MEMORY, -1, "no memory for %u streams of %u tokens",
                     t->config->streams, t->tokens);
}

static enum status prepare(struct test *t, struct error *err)
{
    uint32_t n = t->config->streams;
    size_t all = (size_t)n * t->tokens;
    t->requests = mem_alloc(n, sizeof *t->requests);
    t->calls = mem_alloc(n, sizeof *t->calls);
    t->answers = mem_alloc(n, sizeof *t->answers);
    t->due = mem_alloc(all, sizeof *t->due);
    t->written = mem_alloc(all, sizeof *t->written);
    t->errors = mem_alloc(all, sizeof *t->errors);
    if (t->requests == NULL || t->calls == NULL || t->answers == NULL || t->due == NULL ||
        t->written == NULL || t->errors == NULL) {
        return no_memory(t, err);
    }
    for (uint32_t i = 0; i < n; i++) {
        char body[256];
        int len = snprintf(body, sizeof body,
                           "{\"prompt\":\"selftest\",\"max_tokens\":%u,\"ignore_eos\":true,"
                           "\"seed\":%u,\"stream\":true,"
                           "\"stream_options\":{\"include_usage\":true}}",
                           t->tokens, i);
        char id[16];
        int id_len = snprintf(id, sizeof id, "%u", i);
        t->calls[i] =
            (struct remote_call){.body = arena_strndup(&t->texts, body, (size_t)len),
                                 .body_len = (size_t)len,
                                 .request_id = arena_strndup(&t->texts, id, (size_t)id_len),
                                 .least_tokens = t->tokens};
        t->requests[i] = (struct request){.id = i, .max_new_tokens = t->tokens};
        if (t->calls[i].body == NULL || t->calls[i].request_id == NULL) {
            return no_memory(t, err);
        }
    }
    return STATUS_OK;
}

/* First sends spread over a second, so that the server is not flooded; and by an n-th of the token
 * interval more each, so that the streams' tokens are spread evenly over the interval too. */
static void plan(struct test *t, uint64_t begin_ns)
{
    uint32_t n = t->config->streams;
    for (uint32_t i = 0; i < n; i++) {
        t->requests[i].arrival_ns =
            begin_ns + (uint64_t)i * (SPREAD_NS / n) + (uint64_t)i * t->tpot_ns / n;
    }
}

static void deinit(struct test *t)
{
    for (uint32_t i = 0; t->answers != NULL && i < t->config->streams; i++) {
        remote_answer_deinit(&t->answers[i]);
    }
    arena_deinit(&t->texts);
    mem_free(t->requests);
    mem_free(t->calls);
    mem_free(t->answers);
    mem_free(t->due);
    mem_free(t->written);
    mem_free(t->errors);
}

/* ---------------------------------------------------------------- the stamps */

/* A decimal number at *p, then `end`; moves *p behind it. */
static bool take_number(const char **p, const char *limit, char end, uint64_t *out)
{
    uint64_t value = 0;
    const char *begin = *p;
    while (*p < limit && **p >= '0' && **p <= '9') {
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(**p - '0'), &value)) {
            return false;
        }
        (*p)++;
    }
    if (*p == begin || *p == limit || **p != end) {
        return false;
    }
    (*p)++;
    *out = value;
    return true;
}

enum status selftest_parse_stamps(const char *text, size_t len, uint32_t streams, uint32_t tokens,
                                  uint64_t *due, uint64_t *written, struct error *err)
{
    static const char head[] = "request_id,token,due_ns,written_ns\n";
    const char *p = text;
    const char *limit = text + len;
    if (len < sizeof head - 1 || memcmp(text, head, sizeof head - 1) != 0) {
        return error_set(err, STATUS_BAD_DATA, 0, "stamps: line 1 is not \"%.34s\"", head);
    }
    p += sizeof head - 1;
    memset(written, 0, (size_t)streams * tokens * sizeof *written);
    uint64_t seen = 0;
    for (uint64_t line = 2; p < limit; line++) {
        uint64_t id;
        uint64_t token;
        uint64_t due_ns;
        uint64_t written_ns;
        if (!take_number(&p, limit, ',', &id) || !take_number(&p, limit, ',', &token) ||
            !take_number(&p, limit, ',', &due_ns) || !take_number(&p, limit, '\n', &written_ns) ||
            written_ns == 0) {
            return error_set(err, STATUS_BAD_DATA, p - text,
                             "stamps: line %" PRIu64 " is not four numbers", line);
        }
        if (id >= streams || token >= tokens || written[id * tokens + token] != 0) {
            return error_set(err, STATUS_BAD_DATA, p - text,
                             "stamps: line %" PRIu64 ": token %" PRIu64 " of request %" PRIu64
                             " was not asked for, or stands twice",
                             line, token, id);
        }
        due[id * tokens + token] = due_ns;
        written[id * tokens + token] = written_ns;
        seen++;
    }
    if (seen != (uint64_t)streams * tokens) {
        return error_set(err, STATUS_BAD_DATA, -1,
                         "stamps: %" PRIu64 " tokens, %" PRIu64 " were asked for", seen,
                         (uint64_t)streams * tokens);
    }
    return STATUS_OK;
}

/* ---------------------------------------------------------------- evaluation */

static double signed_s(uint64_t a, uint64_t b)
{
    return a >= b ? monotime_seconds(a - b) : -monotime_seconds(b - a);
}

/* values: signed; they are made absolute and sorted. */
static struct selftest_error summarise(double *values, size_t n)
{
    double bias = stats_mean(values, n);
    for (size_t i = 0; i < n; i++) {
        values[i] = fabs(values[i]);
    }
    stats_sort(values, n);
    return (struct selftest_error){.p50 = stats_quantile_sorted(values, n, 0.50),
                                   .p95 = stats_quantile_sorted(values, n, 0.95),
                                   .p99 = stats_quantile_sorted(values, n, 0.99),
                                   .max = stats_quantile_sorted(values, n, 1.0),
                                   .bias = bias};
}

/* Streams with as many events as tokens: each event's stamp has its counterpart. */
static bool is_complete(const struct test *t, uint32_t i)
{
    const struct remote_answer *a = &t->answers[i];
    return a->fault == REMOTE_FAULT_NONE && a->n_events == t->tokens;
}

static void evaluate_itl(struct test *t, struct selftest_result *r)
{
    size_t n = 0;
    size_t nagle = 0;
    for (uint32_t i = 0; i < r->streams; i++) {
        const struct remote_event *events = t->answers[i].events;
        const uint64_t *written = t->written + (size_t)i * t->tokens;
        for (uint32_t k = 1; is_complete(t, i) && k < t->tokens; k++) {
            double error = signed_s(events[k].time_ns, events[k - 1].time_ns) -
                           signed_s(written[k], written[k - 1]);
            double size = fabs(error);
            nagle += size >= SELFTEST_NAGLE_FROM_S && size <= SELFTEST_NAGLE_TO_S;
            t->errors[n++] = error;
        }
    }
    r->itl = summarise(t->errors, n);
    r->nagle_frac = n > 0 ? (double)nagle / (double)n : (double)NAN;
}

/* Over all tokens: how late the server was, and how long an event was under way. */
static void evaluate_delays(struct test *t, struct selftest_result *r)
{
    size_t n = 0;
    for (uint32_t i = 0; i < r->streams; i++) {
        for (uint32_t k = 0; is_complete(t, i) && k < t->tokens; k++) {
            size_t at = (size_t)i * t->tokens + k;
            t->errors[n++] = signed_s(t->written[at], t->due[at]);
        }
    }
    r->late = summarise(t->errors, n);
    n = 0;
    for (uint32_t i = 0; i < r->streams; i++) {
        for (uint32_t k = 0; is_complete(t, i) && k < t->tokens; k++) {
            size_t at = (size_t)i * t->tokens + k;
            t->errors[n++] = signed_s(t->answers[i].events[k].time_ns, t->written[at]);
        }
    }
    r->delay = summarise(t->errors, n);
}

static void evaluate_first(struct test *t, struct selftest_result *r)
{
    size_t n = 0;
    for (uint32_t i = 0; i < r->streams; i++) {
        const struct remote_answer *a = &t->answers[i];
        if (is_complete(t, i)) {
            size_t at = (size_t)i * t->tokens;
            uint64_t known_ns = t->due[at] - TTFT_NS; /* the instant the server knew of it */
            t->errors[n++] =
                signed_s(a->first_ns, a->send_begin_ns) - signed_s(t->written[at], known_ns);
        }
    }
    r->ttft = summarise(t->errors, n);
    n = 0;
    for (uint32_t i = 0; i < r->streams; i++) {
        const struct remote_answer *a = &t->answers[i];
        if (is_complete(t, i)) {
            t->errors[n++] = signed_s(a->send_begin_ns, a->planned_ns);
        }
    }
    r->send_lag_p99_s = summarise(t->errors, n).p99;
}

static void count_streams(const struct test *t, struct selftest_result *r)
{
    for (uint32_t i = 0; i < r->streams; i++) {
        const struct remote_answer *a = &t->answers[i];
        r->coalesced_streams += a->coalesced;
        if (is_complete(t, i)) {
            continue;
        }
        if (r->failed++ == 0) {
            snprintf(r->first_failure, sizeof r->first_failure, "stream %u: %s (%u of %u events)",
                     i, a->fault != REMOTE_FAULT_NONE ? a->error : "events are missing",
                     a->n_events, t->tokens);
        }
    }
}

static void evaluate(struct test *t, const struct remote_cost *cost, struct selftest_result *r)
{
    count_streams(t, r);
    evaluate_itl(t, r);
    evaluate_delays(t, r);
    evaluate_first(t, r);
    r->events = cost->events;
    r->wall_s = monotime_seconds(cost->wall_ns);
    r->cpu_s = monotime_seconds(cost->cpu_ns);
    r->cpu_us_per_event = cost->events > 0 ? 1e6 * r->cpu_s / (double)cost->events : (double)NAN;
    /* "!(a <= b)": an undefined figure makes the run void, too. */
    r->is_void = r->failed > 0 || !(r->late.p99 <= SELFTEST_MAX_LATE_S);
}

/* ---------------------------------------------------------------- the run */

static enum status measure(struct test *t, uint16_t port, struct remote_cost *cost,
                           struct error *err)
{
    struct remote_config config = {
        .url = {.host = "127.0.0.1", .port = port, .path = "/v1/completions"},
        .connections = t->config->streams,
        .request_timeout_ns = monotime_from_seconds(t->config->seconds + 60.0),
        .keep_events = true,
    };
    struct remote *remote;
    enum status s = remote_create(&config, &remote, err);
    if (s != STATUS_OK) {
        return s;
    }
    s = remote_connect(remote, err);
    if (s == STATUS_OK) {
        plan(t, monotime_now_ns() + NS_PER_S / 5);
        struct open_loop loop;
        open_loop_init(&loop, t->requests, t->config->streams);
        struct source source = open_loop_source(&loop);
        struct remote_run run = {.source = &source,
                                 .calls = t->calls,
                                 .answers = t->answers,
                                 .n = t->config->streams,
                                 .stop = t->config->stop};
        s = remote_run(remote, &run, err);
        *cost = remote_cost_of(remote);
    }
    remote_destroy(remote);
    return s;
}

static enum status read_stamps(struct test *t, const char *path, struct error *err)
{
    char *text;
    size_t len;
    enum status s = fs_read_file(path, STAMPS_LIMIT, &text, &len, err);
    if (s == STATUS_OK) {
        s = selftest_parse_stamps(text, len, t->config->streams, t->tokens, t->due, t->written,
                                  err);
        mem_free(text);
    }
    return s;
}

enum status selftest_client_run(const struct selftest_config *config, struct selftest_result *out,
                                struct error *err)
{
    double tokens = floor((double)config->tokens_per_s * config->seconds);
    if (config->streams < 1 || config->streams > SELFTEST_MAX_STREAMS || !(tokens >= 2) ||
        tokens * config->streams > (double)SELFTEST_MAX_TOKENS) {
        return error_set(err, STATUS_USAGE, -1,
                         "%u streams of %.0f tokens: take 1 to %d streams, at least 2 tokens each, "
                         "at most %llu in all",
                         config->streams, tokens, SELFTEST_MAX_STREAMS, SELFTEST_MAX_TOKENS);
    }
    struct test t = {
        .config = config, .tokens = (uint32_t)tokens, .tpot_ns = NS_PER_S / config->tokens_per_s};
    struct selftest_result r = {
        .streams = config->streams, .tokens_per_s = config->tokens_per_s, .tokens_each = t.tokens};
    struct selftest_server server = SELFTEST_SERVER_INIT;
    struct remote_cost cost = {0};
    enum status s = prepare(&t, err);
    if (s == STATUS_OK) {
        s = selftest_server_start(&server, config, TTFT_NS, t.tpot_ns, err);
    }
    if (s == STATUS_OK) {
        s = measure(&t, server.port, &cost, err);
    }
    if (s == STATUS_OK) {
        s = selftest_server_end(&server, err);
    }
    if (s == STATUS_OK) {
        s = read_stamps(&t, server.stamps_path, err);
    }
    if (s == STATUS_OK) {
        r.client_core = server.client_core;
        r.server_core = server.server_core;
        r.is_real_time = cost.is_real_time;
        evaluate(&t, &cost, &r);
        *out = r;
    }
    selftest_server_deinit(&server);
    deinit(&t);
    return s;
}
