/*
 * kv.h - storage of keys and values in blocks of 16 positions. It holds, it does not account: which
 * sequence owns which block is the engine's business.
 *
 * Layout: [block][layer][kv head]{K tile [D][16], V tile [16][D]}, of f32 or bf16: the tiles
 * that tensor_ops.attend reads, one block contiguous. Address space is reserved at once, pages are
 * touched on first use: memory in use follows the blocks that were ever written.
 *
 * Invariant: a cell is written for a position before any row attends to it; what older owners left
 * behind in a block is never read as a key (attend stops at the row's own position).
 */
#ifndef LLMSCHED_INFER_KV_H
#define LLMSCHED_INFER_KV_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "model/config.h"
#include "tensor/tensor.h"

#define KV_BLOCK_TOKENS TENSOR_KV_TILE

struct kv {
    char *data;
    size_t bytes;
    enum tensor_dtype dtype;
    uint32_t n_blocks;
    uint32_t n_layers;
    uint32_t n_kv_heads; /* G */
    uint32_t head_size;  /* D */
};

/* Bytes of n_blocks blocks; UINT64_MAX when they exceed the address space. */
uint64_t kv_bytes(const struct model_config *config, enum tensor_dtype dtype, uint32_t n_blocks);

/* dtype: f32 or bf16. Errors: NO_MEMORY names the bytes. */
enum status kv_init(struct kv *kv, const struct model_config *config, enum tensor_dtype dtype,
                    uint32_t n_blocks, struct error *err) MUST_USE;
void kv_deinit(struct kv *kv);

/* Bytes of a K or a V tile. */
static inline size_t kv_tile_bytes(enum tensor_dtype dtype, uint32_t head_size)
{
    return (size_t)head_size * KV_BLOCK_TOKENS * sizeof(float) / tensor_step_inputs(dtype);
}

static inline void *kv_key_tile(const struct kv *kv, uint32_t block, uint32_t layer, uint32_t head)
{
    size_t index = ((size_t)block * kv->n_layers + layer) * kv->n_kv_heads + head;
    return kv->data + index * 2 * kv_tile_bytes(kv->dtype, kv->head_size);
}

static inline void *kv_value_tile(const struct kv *kv, uint32_t block, uint32_t layer,
                                  uint32_t head)
{
    char *keys = kv_key_tile(kv, block, layer, head);
    return keys + kv_tile_bytes(kv->dtype, kv->head_size);
}

/* Stores key and value rows (G heads of D floats each) of one position in its block; bf16: rounded
 * to nearest even. */
void kv_store(const struct kv *kv, uint32_t block, uint32_t layer, uint32_t position,
              const float *key, const float *value);

#endif
