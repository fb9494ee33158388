/*
 * remote_find.c - before a bench begins: does each row's server answer, what does it serve, and
 * which fields does it take?
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "bench/bench_int.h"
#include "load/closed_loop.h"

/* A server that closes a kept connection behind an answer does so at once. */
#define CLOSES_WITHIN_NS (100 * NS_PER_MS)

bool bench_has_local(const struct bench *b)
{
    for (uint32_t i = 0; i < b->options.n_specs; i++) {
        if (!scheduler_spec_is_remote(&b->options.specs[i])) {
            return true;
        }
    }
    return false;
}

enum status bench_open_rows(struct bench *b, struct error *err)
{
    const struct bench_options *o = &b->options;
    b->rows = mem_alloc(o->n_specs, sizeof *b->rows);
    if (b->rows == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the rows");
    }
    for (uint32_t i = 0; i < o->n_specs; i++) {
        const struct scheduler_spec *spec = &o->specs[i];
        struct remote_row *row = &b->rows[i];
        if (!scheduler_spec_is_remote(spec)) {
            continue;
        }
        row->config = (struct remote_config){
            .connections = 1,
            .api_key = o->remote.api_key,
            .ca_file = o->remote.ca_file,
            .request_timeout_ns = o->remote.request_timeout_ns,
        };
        const char *text = spec->endpoint[0] != '\0' ? spec->endpoint : o->remote.endpoint;
        enum status s = remote_url_parse(text, &row->config.url, err);
        if (s != STATUS_OK) {
            error_prefix(err, "%s: endpoint", spec->label);
            return s;
        }
    }
    return STATUS_OK;
}

/* One small request, as the run will send them. OK: *answer says how it went. */
static enum status try_request(const struct bench *b, struct remote_row *row,
                               struct remote_answer *answer, struct error *err)
{
    const struct bench_options *o = &b->options;
    struct request request = {
        .max_new_tokens = 1,
        .deadline_ns = TIME_NEVER,
        .sampling = o->sampling,
        .ignore_eos = o->ignore_eos,
    };
    struct strbuf body = {0};
    remote_body(row, &request, b->prompts.items[0].text, b->prompts.items[0].len, &body);
    struct remote_call call = {.body = strbuf_text(&body), .body_len = body.len};
    struct closed_loop loop;
    closed_loop_init(&loop, &request, 1, 1);
    struct source source = closed_loop_source(&loop);
    struct remote_run run = {.source = &source, .calls = &call, .answers = answer, .n = 1};
    struct remote *client = NULL;
    enum status s = body.failed ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for a request")
                                : remote_create(&row->config, &client, err);
    if (s == STATUS_OK) {
        s = remote_connect(client, err);
    }
    if (s == STATUS_OK) {
        s = remote_run(client, &run, err);
    }
    if (s == STATUS_OK && answer->fault == REMOTE_FAULT_NONE) {
        row->config.one_answer_each = !remote_keeps_connections(client, CLOSES_WITHIN_NS);
    }
    remote_destroy(client);
    strbuf_deinit(&body);
    return s;
}

/* Drops the fields that the server refuses, one refusal after the other. Errors: USAGE with what
 * the server said where no request of ours is taken; UNREACHABLE. */
static enum status probe(const struct bench *b, struct remote_row *row, struct error *err)
{
    for (;;) {
        struct remote_answer answer = {0};
        enum status s = try_request(b, row, &answer, err);
        bool is_refused = answer.http_status == 400 || answer.http_status == 422;
        unsigned named = is_refused ? remote_fields_named(answer.error) & ~row->refused : 0;
        if (s == STATUS_OK && answer.fault != REMOTE_FAULT_NONE && named == 0) {
            /* What is in the request, and the key, are the user's; the rest is the server's. */
            bool ours =
                answer.http_status >= 400 && answer.http_status < 500 && answer.http_status != 429;
            s = error_set(err, ours ? STATUS_USAGE : STATUS_UNREACHABLE, -1,
                          "a first request failed: %.300s", answer.error);
        }
        bool done = s != STATUS_OK || answer.fault == REMOTE_FAULT_NONE;
        remote_answer_deinit(&answer);
        if (done) {
            return s;
        }
        row->refused |= named;
    }
}

