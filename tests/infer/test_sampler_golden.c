/*
 * test_sampler_golden.c - the sampler against Transformers' own processors in its own order.
 *
 * File: tests/data/sampling_golden.json, made by tests/oracle/make_sampling_golden.py. Per case the
 * logits after the rules must agree, nothing that the library cuts off may be drawn, and 4,000
 * draws must follow its probabilities within 5 standard deviations.
 */
#include <math.h>

#include <jansson.h>

#include "infer_test.h"

#include "infer/sampler.h"

#define V          32
#define MAX_TOKENS 64
#define DRAWS      4000

static const char *const order[] = {"SequenceBiasLogitsProcessor",
                                    "RepetitionPenaltyLogitsProcessor",
                                    "MinNewTokensLengthLogitsProcessor",
                                    "TemperatureLogitsWarper",
                                    "TopKLogitsWarper",
                                    "TopPLogitsWarper",
                                    "MinPLogitsWarper"};
#define N_ORDER (sizeof order / sizeof order[0])

/* The library ran what we know, in the order that sampler.h states. */
static void check_order(const json_t *names, uint32_t *times)
{
    size_t at = 0;
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        while (at < N_ORDER && strcmp(order[at], name) != 0) {
            at++;
        }
        if (at == N_ORDER) {
            fail_msg("%s stands elsewhere in the library's order, or is not known", name);
        }
        times[at]++;
    }
}

static uint32_t read_ids(const json_t *list, int32_t *ids)
{
    uint32_t n = (uint32_t)json_array_size(list);
    assert_in_range(n, 1, MAX_TOKENS);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    return n;
}

static float number(const json_t *c, const char *key, float otherwise)
{
    const json_t *x = json_object_get(c, key);
    return x == NULL ? otherwise : (float)json_number_value(x);
}

static uint32_t read_bias(const json_t *list, struct token_bias *bias)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i);
        bias[i] = (struct token_bias){(int32_t)json_integer_value(json_array_get(pair, 0)),
                                      (float)json_number_value(json_array_get(pair, 1))};
    }
    return (uint32_t)json_array_size(list);
}

static void check_draws(const float *logits, struct request *r, const struct sampler_seq *seq,
                        struct sampler_scratch *s, const json_t *probabilities, size_t c)
{
    uint32_t hits[V] = {0};
    for (uint32_t i = 0; i < DRAWS; i++) {
        r->sample_key = rng_key(c, i);
        int32_t id = sampler_next(logits, V, seq, s);
        assert_in_range(id, 0, V - 1);
        hits[id]++;
    }
    for (uint32_t i = 0; i < V; i++) {
        double p = json_number_value(json_array_get(probabilities, i));
        double slack = 5.0 * sqrt(DRAWS * p * (1.0 - p)) + (p > 0.0 ? 3.0 : 0.0);
        if (!(fabs(hits[i] - DRAWS * p) <= slack)) {
            fail_msg("case %zu: id %u drawn %u times, expected %.1f +- %.1f", c, i, hits[i],
                     DRAWS * p, slack);
        }
    }
}

static void check_case(const json_t *j, const json_t *eos, size_t c, struct sampler_scratch *s)
{
    float logits[V];
    int32_t tokens[MAX_TOKENS], eos_ids[MAX_TOKENS];
    struct token_bias bias[V];
    for (uint32_t i = 0; i < V; i++) {
        logits[i] = (float)json_number_value(json_array_get(json_object_get(j, "logits"), i));
    }
    struct request r = {
        .prompt_tokens = (uint32_t)json_integer_value(json_object_get(j, "prompt_tokens")),
        .min_new_tokens = (uint32_t)json_integer_value(json_object_get(j, "min_new_tokens")),
        .sampling = {.temperature = number(j, "temperature", 0.0f),
                     .top_k = (uint32_t)json_integer_value(json_object_get(j, "top_k")),
                     .top_p = number(j, "top_p", 1.0f),
                     .min_p = number(j, "min_p", 0.0f),
                     .repetition_penalty = number(j, "repetition_penalty", 0.0f),
                     .bias = bias,
                     .n_bias = read_bias(json_object_get(j, "bias"), bias)}};
    struct sampler_seq seq = {.request = &r,
                              .tokens = tokens,
                              .n_tokens = read_ids(json_object_get(j, "tokens"), tokens),
                              .eos_ids = eos_ids,
                              .n_eos = read_ids(eos, eos_ids)};
    assert_true(r.sampling.temperature > 0.0f && r.prompt_tokens >= 1);
    const float *got = sampler_adjust(logits, V, &seq, s);
    for (uint32_t i = 0; i < V; i++) {
        const json_t *x = json_array_get(json_object_get(j, "adjusted"), i);
        double want = json_is_null(x) ? -HUGE_VAL : json_number_value(x);
        if (!((double)got[i] == want || fabs((double)got[i] - want) <= 1e-6 * fabs(want))) {
            fail_msg("case %zu: logit of id %u became %.9g, expected %.9g", c, i, (double)got[i],
                     want);
        }
    }
    check_draws(logits, &r, &seq, s, json_object_get(j, "probabilities"), c);
}

static void test_as_transformers(void **state)
{
    (void)state;
    json_error_t e;
    struct error err = ERROR_INIT;
    struct sampler_scratch s;
    uint32_t times[N_ORDER] = {0};
    json_t *root = json_load_file(TEST_DATA_DIR "/sampling_golden.json", 0, &e);
    if (root == NULL) {
        fail_msg("sampling_golden.json: %s", e.text);
    }
    must(sampler_scratch_init(&s, V, &err), &err);
    const json_t *cases = json_object_get(root, "cases");
    assert_true(json_array_size(cases) >= 100);
    for (size_t c = 0; c < json_array_size(cases); c++) {
        const json_t *j = json_array_get(cases, c);
        assert_int_equal(json_array_size(json_object_get(j, "logits")), V);
        check_order(json_object_get(j, "processors"), times);
        check_case(j, json_object_get(root, "eos_ids"), c, &s);
    }
    for (size_t i = 0; i < N_ORDER; i++) {
        assert_true(times[i] >= 20); /* each was there often enough to matter */
    }
    sampler_scratch_deinit(&s);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_as_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
