/* The GGUF reader: every rule of the format as a good or a spoilt file, truncation at every byte,
 * random files read back, random damage, refused allocations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/gguf.h"
#include "model/model_builders.h"

static enum status parse(const struct bytes *b, struct gguf **g, struct error *err)
{
    return gguf_parse(b->data, b->len, b->len, "test.gguf", g, err);
}

/* ---- cases: a function writes the file; message NULL means that it must be read ---- */

static void good_empty(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 0);
}

static void good_version_2(struct bytes *b)
{
    gguf_preamble(b, 2, 0, 1);
    gguf_key_u32(b, "a", 1);
}

static void bad_magic(struct bytes *b)
{
    bytes_put(b, "GGML", 4);
    put_u32(b, 3);
    put_u64(b, 0);
    put_u64(b, 0);
}

static void bad_no_bytes(struct bytes *b)
{
    (void)b;
}

static void bad_version_0(struct bytes *b)
{
    gguf_preamble(b, 0, 0, 0);
}

static void bad_version_1(struct bytes *b)
{
    gguf_preamble(b, 1, 0, 0);
}

static void bad_version_future(struct bytes *b)
{
    gguf_preamble(b, 4, 0, 0);
}

static void bad_version_endian(struct bytes *b)
{
    gguf_preamble(b, 0x03000000, 0, 0);
}

static void bad_n_tensors_huge(struct bytes *b)
{
    gguf_preamble(b, 3, UINT64_MAX, 0);
}

static void bad_n_tensors_remaining(struct bytes *b)
{
    gguf_preamble(b, 3, 3, 0); /* 3 entries of at least 25 bytes do not fit into 74 */
    put_zeros(b, 74);
}

static void bad_n_tensors_limit(struct bytes *b)
{
    gguf_preamble(b, 3, 1000001, 0);
    put_zeros(b, (size_t)25 * 1000001);
}

static void bad_n_keys_huge(struct bytes *b)
{
    gguf_preamble(b, 3, 0, UINT64_MAX);
}

static void bad_n_keys_remaining(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 2);
    put_zeros(b, 27);
}

static void bad_n_keys_limit(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 65537);
    put_zeros(b, (size_t)14 * 65537);
}

static void good_n_keys_limit(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 65536);
    for (int i = 0; i < 65536; i++) {
        char name[16];
        snprintf(name, sizeof name, "k%d", i);
        gguf_key(b, name, 0);
        put_u8(b, 1);
    }
}

static void bad_key_length_huge(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    put_u64(b, UINT64_MAX); /* + 1 for the NUL would wrap to 0 */
    put_zeros(b, 64);
}

static void bad_key_length_remaining(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    put_u64(b, 65);
    put_zeros(b, 64);
}

static void key_of_length(struct bytes *b, size_t n)
{
    gguf_preamble(b, 3, 0, 1);
    put_u64(b, n);
    for (size_t i = 0; i < n; i++) {
        put_u8(b, 'k');
    }
    put_u32(b, 4);
    put_u32(b, 7);
}

static void good_key_length_limit(struct bytes *b)
{
    key_of_length(b, 1 << 20);
}

static void bad_key_length_limit(struct bytes *b)
{
    key_of_length(b, (1 << 20) + 1);
}

static void bad_key_empty(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key_u32(b, "", 1);
}

static void bad_key_nul(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    put_u64(b, 3);
    bytes_put(b, "a\0b", 3);
    put_u32(b, 4);
    put_u32(b, 1);
}

static void bad_key_type(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key(b, "a", 13);
    put_zeros(b, 16);
}

static void bad_key_duplicate(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 3);
    gguf_key_u32(b, "a", 1);
    gguf_key_u32(b, "b", 1);
    gguf_key_u32(b, "a", 2);
}

static void bad_bool(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key(b, "a", 7);
    put_u8(b, 2);
}

static void bad_bool_in_array(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key_array(b, "a", 7, 3);
    bytes_put(b, "\0\1\2", 3);
}

static void bad_string_huge(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key(b, "a", 8);
    put_u64(b, UINT64_MAX);
    put_zeros(b, 64);
}

static void bad_string_limit(struct bytes *b)
{
    size_t n = ((size_t)64 << 20) + 1;
    gguf_preamble(b, 3, 0, 1);
    gguf_key(b, "a", 8);
    put_u64(b, n);
    put_zeros(b, n);
}