static enum status set_facts(struct bench *b, uint32_t spec, const char *state, const char *why,
                             struct error *err)
{
    const struct remote_row *row = &b->rows[spec];
    const struct remote_identity *id = &row->identity;
    struct strbuf endpoint = {0};
    struct strbuf refused = {0};
    char dtype[64] = "";
    remote_url_print(&row->config.url, row->config.url.path, &endpoint);
    remote_fields_print(row->refused, &refused);
    if (!remote_dtype(id->cache_config, dtype, sizeof dtype)) {
        dtype[0] = '\0';
    }
    struct server_facts facts = {
        .scheduler = mem_strdup(b->options.specs[spec].label),
        .endpoint = mem_strdup(strbuf_text(&endpoint)),
        .state = mem_strdup(state),
        .why = mem_strdup(why),
        .model = mem_strdup(id->model),
        .version = mem_strdup(id->version),
        .dtype = mem_strdup(dtype),
        .cache_config = mem_strdup(id->cache_config),
        .max_model_len = id->max_model_len != 0 ? id->max_model_len : COUNT_UNKNOWN,
        .refused_fields = mem_strdup(strbuf_text(&refused)),
    };
    bool failed = endpoint.failed || refused.failed || facts.scheduler == NULL ||
                  facts.endpoint == NULL || facts.state == NULL || facts.why == NULL ||
                  facts.model == NULL || facts.version == NULL || facts.dtype == NULL ||
                  facts.cache_config == NULL || facts.refused_fields == NULL;
    strbuf_deinit(&endpoint);
    strbuf_deinit(&refused);
    enum status s = failed ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for a server's facts")
                           : results_set_server(&b->results, &facts, err);
    server_facts_deinit(&facts);
    return s;
}

enum status bench_lose_server(struct bench *b, uint32_t spec, const char *why, struct error *err)
{
    enum status s = set_facts(b, spec, SERVER_LOST, why, err);
    return s == STATUS_OK ? bench_note_servers(b, err) : s;
}

enum status bench_note_servers(struct bench *b, struct error *err)
{
    enum status s = STATUS_OK;
    for (size_t i = 0; i < b->results.n_servers && s == STATUS_OK; i++) {
        s = journal_append_server(&b->journal, &b->results.servers[i], err);
    }
    return s;
}

bool bench_has_runs(const struct bench *b, uint32_t spec)
{
    for (size_t i = 0; i < b->results.n_runs; i++) {
        if (strcmp(b->results.runs[i].scheduler, b->options.specs[spec].label) == 0) {
            return true;
        }
    }
    return false;
}

/* A row that is continued must find the model with which it was begun. */
static enum status check_resumed(const struct bench *b, uint32_t spec, struct error *err)
{
    const char *label = b->options.specs[spec].label;
    for (size_t i = 0; i < b->results.n_runs; i++) {
        const struct run *run = &b->results.runs[i];
        if (strcmp(run->scheduler, label) == 0 &&
            strcmp(run->remote.served_model, b->rows[spec].identity.model) != 0) {
            return error_set(err, STATUS_USAGE, -1,
                             "--resume: %s serves %.100s now, and %.100s in the finished runs; "
                             "leave --resume out",
                             label, b->rows[spec].identity.model, run->remote.served_model);
        }
    }
    return STATUS_OK;
}

static bool has_cells_left(const struct bench *b, uint32_t spec)
{
    for (uint32_t i = 0; i < b->n_cells; i++) {
        if (b->cells[i].spec == spec && !bench_is_finished(b, &b->cells[i])) {
            return true;
        }
    }
    return false;
}

