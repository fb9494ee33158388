/* cmd_bench_engine.c - `llmsched bench-engine`: options in, table or JSON out; the work is in
 * src/bench/engine_speed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "bench/engine_speed.h"
#include "cli/common.h"
#include "core/plan.h"

#define MAX_TOKENS 1000000 /* of a prompt or an output; the model's context is far below it */

struct speed_flags {
    struct model_flags model;
    struct text_list dtypes;
    struct text_list streams;
    uint64_t prompt_tokens, new_tokens, prefill_tokens, rounds;
    double max_load_percent;
    const char *output;
    bool json;
};

static enum status parse_dtypes(const struct text_list *l, struct engine_speed_options *o,
                                struct error *err)
{
    for (int d = 0; l->n == 0 && d < TENSOR_DTYPES; d++) {
        o->dtypes[o->n_dtypes++] = (enum tensor_dtype)d;
    }
    for (size_t i = 0; i < l->n; i++) {
        enum tensor_dtype dtype;
        if (!tensor_dtype_find(l->items[i], &dtype)) {
            return error_set(err, STATUS_USAGE, -1,
                             "--dtypes: \"%s\" is not one of f32, bf16, int8", l->items[i]);
        }
        for (uint32_t k = 0; k < o->n_dtypes; k++) {
            if (o->dtypes[k] == dtype) {
                return error_set(err, STATUS_USAGE, -1, "--dtypes: %s stands twice", l->items[i]);
            }
        }
        o->dtypes[o->n_dtypes++] = dtype;
    }
    return STATUS_OK;
}

static enum status parse_streams(const struct text_list *l, struct engine_speed_options *o,
                                 struct error *err)
{
    static const uint32_t usual[] = {1, 8, 32, 64};
    if (l->n == 0) {
        memcpy(o->streams, usual, sizeof usual);
        o->n_streams = COUNT_OF(usual);
    }
    for (size_t i = 0; i < l->n; i++) {
        const char *text = l->items[i];
        char *end;
        unsigned long n = strtoul(text, &end, 10);
        if (*end != '\0' || text[0] < '0' || text[0] > '9' || n < 1 || n > PLAN_MAX_SEQS) {
            return error_set(err, STATUS_USAGE, -1,
                             "--streams: \"%s\" is not a number from 1 to %d", text, PLAN_MAX_SEQS);
        }
        if (o->n_streams == ENGINE_SPEED_MAX_STREAM_COUNTS) {
            return error_set(err, STATUS_USAGE, -1, "--streams: more than %d",
                             ENGINE_SPEED_MAX_STREAM_COUNTS);
        }
        for (uint32_t k = 0; k < o->n_streams; k++) {
            if (o->streams[k] == n) {
                return error_set(err, STATUS_USAGE, -1, "--streams: %lu stands twice", n);
            }
        }
        o->streams[o->n_streams++] = (uint32_t)n;
    }
    return STATUS_OK;
}

static enum status make_options(const struct speed_flags *f, struct engine_speed_options *o,
                                struct error *err)
{
    enum status s = parse_dtypes(&f->dtypes, o, err);
    if (s == STATUS_OK) {
        s = parse_streams(&f->streams, o, err);
    }
    o->prompt_tokens = (uint32_t)f->prompt_tokens;
    o->new_tokens = (uint32_t)f->new_tokens;
    o->prefill_tokens = (uint32_t)f->prefill_tokens;
    o->rounds = (uint32_t)f->rounds;
    o->max_load = f->max_load_percent / 100.0;
    o->stop = stop_flag();
    return s;
}

/* The table or JSON on stdout, and JSON into --output. */
static enum status show(const struct speed_flags *f, const struct engine_speed_options *o,
                        const struct engine_speed_result *r, struct error *err)
{
    struct strbuf json = {0};
    struct strbuf text = {0};
    enum status s = engine_speed_print_json(o, r, &json, err);
    if (s == STATUS_OK && !f->json) {
        engine_speed_print_text(o, r, &text);
        s = text.failed ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the table")
                        : STATUS_OK;
    }
    if (s == STATUS_OK) {
        fputs(strbuf_text(f->json ? &json : &text), stdout);
    }
    if (s == STATUS_OK && f->output != NULL) {
        s = fs_write_atomic(f->output, json.data, json.len, err);
        if (s != STATUS_OK) {
            error_prefix(err, "--output");
        }
    }
    strbuf_deinit(&text);
    strbuf_deinit(&json);
    return s;
}

/* How many measurements are void, and what to do. */
static enum status judge(const struct speed_flags *f, const struct engine_speed_result *r,
                         struct error *err)
{
    struct engine_speed_count n = engine_speed_count(r);
    if (n.n_void == 0) {
        return STATUS_OK;
    }
    if (n.n_valid > 0) {
        log_warn("%u of %u measurements are void: others used %.15g %% of the machine or more "
                 "(--max-load)",
                 n.n_void, n.n_void + n.n_valid, f->max_load_percent);
        return STATUS_OK;
    }
    return r->is_partial
               ? STATUS_OK
               : error_set(err, STATUS_INVALID, -1,
                           "all %u measurements are void: others used %.15g %% of the machine or "
                           "more, or /proc/stat does not tell; wait until it is quiet, or raise "
                           "--max-load (100: take all)",
                           n.n_void, f->max_load_percent);
}

