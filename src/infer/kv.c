/* kv.c - see kv.h. */
#include "infer/kv.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"

uint64_t kv_bytes(const struct model_config *config, uint32_t n_blocks)
{
    uint64_t floats = (uint64_t)2 * KV_BLOCK_TOKENS * config->head_size;
    uint64_t bytes;
    if (__builtin_mul_overflow(floats * sizeof(float), (uint64_t)config->n_kv_heads, &bytes) ||
        __builtin_mul_overflow(bytes, (uint64_t)config->n_layers, &bytes) ||
        __builtin_mul_overflow(bytes, (uint64_t)n_blocks, &bytes) || bytes > PTRDIFF_MAX) {
        return UINT64_MAX;
    }
    return bytes;
}

enum status kv_init(struct kv *kv, const struct model_config *config, uint32_t n_blocks,
                    struct error *err)
{
    uint64_t bytes = kv_bytes(config, n_blocks);
    float *data = bytes == UINT64_MAX ? NULL : mem_reserve((size_t)bytes);
    if (data == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1,
                         "no room for %" PRIu32 " KV blocks (%" PRIu64 " bytes); lower --kv-blocks",
                         n_blocks, bytes);
    }
    *kv = (struct kv){.data = data,
                      .bytes = (size_t)bytes,
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

void kv_store(const struct kv *kv, uint32_t block, uint32_t layer, uint32_t position,
              const float *key, const float *value)
{
    assert(block < kv->n_blocks && layer < kv->n_layers);
    uint32_t column = position % KV_BLOCK_TOKENS;
    uint32_t d_count = kv->head_size;
    for (uint32_t g = 0; g < kv->n_kv_heads; g++) {
        float *k = kv_tile(kv, block, layer, g);
        float *v = k + (size_t)d_count * KV_BLOCK_TOKENS;
        for (uint32_t d = 0; d < d_count; d++) {
            k[(size_t)d * KV_BLOCK_TOKENS + column] = key[d];
        }
        memcpy(v + (size_t)column * d_count, value, d_count * sizeof(float));
        key += d_count;
        value += d_count;
    }
}
