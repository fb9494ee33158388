/* The safetensors reader: every rule of the reference reader and our limits as a good or a spoilt
 * file, truncation at every byte, random damage, refused allocations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/model_builders.h"
#include "model/safetensors.h"

#define T(dtype, shape, begin, end)                                                                \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

/* A header text and the number of data bytes behind it; message NULL: must be read. */
struct text_case {
    const char *header;
    size_t data;
    const char *message;
};

static const struct text_case text_cases[] = {
    /* legal edges */
    {"{}", 0, NULL},
    {"{\"a\":" T("F32", "[2]", 0, 8) "}", 8, NULL},
    {"{\"a\":" T("F32", "[]", 0, 4) "}", 4, NULL},
    {"{\"a\":" T("F32", "[3,0,2]", 0, 0) "}", 0, NULL},
    {"{\"b\":" T("U8", "[3]", 4, 7) ",\"a\":" T("F32", "[1]", 0, 4) "}", 7, NULL},
    {"{\"a\":" T("U8", "[0]", 0, 0) ",\"b\":" T("U8", "[2]", 0, 2) ",\"c\":" T("U8", "[0]", 2,
                                                                               2) "}",
     2, NULL},
    {"{\"a\":" T("F32", "[1]", 0, 4) "}      ", 4, NULL},
    {"\t\n {\"a\":" T("F32", "[1]", 0, 4) "}", 4, NULL},
    {"{\"__metadata__\":{\"format\":\"pt\"},\"a\":" T("BF16", "[2,2]", 0, 8) "}", 8, NULL},
    {"{\"__metadata__\":{}}", 0, NULL},
    {"{\"a\":" T("F4", "[2]", 0, 1) "}", 1, NULL},
    {"{\"a\":" T("F6_E2M3", "[4]", 0, 3) "}", 3, NULL},
    {"{\"a\":" T("I8", "[1,1,1,1,1,1,1,2]", 0, 2) "}", 2, NULL},
    {"{\"\":" T("I8", "[2]", 0, 2) "}", 2, NULL},
    {"{\"\\u00e9\":" T("I8", "[2]", 0, 2) "}", 2, NULL},

    /* rule 4: UTF-8, JSON */
    {"", 0, "byte 8"},
    {"[]", 0, "not a JSON object"},
    {"1", 0, "byte 9"},
    {"{", 0, "byte 9"},
    {"{\"a\xFF\":" T("F32", "[1]", 0, 4) "}", 4, "unable to decode byte 0xff"},
    {"{\"\\ud800\":" T("F32", "[1]", 0, 4) "}", 4, "Unicode"},
    {"{\"a\\u0000b\":" T("F32", "[1]", 0, 4) "}", 4, "u0000"},
    {"{\"a\":" T("F32", "[1]", 0, 4) "} x", 4, "end of file expected"},
    {"\xEF\xBB\xBF{}", 0, "expected"},
    {"{\"a\":" T("F32", "[1]", 0, 4) ",}", 4, "string"},
    /* our rule: no duplicate (two readers would see two models) */
    {"{\"a\":" T("F32", "[1]", 0, 4) ",\"a\":" T("F32", "[1]", 0, 4) "}", 4, "duplicate"},
    {"{\"a\":" T("F32", "[1]", 0, 4) ",\"\\u0061\":" T("F32", "[1]", 0, 4) "}", 4, "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "duplicate"},
    /* depth cap */
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[[[1]]],\"data_offsets\":[0,4]}}", 4,
     "nested too deeply"},

    /* rule 5: exactly {dtype, shape, data_offsets}; metadata maps strings to strings */
    {"{\"a\":1}", 0, "not exactly"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 0, "not exactly"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "not exactly"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"offsets\":[0,4]}}", 4, "data_offsets is missing"},
    {"{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype is missing"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "shape is missing"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4]}}", 4, "two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "two integers"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__"},
    {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "__metadata__"},
    {"{\"__metadata__\":[]}", 0, "__metadata__"},
    {"{\"__metadata__\":" T("F32", "[1]", 0, 4) "}", 4, "__metadata__"},
    /* dtypes: never a guess */
    {"{\"a\":" T("F33", "[1]", 0, 4) "}", 4, "unknown dtype 'F33'"},
    {"{\"a\":" T("f32", "[1]", 0, 4) "}", 4, "unknown dtype 'f32'"},
    {"{\"a\":" T("", "[1]", 0, 4) "}", 4, "unknown dtype ''"},
    /* numbers */
    {"{\"a\":" T("F32", "[-1]", 0, 4) "}", 4, "shape holds"},
    {"{\"a\":" T("F32", "[1.0]", 0, 4) "}", 4, "shape holds"},
    {"{\"a\":" T("F32", "[\"1\"]", 0, 4) "}", 4, "shape holds"},
    {"{\"a\":" T("F32", "[null]", 0, 4) "}", 4, "shape holds"},
    {"{\"a\":" T("F32", "[1]", -4, 0) "}", 4, "two integers"},
    {"{\"a\":" T("F32", "[1]", 0, 4.0) "}", 4, "two integers"},
    {"{\"a\":" T("F32", "[1]", 0, "4") "}", 4, "two integers"},
    {"{\"a\":" T("F32", "[1]", 0, 9223372036854775808) "}", 4, "too big integer"},
    {"{\"a\":" T("F32", "[18446744073709551617]", 0, 4) "}", 4, "too big integer"},
    /* ranks */
    {"{\"a\":" T("I8", "[1,1,1,1,1,1,1,1,2]", 0, 2) "}", 2, "rank above 8"},

    /* rule 6: no hole, no overlap, end >= begin */
    {"{\"a\":" T("F32", "[1]", 4, 8) "}", 8, "hole"},
    {"{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 5, 9) "}", 9, "hole"},
    {"{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 3, 7) "}", 7, "overlap"},
    {"{\"a\":" T("F32", "[4]", 0, 16) ",\"b\":" T("F32", "[4]", 0, 16) "}", 16, "overlap"},
    {"{\"a\":" T("F32", "[0]", 4, 0) "}", 4, "data_offsets [4, 0]"},
    /* rule 7: overflow of the product, of the bits */
    {"{\"a\":" T("I8", "[4294967296,4294967296]", 0, 0) "}", 0, "product of its shape overflows"},
    {"{\"a\":" T("F32", "[4611686018427387905]", 0, 4) "}", 4, "its size overflows"},
    /* rule 8: whole bytes */
    {"{\"a\":" T("F4", "[3]", 0, 1) "}", 1, "whole number of bytes"},
    {"{\"a\":" T("F6_E3M2", "[2]", 0, 1) "}", 1, "whole number of bytes"},
    /* rule 9: end - begin is the computed size */
    {"{\"a\":" T("F32", "[2]", 0, 4) "}", 4, "need 8 bytes"},
    {"{\"a\":" T("F32", "[]", 0, 0) "}", 0, "need 4 bytes"},
    /* rule 10: the file ends with the last tensor */
    {"{\"a\":" T("F32", "[1]", 0, 4) "}", 5, "has a tail"},
    {"{\"a\":" T("F32", "[1]", 0, 4) "}", 3, "is truncated"},
    {"{}", 1, "has a tail"},
};

