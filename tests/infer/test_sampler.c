/* test_sampler.c - against a plain double reference, and the shape of the distribution. */
#include <math.h>

#include "infer_test.h"

#include "infer/sampler.h"

#define V 257

static struct sampler_candidate scratch[V];

struct ref_token {
    double p;
    double logit;
    int32_t id;
};

static int by_rank(const void *a, const void *b)
{
    const struct ref_token *x = a;
    const struct ref_token *y = b;
    if (x->logit != y->logit) {
        return x->logit > y->logit ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

/* Probabilities by the definition: sort, cut, cut, normalise. Zero where filtered. */
static void reference(const float *logits, uint32_t n, const struct sampling *s, double *p)
{
    struct ref_token t[V];
    for (uint32_t i = 0; i < n; i++) {
        t[i] = (struct ref_token){.logit = (double)logits[i], .id = (int32_t)i};
    }
    qsort(t, n, sizeof t[0], by_rank);
    uint32_t kept = n;
    if (s->top_k > 0 && s->top_k < n) {
        kept = s->top_k;
        while (kept < n && t[kept].logit == t[kept - 1].logit) {
            kept++;
        }
    }
    double total = 0.0;
    for (uint32_t i = 0; i < kept; i++) {
        t[i].p = exp((t[i].logit - t[0].logit) / (double)s->temperature);
        total += t[i].p;
    }
    double before = 0.0;
    uint32_t nucleus = 0;
    while (nucleus < kept &&
           (nucleus == 0 || !(s->top_p < 1.0f) || before < (double)s->top_p * total)) {
        before += t[nucleus++].p;
    }
    memset(p, 0, n * sizeof *p);
    double likely = 0.0;
    for (uint32_t i = 0; i < nucleus; i++) {
        likely += t[i].p < (double)s->min_p * t[0].p ? 0.0 : t[i].p;
    }
    for (uint32_t i = 0; i < nucleus; i++) {
        p[t[i].id] = t[i].p < (double)s->min_p * t[0].p ? 0.0 : t[i].p / likely;
    }
}

static const struct sampling cases[] = {
    {.temperature = 0.7f, .top_k = 50, .top_p = 0.95f},
    {.temperature = 1.0f, .top_k = 0, .top_p = 1.0f},
    {.temperature = 1.3f, .top_k = 5, .top_p = 1.0f},
    {.temperature = 1.0f, .top_k = 0, .top_p = 0.5f},
    {.temperature = 2.0f, .top_k = 1, .top_p = 1.0f},
    {.temperature = 0.01f, .top_k = 0, .top_p = 0.9f},
    {.temperature = 1.0f, .top_k = 1000, .top_p = 0.0f},
    {.temperature = 1.5f, .top_p = 1.0f, .min_p = 0.05f},
    {.temperature = 3.0f, .top_p = 0.8f, .min_p = 0.3f},
    {.temperature = 2.0f, .top_k = 30, .top_p = 0.9f, .min_p = 0.1f},
    {.temperature = 1.0f, .top_p = 1.0f, .min_p = 1.0f}};

static void fill(float *logits, struct rng *rng, bool ties)
{
    for (uint32_t i = 0; i < V; i++) {
        double x = 2.0 * rng_normal(rng);
        logits[i] = ties ? (float)round(x) : (float)x;
    }
}

/* 20,000 draws: nothing outside the kept set, and each frequency within 5 standard deviations. */
static void test_distribution(void **state)
{
    (void)state;
    struct rng rng = rng_stream(3, 1);
    for (size_t c = 0; c < 2 * sizeof cases / sizeof cases[0]; c++) {
        const struct sampling *s = &cases[c / 2];
        float logits[V];
        double p[V];
        uint32_t hits[V] = {0};
        const uint32_t draws = 20000;
        fill(logits, &rng, c % 2 == 1);
        reference(logits, V, s, p);
        for (uint32_t i = 0; i < draws; i++) {
            int32_t id = sampler_pick(logits, V, s, c + 1, i, scratch);
            assert_in_range(id, 0, V - 1);
            hits[id]++;
        }
        for (uint32_t i = 0; i < V; i++) {
            double want = p[i] * draws;
            double slack = 5.0 * sqrt(want * (1.0 - p[i])) + (p[i] > 0.0 ? 3.0 : 0.0);
            if (!(fabs(hits[i] - want) <= slack)) {
                fail_msg("case %zu: id %u drawn %u times, expected %.1f +- %.1f", c, i, hits[i],
                         want, slack);
            }
        }
    }
}

/* The draw is the inverse of the cumulative distribution at rng_unit(rng_at(key, position)). */
static void test_draw_is_the_inverse(void **state)
{
    static const uint32_t draw_cases[] = {0, 3, 8, 9}; /* those that sort: the walk goes by rank */
    (void)state;
    struct rng rng = rng_stream(4, 1);
    for (uint32_t round_no = 0; round_no < 300; round_no++) {
        struct sampling s = cases[draw_cases[round_no % 4]];
        float logits[V];
        double p[V];
        struct ref_token t[V];
        fill(logits, &rng, false);
        reference(logits, V, &s, p);
        for (uint32_t i = 0; i < V; i++) {
            t[i] = (struct ref_token){.p = p[i], .logit = (double)logits[i], .id = (int32_t)i};
        }
        qsort(t, V, sizeof t[0], by_rank);
        double u = rng_unit(rng_at(99, round_no));
        double sum = 0.0;
        uint32_t at = 0;
        while (at + 1 < V && !(u < sum + t[at].p)) {
            sum += t[at++].p;
        }
        if (fabs(u - sum) < 1e-12 || fabs(u - sum - t[at].p) < 1e-12) {
            continue; /* on the edge, where rounding may decide */
        }
        assert_int_equal(sampler_pick(logits, V, &s, 99, round_no, scratch), t[at].id);
    }
}

/* Of unsorted candidates each weight is seen: exp(x), but for the rounding of x / temperature, over
 * all of its range, and 0 below. */
static void test_weights_are_exponentials(void **state)
{
    (void)state;
    struct rng rng = rng_stream(7, 1);
    const float temperatures[] = {0.01f, 0.7f, 1.0f, 1.9f};
    for (uint32_t round_no = 0; round_no < 400; round_no++) {
        struct sampling s = {.temperature = temperatures[round_no % 4], .top_p = 1.0f};
        double reach = 1400.0 * (double)s.temperature * rng_unit(rng_next(&rng));
        float logits[V];
        float max = -INFINITY;
        for (uint32_t i = 0; i < V; i++) {
            logits[i] = (float)(reach * (rng_unit(rng_next(&rng)) - 0.5));
            max = logits[i] > max ? logits[i] : max;
        }
        uint32_t least = round_no % V;
        if (logits[least] < max) {
            logits[least] = -INFINITY;
        }
        sampler_pick(logits, V, &s, 1, round_no, scratch);
        for (uint32_t i = 0; i < V; i++) {
            double x = ((double)logits[i] - (double)max) / (double)s.temperature;
            double want = x < -708.0 ? 0.0 : exp(x);
            assert_int_equal(scratch[i].id, i);
            if (!(fabs(scratch[i].weight - want) <= 4e-13 * want)) {
                fail_msg("exp(%.17g): %.17g, expected %.17g", x, scratch[i].weight, want);
            }
        }
    }
}

/* No token is less likely than another: those of the lowest ids stay, all of them. */
static void test_top_p_of_equal_logits(void **state)
{
    (void)state;
    const float top_p[] = {0.01f, 0.5f, 0.9f, 0.999f};
    const float logits[V] = {0};
    for (size_t c = 0; c < sizeof top_p / sizeof top_p[0]; c++) {
        const struct sampling s = {.temperature = 1.0f, .top_p = top_p[c]};
        uint32_t kept = (uint32_t)ceil((double)top_p[c] * V);
        uint32_t hits[V] = {0};
        for (uint32_t i = 0; i < 20 * V; i++) {
            hits[sampler_pick(logits, V, &s, c + 1, i, scratch)]++;
        }
        for (uint32_t i = 0; i < V; i++) {
            assert_true((hits[i] > 0) == (i < kept));
        }
    }
}

static void test_greedy_lowest_id_wins(void **state)
{
    (void)state;
    float logits[V] = {0};
    const struct sampling greedy = {0};
    assert_int_equal(sampler_pick(logits, V, &greedy, 1, 1, NULL), 0);
    logits[200] = 3.0f;
    logits[77] = 3.0f;
    assert_int_equal(sampler_pick(logits, V, &greedy, 1, 1, NULL), 77);
    logits[256] = 3.5f;
    assert_int_equal(sampler_pick(logits, V, &greedy, 1, 1, NULL), 256);
    assert_int_equal(sampler_pick(logits, 1, &greedy, 1, 1, NULL), 0);
}

/* Vocabularies of every size up to V: whole blocks are skipped, so the edges matter. */
static void test_every_size(void **state)
{
    (void)state;
    struct rng rng = rng_stream(6, 1);
    for (uint32_t n = 1; n <= V; n++) {
        float logits[V];
        double p[V];
        fill(logits, &rng, n % 3 == 0);
        uint32_t best = 0;
        for (uint32_t i = 1; i < n; i++) {
            best = logits[i] > logits[best] ? i : best;
        }
        const struct sampling greedy = {0};
        assert_int_equal(sampler_pick(logits, n, &greedy, 1, 1, NULL), best);
        const struct sampling s = {
            .temperature = 3.0f, .top_k = (uint32_t)rng_between(&rng, 1, n), .top_p = 1.0f};
        reference(logits, n, &s, p);
        bool seen[V] = {false};
        for (uint32_t i = 0; i < 400; i++) {
            int32_t id = sampler_pick(logits, n, &s, n, i, scratch);
            assert_in_range(id, 0, n - 1);
            seen[id] = true;
        }
        for (uint32_t i = 0; i < n; i++) {
            if (seen[i] ? p[i] == 0.0 : p[i] > 0.05) {
                fail_msg("V = %u, top-k %u: id %u of probability %.3f was%s drawn", n, s.top_k, i,
                         p[i], seen[i] ? "" : " not");
            }
        }
    }
}

static void test_not_finite_is_refused_everywhere(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const int32_t token = 0;
    const struct token_bias bias = {.id = 4, .bias = 1.0f};
    struct request requests[] = {{.prompt_tokens = 1},
                                 {.prompt_tokens = 1, .sampling = cases[0]},
                                 {.prompt_tokens = 1, .sampling = {.bias = &bias, .n_bias = 1}}};
    struct sampler_scratch all;
    struct error err = ERROR_INIT;
    must(sampler_scratch_init(&all, V, &err), &err);
    for (uint32_t at = 0; at < V; at++) {
        float logits[V] = {0};
        logits[at] = bad[at % 3];
        for (uint32_t r = 0; r < 3; r++) {
            struct sampler_seq seq = {.request = &requests[r], .tokens = &token, .n_tokens = 1};
            assert_int_equal(sampler_next(logits, V, &seq, &all), -1);
            logits[at] = 0.0f;
            assert_in_range(sampler_next(logits, V, &seq, &all), 0, V - 1);
            logits[at] = bad[at % 3];
        }
    }
    sampler_scratch_deinit(&all);
    float large[V] = {0};
    large[3] = 3.4e38f; /* finite, however large */
    large[4] = -3.4e38f;
    assert_int_equal(sampler_pick(large, V, &cases[0], 1, 1, scratch), 3);
}

static void test_key_and_position_decide(void **state)
{
    (void)state;
    struct rng rng = rng_stream(5, 1);
    float logits[V];
    uint32_t same = 0;
    for (uint32_t i = 0; i < 200; i++) {
        fill(logits, &rng, false);
        const struct sampling *s = &cases[1];
        int32_t a = sampler_pick(logits, V, s, 7, i, scratch);
        assert_int_equal(sampler_pick(logits, V, s, 7, i, scratch), a);
        same += sampler_pick(logits, V, s, 8, i, scratch) == a;
        same += sampler_pick(logits, V, s, 7, i + 1000, scratch) == a;
    }
    assert_in_range(same, 0, 100); /* other draws: mostly other tokens */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_distribution),
                                       cmocka_unit_test(test_draw_is_the_inverse),
                                       cmocka_unit_test(test_weights_are_exponentials),
                                       cmocka_unit_test(test_top_p_of_equal_logits),
                                       cmocka_unit_test(test_greedy_lowest_id_wins),
                                       cmocka_unit_test(test_every_size),
                                       cmocka_unit_test(test_not_finite_is_refused_everywhere),
                                       cmocka_unit_test(test_key_and_position_decide)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
