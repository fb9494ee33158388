/* Chunks and lengths: limits, early ends, random bodies there and back; heads and chunks written.
 */
#include "net/net_test.h"

#include "base/rng.h"
#include "net/http_write.h"

static const struct http_head chunked_head = {.framing = HTTP_CHUNKED};
static struct message got;

static void decode(const char *in, size_t n, size_t step, uint64_t max_bytes)
{
    got = (struct message){0};
    message_body(&got, &chunked_head, in, n, step, max_bytes);
}

/* ---- limits ---- */

static char big[65536];

/* "5;xxx...\r\nabcde\r\n" with that many extension bytes, the ';' included. */
static size_t chunk_with_extension(char *out, size_t extension_bytes)
{
    size_t n = 0;
    out[n++] = '5';
    memset(out + n, ';', extension_bytes);
    n += extension_bytes;
    memcpy(out + n, "\r\nabcde\r\n", 9);
    return n + 9;
}

static void test_extension_limit(void **state)
{
    (void)state;
    for (int over = 0; over <= 1; over++) {
        size_t n = chunk_with_extension(big, HTTP_MAX_EXTENSION_BYTES + (size_t)over);
        memcpy(big + n, HTTP_LAST_CHUNK, 5);
        decode(big, n + 5, n + 5, 100);
        assert_int_equal(got.outcome, over ? HTTP_BAD : HTTP_DONE);
        assert_int_equal(got.bad, over ? HTTP_BAD_CHUNK_EXTENSION : HTTP_BAD_NONE);
        decode(big, n + 5, 1, 100);
        assert_int_equal(got.outcome, over ? HTTP_BAD : HTTP_DONE);
    }
    /* all chunks together */
    size_t n = chunk_with_extension(big, HTTP_MAX_EXTENSION_BYTES / 2);
    n += chunk_with_extension(big + n, HTTP_MAX_EXTENSION_BYTES / 2);
    decode(big, n, n, 100);
    assert_int_equal(got.outcome, HTTP_MORE);
    n += chunk_with_extension(big + n, 1);
    decode(big, n, n, 100);
    assert_int_equal(got.bad, HTTP_BAD_CHUNK_EXTENSION);
    n = chunk_with_extension(big, 0);
    decode(big, n, n, 100);
    assert_int_equal(got.outcome, HTTP_MORE);
    /* white space before the ';' counts as well */
    memset(big, ' ', sizeof big);
    big[0] = '5';
    decode(big, HTTP_MAX_EXTENSION_BYTES + 1, 64, 100);
    assert_int_equal(got.outcome, HTTP_MORE);
    decode(big, HTTP_MAX_EXTENSION_BYTES + 2, 64, 100);
    assert_int_equal(got.bad, HTTP_BAD_CHUNK_EXTENSION);
}

static void test_trailer_limit(void **state)
{
    (void)state;
    for (size_t over = 0; over <= 1; over++) {
        size_t n = 3;
        memcpy(big, "0\r\n", 3);
        memset(big + n, 'a', HTTP_MAX_TRAILER_BYTES + over);
        big[n + 1] = ':';
        n += HTTP_MAX_TRAILER_BYTES + over;
        memcpy(big + n - 2, "\r\n\r\n", 4);
        n += 2;
        decode(big, n, 100, 100);
        assert_int_equal(got.outcome, over ? HTTP_BAD : HTTP_DONE);
        assert_int_equal(got.bad, over ? HTTP_BAD_TRAILER_LARGE : HTTP_BAD_NONE);
        if (!over) {
            assert_int_equal(got.used, n);
        }
    }
    assert_int_equal(http_bad_status(HTTP_BAD_TRAILER_LARGE), 431);
}

static void test_body_limit(void **state)
{
    (void)state;
    static const char in[] = "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    decode(in, sizeof in - 1, sizeof in, 5);
    assert_int_equal(got.outcome, HTTP_DONE);
    decode(in, sizeof in - 1, 1, 4);
    assert_int_equal(got.bad, HTTP_BAD_BODY_LARGE);
    assert_int_equal(got.body_len, 3);
    decode("0\r\n\r\n", 5, 5, 0);
    assert_int_equal(got.outcome, HTTP_DONE);
    decode(in, sizeof in - 1, 1, 0);
    assert_int_equal(got.bad, HTTP_BAD_BODY_LARGE);
    /* a sum that would wrap around */
    static const char wraps[] = "3\r\nabc\r\nfffffffffffffffe\r\nde";
    decode(wraps, sizeof wraps - 1, sizeof wraps, UINT64_MAX);
    assert_int_equal(got.bad, HTTP_BAD_BODY_LARGE);

    struct http_head length = {.framing = HTTP_LENGTH, .content_length = 5};
    got = (struct message){0};
    message_body(&got, &length, "abcdef", 6, 2, 5);
    assert_int_equal(got.outcome, HTTP_DONE);
    assert_int_equal(got.body_len, 5);
    message_body(&got, &length, "abcdef", 6, 2, 4);
    assert_int_equal(got.bad, HTTP_BAD_BODY_LARGE);
    struct http_head until_close = {.framing = HTTP_UNTIL_CLOSE};
    got = (struct message){0};
    message_body(&got, &until_close, "abcde", 5, 2, 5);
    assert_int_equal(got.outcome, HTTP_MORE);
    assert_int_equal(got.body_len, 5);
    message_body(&got, &until_close, "abcdef", 6, 2, 5);
    assert_int_equal(got.bad, HTTP_BAD_BODY_LARGE);
}

