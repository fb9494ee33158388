/*
 * remote_cell.c - one row over HTTP, one size, one run: as cell.c, with a server in the place of
 * engine and model. The same workload from the same source; what the client saw becomes records,
 * and the same summary is made of them.
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "bench/bench_int.h"
#include "load/closed_loop.h"
#include "metrics/stats.h"

/* A workload as bodies, and its answers. */
struct exchange {
    struct workload w;
    struct strbuf bodies; /* end to end */
    struct remote_call *calls;
    struct remote_answer *answers;
};

static void exchange_deinit(struct exchange *x)
{
    for (uint32_t i = 0; x->answers != NULL && i < x->w.n; i++) {
        remote_answer_deinit(&x->answers[i]);
    }
    mem_free(x->answers);
    mem_free(x->calls);
    strbuf_deinit(&x->bodies);
    workload_deinit(&x->w);
}

static enum status exchange_init(const struct bench *b, const struct cell *cell, bool warmup,
                                 struct exchange *x, struct error *err)
{
    const struct remote_row *row = &b->rows[cell->spec];
    enum status s = bench_make_workload(b, cell, warmup, &x->w, err);
    if (s != STATUS_OK) {
        return s;
    }
    x->calls = mem_alloc(x->w.n, sizeof *x->calls);
    x->answers = mem_alloc(x->w.n, sizeof *x->answers);
    if (x->calls == NULL || x->answers == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for %u requests", x->w.n);
    }
    bool all_tokens = b->options.ignore_eos && (row->refused & CALL_IGNORE_EOS) == 0;
    for (uint32_t i = 0; i < x->w.n; i++) {
        const struct request *request = &x->w.requests[i];
        const struct prompt *p = &b->prompts.items[x->w.prompt_idx[i]];
        size_t begin = x->bodies.len;
        remote_body(row, request, p->text, p->len, &x->bodies);
        x->calls[i] = (struct remote_call){
            .body_len = x->bodies.len - begin,
            .least_tokens = all_tokens ? request->max_new_tokens : 0,
        };
    }
    if (x->bodies.failed) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for %u requests", x->w.n);
    }
    const char *body = x->bodies.data; /* only now: it moved while it grew */
    for (uint32_t i = 0; i < x->w.n; i++) {
        x->calls[i].body = body;
        body += x->calls[i].body_len;
    }
    return STATUS_OK;
}

struct progress_note {
    struct bench *bench;
    const struct bench_hooks *hooks;
    char what[160];
};

static void on_done(void *self, uint32_t done)
{
    (void)done;
    struct progress_note *p = self;
    p->bench->requests_done++;
    progress_report(p->hooks->progress, p->what, p->bench->requests_done, p->bench->requests_total);
}

static enum status drive(const struct bench *b, struct remote *client, struct exchange *x,
                         struct progress_note *note, struct error *err)
{
    struct closed_loop loop;
    closed_loop_init(&loop, x->w.requests, x->w.n, b->options.max_concurrent);
    struct source source = closed_loop_source(&loop);
    struct remote_run run = {
        .source = &source,
        .calls = x->calls,
        .answers = x->answers,
        .n = x->w.n,
        .stop = note->hooks->stop,
        .on_done = on_done,
        .self = note,
    };
    return remote_run(client, &run, err);
}

/* ---- from answers to records ---- */

/* Tokens of an answer whose server counts none, by our tokenizer of the same model; false: none
 * such is here. */
static bool count_tokens(const struct bench *b, const struct remote_row *row,
                         const struct remote_answer *a, uint32_t *out)
{
    const struct tokenizer *t = b->loaded ? b->model.files.tokenizer : b->files.tokenizer;
    struct token_ids ids = {0};
    bool counted =
        a->token_source == REMOTE_TOKENS_EVENTS && row->is_ours && t != NULL &&
        tokenizer_encode(t, strbuf_text(&a->text), a->text.len, false, &ids, NULL) == STATUS_OK &&
        ids.n >= a->first_tokens && ids.n <= UINT32_MAX;
    if (counted) {
        *out = (uint32_t)ids.n;
    }
    token_ids_deinit(&ids);
    return counted;
}

