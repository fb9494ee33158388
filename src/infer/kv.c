/* kv.c - see kv.h. */
#include "infer/kv.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "tensor/bf16.h"

uint64_t kv_bytes(const struct model_config *config, enum tensor_dtype dtype, uint32_t n_blocks)
{
    uint64_t pair = (uint64_t)2 * kv_tile_bytes(dtype, config->head_size);
    uint64_t bytes;
    if (__builtin_mul_overflow(pair, (uint64_t)config->n_kv_heads, &bytes) ||
        __builtin_mul_overflow(bytes, (uint64_t)config->n_layers, &bytes) ||
        __builtin_mul_overflow(bytes, (uint64_t)n_blocks, &bytes) || bytes > PTRDIFF_MAX) {
        return UINT64_MAX;
    }
    return bytes;
}

enum status kv_init(struct kv *kv, const struct model_config *config, enum tensor_dtype dtype,
                    uint32_t n_blocks, struct error *err)
{
    assert(dtype == TENSOR_F32 || dtype == TENSOR_BF16);
    uint64_t bytes = kv_bytes(config, dtype, n_blocks);
    char *data = bytes == UINT64_MAX ? NULL : mem_reserve((size_t)bytes);
    if (data == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1,
                         "no room for %" PRIu32 " KV blocks (%" PRIu64 " bytes); lower --kv-blocks",
                         n_blocks, bytes);
    }
    *kv = (struct kv){.data = data,
                      .bytes = (size_t)bytes,
                      .dtype = dtype,
                      .n_blocks = n_blocks,
                      .n_layers = config->n_layers,
                      .n_kv_heads = config->n_kv_heads,
                      .head_size = config->head_size};
    return STATUS_OK;
}

void kv_deinit(struct kv *kv)
{
    mem_unreserve(kv->data, kv->bytes);
    *kv = (struct kv){0};
}

/* One head: the key becomes a column of its tile, the value a row. */
static void store_f32(float *k, float *v, uint32_t column, uint32_t n, const float *key,
                      const float *value)
{
    for (uint32_t d = 0; d < n; d++) {
        k[(size_t)d * KV_BLOCK_TOKENS + column] = key[d];
    }
    memcpy(v + (size_t)column * n, value, n * sizeof *v);
}

static void store_bf16(uint16_t *k, uint16_t *v, uint32_t column, uint32_t n, const float *key,
                       const float *value)
{
    for (uint32_t d = 0; d < n; d++) {
        k[(size_t)d * KV_BLOCK_TOKENS + column] = bf16_from_f32(key[d]);
        v[(size_t)column * n + d] = bf16_from_f32(value[d]);
    }
}

void kv_store(const struct kv *kv, uint32_t block, uint32_t layer, uint32_t position,
              const float *key, const float *value)
{
    assert(block < kv->n_blocks && layer < kv->n_layers);
    uint32_t column = position % KV_BLOCK_TOKENS;
    uint32_t n = kv->head_size;
    for (uint32_t g = 0; g < kv->n_kv_heads; g++, key += n, value += n) {
        void *k = kv_key_tile(kv, block, layer, g);
        void *v = kv_value_tile(kv, block, layer, g);
        if (kv->dtype == TENSOR_BF16) {
            store_bf16(k, v, column, n, key, value);
        } else {
            store_f32(k, v, column, n, key, value);
        }
    }
}