static void bad_array_count_huge(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1); /* the 43 bytes that hung a reader, more or less */
    gguf_key_array(b, "a", 0, (uint64_t)1 << 63);
}

static void bad_array_count_wraps(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key_array(b, "a", 10, ((uint64_t)1 << 61) + 1); /* * 8 = 8 */
    put_zeros(b, 64);
}

static void bad_array_count_remaining(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key_array(b, "a", 4, 3);
    put_zeros(b, 11);
}

static void bad_array_strings_remaining(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key_array(b, "a", 8, 2);
    put_zeros(b, 15);
}

static void array_of(struct bytes *b, uint64_t n)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key_array(b, "a", 0, n);
    put_zeros(b, (size_t)n);
}

static void good_array_limit(struct bytes *b)
{
    array_of(b, 1 << 24);
}

static void bad_array_limit(struct bytes *b)
{
    array_of(b, (1 << 24) + 1);
}

static void bad_array_of_arrays(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key_array(b, "a", 9, 1);
    put_zeros(b, 32);
}

static void bad_array_element(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key_array(b, "a", 77, 1);
    put_zeros(b, 32);
}

static void good_array_empty(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 2);
    gguf_key_array(b, "a", 8, 0);
    gguf_key_array(b, "b", 5, 0);
}

/* ---- alignment ---- */

static void with_alignment(struct bytes *b, uint32_t alignment)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key_u32(b, "general.alignment", alignment);
}

static void good_alignment_limit(struct bytes *b)
{
    with_alignment(b, 1 << 20);
}

static void bad_alignment_limit(struct bytes *b)
{
    with_alignment(b, 1 << 21);
}

static void bad_alignment_wraps(struct bytes *b)
{
    with_alignment(b, 1U << 31);
}

static void bad_alignment_zero(struct bytes *b)
{
    with_alignment(b, 0);
}

static void bad_alignment_odd(struct bytes *b)
{
    with_alignment(b, 24);
}

static void bad_alignment_type(struct bytes *b)
{
    gguf_preamble(b, 3, 0, 1);
    gguf_key(b, "general.alignment", 10);
    put_u64(b, 32);
}

/* ---- tensors ---- */

static const uint64_t dims_8x2[] = {8, 2};

static void good_tensors(struct bytes *b)
{
    gguf_preamble(b, 3, 2, 0);
    gguf_tensor_entry(b, "one", 2, dims_8x2, 0, 0);  /* 64 bytes */
    gguf_tensor_entry(b, "two", 1, dims_8x2, 1, 64); /* 16 bytes */
    put_padding(b, 32);
    put_zeros(b, 80); /* the last tensor needs no padding behind it */
}

static void good_custom_alignment(struct bytes *b)
{
    gguf_preamble(b, 3, 2, 1);
    gguf_key_u32(b, "general.alignment", 256);
    gguf_tensor_entry(b, "one", 2, dims_8x2, 0, 0);
    gguf_tensor_entry(b, "two", 2, dims_8x2, 0, 256);
    put_padding(b, 256);
    put_zeros(b, 512);
}

static void bad_inconsistent_alignment(struct bytes *b)
{
    gguf_preamble(b, 3, 2, 1);
    gguf_key_u32(b, "general.alignment", 256);
    gguf_tensor_entry(b, "one", 2, dims_8x2, 0, 0);
    gguf_tensor_entry(b, "two", 2, dims_8x2, 0, 64); /* as if it were 32 */
    put_padding(b, 256);
    put_zeros(b, 512);
}

static void good_rank_0_and_empty(struct bytes *b)
{
    const uint64_t none[] = {0, 5};
    gguf_preamble(b, 3, 2, 0);
    gguf_tensor_entry(b, "scalar", 0, NULL, 0, 0);
    gguf_tensor_entry(b, "empty", 2, none, 8, 32);
    put_padding(b, 32);
    put_zeros(b, 32);
}

static void one_tensor(struct bytes *b, const char *name, uint32_t rank, const uint64_t *dims,
                       uint32_t type, uint64_t offset)
{
    gguf_preamble(b, 3, 1, 0);
    gguf_tensor_entry(b, name, rank, dims, type, offset);
    put_padding(b, 32);
    put_zeros(b, 4096);
}

