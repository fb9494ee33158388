/* Server-sent events: the rules of WHATWG HTML 9.2.6 row by row, every cut of the bytes, limits,
 * and random streams against a plain reference that sees the whole text. */
#include "net/net_test.h"

#include "base/rng.h"
#include "net/sse.h"

/* Events as text: "type|data;" each. */
#define SEEN_BYTES 8192U
struct seen {
    char text[SEEN_BYTES];
    size_t len;
    bool bad;
};

static void see(struct seen *s, const char *bytes, size_t n)
{
    assert_true(s->len + n <= SEEN_BYTES);
    if (n > 0) {
        memcpy(s->text + s->len, bytes, n);
    }
    s->len += n;
}

static void see_event(struct seen *s, const char *type, size_t type_len, const char *data,
                      size_t data_len)
{
    see(s, type, type_len);
    see(s, "|", 1);
    see(s, data, data_len);
    see(s, ";", 1);
}

/* Feeds pieces that end at the cuts (n_cuts ascending offsets), each before the guard page. */
static void run(struct seen *seen, const char *in, size_t n, const size_t *cuts, size_t n_cuts,
                size_t cap)
{
    static char room[4096];
    struct sse s;
    sse_init(&s, cap > 0 ? room : NULL, cap);
    seen->len = 0;
    seen->bad = false;
    size_t at = 0;
    for (size_t k = 0; k <= n_cuts; k++) {
        size_t end = k < n_cuts ? cuts[k] : n;
        const char *piece = guarded(in + at, end - at);
        size_t left = end - at;
        for (;;) {
            size_t used;
            struct sse_event ev;
            enum sse_outcome got = sse_next(&s, piece, left, &used, &ev);
            assert_true(used <= left);
            piece += used;
            left -= used;
            if (got == SSE_EVENT) {
                see_event(seen, ev.type, ev.type_len, ev.data, ev.data_len);
                continue;
            }
            if (got == SSE_BAD) {
                seen->bad = true;
                return;
            }
            assert_int_equal(left, 0);
            break;
        }
        at = end;
    }
}

struct sse_case {
    const char *name;
    const char *in;
    size_t n;
    const char *events;
    size_t events_len;
};
#define ROW(name, in, events)                                                                      \
    {                                                                                              \
        name, in, sizeof(in) - 1, events, sizeof(events) - 1                                       \
    }

