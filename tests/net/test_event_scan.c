/* The scanner of OpenAI events: rows of real and odd chunks, every fault, limits, every cut; and
 * random and hostile JSON against jansson. */
#include "net/net_test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "net/event_scan.h"
#include "net/scan_reference.h"

#define TEXT_BYTES 4096U
#define N_IDS      256U

static char text_room[TEXT_BYTES];
static int32_t id_room[N_IDS];
static const struct scan_buffers buffers = {text_room, TEXT_BYTES, id_room, N_IDS};
static struct event_scan ev;

static enum scan_bad scan(const char *json)
{
    size_t n = strlen(json);
    return event_scan(guarded(json, n), n, &buffers, &ev);
}

static void must(const char *json)
{
    enum scan_bad bad = scan(json);
    if (bad != SCAN_OK) {
        fail_msg("%s: %s at %zu", json, scan_bad_text(bad), ev.bad_at);
    }
}

#define assert_text(t, expected)                                                                   \
    do {                                                                                           \
        struct scan_text t_ = (t);                                                                 \
        if (t_.at == NULL || t_.len != sizeof(expected) - 1 ||                                     \
            memcmp(t_.at, expected, t_.len) != 0) {                                                \
            fail_msg("\"%.*s\" (%zu bytes), expected \"%s\"", (int)t_.len, t_.at, t_.len,          \
                     expected);                                                                    \
        }                                                                                          \
    } while (0)

/* ---- what servers send ---- */

static const char vllm_chunk[] =
    "{\"id\":\"cmpl-9f2c\",\"object\":\"text_completion\",\"created\":1764000000,\"model\":\"m\","
    "\"choices\":[{\"index\":0,\"text\":\" the\",\"logprobs\":null,\"finish_reason\":null,"
    "\"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":[262,5]}],\"usage\":null}";

static const char vllm_usage[] =
    "{\"id\":\"cmpl-9f2c\",\"object\":\"text_completion\",\"created\":1764000000,\"model\":\"m\","
    "\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"total_tokens\":76,\"completion_tokens\":64,"
    "\"prompt_tokens_details\":{\"cached_tokens\":8}}}";

static const char chat_chunk[] =
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,"
    "\"model\":\"m\",\"choices\":[{\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":\"a "
    "\\\"b\\\"\\n\"},\"logprobs\":{\"content\":[{\"token\":\"a\",\"logprob\":-0.5e-3,"
    "\"bytes\":[97],\"top_logprobs\":[]}]},\"finish_reason\":\"stop\"}]}";

static const char whole_chat[] =
    "{ \"choices\" : [ { \"message\" : { \"content\" : null, \"reasoning_content\" : \"r\", "
    "\"tool_calls\" : [ { \"x\" : { } } ] }, \"finish_reason\" : \"tool_calls\" } ] ,\r\n\t"
    "\"usage\" : { \"completion_tokens\" : 3, \"prompt_tokens_details\" : null } }\n";

static const char error_event[] =
    "{\"error\":{\"message\":\"broken \\u00e9\",\"type\":\"InternalServerError\",\"param\":null,"
    "\"code\":500}}";

static void test_chunks(void **state)
{
    (void)state;
    must(vllm_chunk);
    assert_int_equal(ev.n_choices, 1);
    assert_int_equal(ev.choices[0].index, 0);
    assert_text(ev.choices[0].text, " the");
    assert_null(ev.choices[0].reasoning.at);
    assert_int_equal(ev.choices[0].finish, SCAN_FINISH_NONE);
    assert_true(ev.choices[0].has_token_ids);
    assert_int_equal(ev.choices[0].n_token_ids, 2);
    assert_int_equal(ev.choices[0].token_ids[0], 262);
    assert_int_equal(ev.choices[0].token_ids[1], 5);
    assert_false(ev.has_usage);
    assert_false(ev.has_error);

    must(vllm_usage);
    assert_int_equal(ev.n_choices, 0);
    assert_true(ev.has_usage);
    assert_int_equal(ev.usage.prompt_tokens, 12);
    assert_int_equal(ev.usage.completion_tokens, 64);
    assert_int_equal(ev.usage.total_tokens, 76);
    assert_int_equal(ev.usage.cached_tokens, 8);

    must(chat_chunk);
    assert_int_equal(ev.choices[0].index, 1);
    assert_text(ev.choices[0].text, "a \"b\"\n");
    assert_int_equal(ev.choices[0].finish, SCAN_FINISH_STOP);
    assert_false(ev.choices[0].has_token_ids);

    must(whole_chat);
    assert_null(ev.choices[0].text.at);
    assert_text(ev.choices[0].reasoning, "r");
    assert_int_equal(ev.choices[0].finish, SCAN_FINISH_OTHER);
    assert_true(ev.has_usage);
    assert_int_equal(ev.usage.completion_tokens, 3);
    assert_int_equal(ev.usage.prompt_tokens, SCAN_NO_COUNT);
    assert_int_equal(ev.usage.cached_tokens, SCAN_NO_COUNT);
}

