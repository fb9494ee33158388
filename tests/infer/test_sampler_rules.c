/* test_sampler_rules.c - bias, penalties, minimum length and log-probabilities: closed formulas, a
 * plain reference in double that scans the sequence for every id, and the ends of every range. */
#include <float.h>
#include <math.h>

#include "infer_test.h"

#include "infer/sampler.h"

#define V          257
#define MAX_TOKENS 300

static struct sampler_scratch scratch;

static int make_scratch(void **state)
{
    struct error err = ERROR_INIT;
    (void)state;
    return sampler_scratch_init(&scratch, V, &err) == STATUS_OK ? 0 : -1;
}

static int free_scratch(void **state)
{
    (void)state;
    sampler_scratch_deinit(&scratch);
    return 0;
}

static void fill(float *logits, uint32_t n, struct rng *rng, bool ties)
{
    for (uint32_t i = 0; i < n; i++) {
        double x = 3.0 * rng_normal(rng);
        logits[i] = ties ? (float)round(x) : (float)x;
    }
}

static uint32_t occurrences(const int32_t *tokens, uint32_t n, int32_t id)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        count += tokens[i] == id;
    }
    return count;
}

/* One id's logit by the definitions. */
static double reference(float raw, int32_t id, const struct sampler_seq *seq)
{
    const struct request *r = seq->request;
    const struct sampling *s = &r->sampling;
    uint32_t n_output = seq->n_tokens - r->prompt_tokens;
    double x = (double)raw;
    for (uint32_t i = 0; i < s->n_bias; i++) {
        x += s->bias[i].id == id ? (double)s->bias[i].bias : 0.0;
    }
    if (s->repetition_penalty > 0.0f && occurrences(seq->tokens, seq->n_tokens, id) > 0) {
        x = x < 0.0 ? x * (double)s->repetition_penalty : x / (double)s->repetition_penalty;
    }
    uint32_t count = occurrences(seq->tokens + r->prompt_tokens, n_output, id);
    x -= (double)s->frequency_penalty * count;
    x -= count > 0 ? (double)s->presence_penalty : 0.0;
    if (n_output < r->min_new_tokens && (occurrences(seq->eos_ids, seq->n_eos, id) > 0 ||
                                         occurrences(r->stop_ids, r->n_stop_ids, id) > 0)) {
        x = -(double)INFINITY;
    }
    return x;
}

static void check_adjusted(const float *logits, const struct sampler_seq *seq, const char *what)
{
    float before[V];
    memcpy(before, logits, sizeof before);
    const float *got = sampler_adjust(logits, V, seq, &scratch);
    assert_memory_equal(before, logits, sizeof before);
    for (int32_t id = 0; id < V; id++) {
        double want = reference(logits[id], id, seq);
        bool close = isinf(want) ? (double)got[id] == want
                                 : fabs((double)got[id] - want) <= 1e-6 * (30.0 + fabs(want));
        if (!close) {
            fail_msg("%s: id %d: %.9g became %.9g, expected %.9g", what, id, (double)logits[id],
                     (double)got[id], want);
        }
        if (scratch.counts[id] != 0) {
            fail_msg("%s: a count is left at id %d", what, id);
        }
    }
}