static void good_tensor_name_63(struct bytes *b)
{
    one_tensor(b, "123456789 123456789 123456789 123456789 123456789 123456789 123", 1, dims_8x2, 0,
               0);
}

static void bad_tensor_name_64(struct bytes *b)
{
    one_tensor(b, "123456789 123456789 123456789 123456789 123456789 123456789 1234", 1, dims_8x2,
               0, 0);
}

static void bad_tensor_name_empty(struct bytes *b)
{
    one_tensor(b, "", 1, dims_8x2, 0, 0);
}

static void bad_tensor_duplicate(struct bytes *b)
{
    gguf_preamble(b, 3, 2, 0);
    gguf_tensor_entry(b, "one", 2, dims_8x2, 0, 0);
    gguf_tensor_entry(b, "one", 2, dims_8x2, 0, 64);
    put_padding(b, 32);
    put_zeros(b, 128);
}

static void bad_rank(struct bytes *b)
{
    const uint64_t dims[] = {8, 1, 1, 1, 1};
    one_tensor(b, "t", 5, dims, 0, 0);
}

static void bad_rank_huge(struct bytes *b)
{
    gguf_preamble(b, 3, 1, 0);
    put_string(b, "t");
    put_u32(b, UINT32_MAX);
    put_zeros(b, 4096);
}

static void bad_dim_negative(struct bytes *b)
{
    const uint64_t dims[] = {8, UINT64_MAX};
    one_tensor(b, "t", 2, dims, 0, 0);
}

static void bad_product(struct bytes *b)
{
    const uint64_t dims[] = {(uint64_t)1 << 32, (uint64_t)1 << 31};
    one_tensor(b, "t", 2, dims, 24, 0);
}

static void bad_product_wraps(struct bytes *b)
{
    const uint64_t dims[] = {(uint64_t)1 << 32, (uint64_t)1 << 32, 1, 1};
    one_tensor(b, "t", 4, dims, 24, 0);
}

static void bad_bytes_overflow(struct bytes *b)
{
    const uint64_t dims[] = {(uint64_t)1 << 31, (uint64_t)1 << 31};
    one_tensor(b, "t", 2, dims, 0, 0);
}

static void bad_block(struct bytes *b)
{
    const uint64_t dims[] = {48, 2};
    one_tensor(b, "t", 2, dims, 8, 0);
}

static void bad_block_256(struct bytes *b)
{
    const uint64_t dims[] = {128, 2};
    one_tensor(b, "t", 2, dims, 14, 0);
}

static void bad_type_removed(struct bytes *b)
{
    one_tensor(b, "t", 1, dims_8x2, 4, 0);
}

static void bad_type_negative(struct bytes *b)
{
    one_tensor(b, "t", 1, dims_8x2, UINT32_MAX, 0);
}

static void bad_type_future(struct bytes *b)
{
    one_tensor(b, "t", 1, dims_8x2, 1000, 0);
}

static void bad_offset(struct bytes *b)
{
    one_tensor(b, "t", 1, dims_8x2, 0, 32);
}

static void bad_offset_overlap(struct bytes *b)
{
    gguf_preamble(b, 3, 2, 0);
    gguf_tensor_entry(b, "one", 2, dims_8x2, 0, 0);
    gguf_tensor_entry(b, "two", 2, dims_8x2, 0, 0);
    put_padding(b, 32);
    put_zeros(b, 128);
}

static void bad_data_short(struct bytes *b)
{
    gguf_preamble(b, 3, 1, 0);
    gguf_tensor_entry(b, "one", 2, dims_8x2, 0, 0);
    put_padding(b, 32);
    put_zeros(b, 63);
}

static void bad_data_total_wraps(struct bytes *b)
{
    /* Each below 2^63; their sum wraps (CVE-2025-53630 and its bypass). */
    const uint64_t dims[] = {(uint64_t)1 << 62};
    gguf_preamble(b, 3, 5, 0);
    for (uint64_t i = 0; i < 5; i++) {
        char name[2] = {(char)('a' + i), '\0'};
        gguf_tensor_entry(b, name, 1, dims, 24, i << 62);
    }
    put_padding(b, 32);
    put_zeros(b, 128);
}