static struct record record_of(const struct bench *b, const struct exchange *x, uint32_t i,
                               const struct remote_row *row, bool *by_tokenizer)
{
    const struct remote_answer *a = &x->answers[i];
    struct record r = {
        .arrival_ns = a->planned_ns,
        .scheduled_ns = TIME_NEVER,
        .first_deliver_ns = a->first_ns,
        .last_deliver_ns = a->last_ns,
        .end_ns = a->end_ns,
        .input_tokens = a->prompt_tokens,
        .output_tokens = a->output_tokens,
        .first_tokens = a->first_tokens,
        .status = a->fault == REMOTE_FAULT_NONE        ? RECORD_OK
                  : a->fault == REMOTE_FAULT_CANCELLED ? RECORD_CANCELLED
                                                       : RECORD_FAILED,
    };
    *by_tokenizer = count_tokens(b, row, a, &r.output_tokens);
    if (r.input_tokens == 0 && row->is_ours) {
        r.input_tokens = x->w.requests[i].prompt_tokens;
    }
    return r;
}

static void take_totals(const struct record *r, struct run_totals *t)
{
    assert(r->end_ns != TIME_NEVER); /* every request that was sent ended: ok or with a fault */
    t->first_send_ns = r->arrival_ns < t->first_send_ns ? r->arrival_ns : t->first_send_ns;
    t->last_end_ns = r->end_ns > t->last_end_ns ? r->end_ns : t->last_end_ns;
}

static enum status fill_row(const struct bench *b, const struct exchange *x, uint32_t i,
                            const struct record *r, uint64_t first_send_ns, struct request_row *row,
                            struct error *err)
{
    const struct remote_answer *a = &x->answers[i];
    const struct prompt *p = &b->prompts.items[x->w.prompt_idx[i]];
    *row = (struct request_row){.request_id = i};
    request_row_from_record(r, first_send_ns, row);
    row->input_tokens = r->input_tokens != 0 ? r->input_tokens : COUNT_UNKNOWN;
    row->batch_size = COUNT_UNKNOWN;
    row->preemptions = COUNT_UNKNOWN;
    row->http_status = a->http_status != 0 ? a->http_status : COUNT_UNKNOWN;
    row->longest_gap_s = a->n_events > 1 ? monotime_seconds(a->longest_gap_ns) : (double)NAN;
    struct strbuf text = {0};
    strbuf_append(&text, strbuf_text(&a->text), a->text.len);
    bench_replace_nul(&text);
    row->prompt = mem_strndup(p->text, p->len);
    row->generated_text = mem_strndup(strbuf_text(&text), text.len);
    row->error = mem_strdup(a->error);
    bool failed =
        text.failed || row->prompt == NULL || row->generated_text == NULL || row->error == NULL;
    strbuf_deinit(&text);
    return failed ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the results") : STATUS_OK;
}

/* ---- what the client saw beside the requests ---- */

/* How tokens were counted, best first. */
enum counted_by { BY_USAGE, BY_IDS, BY_TOKENIZER, BY_EVENTS, BY_NOTHING };

struct tally {
    uint64_t prompt_tokens;
    uint64_t cached_tokens;
    bool has_cached;
    uint64_t output_tokens; /* of answers whose tokens were counted, not guessed by events */
    uint64_t events;        /* of the same */
    enum counted_by counted_by;
    bool any;
    uint64_t faults[REMOTE_FAULT_COUNT];
};

static enum counted_by counted_by(const struct remote_answer *a, bool by_tokenizer)
{
    switch (a->token_source) {
    case REMOTE_TOKENS_USAGE:
        return BY_USAGE;
    case REMOTE_TOKENS_IDS:
        return BY_IDS;
    case REMOTE_TOKENS_EVENTS:
        return by_tokenizer ? BY_TOKENIZER : BY_EVENTS;
    case REMOTE_TOKENS_NONE:
        break;
    }
    return BY_NOTHING;
}

static const char *counted_by_name(enum counted_by by)
{
    switch (by) {
    case BY_USAGE:
        return remote_token_source_name(REMOTE_TOKENS_USAGE);
    case BY_IDS:
        return remote_token_source_name(REMOTE_TOKENS_IDS);
    case BY_TOKENIZER:
        return "tokenizer";
    case BY_EVENTS:
        return remote_token_source_name(REMOTE_TOKENS_EVENTS);
    case BY_NOTHING:
        break;
    }
    return "";
}

