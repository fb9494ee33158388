/* engine_speed_report.c - what `bench-engine` prints. See engine_speed.h. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/engine_speed.h"
#include "metrics/stats.h"

#define JSON_FORMAT "llmsched-bench-engine-1"
#define JSON_FLAGS  (JSON_INDENT(1) | JSON_REAL_PRECISION(9))

const char *engine_part_name(enum engine_part part)
{
    static const char *const names[ENGINE_PARTS] = {"matmul",   "head",      "attention", "norms",
                                                    "sampling", "scheduler", "rest"};
    return names[part];
}

struct engine_speed_count engine_speed_count(const struct engine_speed_result *r)
{
    struct engine_speed_count count = {0};
    for (uint32_t i = 0; i < r->n_cells; i++) {
        count.n_valid += r->cells[i].n_samples;
        count.n_void += r->cells[i].n_void;
    }
    return count;
}

/* ---------------------------------------------------------------- figures */

struct spread {
    double min, median, max; /* NaN: of nothing */
};

/* Sorts the values. */
static struct spread spread_of(double *values, size_t n)
{
    if (n == 0) {
        return (struct spread){(double)NAN, (double)NAN, (double)NAN};
    }
    stats_sort(values, n);
    return (struct spread){values[0], stats_quantile_sorted(values, n, 0.5), values[n - 1]};
}

static double limit_s(const struct engine_speed_sample *s)
{
    return fmax(s->read_s, s->arithmetic_s);
}

static const char *bound_name(const struct engine_speed_sample *s)
{
    return s->read_s >= s->arithmetic_s ? "read" : "arithmetic";
}

struct figures {
    struct spread tokens_per_s;
    struct spread share; /* of the limit */
    /* The round whose speed is the median, or nearest to it; NULL: none is valid. */
    const struct engine_speed_sample *typical;
};

static struct figures figures_of(const struct engine_speed_cell *cell)
{
    double speed[ENGINE_SPEED_MAX_ROUNDS];
    double share[ENGINE_SPEED_MAX_ROUNDS];
    struct figures f = {.typical = NULL};
    for (uint32_t i = 0; i < cell->n_samples; i++) {
        speed[i] = cell->samples[i].tokens_per_s;
        share[i] = limit_s(&cell->samples[i]) / cell->samples[i].step_s;
    }
    f.tokens_per_s = spread_of(speed, cell->n_samples);
    f.share = spread_of(share, cell->n_samples);
    double nearest = HUGE_VAL;
    for (uint32_t i = 0; i < cell->n_samples; i++) {
        double away = fabs(cell->samples[i].tokens_per_s - f.tokens_per_s.median);
        if (away < nearest) {
            nearest = away;
            f.typical = &cell->samples[i];
        }
    }
    return f;
}

/* dtype < 0: the read rate. */
static struct spread limits_of(const struct engine_speed_result *r, int dtype)
{
    /* As many as there may be: all dtypes, each round, the extra ones included. */
    double values[TENSOR_DTYPES * ENGINE_SPEED_MAX_ROUNDS * (1 + ENGINE_SPEED_EXTRA_ROUNDS)];
    for (uint32_t i = 0; i < r->n_limits; i++) {
        values[i] = dtype < 0 ? r->limits[i].read_bytes : r->limits[i].multiply_adds[dtype];
    }
    return spread_of(values, r->n_limits);
}

/* ---------------------------------------------------------------- text */

static void print_head(const struct engine_speed_options *o, const struct engine_speed_result *r,
                       struct strbuf *out)
{
    strbuf_printf(out, "ENGINE SPEED: %s%s, %" PRIu64 " parameters; %u prompt + %u new tokens\n",
                  r->model, o->model.random_weights ? " (random weights)" : "", r->parameters,
                  o->prompt_tokens, o->new_tokens);
    strbuf_printf(out, "%s, %" PRIu64 " threads, %s; KV cache in %s; loaded in", r->environment.cpu,
                  r->environment.threads, r->environment.isa, tensor_dtype_name(o->model.kv_dtype));
    for (uint32_t i = 0; i < o->n_dtypes; i++) {
        strbuf_printf(out, "%s %.2f s (%s)", i > 0 ? "," : "", r->load_s[o->dtypes[i]],
                      tensor_dtype_name(o->dtypes[i]));
    }
    strbuf_puts(out, "\nthe machine at best, median:");
    for (int d = 0; d < TENSOR_DTYPES; d++) {
        strbuf_printf(out, " %s %.1f G%s/s,", tensor_dtype_name((enum tensor_dtype)d),
                      2e-9 * limits_of(r, d).median, d == TENSOR_INT8 ? "OP" : "FLOP");
    }
    strbuf_printf(out, " read %.1f GB/s\n\n", 1e-9 * limits_of(r, -1).median);
}

