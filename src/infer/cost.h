/*
 * cost.h - what a step must read and multiply, whatever the kernels do: with the machine's rates
 * (tensor/limits.h) it bounds a step's time from below.
 *
 * Counts the matrices as they are packed, each in its own dtype, the KV cache, and the products
 * inside attention; not norms, position tables and activations.
 */
#ifndef LLMSCHED_INFER_COST_H
#define LLMSCHED_INFER_COST_H

#include <stdint.h>

#include "infer/network.h"
#include "tensor/tensor.h"

struct network_cost {
    uint64_t layer_bytes; /* packed weights of all layers: read once a step, however many rows */
    uint64_t head_bytes;  /* of the LM head: likewise, when any row is sampled */
    /* Of one position: keys and values, and multiply-adds (in f32) of a row that attends to it, in
     * all layers of a kind: global, local. */
    struct network_attention_cost {
        uint64_t kv_bytes;
        uint64_t multiply_adds;
        uint64_t window; /* positions a row attends to at most */
    } attention[2];
    /* Multiply-adds of one row, by the dtype that the weights are kept in. */
    uint64_t layer_multiply_adds[TENSOR_DTYPES];
    uint64_t head_multiply_adds[TENSOR_DTYPES];
};

/* kv_dtype: what keys and values are stored in. */
void cost_of_network(const struct network *net, enum tensor_dtype kv_dtype,
                     struct network_cost *out);

#endif