/* Every subset of the rules, on random sequences with many repetitions. */
static void test_every_combination_of_rules(void **state)
{
    (void)state;
    struct rng rng = rng_stream(11, 1);
    static const int32_t eos_ids[] = {0, 256};
    for (uint32_t round_no = 0; round_no < 640; round_no++) {
        uint32_t on = round_no % 32;
        float logits[V];
        int32_t tokens[MAX_TOKENS];
        fill(logits, V, &rng, round_no % 3 == 0);
        for (uint32_t i = 0; i < MAX_TOKENS; i++) {
            tokens[i] = (int32_t)rng_below(&rng, round_no % 2 == 0 ? V : 9);
        }
        struct token_bias bias[4];
        for (uint32_t i = 0; i < 4; i++) {
            bias[i] = (struct token_bias){(int32_t)(i * 60 + rng_below(&rng, 60)),
                                          (float)(200.0 * rng_real(&rng) - 100.0)};
        }
        const int32_t stop_ids[] = {bias[0].id, tokens[0], 255};
        struct request r = {.prompt = tokens,
                            .prompt_tokens = (uint32_t)rng_between(&rng, 1, MAX_TOKENS / 2),
                            .ignore_eos = round_no % 5 == 0};
        r.sampling.bias = bias;
        r.sampling.n_bias = (on & 1) != 0 ? 4 : 0;
        r.sampling.repetition_penalty = (on & 2) != 0 ? (float)(0.1 + 2.0 * rng_real(&rng)) : 0.0f;
        r.sampling.frequency_penalty = (on & 4) != 0 ? (float)(4.0 * rng_real(&rng) - 2.0) : 0.0f;
        r.sampling.presence_penalty = (on & 8) != 0 ? (float)(4.0 * rng_real(&rng) - 2.0) : 0.0f;
        struct sampler_seq seq = {.request = &r,
                                  .tokens = tokens,
                                  .n_tokens =
                                      (uint32_t)rng_between(&rng, r.prompt_tokens, MAX_TOKENS),
                                  .eos_ids = eos_ids,
                                  .n_eos = 2};
        if ((on & 16) != 0) {
            r.stop_ids = stop_ids;
            r.n_stop_ids = 3;
            r.min_new_tokens = seq.n_tokens - r.prompt_tokens + round_no % 2;
        }
        char what[80];
        snprintf(what, sizeof what, "rules %u, round %u", on, round_no);
        check_adjusted(logits, &seq, what);
        if (on == 0 && sampler_adjust(logits, V, &seq, &scratch) != logits) {
            fail_msg("without rules the logits are copied");
        }
    }
}

static void test_closed_formulas(void **state)
{
    (void)state;
    const float logits[6] = {2.0f, -1.0f, 0.0f, 8.0f, 4.0f, 1.0f};
    const int32_t tokens[] = {0, 1, 0, 3, 3, 4, 3, 2}; /* 3 of the prompt, 5 of the output */
    const struct token_bias bias[] = {{-1, 5.0f}, {3, -2.0f}, {5, 0.5f}, {6, 5.0f}};
    struct request r = {.prompt_tokens = 3,
                        .sampling = {.repetition_penalty = 2.0f,
                                     .frequency_penalty = 0.5f,
                                     .presence_penalty = 0.25f,
                                     .bias = bias,
                                     .n_bias = 4}};
    struct sampler_seq seq = {.request = &r, .tokens = tokens, .n_tokens = 8};
    const float *got = sampler_adjust(logits, 6, &seq, &scratch);
    const float want[6] = {
        2.0f / 2.0f,                             /* prompt only */
        -1.0f * 2.0f,                            /* prompt only, negative */
        0.0f - 0.5f - 0.25f,                     /* once in the output */
        (8.0f - 2.0f) / 2.0f - 3 * 0.5f - 0.25f, /* bias first; three times */
        4.0f / 2.0f - 0.5f - 0.25f,
        1.5f, /* never seen */
    };
    assert_memory_equal(got, want, sizeof want);
    /* No output yet: only the repetition penalty sees the prompt. */
    seq.n_tokens = 3;
    r.sampling.n_bias = 0;
    got = sampler_adjust(logits, 6, &seq, &scratch);
    const float prompt_only[6] = {1.0f, -2.0f, 0.0f, 8.0f, 4.0f, 1.0f};
    assert_memory_equal(got, prompt_only, sizeof prompt_only);
    r.sampling.repetition_penalty = 1.0f;
    got = sampler_adjust(logits, 6, &seq, &scratch);
    assert_memory_equal(got, logits, sizeof logits);
}

