/*
 * test_text_stream.c - stop strings and hold-back against a naive reference that sees the whole
 * text at once: random tokens cut anywhere, also inside characters, random stop strings over the
 * same few characters.
 */
#include "base/mem.h"
#include "base/rng.h"
#include "sanitized.h"
#include "serve/text_stream.h"
#include "test.h"

#define MAX_TOKENS 40
#define MAX_STOPS  5
#define MAX_TEXT   1024

/* Byte-level tokens: A9, A8 and C3 are bytes of e-acute and e-grave, F0 9F 98 80 an emoji; some
 * tokens are parts of characters, some are several characters. <s> is special. */
static const char tokenizer_json[] =
    "{\"version\":\"1.0\",\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\","
    "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false},\"post_processor\":null,"
    "\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true,\"single_word\":false,"
    "\"lstrip\":false,\"rstrip\":false,\"normalized\":false}],"
    "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
    "\"use_regex\":false},\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
    "\"merges\":[],\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2,\"ab\":3,\"aab\":4,\"baba\":5,\"aaaa\":6,"
    "\"\\u00c3\":7,\"\\u00a9\":8,\"\\u00a8\":9,\"a\\u00c3\":10,\"\\u00a9b\":11,"
    "\"\\u00c3\\u00a9\":12,\"\\u00f0\\u0141\":13,\"\\u013a\\u0122\":14,"
    "\"\\u00f0\\u0141\\u013a\\u0122a\":15}}}";
#define N_IDS 16

static const char *const characters[] = {
    "a", "b", "\xC3\xA9", "\xC3\xA8", "\xF0\x9F\x98\x80", "\xEF\xBF\xBD"};

struct trial {
    int32_t ids[MAX_TOKENS];
    uint32_t n_ids;
    char stop_text[MAX_STOPS][64];
    struct text_stop stops[MAX_STOPS];
    uint32_t n_stops;
    uint32_t min_tokens;
    bool keep_special;
};

struct reference {
    char text[MAX_TEXT];
    size_t len;
    size_t after[MAX_TOKENS + 1]; /* text length after so many tokens; the last: as streamed */
    bool stopped;
    size_t cut;
    uint32_t n_tokens;
    uint32_t stop_idx;
};

static struct tokenizer *tokenizer;
static struct trial trial;
static struct reference ref;

static int setup(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    assert_ok(
        tokenizer_from_json(tokenizer_json, strlen(tokenizer_json), "test", 0, &tokenizer, &err));
    assert_int_equal(tokenizer_vocab_size(tokenizer), N_IDS);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

/* A short word over the first `alphabet` characters; sometimes the beginning or the end of the stop
 * before it, or that stop and more. */
static void random_stop(struct rng *rng, uint32_t which, uint64_t alphabet)
{
    char *text = trial.stop_text[which];
    text[0] = '\0';
    if (which > 0 && rng_below(rng, 3) == 0) {
        const char *before = trial.stop_text[which - 1];
        uint64_t how = rng_below(rng, 3);
        size_t n = strlen(before);
        size_t at = rng_below(rng, n);
        while (((unsigned char)before[at] & 0xC0) == 0x80) {
            at--;
        }
        if (how == 0 && at > 0) {
            memcpy(text, before, at);
            text[at] = '\0';
        } else {
            snprintf(text, sizeof trial.stop_text[0], "%s", how == 1 ? before + at : before);
        }
    }
    uint64_t more = rng_below(rng, 5) + (text[0] == '\0');
    for (uint64_t i = 0; i < more && strlen(text) < 40; i++) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof trial.stop_text[0] - n, "%s",
                 characters[rng_below(rng, alphabet)]);
    }
    trial.stops[which] = (struct text_stop){.data = text, .len = strlen(text)};
}

