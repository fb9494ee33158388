/* bench_int.h - shared by the bench's own files. */
#ifndef LLMSCHED_BENCH_BENCH_INT_H
#define LLMSCHED_BENCH_BENCH_INT_H

#include "bench/bench.h"
#include "bench/journal.h"
#include "bench/remote_row.h"
#include "load/prompts.h"

/* One cell of the matrix. */
struct cell {
    uint32_t size;
    uint32_t run; /* 1 .. runs */
    uint32_t spec;
};

struct bench {
    struct bench_options options;
    char *output_dir;
    char *command_line;
    char *prompts_name;
    struct model_parts files; /* until the model is loaded; may be empty when only servers run */
    struct loaded_model model;
    bool loaded;
    struct remote_row *rows; /* by spec; those in process are unused */
    struct prompt_set prompts;
    struct tokenized_prompt *tokenized; /* one per prompt */
    struct token_ids ids;               /* all their ids, end to end; none without a tokenizer */
    struct cell *cells;                 /* in the order of execution */
    uint32_t n_cells;
    struct journal journal; /* locked from prepare on */
    struct strbuf fingerprint;
    struct results results;
    /* progress over the matrix */
    uint64_t requests_done;
    uint64_t requests_total;
};

/* prepare.c */
enum status bench_tokenize_prompts(struct bench *b, struct error *err);
/* b->fingerprint: the text that says which matrix this is. Journals of another are not resumed. */
enum status bench_fingerprint(struct bench *b, struct error *err);

/* execute.c: is the cell's run there already? */
bool bench_is_finished(const struct bench *b, const struct cell *cell);

/* remote_find.c: rows over HTTP. */
bool bench_has_local(const struct bench *b);
bool bench_has_runs(const struct bench *b, uint32_t spec);
/* b->rows with parsed endpoints. Errors: USAGE. */
enum status bench_open_rows(struct bench *b, struct error *err);
/* Asks the server of each row that has cells left; fills b->rows and the results' servers. Errors:
 * UNREACHABLE when nothing at all can run; USAGE for a model that is not served, a key, a request
 * that is refused. */
enum status bench_find_servers(struct bench *b, struct error *err);
/* A server that answered does not any more; written to the journal. */
enum status bench_lose_server(struct bench *b, uint32_t spec, const char *why, struct error *err);
enum status bench_note_servers(struct bench *b, struct error *err); /* all, to the journal */

/* remote_cell.c: as bench_run_cell. UNREACHABLE when the server does not answer any more. */
enum status bench_run_remote_cell(struct bench *b, const struct cell *cell,
                                  const struct bench_hooks *hooks, struct run *run,
                                  struct error *err);

/* cell.c: the requests of a cell, or of its warm-up. */
enum status bench_make_workload(const struct bench *b, const struct cell *cell, bool warmup,
                                struct workload *out, struct error *err);
/* A model may write U+0000, which ends a text in CSV and JSON readers: U+FFFD stands for it. */
void bench_replace_nul(struct strbuf *text);
/* Label, kind, parameters, size, number and seed. */
enum status bench_name_run(const struct bench *b, const struct cell *cell, struct run *run,
                           struct error *err);

/* cell.c: one cell into *run (owner: the caller). INTERRUPTED when *stop became non-zero. */
enum status bench_run_cell(struct bench *b, const struct cell *cell,
                           const struct bench_hooks *hooks, struct run *run, struct error *err);

/* describe.c */
uint64_t bench_cell_tokens(const struct bench *b, uint32_t size, uint32_t run);
/* Output tokens that a request of prompt i can ask for, at most. */
uint32_t bench_max_new_tokens(const struct bench *b, size_t prompt);

#endif
