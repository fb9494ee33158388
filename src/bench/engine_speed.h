/*
 * engine_speed.h - how fast the embedded engine is, beside what the machine can do at best.
 *
 *   load all dtypes ─► round 1: f32 [limits, every load, limits], bf16 [...], int8 [...]
 *                      round 2: the same ...       (so drift of the machine hits all dtypes alike)
 *
 * A load is n requests at once through the real engine with the scheduler `continuous`, and one
 * cell is a load in a dtype. Decode: the steps in which all n streams gain a token and nothing else
 * happens. Prefill: the one step of a long prompt. A step lasts from the end of the step before it,
 * so that the scheduler and the engine between steps are in it.
 *
 * A cell of a round is void when others used too much of the machine meanwhile: nothing is reported
 * of it, and it is tried again in a later round.
 *
 * The limit of a step: its weights and keys and values read at the machine's read rate, or its
 * multiply-adds at the peak of the dtypes they are kept in, whichever takes longer (infer/cost.h).
 * Rates are the better of two measurements, just before and just after the dtype's loads.
 */
#ifndef LLMSCHED_BENCH_ENGINE_SPEED_H
#define LLMSCHED_BENCH_ENGINE_SPEED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/status.h"
#include "base/strbuf.h"
#include "bench/loaded_model.h"
#include "report/results.h"
#include "tensor/limits.h"

#define ENGINE_SPEED_MAX_STREAM_COUNTS 16
#define ENGINE_SPEED_MAX_LOADS         (ENGINE_SPEED_MAX_STREAM_COUNTS + 1)
#define ENGINE_SPEED_MAX_ROUNDS        100
/* Void cells are tried again in at most this many times as many rounds. */
#define ENGINE_SPEED_EXTRA_ROUNDS 2

struct engine_speed_options {
    struct model_options model; /* its dtype, kv_blocks and max_rows are chosen here */
    enum tensor_dtype dtypes[TENSOR_DTYPES];
    uint32_t n_dtypes;
    uint32_t streams[ENGINE_SPEED_MAX_STREAM_COUNTS];
    uint32_t n_streams;
    uint32_t prompt_tokens;
    uint32_t new_tokens;     /* >= 2: the first comes from the prompt's step */
    uint32_t prefill_tokens; /* 0: none */
    uint32_t rounds;
    double max_load; /* share of the machine; a cell with as much or more is void; 1: never */
    const volatile int *stop;
    const struct progress *progress;
};

enum engine_part {
    ENGINE_PART_MATMUL, /* products of the layers */
    ENGINE_PART_HEAD,
    ENGINE_PART_ATTENTION,
    ENGINE_PART_NORMS, /* with residuals, activations, embedding */
    ENGINE_PART_SAMPLING,
    ENGINE_PART_SCHEDULER, /* everything outside the executor: policy, engine, events */
    ENGINE_PART_REST,      /* of the executor */
    ENGINE_PARTS
};
const char *engine_part_name(enum engine_part part);

/* One cell of one round. */
struct engine_speed_sample {
    double tokens_per_s;
    double step_s; /* mean */
    double part_s[ENGINE_PARTS];
    double foreign_frac;
    double read_s; /* the machine's limit of such a step, by either side */
    double arithmetic_s;
};

struct engine_speed_cell {
    enum tensor_dtype dtype;
    bool is_prefill;
    uint32_t streams;
    uint32_t n_samples; /* valid ones */
    uint32_t n_void;
    struct engine_speed_sample *samples; /* [rounds] */
};

struct engine_speed_result {
    struct environment environment; /* with isa and threads */
    char *model;
    uint64_t parameters;
    double load_s[TENSOR_DTYPES]; /* 0: not loaded */
    struct tensor_limits *limits; /* one a dtype and round: the better of before and after */
    uint32_t n_limits;
    struct engine_speed_cell *cells; /* by dtype, then load */
    uint32_t n_cells;
    bool is_partial; /* interrupted */
};

/*
 * Loads the models and measures. *out is filled on OK and on INTERRUPTED (what is finished; a
 * dtype's loads count once the limits after them are taken); owner: the caller
 * (engine_speed_deinit). Errors: those of loading; USAGE (does not fit the model's context),
 * NO_MEMORY, BAD_MODEL (logits that are not finite). That all is void is no error here.
 */
enum status engine_speed_run(const struct engine_speed_options *options,
                             struct engine_speed_result *out, struct error *err) MUST_USE;
void engine_speed_deinit(struct engine_speed_result *r);

/* Over all cells. */
struct engine_speed_count {
    uint32_t n_valid;
    uint32_t n_void;
};
struct engine_speed_count engine_speed_count(const struct engine_speed_result *r);

/* A table for people, and one JSON object (format llmsched-bench-engine-1). Errors: NO_MEMORY. */
void engine_speed_print_text(const struct engine_speed_options *o,
                             const struct engine_speed_result *r, struct strbuf *out);
enum status engine_speed_print_json(const struct engine_speed_options *o,
                                    const struct engine_speed_result *r, struct strbuf *out,
                                    struct error *err) MUST_USE;

#endif
