/* cmd_bench.c - `llmsched bench`: options in, exit code out; the work is in src/bench. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/threshold.h"
#include "cli/common.h"
#include "cli/endpoint.h"
#include "engine/engine.h"
#include "report/plot.h"
#include "report/text.h"

#define MAX_THRESHOLDS 64

/* As typed; numbers are in their option's range. */
struct bench_flags {
    struct model_flags model;
    struct text_list sizes;
    struct text_list schedulers;
    struct text_list sets;
    struct text_list fail_if;
    const char *device;
    const char *workload;
    const char *ignore_eos;
    const char *prompts;
    const char *output_dir;
    struct endpoint_flags remote;
    uint64_t runs, max_concurrent, max_new_tokens, max_queue, warmup, seed, top_k;
    double temperature, top_p;
    bool quick, dry_run, json, quiet, no_plot, csv_safe, resume;
};

#define WARMUP_BY_CONCURRENCY UINT64_MAX

static struct bench_flags default_flags(bool quick)
{
    return (struct bench_flags){
        .model = MODEL_FLAGS_INIT,
        .device = "auto",
        .workload = "short",
        .ignore_eos = "auto",
        .output_dir = ".",
        .remote = ENDPOINT_FLAGS_INIT,
        .runs = quick ? 2 : 3,
        .max_concurrent = quick ? 8 : 10,
        .max_new_tokens = quick ? 8 : 20,
        .max_queue = ENGINE_DEFAULT_MAX_QUEUE,
        .warmup = quick ? 2 : WARMUP_BY_CONCURRENCY,
        .seed = 42,
        .top_k = 50,
        .temperature = 0.7,
        .top_p = 0.95,
    };
}

static void flags_deinit(struct bench_flags *f)
{
    text_list_deinit(&f->sizes);
    text_list_deinit(&f->schedulers);
    text_list_deinit(&f->sets);
    text_list_deinit(&f->fail_if);
}

#define BENCH_OPTION_COUNT 40

