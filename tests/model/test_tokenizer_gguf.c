/*
 * test_tokenizer_gguf.c - tokenizers inside GGUF files: llama.cpp's vocabularies with its expected
 * ids, and the real SmolLM2. Files that are not at hand are skipped, and said so.
 */
#include "tokenizer_test.h"

#include <math.h>

#include "base/rng.h"
#include "base/utf8.h"
#include "model/gguf.h"
#include "model_builders.h"

static void expect_ids(const struct tokenizer *t, const char *text, size_t len, const char *wanted)
{
    struct strbuf got = {0};
    ids_as_text(t, text, len, false, &got);
    if (strcmp(strbuf_text(&got), wanted) != 0) {
        fail_msg("\"%.*s\":\n got    %s\n wanted %s", (int)len, text, strbuf_text(&got), wanted);
    }
    strbuf_deinit(&got);
}

/* Every string of NAME.gguf.inp against its line of NAME.gguf.out. */
static void check_vocabulary(const char *name)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    const char *env = getenv("LLMSCHED_TEST_TOKENIZERS");
    char *folder = env != NULL ? mem_strdup(env) : fs_join(SOURCE_DIR, "../shared/tokenizers");
    char *path = fs_join(folder, name);
    if (!fs_is_file(path)) {
        print_message("skipped: no %s (set LLMSCHED_TEST_TOKENIZERS to the folder that has it)\n",
                      path);
        mem_free(folder);
        mem_free(path);
        skip();
    }
    struct strbuf inp = {0};
    struct strbuf out = {0};
    strbuf_printf(&inp, "%s.inp", path);
    strbuf_printf(&out, "%s.out", path);
    struct tokenizer *t = open_or_fail(path);
    size_t len = 0;
    size_t out_len = 0;
    char *texts = slurp(inp.data, &len);
    char *ids = slurp(out.data, &out_len);
    const char *text = texts;
    uint32_t n = 0;
    for (char *line = ids; text != NULL; n++) {
        const char *end = strstr(text, mark);
        char *line_end = strchr(line, '\n');
        if (line_end != NULL) {
            *line_end = '\0';
        }
        size_t text_len = end != NULL ? (size_t)(end - text) : strlen(text);
        expect_ids(t, text, text_len, line[0] == ' ' ? line + 1 : line);
        text = end != NULL ? end + strlen(mark) : NULL;
        line = line_end != NULL ? line_end + 1 : line + strlen(line);
    }
    print_message("%s: %u strings agree with llama.cpp (%s)\n", name, n, tokenizer_describe(t));
    assert_int_equal(n, 47);
    tokenizer_close(t);
    strbuf_deinit(&inp);
    strbuf_deinit(&out);
    mem_free(texts);
    mem_free(ids);
    mem_free(folder);
    mem_free(path);
}

static void test_llama_cpp_gpt2(void **state)
{
    (void)state;
    check_vocabulary("ggml-vocab-gpt-2.gguf");
}

static void test_llama_cpp_spm(void **state)
{
    (void)state;
    check_vocabulary("ggml-vocab-llama-spm.gguf");
}

static void test_smollm2(void **state)
{
    (void)state;
    const char *env = getenv("LLMSCHED_TEST_MODEL");
    const char *path = env != NULL ? env : SOURCE_DIR "/models/SmolLM2-135M-Instruct";
    if (!fs_is_dir(path) && !fs_is_file(path)) {
        print_message("skipped: no %s (run `make model`, or set LLMSCHED_TEST_MODEL)\n", path);
        skip();
    }
    struct tokenizer *t = open_or_fail(path);
    static const char text[] = "The capital of France is";
    expect_ids(t, text, sizeof text - 1, "504 3575 282 4649 314");
    assert_int_equal(tokenizer_vocab_size(t), 49152);
    assert_int_equal(tokenizer_id_of(t, "<|im_start|>", 12), 1);
    tokenizer_close(t);
}

/* --- files made here ------------------------------------------------------------------------- */

enum { MOST_TOKENS = 300 };

/* A file's tokenizer keys; what is NULL or 0 is left out. */
struct spec {
    const char *kind;
    const char *pre;
    const char *tokens[MOST_TOKENS];
    uint32_t n_tokens;
    int32_t types[MOST_TOKENS];
    uint32_t n_types;
    float scores[MOST_TOKENS];
    uint32_t n_scores;
    const char *merges[8];
    uint32_t n_merges;
    int32_t bos; /* -1: no key */
    int add_bos; /* -1: no key */
    int add_eos;
    int add_space_prefix;
    uint32_t type_element; /* the element type of token_type; 0: i32 */
};

