/*
 * dequant.h - stored weights to f32, exactly as the formats define them. Source: ggml-org/ggml
 * ggml/src/ggml-quants.c (block layouts) and ggml-common.h.
 *
 * Every value is reproduced in f32 by the reference's order of operations, so results are equal
 * bit for bit to those of the `gguf` Python package.
 */
#ifndef LLMSCHED_MODEL_DEQUANT_H
#define LLMSCHED_MODEL_DEQUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/weights.h"

/* `block` elements are stored in `bytes` bytes; F32, F16, BF16 have block 1. */
struct dequant_layout {
    const char *name;
    uint32_t block;
    uint32_t bytes;
};

const struct dequant_layout *dequant_layout(enum weight_dtype dtype);

/* The dtype of a ggml type id; false when weights of that type cannot be read. */
bool dequant_from_ggml(uint32_t ggml_type, enum weight_dtype *out);

/* n elements (whole blocks) from packed bytes of any alignment; out[n]. */
void dequant_row(enum weight_dtype dtype, const void *packed, size_t n, float *out);

float dequant_f16(uint16_t bits);
float dequant_bf16(uint16_t bits);

#endif