static void test_errors(void **state)
{
    (void)state;
    must(error_event);
    assert_true(ev.has_error);
    assert_text(ev.error.message, "broken \xC3\xA9");
    assert_text(ev.error.type, "InternalServerError");
    assert_int_equal(ev.error.code, 500);

    must("{\"object\":\"error\",\"message\":\"m\",\"type\":\"t\",\"param\":null,\"code\":400}");
    assert_true(ev.has_error);
    assert_text(ev.error.message, "m");
    assert_int_equal(ev.error.code, 400);
    must("{\"object\":\"errors\",\"message\":\"m\",\"code\":400}");
    assert_false(ev.has_error);
    assert_null(ev.error.message.at);

    must("{\"error\":\"words\"}");
    assert_text(ev.error.message, "words");
    must("{\"error\":{\"message\":[1],\"type\":7,\"code\":\"x\"}}");
    assert_true(ev.has_error);
    assert_null(ev.error.message.at);
    assert_int_equal(ev.error.code, 0);
    must("{\"error\":{\"code\":99999999999999999999}}");
    assert_int_equal(ev.error.code, 0);
    must("{\"error\":{\"code\":-9223372036854775808}}");
    assert_true(ev.error.code == INT64_MIN);

    static const struct {
        const char *value;
        bool truthy;
    } values[] = {
        {"null", false}, {"false", false},    {"0", false},        {"-0", false},
        {"0.0", false},  {"0e9", false},      {"-0.00E+5", false}, {"\"\"", false},
        {"{}", false},   {"[ ]", false},      {"true", true},      {"1", true},
        {"-0.1", true},  {"0.0001e-3", true}, {"\"0\"", true},     {"{\"a\":0}", true},
        {"[[]]", true},  {"[{}]", true},      {" \t[0]", true},    {"{ }", false},
        {"10", true},
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char json[64];
        snprintf(json, sizeof json, "{\"error\":%s}", values[i].value);
        must(json);
        if (ev.has_error != values[i].truthy) {
            fail_msg("%s", json);
        }
    }
    /* an error does not get lost because its words do not fit */
    static const struct scan_buffers none = {NULL, 0, NULL, 0};
    assert_int_equal(event_scan(error_event, sizeof error_event - 1, &none, &ev), SCAN_OK);
    assert_true(ev.has_error);
    assert_text(ev.error.message, "broken \\u00e9");
}

/* ---- strings ---- */

