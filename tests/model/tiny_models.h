/*
 * tiny_models.h - a tiny gpt2 and a tiny llama as safetensors files with known numbers, for
 * test_weights. Include after cmocka.h.
 */
#ifndef LLMSCHED_TESTS_TINY_MODELS_H
#define LLMSCHED_TESTS_TINY_MODELS_H

#include "model/model_builders.h"
#include "model/weights.h"

/* ---- tiny models: names and shapes as Transformers writes them ---- */

struct tensor {
    const char *name;
    uint32_t rank;
    uint32_t dims[2]; /* slowest first */
};

#define MAX_TENSORS 32
struct model {
    const char *config;
    struct tensor t[MAX_TENSORS];
};

static const struct model gpt2 = {
    "{\"model_type\":\"gpt2\",\"vocab_size\":11,\"n_embd\":8,\"n_layer\":1,\"n_head\":2,"
    "\"n_positions\":6,\"n_inner\":12}",
    {
        {"transformer.wte.weight", 2, {11, 8}},
        {"transformer.wpe.weight", 2, {6, 8}},
        {"transformer.h.0.ln_1.weight", 1, {8, 0}},
        {"transformer.h.0.ln_1.bias", 1, {8, 0}},
        {"transformer.h.0.attn.c_attn.weight", 2, {8, 24}},
        {"transformer.h.0.attn.c_attn.bias", 1, {24, 0}},
        {"transformer.h.0.attn.c_proj.weight", 2, {8, 8}},
        {"transformer.h.0.attn.c_proj.bias", 1, {8, 0}},
        {"transformer.h.0.ln_2.weight", 1, {8, 0}},
        {"transformer.h.0.ln_2.bias", 1, {8, 0}},
        {"transformer.h.0.mlp.c_fc.weight", 2, {8, 12}},
        {"transformer.h.0.mlp.c_fc.bias", 1, {12, 0}},
        {"transformer.h.0.mlp.c_proj.weight", 2, {12, 8}},
        {"transformer.h.0.mlp.c_proj.bias", 1, {8, 0}},
        {"transformer.ln_f.weight", 1, {8, 0}},
        {"transformer.ln_f.bias", 1, {8, 0}},
    }};

static const struct model llama = {
    "{\"model_type\":\"llama\",\"vocab_size\":11,\"hidden_size\":8,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":6,\"intermediate_size\":12,"
    "\"max_position_embeddings\":16}",
    {
        {"model.embed_tokens.weight", 2, {11, 8}},
        {"model.layers.0.input_layernorm.weight", 1, {8, 0}},
        {"model.layers.0.self_attn.q_proj.weight", 2, {24, 8}},
        {"model.layers.0.self_attn.k_proj.weight", 2, {12, 8}},
        {"model.layers.0.self_attn.v_proj.weight", 2, {12, 8}},
        {"model.layers.0.self_attn.o_proj.weight", 2, {8, 24}},
        {"model.layers.0.post_attention_layernorm.weight", 1, {8, 0}},
        {"model.layers.0.mlp.gate_proj.weight", 2, {12, 8}},
        {"model.layers.0.mlp.up_proj.weight", 2, {12, 8}},
        {"model.layers.0.mlp.down_proj.weight", 2, {8, 12}},
        {"model.norm.weight", 1, {8, 0}},
        {"lm_head.weight", 2, {11, 8}},
    }};

static inline size_t count_of(const struct model *m)
{
    size_t n = 0;
    while (n < MAX_TENSORS && m->t[n].name != NULL) {
        n++;
    }
    return n;
}

static inline size_t elements_of(const struct tensor *t)
{
    return t->rank == 2 ? (size_t)t->dims[0] * t->dims[1] : t->rank == 1 ? t->dims[0] : 1;
}

/* Whole numbers from -15 to 15, which every float type holds exactly. The name without its first
 * part, so that prefixed and bare files hold the same. */
static inline float value_of(const char *name, size_t i)
{
    const char *dot = strchr(name, '.');
    uint32_t h = 2166136261U;
    for (const char *p = strncmp(name, "lm_head", 7) == 0 ? name : dot; *p != '\0'; p++) {
        h = (h ^ (uint8_t)*p) * 16777619U;
    }
    h = (h ^ (uint32_t)i) * 2654435761U;
    return (float)((h >> 8) % 31) - 15.0F;
}

static inline void put_value(struct bytes *b, const char *dtype, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint16_t half = (uint16_t)(bits >> 16);
    if (strcmp(dtype, "F16") == 0) {
        half = v == 0.0F ? 0
                         : (uint16_t)((bits >> 16 & 0x8000) | ((bits >> 23 & 0xFF) - 112) << 10 |
                                      (bits >> 13 & 0x3FF));
    }
    if (strcmp(dtype, "F32") == 0) {
        put_f32(b, v);
    } else {
        bytes_put(b, &half, sizeof half);
    }
}

static inline const char *bare(const char *name, bool strip)
{
    return strip && strncmp(name, "lm_head", 7) != 0 ? strchr(name, '.') + 1 : name;
}

/* Tensors [from, to) of a model as a safetensors file. */
static inline void build(struct bytes *b, const struct model *m, size_t from, size_t to,
                         const char *dtype, bool strip)
{
    struct bytes header = {0};
    struct bytes data = {0};
    bytes_put(&header, "{", 1);
    for (size_t i = from; i < to; i++) {
        const struct tensor *t = &m->t[i];
        size_t begin = data.len;
        for (size_t e = 0; e < elements_of(t); e++) {
            put_value(&data, strcmp(dtype, "I16") == 0 ? "BF16" : dtype, value_of(t->name, e));
        }
        char shape[64] = "";
        if (t->rank == 2) {
            snprintf(shape, sizeof shape, "%u,%u", t->dims[0], t->dims[1]);
        } else if (t->rank == 1) {
            snprintf(shape, sizeof shape, "%u", t->dims[0]);
        }
        char entry[256];
        int n = snprintf(entry, sizeof entry,
                         "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                         i > from ? "," : "", bare(t->name, strip), dtype, shape, begin, data.len);
        bytes_put(&header, entry, (size_t)n);
    }
    bytes_put(&header, "}", 1);
    put_u64(b, header.len);
    bytes_put(b, header.data, header.len);
    bytes_put(b, data.data, data.len);
    bytes_free(&header);
    bytes_free(&data);
}

static inline void write_model(const char *folder, const char *file, const struct model *m,
                               size_t from, size_t to, const char *dtype, bool strip)
{
    struct bytes b = {0};
    build(&b, m, from, to, dtype, strip);
    write_file(folder, file, b.data, b.len);
    bytes_free(&b);
}

static inline enum status open_model(const char *path, const char *config, struct weights **w,
                                     struct error *err)
{
    static struct model_config c;
    assert_int_equal(config_from_json(config, strlen(config), "config.json", &c, NULL), STATUS_OK);
    return weights_open(path, &c, w, err);
}

#endif
