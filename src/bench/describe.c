/* describe.c - what a bench will do and cost, before it does it. */
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "bench/bench_int.h"
#include "bench/environment.h"
#include "tensor/tensor.h"

/* Tokens that must pass through the model for a cell, warm-up included: prompts and, at most, all
 * new tokens. */
uint64_t bench_cell_tokens(const struct bench *b, uint32_t size, uint32_t run)
{
    const struct bench_options *o = &b->options;
    uint64_t tokens = 0;
    for (int warm = 0; warm < 2; warm++) {
        struct workload_config config = {
            .prompts = b->tokenized,
            .n_prompts = b->prompts.n,
            .size = warm ? o->warmup : size,
            .kind = o->workload,
            .max_new_tokens = o->max_new_tokens,
            .warmup = warm != 0,
            .seed = o->seed + run,
        };
        struct workload w;
        if (config.size == 0 || workload_create(&config, &w, NULL) != STATUS_OK) {
            continue;
        }
        for (uint32_t i = 0; i < w.n; i++) {
            tokens += w.requests[i].prompt_tokens + w.requests[i].max_new_tokens;
        }
        workload_deinit(&w);
    }
    return tokens;
}

#define PROBE_OUT 1024
#define PROBE_IN  1024
#define PROBE_NS  (NS_PER_S / 5)

/* Multiply-adds per second of a matrix product with `rows` rows on this machine, now. */
static enum status measure_rate(const struct bench *b, uint32_t rows, double *per_second,
                                struct error *err)
{
    const struct tensor_ops *ops;
    struct pool *pool = NULL;
    struct packed_matrix w = {0};
    float *y = NULL;
    float *x = NULL;
    enum tensor_dtype dtype = b->options.model.dtype;
    enum status s = tensor_select(b->options.model.isa, &ops, err);
    if (s == STATUS_OK) {
        uint32_t threads = b->options.model.threads;
        s = pool_create(threads != 0 ? threads : pool_default_threads(), &pool, err);
    }
    if (s == STATUS_OK) {
        s = packed_begin(&w, ops, dtype, PROBE_OUT, PROBE_IN, false, NULL, err);
    }
    if (s == STATUS_OK) {
        y = mem_alloc((size_t)rows * PROBE_OUT, sizeof *y);
        x = mem_alloc((size_t)rows * PROBE_IN,
                      sizeof *x); /* zeros: no operand row is longer than f32's */
        s = x == NULL || y == NULL ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for a probe")
                                   : STATUS_OK;
    }
    if (s == STATUS_OK) {
        size_t packed = tensor_operand_bytes(ops, dtype, PROBE_IN);
        const struct operand in = {.data = x, .stride = packed > 0 ? packed : PROBE_IN * sizeof *x};
        uint64_t begin = monotime_now_ns();
        uint64_t now = begin;
        double done = 0;
        while (now - begin < PROBE_NS) {
            tensor_matmul(ops, pool, y, PROBE_OUT, &in, rows, &w);
            done += (double)rows * PROBE_OUT * PROBE_IN;
            now = monotime_now_ns();
        }
        *per_second = done / monotime_seconds(now - begin);
    }
    mem_free(x);
    mem_free(y);
    packed_deinit(&w);
    pool_destroy(pool);
    return s;
}

/* A batch cannot be larger than what is in flight. */
static uint32_t typical_rows(const struct bench_options *o)
{
    return o->max_concurrent < 64 ? o->max_concurrent : 64;
}

/* Memory and time of what computes here. */
static enum status describe_local(const struct bench *b, uint64_t tokens, struct strbuf *out,
                                  struct error *err)
{
    const struct bench_options *o = &b->options;
    struct exec_model_memory need;
    enum status s = model_memory(&o->model, &b->files, &need, err);
    double rate = 0;
    if (s == STATUS_OK) {
        s = measure_rate(b, typical_rows(o), &rate, err);
    }
    if (s != STATUS_OK) {
        return s;
    }
    double seconds = (double)tokens * (double)config_parameter_count(&b->files.config) / rate;
    strbuf_printf(
        out,
        "memory      up to %.0f MiB: weights %.0f, KV cache %.0f (%u blocks in %s), activations "
        "%.0f; %.0f MiB available\n",
        (double)need.total_bytes / 1048576.0, (double)need.weight_bytes / 1048576.0,
        (double)need.kv_bytes / 1048576.0, o->model.kv_blocks, tensor_dtype_name(o->model.kv_dtype),
        (double)need.activation_bytes / 1048576.0,
        (double)environment_memory_available() / 1048576.0);
    strbuf_printf(out,
                  "time        at least %.0f s: matrix products alone, at the %.0f GFLOP/s just "
                  "measured with %u rows; padding, waiting and small batches come on top\n",
                  seconds, 2e-9 * rate, typical_rows(o));
    return STATUS_OK;
}

static void describe_server(const struct bench *b, uint32_t spec, struct strbuf *out)
{
    const struct server_facts *f = results_server(&b->results, b->options.specs[spec].label);
    if (f == NULL) {
        return;
    }
    strbuf_printf(out, "server      %s: %s ", f->scheduler, f->endpoint);
    if (b->rows[spec].is_away) {
        strbuf_printf(out, "does not answer: %s\n", f->why);
        return;
    }
    strbuf_printf(out, "answers: %s%s%s%s%s\n", f->model, f->version[0] != '\0' ? ", version " : "",
                  f->version, b->rows[spec].incomparable[0] != '\0' ? "; no ratios: " : "",
                  b->rows[spec].incomparable);
}

enum status bench_describe(struct bench *b, struct strbuf *out, struct error *err)
{
    const struct bench_options *o = &b->options;
    uint64_t tokens = 0; /* through our own model */
    uint64_t requests = 0;
    for (uint32_t i = 0; i < b->n_cells; i++) {
        bool remote = scheduler_spec_is_remote(&o->specs[b->cells[i].spec]);
        tokens += remote ? 0 : bench_cell_tokens(b, b->cells[i].size, b->cells[i].run);
        requests += b->cells[i].size + o->warmup;
    }
    if (bench_has_local(b)) {
        strbuf_printf(out, "model       %s%s\n", o->model.model,
                      o->model.random_weights ? " (random weights)" : "");
    }
    strbuf_printf(out, "cells       %u (%u sizes x %u runs x %u schedulers)\n", b->n_cells,
                  o->n_sizes, o->runs, o->n_specs);
    for (uint32_t i = 0; i < o->n_specs; i++) {
        strbuf_printf(out, "scheduler   %s: %s ", o->specs[i].label,
                      scheduler_spec_kind(&o->specs[i]));
        scheduler_spec_print(&o->specs[i], out);
        strbuf_putc(out, '\n');
    }
    for (uint32_t i = 0; i < o->n_specs; i++) {
        describe_server(b, i, out);
    }
    strbuf_printf(out, "requests    %llu, warm-up included; up to %llu tokens computed here\n",
                  (unsigned long long)requests, (unsigned long long)tokens);
    enum status s = bench_has_local(b) ? describe_local(b, tokens, out, err) : STATUS_OK;
    if (s != STATUS_OK) {
        return s;
    }
    strbuf_printf(out, "output      %s\n", b->output_dir);
    return out->failed ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the text") : STATUS_OK;
}
