/*
 * results.h - a whole comparison as plain data, and its files.
 *
 *   bench ──► struct run (one per cell) ──► journal line ──► struct results ──► files, text, plots
 *   plot  ──► CSV ─────────────────────────────────────────► struct results ──► text, plots
 *
 * Owner: results own their strings and rows (results_deinit).
 */
#ifndef LLMSCHED_REPORT_RESULTS_H
#define LLMSCHED_REPORT_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "metrics/recorder.h"
#include "metrics/summary.h"

#define RESULTS_SCHEMA_VERSION 1

/* One line of benchmark_detailed_metrics.csv. Times in seconds from the first send; NaN: empty. */
struct request_row {
    uint64_t request_id;
    enum record_status status;
    double arrival_s;
    double queue_s;
    double ttft_s;
    double tpot_s;
    double latency_s;
    uint64_t input_tokens;
    uint64_t output_tokens;
    double tokens_per_sec; /* output_tokens / latency_s */
    uint64_t batch_size;
    uint64_t preemptions;
    uint64_t output_hash; /* of the output ids; equal ids, equal hash */
    char *prompt;
    char *generated_text;
    char *error; /* "" when ok */
};

struct run {
    char *scheduler; /* label */
    char *policy;
    char *params;         /* "batch_size=4 timeout=0.5 pad=true": every parameter, in table order */
    uint64_t fill_target; /* batch size the policy waits to fill, 0 none */
    uint64_t request_size;
    uint64_t run_num; /* 1, 2, ... */
    uint64_t seed;
    struct run_summary summary;
    struct request_row *rows;
    size_t n_rows;
};

/* What ran where. Strings may be "". */
struct environment {
    char *llmsched_version;
    char *commit;
    char *compiler;
    char *command_line;
    char *started_at; /* ISO 8601, UTC */
    char *cpu;
    char *isa;
    char *kernel; /* operating system release */
    uint64_t cores;
    uint64_t threads;
    uint64_t memory_bytes;
};

struct model_identity {
    char *name;
    char *path;
    char *architecture;
    char *format; /* "gguf", "safetensors", "random weights" */
    char *dtype;  /* of the arithmetic: "f32" */
    char *tokenizer;
    uint64_t parameters;
    bool random_weights;
};

struct bench_settings {
    char *workload;
    char *device;
    uint64_t max_concurrent;
    uint64_t max_new_tokens;
    uint64_t kv_blocks;
    uint64_t block_tokens;
    uint64_t max_queue;
    uint64_t warmup_requests;
    uint64_t seed;
    uint64_t runs_planned; /* cells of the whole matrix */
    double temperature;
    uint64_t top_k;
    double top_p;
    bool ignore_eos;
};

struct results {
    struct environment environment;
    struct model_identity model;
    struct bench_settings settings;
    struct run *runs;
    size_t n_runs;
    bool partial; /* interrupted: not every planned cell is here */
};

void run_deinit(struct run *r);
void results_deinit(struct results *r);
/* Takes over *run (which is zeroed); its rows are put in order of request_id. BAD_DATA: the same
 * scheduler, size and run number, or the same request of a run, twice; *run stays the caller's. */
enum status results_add(struct results *r, struct run *run, struct error *err) MUST_USE;

/* The figures of one row, its hash included; request_id and the texts are the caller's. */
void request_row_from_record(const struct record *rec, uint64_t first_send_ns,
                             struct request_row *row);
/* Hash for request_row.output_hash, of the output ids as int32_t. */
uint64_t results_hash(const void *bytes, size_t n);

/* Files, each written whole (temporary name, fsync, rename). csv_safe: guard cells that spreadsheet
 * programs would run as formulas with a leading apostrophe. */
enum status results_write_summaries_csv(const struct results *r, const char *path, bool csv_safe,
                                        struct error *err) MUST_USE;
enum status results_write_detailed_csv(const struct results *r, const char *path, bool csv_safe,
                                       struct error *err) MUST_USE;
enum status results_write_json(const struct results *r, const char *path,
                               struct error *err) MUST_USE;

/* Journal: a head line (environment, model, settings, and a fingerprint text that says what matrix
 * it is), then one line per run. All JSON, no newline inside, one at the end of each line. */
enum status results_head_to_line(const struct results *r, const char *fingerprint,
                                 struct strbuf *out, struct error *err) MUST_USE;
enum status results_run_to_line(const struct run *run, struct strbuf *out,
                                struct error *err) MUST_USE;
/* A whole journal text; a torn last line (no newline) is skipped and reported in *torn. A bad line
 * elsewhere is BAD_DATA with its number. *fingerprint: caller frees (mem_free); NULL when not even
 * the head line is whole. out->partial says whether planned cells are missing. */
enum status results_from_journal(const char *text, size_t len, const char *path,
                                 struct results *out, char **fingerprint, bool *torn,
                                 struct error *err) MUST_USE;

/* Reads the two CSVs, columns in any order, extra ones ignored, a missing one named. metrics_path
 * may be NULL (then rows are absent). */
enum status results_read_csv(const char *summaries_path, const char *metrics_path,
                             struct results *out, struct error *err) MUST_USE;

/* Do all schedulers give the same output for the same request of the same size and run? */
struct text_verdict {
    /* (request, scheduler) pairs held against the first scheduler that finished it */
    uint64_t compared;
    uint64_t differing;
    char example[256]; /* "size 25 run 1 request 7: naive and dynamic differ", "" when none */
};
void results_same_text(const struct results *r, struct text_verdict *out);

/* A figure by its CSV column name from a summary; false: no such column or not numeric. NaN:
 * undefined. */
bool results_figure(const struct run *run, const char *column, double *value);
/* All numeric column names, NULL-terminated. */
const char *const *results_figure_names(void);

#endif
