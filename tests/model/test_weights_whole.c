/* Whole models: random weights of a built-in shape, and the real SmolLM2 where it was fetched. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/weights.h"

/* ---- random weights ---- */

static void test_random(void **state)
{
    (void)state;
    static struct model_config c;
    assert_int_equal(config_builtin("gpt2", &c, NULL), STATUS_OK);
    struct weights *w[3] = {NULL};
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(weights_random(&c, i == 2 ? 8 : 7, &w[i], NULL), STATUS_OK);
    }
    enum { ROWS = 64, COLUMNS = 768, ELEMENTS = ROWS * COLUMNS };
    static float a[ELEMENTS];
    static float b[ELEMENTS];
    assert_int_equal(weights_read_rows(w[0], ROLE_UP, 3, false, 100, ROWS, a, NULL), STATUS_OK);
    /* The same seed, one row at a time from the last to the first. */
    for (uint64_t r = ROWS; r-- > 0;) {
        assert_int_equal(
            weights_read_rows(w[1], ROLE_UP, 3, false, 100 + r, 1, b + r * COLUMNS, NULL),
            STATUS_OK);
    }
    assert_memory_equal(a, b, sizeof a);
    double sum = 0;
    double squares = 0;
    for (size_t i = 0; i < ELEMENTS; i++) {
        sum += (double)a[i];
        squares += (double)a[i] * (double)a[i];
    }
    double n = ELEMENTS;
    assert_true(fabs(sum / n) < 5 * 0.02 / sqrt(n));
    assert_true(fabs(sqrt(squares / n) - 0.02) < 0.0005);
    /* Another seed, layer or role is another matrix. */
    const struct {
        int w;
        enum weight_role role;
        uint32_t layer;
    } others[] = {{2, ROLE_UP, 3}, {0, ROLE_UP, 4}, {0, ROLE_EMBED, 0}, {0, ROLE_O, 3}};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(weights_read_rows(w[others[i].w], others[i].role, others[i].layer, false,
                                           100, ROWS, b, NULL),
                         STATUS_OK);
        int same = 0;
        for (size_t e = 0; e < ELEMENTS; e++) {
            same += a[e] == b[e];
        }
        assert_true(same < 100);
    }
    assert_int_equal(weights_read_rows(w[0], ROLE_ATTN_NORM, 0, false, 0, 1, a, NULL), STATUS_OK);
    assert_int_equal(weights_read_rows(w[0], ROLE_Q, 0, true, 0, 1, b, NULL), STATUS_OK);
    assert_true(a[0] == 1.0F && a[767] == 1.0F && b[0] == 0.0F && b[767] == 0.0F);
    struct weights_summary s;
    weights_summarise(w[0], &s);
    assert_string_equal(s.format, "random weights");
    assert_true(s.bytes == 4 * config_parameter_count(&c));
    assert_false(weights_find(w[0], ROLE_HEAD, 0, false, NULL));
    assert_false(weights_find(w[0], ROLE_QKV, 0, false, NULL));
    for (int i = 0; i < 3; i++) {
        weights_close(w[i]);
    }
}

/* ---- the real model ---- */

static void test_smollm2(void **state)
{
    (void)state;
    const char *path = getenv("LLMSCHED_TEST_MODEL");
    path = path != NULL ? path : SOURCE_DIR "/models/SmolLM2-135M-Instruct";
    if (access(path, R_OK) != 0) {
        print_message("skipped: no model at %s; `make model` fetches it\n", path);
        skip();
    }
    static struct model_config c;
    struct weights *w = NULL;
    struct error err = ERROR_INIT;
    assert_int_equal(config_open(path, &c, &err), STATUS_OK);
    assert_true(c.n_layers == 30 && c.n_channels == 576 && c.n_heads == 9 && c.n_kv_heads == 3);
    assert_true(c.head_size == 64 && c.n_ffn == 1536 && c.n_ctx == 8192 && c.n_vocab == 49152);
    assert_true(c.norm_eps == 1e-5F && c.rope_theta == 100000.0F && c.tied);
    assert_true(c.bos_id == 1 && c.n_eos == 1 && c.eos_ids[0] == 2);
    assert_true(config_parameter_count(&c) == 134515008);
    assert_int_equal(weights_open(path, &c, &w, &err), STATUS_OK);
    struct weights_summary s;
    weights_summarise(w, &s);
    assert_string_equal(s.dtypes, "F32 x 61, Q8_0 x 1, Q4_1 x 210");
    assert_true(s.n_tensors == 272 && s.bytes == 96576768);
    /* From the Python package gguf, rows put back by reshape(9, 32, 2, C).swapaxes(1, 2). */
    const struct {
        enum weight_role role;
        uint32_t layer, row;
        float first, second, last, largest;
    } golden[] = {
        {ROLE_Q, 0, 33, -0x1.014p-4F, 0x1.284p-3F, 0x1.f4p-6F, 0x1.f8p-1F},
        {ROLE_K, 29, 190, -0x1.cfcp-4F, -0x1.cfcp-4F, -0x1.4f3p-2F, 0x1.89d8p-1F},
        {ROLE_V, 7, 1, 0x1.a8p-5F, -0x1.e28p-4F, -0x1.1a8p-4F, 0x1.9a08p-1F},
        {ROLE_EMBED, 0, 49151, 0x1.79p-7F, 0x1.79p-8F, -0x1.55ap-5F, 0x1.89e6p-1F},
        {ROLE_DOWN, 15, 575, 0x1.09p-5F, 0x1.8cp-4F, -0x1.2d6p-4F, 0x1.bap-1F},
        {ROLE_FINAL_NORM, 0, 0, 0x1.c2p+0F, 0x1.d2p+0F, 0x1.fcp+0F, 0x1.acp+1F},
    };
    static float row[1536];
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        struct weight_info info;
        assert_true(weights_find(w, golden[i].role, golden[i].layer, false, &info));
        assert_int_equal(weights_read_rows(w, golden[i].role, golden[i].layer, false, golden[i].row,
                                           1, row, &err),
                         STATUS_OK);
        float largest = 0.0F;
        for (uint64_t k = 0; k < info.columns; k++) {
            largest = fmaxf(largest, fabsf(row[k]));
        }
        assert_true(row[0] == golden[i].first && row[1] == golden[i].second);
        assert_true(row[info.columns - 1] == golden[i].last && largest == golden[i].largest);
    }
    weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_smollm2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