/* Whatever the rules say of finite logits, what comes out can be drawn from. */
static void test_results_stay_finite(void **state)
{
    (void)state;
    const int32_t tokens[] = {0, 1, 2, 0, 1, 2};
    const struct token_bias bias[] = {{0, 100.0f}, {1, -100.0f}, {2, FLT_MAX}};
    const float logits[4] = {FLT_MAX, -FLT_MAX, FLT_MAX, 0.0f};
    const struct sampling hard[] = {
        {.repetition_penalty = 1e-30f},
        {.repetition_penalty = FLT_MAX},
        {.frequency_penalty = FLT_MAX, .presence_penalty = FLT_MAX},
        {.frequency_penalty = -FLT_MAX, .presence_penalty = -FLT_MAX},
        {.repetition_penalty = 1e-30f, .frequency_penalty = -FLT_MAX},
    };
    for (size_t i = 0; i < sizeof hard / sizeof hard[0]; i++) {
        struct request r = {.prompt_tokens = 1, .sampling = hard[i]};
        r.sampling.bias = bias;
        r.sampling.n_bias = 3;
        struct sampler_seq seq = {.request = &r, .tokens = tokens, .n_tokens = 6};
        const float *got = sampler_adjust(logits, 4, &seq, &scratch);
        for (uint32_t k = 0; k < 4; k++) {
            if (!isfinite(got[k])) {
                fail_msg("case %zu: logit %u is %g", i, k, (double)got[k]);
            }
        }
        for (uint32_t t = 0; t < 2; t++) {
            r.sampling.temperature = (float)t;
            r.sampling.top_p = 1.0f;
            assert_in_range(sampler_next(logits, 4, &seq, &scratch), 0, 3);
        }
    }
}

/* A bias of 100 decides, one of -100 forbids; for the greedy choice as for the drawn one. */
static void test_bias_decides(void **state)
{
    (void)state;
    struct rng rng = rng_stream(12, 1);
    const int32_t token = 7;
    for (uint32_t round_no = 0; round_no < 400; round_no++) {
        float logits[V];
        fill(logits, V, &rng, false);
        uint32_t best = 0;
        for (uint32_t i = 1; i < V; i++) {
            best = logits[i] > logits[best] ? i : best;
        }
        struct token_bias bias = {(int32_t)rng_below(&rng, V), 100.0f};
        struct request r = {.prompt_tokens = 1,
                            .sample_key = round_no,
                            .sampling = {.temperature = round_no % 2 == 0 ? 0.0f : 1.0f,
                                         .top_p = round_no % 4 == 1 ? 0.9f : 1.0f,
                                         .top_k = round_no % 8 == 3 ? 40 : 0,
                                         .bias = &bias,
                                         .n_bias = 1}};
        struct sampler_seq seq = {.request = &r, .tokens = &token, .n_tokens = 1};
        assert_int_equal(sampler_next(logits, V, &seq, &scratch), bias.id);
        bias = (struct token_bias){(int32_t)best, -100.0f};
        assert_int_not_equal(sampler_next(logits, V, &seq, &scratch), best);
        bias = (struct token_bias){V, 100.0f}; /* no token */
        struct request plain = r;
        plain.sampling.n_bias = 0;
        struct sampler_seq same = {.request = &plain, .tokens = &token, .n_tokens = 1};
        assert_int_equal(sampler_next(logits, V, &seq, &scratch),
                         sampler_next(logits, V, &same, &scratch));
    }
}

/* Greedy under a strong presence penalty never says a token twice while there are others. */
static void test_greedy_obeys_penalties(void **state)
{
    (void)state;
    struct rng rng = rng_stream(13, 1);
    float logits[V];
    int32_t tokens[V + 1] = {3};
    bool seen[V] = {false};
    fill(logits, V, &rng, true);
    struct request r = {.prompt_tokens = 1, .sampling = {.presence_penalty = 1000.0f}};
    struct sampler_seq seq = {.request = &r, .tokens = tokens, .n_tokens = 1};
    float last = FLT_MAX;
    for (uint32_t i = 0; i < V; i++) {
        int32_t id = sampler_next(logits, V, &seq, &scratch);
        assert_in_range(id, 0, V - 1);
        if (seen[id] || logits[id] > last) {
            fail_msg("token %u: id %d, logit %g after %g", i, id, (double)logits[id], (double)last);
        }
        seen[id] = true;
        last = logits[id];
        tokens[seq.n_tokens++] = id;
    }
}

/* All tokens but one end the sequence: before min_new_tokens it is that one, however unlikely; if
 * it ends it too, the rule gives way. */