static void tally_answer(struct tally *t, const struct remote_answer *a, const struct record *r,
                         bool by_tokenizer)
{
    t->faults[a->fault]++;
    if (a->fault != REMOTE_FAULT_NONE) {
        return;
    }
    enum counted_by by = counted_by(a, by_tokenizer);
    t->counted_by = by > t->counted_by ? by : t->counted_by;
    t->any = true;
    t->prompt_tokens += a->prompt_tokens;
    t->cached_tokens += a->cached_tokens;
    t->has_cached = t->has_cached || a->has_cached_tokens;
    if (by < BY_EVENTS) {
        t->output_tokens += r->output_tokens;
        t->events += a->n_events;
    }
}

static double share(uint64_t part, uint64_t whole)
{
    return whole > 0 ? (double)part / (double)whole : (double)NAN;
}

/* Send - planned, of all that were sent; scratch has room for n. */
static void fill_lag(const struct exchange *x, double *scratch, struct remote_figures *f)
{
    size_t n = 0;
    for (uint32_t i = 0; i < x->w.n; i++) {
        const struct remote_answer *a = &x->answers[i];
        if (a->send_begin_ns != TIME_NEVER) {
            assert(a->send_begin_ns >= a->planned_ns);
            scratch[n++] = monotime_seconds(a->send_begin_ns - a->planned_ns);
        }
    }
    stats_sort(scratch, n);
    f->client_lag_p50_s = stats_quantile_sorted(scratch, n, 0.50);
    f->client_lag_p99_s = stats_quantile_sorted(scratch, n, 0.99);
}

static enum status fill_figures(const struct remote_row *row, const struct tally *t,
                                struct remote_cost cost, struct run *run, struct error *err)
{
    struct remote_figures *f = &run->remote;
    struct strbuf endpoint = {0};
    struct strbuf errors = {0};
    remote_url_print(&row->config.url, row->config.url.path, &endpoint);
    for (enum remote_fault fault = REMOTE_FAULT_NONE + 1; fault < REMOTE_FAULT_COUNT; fault++) {
        if (t->faults[fault] > 0) {
            strbuf_printf(&errors, "%s%s %llu", errors.len > 0 ? ", " : "",
                          remote_fault_name(fault), (unsigned long long)t->faults[fault]);
        }
    }
    f->endpoint = mem_strdup(strbuf_text(&endpoint));
    f->served_model = mem_strdup(row->identity.model);
    f->server_version = mem_strdup(row->identity.version);
    f->token_source = mem_strdup(t->any ? counted_by_name(t->counted_by) : "");
    f->errors = mem_strdup(strbuf_text(&errors));
    run->incomparable = mem_strdup(row->incomparable);
    bool failed = endpoint.failed || errors.failed || f->endpoint == NULL ||
                  f->served_model == NULL || f->server_version == NULL || f->token_source == NULL ||
                  f->errors == NULL || run->incomparable == NULL;
    strbuf_deinit(&endpoint);
    strbuf_deinit(&errors);
    f->server_prompt_tokens = t->prompt_tokens > 0 ? t->prompt_tokens : COUNT_UNKNOWN;
    f->cached_prompt_frac = t->has_cached ? share(t->cached_tokens, t->prompt_tokens) : (double)NAN;
    f->tokens_per_event = share(t->output_tokens, t->events);
    f->client_cpu_frac = share(cost.cpu_ns, cost.wall_ns);
    return failed ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the results") : STATUS_OK;
}

/* Of the median of a metric: beyond it the client measures itself. */
#define MAX_LAG_FRAC 0.05

