/* De-quantisation: bit for bit what the Python package gguf computes (tests/oracle/
 * make_dequant_golden.py), all 65,536 f16 and bf16 numbers, and the type table. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <jansson.h>

#include "model/dequant.h"
#include "model/gguf.h"
#include "model/model_builders.h"

static void put_hex(struct bytes *b, const json_t *text)
{
    const char *p = json_string_value(text);
    assert_non_null(p);
    for (; p[0] != '\0'; p += 2) {
        char digits[3] = {p[0], p[1], '\0'};
        put_u8(b, (uint8_t)strtoul(digits, NULL, 16));
    }
}

static void test_golden(void **state)
{
    (void)state;
    json_t *root = json_load_file(TEST_DATA_DIR "/dequant_golden.json", 0, NULL);
    assert_non_null(root);
    static const enum weight_dtype dtypes[] = {DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0,
                                               DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q6_K};
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        const struct dequant_layout *layout = dequant_layout(dtypes[i]);
        const json_t *entry = json_object_get(root, layout->name);
        struct bytes packed = {0};
        put_u8(&packed, 0); /* one byte, so that the blocks lie at odd addresses */
        put_hex(&packed, json_object_get(entry, "packed"));
        struct bytes values = {0};
        put_hex(&values, json_object_get(entry, "values"));
        size_t n = values.len / sizeof(float);
        assert_true(n >= 64 && (packed.len - 1) / layout->bytes * layout->block == n);
        float *out = malloc(values.len + 1);
        dequant_row(dtypes[i], packed.data + 1, n, out);
        assert_memory_equal(out, values.data, values.len);
        free(out);
        bytes_free(&packed);
        bytes_free(&values);
        print_message("%s: %zu values\n", layout->name, n);
    }
    json_decref(root);
}

static void test_f16(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float got = dequant_f16((uint16_t)bits);
        int exponent = (int)(bits >> 10 & 0x1F);
        double mantissa = bits & 0x3FF;
        double want;
        if (exponent == 31) {
            want = mantissa != 0 ? nan("") : HUGE_VAL;
        } else if (exponent == 0) {
            want = ldexp(mantissa, -24);
        } else {
            want = ldexp(1024 + mantissa, exponent - 25);
        }
        if (isnan(want)) {
            assert_true(isnan(got));
            continue;
        }
        want = (bits & 0x8000) != 0 ? -want : want;
        assert_true((double)got == want && (signbit(got) != 0) == ((bits & 0x8000) != 0));
    }
}

static void test_bf16(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float got = dequant_bf16((uint16_t)bits);
        uint32_t back;
        memcpy(&back, &got, sizeof back);
        assert_true(back == bits << 16);
    }
}

/* Sizes agree with the directory's table; types that we cannot read are not mapped. */
static void test_types(void **state)
{
    (void)state;
    uint32_t readable = 0;
    for (uint32_t id = 0; id < 100; id++) {
        enum weight_dtype dtype;
        const struct ggml_type *type = ggml_type_of(id);
        if (!dequant_from_ggml(id, &dtype)) {
            continue;
        }
        readable++;
        const struct dequant_layout *layout = dequant_layout(dtype);
        assert_non_null(type);
        assert_string_equal(type->name, layout->name);
        assert_true(type->block == layout->block && type->bytes == layout->bytes);
    }
    assert_int_equal(readable, 7);
    enum weight_dtype dtype;
    assert_false(dequant_from_ggml(12, &dtype)); /* Q4_K */
    assert_false(dequant_from_ggml(4, &dtype));  /* removed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