/* Errors: those that no other row's results could make up for. */
static enum status find_one(struct bench *b, uint32_t spec, struct error *err)
{
    struct remote_row *row = &b->rows[spec];
    const char *label = b->options.specs[spec].label;
    struct error why = ERROR_INIT;
    enum status s =
        remote_identify(&row->config, b->options.remote.served_model, &row->identity, &why);
    row->is_known = s == STATUS_OK;
    if (s == STATUS_OK && row->identity.n_models > 1 && b->options.remote.served_model == NULL) {
        log_info("%s serves %u models; %s is measured, --served-model takes another", label,
                 row->identity.n_models, row->identity.model);
    }
    if (s == STATUS_OK && !b->options.dry_run) {
        s = probe(b, row, &why);
    }
    if (s == STATUS_OK && row->config.one_answer_each) {
        log_info("%s closes its connection after an answer; each request opens its own, and that "
                 "time is the request's",
                 label);
    }
    if (s == STATUS_UNREACHABLE) {
        row->is_away = true;
        return set_facts(b, spec, bench_has_runs(b, spec) ? SERVER_LOST : SERVER_UNREACHABLE,
                         why.message, err);
    }
    if (s != STATUS_OK) {
        error_prefix(&why, "%s", label);
        *err = why;
        return s;
    }
    s = check_resumed(b, spec, err);
    return s == STATUS_OK ? set_facts(b, spec, SERVER_OK, "", err) : s;
}

/* Why no ratio is drawn between a server and `other` (a model and its arithmetic); "": it may be.
 */
static void compare_model(const struct server_facts *f, const char *model, const char *dtype,
                          char *why, size_t size)
{
    why[0] = '\0';
    if (!remote_same_model(f->model, model)) {
        snprintf(why, size, "it serves %.80s, the others run %.80s", f->model, model);
    } else if (f->dtype[0] != '\0' && dtype[0] != '\0' && strcmp(f->dtype, dtype) != 0) {
        snprintf(why, size, "it computes in %.40s, the others in %.40s", f->dtype, dtype);
    }
}

/* Against what runs in process, or else against the first server. Facts of rows that are finished
 * come from the journal. */
static void compare_models(struct bench *b)
{
    const char *model = bench_has_local(b) ? b->options.model.model : NULL;
    const char *dtype = tensor_dtype_name(b->options.model.dtype);
    for (uint32_t i = 0; i < b->options.n_specs; i++) {
        struct remote_row *row = &b->rows[i];
        const struct server_facts *f = results_server(&b->results, b->options.specs[i].label);
        if (f == NULL || f->model[0] == '\0') {
            continue;
        }
        if (model == NULL) {
            model = f->model;
            dtype = f->dtype;
        }
        row->is_ours = remote_same_model(f->model, b->options.model.model);
        compare_model(f, model, dtype, row->incomparable, sizeof row->incomparable);
    }
}

#define HOW_TO_START                                                                               \
    "start one with scheduler/start_server.sh or `llmsched serve`, or say where it is with "       \
    "--endpoint"

static void warn_of_away(const struct bench *b)
{
    for (uint32_t i = 0; i < b->options.n_specs; i++) {
        const char *label = b->options.specs[i].label;
        const struct server_facts *facts = results_server(&b->results, label);
        if (b->rows[i].is_away) {
            log_warn("%s is unreachable and not measured now: %s; " HOW_TO_START, label,
                     facts->why);
        } else if (facts != NULL && facts->refused_fields[0] != '\0') {
            log_warn("%s: the server refuses %s; its requests go without", label,
                     facts->refused_fields);
        }
        if (b->rows[i].incomparable[0] != '\0') {
            log_warn("%s: %s: no ratios against it", label, b->rows[i].incomparable);
        }
    }
}

enum status bench_find_servers(struct bench *b, struct error *err)
{
    uint32_t away = 0;
    bool any_left = bench_has_local(b);
    for (uint32_t i = 0; i < b->options.n_specs; i++) {
        if (!scheduler_spec_is_remote(&b->options.specs[i])) {
            continue;
        }
        if (!has_cells_left(b, i)) {
            any_left = true; /* all its runs are in the journal */
            continue;
        }
        enum status s = find_one(b, i, err);
        if (s != STATUS_OK) {
            return s;
        }
        any_left = any_left || !b->rows[i].is_away;
        away = b->rows[i].is_away ? i : away;
    }
    compare_models(b);
    if (!any_left && !b->options.dry_run) {
        const char *label = b->options.specs[away].label;
        const struct server_facts *facts = results_server(&b->results, label);
        assert(facts != NULL); /* every row was asked, and none answered */
        return error_set(err, STATUS_UNREACHABLE, -1, "%s is unreachable: %s; " HOW_TO_START, label,
                         facts->why);
    }
    if (!b->options.dry_run) {
        warn_of_away(b);
    }
    return STATUS_OK;
}