static void bad_data_larger_than_file(struct bytes *b)
{
    const uint64_t dims[] = {(uint64_t)1 << 40};
    one_tensor(b, "t", 1, dims, 0, 0);
}

struct gguf_case {
    const char *name;
    void (*write)(struct bytes *b);
    const char *message; /* part of it; NULL: must be read */
};

#define CASE(name, message)                                                                        \
    {                                                                                              \
#name, name, message                                                                       \
    }

static const struct gguf_case cases[] = {
    CASE(good_empty, NULL),
    CASE(good_version_2, NULL),
    CASE(bad_magic, "does not begin with \"GGUF\""),
    CASE(bad_no_bytes, "the magic needs 4 bytes"),
    CASE(bad_version_0, "version 0"),
    CASE(bad_version_1, "version 1"),
    CASE(bad_version_future, "version 4"),
    CASE(bad_version_endian, "big-endian"),
    CASE(bad_n_tensors_huge, "tensors declared"),
    CASE(bad_n_tensors_remaining, "3 tensors declared"),
    CASE(bad_n_tensors_limit, "1000001 tensors declared"),
    CASE(bad_n_keys_huge, "keys declared"),
    CASE(bad_n_keys_remaining, "2 keys declared"),
    CASE(bad_n_keys_limit, "65537 keys declared"),
    CASE(good_n_keys_limit, NULL),
    CASE(bad_key_length_huge, "a key has length"),
    CASE(bad_key_length_remaining, "a key has length 65"),
    CASE(good_key_length_limit, NULL),
    CASE(bad_key_length_limit, "a key has length 1048577"),
    CASE(bad_key_empty, "a key is empty"),
    CASE(bad_key_nul, "a key is empty or holds a NUL"),
    CASE(bad_key_type, "key 'a' has the unknown type 13"),
    CASE(bad_key_duplicate, "key 'a' stands twice"),
    CASE(bad_bool, "a bool is 0 or 1, not 2"),
    CASE(bad_bool_in_array, "a bool is 0 or 1, not 2"),
    CASE(bad_string_huge, "a string has length"),
    CASE(bad_string_limit, "a string has length 67108865"),
    CASE(bad_array_count_huge, "an array of 9223372036854775808"),
    CASE(bad_array_count_wraps, "an array of 2305843009213693953"),
    CASE(bad_array_count_remaining, "an array of 3 elements"),
    CASE(bad_array_strings_remaining, "an array of 2 elements"),
    CASE(good_array_limit, NULL),
    CASE(bad_array_limit, "an array of 16777217"),
    CASE(bad_array_of_arrays, "array of arrays"),
    CASE(bad_array_element, "unknown element type 77"),
    CASE(good_array_empty, NULL),
    CASE(good_alignment_limit, NULL),
    CASE(bad_alignment_limit, "general.alignment' is 2097152"),
    CASE(bad_alignment_wraps, "general.alignment' is 2147483648"),
    CASE(bad_alignment_zero, "general.alignment' is 0"),
    CASE(bad_alignment_odd, "general.alignment' is 24"),
    CASE(bad_alignment_type, "general.alignment' is a u64, not a u32"),
    CASE(good_tensors, NULL),
    CASE(good_custom_alignment, NULL),
    CASE(bad_inconsistent_alignment, "'two' has offset 64"),
    CASE(good_rank_0_and_empty, NULL),
    CASE(good_tensor_name_63, NULL),
    CASE(bad_tensor_name_64, "a tensor name has length 64"),
    CASE(bad_tensor_name_empty, "a tensor name is empty"),
    CASE(bad_tensor_duplicate, "tensor 'one' stands twice"),
    CASE(bad_rank, "'t' has 5 dimensions"),
    CASE(bad_rank_huge, "'t' has 4294967295 dimensions"),
    CASE(bad_dim_negative, "'t' has a negative dimension"),
    CASE(bad_product, "product of its dimensions overflows"),
    CASE(bad_product_wraps, "product of its dimensions overflows"),
    CASE(bad_bytes_overflow, "size in bytes overflows"),
    CASE(bad_block, "not whole blocks of 32 (Q8_0)"),
    CASE(bad_block_256, "not whole blocks of 256 (Q6_K)"),
    CASE(bad_type_removed, "unknown type 4"),
    CASE(bad_type_negative, "unknown type 4294967295"),
    CASE(bad_type_future, "unknown type 1000"),
    CASE(bad_offset, "'t' has offset 32"),
    CASE(bad_offset_overlap, "'two' has offset 0"),
    CASE(bad_data_short, "'one' needs 64 bytes"),
    CASE(bad_data_total_wraps, "'a' needs 4611686018427387904 bytes"),
    CASE(bad_data_larger_than_file, "'t' needs 4398046511104 bytes"),
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bytes b = {0};
        cases[i].write(&b);
        struct gguf *g = NULL;
        struct error err = ERROR_INIT;
        enum status s = parse(&b, &g, &err);
        if (cases[i].message == NULL) {
            if (s != STATUS_OK) {
                fail_msg("%s: %s", cases[i].name, err.message);
            }
            gguf_close(g);
        } else {
            assert_null(g);
            if (s != STATUS_BAD_MODEL || strstr(err.message, cases[i].message) == NULL ||
                strncmp(err.message, "test.gguf: ", 11) != 0 || err.position < 0) {
                fail_msg("%s: status %s, message: %s", cases[i].name, status_name(s), err.message);
            }
        }
        bytes_free(&b);
    }
    print_message("%zu files\n", sizeof cases / sizeof cases[0]);
}