static void test_strings(void **state)
{
    (void)state;
    static const struct {
        const char *raw;
        const char *text; /* NULL: bad */
        size_t n;
    } rows[] = {
        {"", "", 0},
        {"abc", "abc", 3},
        {"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t", 8},
        {"\\u0041\\u00e9\\u20AC", "A\xC3\xA9\xE2\x82\xAC", 6},
        {"\\ud83d\\ude42", "\xF0\x9F\x99\x82", 4},
        {"\\uD800\\uDC00\\udbff\\udfff", "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", 8},
        {"\\uFFFF\\u0000x", "\xEF\xBF\xBF\0x", 5},
        {"\\uD7FF\\uE000", "\xED\x9F\xBF\xEE\x80\x80", 6},
        {"0123456789abcdef\\n0123456789", "0123456789abcdef\n0123456789", 27},
        {"\x7F\xC3\xA9\xE2\x80\xA8", "\x7F\xC3\xA9\xE2\x80\xA8", 6},
        {"\\ud83d", NULL, 0},
        {"\\ud83dx\\ude42", NULL, 0},
        {"\\ud83d\\u0041", NULL, 0},
        {"\\ud83d\\ud83d", NULL, 0},
        {"\\ude42", NULL, 0},
        {"\\ude42\\ud83d", NULL, 0},
        {"\\ud83d\\n", NULL, 0},
        {"\\u12", NULL, 0},
        {"\\u12g4", NULL, 0},
        {"\\u+123", NULL, 0},
        {"\\U0041", NULL, 0},
        {"\\x41", NULL, 0},
        {"\\a", NULL, 0},
        {"\\'", NULL, 0},
        {"\\0", NULL, 0},
        {"\\ ", NULL, 0},
        {"a\nb", NULL, 0},
        {"a\tb", NULL, 0},
        {"0123456\x1F", NULL, 0},
        {"\x01", NULL, 0},
        {"\xFF", NULL, 0},
        {"\xC3", NULL, 0},
        {"\xC0\x80", NULL, 0},
        {"\xED\xA0\x80", NULL, 0},
        {"\xF4\x90\x80\x80", NULL, 0},
        {"0123456\xE2\x82", NULL, 0},
        {"\x80", NULL, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        /* at every alignment of the eight bytes that are looked at together */
        for (int pad = 0; pad < 9; pad++) {
            char json[160];
            snprintf(json, sizeof json, "{\"choices\":[{\"text\":\"%.*s%s\"}]}", pad, "ppppppppp",
                     rows[i].raw);
            enum scan_bad bad = scan(json);
            if (rows[i].text == NULL) {
                if (bad != SCAN_STRING) {
                    fail_msg("%s: %s", json, scan_bad_text(bad));
                }
                continue;
            }
            if (bad != SCAN_OK || ev.choices[0].text.len != rows[i].n + (size_t)pad ||
                memcmp(ev.choices[0].text.at + pad, rows[i].text, rows[i].n) != 0) {
                fail_msg("%s: %s, \"%.*s\"", json, scan_bad_text(bad), (int)ev.choices[0].text.len,
                         ev.choices[0].text.at);
            }
        }
    }
    /* in keys and in what is skipped as well */
    must("{\"choi\\u0063es\":[{\"te\\u0078t\":\"a\"}],\"\\u0000\":0}");
    assert_text(ev.choices[0].text, "a");
    assert_int_equal(scan("{\"x\":[{\"\\ud800\":1}]}"), SCAN_STRING);
    must("{\"x\\u0074extextextextextextextextextext\":1}");
}

/* ---- every other fault ---- */

static void test_faults(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        enum scan_bad bad;
    } rows[] = {
        {"", SCAN_SYNTAX},
        {" ", SCAN_SYNTAX},
        {"{", SCAN_SYNTAX},
        {"}", SCAN_SYNTAX},
        {"{}x", SCAN_SYNTAX},
        {"{}{}", SCAN_SYNTAX},
        {"{,}", SCAN_SYNTAX},
        {"{\"a\"}", SCAN_SYNTAX},
        {"{\"a\":}", SCAN_SYNTAX},
        {"{\"a\":1,}", SCAN_SYNTAX},
        {"{\"a\":1 \"b\":2}", SCAN_SYNTAX},
        {"{a:1}", SCAN_SYNTAX},
        {"{'a':1}", SCAN_SYNTAX},
        {"{1:1}", SCAN_SYNTAX},
        {"{\"a\":[1,]}", SCAN_SYNTAX},
        {"{\"a\":[,1]}", SCAN_SYNTAX},
        {"{\"a\":[1}", SCAN_SYNTAX},
        {"{\"a\":[1 2]}", SCAN_SYNTAX},
        {"{\"a\":(1)}", SCAN_SYNTAX},
        {"{\"a\":nul}", SCAN_SYNTAX},
        {"{\"a\":nulll}", SCAN_SYNTAX},
        {"{\"a\":True}", SCAN_SYNTAX},
        {"{\"a\":NaN}", SCAN_SYNTAX},
        {"{\"a\":Infinity}", SCAN_SYNTAX},
        {"{\"a\":01}", SCAN_SYNTAX},
        {"{\"a\":-}", SCAN_SYNTAX},
        {"{\"a\":+1}", SCAN_SYNTAX},
        {"{\"a\":.5}", SCAN_SYNTAX},
        {"{\"a\":1.}", SCAN_SYNTAX},
        {"{\"a\":1.e5}", SCAN_SYNTAX},
        {"{\"a\":1e}", SCAN_SYNTAX},
        {"{\"a\":1e+}", SCAN_SYNTAX},
        {"{\"a\":0x1}", SCAN_SYNTAX},
        {"{\"a\":--1}", SCAN_SYNTAX},
        {"{\"a\":/**/1}", SCAN_SYNTAX},
        {"{\"a\":1}\v", SCAN_SYNTAX},
        {"\xEF\xBB\xBF{}", SCAN_SYNTAX},
        {"{\"code\":-}", SCAN_SYNTAX},
        {"{\"object\":\"\\x\"}", SCAN_STRING},
        {"{\"message\":\"\\x\"}", SCAN_STRING},
        {"{\"choices\":nul}", SCAN_SYNTAX},
        {"{\"usage\":{\"total_tokens\":00}}", SCAN_SYNTAX},
        {"[]", SCAN_TYPE},
        {"1", SCAN_TYPE},
        {"\"a\"", SCAN_TYPE},
        {"null", SCAN_TYPE},
        {"{\"choices\":{}}", SCAN_TYPE},
        {"{\"choices\":[1]}", SCAN_TYPE},
        {"{\"choices\":[null]}", SCAN_TYPE},
        {"{\"choices\":[[]]}", SCAN_TYPE},
        {"{\"choices\":\"\"}", SCAN_TYPE},
        {"{\"choices\":[{\"text\":1}]}", SCAN_TYPE},
        {"{\"choices\":[{\"text\":[]}]}", SCAN_TYPE},
        {"{\"choices\":[{\"delta\":\"\"}]}", SCAN_TYPE},
        {"{\"choices\":[{\"delta\":{\"content\":false}}]}", SCAN_TYPE},
        {"{\"choices\":[{\"finish_reason\":true}]}", SCAN_TYPE},
        {"{\"choices\":[{\"index\":\"0\"}]}", SCAN_TYPE},
        {"{\"choices\":[{\"index\":-1}]}", SCAN_TYPE},
        {"{\"choices\":[{\"index\":2147483648}]}", SCAN_TYPE},
        {"{\"choices\":[{\"index\":2147483647}]}", SCAN_OK},
        {"{\"choices\":[{\"token_ids\":{}}]}", SCAN_TYPE},
        {"{\"choices\":[{\"token_ids\":[null]}]}", SCAN_TYPE},
        {"{\"choices\":[{\"token_ids\":[-1]}]}", SCAN_TYPE},
        {"{\"choices\":[{\"token_ids\":[2147483648]}]}", SCAN_TYPE},
        {"{\"choices\":[{\"token_ids\":[1.0]}]}", SCAN_TYPE},
        {"{\"usage\":[]}", SCAN_TYPE},
        {"{\"usage\":{\"completion_tokens\":\"5\"}}", SCAN_TYPE},
        {"{\"usage\":{\"completion_tokens\":5.0}}", SCAN_TYPE},
        {"{\"usage\":{\"completion_tokens\":5e0}}", SCAN_TYPE},
        {"{\"usage\":{\"completion_tokens\":-5}}", SCAN_TYPE},
        {"{\"usage\":{\"completion_tokens\":-0}}", SCAN_OK},
        {"{\"usage\":{\"completion_tokens\":9223372036854775807}}", SCAN_OK},
        {"{\"usage\":{\"completion_tokens\":9223372036854775808}}", SCAN_TYPE},
        {"{\"usage\":{\"completion_tokens\":99999999999999999999999}}", SCAN_TYPE},
        {"{\"usage\":{\"prompt_tokens_details\":5}}", SCAN_TYPE},
        {"{\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":true}}}", SCAN_TYPE},
        {"{\"usage\":null,\"usage\":null}", SCAN_DUPLICATE},
        {"{\"choices\":[],\"cho\\u0069ces\":[]}", SCAN_DUPLICATE},
        {"{\"choices\":[{\"text\":\"a\",\"text\":\"b\"}]}", SCAN_DUPLICATE},
        {"{\"x\":1,\"x\":2}", SCAN_OK},
        {"{\"a\":[1e400,123456789012345678901234567890,-0.5E-7,0]}", SCAN_OK},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        enum scan_bad bad = scan(rows[i].json);
        if (bad != rows[i].bad) {
            fail_msg("%s: %s, expected %s", rows[i].json, scan_bad_text(bad),
                     scan_bad_text(rows[i].bad));
        }
    }
    assert_int_equal(event_scan("{}\0", 3, &buffers, &ev), SCAN_SYNTAX);
    assert_int_equal(event_scan("{\0}", 3, &buffers, &ev), SCAN_SYNTAX);
    assert_int_equal(ev.bad_at, 1);
}

