/*
 * cell.c - one scheduler, one size, one run: warm-up, measurement, and the rows that describe it.
 *
 * The engine, the policy's state and the workload are made afresh for each cell; only the loaded
 * model lives on, and nothing of a sequence stays in it.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "base/utf8.h"
#include "bench/bench_int.h"
#include "bench/environment.h"
#include "engine/clock_real.h"
#include "engine/engine.h"
#include "load/closed_loop.h"

/* Counts terminal events into the matrix's progress. */
struct progress_sink {
    struct bench *bench;
    const struct bench_hooks *hooks;
    char what[160];
};

static void on_event(void *self, const struct event *ev)
{
    struct progress_sink *p = self;
    if (event_is_terminal(ev->kind)) {
        p->bench->requests_done++;
    }
}

/* Between steps is where time passes: the bar is drawn there (it limits its own rate). */
static void on_step(void *self, const struct step_record *step)
{
    (void)step;
    struct progress_sink *p = self;
    progress_report(p->hooks->progress, p->what, p->bench->requests_done, p->bench->requests_total);
}

static void on_gap(void *self, const struct gap_record *gap)
{
    (void)self;
    (void)gap;
}

enum status bench_make_workload(const struct bench *b, const struct cell *cell, bool warmup,
                                struct workload *out, struct error *err)
{
    const struct bench_options *o = &b->options;
    struct workload_config config = {
        .prompts = b->tokenized,
        .n_prompts = b->prompts.n,
        .size = warmup ? o->warmup : cell->size,
        .kind = o->workload,
        .max_new_tokens = o->max_new_tokens,
        .sampling = o->sampling,
        .ignore_eos = o->ignore_eos,
        .warmup = warmup,
        .seed = o->seed + cell->run,
    };
    return workload_create(&config, out, err);
}