/* Writes the option table for f's fields; returns the number of rows. */
/* NOLINTNEXTLINE(readability-function-size): one row per option */
static size_t option_table(struct bench_flags *f, struct option_spec *out)
{
    const struct option_spec table[] = {
        {.name = "--sizes",
         .kind = OPTION_LIST,
         .target = &f->sizes,
         .value = "N ...",
         .help = "request counts, by spaces or commas (default: 25 50 100)"},
        {.name = "--runs",
         .kind = OPTION_UINT,
         .target = &f->runs,
         .min = 1,
         .max = BENCH_MAX_RUNS,
         .value = "N",
         .help = "runs of every size and scheduler (default: 3)"},
        {.name = "--schedulers",
         .kind = OPTION_LIST,
         .target = &f->schedulers,
         .value = "S ...",
         .help =
             "policies, or labelled variants such as big=naive:batch_size=16:pad=false; vllm: a "
             "server over HTTP, also a=vllm:endpoint=URL (default: naive dynamic continuous)"},
        {.name = "--set",
         .kind = OPTION_REPEAT,
         .target = &f->sets,
         .value = "S.PARAM=V",
         .help = "a parameter of a scheduler, as in dynamic.max_batch_size=64; `llmsched info "
                 "schedulers` lists them; may be repeated"},
        {.name = "--max-concurrent",
         .kind = OPTION_UINT,
         .target = &f->max_concurrent,
         .min = 1,
         .max = 100000,
         .value = "N",
         .help = "requests in flight; the next is sent when one ends "
                 "(default: 10)"},
        {.name = "--max-new-tokens",
         .kind = OPTION_UINT,
         .target = &f->max_new_tokens,
         .min = 1,
         .max = 1000000,
         .value = "N",
         .help = "output tokens of a request (default: 20)"},
        {.name = "--workload",
         .kind = OPTION_CHOICE,
         .target = &f->workload,
         .choices = "short|mixed",
         .help = "short: --max-new-tokens each; mixed: 4 to 64, seeded (default: short)"},
        {.name = "--prompts",
         .kind = OPTION_TEXT,
         .target = &f->prompts,
         .value = "FILE",
         .help = "text (one a line), JSON array, or JSON lines with prompt and max_new_tokens "
                 "(default: 118 built-in prompts)"},
        {.name = "--temperature",
         .kind = OPTION_REAL,
         .target = &f->temperature,
         .min = 0,
         .max = 100,
         .value = "T",
         .help = "0: greedy (default: 0.7)"},
        {.name = "--top-k",
         .kind = OPTION_UINT,
         .target = &f->top_k,
         .min = 0,
         .max = 1000000,
         .value = "K",
         .help = "0: off (default: 50)"},
        {.name = "--top-p",
         .kind = OPTION_REAL,
         .target = &f->top_p,
         .min = 1e-6,
         .max = 1,
         .value = "P",
         .help = "1: off (default: 0.95)"},
        {.name = "--ignore-eos",
         .kind = OPTION_CHOICE,
         .target = &f->ignore_eos,
         .choices = "auto|on|off",
         .help = "on: every request makes all its tokens (default: auto = on with random weights "
                 "or a vllm row)"},
        {.name = "--device",
         .kind = OPTION_CHOICE,
         .target = &f->device,
         .choices = "auto|cpu|cuda",
         .help = "where to compute (default: auto)"},
        {.name = "--warmup",
         .kind = OPTION_UINT,
         .target = &f->warmup,
         .min = 0,
         .max = 100000,
         .value = "N",
         .help = "other requests before each run, not recorded (default: 2 x "
                 "max-concurrent)"},
        {.name = "--max-queue",
         .kind = OPTION_UINT,
         .target = &f->max_queue,
         .min = 1,
         .max = ENGINE_QUEUE_LIMIT,
         .value = "N",
         .help = "more waiting requests than this are "
                 "rejected (default: 4096)"},
        {.name = "--seed",
         .kind = OPTION_UINT,
         .target = &f->seed,
         .min = 0,
         .max = 9007199254740991.0,
         .value = "N",
         .help = "run r uses seed + r for every scheduler "
                 "(default: 42)"},
        {.name = "--output-dir",
         .letter = 'o',
         .kind = OPTION_TEXT,
         .target = &f->output_dir,
         .value = "DIR",
         .help = "for CSV, JSON, charts and the journal; made if missing (default: .)"},
        {.name = "--fail-if",
         .kind = OPTION_REPEAT,
         .target = &f->fail_if,
         .value = "CONDITION",
         .help = "exit 5 when it holds, as in 'dynamic.throughput_req_per_sec<5'; may be repeated"},
        {.name = "--quick",
         .kind = OPTION_FLAG,
         .target = &f->quick,
         .help = "a first result in seconds: 8 requests at once, 2 runs, 8 tokens"},
        {.name = "--dry-run",
         .kind = OPTION_FLAG,
         .target = &f->dry_run,
         .help = "print cells, memory and estimated time, and stop"},
        {.name = "--resume",
         .kind = OPTION_FLAG,
         .target = &f->resume,
         .help = "complete an interrupted matrix from the journal in --output-dir"},
        {.name = "--no-plot", .kind = OPTION_FLAG, .target = &f->no_plot, .help = "draw no charts"},
        {.name = "--csv-safe",
         .kind = OPTION_FLAG,
         .target = &f->csv_safe,
         .help = "guard cells that a spreadsheet would run as formulas"},
        {.name = "--json",
         .kind = OPTION_FLAG,
         .target = &f->json,
         .help = "benchmark_results.json on stdout instead of the text"},
        {.name = "--quiet",
         .letter = 'q',
         .kind = OPTION_FLAG,
         .target = &f->quiet,
         .help = "the final summary only; no progress"},
        ENDPOINT_OPTIONS(f->remote),
        RUN_MODEL_OPTIONS(f->model),
    };
    _Static_assert(COUNT_OF(table) <= BENCH_OPTION_COUNT, "grow BENCH_OPTION_COUNT");
    memcpy(out, table, sizeof table);
    return COUNT_OF(table);
}

static enum status parse_sizes(const struct text_list *l, bool quick, struct bench_options *o,
                               struct error *err)
{
    static const uint32_t usual[] = {25, 50, 100};
    if (l->n == 0 && quick) {
        o->sizes[0] = 8;
        o->n_sizes = 1;
    } else if (l->n == 0) {
        memcpy(o->sizes, usual, sizeof usual);
        o->n_sizes = COUNT_OF(usual);
    }
    for (size_t i = 0; i < l->n; i++) {
        const char *text = l->items[i];
        char *end;
        unsigned long n = strtoul(text, &end, 10);
        if (*end != '\0' || text[0] < '0' || text[0] > '9' || n < 1 || n > BENCH_MAX_SIZE) {
            return error_set(err, STATUS_USAGE, -1, "--sizes: \"%s\" is not a number from 1 to %d",
                             text, BENCH_MAX_SIZE);
        }
        if (o->n_sizes == BENCH_MAX_SIZES) {
            return error_set(err, STATUS_USAGE, -1, "--sizes: more than %d", BENCH_MAX_SIZES);
        }
        for (uint32_t k = 0; k < o->n_sizes; k++) {
            if (o->sizes[k] == n) {
                return error_set(err, STATUS_USAGE, -1, "--sizes: %lu stands twice", n);
            }
        }
        o->sizes[o->n_sizes++] = (uint32_t)n;
    }
    return STATUS_OK;
}

