/* execute.c - the matrix, cell by cell, and its files. See bench.h. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "bench/bench_int.h"
#include "bench/environment.h"
#include "report/text.h"

/* Of the first server that answers. */
static const struct remote_row *first_server(const struct bench *b)
{
    for (uint32_t i = 0; i < b->options.n_specs; i++) {
        if (b->rows[i].is_known && !b->rows[i].is_away) {
            return &b->rows[i];
        }
    }
    return NULL;
}

/* With servers alone the model is theirs. */
static enum status describe_served(const struct bench *b, struct model_identity *out,
                                   struct error *err)
{
    const struct remote_row *row = first_server(b);
    char dtype[64] = "";
    if (row == NULL || !remote_dtype(row->identity.cache_config, dtype, sizeof dtype)) {
        dtype[0] = '\0';
    }
    /* None: all runs are in the journal, and say it themselves. */
    const char *name = row != NULL             ? row->identity.model
                       : b->results.n_runs > 0 ? b->results.runs[0].remote.served_model
                                               : "";
    *out = (struct model_identity){.name = mem_strdup(name),
                                   .format = mem_strdup("server"),
                                   .dtype = mem_strdup(dtype),
                                   .kv_dtype = mem_strdup("")};
    if (out->name == NULL || out->format == NULL || out->dtype == NULL || out->kv_dtype == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the model's identity");
    }
    return STATUS_OK;
}

static enum status describe_model(const struct bench *b, struct model_identity *out,
                                  struct error *err)
{
    if (!b->loaded) {
        return describe_served(b, out, err);
    }
    const struct loaded_model *m = &b->model;
    *out = (struct model_identity){
        .name = mem_strdup(m->name),
        .path = mem_strdup(m->files.path != NULL ? m->files.path : ""),
        .architecture = mem_strdup(m->files.config.arch->name),
        .format = mem_strdup(m->format),
        .dtype = mem_strdup(tensor_dtype_name(b->options.model.dtype)),
        .kv_dtype = mem_strdup(tensor_dtype_name(b->options.model.kv_dtype)),
        .tokenizer = mem_strdup(m->tokenizer_text),
        .parameters = config_parameter_count(&m->files.config),
        .random_weights = b->options.model.random_weights,
    };
    if (out->name == NULL || out->path == NULL || out->architecture == NULL ||
        out->format == NULL || out->dtype == NULL || out->kv_dtype == NULL ||
        out->tokenizer == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the model's identity");
    }
    return STATUS_OK;
}

static bool is_away(const struct bench *b, const struct cell *c)
{
    return b->rows[c->spec].is_away;
}

/* A server that never answered is none of the plan; one that did once is. */
static uint64_t planned_cells(const struct bench *b)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < b->n_cells; i++) {
        n += !is_away(b, &b->cells[i]) || bench_has_runs(b, b->cells[i].spec);
    }
    return n;
}

/* Everything of the results but the runs. */
static enum status fill_head(struct bench *b, struct error *err)
{
    const struct bench_options *o = &b->options;
    struct results *r = &b->results;
    enum status s = environment_read(b->command_line, &r->environment, err);
    if (s == STATUS_OK) {
        mem_free(r->environment.isa);
        r->environment.isa = mem_strdup(b->loaded ? exec_model_isa(b->model.exec) : "");
        r->environment.threads = b->loaded ? exec_model_threads(b->model.exec) : COUNT_UNKNOWN;
        s = describe_model(b, &r->model, err);
    }
    if (s != STATUS_OK) {
        return s;
    }
    r->settings = (struct bench_settings){
        .workload = mem_strdup(o->workload == WORKLOAD_MIXED ? "mixed" : "short"),
        .device = mem_strdup(b->loaded ? "cpu" : "server"),
        .max_concurrent = o->max_concurrent,
        .max_new_tokens = o->max_new_tokens,
        .kv_blocks = b->loaded ? o->model.kv_blocks : COUNT_UNKNOWN,
        .block_tokens =
            b->loaded ? exec_model_executor(b->model.exec)->info.block_tokens : COUNT_UNKNOWN,
        .max_queue = b->loaded ? o->max_queue : COUNT_UNKNOWN,
        .warmup_requests = o->warmup,
        .seed = o->seed,
        .runs_planned = planned_cells(b),
        .temperature = (double)o->sampling.temperature,
        .top_k = o->sampling.top_k,
        .top_p = (double)o->sampling.top_p,
        .ignore_eos = o->ignore_eos,
    };
    if (r->settings.workload == NULL || r->settings.device == NULL || r->environment.isa == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the settings");
    }
    return STATUS_OK;
}