/* Every proper prefix of an event is bad, and never read beyond its end. */
static void test_truncated(void **state)
{
    (void)state;
    static const char *const events[] = {vllm_chunk, vllm_usage, chat_chunk, error_event};
    for (size_t i = 0; i < 4; i++) {
        size_t whole = strlen(events[i]);
        for (size_t n = 0; n < whole; n++) {
            enum scan_bad bad = event_scan(guarded(events[i], n), n, &buffers, &ev);
            if (bad != SCAN_SYNTAX && bad != SCAN_STRING) {
                fail_msg("%zu bytes of %s: %s", n, events[i], scan_bad_text(bad));
            }
            assert_true(ev.bad_at <= n);
        }
    }
}

/* ---- limits ---- */

static char big[16384];

static enum scan_bad scan_repeated(const char *begin, const char *piece, size_t n, const char *end)
{
    size_t at = strlen(begin);
    memcpy(big, begin, at);
    for (size_t i = 0; i < n; i++) {
        memcpy(big + at, piece, strlen(piece));
        at += strlen(piece);
    }
    memcpy(big + at, end, strlen(end) + 1);
    return scan(big);
}

static void test_limits(void **state)
{
    (void)state;
    /* depth: the event itself is the first */
    static const uint32_t depths[] = {0, EVENT_SCAN_MAX_DEPTH - 1, EVENT_SCAN_MAX_DEPTH, 5000};
    for (size_t i = 0; i < 4; i++) {
        enum scan_bad expected = depths[i] < EVENT_SCAN_MAX_DEPTH ? SCAN_SYNTAX : SCAN_DEPTH;
        assert_int_equal(scan_repeated("{\"a\":", "[", depths[i], ""), expected);
    }
    char closing[EVENT_SCAN_MAX_DEPTH + 8];
    memset(closing, ']', sizeof closing);
    memcpy(closing + EVENT_SCAN_MAX_DEPTH - 1, "}", 2);
    assert_int_equal(scan_repeated("{\"a\":", "[", EVENT_SCAN_MAX_DEPTH - 1, closing), SCAN_OK);
    memset(closing, ']', sizeof closing);
    memcpy(closing + EVENT_SCAN_MAX_DEPTH, "}", 2);
    assert_int_equal(scan_repeated("{\"a\":", "[", EVENT_SCAN_MAX_DEPTH, closing), SCAN_DEPTH);
    assert_int_equal(scan_repeated("{\"a\":", "{\"a\":", 3000, ""), SCAN_DEPTH);

    /* choices */
    assert_int_equal(scan_repeated("{\"choices\":[{}", ",{}", EVENT_SCAN_MAX_CHOICES - 1, "]}"),
                     SCAN_OK);
    assert_int_equal(ev.n_choices, EVENT_SCAN_MAX_CHOICES);
    assert_int_equal(scan_repeated("{\"choices\":[{}", ",{}", EVENT_SCAN_MAX_CHOICES, "]}"),
                     SCAN_CHOICES);
    assert_int_equal(scan("{\"choices\":[]}"), SCAN_OK);
    assert_int_equal(ev.n_choices, 0);

    /* ids, over all choices */
    assert_int_equal(scan_repeated("{\"choices\":[{\"token_ids\":[1", ",2", N_IDS - 1, "]}]}"),
                     SCAN_OK);
    assert_int_equal(ev.choices[0].n_token_ids, N_IDS);
    assert_int_equal(scan_repeated("{\"choices\":[{\"token_ids\":[1", ",2", N_IDS, "]}]}"),
                     SCAN_IDS_LONG);
    assert_int_equal(scan_repeated("{\"choices\":[{\"token_ids\":[1", ",2", N_IDS - 2,
                                   "]},{\"token_ids\":[7]}]}"),
                     SCAN_OK);
    assert_int_equal(ev.choices[1].token_ids[0], 7);
    assert_int_equal(ev.choices[0].token_ids[1], 2);
    static const struct scan_buffers none = {NULL, 0, NULL, 0};
    const char *no_ids = "{\"choices\":[{\"token_ids\":[],\"text\":\"a\"}]}";
    assert_int_equal(event_scan(no_ids, strlen(no_ids), &none, &ev), SCAN_OK);
    assert_true(ev.choices[0].has_token_ids);
    const char *one_id = "{\"choices\":[{\"token_ids\":[1]}]}";
    assert_int_equal(event_scan(one_id, strlen(one_id), &none, &ev), SCAN_IDS_LONG);

    /* text with escapes, over all texts; plain text needs no room */
    assert_int_equal(scan_repeated("{\"choices\":[{\"text\":\"\\n", "a", TEXT_BYTES - 1, "\"}]}"),
                     SCAN_OK);
    assert_int_equal(ev.choices[0].text.len, TEXT_BYTES);
    assert_int_equal(scan_repeated("{\"choices\":[{\"text\":\"\\n", "a", TEXT_BYTES, "\"}]}"),
                     SCAN_TEXT_LONG);
    assert_int_equal(scan_repeated("{\"choices\":[{\"text\":\"", "\\n", TEXT_BYTES, "\"}]}"),
                     SCAN_OK);
    assert_int_equal(scan_repeated("{\"choices\":[{\"text\":\"", "\\n", TEXT_BYTES + 1, "\"}]}"),
                     SCAN_TEXT_LONG);
    assert_int_equal(
        scan_repeated("{\"choices\":[{\"text\":\"", "\\u00e9", TEXT_BYTES / 2, "\"}]}"), SCAN_OK);
    assert_int_equal(
        scan_repeated("{\"choices\":[{\"text\":\"a", "\\u00e9", TEXT_BYTES / 2, "\"}]}"),
        SCAN_TEXT_LONG);
    assert_int_equal(scan_repeated("{\"choices\":[{\"text\":\"", "a", TEXT_BYTES + 1, "\"}]}"),
                     SCAN_OK);
    const char *escaped = "{\"choices\":[{\"text\":\"\\n\"}]}";
    assert_int_equal(event_scan(escaped, strlen(escaped), &none, &ev), SCAN_TEXT_LONG);
}

