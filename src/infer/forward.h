/*
 * forward.h - the decoder: rows of any mix of sequences through all layers, then the LM head for
 * the rows that are asked for.
 *
 *   embed (+ positions) -> L x [ norm, QKV, rotate, store K V, attend, O, +, norm, MLP, + ]
 *   select rows -> final norm -> LM head -> logits
 *
 * A row is one token position of one sequence. It attends to its own sequence's positions up to its
 * own (in a local layer, the last `window` of them), through its block table. All keys of a call
 * are stored before any row attends, so chunks of a prompt may stand in one call, in any order.
 * Pad rows go through the matrix products, norms and activations, touch no KV and attend to
 * nothing.
 *
 * Invariants: work is split over the pool by output panels, by (rows that attend
 * together, kv head) and by rows, so that
 * one thread computes an output in one fixed order: a row's bits depend on its sequence only.
 * Everything is allocated in forward_create. Thread: one caller at a time.
 */
#ifndef LLMSCHED_INFER_FORWARD_H
#define LLMSCHED_INFER_FORWARD_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "infer/kv.h"
#include "infer/network.h"
#include "tensor/pool.h"
#include "tensor/tensor.h"

/* Rows of one LM head product: enough to reach the arithmetic limit, and the logits of 64 rows are
 * small beside the head itself. */
#define FORWARD_HEAD_ROWS 64

struct forward;

struct forward_row {
    int32_t token;
    uint32_t position;
    const uint32_t *blocks; /* block i holds positions 16 i ...; NULL: a pad row */
};

struct forward_timing {
    uint64_t rows;
    uint64_t matmul_ns;
    uint64_t attention_ns;
    uint64_t norm_ns;
    uint64_t head_ns;
};

/* net, kv and pool are borrowed and outlive the result. Errors: NO_MEMORY. */
enum status forward_create(const struct network *net, const struct kv *kv, struct pool *pool,
                           uint32_t max_rows, struct forward **out, struct error *err) MUST_USE;
void forward_destroy(struct forward *f);
/* What forward_create allocates. */
uint64_t forward_bytes(const struct model_config *c, const struct tensor_ops *ops,
                       enum tensor_dtype dtype, uint32_t max_len, uint32_t max_rows,
                       uint32_t n_threads);

/* All layers for n <= max_rows rows; the results stay inside until the next call. Positions below
 * max_len, tokens below V, blocks inside kv: the caller checked. Alloc: nothing. */
void forward_layers(struct forward *f, const struct forward_row *rows, uint32_t n);

/* Final norm of row `row` of the last forward_layers into head slot `slot` < FORWARD_HEAD_ROWS. */
void forward_select(struct forward *f, uint32_t row, uint32_t slot);

/* LM head of slots 0 .. n - 1. Slot s: V logits at result + s * *stride; valid until the next call.
 */
const float *forward_head(struct forward *f, uint32_t n, size_t *stride);

void forward_timing_get(const struct forward *f, struct forward_timing *out);
void forward_timing_reset(struct forward *f);

#endif
