/* test_kv.c - where keys and values go, what the storage costs, and rotary tables. */
#include <math.h>
#include <unistd.h>

#include "infer_test.h"

#include "infer/kv.h"
#include "infer/rope.h"
#include "tensor/bf16.h"

static const struct model_config smol = {.n_layers = 30, .n_kv_heads = 3, .head_size = 64};

static uint64_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    unsigned long size, resident;
    assert_int_equal(fscanf(f, "%lu %lu", &size, &resident), 2);
    fclose(f);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void test_memory_follows_use(void **state)
{
    struct kv kv;
    struct error err = ERROR_INIT;
    (void)state;
    assert_int_equal(kv_bytes(&smol, TENSOR_F32, 4096), 4096ull * 16 * 2 * 30 * 3 * 64 * 4);
    assert_int_equal(kv_bytes(&smol, TENSOR_BF16, 4096), 4096ull * 16 * 2 * 30 * 3 * 64 * 2);
    uint64_t before = resident_bytes();
    must(kv_init(&kv, &smol, TENSOR_F32, 4096, &err), &err);
    assert_int_equal(kv.bytes, 4096ull * 16 * 2 * 30 * 3 * 64 * 4);
    assert_true(resident_bytes() - before < (1u << 20));
    float row[3 * 64] = {1.0f};
    for (uint32_t layer = 0; layer < 30; layer++) {
        kv_store(&kv, 4095, layer, 7, row, row);
    }
    assert_true(resident_bytes() - before < (8u << 20));
    kv_deinit(&kv);
}

static void test_sizes_are_checked(void **state)
{
    struct error err = ERROR_INIT;
    struct kv kv;
    const struct model_config huge = {
        .n_layers = 512, .n_kv_heads = 1u << 20, .head_size = 1u << 20};
    (void)state;
    assert_true(kv_bytes(&huge, TENSOR_BF16, UINT32_MAX) == UINT64_MAX);
    assert_int_equal(kv_init(&kv, &huge, TENSOR_BF16, UINT32_MAX, &err), STATUS_NO_MEMORY);
    assert_non_null(strstr(err.message, "--kv-blocks"));
    mem_fail_at(1, false);
    assert_int_equal(kv_init(&kv, &smol, TENSOR_F32, 1, &err), STATUS_NO_MEMORY);
    mem_fail_at(0, false);
}

static float element(const void *tile, enum tensor_dtype dtype, size_t at)
{
    return dtype == TENSOR_F32 ? ((const float *)tile)[at]
                               : bf16_to_f32(((const uint16_t *)tile)[at]);
}

static void check_cells(enum tensor_dtype dtype)
{
    const struct model_config c = {.n_layers = 3, .n_kv_heads = 2, .head_size = 5};
    struct kv kv;
    struct error err = ERROR_INIT;
    must(kv_init(&kv, &c, dtype, 4, &err), &err);
    /* Every cell gets its own value; then every cell must still have it. */
    for (uint32_t pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < 4 * 3 * 16; i++) {
            uint32_t block = i / 48, layer = i / 16 % 3, column = i % 16;
            float k[10], v[10];
            for (uint32_t j = 0; j < 10; j++) {
                k[j] = (float)(i * 20 + j);
                v[j] = (float)(i * 20 + 10 + j);
            }
            if (pass == 0) {
                kv_store(&kv, block, layer, 160 + column, k, v);
                continue;
            }
            for (uint32_t j = 0; j < 10; j++) {
                const void *keys = kv_key_tile(&kv, block, layer, j / 5);
                const void *values = kv_value_tile(&kv, block, layer, j / 5);
                float key = element(keys, dtype, (j % 5) * 16 + column);
                float value = element(values, dtype, column * 5 + j % 5);
                bool exact = dtype == TENSOR_F32;
                assert_true(key == (exact ? k[j] : bf16_to_f32(bf16_from_f32(k[j]))));
                assert_true(value == (exact ? v[j] : bf16_to_f32(bf16_from_f32(v[j]))));
            }
        }
    }
    assert_int_equal((uintptr_t)kv_key_tile(&kv, 3, 2, 1) % 64, 0);
    char *end = (char *)kv_value_tile(&kv, 3, 2, 1) + kv_tile_bytes(dtype, 5);
    assert_ptr_equal(end, kv.data + kv.bytes);
    kv_deinit(&kv);
}

static void test_cells(void **state)
{
    (void)state;
    check_cells(TENSOR_F32);
    check_cells(TENSOR_BF16);
}

static void test_bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    static const struct {
        float from, to;
    } cases[] = {{0.0f, 0.0f},
                 {-1.5f, -1.5f},
                 {1.0f + 0x1p-8f, 1.0f},
                 {1.0f + 0x1.8p-8f, 1.0f + 0x1p-7f},
                 {1.0f + 3 * 0x1p-8f, 1.0f + 0x1p-6f},
                 {-1.0f - 3 * 0x1p-8f, -1.0f - 0x1p-6f},
                 {0x1p-133f, 0x1p-133f},
                 {0x1p-135f, 0.0f},
                 {3.4028235e38f, INFINITY},
                 {-INFINITY, -INFINITY}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float got = bf16_to_f32(bf16_from_f32(cases[i].from));
        if (got != cases[i].to) {
            fail_msg("%a becomes %a, not %a", (double)cases[i].from, (double)got,
                     (double)cases[i].to);
        }
    }
    uint32_t bits = 0x7F800001U; /* a NaN whose upper half is infinity's */
    float nan;
    memcpy(&nan, &bits, sizeof nan);
    assert_true(isnan(bf16_to_f32(bf16_from_f32(nan))));
}

static void test_rope_bands(void **state)
{
    (void)state;
    struct model_config c = {.head_size = 64,
                             .rope_theta = 10000.0f,
                             .rope_scaling = ROPE_PLAIN,
                             .rope_factor = 8.0f,
                             .rope_low_freq_factor = 1.0f,
                             .rope_high_freq_factor = 4.0f,
                             .rope_original_ctx = 8192};
    float plain_cos[4 * 32], plain_sin[4 * 32];
    rope_fill(&c, 4, plain_cos, plain_sin);
    for (uint32_t i = 0; i < 32; i++) {
        double f = pow(10000.0, -2.0 * i / 64.0);
        assert_true(fabs((double)plain_cos[3 * 32 + i] - cos(3.0 * f)) <= 1e-7);
        assert_true(fabs((double)plain_sin[3 * 32 + i] - sin(3.0 * f)) <= 1e-7);
        c.rope_scaling = ROPE_LINEAR;
        assert_true(fabs(rope_frequency(&c, i) * 8.0 / f - 1.0) <= 1e-12);
        c.rope_scaling = ROPE_LLAMA3;
        double ratio = rope_frequency(&c, i) / f;
        double turns = 8192.0 * f / (2.0 * 3.14159265358979323846); /* in the original context */
        if (turns > 4.0) {
            assert_true(ratio == 1.0);
        } else if (turns < 1.0) {
            assert_true(fabs(ratio - 0.125) <= 1e-12);
        } else {
            assert_true(fabs(ratio - (0.125 + 0.875 * (turns - 1.0) / 3.0)) <= 1e-9);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_follows_use), cmocka_unit_test(test_sizes_are_checked),
        cmocka_unit_test(test_cells), cmocka_unit_test(test_bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_rope_bands)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
