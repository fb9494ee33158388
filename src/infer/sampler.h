/*
 * sampler.h - from logits to a token: temperature, top-k, top-p, then one draw.
 *
 * The filters stand in the order of Transformers' generate() and keep what it keeps: top-k keeps
 * every logit not below the k-th largest (ties too); top-p then keeps the fewest most probable
 * tokens whose mass reaches top_p, at least one. The draw is rng_at(key, position), walked over the
 * kept tokens in a fixed order, so that a token depends on its logits, key and position alone.
 * Sums are in double, in a fixed order. Alloc: nothing.
 */
#ifndef LLMSCHED_INFER_SAMPLER_H
#define LLMSCHED_INFER_SAMPLER_H

#include <stdint.h>

#include "base/request.h"

/* Scratch of one thread: sampler_pick wants V of them. */
struct sampler_candidate {
    double weight; /* exp((logit - max) / temperature) */
    float logit;
    int32_t id;
};

/*
 * The token at `position` (its index in the sequence), or -1 when a logit is not finite.
 * temperature 0: the largest logit, lowest id among equals; scratch may then be NULL.
 * Requires n_vocab >= 1; temperature, top_p finite and not negative.
 */
int32_t sampler_pick(const float *logits, uint32_t n_vocab, const struct sampling *sampling,
                     uint64_t key, uint64_t position, struct sampler_candidate *scratch);

#endif
