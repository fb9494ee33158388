/*
 * sampler.h - from logits to a token: rules, temperature, top-k, top-p, min-p, then one draw.
 *
 *   raw logits ─ sampler_adjust ─► bias, penalties, suppressed ends ─ sampler_pick ─► token
 *
 * The filters stand in the order of Transformers' generate() and keep what it keeps: top-k keeps
 * every logit not below the k-th largest (ties too); top-p then keeps the fewest most probable
 * tokens whose mass reaches top_p, at least one; min-p then those not below min_p times the most
 * probable one. The draw is rng_at(key, position), walked over the kept tokens in a fixed order, so
 * that a token depends on its logits, its sequence, key and position alone. Sums are in double, in
 * a fixed order. Nothing is kept from call to call. Alloc: sampler_scratch_init only.
 */
#ifndef LLMSCHED_INFER_SAMPLER_H
#define LLMSCHED_INFER_SAMPLER_H

#include <stdint.h>

#include "base/request.h"
#include "base/status.h"

struct sampler_candidate {
    double weight; /* exp((logit - max) / temperature) */
    float logit;
    int32_t id;
};

/* What one thread needs beside its stack. */
struct sampler_scratch {
    struct sampler_candidate *candidates; /* [V] */
    float *logits;                        /* [V] */
    uint32_t *counts;                     /* [V] all 0 between calls */
};

/* Errors: NO_MEMORY (nothing is kept). Owner: the caller, who calls deinit; zeroed is deinit's. */
enum status sampler_scratch_init(struct sampler_scratch *s, uint32_t n_vocab,
                                 struct error *err) MUST_USE;
void sampler_scratch_deinit(struct sampler_scratch *s);
uint64_t sampler_scratch_bytes(uint32_t n_vocab);

/* The sequence that gets a token. */
struct sampler_seq {
    const struct request *request;
    const int32_t *tokens; /* [n_tokens] prompt, then output so far; ids in [0, V) */
    uint32_t n_tokens;     /* >= request->prompt_tokens */
    const int32_t *eos_ids;
    uint32_t n_eos;
};

/*
 * The logits with the bias, penalties and minimum length of the request applied, in this order:
 * `logits` itself when it asks for none of them, else s->logits. As in Transformers and vLLM: bias
 * added once per entry repetition_penalty  x / p for x > 0, else x * p; for every token of prompt
 * or output frequency_penalty   - f * (times in the output) presence_penalty    - p; for every
 * token of the output min_new_tokens      before them, end-of-sequence and stop ids get -INFINITY,
 * also with ignore_eos; unless that would leave no token at all Results beyond the range of float
 * stop at its ends. Ids outside the vocabulary are no tokens and have no effect. Requires finite
 * logits, bias and penalties, repetition_penalty >= 0 (0, 1: off).
 */
const float *sampler_adjust(const float *logits, uint32_t n_vocab, const struct sampler_seq *seq,
                            struct sampler_scratch *s);

/*
 * The token at `position` (its index in the sequence) by the rest of `sampling`: temperature to
 * min-p. temperature 0: the largest logit, lowest id among equals. Logits may be -INFINITY (never
 * drawn), not all of them. candidates: [V], not used at temperature 0.
 * Requires n_vocab >= 1; temperature, top_p finite and not negative; min_p in [0, 1].
 */
int32_t sampler_pick(const float *logits, uint32_t n_vocab, const struct sampling *sampling,
                     uint64_t key, uint64_t position, struct sampler_candidate *candidates);

/* Both: the sequence's next token, or -1 when a logit is not finite. */
int32_t sampler_next(const float *logits, uint32_t n_vocab, const struct sampler_seq *seq,
                     struct sampler_scratch *s);

/* The min(k, V) largest logits, best first, lowest id first among equals, into out[]; weights are
 * not set. Returns their number. */
uint32_t sampler_top(const float *logits, uint32_t n_vocab, uint32_t k,
                     struct sampler_candidate *out);

/*
 * One row of log-probabilities: the log-softmax of finite logits in double, over the ids in
 * ascending order. *chosen: of `id`. top[n_top]: of the n_top best; entries beyond the vocabulary
 * get id -1. Logits that are not finite give NAN and id -1. Used of s: candidates.
 */
void sampler_logprobs(const float *logits, uint32_t n_vocab, int32_t id, struct token_prob *chosen,
                      struct token_prob *top, uint32_t n_top, struct sampler_scratch *s);

#endif