static void print_columns(struct strbuf *out)
{
    strbuf_printf(out, "%-5s %-12s %9s %9s %7s %6s %5s %9s", "dtype", "load", "tokens/s", "best",
                  "spread", "rounds", "void", "ms/step");
    static const char *const short_names[ENGINE_PARTS] = {"matmul", "head",  "attend", "norms",
                                                          "sample", "sched", "rest"};
    for (int p = 0; p < ENGINE_PARTS; p++) {
        strbuf_printf(out, " %6s", short_names[p]);
    }
    strbuf_printf(out, "  %-10s %8s %6s\n", "bound by", "of limit", "best");
}

static void print_cell(const struct engine_speed_options *o, const struct engine_speed_cell *cell,
                       struct strbuf *out)
{
    char load[32];
    if (cell->is_prefill) {
        snprintf(load, sizeof load, "prefill %u", o->prefill_tokens);
    } else {
        snprintf(load, sizeof load, "%u stream%s", cell->streams, cell->streams > 1 ? "s" : "");
    }
    strbuf_printf(out, "%-5s %-12s", tensor_dtype_name(cell->dtype), load);
    struct figures f = figures_of(cell);
    if (f.typical == NULL) {
        strbuf_printf(out, " %9s %9s %7s %6u %5u\n", cell->n_void > 0 ? "void" : "none", "-", "-",
                      0U, cell->n_void);
        return;
    }
    const struct spread *t = &f.tokens_per_s;
    strbuf_printf(out, " %9.1f %9.1f %6.1f%% %6u %5u %9.3f", t->median, t->max,
                  100.0 * (t->max - t->min) / t->median, cell->n_samples, cell->n_void,
                  1e3 * f.typical->step_s);
    for (int p = 0; p < ENGINE_PARTS; p++) {
        strbuf_printf(out, " %5.1f%%", 100.0 * f.typical->part_s[p] / f.typical->step_s);
    }
    strbuf_printf(out, "  %-10s %7.1f%% %5.1f%%\n", bound_name(f.typical), 100.0 * f.share.median,
                  100.0 * f.share.max);
}

void engine_speed_print_text(const struct engine_speed_options *o,
                             const struct engine_speed_result *r, struct strbuf *out)
{
    print_head(o, r, out);
    print_columns(out);
    for (uint32_t i = 0; i < r->n_cells; i++) {
        print_cell(o, &r->cells[i], out);
    }
    strbuf_puts(out,
                "\ntokens/s: decoded, or of the prompt; spread: (best - worst) / median; parts: "
                "of the median round's step; limit: the step's reads and multiply-adds at the "
                "machine's best rates.\n");
}

/* ---------------------------------------------------------------- JSON */

/* Puts value (taken over) into object; false: out of memory, also when value is NULL. */
static bool put(json_t *object, const char *key, json_t *value)
{
    return value != NULL && json_object_set_new(object, key, value) == 0;
}

