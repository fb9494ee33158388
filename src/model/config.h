/*
 * config.h - hyper-parameters, from config.json (both generations) or GGUF keys, checked.
 *
 * After a successful read every size is positive and bounded, H % G == 0, special ids < V: nobody
 * downstream checks again. Letters: docs/MODEL.md.
 */
#ifndef LLMSCHED_MODEL_CONFIG_H
#define LLMSCHED_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "model/arch.h"

#define CONFIG_MAX_LAYERS 512
#define CONFIG_MAX_EOS    8

struct gguf;

struct model_config {
    const struct arch *arch;
    enum activation activation;
    uint32_t n_layers;
    uint32_t n_channels; /* C */
    uint32_t n_heads;    /* H */
    uint32_t n_kv_heads; /* G, divides H */
    uint32_t head_size;  /* D */
    uint32_t n_ffn;      /* F */
    uint32_t n_vocab;    /* V */
    uint32_t n_ctx;      /* positions */
    float norm_eps;
    float rope_theta;
    enum rope_scaling rope_scaling;
    float rope_factor;          /* linear, llama3 */
    float rope_low_freq_factor; /* llama3 */
    float rope_high_freq_factor;
    uint32_t rope_original_ctx;
    bool tied;
    bool
        attention_bias; /* what the config says; the files decide (a bias tensor present is used) */
    bool mlp_bias;
    uint32_t window;                           /* local attention window in tokens, 0 none */
    uint8_t layer_is_local[CONFIG_MAX_LAYERS]; /* 1: the layer sees the last `window` keys only */
    int32_t bos_id;                            /* -1: none */
    int32_t eos_ids[CONFIG_MAX_EOS];
    uint32_t n_eos;
};

/* A folder (config.json, its eos list extended by generation_config.json; or, where the weights
 * come from the folder's .gguf, that file's keys), a .json file, or a .gguf file. */
enum status config_open(const char *path, struct model_config *out, struct error *err) MUST_USE;

/* path is for messages only. */
enum status config_from_json(const char *text, size_t len, const char *path,
                             struct model_config *out, struct error *err) MUST_USE;
enum status config_from_gguf(const struct gguf *g, struct model_config *out,
                             struct error *err) MUST_USE;

/* The built-in shapes of --random-weights: "gpt2", "gpt2-medium", "gpt2-large",
 * "TinyLlama/TinyLlama-1.1B-Chat-v1.0"; NOT_FOUND lists them. */
enum status config_builtin(const char *id, struct model_config *out, struct error *err) MUST_USE;

/* Number of weights (tied counted once), for messages and memory estimates. */
uint64_t config_parameter_count(const struct model_config *c);

#endif