static enum status parse_specs(const struct bench_flags *f, struct scheduler_spec *specs,
                               struct bench_options *o, struct error *err)
{
    static const char *const usual[] = {"naive", "dynamic", "continuous"};
    size_t n = f->schedulers.n > 0 ? f->schedulers.n : COUNT_OF(usual);
    if (n > BENCH_MAX_SCHEDULERS) {
        return error_set(err, STATUS_USAGE, -1, "--schedulers: more than %d", BENCH_MAX_SCHEDULERS);
    }
    enum status s = STATUS_OK;
    for (size_t i = 0; i < n && s == STATUS_OK; i++) {
        s = scheduler_spec_parse(f->schedulers.n > 0 ? f->schedulers.items[i] : usual[i], &specs[i],
                                 err);
    }
    for (size_t i = 0; i < f->sets.n && s == STATUS_OK; i++) {
        s = scheduler_spec_set(specs, n, f->sets.items[i], err);
    }
    o->specs = specs;
    o->n_specs = (uint32_t)n;
    return s == STATUS_OK ? scheduler_spec_check(specs, n, err) : s;
}

static bool has_remote(const struct bench_options *o)
{
    for (uint32_t i = 0; i < o->n_specs; i++) {
        if (scheduler_spec_is_remote(&o->specs[i])) {
            return true;
        }
    }
    return false;
}

static enum status make_options(const struct bench_flags *f, struct scheduler_spec *specs,
                                struct bench_options *o, struct error *err)
{
    if (strcmp(f->device, "cuda") == 0) {
        return error_set(
            err, STATUS_UNSUPPORTED, -1,
            "--device cuda: no usable GPU: this build computes on the CPU; use --device "
            "cpu");
    }
    enum status s = parse_sizes(&f->sizes, f->quick, o, err);
    if (s == STATUS_OK) {
        s = parse_specs(f, specs, o, err);
    }
    uint64_t warmup = f->warmup == WARMUP_BY_CONCURRENCY ? 2 * f->max_concurrent : f->warmup;
    bool eos_auto = strcmp(f->ignore_eos, "auto") == 0;
    o->runs = (uint32_t)f->runs;
    o->max_concurrent = (uint32_t)f->max_concurrent;
    o->max_queue = (uint32_t)f->max_queue;
    o->max_new_tokens = (uint32_t)f->max_new_tokens;
    o->warmup = (uint32_t)warmup;
    o->workload = strcmp(f->workload, "mixed") == 0 ? WORKLOAD_MIXED : WORKLOAD_SHORT;
    o->sampling = (struct sampling){.temperature = (float)f->temperature,
                                    .top_k = (uint32_t)f->top_k,
                                    .top_p = (float)f->top_p};
    o->ignore_eos =
        eos_auto ? f->model.random_weights || has_remote(o) : strcmp(f->ignore_eos, "on") == 0;
    o->seed = f->seed;
    o->prompts_path = f->prompts;
    o->output_dir = f->output_dir;
    o->resume = f->resume;
    o->csv_safe = f->csv_safe;
    o->dry_run = f->dry_run;
    if (s == STATUS_OK && f->dry_run && f->json) {
        s = error_set(err, STATUS_USAGE, -1, "--dry-run prints text: leave --json out");
    }
    return s;
}