/* JSON has no NaN. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* object where ok, else NULL, and it is gone. */
static json_t *whole(json_t *object, bool ok)
{
    if (object != NULL && !ok) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *machine_to_json(const struct engine_speed_result *r)
{
    json_t *o = json_object();
    return whole(o, o != NULL && put(o, "cpu", json_string(r->environment.cpu)) &&
                        put(o, "cores", json_integer((json_int_t)r->environment.cores)) &&
                        put(o, "threads", json_integer((json_int_t)r->environment.threads)) &&
                        put(o, "isa", json_string(r->environment.isa)));
}

static json_t *model_to_json(const struct engine_speed_options *options,
                             const struct engine_speed_result *r)
{
    json_t *o = json_object();
    return whole(o, o != NULL && put(o, "name", json_string(r->model)) &&
                        put(o, "parameters", json_integer((json_int_t)r->parameters)) &&
                        put(o, "random_weights", json_boolean(options->model.random_weights)));
}

static json_t *spread_to_json(struct spread s)
{
    json_t *o = json_object();
    return whole(o, o != NULL && put(o, "min", number(s.min)) &&
                        put(o, "median", number(s.median)) && put(o, "max", number(s.max)));
}

/* One for each dtype: matrices of a model may be kept in another than its own. */
static json_t *limits_to_json(const struct engine_speed_result *r)
{
    json_t *array = json_array();
    bool ok = array != NULL;
    for (int d = 0; d < TENSOR_DTYPES && ok; d++) {
        json_t *o = json_object();
        o = whole(o, o != NULL &&
                         put(o, "dtype", json_string(tensor_dtype_name((enum tensor_dtype)d))) &&
                         put(o, "multiply_adds_per_s", spread_to_json(limits_of(r, d))) &&
                         put(o, "read_bytes_per_s", spread_to_json(limits_of(r, -1))));
        ok = o != NULL && json_array_append_new(array, o) == 0;
    }
    return whole(array, ok);
}

static json_t *speed_to_json(const struct engine_speed_cell *cell, const struct spread *t)
{
    json_t *o = json_object();
    return whole(o, o != NULL && put(o, "median", number(t->median)) &&
                        put(o, "best", number(t->max)) && put(o, "min", number(t->min)) &&
                        put(o, "n", json_integer(cell->n_samples)) &&
                        put(o, "void", json_integer(cell->n_void)));
}

static json_t *step_to_json(const struct engine_speed_sample *s)
{
    if (s == NULL) {
        return json_null();
    }
    json_t *o = json_object();
    bool ok = o != NULL && put(o, "total", number(1e3 * s->step_s));
    for (int p = 0; p < ENGINE_PARTS && ok; p++) {
        ok = put(o, engine_part_name((enum engine_part)p), number(1e3 * s->part_s[p]));
    }
    return whole(o, ok);
}

static json_t *limit_to_json(const struct engine_speed_sample *s)
{
    if (s == NULL) {
        return json_null();
    }
    json_t *o = json_object();
    return whole(o, o != NULL && put(o, "step_ms", number(1e3 * limit_s(s))) &&
                        put(o, "bound", json_string(bound_name(s))) &&
                        put(o, "read_ms", number(1e3 * s->read_s)) &&
                        put(o, "arithmetic_ms", number(1e3 * s->arithmetic_s)));
}

static json_t *share_to_json(const struct figures *f)
{
    if (f->typical == NULL) {
        return json_null();
    }
    json_t *o = json_object();
    return whole(o, o != NULL && put(o, "median", number(f->share.median)) &&
                        put(o, "best", number(f->share.max)));
}

static json_t *cell_to_json(const struct engine_speed_cell *cell)
{
    struct figures f = figures_of(cell);
    json_t *o = json_object();
    return whole(o, o != NULL && put(o, "dtype", json_string(tensor_dtype_name(cell->dtype))) &&
                        put(o, "load", json_string(cell->is_prefill ? "prefill" : "decode")) &&
                        put(o, "streams", json_integer(cell->streams)) &&
                        put(o, "tokens_per_s", speed_to_json(cell, &f.tokens_per_s)) &&
                        put(o, "step_ms", step_to_json(f.typical)) &&
                        put(o, "limit", limit_to_json(f.typical)) &&
                        put(o, "share_of_limit", share_to_json(&f)));
}

static json_t *cells_to_json(const struct engine_speed_result *r)
{
    json_t *array = json_array();
    bool ok = array != NULL;
    for (uint32_t i = 0; i < r->n_cells && ok; i++) {
        json_t *cell = cell_to_json(&r->cells[i]);
        ok = cell != NULL && json_array_append_new(array, cell) == 0;
    }
    return whole(array, ok);
}

static json_t *load_seconds_to_json(const struct engine_speed_options *options,
                                    const struct engine_speed_result *r)
{
    json_t *o = json_object();
    bool ok = o != NULL;
    for (uint32_t i = 0; i < options->n_dtypes && ok; i++) {
        enum tensor_dtype d = options->dtypes[i];
        ok = put(o, tensor_dtype_name(d), number(r->load_s[d]));
    }
    return whole(o, ok);
}

static int append_chunk(const char *bytes, size_t n, void *out)
{
    strbuf_append(out, bytes, n);
    return ((struct strbuf *)out)->failed ? -1 : 0;
}

enum status engine_speed_print_json(const struct engine_speed_options *o,
                                    const struct engine_speed_result *r, struct strbuf *out,
                                    struct error *err)
{
    const struct environment *e = &r->environment;
    json_t *j = json_object();
    bool ok =
        j != NULL && put(j, "format", json_string(JSON_FORMAT)) &&
        put(j, "version", json_string(e->llmsched_version)) &&
        put(j, "commit", json_string(e->commit)) && put(j, "date", json_string(e->started_at)) &&
        put(j, "partial", json_boolean(r->is_partial)) && put(j, "machine", machine_to_json(r)) &&
        put(j, "model", model_to_json(o, r)) &&
        put(j, "kv_dtype", json_string(tensor_dtype_name(o->model.kv_dtype))) &&
        put(j, "prompt_tokens", json_integer(o->prompt_tokens)) &&
        put(j, "new_tokens", json_integer(o->new_tokens)) &&
        put(j, "prefill_tokens", json_integer(o->prefill_tokens)) &&
        put(j, "rounds", json_integer(o->rounds)) && put(j, "max_load", number(o->max_load)) &&
        put(j, "limits", limits_to_json(r)) && put(j, "cells", cells_to_json(r)) &&
        put(j, "load_seconds", load_seconds_to_json(o, r)) &&
        json_dump_callback(j, append_chunk, out, JSON_FLAGS) == 0;
    json_decref(j);
    strbuf_putc(out, '\n');
    return ok && !out->failed
               ? STATUS_OK
               : error_set(err, STATUS_NO_MEMORY, -1, "no memory to write the result as JSON");
}