static void write_spec(struct bytes *b, const struct spec *s)
{
    struct bytes body = {0};
    uint64_t n = 1;
    gguf_key_string(&body, "general.architecture", "llama");
    if (s->kind != NULL) {
        gguf_key_string(&body, "tokenizer.ggml.model", s->kind);
        n++;
    }
    if (s->pre != NULL) {
        gguf_key_string(&body, "tokenizer.ggml.pre", s->pre);
        n++;
    }
    if (s->n_tokens > 0) {
        gguf_key_array(&body, "tokenizer.ggml.tokens", 8, s->n_tokens);
        for (uint32_t i = 0; i < s->n_tokens; i++) {
            put_string(&body, s->tokens[i]);
        }
        n++;
    }
    if (s->n_types > 0) {
        gguf_key_array(&body, "tokenizer.ggml.token_type",
                       s->type_element != 0 ? s->type_element : 5, s->n_types);
        for (uint32_t i = 0; i < s->n_types; i++) {
            put_u32(&body, (uint32_t)s->types[i]);
        }
        n++;
    }
    if (s->n_scores > 0) {
        gguf_key_array(&body, "tokenizer.ggml.scores", 6, s->n_scores);
        for (uint32_t i = 0; i < s->n_scores; i++) {
            put_f32(&body, s->scores[i]);
        }
        n++;
    }
    if (s->n_merges > 0) {
        gguf_key_array(&body, "tokenizer.ggml.merges", 8, s->n_merges);
        for (uint32_t i = 0; i < s->n_merges; i++) {
            put_string(&body, s->merges[i]);
        }
        n++;
    }
    if (s->bos >= 0) {
        gguf_key_u32(&body, "tokenizer.ggml.bos_token_id", (uint32_t)s->bos);
        n++;
    }
    const struct {
        const char *key;
        int value;
    } flags[] = {{"tokenizer.ggml.add_bos_token", s->add_bos},
                 {"tokenizer.ggml.add_eos_token", s->add_eos},
                 {"tokenizer.ggml.add_space_prefix", s->add_space_prefix}};
    for (size_t i = 0; i < COUNT(flags); i++) {
        if (flags[i].value >= 0) {
            gguf_key(&body, flags[i].key, 7);
            put_u8(&body, (uint8_t)flags[i].value);
            n++;
        }
    }
    gguf_preamble(b, 3, 0, n);
    bytes_put(b, body.data, body.len);
    bytes_free(&body);
}

static enum status open_spec(const struct spec *s, struct tokenizer **t, struct error *err)
{
    struct bytes b = {0};
    struct gguf *g = NULL;
    *t = NULL;
    *err = (struct error)ERROR_INIT;
    write_spec(&b, s);
    enum status st = gguf_parse(b.data, b.len, b.len, "t.gguf", &g, err);
    if (st == STATUS_OK) {
        st = tokenizer_from_gguf(g, 0, t, err);
    }
    gguf_close(g);
    bytes_free(&b);
    return st;
}

/* 0 <s>, 1 a, 2 b, 3 c, 4 ab, 5 abc, 6 <user>, 7 G (a space), 8 1, 9 2, 10 12 */
static struct spec gpt2_spec(const char *pre)
{
    static const char *const tokens[] = {"<s>",    "a",      "b", "c", "ab", "abc",
                                         "<user>", "\u0120", "1", "2", "12"};
    struct spec s = {.kind = "gpt2",
                     .pre = pre,
                     .n_tokens = COUNT(tokens),
                     .n_types = COUNT(tokens),
                     .merges = {"a b", "ab c", "1 2"},
                     .n_merges = 3,
                     .bos = 0,
                     .add_bos = -1,
                     .add_eos = -1,
                     .add_space_prefix = -1};
    for (size_t i = 0; i < COUNT(tokens); i++) {
        s.tokens[i] = tokens[i];
        s.types[i] = i == 0 ? 3 : i == 6 ? 4 : 1;
    }
    return s;
}

/* 0 <unk>, 1 <s>, 2 </s>, 3.. bytes, 259.. a b ab ba _ _a U+00E9 */
static struct spec llama_spec(void)
{
    static char names[256][8];
    static const char *const words[] = {"a", "b", "ab", "ba", "\u2581", "\u2581a", "\u00e9"};
    static const float scores[] = {-9, -9, -2, -1, -9, -3, -9};
    struct spec s = {.kind = "llama",
                     .tokens = {"<unk>", "<s>", "</s>"},
                     .types = {2, 3, 3},
                     .n_tokens = 259 + COUNT(words),
                     .n_types = 259 + COUNT(words),
                     .n_scores = 259 + COUNT(words),
                     .bos = 1,
                     .add_bos = -1,
                     .add_eos = -1,
                     .add_space_prefix = -1};
    for (int i = 0; i < 256; i++) {
        snprintf(names[i], sizeof names[i], "<0x%02X>", (unsigned)i);
        s.tokens[3 + i] = names[i];
        s.types[3 + i] = 6;
    }
    for (size_t i = 0; i < COUNT(words); i++) {
        s.tokens[259 + i] = words[i];
        s.scores[259 + i] = scores[i];
        s.types[259 + i] = 1;
    }
    return s;
}

