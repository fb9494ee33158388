/*
 * exec_model.h - the executor that computes: a decoder on this machine's CPU.
 *
 *   config + weights ──create──► packed network, KV storage, activations (run lifetime, once)
 *   step ──submit/poll──► rows of many sequences through all layers, LM head for rows that are
 *                         sampled or scored, sampling, log-probabilities, detection of
 *                         end-of-sequence and stop tokens and of the length
 *
 * Invariants: a step allocates nothing (mem_step_begin/end stand around it). A sequence's logits
 * and tokens depend on its own tokens, sample_key and sampling only: not on batch mates, pad rows,
 * chunk cuts, block numbers, thread count or preemption; bit for bit, per build and instruction
 * set. So do the log-probabilities, which are written within the step. Sampling draws from
 * rng_at(sample_key, index of the new token in the sequence). Thread: one owner; the work inside is
 * spread over the executor's own pool.
 */
#ifndef LLMSCHED_INFER_EXEC_MODEL_H
#define LLMSCHED_INFER_EXEC_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/status.h"
#include "core/executor.h"
#include "infer/cost.h"
#include "model/config.h"
#include "model/weights.h"
#include "tensor/tensor.h"

struct exec_model;

/* Defaults of the fields below that are 0. */
#define EXEC_MODEL_KV_BLOCKS 4096
#define EXEC_MODEL_MAX_ROWS  256

/* Sees the raw logits [V] of every sampled row before the token is drawn; borrowed for the call.
 * For oracles. Must not allocate. Runs on the owner's thread, in order of items. */
struct exec_model_tap {
    void (*fn)(void *self, const struct exec_item *item, const float *logits);
    void *self;
};

struct exec_model_options {
    const struct model_config *config; /* copied */
    const struct weights *weights;     /* read during create only; may be closed after it */
    const struct tensor_ops *ops;      /* NULL: the best of this machine (LLMSCHED_ISA is cli's) */
    uint32_t n_threads;                /* 0: pool_default_threads() */
    uint32_t kv_blocks;                /* blocks of 16 tokens; 0: EXEC_MODEL_KV_BLOCKS */
    uint32_t max_model_len;            /* prompt + output, tokens; 0 or above n_ctx: n_ctx */
    uint32_t max_rows;                 /* rows pushed through the layers at once, and the advice in
                                          executor.info.token_budget; larger steps are cut;
                                          0: EXEC_MODEL_MAX_ROWS */
    enum tensor_dtype dtype;           /* of weights; 0: f32. See tensor_dtype_for */
    enum tensor_dtype kv_dtype;        /* of stored keys and values: 0: f32, or bf16 */
    struct exec_model_tap tap;         /* fn NULL: none */
    const struct progress *progress;   /* "loading weights", in bytes of packed f32; NULL: silent */
};

/* Loads and packs. Errors: NO_MEMORY (names the bytes), UNSUPPORTED (a shape the kernels cannot
 * run), and what weights_read_rows returns. */
enum status exec_model_create(const struct exec_model_options *options, struct exec_model **out,
                              struct error *err) MUST_USE;
void exec_model_destroy(struct exec_model *m);

/* The interface the engine drives; borrowed, lives as long as m. submit refuses (USAGE) a second
 * step in flight and an item that does not fit the model; poll computes. A sequence whose logits
 * are not finite finishes with FINISH_ERROR, the others are untouched. */
struct executor *exec_model_executor(struct exec_model *m);

/* Why the last FINISH_ERROR happened; "" if none. Borrowed, until the next one. */
const char *exec_model_last_error(const struct exec_model *m);

/* Logits at every position of one prompt: logits[n * V], row i after tokens[0..i]. Uses the KV
 * blocks from 0 on: never while sequences of an engine live. For oracles and `generate`-like tools.
 * Errors: USAGE (n is 0, above max_model_len or the KV blocks, or an id >= V), NO_MEMORY. */
enum status exec_model_logits(struct exec_model *m, const int32_t *tokens, uint32_t n,
                              float *logits, struct error *err) MUST_USE;

/* Where the time of the steps since the last reset went. Wall clock of the owner's thread, so
 * waiting for the slowest worker is included. */
struct exec_model_timing {
    uint64_t steps;
    uint64_t rows; /* pushed through the layers, pad rows included */
    uint64_t total_ns;
    uint64_t matmul_ns;    /* Q, K, V, O and MLP products */
    uint64_t attention_ns; /* rotation, KV writes, attention */
    uint64_t norm_ns;      /* norms, residuals, activations, embedding */
    uint64_t head_ns;      /* LM head */
    uint64_t sample_ns;
};
void exec_model_timing_get(const struct exec_model *m, struct exec_model_timing *out);
void exec_model_timing_reset(struct exec_model *m);

/* What a step must read and multiply at least. */
void exec_model_cost(const struct exec_model *m, struct network_cost *out);

/* What create would allocate, so that a run can be refused beforehand. options->weights may be
 * NULL. KV pages are reserved, and only touched when used: kv_bytes is the most they can grow to.
 */
struct exec_model_memory {
    uint64_t weight_bytes;
    uint64_t kv_bytes;
    uint64_t activation_bytes;
    uint64_t total_bytes;
};
enum status exec_model_estimate(const struct exec_model_options *options,
                                struct exec_model_memory *out, struct error *err) MUST_USE;

/* As created: what a report states. */
const char *exec_model_isa(const struct exec_model *m);
uint32_t exec_model_threads(const struct exec_model *m);

#endif
