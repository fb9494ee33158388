/*
 * rope.h - tables of rotary position embedding, computed in double and kept as f32.
 *
 * Source: Su et al., RoFormer (arXiv 2104.09864) section 3.2; linear scaling (position
 * interpolation, arXiv 2306.15595); llama3 scaling as in the Llama 3.1 configuration: long
 * wavelengths are divided by the factor, short ones kept, those between blended.
 */
#ifndef LLMSCHED_INFER_ROPE_H
#define LLMSCHED_INFER_ROPE_H

#include <stdint.h>

#include "model/config.h"

/* The angle per position of pair i, i < D/2, after scaling. */
double rope_frequency(const struct model_config *config, uint32_t pair);

/* Shapes: cos, sin [n_positions, D/2]; row p belongs to position p. */
void rope_fill(const struct model_config *config, uint32_t n_positions, float *cos_table,
               float *sin_table);

#endif