static void test_done(void **state)
{
    (void)state;
    assert_true(event_is_done("[DONE]", 6));
    assert_true(event_is_done("[DONE] x", 8));
    assert_false(event_is_done("[DONE", 5));
    assert_false(event_is_done(" [DONE]", 7));
    assert_false(event_is_done("", 0));
    for (int bad = 0; bad < SCAN_BAD_COUNT; bad++) {
        assert_true(strlen(scan_bad_text((enum scan_bad)bad)) >= 2);
    }
}

/* ---- against jansson ---- */

struct text {
    char at[8192];
    size_t n;
};

static void put(struct text *t, const char *s)
{
    size_t n = strlen(s);
    if (t->n + n < sizeof t->at) {
        memcpy(t->at + t->n, s, n);
        t->n += n;
    }
}

static void put_space(struct text *t, struct rng *r)
{
    static const char *const spaces[] = {"", "", "", " ", "\n", "\t\r\n "};
    put(t, spaces[rng_below(r, 6)]);
}

static const char *pick(struct rng *r, const char *const *from, size_t n)
{
    return from[rng_below(r, n)];
}
#define PICK(r, from) pick((r), (from), sizeof(from) / sizeof(from)[0])

static void put_string(struct text *t, struct rng *r)
{
    static const char *const pieces[] = {"a",
                                         "bc",
                                         " the",
                                         "0123456789",
                                         "\\n",
                                         "\\\"",
                                         "\\\\",
                                         "\\u00e9",
                                         "\\ud83d\\ude42",
                                         "\xC3\xA9",
                                         "\xF0\x9F\x99\x82",
                                         "\\/",
                                         "stop",
                                         "\\u0000",
                                         "\x7F"};
    static const char *const hostile[] = {"\\ud83d", "\\ude42", "\xFF", "\x01",
                                          "\\x",     "\xC3",    "\"",   "\\u12"};
    put(t, "\"");
    for (uint64_t i = rng_below(r, 5); i > 0; i--) {
        put(t, rng_below(r, 400) == 0 ? PICK(r, hostile) : PICK(r, pieces));
    }
    put(t, "\"");
}