static void test_minimum_length(void **state)
{
    (void)state;
    static const struct sampling ways[] = {{.temperature = 0.0f},
                                           {.temperature = 1.0f, .top_p = 1.0f},
                                           {.temperature = FLT_MAX, .top_p = 0.5f},
                                           {.temperature = 2.0f, .top_p = 1.0f, .min_p = 1.0f},
                                           {.temperature = 1.0f, .top_k = 50, .top_p = 0.99f},
                                           {.temperature = 1.0f, .top_k = 1, .top_p = 0.0f}};
    float logits[V] = {0};
    int32_t ids[V];
    int32_t tokens[4] = {0};
    for (int32_t i = 0; i < V; i++) {
        ids[i] = i;
    }
    for (uint32_t left = 0; left < V; left += 16) {
        logits[left] = -1e30f;
        ids[left] = -5;
        for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
            for (uint32_t key = 0; key < 20; key++) {
                struct request r = {.prompt_tokens = 2,
                                    .sampling = ways[w],
                                    .sample_key = key,
                                    .ignore_eos = key % 2 == 0,
                                    .stop_ids = ids + 100,
                                    .n_stop_ids = V - 100,
                                    .min_new_tokens = 2};
                struct sampler_seq seq = {
                    .request = &r, .tokens = tokens, .n_tokens = 3, .eos_ids = ids, .n_eos = 100};
                assert_int_equal(sampler_next(logits, V, &seq, &scratch), left);
                seq.n_tokens = 4; /* two are out: the other tokens are free again */
                assert_int_not_equal(sampler_next(logits, V, &seq, &scratch), left);
            }
        }
        logits[left] = 0.0f;
        ids[left] = (int32_t)left;
    }
    struct request r = {.prompt_tokens = 2, .stop_ids = ids, .n_stop_ids = V, .min_new_tokens = 2};
    struct sampler_seq seq = {.request = &r, .tokens = tokens, .n_tokens = 3};
    logits[9] = 1.0f;
    assert_int_equal(sampler_next(logits, V, &seq, &scratch), 9);
    r.sampling = (struct sampling){.temperature = 0.01f, .top_p = 1.0f};
    assert_int_equal(sampler_next(logits, V, &seq, &scratch), 9);
}

/* ---------------------------------------------------------------- the best, log-probabilities */

static const float *sorted_by;

static int by_rank(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a;
    int32_t y = *(const int32_t *)b;
    if (sorted_by[x] != sorted_by[y]) {
        return sorted_by[x] > sorted_by[y] ? -1 : 1;
    }
    return x < y ? -1 : 1;
}

static void rank(const float *logits, uint32_t n, int32_t *ids)
{
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = (int32_t)i;
    }
    sorted_by = logits;
    qsort(ids, n, sizeof ids[0], by_rank);
}

/* Every vocabulary up to V, with ties and without. */
static void test_top_is_sorted(void **state)
{
    (void)state;
    struct rng rng = rng_stream(14, 1);
    struct sampler_candidate got[V];
    for (uint32_t n = 1; n <= V; n++) {
        float logits[V];
        int32_t want[V];
        fill(logits, n, &rng, n % 2 == 0);
        rank(logits, n, want);
        const uint32_t ks[] = {0, 1, 2, 20, (uint32_t)rng_between(&rng, 1, n), n, n + 1};
        for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++) {
            uint32_t k = ks[i] < n ? ks[i] : n;
            assert_int_equal(sampler_top(logits, n, ks[i], got), k);
            for (uint32_t j = 0; j < k; j++) {
                if (got[j].id != want[j] || got[j].logit != logits[want[j]]) {
                    fail_msg("V = %u, k = %u: place %u has id %d, expected %d", n, ks[i], j,
                             got[j].id, want[j]);
                }
            }
        }
    }
}