static const struct sse_case cases[] = {
    ROW("one event", "data: a\n\n", "|a;"),
    ROW("CRLF", "data: a\r\n\r\n", "|a;"),
    ROW("CR", "data: a\r\r", "|a;"),
    ROW("mixed", "data: a\rdata: b\r\ndata: c\n\r\n", "|a\nb\nc;"),
    ROW("CR then LF is one line end", "data: a\r\ndata: b\n\n", "|a\nb;"),
    ROW("LF then CR are two", "data: a\n\rdata: b\n\n", "|a;|b;"),
    ROW("several events", "data: a\n\ndata: b\n\ndata: c\n\n", "|a;|b;|c;"),
    ROW("more blank lines", "\n\n\r\n\rdata: a\n\n\n\r\r\ndata: b\n\n", "|a;|b;"),
    ROW("not closed", "data: a\n\ndata: b\n", "|a;"),
    ROW("not ended", "data: a", ""),
    ROW("no space", "data:a\n\n", "|a;"),
    ROW("one space only", "data:  a \n\n", "| a ;"),
    ROW("tab stays", "data:\ta\n\n", "|\ta;"),
    ROW("colon in data", "data: a: b\n\n", "|a: b;"),
    ROW("data lines", "data: a\ndata: b\n\n", "|a\nb;"),
    ROW("empty data lines", "data\n\ndata\ndata\n\ndata:", "|;|\n;"),
    ROW("empty data between", "data: a\ndata:\ndata: b\n\n", "|a\n\nb;"),
    ROW("empty data with space", "data: \n\n", "|;"),
    ROW("no colon", "data\n\n", "|;"),
    ROW("comments", ": keep-alive\n\n:\n:x\ndata: a\n: data: b\n\n", "|a;"),
    ROW("comment inside", "data: a\n:\ndata: b\n\n", "|a\nb;"),
    ROW("type", "event: error\ndata: a\n\ndata: b\n\n", "error|a;|b;"),
    ROW("type after data", "data: a\nevent: x\n\n", "x|a;"),
    ROW("last type wins", "event: first\nevent: b\ndata: a\n\n", "b|a;"),
    ROW("empty type", "event: x\nevent\ndata: a\n\n", "|a;"),
    ROW("type without data", "event: x\n\ndata: a\n\n", "|a;"),
    ROW("id and retry", "id: 1\nretry: 100\ndata: a\n\nid\nretry:x\n\n", "|a;"),
    ROW("unknown fields",
        "dat: x\ndataa: x\nDATA: x\n data: x\ndata : x\nlonglonglong: x\ndata: a\n\n", "|a;"),
    ROW("unknown without colon", "dat\ndataa\nx\ndata: a\n\n", "|a;"),
    ROW("mark",
        "\xEF\xBB\xBF"
        "data: a\n\n",
        "|a;"),
    ROW("mark, then blank", "\xEF\xBB\xBF\ndata: a\n\n", "|a;"),
    ROW("mark twice",
        "\xEF\xBB\xBF\xEF\xBB\xBF"
        "data: a\ndata: b\n\n",
        "|b;"),
    ROW("mark later",
        "data: a\n\n\xEF\xBB\xBF"
        "data: b\n\n",
        "|a;"),
    ROW("mark in data", "data: \xEF\xBB\xBF\n\n", "|\xEF\xBB\xBF;"),
    ROW("half a mark",
        "\xEF\xBB"
        "data: a\ndata: b\n\n",
        "|b;"),
    ROW("half a mark, line end", "\xEF\xBB\ndata: b\n\n", "|b;"),
    ROW("half a mark, colon", "\xEF:x\ndata: b\n\n", "|b;"),
    ROW("U+2028 and U+0085 end no line",
        "data: a\xE2\x80\xA8"
        "b\xC2\x85\x0B\x0C\n\n",
        "|a\xE2\x80\xA8"
        "b\xC2\x85\x0B\x0C;"),
    ROW("NUL", "data: a\0b\n\n", "|a\0b;"),
    ROW("bytes as they are", "data: \xFF\xC0\n\n", "|\xFF\xC0;"),
    ROW("characters", "data: \xF0\x9F\x99\x82\xC3\xA9\n\n", "|\xF0\x9F\x99\x82\xC3\xA9;"),
    ROW("done", "data: {\"a\":1}\n\ndata: [DONE]\n\n", "|{\"a\":1};|[DONE];"),
    ROW("a CR inside", "data: ab\rdata: c\n\n", "|ab\nc;"),
    ROW("empty", "", ""),
};
#define N_CASES (sizeof cases / sizeof cases[0])

static struct seen seen;

static void check(const struct sse_case *c, const char *how, size_t at)
{
    if (seen.bad || seen.len != c->events_len || memcmp(seen.text, c->events, seen.len) != 0) {
        fail_msg("%s, %s %zu: \"%.*s\", expected \"%s\"", c->name, how, at, (int)seen.len,
                 seen.text, c->events);
    }
}

static void test_table(void **state)
{
    (void)state;
    static size_t every[256];
    for (size_t i = 0; i < 256; i++) {
        every[i] = i;
    }
    for (size_t i = 0; i < N_CASES; i++) {
        const struct sse_case *c = &cases[i];
        run(&seen, c->in, c->n, NULL, 0, 4096);
        check(c, "whole", 0);
        run(&seen, c->in, c->n, every, c->n, 4096);
        check(c, "byte by byte", 0);
        for (size_t a = 0; a <= c->n; a++) {
            for (size_t b = a; b <= c->n; b++) {
                size_t cuts[2] = {a, b};
                run(&seen, c->in, c->n, cuts, 2, 4096);
                check(c, "cut at", a);
            }
        }
    }
}