static enum status judge(struct run *run, bool is_real_time, struct error *err)
{
    const struct {
        const char *name;
        double median;
    } metrics[] = {{"TTFT", run->summary.ttft.p50_s}, {"TPOT", run->summary.tpot.p50_s}};
    char text[200] = "";
    double lag = run->remote.client_lag_p99_s;
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0] && text[0] == '\0'; i++) {
        if (lag > MAX_LAG_FRAC * metrics[i].median) { /* not where one is undefined */
            snprintf(text, sizeof text,
                     "client lag P99 of %.3f ms exceeds %.0f %% of the median %s of %.3f ms%s",
                     lag * 1e3, MAX_LAG_FRAC * 100.0, metrics[i].name, metrics[i].median * 1e3,
                     is_real_time ? "" : " (it may not run at real-time priority)");
        }
    }
    run->invalid = mem_strdup(text);
    return run->invalid != NULL ? STATUS_OK
                                : error_set(err, STATUS_NO_MEMORY, -1, "no memory for a verdict");
}

static enum status fill_run(const struct bench *b, const struct cell *cell,
                            const struct exchange *x, struct remote_cost cost, struct run *run,
                            struct error *err)
{
    const struct remote_row *row = &b->rows[cell->spec];
    struct tally tally = {0};
    struct run_totals totals = {.steps_unknown = true, .first_send_ns = TIME_NEVER};
    struct record *records = mem_alloc(x->w.n, sizeof *records);
    double *scratch = mem_alloc(x->w.n, sizeof *scratch);
    enum status s = bench_name_run(b, cell, run, err);
    run->rows = mem_alloc(x->w.n, sizeof *run->rows);
    if (s == STATUS_OK && (records == NULL || scratch == NULL || run->rows == NULL)) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "no memory for the results");
    }
    for (uint32_t i = 0; i < x->w.n && s == STATUS_OK; i++) {
        bool by_tokenizer;
        records[i] = record_of(b, x, i, row, &by_tokenizer);
        take_totals(&records[i], &totals);
        tally_answer(&tally, &x->answers[i], &records[i], by_tokenizer);
    }
    for (uint32_t i = 0; i < x->w.n && s == STATUS_OK; i++) {
        run->n_rows = i + 1;
        s = fill_row(b, x, i, &records[i], totals.first_send_ns, &run->rows[i], err);
    }
    if (s == STATUS_OK) {
        fill_lag(x, scratch, &run->remote);
        s = summary_from_records(records, x->w.n, &totals, &run->summary, err);
    }
    if (s == STATUS_OK) {
        s = fill_figures(row, &tally, cost, run, err);
    }
    if (s == STATUS_OK) {
        assert(run->summary.successful_requests == tally.faults[REMOTE_FAULT_NONE]);
        s = judge(run, cost.is_real_time, err);
    }
    mem_free(records);
    mem_free(scratch);
    return s;
}

static uint32_t connections(const struct bench_options *o, const struct cell *cell)
{
    uint32_t most = cell->size > o->warmup ? cell->size : o->warmup;
    return o->max_concurrent < most ? o->max_concurrent : most;
}

enum status bench_run_remote_cell(struct bench *b, const struct cell *cell,
                                  const struct bench_hooks *hooks, struct run *run,
                                  struct error *err)
{
    struct progress_note note = {.bench = b, .hooks = hooks};
    snprintf(note.what, sizeof note.what, "bench|%s, %u requests, run %u/%u",
             b->options.specs[cell->spec].label, cell->size, cell->run, b->options.runs);
    struct remote_config config = b->rows[cell->spec].config;
    config.connections = connections(&b->options, cell);
    struct remote *client = NULL;
    struct exchange warm = {0};
    struct exchange x = {0};
    enum status s = remote_create(&config, &client, err);
    if (s == STATUS_OK) {
        s = exchange_init(b, cell, false, &x, err);
    }
    if (s == STATUS_OK && b->options.warmup > 0) {
        s = exchange_init(b, cell, true, &warm, err);
    }
    if (s == STATUS_OK) {
        s = remote_connect(client, err);
    }
    if (s == STATUS_OK && b->options.warmup > 0) {
        s = drive(b, client, &warm, &note, err);
    }
    if (s == STATUS_OK) {
        s = drive(b, client, &x, &note, err);
    }
    if (s == STATUS_OK) {
        s = fill_run(b, cell, &x, remote_cost_of(client), run, err);
    }
    if (s != STATUS_OK) {
        run_deinit(run);
    }
    exchange_deinit(&warm);
    exchange_deinit(&x);
    remote_destroy(client);
    return s;
}