static void test_digits_limit(void **state)
{
    (void)state;
    decode("0000000000000001\r\na\r\n0\r\n\r\n", 26, 26, 9);
    assert_int_equal(got.outcome, HTTP_DONE);
    decode("00000000000000001\r\na\r\n0\r\n\r\n", 27, 27, 9);
    assert_int_equal(got.bad, HTTP_BAD_CHUNK_SIZE);
    decode("\r\na\r\n0\r\n\r\n", 10, 10, 9);
    assert_int_equal(got.bad, HTTP_BAD_CHUNK_SIZE);
}

/* ---- the connection ends ---- */

static enum http_body_outcome feed(struct http_body *b, const char *in, size_t n)
{
    enum http_body_outcome outcome;
    do {
        size_t used;
        const char *data;
        size_t len;
        outcome = http_body_next(b, in, n, &used, &data, &len);
        in += used;
        n -= used;
    } while (outcome == HTTP_BODY_DATA);
    return outcome;
}

static void test_close(void **state)
{
    (void)state;
    static const char whole[] = "3;x\r\nabc\r\n0\r\nA: b\r\n\r\n";
    struct http_body b;
    for (size_t n = 0; n < sizeof whole; n++) {
        http_body_begin(&b, &chunked_head, 100);
        bool is_whole = n == sizeof whole - 1;
        assert_int_equal(feed(&b, whole, n), is_whole ? HTTP_BODY_DONE : HTTP_BODY_MORE);
        assert_int_equal(http_body_close(&b), is_whole ? HTTP_BODY_DONE : HTTP_BODY_BAD);
        assert_int_equal(b.bad, is_whole ? HTTP_BAD_NONE : HTTP_BAD_CUT);
    }
    struct http_head head = {.framing = HTTP_LENGTH, .content_length = 3};
    for (size_t n = 0; n <= 3; n++) {
        http_body_begin(&b, &head, 100);
        (void)feed(&b, "abc", n);
        assert_int_equal(http_body_close(&b), n == 3 ? HTTP_BODY_DONE : HTTP_BODY_BAD);
    }
    head.framing = HTTP_UNTIL_CLOSE;
    http_body_begin(&b, &head, 100);
    assert_int_equal(feed(&b, "abc", 3), HTTP_BODY_MORE);
    assert_int_equal(http_body_close(&b), HTTP_BODY_DONE);
    head.framing = HTTP_NO_BODY;
    http_body_begin(&b, &head, 100);
    assert_int_equal(http_body_close(&b), HTTP_BODY_DONE);
    /* bad stays bad */
    http_body_begin(&b, &chunked_head, 100);
    assert_int_equal(feed(&b, "x", 1), HTTP_BODY_BAD);
    assert_int_equal(feed(&b, "0\r\n\r\n", 5), HTTP_BODY_BAD);
    assert_int_equal(http_body_close(&b), HTTP_BODY_BAD);
    assert_int_equal(b.bad, HTTP_BAD_CHUNK_SIZE);
}

/* ---- there and back ---- */

static void test_random_round_trip(void **state)
{
    (void)state;
    static char data[8192];
    static char wire[32768];
    struct rng rng = rng_stream(7, 1);
    for (int round = 0; round < 300; round++) {
        size_t n = rng_below(&rng, sizeof data + 1);
        for (size_t i = 0; i < n; i++) {
            data[i] = (char)rng_below(&rng, 256);
        }
        size_t len = 0;
        for (size_t at = 0; at < n;) {
            size_t piece = rng_between(&rng, 1, 1 + rng_below(&rng, n - at));
            size_t wrote = http_chunk_write(wire + len, sizeof wire - len, data + at, piece);
            assert_true(wrote > piece && wrote <= piece + HTTP_CHUNK_OVERHEAD);
            len += wrote;
            at += piece;
            if (len > sizeof wire - 9000) {
                n = at;
            }
        }
        memcpy(wire + len, HTTP_LAST_CHUNK "GET", 8);
        decode(wire, len + 8, rng_between(&rng, 1, 40), sizeof data);
        assert_int_equal(got.outcome, HTTP_DONE);
        assert_int_equal(got.used, len + 5);
        assert_int_equal(got.body_len, n);
        assert_memory_equal(got.body, data, n);
    }
}