/* A prefix delivers the events that are whole in it: a prefix of what the whole delivers. */
static void test_truncated(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const struct sse_case *c = &cases[i];
        size_t before = 0;
        for (size_t n = 0; n <= c->n; n++) {
            run(&seen, c->in, n, NULL, 0, 4096);
            assert_false(seen.bad);
            assert_true(seen.len >= before && seen.len <= c->events_len);
            assert_memory_equal(seen.text, c->events, seen.len);
            before = seen.len;
        }
        assert_int_equal(before, c->events_len);
    }
}

/* An event goes out with the first byte of the line end that closes it, not with the next read. */
static void test_no_delay(void **state)
{
    (void)state;
    run(&seen, "data: a\r\n\r", 10, NULL, 0, 4096);
    assert_int_equal(seen.len, 3);
    run(&seen, "data: a\r\r", 9, NULL, 0, 4096);
    assert_int_equal(seen.len, 3);
}

/* ---- limits ---- */

static char big[SEEN_BYTES];

static size_t data_of(const char *begin, size_t n, const char *end)
{
    size_t at = strlen(begin);
    memcpy(big, begin, at);
    memset(big + at, 'x', n);
    at += n;
    memcpy(big + at, end, strlen(end));
    return at + strlen(end);
}

static void expect_limit(size_t n, size_t cap, bool bad)
{
    size_t cuts[3] = {1, 5, n / 2};
    run(&seen, big, n, NULL, 0, cap);
    if (seen.bad != bad) {
        fail_msg("%zu bytes, cap %zu: bad %d", n, cap, seen.bad);
    }
    run(&seen, big, n, cuts, n > 10 ? 3 : 0, cap);
    assert_int_equal(seen.bad, bad);
}

static void test_data_limit(void **state)
{
    (void)state;
    static const char *const begins[] = {"data: ", "data:", "data: "};
    static const char *const ends[] = {"\n\n", "\n\n", "\r\n\r\n"};
    for (size_t i = 0; i < 3; i++) {
        for (size_t cap = 1; cap <= 64; cap += 21) {
            expect_limit(data_of(begins[i], cap, ends[i]), cap, false);
            expect_limit(data_of(begins[i], cap + 1, ends[i]), cap, true);
        }
        expect_limit(data_of(begins[i], 0, ends[i]), 0, false);
        expect_limit(data_of(begins[i], 1, ends[i]), 0, true);
    }
    /* the LF that joins lines counts */
    expect_limit(data_of("data: a\ndata: ", 2, "\n\n"), 4, false);
    expect_limit(data_of("data: a\ndata: ", 2, "\n\n"), 3, true);
    expect_limit(data_of("data\ndata", 0, "\n\n"), 1, false);
    expect_limit(data_of("data\ndata", 0, "\n\n"), 0, true);
    /* every event has the whole buffer; what is no data has no limit */
    expect_limit(data_of("data: abc\n\ndata: ", 3, "\n\n"), 3, false);
    expect_limit(data_of(": ", 5000, "\ndata: a\n\n"), 1, false);
    expect_limit(data_of("other", 5000, ": b\ndata: a\n\n"), 1, false);
    /* longer than the short cut looks */
    expect_limit(data_of("data: ", 4095, "\n\n"), 4096, false);
    expect_limit(data_of("data: ", 4096, "\n\n"), 4096, false);
    assert_int_equal(seen.len, 4098);
    expect_limit(data_of("data: ", 4097, "\n\n"), 4096, true);
}

static void test_type_limit(void **state)
{
    (void)state;
    expect_limit(data_of("event: ", 0, "\ndata: a\n\n"), 1, false);
    expect_limit(data_of("event: ", SSE_MAX_TYPE_BYTES, "\ndata: a\n\n"), 1, false);
    expect_limit(data_of("event: ", SSE_MAX_TYPE_BYTES + 1, "\ndata: a\n\n"), 1, true);
}

