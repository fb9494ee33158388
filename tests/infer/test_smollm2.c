/*
 * test_smollm2.c - the real model against Transformers: 20 prompts x 64 greedy tokens, and logits.
 *
 * Golden: tests/data/smollm2_golden.json, made by tests/oracle/make_golden_models.py. The model is
 * models/SmolLM2-135M-Instruct/<one>.gguf in the source folder (`make model`) or the file named by
 * LLMSCHED_TEST_MODEL; without it the test is skipped. All prompts run as one batch.
 */
#include <glob.h>
#include <math.h>

#include <jansson.h>

#include "infer_test.h"

#include "base/monotime.h"

#define MAX_PROMPTS 20
#define NEW_TOKENS  64
#define MAX_LEN     128
#define TOLERANCE   1e-4

#if SANITIZED
#define TEST_PROMPTS 1
#else
#define TEST_PROMPTS MAX_PROMPTS
#endif

static char model_path[1024];
static struct model_config config;
static struct weights *weights;
static json_t *golden;

static bool find_model(void)
{
    const char *named = getenv("LLMSCHED_TEST_MODEL");
    if (named != NULL && named[0] != '\0') {
        snprintf(model_path, sizeof model_path, "%s", named);
        return true;
    }
    glob_t g;
    bool found = glob(SOURCE_DIR "/models/SmolLM2-135M-Instruct/*.gguf", 0, NULL, &g) == 0;
    if (found) {
        snprintf(model_path, sizeof model_path, "%s", g.gl_pathv[0]);
        globfree(&g);
    }
    return found;
}

static int open_all(void **state)
{
    struct error err = ERROR_INIT;
    json_error_t e;
    (void)state;
    must(config_open(model_path, &config, &err), &err);
    must(weights_open(model_path, &config, &weights, &err), &err);
    golden = json_load_file(TEST_DATA_DIR "/smollm2_golden.json", 0, &e);
    assert_non_null(golden);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    weights_close(weights);
    json_decref(golden);
    return 0;
}

static struct exec_model *open_model(const struct tensor_ops *ops)
{
    struct exec_model *m;
    struct error err = ERROR_INIT;
    uint64_t begin = monotime_now_ns();
    must(exec_model_create(&(struct exec_model_options){.config = &config,
                                                        .weights = weights,
                                                        .ops = ops,
                                                        .kv_blocks = MAX_PROMPTS * MAX_LEN / 16,
                                                        .max_model_len = MAX_LEN},
                           &m, &err),
         &err);
    print_message("loaded in %.2f s, %s, %u threads\n", monotime_seconds(monotime_now_ns() - begin),
                  exec_model_isa(m), exec_model_threads(m));
    return m;
}

static uint32_t read_ids(const json_t *list, int32_t *out, uint32_t capacity)
{
    uint32_t n = (uint32_t)json_array_size(list);
    assert_in_range(n, 1, capacity);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    return n;
}

/* ---------------------------------------------------------------- greedy tokens */

struct stream {
    struct request request;
    int32_t tokens[MAX_LEN];
    uint32_t known;
    uint32_t computed;
    uint32_t blocks[MAX_LEN / 16];
    int32_t want[NEW_TOKENS];
};

static uint32_t step_all(struct executor *e, struct stream *streams, uint32_t n)
{
    static struct exec_result result;
    struct exec_item items[MAX_PROMPTS];
    uint32_t live[MAX_PROMPTS], n_items = 0;
    struct error err = ERROR_INIT;
    for (uint32_t i = 0; i < n; i++) {
        struct stream *s = &streams[i];
        if (s->known < s->request.prompt_tokens + NEW_TOKENS) {
            items[n_items] = (struct exec_item){.seq = {.request = &s->request,
                                                        .tokens = s->tokens,
                                                        .known_tokens = s->known,
                                                        .computed_tokens = s->computed,
                                                        .blocks = s->blocks,
                                                        .n_blocks = MAX_LEN / 16},
                                                .n_tokens = s->known - s->computed};
            live[n_items++] = i;
        }
    }
    if (n_items == 0) {
        return 0;
    }
    must(e->submit(e->self, &(struct exec_step){.items = items, .n_items = n_items}, &err), &err);
    must(e->poll(e->self, &result, &err), &err);
    for (uint32_t i = 0; i < n_items; i++) {
        struct stream *s = &streams[live[i]];
        assert_int_equal(result.items[i].n_out, 1);
        s->computed = s->known;
        s->tokens[s->known++] = result.items[i].out[0];
        uint32_t made = s->known - s->request.prompt_tokens;
        assert_int_equal(result.items[i].finish, made == NEW_TOKENS ? FINISH_LENGTH : FINISH_NONE);
        if (s->want[made - 1] != s->tokens[s->known - 1]) {
            fail_msg("prompt %u: token %u is %d, Transformers' %d", live[i], made - 1,
                     s->tokens[s->known - 1], s->want[made - 1]);
        }
    }
    return n_items;
}