static int bench_engine(const struct speed_flags *f)
{
    struct error err = ERROR_INIT;
    struct progress_bar bar;
    progress_bar_init(&bar, false);
    struct progress progress = progress_bar_hook(&bar);
    struct hub_env env = hub_env_from_environment();
    struct engine_speed_options options = {.model = model_options_from(&f->model, &env, &progress),
                                           .progress = &progress};
    struct engine_speed_result result;
    enum status s = make_options(f, &options, &err);
    if (s != STATUS_OK) {
        return fail(s, &err);
    }
    stop_install();
    enum status run = engine_speed_run(&options, &result, &err);
    progress_bar_clear(&bar);
    if (run != STATUS_OK && run != STATUS_INTERRUPTED) {
        return fail(run, &err);
    }
    bool any = engine_speed_count(&result).n_valid > 0 || run == STATUS_OK;
    if (any) {
        s = show(f, &options, &result, &err);
    }
    if (run == STATUS_INTERRUPTED) {
        log_warn("interrupted: %s", any ? "the finished rounds are shown" : "nothing is finished");
    }
    if (s == STATUS_OK) {
        s = judge(f, &result, &err);
    }
    engine_speed_deinit(&result);
    int code = s == STATUS_OK ? 0 : fail(s, &err);
    return code == 0 && run == STATUS_INTERRUPTED ? stop_exit_code() : code;
}

#define SPEED_OPTION_COUNT 13

/* Writes the option table for f's fields; returns the number of rows. */
/* NOLINTNEXTLINE(readability-function-size): one row per option */
static size_t option_table(struct speed_flags *f, struct option_spec *out)
{
    const struct option_spec table[] = {
        {.name = "--dtypes",
         .kind = OPTION_LIST,
         .target = &f->dtypes,
         .value = "T ...",
         .help = "weights and products in each of these (default: f32,bf16,int8)"},
        {.name = "--streams",
         .kind = OPTION_LIST,
         .target = &f->streams,
         .value = "N ...",
         .help = "requests that decode side by side, a load each (default: 1,8,32,64)"},
        {.name = "--prompt-tokens",
         .kind = OPTION_UINT,
         .target = &f->prompt_tokens,
         .min = 1,
         .max = MAX_TOKENS,
         .value = "N",
         .help = "of each stream, random (default: 16)"},
        {.name = "--new-tokens",
         .letter = 'n',
         .kind = OPTION_UINT,
         .target = &f->new_tokens,
         .min = 2,
         .max = MAX_TOKENS,
         .value = "N",
         .help = "of each stream; the first comes from the prompt's step and is not decoded "
                 "(default: 20)"},
        {.name = "--prefill",
         .kind = OPTION_UINT,
         .target = &f->prefill_tokens,
         .min = 0,
         .max = MAX_TOKENS,
         .value = "N",
         .help = "one more load: a prompt of N tokens in one step; 0: none (default: 512)"},
        {.name = "--rounds",
         .kind = OPTION_UINT,
         .target = &f->rounds,
         .min = 1,
         .max = ENGINE_SPEED_MAX_ROUNDS,
         .value = "N",
         .help = "over all dtypes and loads (default: 5)"},
        {.name = "--max-load",
         .kind = OPTION_REAL,
         .target = &f->max_load_percent,
         .min = 0,
         .max = 100,
         .value = "PERCENT",
         .help = "a measurement during which others used as much of all cores is void, and tried "
                 "again in up to twice as many more rounds; 100: none is (default: 8)"},
        {.name = "--json",
         .kind = OPTION_FLAG,
         .target = &f->json,
         .help = "JSON on stdout instead of the table"},
        {.name = "--output",
         .letter = 'o',
         .kind = OPTION_TEXT,
         .target = &f->output,
         .value = "FILE",
         .help = "JSON into a file besides"},
        MODEL_OPTION(f->model),
        RANDOM_WEIGHTS_OPTION(f->model),
        KV_DTYPE_OPTION(f->model),
        THREADS_OPTION(f->model),
    };
    _Static_assert(COUNT_OF(table) == SPEED_OPTION_COUNT, "the table's room");
    memcpy(out, table, sizeof table);
    return COUNT_OF(table);
}

static int run(int argc, char **argv)
{
    struct speed_flags f = {.model = MODEL_FLAGS_INIT,
                            .prompt_tokens = 16,
                            .new_tokens = 20,
                            .prefill_tokens = 512,
                            .rounds = 5,
                            .max_load_percent = 8};
    struct option_spec specs[SPEED_OPTION_COUNT];
    size_t n_specs = option_table(&f, specs);
    struct error err = ERROR_INIT;
    bool help;
    enum status s = options_parse(specs, n_specs, argc, argv, NULL, &help, &err);
    int code = 0;
    if (s != STATUS_OK) {
        code = fail(s, &err);
    } else if (help) {
        options_print_help(&command_bench_engine, specs, n_specs);
    } else {
        code = bench_engine(&f);
    }
    text_list_deinit(&f.dtypes);
    text_list_deinit(&f.streams);
    return code;
}

const struct command command_bench_engine = {
    .name = "bench-engine",
    .summary = "Measure the engine's speed by dtype and load, beside this machine's limit.",
    .usage = "[OPTIONS]",
    .examples =
        "  llmsched bench-engine\n"
        "  llmsched bench-engine --dtypes bf16,int8 --streams 1,32 --rounds 9 -o speed.json\n"
        "  llmsched bench-engine --random-weights --model gpt2-medium --rounds 1 --json\n"
        "Exit code 6: all rounds are void, because others used the machine.\n",
    .run = run,
};