static void put_value(struct text *t, struct rng *r, int depth);

static void put_scalar(struct text *t, struct rng *r)
{
    static const char *const scalars[] = {
        "null", "true",         "false",      "0",  "1",  "7",    "64",   "-3", "2.5", "1e5",
        "-0.0", "123456789012", "2147483648", "[]", "{}", "null", "null", "5",  "12"};
    if (rng_below(r, 3) == 0) {
        put_string(t, r);
    } else {
        put(t, PICK(r, scalars));
    }
}

/* An object with keys from the list, each maybe there, in a random order, and strangers. */
static void put_object(struct text *t, struct rng *r, const char *const *keys, size_t n_keys,
                       void (*value)(struct text *t, struct rng *r, const char *key))
{
    bool used[16] = {false};
    put(t, "{");
    const char *comma = "";
    for (uint64_t i = rng_below(r, n_keys + 3); i > 0; i--) {
        size_t k = rng_below(r, n_keys + 1);
        if (k < n_keys && used[k] && rng_below(r, 200) != 0) {
            continue;
        }
        put(t, comma);
        put_space(t, r);
        if (k == n_keys) {
            put_string(t, r);
            put(t, ":");
            put_value(t, r, 3);
        } else {
            used[k] = true;
            put(t, "\"");
            put(t, keys[k]);
            put(t, "\"");
            put_space(t, r);
            put(t, ":");
            put_space(t, r);
            if (rng_below(r, 40) == 0) {
                put_value(t, r, 2);
            } else {
                value(t, r, keys[k]);
            }
        }
        put_space(t, r);
        comma = ",";
    }
    put(t, "}");
}

