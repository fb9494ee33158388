/* bench_int.h - shared by the bench's own files. */
#ifndef LLMSCHED_BENCH_BENCH_INT_H
#define LLMSCHED_BENCH_BENCH_INT_H

#include "bench/bench.h"
#include "bench/journal.h"
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
    struct model_parts files; /* until the model is loaded */
    struct loaded_model model;
    bool loaded;
    struct prompt_set prompts;
    struct tokenized_prompt *tokenized; /* one per prompt */
    struct token_ids ids;               /* all their ids, end to end */
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

/* cell.c: one cell into *run (owner: the caller). INTERRUPTED when *stop became non-zero. */
enum status bench_run_cell(struct bench *b, const struct cell *cell,
                           const struct bench_hooks *hooks, struct run *run, struct error *err);

/* describe.c */
uint64_t bench_cell_tokens(const struct bench *b, uint32_t size, uint32_t run);
/* Output tokens that a request of prompt i can ask for, at most. */
uint32_t bench_max_new_tokens(const struct bench *b, size_t prompt);

#endif