/* Runs a workload through a fresh engine. recorder may be NULL (warm-up). */
static enum status drive(struct bench *b, const struct cell *cell, struct workload *w,
                         struct recorder *recorder, struct progress_sink *progress,
                         struct error *err)
{
    const struct scheduler_spec *spec = &b->options.specs[cell->spec];
    struct clock_real real = {.stop = progress->hooks->stop};
    struct clock clock = clock_real_clock(&real);
    struct event_sink sinks[2] = {
        {.event = on_event, .step = on_step, .gap = on_gap, .self = progress}};
    if (recorder != NULL) {
        sinks[1] = recorder_sink(recorder);
    }
    struct engine_config config = {
        .policy = spec->policy,
        .params = spec->params,
        .executor = exec_model_executor(b->model.exec),
        .clock = &clock,
        .sinks = sinks,
        .n_sinks = recorder != NULL ? 2 : 1,
        .total_blocks = b->options.model.kv_blocks,
        .max_queue = b->options.max_queue,
        .guard_allocations = true,
    };
    struct engine *engine;
    enum status s = engine_create(&config, &engine, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct closed_loop loop;
    closed_loop_init(&loop, w->requests, w->n, b->options.max_concurrent);
    struct source source = closed_loop_source(&loop);
    s = engine_run(engine, &source, progress->hooks->stop, err);
    engine_destroy(engine);
    return s;
}

void bench_replace_nul(struct strbuf *text)
{
    if (text->len == 0 || memchr(text->data, '\0', text->len) == NULL) {
        return;
    }
    struct strbuf clean = {0};
    for (size_t i = 0; i < text->len; i++) {
        if (text->data[i] == '\0') {
            strbuf_puts(&clean, UTF8_REPLACEMENT);
        } else {
            strbuf_putc(&clean, text->data[i]);
        }
    }
    strbuf_deinit(text);
    *text = clean;
}

static enum status fill_texts(const struct bench *b, const struct record *r, size_t prompt_idx,
                              struct request_row *row, struct error *err)
{
    const struct prompt *p = &b->prompts.items[prompt_idx];
    struct strbuf text = {0};
    tokenizer_decode(b->model.files.tokenizer, r->tokens, r->output_tokens, false, &text);
    const char *why = "";
    if (r->status == RECORD_REJECTED) {
        why = reject_reason_name((enum reject_reason)r->reason);
    } else if (r->status == RECORD_FAILED) {
        why = exec_model_last_error(b->model.exec);
        why = why[0] != '\0' ? why : "the executor failed";
    } else if (r->status == RECORD_CANCELLED) {
        why = "cancelled";
    }
    bench_replace_nul(&text);
    row->prompt = mem_strndup(p->text, p->len);
    row->generated_text = mem_strndup(strbuf_text(&text), text.len);
    row->error = mem_strdup(why);
    bool failed =
        text.failed || row->prompt == NULL || row->generated_text == NULL || row->error == NULL;
    strbuf_deinit(&text);
    return failed ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the results") : STATUS_OK;
}

static enum status fill_row(const struct bench *b, const struct recorder *recorder,
                            const struct workload *w, uint32_t i, struct request_row *row,
                            struct error *err)
{
    const struct record *r = recorder_record(recorder, i);
    *row = (struct request_row){.request_id = i};
    request_row_from_record(r, recorder_totals(recorder)->first_send_ns, row);
    return fill_texts(b, r, w->prompt_idx[i], row, err);
}

enum status bench_name_run(const struct bench *b, const struct cell *cell, struct run *run,
                           struct error *err)
{
    const struct scheduler_spec *spec = &b->options.specs[cell->spec];
    struct strbuf params = {0};
    run_init(run);
    scheduler_spec_print(spec, &params);
    run->scheduler = mem_strdup(spec->label);
    run->policy = mem_strdup(scheduler_spec_kind(spec));
    run->params = mem_strdup(strbuf_text(&params));
    bool failed =
        params.failed || run->scheduler == NULL || run->policy == NULL || run->params == NULL;
    strbuf_deinit(&params);
    run->request_size = cell->size;
    run->run_num = cell->run;
    run->seed = b->options.seed + cell->run;
    return failed ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the results") : STATUS_OK;
}

static enum status fill_run(const struct bench *b, const struct cell *cell,
                            const struct recorder *recorder, const struct workload *w,
                            struct run *run, struct error *err)
{
    const struct scheduler_spec *spec = &b->options.specs[cell->spec];
    enum status s = bench_name_run(b, cell, run, err);
    if (s != STATUS_OK) {
        return s;
    }
    run->rows = mem_alloc(w->n, sizeof *run->rows);
    if (run->rows == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the results");
    }
    run->fill_target =
        spec->policy->fill_target != NULL ? spec->policy->fill_target(&spec->params) : 0;
    s = summary_from_records(recorder_records(recorder), recorder_count(recorder),
                             recorder_totals(recorder), &run->summary, err);
    run->summary.peak_rss_bytes = environment_peak_rss_bytes();
    for (uint32_t i = 0; i < w->n && s == STATUS_OK; i++) {
        run->n_rows = i + 1;
        s = fill_row(b, recorder, w, i, &run->rows[i], err);
    }
    return s;
}

enum status bench_run_cell(struct bench *b, const struct cell *cell,
                           const struct bench_hooks *hooks, struct run *run, struct error *err)
{
    if (scheduler_spec_is_remote(&b->options.specs[cell->spec])) {
        return bench_run_remote_cell(b, cell, hooks, run, err);
    }
    struct progress_sink progress = {.bench = b, .hooks = hooks};
    snprintf(progress.what, sizeof progress.what, "bench|%s, %u requests, run %u/%u",
             b->options.specs[cell->spec].label, cell->size, cell->run, b->options.runs);
    struct workload w = {0};
    struct recorder *recorder = NULL;
    enum status s = STATUS_OK;
    if (b->options.warmup > 0) {
        s = bench_make_workload(b, cell, true, &w, err);
        if (s == STATUS_OK) {
            s = drive(b, cell, &w, NULL, &progress, err);
        }
        workload_deinit(&w);
    }
    if (s == STATUS_OK) {
        s = bench_make_workload(b, cell, false, &w, err);
    }
    if (s == STATUS_OK) {
        s = recorder_create(w.requests, w.n, &recorder, err);
    }
    if (s == STATUS_OK) {
        environment_reset_peak_rss();
        s = drive(b, cell, &w, recorder, &progress, err);
    }
    if (s == STATUS_OK) {
        s = fill_run(b, cell, recorder, &w, run, err);
    }
    if (s != STATUS_OK) {
        run_deinit(run);
    }
    recorder_destroy(recorder);
    workload_deinit(&w);
    return s;
}
