/* sampler.c - see sampler.h. */
#include "infer/sampler.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>

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

/* The k-th largest logit: a heap of the k best so far, the worst of them on top. Uses scratch[k].
 */
static float kth_largest(const float *x, uint32_t n, uint32_t k, struct sampler_candidate *scratch)
{
    /* The same heap, of negated values. */
    for (uint32_t i = 0; i < k; i++) {
        scratch[i] = (struct sampler_candidate){.logit = -x[i], .id = (int32_t)i};
    }
    for (uint32_t i = k / 2; i-- > 0;) {
        sift_down(scratch, k, i);
    }
    float worst = -scratch[0].logit;
    for (uint32_t i = next_above(x, n, k, worst, false); i < n;
         i = next_above(x, n, i + 1, worst, false)) {
        scratch[0] = (struct sampler_candidate){.logit = -x[i], .id = (int32_t)i};
        sift_down(scratch, k, 0);
        worst = -scratch[0].logit;
    }
    return worst;
}

/* All tokens that top-k keeps, in order of id, with their weights; returns their number. */
static uint32_t collect(const float *x, uint32_t n, const struct sampling *s,
                        struct sampler_candidate *out)
{
    bool cut = s->top_k > 0 && s->top_k < n;
    float least = cut ? kth_largest(x, n, s->top_k, out) : -INFINITY;
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
                     uint64_t key, uint64_t position, struct sampler_candidate *scratch)
{
    assert(n_vocab >= 1);
    if (!all_finite(logits, n_vocab)) {
        return -1;
    }
    if (!(sampling->temperature > 0.0f)) {
        return argmax(logits, n_vocab);
    }
    uint32_t n = collect(logits, n_vocab, sampling, scratch);
    double weight = 0.0;
    for (uint32_t i = n; i-- > 0;) {
        weight += scratch[i].weight;
    }
    uint32_t kept = n;
    if (sampling->top_p < 1.0f) {
        kept = keep_top(scratch, n, (double)sampling->top_p * weight, &weight);
    }
    return draw(scratch, n, kept, weight, rng_unit(rng_at(key, position)));
}