/* The command line as one text, quoted where a shell needs it. */
static void join_command_line(int argc, char **argv, struct strbuf *out)
{
    strbuf_puts(out, "llmsched");
    for (int i = 0; i < argc; i++) {
        bool plain = argv[i][0] != '\0' &&
                     strspn(argv[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789-_./,:=") == strlen(argv[i]);
        strbuf_puts(out, plain ? " " : " '");
        for (const char *p = argv[i]; *p != '\0'; p++) {
            if (*p == '\'') {
                strbuf_puts(out, "'\\''");
            } else {
                strbuf_putc(out, *p);
            }
        }
        strbuf_puts(out, plain ? "" : "'");
    }
}

struct printer {
    const struct bench_flags *flags;
    struct progress_bar *bar;
};

static void print_text(void *self, const char *text)
{
    struct printer *p = self;
    if (p->flags->json || p->flags->quiet) {
        return;
    }
    progress_bar_clear(p->bar);
    fputs(text, stdout);
    fflush(stdout);
}

static int print_json_file(const char *folder)
{
    struct error err = ERROR_INIT;
    char *path = fs_join(folder, BENCH_RESULTS_NAME);
    char *text = NULL;
    size_t len = 0;
    enum status s =
        path == NULL ? STATUS_NO_MEMORY : fs_read_file(path, (size_t)-1 / 4, &text, &len, &err);
    if (s == STATUS_OK) {
        fwrite(text, 1, len, stdout);
    }
    mem_free(text);
    mem_free(path);
    return s == STATUS_OK ? 0 : fail(s, &err);
}

/* benchmark_report.txt and the charts. A missing gnuplot costs the charts only. */
static enum status draw(const struct bench_flags *f, const struct results *r, bool *drawn,
                        struct error *err)
{
    struct strbuf text = {0};
    text_report(r, &text);
    char *path = fs_join(f->output_dir, BENCH_REPORT_NAME);
    enum status s = path == NULL || text.failed
                        ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the report")
                        : fs_write_atomic(path, text.data, text.len, err);
    mem_free(path);
    strbuf_deinit(&text);
    if (s == STATUS_OK && !f->no_plot) {
        struct error why = ERROR_INIT;
        enum status plotted = plot_all(r, f->output_dir, &why);
        *drawn = plotted == STATUS_OK;
        if (plotted == STATUS_NOT_FOUND) {
            log_warn("no charts: %s", why.message);
        } else if (plotted != STATUS_OK) {
            *err = why;
            s = plotted;
        }
    }
    return s;
}

static bool check_thresholds(const struct threshold *t, size_t n, const struct results *r)
{
    struct strbuf text = {0};
    bool passed = true;
    for (size_t i = 0; i < n; i++) {
        passed = threshold_check(&t[i], r, &text) && passed;
    }
    fputs(strbuf_text(&text), stderr);
    strbuf_deinit(&text);
    return passed;
}

static void print_invalid(const struct run *run, const char *why, const char *detail)
{
    fprintf(stderr, "llmsched: measurement invalid: %s with %llu requests, run %llu: %s%s%s%s\n",
            run->scheduler, (unsigned long long)run->request_size, (unsigned long long)run->run_num,
            why, detail[0] != '\0' ? " (" : "", detail, detail[0] != '\0' ? ")" : "");
}

/* False when a run has nothing to measure, or measured something else; says which. */
static bool check_validity(const struct results *r)
{
    bool valid = true;
    for (size_t i = 0; i < r->n_runs; i++) {
        const struct run *run = &r->runs[i];
        if (run->summary.successful_requests == 0) {
            print_invalid(run, "none succeeded", run->n_rows > 0 ? run->rows[0].error : "");
            valid = false;
        } else if (run->invalid[0] != '\0') {
            print_invalid(run, run->invalid, "");
            valid = false;
        }
    }
    return valid;
}

static void show_comparison(const struct results *r)
{
    struct strbuf text = {0};
    strbuf_putc(&text, '\n');
    text_comparison(r, &text);
    fputs(strbuf_text(&text), stdout);
    strbuf_deinit(&text);
}

/* Saves and shows what is finished. `code` is what the run itself ended with and comes first; then
 * a fault in saving, an invalid measurement, a threshold. */
static int conclude(struct bench *b, const struct bench_flags *f, const struct threshold *t,
                    size_t n_thresholds, int code)
{
    struct error err = ERROR_INIT;
    struct results *r = bench_results(b);
    if (r->n_runs == 0) {
        return code;
    }
    bool drawn = false;
    enum status s = bench_save(b, &err);
    int saved = s == STATUS_OK ? 0 : fail(s, &err);
    if (s == STATUS_OK && (s = draw(f, r, &drawn, &err)) != STATUS_OK) {
        saved = fail(s, &err);
    }
    if (!f->json) {
        show_comparison(r);
    } else if (saved == 0) {
        saved = print_json_file(f->output_dir);
    }
    if (saved == 0 && !f->quiet) {
        log_info("results in %s: " BENCH_SUMMARIES_NAME ", " BENCH_METRICS_NAME
                 ", " BENCH_RESULTS_NAME ", " BENCH_REPORT_NAME "%s",
                 f->output_dir, drawn ? ", charts" : "");
    }
    bool valid = check_validity(r);
    bool passed = code != 0 || check_thresholds(t, n_thresholds, r);
    if (code != 0 || saved != 0) {
        return code != 0 ? code : saved;
    }
    return !valid   ? status_exit_code(STATUS_INVALID)
           : passed ? 0
                    : status_exit_code(STATUS_THRESHOLD);
}

static int run_matrix(struct bench *b, const struct bench_flags *f, const struct threshold *t,
                      size_t n_thresholds, struct progress_bar *bar,
                      const struct progress *progress)
{
    struct error err = ERROR_INIT;
    struct printer printer = {.flags = f, .bar = bar};
    struct bench_hooks hooks = {
        .print = print_text, .self = &printer, .progress = progress, .stop = stop_flag()};
    enum status s = bench_execute(b, &hooks, &err);
    progress_bar_clear(bar);
    int code = 0;
    if (s == STATUS_INTERRUPTED) {
        code = stop_exit_code();
        log_warn("interrupted: %zu of %llu runs finished; --resume completes them",
                 bench_results(b)->n_runs,
                 (unsigned long long)bench_results(b)->settings.runs_planned);
    } else if (s != STATUS_OK) {
        code = fail(s, &err);
    }
    return conclude(b, f, t, n_thresholds, code);
}

static int bench_with(struct bench_flags *f, int argc, char **argv)
{
    struct error err = ERROR_INIT;
    struct scheduler_spec specs[BENCH_MAX_SCHEDULERS];
    struct threshold thresholds[MAX_THRESHOLDS];
    struct bench_options options = {0};
    struct bench *b = NULL;
    struct strbuf text = {0};
    struct progress_bar bar;
    progress_bar_init(&bar, f->quiet);
    struct progress progress = progress_bar_hook(&bar);
    struct hub_env env = hub_env_from_environment();
    struct endpoint_store store = {0};
    options.model = model_options_from(&f->model, &env, &progress);
    enum status s = make_options(f, specs, &options, &err);
    if (s == STATUS_OK && has_remote(&options)) {
        s = endpoint_options_from(&f->remote, &store, &options.remote, &err);
    }
    if (s == STATUS_OK && f->fail_if.n > MAX_THRESHOLDS) {
        s = error_set(&err, STATUS_USAGE, -1, "--fail-if: more than %d", MAX_THRESHOLDS);
    }
    for (size_t i = 0; i < f->fail_if.n && s == STATUS_OK; i++) {
        s = threshold_parse(f->fail_if.items[i], specs, options.n_specs, &thresholds[i], &err);
    }
    join_command_line(argc, argv, &text);
    options.command_line = strbuf_text(&text);
    if (s == STATUS_OK) {
        s = bench_prepare(&options, &b, &err);
    }
    strbuf_clear(&text);
    int code;
    if (s == STATUS_OK && f->dry_run) {
        s = bench_describe(b, &text, &err);
        fputs(strbuf_text(&text), stdout);
        code = s == STATUS_OK ? 0 : fail(s, &err);
    } else if (s == STATUS_OK) {
        stop_install();
        code = run_matrix(b, f, thresholds, f->fail_if.n, &bar, &progress);
    } else {
        code = fail(s, &err);
    }
    strbuf_deinit(&text);
    bench_destroy(b);
    endpoint_store_deinit(&store);
    return code;
}

static int run(int argc, char **argv)
{
    bool quick = false;
    for (int i = 1; i < argc; i++) {
        quick = quick || strcmp(argv[i], "--quick") == 0;
    }
    struct bench_flags flags = default_flags(quick);
    struct option_spec specs[BENCH_OPTION_COUNT];
    size_t n_specs = option_table(&flags, specs);
    struct error err = ERROR_INIT;
    bool help;
    enum status s = options_parse(specs, n_specs, argc, argv, NULL, &help, &err);
    int code;
    if (s != STATUS_OK) {
        code = fail(s, &err);
    } else if (help) {
        options_print_help(&command_bench, specs, n_specs);
        code = 0;
    } else {
        log_set_level(flags.quiet ? LOG_WARN : LOG_INFO);
        code = bench_with(&flags, argc, argv);
    }
    flags_deinit(&flags);
    return code;
}

const struct command command_bench = {
    .name = "bench",
    .summary = "Compare schedulers on a real model, and servers: the main job.",
    .usage = "[OPTIONS]",
    .examples =
        "  llmsched bench --quick\n"
        "  llmsched bench --sizes 25 50 100 --runs 3 --max-concurrent 10\n"
        "  llmsched bench --schedulers naive big=naive:batch_size=10 continuous\n"
        "  llmsched bench --schedulers continuous vllm --endpoint http://localhost:8000/v1\n"
        "  llmsched bench --workload mixed --set dynamic.max_batch_size=64 -o results\n"
        "  llmsched bench --random-weights --model gpt2 --sizes 10 --runs 1\n"
        "  llmsched bench --fail-if 'dynamic.throughput_req_per_sec<5'\n",
    .run = run,
};
