/*
 * test_quality.c - what bf16 and int8 cost: the real model on real text (tests/data/prose.txt, our
 * own documentation), against itself in f32, which test_smollm2 holds against Transformers.
 *
 * In windows of WINDOW tokens, every position but the first of a window counts: perplexity =
 * e^(mean of -ln p(next token)), and the mean Kullback-Leibler divergence of the next token's
 * distribution from that in f32. Limits: perplexity within 0.5 % (bf16), 0.8 % (int8) of f32, with
 * keys and values in f32 as in bf16. Of few positions (under a sanitizer) perplexity is mostly
 * chance: int8 within 2 % there.
 */
#include <glob.h>
#include <math.h>

#include "infer_test.h"

#include "base/fs.h"
#include "base/mem.h"
#include "model/tokenizer.h"

#if SANITIZED
#define WINDOW  128
#define WINDOWS 2
#else
#define WINDOW  512
#define WINDOWS 9
#endif

struct score {
    double nll; /* sum over positions */
    double kl;
    uint32_t n;
};

static struct model_config config;
static struct weights *weights;
static int32_t tokens[WINDOWS * WINDOW];

static bool find_model(char *out, size_t size)
{
    glob_t g;
    bool found = glob(SOURCE_DIR "/models/SmolLM2-135M-Instruct/*.gguf", 0, NULL, &g) == 0;
    if (found) {
        snprintf(out, size, "%s", g.gl_pathv[0]);
        globfree(&g);
    }
    return found;
}

static void read_text(const char *model)
{
    struct error err = ERROR_INIT;
    struct tokenizer *tok;
    char *text;
    size_t len;
    must(tokenizer_open(model, config.n_vocab, &tok, &err), &err);
    must(fs_read_file(TEST_DATA_DIR "/prose.txt", 1 << 20, &text, &len, &err), &err);
    struct token_ids ids = {0};
    must(tokenizer_encode(tok, text, len, false, &ids, &err), &err);
    assert_true(ids.n >= WINDOWS * WINDOW);
    memcpy(tokens, ids.ids, sizeof tokens);
    token_ids_deinit(&ids);
    mem_free(text);
    tokenizer_close(tok);
}

/* In place: logarithms of probabilities. */
static void log_softmax(float *x, uint32_t n)
{
    double max = (double)x[0];
    for (uint32_t i = 1; i < n; i++) {
        max = fmax(max, (double)x[i]);
    }
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        sum += exp((double)x[i] - max);
    }
    float shift = (float)(max + log(sum));
    for (uint32_t i = 0; i < n; i++) {
        x[i] -= shift;
    }
}

/* All windows; the rows of f32 are kept in, or compared with, `reference`. */
static struct score run(const struct tensor_ops *ops, enum tensor_dtype dtype,
                        enum tensor_dtype kv_dtype, float *reference)
{
    const size_t V = config.n_vocab;
    struct exec_model *m;
    struct error err = ERROR_INIT;
    struct score s = {0};
    float *logits = malloc(WINDOW * V * sizeof *logits);
    assert_non_null(logits);
    const struct exec_model_options o = {.config = &config,
                                         .weights = weights,
                                         .ops = ops,
                                         .dtype = dtype,
                                         .kv_dtype = kv_dtype,
                                         .kv_blocks = WINDOW / 16,
                                         .max_model_len = WINDOW};
    must(exec_model_create(&o, &m, &err), &err);
    for (uint32_t w = 0; w < WINDOWS; w++) {
        const int32_t *ids = tokens + (size_t)w * WINDOW;
        must(exec_model_logits(m, ids, WINDOW, logits, &err), &err);
        for (uint32_t i = 0; i + 1 < WINDOW; i++) {
            float *row = logits + i * V;
            float *want = reference + ((size_t)w * WINDOW + i) * V;
            log_softmax(row, (uint32_t)V);
            s.nll -= (double)row[ids[i + 1]];
            s.n++;
            if (dtype == TENSOR_F32) {
                memcpy(want, row, V * sizeof *row);
                continue;
            }
            for (size_t k = 0; k < V; k++) {
                s.kl += exp((double)want[k]) * (double)(want[k] - row[k]);
            }
        }
    }
    exec_model_destroy(m);
    free(logits);
    return s;
}

static void narrow_dtypes_keep_the_quality(void **state)
{
    (void)state;
    static const struct {
        enum tensor_dtype dtype, kv_dtype;
        double perplexity, kl; /* at most */
    } cases[] = {{TENSOR_BF16, TENSOR_F32, 0.005, 0.0005},
                 {TENSOR_BF16, TENSOR_BF16, 0.005, 0.0005},
                 {TENSOR_INT8, TENSOR_F32, SANITIZED ? 0.02 : 0.008, 0.010},
                 {TENSOR_INT8, TENSOR_BF16, SANITIZED ? 0.02 : 0.008, 0.010}};
    const struct tensor_ops *all[8];
    uint32_t n = tensor_available(all, 8);
    float *reference = malloc((size_t)WINDOWS * WINDOW * config.n_vocab * sizeof *reference);
    assert_non_null(reference);
    struct score f32 = run(all[0], TENSOR_F32, TENSOR_F32, reference);
    double perplexity = exp(f32.nll / f32.n);
    print_message("%u positions, perplexity in f32 %.4f\n", f32.n, perplexity);
    for (uint32_t i = 0; i + 1 < n; i++) { /* the reference, last, takes minutes */
        bool is_first = i == 0 || strcmp(all[i]->isa, "avx2") == 0;
        for (size_t c = 0; is_first && c < sizeof cases / sizeof cases[0]; c++) {
            struct score s = run(all[i], cases[c].dtype, cases[c].kv_dtype, reference);
            double ratio = exp(s.nll / s.n) / perplexity;
            print_message("%s %s, KV in %s: perplexity %+.3f %%, mean KL %.6f\n", all[i]->isa,
                          tensor_dtype_name(cases[c].dtype), tensor_dtype_name(cases[c].kv_dtype),
                          100.0 * (ratio - 1.0), s.kl / s.n);
            assert_true(fabs(ratio - 1.0) <= cases[c].perplexity);
            assert_true(s.kl / s.n <= cases[c].kl);
        }
    }
    free(reference);
}

int main(void)
{
    char model[1024];
    struct error err = ERROR_INIT;
    if (!find_model(model, sizeof model)) {
        puts("no model: `make model` fetches it");
        return 77;
    }
    must(config_open(model, &config, &err), &err);
    must(weights_open(model, &config, &weights, &err), &err);
    read_text(model);
    const struct CMUnitTest tests[] = {cmocka_unit_test(narrow_dtypes_keep_the_quality)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    weights_close(weights);
    return failed;
}
