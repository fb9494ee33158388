/*
 * kv.h - storage of keys and values in blocks of 16 positions. It holds, it does not account: which
 * sequence owns which block is the engine's business.
 *
 * Layout: [block][layer][kv head]{K tile float[D][16], V tile float[16][D]}: the tiles that
 * tensor_ops.attend reads, one block contiguous. Address space is reserved at once, pages are
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
    float *data;
    size_t bytes;
    uint32_t n_blocks;
    uint32_t n_layers;
    uint32_t n_kv_heads; /* G */
    uint32_t head_size;  /* D */
};

/* Bytes of n_blocks blocks; UINT64_MAX when they exceed the address space. */
uint64_t kv_bytes(const struct model_config *config, uint32_t n_blocks);

/* Errors: NO_MEMORY names the bytes. */
enum status kv_init(struct kv *kv, const struct model_config *config, uint32_t n_blocks,
                    struct error *err) MUST_USE;
void kv_deinit(struct kv *kv);

/* The K tile of (block, layer, kv head); its V tile follows after D * 16 floats. */
static inline float *kv_tile(const struct kv *kv, uint32_t block, uint32_t layer, uint32_t head)
{
    size_t pair = (size_t)2 * kv->head_size * KV_BLOCK_TOKENS;
    size_t index = ((size_t)block * kv->n_layers + layer) * kv->n_kv_heads + head;
    return kv->data + index * pair;
}

/* Stores key and value rows (G heads of D floats each) of one position in its block. */
void kv_store(const struct kv *kv, uint32_t block, uint32_t layer, uint32_t position,
              const float *key, const float *value);

#endif
