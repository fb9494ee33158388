/*
 * weights.h - tensors by role and layer, from safetensors (one file or shards) or GGUF, as f32
 * rows.
 *
 * The reader of weights never sees file formats, transposes, permutations or quantisation:
 *
 *   weights_open ── safetensors | GGUF | random ──► weights_find(role, layer, bias) ──►
 * weights_read_rows shape as outputs x inputs          f32, de-quantised
 *
 * Invariants after open: every tensor the architecture needs is present with the shape that the
 * config gives; missing, extra-sized and unknown-typed ones are BAD_MODEL. Biases are optional.
 * Thread: reads from several threads are fine (pread into caller's memory).
 */
#ifndef LLMSCHED_MODEL_WEIGHTS_H
#define LLMSCHED_MODEL_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/status.h"
#include "model/arch.h"
#include "model/config.h"

struct weights;

enum weight_dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_Q8_0,
    DTYPE_Q4_0,
    DTYPE_Q4_1,
    DTYPE_Q6_K
};

struct weight_info {
    enum weight_dtype dtype;
    uint64_t rows;    /* outputs; a vector has rows = 1 */
    uint64_t columns; /* inputs */
};

/* A folder with *.safetensors (or exactly one .gguf), or a .gguf file. The config must have been
 * read from the same place. */
enum status weights_open(const char *path, const struct model_config *config, struct weights **out,
                         struct error *err) MUST_USE;
/* Near-normal with mean 0 and deviation 0.02, as the families initialise; norms 1, biases 0. A pure
 * function of seed, role, layer and element, so rows may be read in any order. */
enum status weights_random(const struct model_config *config, uint64_t seed, struct weights **out,
                           struct error *err) MUST_USE;
void weights_close(struct weights *w);

/* False when the model has no such tensor (an optional bias, a tied head, QKV of a split family).
 * A fused QKV file tensor is offered as ROLE_Q, ROLE_K, ROLE_V, so readers know one layout only. */
bool weights_find(const struct weights *w, enum weight_role role, uint32_t layer, bool bias,
                  struct weight_info *info);

/* Rows [row, row + n) as f32, columns contiguous: out[n * columns]. RoPE rows come in the
 * "rotate half" order of Transformers whatever the file has. Biases: rows = 1. Rows of a Conv1D
 * file (gpt2 safetensors) are columns there: ask for 256 or more at a time.
 * Errors: IO, BAD_DATA (the file became shorter), NO_MEMORY. */
enum status weights_read_rows(const struct weights *w, enum weight_role role, uint32_t layer,
                              bool bias, uint64_t row, uint64_t n, float *out,
                              struct error *err) MUST_USE;

/* For `info model`: format ("safetensors", "gguf", "random weights"), files, dtypes and counts, and
 * bytes. Text is borrowed. */
struct weights_summary {
    const char *format;
    uint32_t n_files;
    uint64_t n_tensors;
    uint64_t bytes;
    char dtypes[128]; /* "Q4_1 x 210, F32 x 61" */
};
void weights_summarise(const struct weights *w, struct weights_summary *out);

#endif