static void check_greedy(struct exec_model *m, uint32_t n_prompts)
{
    static struct stream streams[MAX_PROMPTS];
    const json_t *prompts = json_object_get(golden, "prompts");
    assert_int_equal(json_array_size(prompts), MAX_PROMPTS);
    for (uint32_t i = 0; i < n_prompts; i++) {
        const json_t *p = json_array_get(prompts, i);
        struct stream *s = &streams[i];
        *s = (struct stream){0};
        s->known = read_ids(json_object_get(p, "ids"), s->tokens, MAX_LEN - NEW_TOKENS);
        assert_int_equal(read_ids(json_object_get(p, "greedy"), s->want, NEW_TOKENS), NEW_TOKENS);
        assert_true(json_real_value(json_object_get(p, "min_gap")) >= 5e-3);
        s->request = (struct request){.id = i,
                                      .prompt = s->tokens,
                                      .prompt_tokens = s->known,
                                      .max_new_tokens = NEW_TOKENS,
                                      .ignore_eos = true};
        for (uint32_t b = 0; b < MAX_LEN / 16; b++) {
            s->blocks[b] = b * MAX_PROMPTS + i;
        }
    }
    struct executor *e = exec_model_executor(m);
    exec_model_timing_reset(m);
    uint32_t tokens = 0, made;
    while ((made = step_all(e, streams, n_prompts)) > 0) {
        tokens += made;
    }
    struct exec_model_timing t;
    exec_model_timing_get(m, &t);
    print_message("%u prompts x %d greedy tokens equal; %.0f tokens/s\n", n_prompts, NEW_TOKENS,
                  tokens / monotime_seconds(t.total_ns));
}

/* ---------------------------------------------------------------- logits */

/* The i-th wanted value belongs to id ids[i]. Bound relative to the row's largest logit. */
static double compare_some(const float *row, const json_t *ids, const json_t *values,
                           double largest)
{
    double worst = 0.0;
    assert_int_equal(json_array_size(ids), json_array_size(values));
    for (size_t i = 0; i < json_array_size(ids); i++) {
        json_int_t id = json_integer_value(json_array_get(ids, i));
        assert_in_range(id, 0, config.n_vocab - 1);
        double diff = fabs((double)row[id] - json_number_value(json_array_get(values, i)));
        if (!(diff <= TOLERANCE * largest)) {
            fail_msg("logit of id %lld differs by %.3g, largest is %.3g", (long long)id, diff,
                     largest);
        }
        worst = fmax(worst, diff / largest);
    }
    return worst;
}

static void check_logits(struct exec_model *m)
{
    const json_t *prompts = json_object_get(golden, "prompts");
    double worst = 0.0;
    uint32_t rows = 0;
    float *logits = malloc((size_t)MAX_LEN * config.n_vocab * sizeof *logits);
    assert_non_null(logits);
    for (size_t i = 0; i < TEST_PROMPTS; i++) {
        const json_t *p = json_array_get(prompts, i);
        const json_t *wanted = json_object_get(p, "logits");
        struct error err = ERROR_INIT;
        int32_t ids[MAX_LEN];
        if (wanted == NULL) {
            continue;
        }
        uint32_t n = read_ids(json_object_get(p, "ids"), ids, MAX_LEN - NEW_TOKENS);
        n += read_ids(json_object_get(p, "greedy"), ids + n, NEW_TOKENS) - 1;
        must(exec_model_logits(m, ids, n, logits, &err), &err);
        for (size_t k = 0; k < json_array_size(wanted); k++) {
            const json_t *w = json_array_get(wanted, k);
            json_int_t at = json_integer_value(json_object_get(w, "position"));
            assert_in_range(at, 0, n - 1);
            const float *row = logits + (size_t)at * config.n_vocab;
            double largest = json_real_value(json_object_get(w, "max_abs"));
            double a = compare_some(row, json_object_get(w, "top_ids"), json_object_get(w, "top"),
                                    largest);
            double b = compare_some(row, json_object_get(golden, "subset"),
                                    json_object_get(w, "subset"), largest);
            worst = fmax(worst, fmax(a, b));
            rows++;
        }
    }
    free(logits);
    assert_int_equal(rows, TEST_PROMPTS == 1 ? 3 : 12);
    print_message("%u rows of logits: worst error %.2g of the largest\n", rows, worst);
}

/* The best instruction set in `make test`; with LLMSCHED_TEST_FULL=1 all of them. */
static void test_real_model(void **state)
{
    const struct tensor_ops *isas[MAX_ISAS];
    uint32_t n_isas = tensor_available(isas, MAX_ISAS);
    (void)state;
    bool full = getenv("LLMSCHED_TEST_FULL") != NULL && TEST_PROMPTS == MAX_PROMPTS;
    for (uint32_t k = 0; k < (full ? n_isas : 1); k++) {
        struct exec_model *m = open_model(isas[k]);
        check_logits(m);
        check_greedy(m, TEST_PROMPTS);
        exec_model_destroy(m);
    }
}

int main(void)
{
    if (!find_model()) {
        print_message("skipped: no model; run `make model` or set LLMSCHED_TEST_MODEL\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_real_model)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