static void check(const char *what, const struct bytes *b, const char *message)
{
    struct safetensors *st = NULL;
    struct error err = ERROR_INIT;
    enum status s = safetensors_parse(b->data, b->len, b->len, "t.safetensors", &st, &err);
    if (message == NULL) {
        if (s != STATUS_OK) {
            fail_msg("%s: %s", what, err.message);
        }
        safetensors_close(st);
    } else if (s != STATUS_BAD_MODEL || st != NULL || strstr(err.message, message) == NULL ||
               strncmp(err.message, "t.safetensors: ", 15) != 0) {
        fail_msg("%s: status %s, message: %s", what, status_name(s), err.message);
    }
}

static void test_headers(void **state)
{
    (void)state;
    size_t n = sizeof text_cases / sizeof text_cases[0];
    for (size_t i = 0; i < n; i++) {
        struct bytes b = {0};
        put_safetensors(&b, text_cases[i].header, text_cases[i].data);
        check(text_cases[i].header, &b, text_cases[i].message);
        bytes_free(&b);
    }
    print_message("%zu headers\n", n);
}

static void test_lengths(void **state)
{
    (void)state;
    const struct {
        uint64_t length;
        size_t file;
        const char *message;
    } cases[] = {
        {2, 0, "begins with a length of 8 bytes"},
        {2, 7, "begins with a length of 8 bytes"},
        {0, 8, "byte 8"}, /* an empty text is no JSON */
        {2, 9, "ends beyond the file"},
        {3, 10, "ends beyond the file"},
        {100000000, 10, "ends beyond the file"},
        {100000001, 10, "the limit is 100000000"},
        {UINT64_MAX, 10, "the limit is 100000000"},
        {UINT64_MAX - 7, 10, "the limit is 100000000"},
        {2, 10, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bytes b = {0};
        put_u64(&b, cases[i].length);
        bytes_put(&b, "{}", 2);
        b.len = cases[i].file;
        char what[64];
        snprintf(what, sizeof what, "length %llu in %zu bytes", (unsigned long long)cases[i].length,
                 cases[i].file);
        check(what, &b, cases[i].message);
        bytes_free(&b);
    }
}

/* Large headers: what must be refused before memory is taken for it, and limits at the number and
 * one beyond. */
static void put_many(struct bytes *b, size_t n)
{
    struct bytes text = {0};
    bytes_put(&text, "{", 1);
    for (size_t i = 0; i < n; i++) {
        char entry[128];
        int len =
            snprintf(entry, sizeof entry, "%s\"%zx\":" T("U8", "[0]", 0, 0), i > 0 ? "," : "", i);
        bytes_put(&text, entry, (size_t)len);
    }
    bytes_put(&text, "}", 1);
    put_u64(b, text.len);
    bytes_put(b, text.data, text.len);
    bytes_free(&text);
}

static void test_limits(void **state)
{
    (void)state;
    struct bytes b = {0};
    /* Names. */
    for (int extra = 0; extra < 2; extra++) {
        char header[1400] = "{\"";
        memset(header + 2, 'n', 1024 + (size_t)extra);
        snprintf(header + 1026 + extra, 200, "\":" T("U8", "[1]", 0, 1) "}");
        put_safetensors(&b, header, 1);
        check("name of 1024 bytes and more", &b, extra == 0 ? NULL : "longer than 1024 bytes");
        bytes_free(&b);
    }
    /* 30 MB of empty arrays would be gigabytes of parsed values. */
    size_t n = 30000000;
    put_u64(&b, n);
    for (size_t i = 0; i < n; i++) {
        put_u8(&b, "[],"[i % 3]);
    }
    check("arrays", &b, "too large");
    bytes_free(&b);
    /* Depth. */
    put_u64(&b, 1000000);
    for (size_t i = 0; i < 1000000; i++) {
        put_u8(&b, '[');
    }
    check("depth", &b, "nested too deeply");
    bytes_free(&b);
    if (getenv("LLMSCHED_TEST_FULL") != NULL) {
        put_many(&b, 1000000);
        check("1,000,000 tensors", &b, NULL);
        bytes_free(&b);
        put_many(&b, 1000001);
        check("1,000,001 tensors", &b, "1000001 tensors; the limit is 1000000");
        bytes_free(&b);
        print_message("full: tensor counts at the limit\n");
    } else {
        print_message("tensor counts at the limit: only with LLMSCHED_TEST_FULL=1\n");
    }
}

static const char two_tensors[] = "{\"__metadata__\":{\"format\":\"pt\"},\"b\":" T(
    "F16", "[2,3]", 8, 20) ",\"a\":" T("F32", "[2]", 0, 8) "}  ";

static void test_values(void **state)
{
    (void)state;
    struct bytes b = {0};
    put_safetensors(&b, two_tensors, 20);
    struct safetensors *st = NULL;
    assert_int_equal(safetensors_parse(b.data, b.len, b.len, "t", &st, NULL), STATUS_OK);
    assert_true(safetensors_count(st) == 2 && safetensors_file_bytes(st) == b.len);
    const struct safetensors_tensor *a = safetensors_at(st, 0);
    const struct safetensors_tensor *c = safetensors_at(st, 1);
    assert_string_equal(a->name, "a");
    assert_true(a->dtype == SAFETENSORS_F32 && a->rank == 1 && a->shape[0] == 2 && a->bytes == 8);
    assert_true(a->offset == b.len - 20);
    assert_string_equal(c->name, "b");
    assert_true(c->dtype == SAFETENSORS_F16 && c->rank == 2 && c->shape[1] == 3 && c->bytes == 12);
    assert_true(c->offset == b.len - 12);
    assert_string_equal(safetensors_dtype_name(SAFETENSORS_F8_E4M3FNUZ), "F8_E4M3FNUZ");
    safetensors_close(st);
    bytes_free(&b);
}

static void test_truncation(void **state)
{
    (void)state;
    struct bytes b = {0};
    put_safetensors(&b, two_tensors, 20);
    char folder[256];
    make_folder(folder);
    char path[512];
    snprintf(path, sizeof path, "%s/t.safetensors", folder);
    struct safetensors *st = NULL;
    for (size_t n = 0; n < b.len; n++) {
        struct error err = ERROR_INIT;
        uint8_t *copy = malloc(n + (n == 0));
        memcpy(copy, b.data, n);
        assert_int_equal(safetensors_parse(copy, n, n, "t", &st, &err), STATUS_BAD_MODEL);
        free(copy);
        write_file(folder, "t.safetensors", b.data, n);
        assert_int_equal(safetensors_open(path, &st, &err), STATUS_BAD_MODEL);
        assert_null(st);
        assert_non_null(strstr(err.message, path));
    }
    write_file(folder, "t.safetensors", b.data, b.len);
    assert_int_equal(safetensors_open(path, &st, NULL), STATUS_OK);
    safetensors_close(st);
    print_message("%zu lengths\n", b.len);
    st = NULL;
    assert_int_equal(safetensors_parse(b.data, 30, b.len, "t", &st, NULL), STATUS_BAD_MODEL);
    assert_int_equal(safetensors_open("/nonexistent/x", &st, NULL), STATUS_NOT_FOUND);
    assert_int_equal(safetensors_open("/tmp", &st, NULL), STATUS_BAD_MODEL);
    remove_tree(folder);
    bytes_free(&b);
}

static void test_damage(void **state)
{
    (void)state;
    struct bytes b = {0};
    put_safetensors(&b, two_tensors, 20);
    struct rng r = rng_stream(7, 1);
    for (int i = 0; i < 20000; i++) {
        size_t at = (size_t)rng_below(&r, b.len);
        uint8_t old = b.data[at];
        b.data[at] = (uint8_t)rng_next(&r);
        struct safetensors *st = NULL;
        if (safetensors_parse(b.data, b.len, b.len, "t", &st, NULL) == STATUS_OK) {
            uint64_t end = 8;
            for (uint64_t t = 0; t < safetensors_count(st); t++) {
                const struct safetensors_tensor *x = safetensors_at(st, t);
                assert_true(x->offset >= end && x->offset + x->bytes <= b.len);
                end = x->offset + x->bytes;
            }
            safetensors_close(st);
        }
        b.data[at] = old;
    }
    bytes_free(&b);
}

static void test_refused_allocations(void **state)
{
    (void)state;
    struct bytes b = {0};
    put_safetensors(&b, two_tensors, 20);
    char folder[256];
    make_folder(folder);
    write_file(folder, "t.safetensors", b.data, b.len);
    char path[512];
    snprintf(path, sizeof path, "%s/t.safetensors", folder);
    uint64_t k = 1;
    for (;; k++) {
        struct safetensors *st = NULL;
        struct error err = ERROR_INIT;
        mem_fail_at(k, k % 2 == 0);
        enum status s = safetensors_open(path, &st, &err);
        mem_fail_at(0, false);
        if (s == STATUS_OK) {
            safetensors_close(st);
            break;
        }
        if (s != STATUS_NO_MEMORY) {
            fail_msg("allocation %llu: %s", (unsigned long long)k, err.message);
        }
    }
    assert_true(k > 10);
    print_message("%llu allocations refused\n", (unsigned long long)(k - 1));
    remove_tree(folder);
    bytes_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_refused_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
