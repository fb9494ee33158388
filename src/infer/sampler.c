/* sampler.c - see sampler.h. */
#include "infer/sampler.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

/* Logits looked at together; a multiple of the 16 lanes. */
#define BLOCK 64u

static bool all_finite(const float *x, uint32_t n)
{
    /* x * 0 is 0 for finite x and NaN otherwise; NaN survives the sum. Lanes, so that it
     * vectorises: only whether the result is 0 matters, not the order. */
    float lanes[16] = {0};
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (uint32_t j = 0; j < 16; j++) {
            lanes[j] += x[i + j] * 0.0f;
        }
    }
    float sum = 0.0f;
    for (; i < n; i++) {
        sum += x[i] * 0.0f;
    }
    for (uint32_t j = 0; j < 16; j++) {
        sum += lanes[j];
    }
    return sum == 0.0f;
}

/* The largest of x[0..BLOCK). Lanes again; a maximum is the same in any order. */
static float block_max(const float *x)
{
    float lanes[16];
    for (uint32_t j = 0; j < 16; j++) {
        lanes[j] = x[j];
    }
    for (uint32_t i = 16; i < BLOCK; i += 16) {
        for (uint32_t j = 0; j < 16; j++) {
            lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
        }
    }
    float max = lanes[0];
    for (uint32_t j = 1; j < 16; j++) {
        max = lanes[j] > max ? lanes[j] : max;
    }
    return max;
}

/* From i on, the first index whose logit is above (or, with or_equal, not below) floor; n if none.
 * Most of a vocabulary lies below the few best: whole blocks are passed over. */
static uint32_t next_above(const float *x, uint32_t n, uint32_t i, float floor, bool or_equal)
{
    while (i < n) {
        if (i % BLOCK == 0 && n - i >= BLOCK) {
            float max = block_max(x + i);
            if (!(max > floor || (or_equal && max == floor))) {
                i += BLOCK;
                continue;
            }
        }
        uint32_t end = n - i < BLOCK ? n : i + BLOCK - i % BLOCK;
        for (; i < end; i++) {
            if (x[i] > floor || (or_equal && x[i] == floor)) {
                return i;
            }
        }
    }
    return n;
}

static int32_t argmax(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = next_above(x, n, 1, x[0], false); i < n;
         i = next_above(x, n, i + 1, x[i], false)) {
        best = i;
    }
    return (int32_t)best;
}