/* ---- values ---- */

static void write_values(struct bytes *b)
{
    gguf_preamble(b, 3, 1, 14);
    gguf_key(b, "u8", 0);
    put_u8(b, 200);
    gguf_key(b, "i8", 1);
    put_u8(b, 0xFE); /* -2 */
    gguf_key(b, "u16", 2);
    bytes_put(b, "\x34\x12", 2);
    gguf_key(b, "i16", 3);
    bytes_put(b, "\x34\x12", 2);
    gguf_key_u32(b, "u32", UINT32_MAX);
    gguf_key(b, "i32", 5);
    put_u32(b, 77);
    gguf_key_f32(b, "f32", 0.5F);
    gguf_key(b, "bool", 7);
    put_u8(b, 1);
    gguf_key_string(b, "string", "text");
    gguf_key_array(b, "strings", 8, 3);
    put_string(b, "a");
    put_string(b, "");
    put_string(b, "ccc");
    gguf_key_array(b, "i32s", 5, 2);
    put_u32(b, 1);
    put_u32(b, UINT32_MAX);
    gguf_key(b, "u64", 10);
    put_u64(b, UINT64_MAX);
    gguf_key(b, "i64", 11);
    put_u64(b, (uint64_t)1 << 62);
    gguf_key(b, "f64", 12);
    bytes_put(b, &(double){-0.25}, 8);
    const uint64_t dims[] = {32, 2};
    gguf_tensor_entry(b, "weight", 2, dims, 8, 0);
    put_padding(b, 32);
    put_zeros(b, 68);
}

static void check_integers(const struct gguf *g)
{
    const struct {
        const char *key;
        uint64_t value;
    } good[] = {{"u8", 200}, {"u16", 0x1234},     {"i16", 0x1234},           {"u32", UINT32_MAX},
                {"i32", 77}, {"u64", UINT64_MAX}, {"i64", (uint64_t)1 << 62}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t v = 0;
        assert_int_equal(gguf_get_u64(g, good[i].key, &v, NULL), STATUS_OK);
        assert_true(v == good[i].value);
    }
    uint64_t untouched = 5;
    struct error err = ERROR_INIT;
    assert_int_equal(gguf_get_u64(g, "i8", &untouched, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "'i8' is negative"));
    assert_int_equal(gguf_get_u64(g, "f32", &untouched, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "'f32' is a f32, not an integer"));
    assert_int_equal(gguf_get_u64(g, "bool", &untouched, &err), STATUS_BAD_MODEL);
    assert_int_equal(gguf_get_u64(g, "none", &untouched, &err), STATUS_NOT_FOUND);
    assert_true(untouched == 5);
}

