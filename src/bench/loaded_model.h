/*
 * loaded_model.h - from the text behind --model to something that runs: files, tokenizer, executor.
 */
#ifndef LLMSCHED_BENCH_LOADED_MODEL_H
#define LLMSCHED_BENCH_LOADED_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/status.h"
#include "infer/exec_model.h"
#include "model/config.h"
#include "model/hub.h"
#include "model/tokenizer.h"

struct model_options {
    const char *model; /* folder, .gguf file, hub id, or a built-in shape with random_weights */
    bool random_weights;
    uint64_t weights_seed;
    enum tensor_dtype dtype;
    enum tensor_dtype kv_dtype;
    const char *isa;  /* NULL: the best of this machine */
    uint32_t threads; /* 0: physical cores */
    uint32_t kv_blocks;
    uint32_t max_model_len; /* 0: the model's context */
    uint32_t max_rows;      /* of a step, at once; 0: EXEC_MODEL_MAX_ROWS */
    const struct hub_env *env;
    const struct progress *progress;
};

/* What can be known without reading the weights. */
struct model_parts {
    char *path; /* NULL for a built-in shape */
    struct model_config config;
    struct tokenizer *tokenizer;
};

struct loaded_model {
    struct model_parts files;
    struct exec_model *exec;
    char *name; /* as the user named it */
    char *tokenizer_text;
    char format[32]; /* "gguf", "safetensors", "random weights" */
    uint64_t load_ns;
};

/* Errors: NOT_FOUND (both remedies), BAD_MODEL, UNSUPPORTED, ... Tokenizer missing: NOT_FOUND
 * unless tokenizer_optional (then files->tokenizer is NULL) or random weights (then bytes). */
enum status model_parts_open(const struct model_options *options, bool tokenizer_optional,
                             struct model_parts *out, struct error *err) MUST_USE;
void model_parts_close(struct model_parts *f);

/* Bytes the executor would take; compared with what the machine has left by the caller. */
enum status model_memory(const struct model_options *options, const struct model_parts *files,
                         struct exec_model_memory *out, struct error *err) MUST_USE;

/* Reads and packs the weights; takes over *files (zeroed) on success. */
enum status model_load(const struct model_options *options, struct model_parts *files,
                       struct loaded_model *out, struct error *err) MUST_USE;
void loaded_model_close(struct loaded_model *m);

#endif
