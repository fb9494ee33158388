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

/* Whether one of x[0..BLOCK) is at least `least`. All of them are looked at, so that it vectorises.
 */
static bool block_reaches(const float *x, float least)
{
    int32_t any = 0;
    for (uint32_t i = 0; i < BLOCK; i++) {
        any |= x[i] >= least ? -1 : 0;
    }
    return any != 0;
}

/* From i on, the first index whose logit is at least `least`; n if none. Most of a vocabulary lies
 * below the few best: whole blocks are passed over. */
static uint32_t next_from(const float *x, uint32_t n, uint32_t i, float least)
{
    while (i < n) {
        if (i % BLOCK == 0 && n - i >= BLOCK && !block_reaches(x + i, least)) {
            i += BLOCK;
            continue;
        }
        uint32_t end = n - i < BLOCK ? n : i + BLOCK - i % BLOCK;
        for (; i < end; i++) {
            if (x[i] >= least) {
                return i;
            }
        }
    }
    return n;
}

/* The same for logits above `floor`. */
static uint32_t next_above(const float *x, uint32_t n, uint32_t i, float floor)
{
    return next_from(x, n, i, nextafterf(floor, INFINITY));
}

static int32_t argmax(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = next_above(x, n, 1, x[0]); i < n; i = next_above(x, n, i + 1, x[i])) {
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
    for (uint32_t i = next_above(x, n, k, worst); i < n; i = next_above(x, n, i + 1, worst)) {
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

/* x[0..BLOCK), all <= 0: x[i] = exp(x[i]) to within some 1e-15 of it, 0 below the range of normal
 * numbers. In loops that vectorise: e^x = 2^k e^r, k whole, |r| <= ln 2 / 2, e^r by its series. */
static void exp_block(double *x)
{
    const double least = -708.0;
    const double inverse_ln2 = 0x1.71547652b82fep+0;
    const double ln2_high = 0x1.62e42fee00000p-1; /* k times this is exact */
    const double ln2_low = 0x1.a39ef35793c76p-33;
    const double unit = 0x1.8p52; /* added, the last bits of a double are its whole part */
    double power[BLOCK];
    double wide[BLOCK];
    for (uint32_t i = 0; i < BLOCK; i++) {
        x[i] = x[i] > least ? x[i] : least;
    }
    for (uint32_t i = 0; i < BLOCK; i++) {
        wide[i] = x[i] * inverse_ln2 + unit;
        double k = wide[i] - unit;
        double r = (x[i] - k * ln2_high) - k * ln2_low;
        double q = r * r;
        double even = 1.0 / 479001600.0; /* 1 / 12! */
        double odd = 1.0 / 39916800.0;
        even = even * q + 1.0 / 3628800.0;
        odd = odd * q + 1.0 / 362880.0;
        even = even * q + 1.0 / 40320.0;
        odd = odd * q + 1.0 / 5040.0;
        even = even * q + 1.0 / 720.0;
        odd = odd * q + 1.0 / 120.0;
        even = even * q + 1.0 / 24.0;
        odd = odd * q + 1.0 / 6.0;
        even = even * q + 0.5;
        even = even * q + 1.0;
        odd = odd * q + 1.0;
        power[i] = odd * r + even;
    }
    for (uint32_t i = 0; i < BLOCK; i++) {
        uint64_t bits;
        memcpy(&bits, &wide[i], sizeof bits);
        bits = (bits + 1023) << 52;
        memcpy(&wide[i], &bits, sizeof bits);
    }
    for (uint32_t i = 0; i < BLOCK; i++) {
        double is_normal = x[i] > least ? 1.0 : 0.0;
        x[i] = power[i] * wide[i] * is_normal;
    }
}

/* Sets the weights of c[0..n); returns their sum. */
static double weigh(struct sampler_candidate *c, uint32_t n, float max, float temperature)
{
    const double inverse = 1.0 / (double)temperature;
    double lanes[4] = {0};
    for (uint32_t at = 0; at < n; at += BLOCK) {
        double x[BLOCK];
        uint32_t block = n - at < BLOCK ? n - at : BLOCK;
        for (uint32_t i = 0; i < BLOCK; i++) {
            x[i] = -HUGE_VAL; /* weighs nothing */
        }
        for (uint32_t i = 0; i < block; i++) {
            x[i] = ((double)c[at + i].logit - (double)max) * inverse;
        }
        exp_block(x);
        for (uint32_t i = 0; i < block; i++) {
            c[at + i].weight = x[i];
        }
        for (uint32_t i = 0; i < BLOCK; i += 4) {
            for (uint32_t j = 0; j < 4; j++) {
                lanes[j] += x[i + j];
            }
        }
    }
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

/* All tokens that top-k keeps, in order of id, with their weights and the sum of these; returns
 * their number. */
static uint32_t collect(const float *x, uint32_t n, const struct sampling *s,
                        struct sampler_candidate *out, double *weight)
{
    uint32_t count = 0;
    if (s->top_k > 0 && s->top_k < n) {
        float least = gather_best(x, n, s->top_k, out);
        for (uint32_t i = next_from(x, n, 0, least); i < n; i = next_from(x, n, i + 1, least)) {
            out[count++] = (struct sampler_candidate){.logit = x[i], .id = (int32_t)i};
        }
    } else {
        for (; count < n; count++) {
            out[count] = (struct sampler_candidate){.logit = x[count], .id = (int32_t)count};
        }
    }
    *weight = weigh(out, count, x[argmax(x, n)], s->temperature);
    return count;
}

/* Drops those that top-p cannot keep, in order: together they weigh less than half of what it
 * leaves out. Returns how many are left. Most of a vocabulary goes here, unsorted. */
static uint32_t drop_unlikely(struct sampler_candidate *c, uint32_t n, double top_p, double weight)
{
    double least = 0.5 * (1.0 - top_p) * weight / n;
    uint32_t left = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (c[i].weight >= least) {
            c[left++] = c[i];
        }
    }
    return left;
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
    /* By rounding, the walk may end below `weight`: at what weighs nothing, which is never drawn.
     */
    uint32_t last = n - kept;
    while (last + 1 < n && c[last].weight == 0.0) {
        last++;
    }
    return c[last].id;
}

int32_t sampler_pick(const float *logits, uint32_t n_vocab, const struct sampling *sampling,
                     uint64_t key, uint64_t position, struct sampler_candidate *candidates)
{
    assert(n_vocab >= 1);
    if (!(sampling->temperature > 0.0f)) {
        return argmax(logits, n_vocab);
    }
    double weight;
    uint32_t n = collect(logits, n_vocab, sampling, candidates, &weight);
    uint32_t kept = n;
    if (sampling->top_p < 1.0f) {
        double top_p = (double)sampling->top_p;
        n = drop_unlikely(candidates, n, top_p, weight);
        kept = keep_top(candidates, n, top_p * weight, &weight);
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