static void test_values(void **state)
{
    (void)state;
    struct bytes b = {0};
    write_values(&b);
    struct gguf *g = NULL;
    struct error err = ERROR_INIT;
    assert_int_equal(parse(&b, &g, &err), STATUS_OK);
    bytes_free(&b); /* nothing is borrowed from the input */
    assert_int_equal(gguf_version(g), 3);
    assert_string_equal(gguf_path(g), "test.gguf");
    assert_true(gguf_key_count(g) == 14);
    assert_string_equal(gguf_key_at(g, 13), "f64");
    check_integers(g);
    double d = 0;
    assert_int_equal(gguf_get_f64(g, "f32", &d, &err), STATUS_OK);
    assert_true(d == 0.5);
    assert_int_equal(gguf_get_f64(g, "f64", &d, &err), STATUS_OK);
    assert_true(d == -0.25);
    assert_int_equal(gguf_get_f64(g, "u32", &d, &err), STATUS_BAD_MODEL);
    bool flag = false;
    assert_int_equal(gguf_get_bool(g, "bool", &flag, &err), STATUS_OK);
    assert_true(flag);
    assert_int_equal(gguf_get_bool(g, "u8", &flag, &err), STATUS_BAD_MODEL);
    struct gguf_string text;
    assert_int_equal(gguf_get_string(g, "string", &text, &err), STATUS_OK);
    assert_int_equal(text.len, 4);
    assert_memory_equal(text.text, "text", 4);
    const struct gguf_string *strings = NULL;
    uint64_t n = 0;
    assert_int_equal(gguf_get_strings(g, "strings", &strings, &n, &err), STATUS_OK);
    assert_true(n == 3 && strings[1].len == 0 && strings[2].len == 3);
    const void *data = NULL;
    assert_int_equal(gguf_get_array(g, "i32s", GGUF_I32, &data, &n, &err), STATUS_OK);
    assert_true(n == 2);
    assert_memory_equal(data, "\1\0\0\0\xFF\xFF\xFF\xFF", 8);
    /* An array of another element type is never handed out (PR 26690: 3x heap over-read). */
    assert_int_equal(gguf_get_array(g, "i32s", GGUF_F32, &data, &n, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "'i32s' is an array of i32, not an array of f32"));
    assert_int_equal(gguf_get_strings(g, "string", &strings, &n, &err), STATUS_BAD_MODEL);
    assert_true(gguf_tensor_count(g) == 1);
    const struct gguf_tensor *t = gguf_find_tensor(g, "weight");
    assert_true(t == gguf_tensor_at(g, 0) && t->bytes == 68 && t->offset % 32 == 0);
    assert_null(gguf_find_tensor(g, "weigh"));
    gguf_close(g);
}

/* ---- whole-file properties ---- */

static void test_truncation(void **state)
{
    (void)state;
    struct bytes b = {0};
    write_values(&b);
    char folder[256];
    make_folder(folder);
    char path[512];
    snprintf(path, sizeof path, "%s/t.gguf", folder);
    for (size_t n = 0; n < b.len; n++) {
        struct gguf *g = NULL;
        struct error err = ERROR_INIT;
        /* A copy of exactly n bytes lets the address sanitizer see a read behind the end. */
        uint8_t *copy = malloc(n + (n == 0));
        memcpy(copy, b.data, n);
        assert_int_equal(gguf_parse(copy, n, n, "t", &g, &err), STATUS_BAD_MODEL);
        free(copy);
        write_file(folder, "t.gguf", b.data, n);
        assert_int_equal(gguf_open(path, &g, &err), STATUS_BAD_MODEL);
        assert_null(g);
        assert_non_null(strstr(err.message, path));
    }
    write_file(folder, "t.gguf", b.data, b.len);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(path, &g, NULL), STATUS_OK);
    assert_true(gguf_file_bytes(g) == b.len);
    gguf_close(g);
    print_message("%zu lengths\n", b.len);
    /* The header at hand may be shorter than the file, never the other way round. */
    struct error err = ERROR_INIT;
    assert_int_equal(gguf_parse(b.data, 100, b.len, "t", &g, &err), STATUS_BAD_MODEL);
    remove_tree(folder);
    bytes_free(&b);
}