bool bench_is_finished(const struct bench *b, const struct cell *c)
{
    for (size_t i = 0; i < b->results.n_runs; i++) {
        const struct run *r = &b->results.runs[i];
        if (r->request_size == c->size && r->run_num == c->run &&
            strcmp(r->scheduler, b->options.specs[c->spec].label) == 0) {
            return true;
        }
    }
    return false;
}

static void print_text(const struct bench_hooks *hooks, const char *text)
{
    if (hooks->print != NULL) {
        hooks->print(hooks->self, text);
    }
}

/* "TESTING WITH 25 REQUESTS" and "--- Run 1/3 ---" where a new size or run begins. */
static void print_headers(const struct bench *b, const struct bench_hooks *hooks, uint32_t i)
{
    assert(b->cells != NULL && i < b->n_cells);
    const struct cell *c = &b->cells[i];
    const struct cell *before = i > 0 ? c - 1 : NULL;
    char line[96];
    if (before == NULL || before->size != c->size) {
        snprintf(line, sizeof line, "\nTESTING WITH %u REQUESTS%s\n", c->size,
                 b->options.model.random_weights ? " (random weights)" : "");
        print_text(hooks, line);
    }
    if (before == NULL || before->size != c->size || before->run != c->run) {
        snprintf(line, sizeof line, "\n--- Run %u/%u ---\n", c->run, b->options.runs);
        print_text(hooks, line);
    }
}

static enum status finish_cell(struct bench *b, struct run *run, const struct bench_hooks *hooks,
                               struct error *err)
{
    enum status s = journal_append(&b->journal, run, err);
    if (s == STATUS_OK) {
        s = results_add(&b->results, run, err);
    }
    if (s != STATUS_OK) {
        run_deinit(run);
        return s;
    }
    struct strbuf text = {0};
    strbuf_putc(&text, '\n');
    text_run_block(&b->results.runs[b->results.n_runs - 1], &text);
    print_text(hooks, strbuf_text(&text));
    strbuf_deinit(&text);
    return STATUS_OK;
}

static bool is_stopped(const struct bench_hooks *hooks)
{
    return hooks->stop != NULL && *hooks->stop != 0;
}

/* *lost: the first server that went away between two runs; the cells of others go on. */
static enum status run_cell(struct bench *b, const struct cell *cell,
                            const struct bench_hooks *hooks, struct error *lost, struct error *err)
{
    struct run run = {0};
    struct error why = ERROR_INIT;
    enum status s = bench_run_cell(b, cell, hooks, &run, &why);
    if (s == STATUS_OK) {
        return finish_cell(b, &run, hooks, err);
    }
    if (s != STATUS_UNREACHABLE) {
        *err = why;
        return s;
    }
    const char *label = b->options.specs[cell->spec].label;
    log_warn("%s, %u requests, run %u is left out: %s", label, cell->size, cell->run, why.message);
    b->requests_total -= cell->size + b->options.warmup;
    s = bench_lose_server(b, cell->spec, why.message, err);
    if (lost->code == STATUS_OK) {
        error_prefix(&why, "%s was lost", label);
        *lost = why;
    }
    return s;
}

static enum status run_cells(struct bench *b, const struct bench_hooks *hooks, struct error *err)
{
    struct error lost = ERROR_INIT;
    for (uint32_t i = 0; i < b->n_cells; i++) {
        if (!is_away(b, &b->cells[i]) && !bench_is_finished(b, &b->cells[i])) {
            b->requests_total += b->cells[i].size + b->options.warmup;
        }
    }
    for (uint32_t i = 0; i < b->n_cells; i++) {
        print_headers(b, hooks, i);
        if (is_away(b, &b->cells[i]) || bench_is_finished(b, &b->cells[i])) {
            continue;
        }
        if (is_stopped(hooks)) {
            return error_set(err, STATUS_INTERRUPTED, -1, "interrupted");
        }
        enum status s = run_cell(b, &b->cells[i], hooks, &lost, err);
        if (s != STATUS_OK) {
            return s;
        }
    }
    if (lost.code != STATUS_OK) {
        *err = lost;
    }
    return lost.code;
}

