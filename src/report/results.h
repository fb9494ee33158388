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
    uint64_t output_hash; /* of the output ids; equal ids, equal hash; 0: ids not known */
    char *prompt;
    char *generated_text;
    char *error;          /* "" when ok */
    uint64_t http_status; /* over HTTP; COUNT_UNKNOWN: none came */
    double longest_gap_s; /* over HTTP: between two content events; NaN: fewer than two */
};

/* What a row over HTTP has and a row in process has not. */
struct remote_figures {
    char *endpoint; /* "" in process */
    char *served_model;
    char *server_version;
    char *token_source; /* how output tokens were counted: the weakest way of the run */
    char *errors;       /* by class: "connect 2, timeout 1" */
    uint64_t server_prompt_tokens;
    double cached_prompt_frac;
    double tokens_per_event; /* mean, per content event */
    double client_lag_p50_s; /* send - planned */
    double client_lag_p99_s;
    double client_cpu_frac; /* of one core */
};

/* Above this the events are no longer tokens. */
#define REMOTE_CHUNKED 1.05

struct run {
    char *scheduler; /* label */
    char *policy;
    char *params;         /* "batch_size=4 timeout=0.5 pad=true": every parameter, in table order */
    uint64_t fill_target; /* batch size the policy waits to fill, 0 none */
    uint64_t request_size;
    uint64_t run_num; /* 1, 2, ... */
    uint64_t seed;
    char *invalid;      /* why the figures measure something else; "": they are valid */
    char *incomparable; /* why no ratio is drawn against other rows; "": it may be */
    struct run_summary summary;
    struct remote_figures remote;
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
    char *format;   /* "gguf", "safetensors", "random weights" */
    char *dtype;    /* of the arithmetic: "f32" */
    char *kv_dtype; /* of stored keys and values; "" where a server holds them */
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

/* The server behind a row over HTTP, as it was found. */
struct server_facts {
    char *scheduler; /* the row's label */
    char *endpoint;
    char *state; /* SERVER_OK, ... */
    char *why;   /* "" when ok */
    char *model;
    char *version;
    char *dtype; /* of its arithmetic */
    char *cache_config;
    uint64_t max_model_len;
    char *refused_fields; /* "top_k, seed": not sent, as the server refuses them */
};
#define SERVER_OK          "ok"
#define SERVER_UNREACHABLE "unreachable" /* did not answer before the first run */
#define SERVER_LOST        "lost"        /* did not answer any more at a later one */

struct results {
    struct environment environment;
    struct model_identity model;
    struct bench_settings settings;
    struct run *runs;
    size_t n_runs;
    struct server_facts *servers; /* one per row over HTTP that was tried */
    size_t n_servers;
    bool partial; /* interrupted: not every planned cell is here */
};

/* Everything that may be unknown is. */
void run_init(struct run *r);
bool run_is_remote(const struct run *r);
void run_deinit(struct run *r);
void results_deinit(struct results *r);
/* Takes over *run (which is zeroed); its rows are put in order of request_id. BAD_DATA: the same
 * scheduler, size and run number, or the same request of a run, twice; *run stays the caller's. */
enum status results_add(struct results *r, struct run *run, struct error *err) MUST_USE;

/* Adds the facts, or puts them in place of those of the same row. Takes over *facts (which is
 * zeroed). Errors: NO_MEMORY; *facts stays the caller's. */
enum status results_set_server(struct results *r, struct server_facts *facts,
                               struct error *err) MUST_USE;
/* Of the row with that label, or NULL. */
const struct server_facts *results_server(const struct results *r, const char *scheduler);
void server_facts_deinit(struct server_facts *facts);

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
 * it is), then one line per run, and one per server when it was tried (the last one counts). All
 * JSON, no newline inside, one at the end of each line. */
enum status results_head_to_line(const struct results *r, const char *fingerprint,
                                 struct strbuf *out, struct error *err) MUST_USE;
enum status results_run_to_line(const struct run *run, struct strbuf *out,
                                struct error *err) MUST_USE;
enum status results_server_to_line(const struct server_facts *facts, struct strbuf *out,
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

/* Do all schedulers in process give the same output for the same request of the same size and run?
 */
struct text_verdict {
    /* (request, scheduler) pairs held against the first scheduler that finished it */
    uint64_t compared;
    uint64_t differing;
    char example[256]; /* "size 25 run 1 request 7: naive and dynamic differ", "" when none */
};
void results_same_text(const struct results *r, struct text_verdict *out);

/* How far do the texts of a row over HTTP agree with those that a row in process gave to the same
 * requests? In characters, from the first on to the first that differs; of the longer text. */
struct prefix_verdict {
    uint64_t compared; /* requests */
    uint64_t identical;
    uint64_t characters;
    uint64_t equal_characters;
};
void results_equal_prefix(const struct results *r, const char *scheduler,
                          struct prefix_verdict *out);

/* A figure by its CSV column name from a summary; false: no such column or not numeric. NaN:
 * undefined. */
bool results_figure(const struct run *run, const char *column, double *value);
/* All numeric column names, NULL-terminated. */
const char *const *results_figure_names(void);

#endif