static void random_trial(uint64_t seed)
{
    struct rng rng = rng_stream(seed, 1);
    uint64_t n_kinds = 2 + rng_below(&rng, N_IDS - 1);
    trial.n_ids = (uint32_t)rng_below(&rng, MAX_TOKENS + 1);
    for (uint32_t i = 0; i < trial.n_ids; i++) {
        trial.ids[i] = (int32_t)(1 + rng_below(&rng, n_kinds)) % N_IDS;
    }
    uint64_t alphabet = 1 + rng_below(&rng, sizeof characters / sizeof characters[0]);
    trial.n_stops = (uint32_t)rng_below(&rng, MAX_STOPS + 1);
    for (uint32_t i = 0; i < trial.n_stops; i++) {
        random_stop(&rng, i, alphabet);
    }
    trial.min_tokens = rng_below(&rng, 2) == 0 ? 0 : (uint32_t)rng_below(&rng, 12);
    trial.keep_special = rng_below(&rng, 2) == 0;
}

static bool ends_with(const char *text, size_t len, const struct text_stop *stop, size_t part)
{
    return part <= len && memcmp(text + len - part, stop->data, part) == 0;
}

/* The whole text, then the first position where a stop string that counts ends. */
static void make_reference(void)
{
    memset(&ref, 0, sizeof ref);
    struct detok d;
    struct strbuf text = {0};
    detok_begin(&d, tokenizer, trial.keep_special);
    for (uint32_t i = 0; i < trial.n_ids; i++) {
        ref.after[i] = text.len;
        detok_push(&d, trial.ids[i], &text);
    }
    ref.after[trial.n_ids] = text.len;
    detok_end(&d, &text);
    assert_true(text.len < MAX_TEXT);
    ref.len = text.len;
    memcpy(ref.text, strbuf_text(&text), text.len);
    strbuf_deinit(&text);
    ref.cut = ref.len;
    ref.n_tokens = trial.n_ids;
    for (size_t end = 1; end <= ref.len && !ref.stopped; end++) {
        uint32_t token = 1; /* the one that brought this byte; the flush belongs to the last */
        while (token < trial.n_ids && ref.after[token] < end) {
            token++;
        }
        for (uint32_t i = 0; i < trial.n_stops && token > trial.min_tokens; i++) {
            const struct text_stop *s = &trial.stops[i];
            if (ends_with(ref.text, end, s, s->len) && (!ref.stopped || end - s->len < ref.cut)) {
                ref.stopped = true;
                ref.cut = end - s->len;
                ref.n_tokens = token;
                ref.stop_idx = i;
            }
        }
    }
}

/* The longest end of text[0, len) that some stop string begins with, but is not all of it. */
static size_t needed(size_t len)
{
    size_t most = 0;
    for (uint32_t i = 0; i < trial.n_stops; i++) {
        for (size_t part = most + 1; part < trial.stops[i].len; part++) {
            most = ends_with(ref.text, len, &trial.stops[i], part) ? part : most;
        }
    }
    return most;
}

static void check_stream(uint64_t seed)
{
    struct text_stream t;
    struct strbuf out = {0};
    text_stream_begin(&t, tokenizer, trial.keep_special, trial.stops, trial.n_stops,
                      trial.min_tokens);
    bool stopped = false;
    for (uint32_t i = 0; i < trial.n_ids; i++) {
        stopped = text_stream_push(&t, trial.ids[i], &out);
        if (!stopped) {
            size_t streamed = ref.after[i + 1];
            if (out.len != streamed - needed(streamed)) {
                fail_msg("seed %llu: %zu of %zu bytes given out after token %u, expected %zu",
                         (unsigned long long)seed, out.len, streamed, i,
                         streamed - needed(streamed));
            }
        }
    }
    text_stream_end(&t, &out);
    if (t.stopped != ref.stopped || (t.stopped && t.stop_idx != ref.stop_idx) ||
        t.n_tokens != ref.n_tokens || (stopped && !t.stopped)) {
        fail_msg("seed %llu: stopped %d, stop %u, %u tokens; expected %d, %u, %u",
                 (unsigned long long)seed, t.stopped, t.stop_idx, t.n_tokens, ref.stopped,
                 ref.stop_idx, ref.n_tokens);
    }
    if (out.len != ref.cut || memcmp(strbuf_text(&out), ref.text, ref.cut) != 0) {
        fail_msg("seed %llu: text \"%s\", expected \"%.*s\"", (unsigned long long)seed,
                 strbuf_text(&out), (int)ref.cut, ref.text);
    }
    for (uint32_t i = 0; trial.min_tokens == 0 && i < trial.n_stops; i++) {
        const struct text_stop *s = &trial.stops[i];
        assert_null(out.len > 0 ? memmem(out.data, out.len, s->data, s->len) : NULL);
    }
    strbuf_deinit(&out);
    text_stream_deinit(&t);
}