static void check_spec(const struct spec *s, const char *text, const char *wanted)
{
    struct error err;
    struct tokenizer *t;
    struct strbuf got = {0};
    if (open_spec(s, &t, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    ids_as_text(t, text, strlen(text), true, &got);
    assert_string_equal(strbuf_text(&got), wanted);
    strbuf_deinit(&got);
    tokenizer_close(t);
}

static void test_small_gpt2(void **state)
{
    (void)state;
    struct spec s = gpt2_spec("gpt-2");
    check_spec(&s, "abc ab<user>12", "5 7 4 6 10");
    s.add_bos = 1;
    check_spec(&s, "abc<s>", "0 5 0");
    s = gpt2_spec("smollm"); /* digits stand alone */
    check_spec(&s, "abc12", "5 8 9");
    s = gpt2_spec(
        "llama-bpe"); /* adds bos unless told not to; whole words are tokens as they are */
    check_spec(&s, "abc12", "0 5 10");
    s.n_merges = 1;
    check_spec(&s, "abc12", "0 5 10");
    s.add_bos = 0;
    check_spec(&s, "abcc", "4 3 3");
}

static void test_small_llama(void **state)
{
    (void)state;
    struct spec s = llama_spec();
    /* the best score first ("ab" before U+2581 "a", "ba" before "ab"); a space in front; unknown
     * characters as bytes */
    check_spec(&s, "ab", "1 263 261");
    check_spec(&s, "bab", "1 263 262 260");
    check_spec(&s, "", "1");
    check_spec(&s, "\u00e9\u00e8", "1 263 265 198 171");
    check_spec(&s, "a<s>a", "1 264 1 264");
    s.add_bos = 0;
    s.add_eos = 1;
    check_spec(&s, "a", "264 2");
    s.add_space_prefix = 0;
    check_spec(&s, "ab a", "261 264 2");
    s = llama_spec();
    s.scores[262] = -2; /* a tie goes to the left: "ab" */
    check_spec(&s, "xaba", "1 263 123 261 259");
}

static void test_bad_keys(void **state)
{
    (void)state;
    struct case_of {
        struct spec s;
        enum status status;
        const char *words;
    } *cases = mem_alloc(40, sizeof *cases);
    assert_non_null(cases);
    size_t n = 0;
#define ADD(base, edit, wanted, text)                                                              \
    do {                                                                                           \
        struct case_of *c = &cases[n++];                                                           \
        c->s = base;                                                                               \
        edit;                                                                                      \
        c->status = wanted;                                                                        \
        c->words = text;                                                                           \
    } while (0)
    ADD(gpt2_spec("gpt-2"), c->s.kind = NULL, STATUS_UNSUPPORTED, "missing");
    ADD(gpt2_spec("gpt-2"), c->s.kind = "bert", STATUS_UNSUPPORTED, "\"bert\"");
    ADD(gpt2_spec(NULL), (void)0, STATUS_UNSUPPORTED, "missing");
    ADD(gpt2_spec("qwen2"), (void)0, STATUS_UNSUPPORTED, "\"qwen2\"");
    ADD(gpt2_spec("gpt-2"), c->s.n_tokens = 0, STATUS_BAD_MODEL, "tokenizer.ggml.tokens");
    ADD(gpt2_spec("gpt-2"), c->s.n_types = 3, STATUS_BAD_MODEL, "3 entries for 11");
    ADD(gpt2_spec("gpt-2"), c->s.type_element = 4, STATUS_BAD_MODEL, "token_type");
    ADD(gpt2_spec("gpt-2"), c->s.types[2] = 7, STATUS_BAD_MODEL, "type 7");
    ADD(gpt2_spec("gpt-2"), c->s.types[2] = -1, STATUS_BAD_MODEL, "type 4294967295");
    ADD(gpt2_spec("gpt-2"), c->s.n_merges = 0, STATUS_BAD_MODEL, "merges");
    ADD(gpt2_spec("gpt-2"), c->s.merges[1] = "b c", STATUS_BAD_MODEL, "result \"bc\"");
    ADD(gpt2_spec("gpt-2"), c->s.merges[1] = "a b", STATUS_BAD_MODEL, "same pair");
    ADD(gpt2_spec("gpt-2"), c->s.merges[1] = "ab", STATUS_BAD_MODEL, "one space");
    ADD(gpt2_spec("gpt-2"), c->s.tokens[3] = "a", STATUS_BAD_MODEL, "ids 1 and 3");
    ADD(gpt2_spec("gpt-2"), c->s.tokens[3] = "\xC3", STATUS_BAD_MODEL, "not UTF-8");
    ADD(gpt2_spec("gpt-2"), c->s.bos = 11, STATUS_BAD_MODEL, "bos_token_id is 11");
    ADD(gpt2_spec("llama-bpe"), c->s.bos = -1, STATUS_BAD_MODEL, "wants a bos");
    ADD(llama_spec(), c->s.n_scores = 0, STATUS_BAD_MODEL, "scores");
    ADD(llama_spec(), c->s.n_scores = 5, STATUS_BAD_MODEL, "one score for each");
    ADD(llama_spec(), c->s.scores[4] = NAN, STATUS_BAD_MODEL, "token 4 is not finite");
    ADD(llama_spec(), c->s.tokens[4] = "<0x-1>", STATUS_BAD_MODEL, "<0x-1>");
    ADD(llama_spec(), c->s.tokens[4] = "<0x001>", STATUS_BAD_MODEL, "not <0xNN>");
#undef ADD
    for (size_t i = 0; i < n; i++) {
        struct error err;
        struct tokenizer *t;
        enum status st = open_spec(&cases[i].s, &t, &err);
        if (st != cases[i].status || strstr(err.message, cases[i].words) == NULL ||
            strncmp(err.message, "t.gguf: ", 8) != 0) {
            fail_msg("case %zu: got %s \"%s\", wanted %s \"...%s...\"", i, status_name(st),
                     err.message, status_name(cases[i].status), cases[i].words);
        }
        assert_null(t);
    }
    mem_free(cases);
}

/* The stream over random ids: the byte tokens make every kind of broken character. */
static void test_llama_stream(void **state)
{
    (void)state;
    struct spec s = llama_spec();
    struct error err;
    struct tokenizer *t;
    struct rng r = rng_stream(3, 1);
    assert_int_equal(open_spec(&s, &t, &err), STATUS_OK);
    for (int round = 0; round < 20000; round++) {
        struct strbuf whole = {0};
        struct strbuf joined = {0};
        struct detok d;
        int32_t ids[12];
        detok_begin(&d, t, false);
        for (size_t i = 0; i < COUNT(ids); i++) {
            /* mostly bytes of leading and following kinds */
            uint64_t k = rng_below(&r, 4);
            ids[i] = (int32_t)(k == 0   ? rng_below(&r, 270)
                               : k == 1 ? 3 + rng_between(&r, 0xC0, 0xF5)
                                        : 3 + rng_between(&r, 0x80, 0xBF));
            size_t before = joined.len;
            detok_push(&d, ids[i], &joined);
            assert_true(utf8_is_valid(strbuf_text(&joined) + before, joined.len - before));
        }
        detok_end(&d, &joined);
        tokenizer_decode(t, ids, COUNT(ids), false, &whole);
        assert_string_equal(strbuf_text(&joined), strbuf_text(&whole));
        strbuf_deinit(&whole);
        strbuf_deinit(&joined);
    }
    tokenizer_close(t);
}

static void test_every_allocation_refused(void **state)
{
    (void)state;
    struct spec specs[] = {gpt2_spec("llama-bpe"), llama_spec()};
    for (size_t i = 0; i < COUNT(specs); i++) {
        uint64_t n = 0;
        uint64_t used = 0;
        enum status st;
        do {
            struct error err;
            struct tokenizer *t = NULL;
            struct token_ids ids = {0};
            uint64_t before = mem_alloc_count();
            mem_fail_at(++n, true);
            st = open_spec(&specs[i], &t, &err);
            if (st == STATUS_OK) {
                st = tokenizer_encode(t, "abc 12", 6, true, &ids, &err);
            }
            mem_fail_at(0, false);
            used = mem_alloc_count() - before;
            assert_true(st == STATUS_OK || st == STATUS_NO_MEMORY);
            token_ids_deinit(&ids);
            tokenizer_close(t);
        } while (n <= used);
        assert_int_equal(st, STATUS_OK);
        assert_true(n > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_cpp_gpt2), cmocka_unit_test(test_llama_cpp_spm),
        cmocka_unit_test(test_smollm2),        cmocka_unit_test(test_small_gpt2),
        cmocka_unit_test(test_small_llama),    cmocka_unit_test(test_bad_keys),
        cmocka_unit_test(test_llama_stream),   cmocka_unit_test(test_every_allocation_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
