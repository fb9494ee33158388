/*
 * network.h - a model ready to compute: packed matrices, norms, position tables.
 *
 *   weights (rows in f32, by role and layer) ──network_load──► struct network (read-only after)
 *
 * Matrices that share their input are packed as one: Q, K, V as [(H+2G)*D, C], gate and up as
 * [2F, C]. Rows are read in bounded pieces by all threads, so the peak is the packed size plus
 * NETWORK_READ_BYTES a thread. A tied head serves as embedding too: rows are read back out of its
 * panels.
 *
 * Letters: C channels, H heads, G kv heads, D head size, F feed-forward, V vocabulary.
 */
#ifndef LLMSCHED_INFER_NETWORK_H
#define LLMSCHED_INFER_NETWORK_H

#include <stdint.h>

#include "base/log.h"
#include "base/status.h"
#include "model/config.h"
#include "model/weights.h"
#include "tensor/pool.h"
#include "tensor/tensor.h"

/* One piece of a matrix while loading: large enough for long reads, small beside any model. */
#define NETWORK_READ_BYTES ((size_t)1 << 20)

struct network_norm {
    float *weight; /* [C] */
    float *bias;   /* [C], NULL none */
};

struct network_layer {
    struct network_norm attn_norm;
    struct network_norm mlp_norm;
    struct packed_matrix qkv;  /* rows: H*D of Q, G*D of K, G*D of V */
    struct packed_matrix o;    /* [C, H*D] */
    struct packed_matrix up;   /* gated: rows of gate, then of up [2F, C]; else [F, C] */
    struct packed_matrix down; /* [C, F] */
};

struct network {
    struct model_config config;
    const struct tensor_ops *ops;
    uint32_t max_len;             /* positions the tables hold */
    struct network_layer *layers; /* [n_layers] */
    struct network_norm final_norm;
    struct packed_matrix head; /* [V, C] */
    void *matrices;            /* of the layers and the head: one stretch, for huge pages */
    float *embed;              /* [V, C]; NULL: read rows of head */
    float *positions;          /* [max_len, C]; POSITION_LEARNED */
    float *rope_cos;           /* [max_len, D/2]; POSITION_ROPE */
    float *rope_sin;
};

/* Errors: NO_MEMORY, UNSUPPORTED (rotary positions with an odd head size), and those of
 * weights_read_rows. On error *net is untouched and nothing is kept. */
enum status network_load(struct network *net, const struct model_config *config,
                         const struct weights *weights, const struct tensor_ops *ops,
                         enum tensor_dtype dtype, struct pool *pool, uint32_t max_len,
                         const struct progress *progress, struct error *err) MUST_USE;
void network_deinit(struct network *net);

/* Bytes network_load keeps, biases and padding included as if every bias were present. */
uint64_t network_bytes(const struct model_config *config, const struct tensor_ops *ops,
                       enum tensor_dtype dtype, uint32_t max_len);

/* Row of the embedding: out[C]. Requires 0 <= token < V. */
void network_embed(const struct network *net, int32_t token, float *out);

#endif