static void put_value(struct text *t, struct rng *r, int depth)
{
    uint64_t kind = depth > 0 ? rng_below(r, 6) : 0;
    const char *comma = "";
    if (kind < 4) {
        put_scalar(t, r);
        return;
    }
    put(t, kind == 4 ? "[" : "{");
    for (uint64_t i = rng_below(r, 4); i > 0; i--) {
        put(t, comma);
        comma = rng_below(r, 300) == 0 ? ";" : ",";
        if (kind == 5) {
            put_string(t, r);
            put(t, ":");
        }
        put_value(t, r, depth - 1);
        put_space(t, r);
    }
    put(t, kind == 4 ? "]" : "}");
}

static void put_count(struct text *t, struct rng *r)
{
    static const char *const counts[] = {"0", "1", "17", "2147483647", "null"};
    put(t, PICK(r, counts));
}

static void put_text_or_null(struct text *t, struct rng *r)
{
    if (rng_below(r, 5) == 0) {
        put(t, "null");
    } else {
        put_string(t, r);
    }
}

static void put_message_field(struct text *t, struct rng *r, const char *key)
{
    (void)key;
    put_text_or_null(t, r);
}

static void put_choice_field(struct text *t, struct rng *r, const char *key)
{
    static const char *const message[] = {"content", "role"};
    static const char *const thinking[] = {"content", "reasoning_content"};
    static const char *const other_thinking[] = {"content", "reasoning"};
    static const char *const finishes[] = {"null",          "\"stop\"",  "\"length\"",
                                           "\"abort\"",     "\"error\"", "\"tool_calls\"",
                                           "\"st\\u006fp\""};
    if (strcmp(key, "index") == 0) {
        put_count(t, r);
    } else if (strcmp(key, "text") == 0) {
        put_text_or_null(t, r);
    } else if (strcmp(key, "finish_reason") == 0) {
        put(t, PICK(r, finishes));
    } else if (strcmp(key, "token_ids") == 0) {
        const char *comma = "";
        put(t, "[");
        for (uint64_t i = rng_below(r, 4); i > 0; i--) {
            put(t, comma);
            put(t, rng_below(r, 100) == 0 ? "-1" : rng_below(r, 2) ? "50256" : "0");
            comma = ",";
        }
        put(t, "]");
    } else {
        const char *const *fields = rng_below(r, 2)   ? message
                                    : rng_below(r, 2) ? thinking
                                                      : other_thinking;
        put_object(t, r, fields, 2, put_message_field);
    }
}

static void put_usage_field(struct text *t, struct rng *r, const char *key)
{
    static const char *const details[] = {"cached_tokens", "audio_tokens"};
    if (strcmp(key, "prompt_tokens_details") == 0) {
        put_object(t, r, details, 2, put_usage_field);
    } else {
        put_count(t, r);
    }
}

static void put_error_field(struct text *t, struct rng *r, const char *key)
{
    (void)key;
    put_scalar(t, r);
}

static const char *const error_fields[] = {"message", "type", "code", "param"};

static void put_event_field(struct text *t, struct rng *r, const char *key)
{
    static const char *const completions[] = {"index", "text", "finish_reason", "token_ids"};
    static const char *const chat[] = {"index", "delta", "finish_reason", "token_ids"};
    static const char *const whole[] = {"message", "index", "finish_reason", "token_ids"};
    static const char *const objects[] = {"\"error\"", "\"text_completion\"", "7", "null"};
    static const char *const usage[] = {"prompt_tokens", "completion_tokens", "total_tokens",
                                        "prompt_tokens_details"};
    const char *comma = "";
    if (strcmp(key, "choices") == 0) {
        put(t, "[");
        for (uint64_t i = rng_below(r, 100) == 0 ? rng_below(r, 12) : rng_below(r, 3); i > 0; i--) {
            uint64_t kind = rng_below(r, 3);
            put(t, comma);
            put_object(t, r,
                       kind == 0   ? completions
                       : kind == 1 ? chat
                                   : whole,
                       4, put_choice_field);
            comma = ",";
        }
        put(t, "]");
    } else if (strcmp(key, "usage") == 0) {
        put_object(t, r, usage, 4, put_usage_field);
    } else if (strcmp(key, "object") == 0) {
        put(t, PICK(r, objects));
    } else if (strcmp(key, "error") == 0 && rng_below(r, 2) == 0) {
        put_object(t, r, error_fields, 4, put_error_field);
    } else {
        put_scalar(t, r);
    }
}