/* What every figure below rests on, in one line. */
static void print_provenance(const struct bench *b, const struct bench_hooks *hooks)
{
    const struct results *r = &b->results;
    struct strbuf line = {0};
    if (b->loaded) {
        strbuf_printf(
            &line, "%s%s, %s on %s, %llu threads; KV cache %llu blocks of %llu tokens in %s; ",
            r->model.name, r->model.random_weights ? " (random weights)" : "", r->model.dtype,
            r->environment.isa, (unsigned long long)r->environment.threads,
            (unsigned long long)r->settings.kv_blocks, (unsigned long long)r->settings.block_tokens,
            r->model.kv_dtype);
    }
    strbuf_printf(&line, "at most %llu requests in flight; seed %llu\n",
                  (unsigned long long)r->settings.max_concurrent,
                  (unsigned long long)r->settings.seed);
    for (size_t i = 0; i < r->n_servers; i++) {
        const struct server_facts *f = &r->servers[i];
        if (strcmp(f->state, SERVER_OK) == 0) {
            strbuf_printf(&line, "%s: %s at %s%s%s\n", f->scheduler, f->model, f->endpoint,
                          f->version[0] != '\0' ? ", version " : "", f->version);
        }
    }
    print_text(hooks, strbuf_text(&line));
    strbuf_deinit(&line);
}

enum status bench_execute(struct bench *b, const struct bench_hooks *hooks, struct error *err)
{
    assert(b->journal.fd >= 0); /* not a dry run */
    b->results.partial = true;
    enum status s = STATUS_OK;
    if (bench_has_local(b)) {
        s = model_load(&b->options.model, &b->files, &b->model, err);
        b->loaded = s == STATUS_OK;
    }
    if (s == STATUS_OK) {
        s = fill_head(b, err);
    }
    if (s == STATUS_OK && is_stopped(hooks)) {
        s = error_set(err, STATUS_INTERRUPTED, -1, "interrupted"); /* the old journal stays */
    }
    if (s == STATUS_OK) {
        s = journal_begin(&b->journal, b->output_dir, b->fingerprint.data, &b->results, err);
    }
    if (s == STATUS_OK) {
        s = bench_note_servers(b, err);
    }
    if (s == STATUS_OK) {
        print_provenance(b, hooks);
        s = run_cells(b, hooks, err);
        b->results.partial = b->results.n_runs < b->results.settings.runs_planned;
    }
    return s;
}

static enum status save_one(struct bench *b, const char *name,
                            enum status (*write)(const struct results *, const char *, bool,
                                                 struct error *),
                            struct error *err)
{
    char *path = fs_join(b->output_dir, name);
    if (path == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a path");
    }
    enum status s = write(&b->results, path, b->options.csv_safe, err);
    mem_free(path);
    return s;
}

static enum status write_json(const struct results *r, const char *path, bool csv_safe,
                              struct error *err)
{
    (void)csv_safe;
    return results_write_json(r, path, err);
}

/* One file that cannot be written does not keep the others from being written. */
enum status bench_save(struct bench *b, struct error *err)
{
    static const struct {
        const char *name;
        enum status (*write)(const struct results *, const char *, bool, struct error *);
    } files[] = {
        {BENCH_SUMMARIES_NAME, results_write_summaries_csv},
        {BENCH_METRICS_NAME, results_write_detailed_csv},
        {BENCH_RESULTS_NAME, write_json},
    };
    enum status first = STATUS_OK;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct error why = ERROR_INIT;
        enum status s = save_one(b, files[i].name, files[i].write, &why);
        if (s != STATUS_OK && first == STATUS_OK) {
            first = s;
            *err = why;
        }
    }
    return first;
}