/* Random keys and tensors; returns how many tensors. */
static void write_random(struct bytes *b, struct rng *r, uint64_t *n_keys, uint64_t *n_tensors)
{
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    *n_keys = rng_below(r, 40);
    *n_tensors = rng_below(r, 40);
    gguf_preamble(b, 2 + (uint32_t)rng_below(r, 2), *n_tensors, *n_keys);
    for (uint64_t i = 0; i < *n_keys; i++) {
        char name[32];
        snprintf(name, sizeof name, "key.%llu", (unsigned long long)i);
        uint32_t type = (uint32_t)rng_below(r, 13);
        if (type == 9) {
            gguf_key_array(b, name, 8, 2);
            put_string(b, "x");
            put_string(b, name);
        } else if (type == 8) {
            gguf_key_string(b, name, name);
        } else {
            gguf_key(b, name, type);
            put_zeros(b, sizes[type]);
        }
    }
    static const uint32_t kinds[] = {0, 1, 2, 3, 8, 14, 30};
    uint64_t offset = 0;
    for (uint64_t i = 0; i < *n_tensors; i++) {
        char name[32];
        snprintf(name, sizeof name, "tensor.%llu", (unsigned long long)i);
        const struct ggml_type *t = ggml_type_of(kinds[rng_below(r, 7)]);
        uint64_t dims[4] = {t->block * rng_between(r, 0, 3), rng_between(r, 1, 3), 2, 1};
        gguf_tensor_entry(b, name, 4, dims, t->id, offset);
        uint64_t bytes = dims[0] / t->block * t->bytes * dims[1] * 2;
        offset += (bytes + 31) / 32 * 32;
    }
    put_padding(b, 32);
    put_zeros(b, (size_t)offset);
}

static void test_random_files(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct rng r = rng_stream(seed, 1);
        struct bytes b = {0};
        uint64_t n_keys;
        uint64_t n_tensors;
        write_random(&b, &r, &n_keys, &n_tensors);
        struct gguf *g = NULL;
        struct error err = ERROR_INIT;
        if (parse(&b, &g, &err) != STATUS_OK) {
            fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
        }
        assert_true(gguf_key_count(g) == n_keys && gguf_tensor_count(g) == n_tensors);
        gguf_close(g);
        /* Damage: any answer but a crash, and never more bytes than the file has. */
        for (int i = 0; i < 300; i++) {
            size_t at = (size_t)rng_below(&r, b.len < 2000 ? b.len : 2000);
            uint8_t old = b.data[at];
            b.data[at] = (uint8_t)rng_next(&r);
            g = NULL;
            if (parse(&b, &g, &err) == STATUS_OK) {
                for (uint64_t t = 0; t < gguf_tensor_count(g); t++) {
                    const struct gguf_tensor *x = gguf_tensor_at(g, t);
                    assert_true(x->offset <= b.len && x->bytes <= b.len - x->offset);
                }
                gguf_close(g);
            }
            b.data[at] = old;
        }
        bytes_free(&b);
    }
}

static void test_refused_allocations(void **state)
{
    (void)state;
    struct bytes b = {0};
    const uint64_t dims[] = {32, 2};
    gguf_preamble(&b, 3, 1, 1);
    gguf_key_array(&b, "strings", 8, 20000); /* several chunks of the arena */
    for (int i = 0; i < 20000; i++) {
        put_string(&b, "a string");
    }
    gguf_tensor_entry(&b, "weight", 2, dims, 8, 0);
    put_padding(&b, 32);
    put_zeros(&b, 68);
    char folder[256];
    make_folder(folder);
    write_file(folder, "t.gguf", b.data, b.len);
    char path[512];
    snprintf(path, sizeof path, "%s/t.gguf", folder);
    uint64_t k = 1;
    for (;; k++) {
        struct gguf *g = NULL;
        struct error err = ERROR_INIT;
        mem_fail_at(k, false);
        enum status s = gguf_open(path, &g, &err);
        mem_fail_at(0, false);
        if (s == STATUS_OK) {
            gguf_close(g);
            break;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
        assert_null(g);
    }
    assert_true(k > 8);
    print_message("%llu allocations refused\n", (unsigned long long)(k - 1));
    remove_tree(folder);
    bytes_free(&b);
}

static void test_no_file(void **state)
{
    (void)state;
    struct gguf *g = NULL;
    struct error err = ERROR_INIT;
    assert_int_equal(gguf_open("/nonexistent/x.gguf", &g, &err), STATUS_NOT_FOUND);
    assert_int_equal(gguf_open("/tmp", &g, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "not a regular file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_random_files),
        cmocka_unit_test(test_refused_allocations),
        cmocka_unit_test(test_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