static void put_event(struct text *t, struct rng *r)
{
    static const char *const fields[] = {"choices", "usage", "object", "model", "created"};
    static const char *const failing[] = {"error", "object", "message", "type", "code"};
    t->n = 0;
    put_space(t, r);
    put_object(t, r, rng_below(r, 4) ? fields : failing, 5, put_event_field);
    put_space(t, r);
}

/* What the comparison saw: that it compared something. */
struct tally {
    uint64_t good, bad_json, bad_type, duplicate, over;
};

/* Compares the scanner with jansson's tree. Numbers that jansson cannot hold and NULs in keys,
 * which are JSON, are left out. */
static void compare(const char *json, size_t n, struct tally *tally)
{
    json_error_t error;
    json_t *tree = json_loadb(json, n, JSON_ALLOW_NUL, &error);
    enum scan_bad bad = event_scan(guarded(json, n), n, &buffers, &ev);
    if (tree == NULL) {
        enum json_error_code code = json_error_code(&error);
        if (code == json_error_numeric_overflow || code == json_error_null_byte_in_key) {
            return;
        }
        tally->bad_json++;
        if (bad == SCAN_OK) {
            fail_msg("accepted, jansson: %s\n%.*s", error.text, (int)n, json);
        }
        return;
    }
    bool well_typed;
    bool same = ref_event(tree, &ev, &well_typed);
    json_t *strict = json_loadb(json, n, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    bool has_duplicates = strict == NULL;
    json_decref(strict);
    json_decref(tree);
    if (bad == SCAN_OK) {
        tally->good++;
        if (!well_typed || !same) {
            fail_msg("well typed %d, same %d\n%.*s", well_typed, same, (int)n, json);
        }
        return;
    }
    tally->bad_type += bad == SCAN_TYPE;
    tally->duplicate += bad == SCAN_DUPLICATE;
    tally->over += bad >= SCAN_CHOICES;
    bool right = bad == SCAN_DUPLICATE ? has_duplicates
                 : bad == SCAN_TYPE    ? !well_typed || has_duplicates
                                       : bad >= SCAN_CHOICES || bad == SCAN_DEPTH;
    if (!right) {
        fail_msg("refused: %s at %zu\n%.*s", scan_bad_text(bad), ev.bad_at, (int)n, json);
    }
}

static void test_random_against_jansson(void **state)
{
    (void)state;
    static struct text t;
    struct tally tally = {0};
    struct rng rng = rng_stream(3, 14);
    int rounds = getenv("LLMSCHED_TEST_FULL") != NULL ? 3000000 : 60000;
    for (int i = 0; i < rounds; i++) {
        put_event(&t, &rng);
        compare(t.at, t.n, &tally);
        /* and with a byte changed, lost or doubled */
        if (t.n > 0 && t.n + 1 < sizeof t.at) {
            size_t at = rng_below(&rng, t.n);
            switch (rng_below(&rng, 3)) {
            case 0:
                t.at[at] = "{}[],:\"\\ n0-\xC3\x1F"[rng_below(&rng, 14)];
                break;
            case 1:
                memmove(t.at + at, t.at + at + 1, t.n - at - 1);
                t.n--;
                break;
            default:
                memmove(t.at + at + 1, t.at + at, t.n - at);
                t.n++;
                break;
            }
            compare(t.at, t.n, &tally);
        }
    }
    print_message(
        "%d rounds: %llu equal, %llu not JSON, %llu wrong type, %llu duplicate, %llu over a "
        "limit\n",
        rounds, (unsigned long long)tally.good, (unsigned long long)tally.bad_json,
        (unsigned long long)tally.bad_type, (unsigned long long)tally.duplicate,
        (unsigned long long)tally.over);
    assert_true(tally.good > (uint64_t)rounds / 2 && tally.bad_json > (uint64_t)rounds / 10);
    assert_true(tally.bad_type > 100 && tally.duplicate > 10 && tally.over > 10);
}

static void test_no_allocation(void **state)
{
    (void)state;
    uint64_t before = mem_alloc_count();
    must(vllm_chunk);
    must(chat_chunk);
    assert_int_equal(mem_alloc_count(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks),        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_strings),       cmocka_unit_test(test_faults),
        cmocka_unit_test(test_truncated),     cmocka_unit_test(test_limits),
        cmocka_unit_test(test_done),          cmocka_unit_test(test_random_against_jansson),
        cmocka_unit_test(test_no_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