static void test_logprobs(void **state)
{
    (void)state;
    struct rng rng = rng_stream(15, 1);
    struct token_prob chosen, top[V + 2];
    for (uint32_t round_no = 0; round_no < 200; round_no++) {
        float logits[V];
        int32_t ids[V];
        fill(logits, V, &rng, round_no % 2 == 0);
        if (round_no % 5 == 0) {
            for (uint32_t i = 0; i < V; i++) {
                logits[i] += 10000.0f; /* no change but what float loses */
            }
        }
        rank(logits, V, ids);
        double total = 0.0, mass = 0.0;
        for (uint32_t i = 0; i < V; i++) {
            total += exp((double)logits[i] - (double)logits[ids[0]]);
        }
        int32_t id = (int32_t)rng_below(&rng, V);
        sampler_logprobs(logits, V, id, &chosen, top, V + 2, &scratch);
        for (uint32_t i = 0; i < V; i++) {
            double want = (double)logits[ids[i]] - (double)logits[ids[0]] - log(total);
            assert_int_equal(top[i].id, ids[i]);
            if (!(fabs((double)top[i].logprob - want) <= 1e-6 * (1.0 + fabs(want)))) {
                fail_msg("place %u: %.9g, expected %.9g", i, (double)top[i].logprob, want);
            }
            mass += exp((double)top[i].logprob);
            if (ids[i] == id) {
                assert_int_equal(chosen.id, id);
                assert_true(chosen.logprob == top[i].logprob);
            }
        }
        assert_true(fabs(mass - 1.0) < 1e-5);
        for (uint32_t i = V; i < V + 2; i++) {
            assert_int_equal(top[i].id, -1);
            assert_true(isnan(top[i].logprob));
        }
        struct token_prob few[3], again;
        sampler_logprobs(logits, V, id, &again, few, 3, &scratch);
        assert_memory_equal(few, top, sizeof few);
        assert_memory_equal(&again, &chosen, sizeof again);
        sampler_logprobs(logits, V, id, &again, NULL, 0, &scratch);
        assert_memory_equal(&again, &chosen, sizeof again);
    }
}

static void test_logprobs_at_the_ends(void **state)
{
    (void)state;
    struct token_prob chosen, top[2];
    float logits[V] = {0};
    sampler_logprobs(logits, V, 7, &chosen, top, 2, &scratch);
    assert_true(fabs((double)chosen.logprob + log(V)) < 1e-6);
    assert_int_equal(top[0].id, 0);
    assert_int_equal(top[1].id, 1);
    assert_true(top[1].logprob == chosen.logprob);
    sampler_logprobs(logits, 1, 0, &chosen, top, 2, &scratch);
    assert_true(chosen.logprob == 0.0f && top[0].logprob == 0.0f);
    assert_int_equal(top[1].id, -1);
    logits[3] = FLT_MAX;
    logits[4] = -FLT_MAX;
    sampler_logprobs(logits, V, 4, &chosen, top, 2, &scratch);
    assert_true(chosen.logprob == -FLT_MAX); /* finite, as JSON needs it */
    assert_true(top[0].id == 3 && top[0].logprob == 0.0f);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (uint32_t i = 0; i < 3; i++) {
        logits[100] = bad[i];
        sampler_logprobs(logits, V, 4, &chosen, top, 2, &scratch);
        assert_true(chosen.id == 4 && isnan(chosen.logprob));
        assert_true(top[0].id == -1 && isnan(top[0].logprob) && top[1].id == -1);
    }
}

static void test_scratch_is_all_or_nothing(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    for (uint64_t n = 1;; n++) {
        struct sampler_scratch s;
        mem_fail_at(n, false);
        enum status got = sampler_scratch_init(&s, 100, &err);
        mem_fail_at(0, false);
        assert_true(s.candidates != NULL ? got == STATUS_OK : got == STATUS_NO_MEMORY);
        if (got == STATUS_OK) {
            assert_int_equal(n, 4);
            sampler_scratch_deinit(&s);
            break;
        }
        assert_non_null(strstr(err.message, "bytes for sampling"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_combination_of_rules),
                                       cmocka_unit_test(test_closed_formulas),
                                       cmocka_unit_test(test_results_stay_finite),
                                       cmocka_unit_test(test_bias_decides),
                                       cmocka_unit_test(test_greedy_obeys_penalties),
                                       cmocka_unit_test(test_minimum_length),
                                       cmocka_unit_test(test_top_is_sorted),
                                       cmocka_unit_test(test_logprobs),
                                       cmocka_unit_test(test_logprobs_at_the_ends),
                                       cmocka_unit_test(test_scratch_is_all_or_nothing)};
    return cmocka_run_group_tests(tests, make_scratch, free_scratch);
}