static void test_chunk_write(void **state)
{
    (void)state;
    char out[64];
    assert_int_equal(http_chunk_write(out, sizeof out, "abc", 3), 8);
    assert_memory_equal(out, "3\r\nabc\r\n", 8);
    assert_int_equal(http_chunk_write(out, 8, "abc", 3), 8);
    assert_int_equal(http_chunk_write(out, 7, "abc", 3), 0);
    assert_int_equal(http_chunk_write(out, 0, "abc", 3), 0);
    assert_int_equal(http_chunk_write(out, sizeof out, "", 0), 0);
    assert_int_equal(http_chunk_begin(out, sizeof out, 0), 0);
    assert_int_equal(http_chunk_begin(out, 4, 0x1f), 4);
    assert_memory_equal(out, "1f\r\n", 4);
    assert_int_equal(http_chunk_begin(out, 3, 0x1f), 0);
    assert_int_equal(http_chunk_begin(out, sizeof out, 0x10), 4);
    assert_memory_equal(out, "10\r\n", 4);
    assert_int_equal(http_chunk_begin(out, sizeof out, SIZE_MAX), 18);
    assert_memory_equal(out, "ffffffffffffffff\r\n", 18);
}

static void test_write_heads(void **state)
{
    (void)state;
    char out[256];
    struct http_writer w = {.out = out, .cap = sizeof out};
    http_write_request_line(&w, "POST", "/v1/completions?x=1");
    http_write_header(&w, "Host", "127.0.0.1:8000");
    http_write_header(&w, "X-Empty", "");
    http_write_header_u64(&w, "Content-Length", 0);
    http_write_end(&w);
    assert_false(w.failed);
    static const char expected[] = "POST /v1/completions?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"
                                   "X-Empty: \r\nContent-Length: 0\r\n\r\n";
    assert_int_equal(w.len, sizeof expected - 1);
    assert_memory_equal(out, expected, w.len);
    struct http_request r;
    message_request(&got, &r, out, w.len, 1);
    assert_int_equal(got.outcome, HTTP_DONE);

    w = (struct http_writer){.out = out, .cap = sizeof out};
    http_write_status_line(&w, 429);
    http_write_header_u64(&w, "Retry-After", UINT64_MAX);
    http_write_status_line(&w, 299);
    assert_false(w.failed);
    static const char status[] = "HTTP/1.1 429 Too Many Requests\r\n"
                                 "Retry-After: 18446744073709551615\r\nHTTP/1.1 299 \r\n";
    assert_int_equal(w.len, sizeof status - 1);
    assert_memory_equal(out, status, w.len);
}

/* Room for exactly the head, one byte less, none; and every part that would break a head. */
static void test_write_refusals(void **state)
{
    (void)state;
    char out[64];
    for (size_t cap = 0; cap <= 24; cap++) {
        struct http_writer w = {.out = out, .cap = cap};
        memset(out, '#', sizeof out);
        http_write_status_line(&w, 200); /* 17 bytes */
        http_write_header(&w, "A", "");  /* 5 */
        http_write_end(&w);              /* 2 */
        assert_int_equal(w.failed, cap < 24);
        assert_true(w.len <= cap);
        assert_true(out[cap] == '#');
    }
    static const struct {
        const char *method;
        const char *target;
        const char *name;
        const char *value;
    } rows[] = {
        {"", "/", "A", "b"},      {"G T", "/", "A", "b"},      {"GET", "", "A", "b"},
        {"GET", "/ ", "A", "b"},  {"GET", "/\r\n", "A", "b"},  {"GET", "/#", "A", "b"},
        {"GET", "/", "", "b"},    {"GET", "/", "A:", "b"},     {"GET", "/", "A b", "b"},
        {"GET", "/", "A", "b\r"}, {"GET", "/", "A", "\nB: c"}, {"GET", "/", "A", "\x7F"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct http_writer w = {.out = out, .cap = sizeof out};
        http_write_request_line(&w, rows[i].method, rows[i].target);
        http_write_header(&w, rows[i].name, rows[i].value);
        if (!w.failed) {
            fail_msg("row %zu is written", i);
        }
    }
    static const int statuses[] = {99, 600, 0, -1};
    for (size_t i = 0; i < 4; i++) {
        struct http_writer w = {.out = out, .cap = sizeof out};
        http_write_status_line(&w, statuses[i]);
        assert_true(w.failed);
    }
    assert_string_equal(http_status_text(404), "Not Found");
    assert_string_equal(http_status_text(299), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extension_limit), cmocka_unit_test(test_trailer_limit),
        cmocka_unit_test(test_body_limit),      cmocka_unit_test(test_digits_limit),
        cmocka_unit_test(test_close),           cmocka_unit_test(test_random_round_trip),
        cmocka_unit_test(test_chunk_write),     cmocka_unit_test(test_write_heads),
        cmocka_unit_test(test_write_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