/* Candidates in the order of probability; ids make it total. */
static bool ranks_before(const struct sampler_candidate *a, const struct sampler_candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

/* Restores the heap (best candidate on top) below `at`. */
static void sift_down(struct sampler_candidate *heap, uint32_t n, uint32_t at)
{
    struct sampler_candidate moving = heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= n) {
            break;
        }
        if (child + 1 < n && ranks_before(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!ranks_before(&heap[child], &moving)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

/* Turns the order around, so that a heap has its worst candidate on top. */
static struct sampler_candidate negated(const float *x, uint32_t i)
{
    return (struct sampler_candidate){.logit = -x[i], .id = -(int32_t)i};
}

/* heap[k]: the k best of x, negated; returns the worst of their logits. */
static float gather_best(const float *x, uint32_t n, uint32_t k, struct sampler_candidate *heap)
{
    for (uint32_t i = 0; i < k; i++) {
        heap[i] = negated(x, i);
    }
    for (uint32_t i = k / 2; i-- > 0;) {
        sift_down(heap, k, i);
    }
    float worst = -heap[0].logit;
    for (uint32_t i = next_above(x, n, k, worst, false); i < n;
         i = next_above(x, n, i + 1, worst, false)) {
        heap[0] = negated(x, i);
        sift_down(heap, k, 0);
        worst = -heap[0].logit;
    }
    return worst;
}

uint32_t sampler_top(const float *logits, uint32_t n_vocab, uint32_t k,
                     struct sampler_candidate *out)
{
    k = k < n_vocab ? k : n_vocab;
    if (k == 0) {
        return 0;
    }
    (void)gather_best(logits, n_vocab, k, out);
    for (uint32_t left = k; left > 1; left--) {
        struct sampler_candidate worst = out[0];
        out[0] = out[left - 1];
        sift_down(out, left - 1, 0);
        out[left - 1] = worst;
    }
    for (uint32_t i = 0; i < k; i++) {
        out[i].logit = -out[i].logit;
        out[i].id = -out[i].id;
    }
    return k;
}

/* All tokens that top-k keeps, in order of id, with their weights; returns their number. */
static uint32_t collect(const float *x, uint32_t n, const struct sampling *s,
                        struct sampler_candidate *out)
{
    bool cut = s->top_k > 0 && s->top_k < n;
    float least = cut ? gather_best(x, n, s->top_k, out) : -INFINITY;
    uint32_t count = 0;
    float max = x[0];
    for (uint32_t i = next_above(x, n, 0, least, true); i < n;
         i = next_above(x, n, i + 1, least, true)) {
        max = count == 0 || x[i] > max ? x[i] : max;
        out[count++] = (struct sampler_candidate){.logit = x[i], .id = (int32_t)i};
    }
    double temperature = (double)s->temperature;
    for (uint32_t i = 0; i < count; i++) {
        out[i].weight = exp(((double)out[i].logit - (double)max) / temperature);
    }
    return count;
}

/* Moves the fewest best candidates whose weight reaches mass to the end of c, best last; returns
 * how many, and their summed weight. */
static uint32_t keep_top(struct sampler_candidate *c, uint32_t n, double mass, double *kept_weight)
{
    for (uint32_t i = n / 2; i-- > 0;) {
        sift_down(c, n, i);
    }
    double sum = 0.0;
    uint32_t kept = 0;
    do {
        struct sampler_candidate best = c[0];
        uint32_t last = n - kept - 1;
        c[0] = c[last];
        sift_down(c, last, 0);
        c[last] = best;
        kept++;
        sum += best.weight;
    } while (sum < mass && kept < n);
    *kept_weight = sum;
    return kept;
}

/* Of c[n - kept .. n), keeps those whose weight is at least min_p of the best one's, which is 1, in
 * their order at the end of c; returns how many, and their summed weight. */
static uint32_t keep_likely(struct sampler_candidate *c, uint32_t n, uint32_t kept, double min_p,
                            double *kept_weight)
{
    uint32_t first = n;
    double sum = 0.0;
    for (uint32_t i = n; i-- > n - kept;) {
        if (c[i].weight >= min_p) {
            c[--first] = c[i];
            sum += c[first].weight;
        }
    }
    *kept_weight = sum;
    return n - first;
}

/* Walks c[n - 1], c[n - 2] ...: the candidate at the point u of their summed weight. */
static int32_t draw(const struct sampler_candidate *c, uint32_t n, uint32_t kept, double weight,
                    double u)
{
    double target = u * weight;
    double sum = 0.0;
    for (uint32_t i = 0; i + 1 < kept; i++) {
        sum += c[n - 1 - i].weight;
        if (target < sum) {
            return c[n - 1 - i].id;
        }
    }
    return c[n - kept].id;
}

int32_t sampler_pick(const float *logits, uint32_t n_vocab, const struct sampling *sampling,
                     uint64_t key, uint64_t position, struct sampler_candidate *candidates)
{
    assert(n_vocab >= 1);
    if (!(sampling->temperature > 0.0f)) {
        return argmax(logits, n_vocab);
    }
    uint32_t n = collect(logits, n_vocab, sampling, candidates);
    double weight = 0.0;
    for (uint32_t i = n; i-- > 0;) {
        weight += candidates[i].weight;
    }
    uint32_t kept = n;
    if (sampling->top_p < 1.0f) {
        kept = keep_top(candidates, n, (double)sampling->top_p * weight, &weight);
    }
    if (sampling->min_p > 0.0f) {
        kept = keep_likely(candidates, n, kept, (double)sampling->min_p, &weight);
    }
    return draw(candidates, n, kept, weight, rng_unit(rng_at(key, position)));
}

/* ---------------------------------------------------------------- rules of the request */

#define IN_PROMPT (1U << 31) /* in a token's count */

static bool is_token(int32_t id, uint32_t n_vocab)
{
    return id >= 0 && (uint32_t)id < n_vocab;
}

static float clamp(float x)
{
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

static bool is_repetition_on(const struct sampling *s)
{
    return s->repetition_penalty != 0.0f && s->repetition_penalty != 1.0f;
}

static bool has_penalties(const struct sampling *s)
{
    return is_repetition_on(s) || s->frequency_penalty != 0.0f || s->presence_penalty != 0.0f;
}

static float penalised(float x, uint32_t count, const struct sampling *s)
{
    if (is_repetition_on(s)) {
        x = clamp(x > 0.0f ? x / s->repetition_penalty : x * s->repetition_penalty);
    }
    uint32_t in_output = count & ~IN_PROMPT;
    if (in_output > 0) {
        x = clamp(x - s->frequency_penalty * (float)in_output);
        x = clamp(x - s->presence_penalty);
    }
    return x;
}

/* Counts the sequence's tokens, changes the logit of each of them once, and leaves counts at 0. */
static void penalise(float *x, uint32_t n_vocab, const struct sampler_seq *seq, uint32_t *counts)
{
    const struct sampling *s = &seq->request->sampling;
    uint32_t prompt_tokens = seq->request->prompt_tokens;
    uint32_t first = is_repetition_on(s) ? 0 : prompt_tokens;
    for (uint32_t i = first; i < seq->n_tokens; i++) {
        assert(is_token(seq->tokens[i], n_vocab));
        uint32_t *count = &counts[seq->tokens[i]];
        *count = i < prompt_tokens ? *count | IN_PROMPT : *count + 1;
    }
    for (uint32_t i = first; i < seq->n_tokens; i++) {
        int32_t id = seq->tokens[i];
        if (counts[id] != 0) {
            x[id] = penalised(x[id], counts[id], s);
            counts[id] = 0;
        }
    }
}

static void apply_rules(const float *logits, uint32_t n_vocab, const struct sampler_seq *seq,
                        struct sampler_scratch *s)
{
    const struct sampling *sampling = &seq->request->sampling;
    memcpy(s->logits, logits, n_vocab * sizeof *logits);
    for (uint32_t i = 0; i < sampling->n_bias; i++) {
        const struct token_bias *b = &sampling->bias[i];
        if (is_token(b->id, n_vocab)) {
            s->logits[b->id] = clamp(s->logits[b->id] + b->bias);
        }
    }
    if (has_penalties(sampling)) {
        penalise(s->logits, n_vocab, seq, s->counts);
    }
}

static void suppress(float *x, uint32_t n_vocab, const int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (is_token(ids[i], n_vocab)) {
            x[ids[i]] = -INFINITY;
        }
    }
}

const float *sampler_adjust(const float *logits, uint32_t n_vocab, const struct sampler_seq *seq,
                            struct sampler_scratch *s)
{
    const struct request *r = seq->request;
    assert(seq->n_tokens >= r->prompt_tokens);
    bool go_on = seq->n_tokens - r->prompt_tokens < r->min_new_tokens;
    if (r->sampling.n_bias == 0 && !has_penalties(&r->sampling) && !go_on) {
        return logits;
    }
    apply_rules(logits, n_vocab, seq, s);
    if (go_on) {
        suppress(s->logits, n_vocab, seq->eos_ids, seq->n_eos);
        suppress(s->logits, n_vocab, r->stop_ids, r->n_stop_ids);
        if (s->logits[argmax(s->logits, n_vocab)] == -INFINITY) {
            apply_rules(logits, n_vocab, seq, s); /* every token ends: one must be drawn */
        }
    }
    return s->logits;
}

int32_t sampler_next(const float *logits, uint32_t n_vocab, const struct sampler_seq *seq,
                     struct sampler_scratch *s)
{
    if (!all_finite(logits, n_vocab)) {
        return -1;
    }
    const struct request *r = seq->request;
    return sampler_pick(sampler_adjust(logits, n_vocab, seq, s), n_vocab, &r->sampling,
                        r->sample_key, seq->n_tokens, s->candidates);
}

/* ---------------------------------------------------------------- log-probabilities */

static float logprob_of(float logit, double max, double log_sum)
{
    double p = ((double)logit - max) - log_sum;
    return p < -(double)FLT_MAX ? -FLT_MAX : (float)p;
}

void sampler_logprobs(const float *logits, uint32_t n_vocab, int32_t id, struct token_prob *chosen,
                      struct token_prob *top, uint32_t n_top, struct sampler_scratch *s)
{
    assert(n_vocab >= 1 && is_token(id, n_vocab));
    *chosen = (struct token_prob){.id = id, .logprob = NAN};
    for (uint32_t i = 0; i < n_top; i++) {
        top[i] = (struct token_prob){.id = -1, .logprob = NAN};
    }
    if (!all_finite(logits, n_vocab)) {
        return;
    }
    uint32_t best = (uint32_t)argmax(logits, n_vocab);
    double max = (double)logits[best];
    double others = 0.0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        others += i == best ? 0.0 : exp((double)logits[i] - max);
    }
    double log_sum = log1p(others);
    chosen->logprob = logprob_of(logits[id], max, log_sum);
    uint32_t n = sampler_top(logits, n_vocab, n_top, s->candidates);
    for (uint32_t i = 0; i < n; i++) {
        const struct sampler_candidate *c = &s->candidates[i];
        top[i] = (struct token_prob){.id = c->id, .logprob = logprob_of(c->logit, max, log_sum)};
    }
}

/* ---------------------------------------------------------------- scratch */

enum status sampler_scratch_init(struct sampler_scratch *s, uint32_t n_vocab, struct error *err)
{
    *s = (struct sampler_scratch){.candidates = mem_alloc(n_vocab, sizeof *s->candidates),
                                  .logits = mem_alloc(n_vocab, sizeof *s->logits),
                                  .counts = mem_alloc(n_vocab, sizeof *s->counts)};
    if (s->candidates == NULL || s->logits == NULL || s->counts == NULL) {
        sampler_scratch_deinit(s);
        return error_set(err, STATUS_NO_MEMORY, -1, "out of memory: %llu bytes for sampling",
                         (unsigned long long)sampler_scratch_bytes(n_vocab));
    }
    return STATUS_OK;
}

void sampler_scratch_deinit(struct sampler_scratch *s)
{
    mem_free(s->candidates);
    mem_free(s->logits);
    mem_free(s->counts);
    *s = (struct sampler_scratch){0};
}

uint64_t sampler_scratch_bytes(uint32_t n_vocab)
{
    const struct sampler_scratch *s = NULL;
    return (uint64_t)n_vocab * (sizeof *s->candidates + sizeof *s->logits + sizeof *s->counts);
}
