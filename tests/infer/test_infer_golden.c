/*
 * test_infer_golden.c - logits of every position against Transformers, on every instruction set.
 *
 * Files: tests/data/tiny, made by tests/oracle/make_golden_models.py. Bound: in each row
 * max |difference| <= 1e-4 * max |logit|.
 */
#include <math.h>

#include <jansson.h>

#include "infer_test.h"

#define TOLERANCE  1e-4
#define MAX_PROMPT 128
#define MAX_VOCAB  256

static json_t *load_json(const char *folder, const char *name)
{
    char path[600];
    json_error_t e;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    json_t *j = json_load_file(path, 0, &e);
    if (j == NULL) {
        fail_msg("%s: %s", path, e.text);
    }
    return j;
}

/* The largest difference of a row, as a share of its largest logit. NaN counts as infinite. */
static double row_error(const float *got, const float *want, uint32_t n)
{
    double worst = 0.0;
    double largest = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        double diff = fabs((double)got[i] - (double)want[i]);
        if (!(diff <= 1e30)) {
            return HUGE_VAL;
        }
        worst = fmax(worst, diff);
        largest = fmax(largest, fabs((double)want[i]));
    }
    return worst / largest;
}

static double check_prompt(struct exec_model *m, const json_t *prompt, const float *want,
                           uint32_t n_vocab, const char *what)
{
    static float got[MAX_PROMPT * MAX_VOCAB];
    int32_t ids[MAX_PROMPT];
    struct error err = ERROR_INIT;
    uint32_t n = (uint32_t)json_array_size(prompt);
    assert_in_range(n, 1, MAX_PROMPT);
    assert_in_range(n_vocab, 1, MAX_VOCAB);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(prompt, i));
    }
    must(exec_model_logits(m, ids, n, got, &err), &err);
    double worst = 0.0;
    for (uint32_t p = 0; p < n; p++) {
        double e = row_error(got + (size_t)p * n_vocab, want + (size_t)p * n_vocab, n_vocab);
        if (!(e <= TOLERANCE)) {
            fail_msg("%s: %u tokens, position %u: error %.3g of the largest logit", what, n, p, e);
        }
        worst = fmax(worst, e);
    }
    return worst;
}

static void check_model(const char *name, const struct tensor_ops *ops)
{
    struct checkpoint c;
    struct exec_model *m;
    struct error err = ERROR_INIT;
    char what[128];
    checkpoint_open(&c, name);
    must(exec_model_create(&(struct exec_model_options){.config = &c.config,
                                                        .weights = c.weights,
                                                        .ops = ops,
                                                        .n_threads = 2,
                                                        .kv_blocks = 8,
                                                        .max_rows = 24},
                           &m, &err),
         &err);
    json_t *golden = load_json(c.folder, "golden.json");
    char path[600];
    size_t len;
    snprintf(path, sizeof path, "%s/golden.f32", c.folder);
    char *bytes = read_file(path, &len);
    snprintf(what, sizeof what, "%s on %s", name, ops->isa);
    size_t at = 0;
    double worst = 0.0;
    size_t i;
    json_t *prompt;
    json_array_foreach(json_object_get(golden, "prompts"), i, prompt)
    {
        size_t floats = json_array_size(prompt) * c.config.n_vocab;
        assert_true(at + floats * sizeof(float) <= len);
        float *want = malloc(floats * sizeof *want);
        assert_non_null(want);
        memcpy(want, bytes + at, floats * sizeof *want);
        worst = fmax(worst, check_prompt(m, prompt, want, c.config.n_vocab, what));
        at += floats * sizeof *want;
        free(want);
    }
    assert_int_equal(at, len);
    assert_true(i >= 5);
    print_message("%-36s %zu prompts, worst error %.2g of the largest logit\n", what, i, worst);
    free(bytes);
    json_decref(golden);
    exec_model_destroy(m);
    checkpoint_close(&c);
}

static void test_tiny_models(void **state)
{
    const struct tensor_ops *isas[MAX_ISAS];
    uint32_t n_isas = tensor_available(isas, MAX_ISAS);
    (void)state;
    assert_in_range(n_isas, 1, MAX_ISAS);
    for (size_t i = 0; i < N_TINY; i++) {
        for (uint32_t k = 0; k < n_isas; k++) {
            check_model(tiny_models[i], isas[k]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tiny_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