static void test_random_against_reference(void **state)
{
    (void)state;
    const uint64_t n = SANITIZED ? 10000 : 60000;
    uint64_t n_stopped = 0;
    uint64_t n_late = 0;
    for (uint64_t seed = 0; seed < n; seed++) {
        random_trial(seed);
        make_reference();
        check_stream(seed);
        n_stopped += ref.stopped;
        n_late += ref.stopped && trial.min_tokens > 0;
    }
    print_message("%llu texts, %llu stopped, %llu of them with min_tokens\n", (unsigned long long)n,
                  (unsigned long long)n_stopped, (unsigned long long)n_late);
    assert_true(n_stopped > n / 10 && n_stopped < n * 9 / 10 && n_late > 0);
}

/* A long stop string and a text that almost matches it over and over: every byte is looked at a
 * bounded number of times. */
static void test_long_stop_that_almost_matches(void **state)
{
    (void)state;
    enum { LEN = 20000 };
    char *text = malloc(LEN + 1);
    assert_non_null(text);
    memset(text, 'a', LEN);
    text[LEN - 1] = 'b';
    struct text_stop stop = {.data = text, .len = LEN};
    struct text_stream t;
    struct strbuf out = {0};
    text_stream_begin(&t, tokenizer, false, &stop, 1, 0);
    const uint32_t n = 100000;
    for (uint32_t i = 0; i < n; i++) {
        assert_false(text_stream_push(&t, 6, &out)); /* aaaa */
    }
    assert_int_equal(out.len, 4 * (size_t)n - (LEN - 1));
    assert_true(text_stream_push(&t, 2, &out)); /* b */
    assert_int_equal(out.len, 4 * (size_t)n - (LEN - 1));
    assert_true(text_stream_push(&t, 2, &out));
    text_stream_end(&t, &out);
    assert_int_equal(out.len, 4 * (size_t)n - (LEN - 1));
    assert_int_equal(t.n_tokens, n + 1);
    strbuf_deinit(&out);
    text_stream_deinit(&t);
    free(text);
}

/* Refused memory shows, and what was not refused is right. */
static void test_refused_memory(void **state)
{
    (void)state;
    trial = (struct trial){.ids = {1, 2, 7, 8, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 3},
                           .n_ids = 20,
                           .stops = {{"aaab", 4}, {"zz", 2}},
                           .n_stops = 2};
    make_reference();
    bool failed = true;
    for (uint64_t nth = 1; failed; nth++) {
        assert_true(nth < 100);
        mem_fail_at(nth, false);
        struct text_stream t;
        struct strbuf out = {0};
        text_stream_begin(&t, tokenizer, false, trial.stops, trial.n_stops, 0);
        for (uint32_t i = 0; i < trial.n_ids; i++) {
            if (text_stream_push(&t, trial.ids[i], &out)) {
                break;
            }
        }
        text_stream_end(&t, &out);
        failed = t.held.failed || out.failed;
        mem_fail_at(0, false);
        if (!failed) {
            assert_true(nth > 1 && out.len == ref.cut);
            assert_memory_equal(out.data, ref.text, ref.cut);
        }
        strbuf_deinit(&out);
        text_stream_deinit(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_against_reference),
        cmocka_unit_test(test_long_stop_that_almost_matches),
        cmocka_unit_test(test_refused_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