static void test_bad_is_final(void **state)
{
    (void)state;
    char room[2];
    struct sse s;
    sse_init(&s, room, sizeof room);
    size_t used;
    struct sse_event ev;
    assert_int_equal(sse_next(&s, "data: abc\n\n", 11, &used, &ev), SSE_BAD);
    assert_int_equal(sse_next(&s, "\n\ndata: a\n\n", 11, &used, &ev), SSE_BAD);
    assert_int_equal(used, 0);
}

/* ---- against a plain reference ---- */

/* The standard's steps over the whole text, line by line, as they are written there. */
static void reference(struct seen *out, const char *in, size_t n)
{
    static char data[SEEN_BYTES];
    size_t data_len = 0;
    const char *type = "";
    size_t type_len = 0;
    out->len = 0;
    size_t at = n >= 3 && memcmp(in, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    for (;;) {
        size_t end = at;
        while (end < n && in[end] != '\r' && in[end] != '\n') {
            end++;
        }
        if (end == n) {
            return;
        }
        if (end == at) {
            if (data_len > 0) {
                see_event(out, type, type_len, data, data_len - 1);
            }
            data_len = 0;
            type_len = 0;
        } else if (in[at] != ':') {
            const char *colon = memchr(in + at, ':', end - at);
            size_t name_len = colon != NULL ? (size_t)(colon - in) - at : end - at;
            const char *value = colon != NULL ? colon + 1 : in + end;
            if (value < in + end && *value == ' ') {
                value++;
            }
            size_t value_len = (size_t)(in + end - value);
            if (name_len == 4 && memcmp(in + at, "data", 4) == 0) {
                memcpy(data + data_len, value, value_len);
                data_len += value_len;
                data[data_len++] = '\n';
            } else if (name_len == 5 && memcmp(in + at, "event", 5) == 0) {
                type = value;
                type_len = value_len;
            }
        }
        at = end + (in[end] == '\r' && end + 1 < n && in[end + 1] == '\n' ? 2 : 1);
    }
}

static void test_random(void **state)
{
    (void)state;
    static const char *const words[] = {
        "data", "data: ",       "data:",       "event", "event: ", "id: ",    ":",    " ",
        "\n",   "\r",           "\r\n",        "\n\n",  "x",       "\xEF",    "\xBB", "\xBF",
        "abc",  "\xEF\xBB\xBF", "data: y\n\n", "retry", "d",       "\r\n\r\n"};
    static struct seen expected;
    char in[600];
    struct rng rng = rng_stream(11, 2);
    uint64_t events = 0;
    uint64_t bad = 0;
    for (int round = 0; round < 20000; round++) {
        size_t n = 0;
        uint64_t n_words = rng_below(&rng, 40);
        for (uint64_t i = 0; i < n_words; i++) {
            const char *word = words[rng_below(&rng, sizeof words / sizeof words[0])];
            memcpy(in + n, word, strlen(word));
            n += strlen(word);
        }
        size_t cuts[4];
        size_t n_cuts = rng_below(&rng, 5);
        for (size_t i = 0, from = 0; i < n_cuts; i++) {
            from = cuts[i] = rng_between(&rng, from, n);
        }
        reference(&expected, in, n);
        run(&seen, in, n, cuts, n_cuts, 4096);
        /* too long a type ends the stream early, whatever its line comes to */
        if ((!seen.bad && seen.len != expected.len) || seen.len > expected.len ||
            memcmp(seen.text, expected.text, seen.len) != 0) {
            fail_msg("round %d: \"%.*s\"\ngave \"%.*s\"\nexpected \"%.*s\"", round, (int)n, in,
                     (int)seen.len, seen.text, (int)expected.len, expected.text);
        }
        bad += seen.bad;
        events += seen.len > 0;
    }
    assert_true(events > 5000 && bad < 200); /* it did not compare nothing with nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),      cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_no_delay),   cmocka_unit_test(test_data_limit),
        cmocka_unit_test(test_type_limit), cmocka_unit_test(test_bad_is_final),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
