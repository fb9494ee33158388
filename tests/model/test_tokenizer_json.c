/*
 * test_tokenizer_json.c - loading: what tokenizer files must not get past the reader, limits at the
 * number and one beyond, truncation at every byte, every allocation refused once.
 */
#include "tokenizer_test.h"

#include <jansson.h>
#include <unistd.h>

/* A small but whole tokenizer: a, b, c, ab, abc; every component. The table edits it. */
#define VOCAB                                                                                      \
    "{\"<unk>\":0,\"<s>\":1,\"a\":2,\"b\":3,\"c\":4,\"ab\":5,\"abc\":6,\"<0x41>\":7,\"\u0120\":8}"
#define MERGES "[\"a b\",[\"ab\",\"c\"]]"
#define MODEL(vocab, merges, more)                                                                 \
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\"," more "\"vocab\":" vocab                 \
    ",\"merges\":" merges "}"
#define ADDED      "\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true}]"
#define WITH(part) "{\"version\":\"1.0\"," part "," MODEL(VOCAB, MERGES, "") "}"

static const char whole[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null," ADDED
    ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
    "\"Replace\",\"pattern\":{\"Regex\":\"x+\"},\"content\":\"c\"}]},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{"
    "\"String\":\"-\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
    "\"add_prefix_space\":false}]},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":{"
    "\"<s>\":{\"id\":\"<s>\",\"ids\":[1],\"tokens\":[\"<s>\"]}}},"
    "\"decoder\":{\"type\":\"ByteLevel\"}," MODEL(VOCAB, MERGES, "\"byte_fallback\":true,") "}";

static enum status load(const char *text, size_t len, uint32_t n_vocab, struct tokenizer **t,
                        struct error *err)
{
    *t = NULL;
    *err = (struct error)ERROR_INIT;
    return tokenizer_from_json(text, len, "t.json", n_vocab, t, err);
}

/* Encodes with bos and compares, so that an edit that must load is also seen to work. */
static void expect_encoding(const char *json, const char *text, const char *wanted)
{
    struct error err;
    struct tokenizer *t;
    struct strbuf got = {0};
    if (load(json, strlen(json), 0, &t, &err) != STATUS_OK) {
        fail_msg("%s\n%s", err.message, json);
    }
    ids_as_text(t, text, strlen(text), true, &got);
    if (strcmp(strbuf_text(&got), wanted) != 0) {
        fail_msg("%s\n\"%s\": got %s, wanted %s", json, text, strbuf_text(&got), wanted);
    }
    strbuf_deinit(&got);
    tokenizer_close(t);
}

static void expect_refusal(const char *json, enum status status, const char *words)
{
    struct error err;
    struct tokenizer *t;
    enum status st = load(json, strlen(json), 0, &t, &err);
    if (st != status || strstr(err.message, words) == NULL ||
        strncmp(err.message, "t.json: ", 8) != 0) {
        fail_msg("%s\n got    %s \"%s\"\n wanted %s \"...%s...\"", json, status_name(st),
                 err.message, status_name(status), words);
    }
    assert_null(t);
}

static void test_whole_file(void **state)
{
    (void)state;
    expect_encoding(whole, "abc", "1 6");
    expect_encoding(whole, "abxx ba<s>", "1 6 8 3 2 1");
    expect_encoding(whole, "", "1");
    expect_encoding(whole, "-", "1 0"); /* not in this vocabulary */
}

static void test_bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        enum status status;
        const char *words;
    } cases[] = {
        {"", STATUS_BAD_MODEL, "at byte 0"},
        {"[]", STATUS_BAD_MODEL, "not a JSON object"},
        {"{}", STATUS_BAD_MODEL, "model"},
        {"{\"version\":\"2.0\"}", STATUS_UNSUPPORTED, "2.0"},
        {"{\"model\":[]}", STATUS_BAD_MODEL, "\"model\" must be an object"},
        {"{\"model\":{\"type\":\"Unigram\"}}", STATUS_UNSUPPORTED, "Unigram"},
        {"{\"model\":{\"type\":\"BPE\",\"type\":\"BPE\"}}", STATUS_BAD_MODEL, "duplicate"},
        {"{\"model\":{\"type\":\"BPE\"}}", STATUS_BAD_MODEL, "vocab"},
        {"{\"model\":{\"vocab\":{\"a\":0}}}", STATUS_BAD_MODEL, "merges"},
        {"{\"model\":{\"vocab\":{},\"merges\":[]}}", STATUS_BAD_MODEL, "empty"},
        {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", STATUS_BAD_MODEL, "-1"},
        {"{\"model\":{\"vocab\":{\"a\":1.5},\"merges\":[]}}", STATUS_BAD_MODEL, "1.5"},
        {"{\"model\":{\"vocab\":{\"a\":1e30},\"merges\":[]}}", STATUS_BAD_MODEL, "1e+30"},
        {"{\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", STATUS_BAD_MODEL, "a number"},
        {"{\"model\":{\"vocab\":{\"a\":NaN},\"merges\":[]}}", STATUS_BAD_MODEL, "'a'"},
        {"{\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", STATUS_BAD_MODEL, "duplicate"},
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", STATUS_BAD_MODEL, "id 0"},
        {"{\"model\":{\"vocab\":{\"a\":4194304},\"merges\":[]}}", STATUS_BAD_MODEL, "4194303"},
        {"{\"model\":{\"vocab\":{\"\\u0000\":0},\"merges\":[]}}", STATUS_BAD_MODEL, "at byte"},
        {"{\"model\":{\"vocab\":{\"\\ud800\":0},\"merges\":[]}}", STATUS_BAD_MODEL, "at byte"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":{}}}", STATUS_BAD_MODEL, "an array"},
        {"{" MODEL(VOCAB, "[\"a b\",\"a b\"]", "") "}", STATUS_BAD_MODEL, "same pair"},
        {"{" MODEL(VOCAB, "[\"ab\"]", "") "}", STATUS_BAD_MODEL, "one space"},
        {"{" MODEL(VOCAB, "[\"a b c\"]", "") "}", STATUS_BAD_MODEL, "one space"},
        {"{" MODEL(VOCAB, "[[\"a\"]]", "") "}", STATUS_BAD_MODEL, "pair"},
        {"{" MODEL(VOCAB, "[[\"a\",1]]", "") "}", STATUS_BAD_MODEL, "pair"},
        {"{" MODEL(VOCAB, "[7]", "") "}", STATUS_BAD_MODEL, "pair"},
        {"{" MODEL(VOCAB, "[\"b c\"]", "") "}", STATUS_BAD_MODEL, "result \"bc\""},
        {"{" MODEL(VOCAB, "[\"z c\"]", "") "}", STATUS_BAD_MODEL, "\"z\" is not"},
        {"{" MODEL(VOCAB, MERGES, "\"dropout\":0.1,") "}", STATUS_UNSUPPORTED, "dropout"},
        {"{" MODEL(VOCAB, MERGES, "\"byte_fallback\":1,") "}", STATUS_BAD_MODEL, "byte_fallback"},
        {"{\"model\":{\"unk_token\":\"?\",\"vocab\":{\"a\":0},\"merges\":[]}}", STATUS_BAD_MODEL,
         "unk_token"},
        {WITH("\"added_tokens\":{}"), STATUS_BAD_MODEL, "added_tokens"},
        {WITH("\"added_tokens\":[1]"), STATUS_BAD_MODEL, "added_tokens[]"},
        {WITH("\"added_tokens\":[{\"id\":9}]"), STATUS_BAD_MODEL, "content"},
        {WITH("\"added_tokens\":[{\"content\":\"x\"}]"), STATUS_BAD_MODEL, "\"id\""},
        {WITH("\"added_tokens\":[{\"id\":2,\"content\":\"x\"}]"), STATUS_BAD_MODEL, "takes id 2"},
        {WITH("\"added_tokens\":[{\"id\":3,\"content\":\"a\"}]"), STATUS_BAD_MODEL, "gives it 2"},
        {WITH("\"added_tokens\":[{\"id\":9,\"content\":\"x\"},{\"id\":9,\"content\":\"y\"}]"),
         STATUS_BAD_MODEL, "id 9"},
        {WITH("\"added_tokens\":[{\"id\":9,\"content\":\"x\"},{\"id\":10,\"content\":\"x\"}]"),
         STATUS_BAD_MODEL, "same text"},
        {WITH("\"added_tokens\":[{\"id\":9,\"content\":\"x\",\"lstrip\":0}]"), STATUS_BAD_MODEL,
         "lstrip"},
        {WITH("\"normalizer\":{}"), STATUS_BAD_MODEL, "type"},
        {WITH("\"normalizer\":{\"type\":\"Precompiled\"}"), STATUS_UNSUPPORTED, "Precompiled"},
        {WITH("\"normalizer\":{\"type\":\"BertNormalizer\"}"), STATUS_UNSUPPORTED, "BertNorm"},
        {WITH("\"normalizer\":{\"type\":\"Sequence\"}"), STATUS_BAD_MODEL, "normalizers"},
        {WITH("\"normalizer\":{\"type\":\"Prepend\"}"), STATUS_BAD_MODEL, "prepend"},
        {WITH("\"normalizer\":{\"type\":\"Replace\",\"content\":\"\"}"), STATUS_BAD_MODEL,
         "pattern"},
        {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":"
              "\"\"}"),
         STATUS_UNSUPPORTED, "0 bytes"},
        {WITH("\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}"), STATUS_UNSUPPORTED, "UnicodeSc"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":"
              "\"Sideways\",\"invert\":false}"),
         STATUS_UNSUPPORTED, "Sideways"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"),
         STATUS_BAD_MODEL, "one character"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":"
              "\"maybe\"}"),
         STATUS_UNSUPPORTED, "maybe"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":"
              "\"first\",\"add_prefix_space\":false}"),
         STATUS_BAD_MODEL, "does not match"},
        {WITH("\"post_processor\":{\"type\":\"Magic\"}"), STATUS_UNSUPPORTED, "Magic"},
        {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}"),
         STATUS_UNSUPPORTED, "0 times"},
        {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
              "\"id\":\"q\"}},{\"Sequence\":{}}]}"),
         STATUS_BAD_MODEL, "\"q\" has no ids"},
        {WITH("\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",900],\"sep\":[\"x\","
              "1]}"),
         STATUS_BAD_MODEL, "id 900"},
        {WITH("\"decoder\":{\"type\":\"WordPiece\"}"), STATUS_UNSUPPORTED, "WordPiece"},
        {WITH("\"decoder\":{\"type\":\"BPEDecoder\",\"suffix\":\"\"}"), STATUS_UNSUPPORTED,
         "BPEDecoder"},
        {WITH("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":"
              "\"Strip\",\"content\":\" \",\"start\":0,\"stop\":1}]}"),
         STATUS_UNSUPPORTED, "Strip"},
        {WITH("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":"
              "\"ByteLevel\"}]}"),
         STATUS_UNSUPPORTED, "joined"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        expect_refusal(cases[i].json, cases[i].status, cases[i].words);
    }
}

/* Regexes: what is read otherwise by Oniguruma and PCRE2 is refused or rewritten. */
static void test_regexes(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "[a[bc]]",        "[a-z&&[^b]]", "a{,3}", "a{2}+",         "a{2}?",     "(?x)a", "(?<n>a)",
        "\\\\h",          "\\\\R",       "\\\\b", "\\\\1",         "a]",        "a}",    "[]a]",
        "\\\\pL",         "\\\\xFF",     "(a",    "a**",           "\\\\uD800", "\\\\K", "[\\\\W]",
        "\\\\p{Klingon}", "a(?i)b",      "",      "\\\\x{110000}",
    };
    static const struct {
        const char *pattern;
        const char *text;
        const char *removed; /* the ids that are left when matches are removed */
    } read[] = {
        {"[b]", "abc", "1 2 4"},
        {"\\\\x62", "abc", "1 2 4"},
        {"\\\\u0062|\\\\x{63}", "abc", "1 2"},
        {"(?i)B", "abc", "1 2 4"},
        {"(?i:B)|(?=c)c", "abc", "1 2"},
        {"^b", "b\\nb", "1 0"}, /* Ruby: ^ stands at every line */
        {"b$", "b\\nb", "1 0"},
        {"[^\\\\p{^Ll}b]", "abc", "1 3"},
        {"\\\\v", "a\\u000bb", "1 2 3"},
        {"\\\\v", "a\\nb", "1 2 0 3"},
        {"b{1,2}", "abbb", "1 2"},
        {"(?<=a)b", "abb", "1 2 3"},
        {"x*", "ab", "1 2 3"},
    };
    for (size_t i = 0; i < COUNT(refused) + COUNT(read); i++) {
        bool bad = i < COUNT(refused);
        struct strbuf json = {0};
        strbuf_printf(&json,
                      "{\"version\":\"1.0\"," ADDED
                      ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
                      "\"behavior\":\"Removed\",\"invert\":false},\"post_processor\":{\"type\":"
                      "\"BertProcessing\",\"cls\":[\"<s>\",1],\"sep\":[\"<s>\",1]}," MODEL(
                          VOCAB, "[]", "") "}",
                      bad ? refused[i] : read[i - COUNT(refused)].pattern);
        if (bad) {
            expect_refusal(json.data, STATUS_UNSUPPORTED, refused[i][0] == '\0' ? "0 b" : "regex");
        } else {
            char text[32];
            char wanted[32];
            struct strbuf quoted = {0};
            strbuf_printf(&quoted, "[\"%s\"]", read[i - COUNT(refused)].text);
            json_t *list = json_loads(quoted.data, 0, NULL);
            snprintf(text, sizeof text, "%s", json_string_value(json_array_get(list, 0)));
            snprintf(wanted, sizeof wanted, "%s 1", read[i - COUNT(refused)].removed);
            expect_encoding(json.data, text, wanted);
            json_decref(list);
            strbuf_deinit(&quoted);
        }
        strbuf_deinit(&json);
    }
}

/* A regex that backtracks without end gives up with an error, and soon. */
static void test_match_limit(void **state)
{
    (void)state;
    static const char json[] = WITH(
        "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?:a+)+$\"},\"behavior\":"
        "\"Isolated\",\"invert\":false}");
    struct error err;
    struct tokenizer *t;
    struct token_ids ids = {0};
    char text[64];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 'b';
    assert_int_equal(load(json, sizeof json - 1, 0, &t, &err), STATUS_OK);
    assert_int_equal(tokenizer_encode(t, text, sizeof text, true, &ids, &err), STATUS_BAD_DATA);
    assert_non_null(strstr(err.message, "gave up"));
    assert_int_equal(ids.n, 0);
    token_ids_deinit(&ids);
    tokenizer_close(t);
}

/* Replace steps that double the text: stopped by its growth, not by the end of memory. */
static void test_growth_limit(void **state)
{
    (void)state;
    struct strbuf json = {0};
    struct error err;
    struct tokenizer *t;
    struct token_ids ids = {0};
    strbuf_puts(&json, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 60; i++) {
        strbuf_puts(&json, i == 0 ? "" : ",");
        strbuf_puts(&json, "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":"
                           "\"aa\"}");
    }
    strbuf_puts(&json, "]}," MODEL(VOCAB, MERGES, "") "}");
    assert_int_equal(load(json.data, json.len, 0, &t, &err), STATUS_OK);
    assert_int_equal(tokenizer_encode(t, "a", 1, true, &ids, &err), STATUS_BAD_DATA);
    assert_non_null(strstr(err.message, "longer than 65536"));
    assert_int_equal(tokenizer_encode(t, "b", 1, true, &ids, &err), STATUS_OK);
    token_ids_deinit(&ids);
    tokenizer_close(t);
    strbuf_deinit(&json);
}

/* --- limits ----------------------------------------------------------------------------------- */

static void test_vocabulary_against_embedding(void **state)
{
    (void)state;
    struct error err;
    struct tokenizer *t;
    assert_int_equal(load(whole, sizeof whole - 1, 8, &t, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "only 8 rows"));
    assert_int_equal(load(whole, sizeof whole - 1, 9, &t, &err), STATUS_OK);
    assert_int_equal(tokenizer_vocab_size(t), 9);
    tokenizer_close(t);
}

/* n members of a Sequence, nested `depth` deep. */
static void sequence(struct strbuf *json, uint32_t depth, uint32_t n)
{
    strbuf_puts(json, "{\"normalizer\":");
    for (uint32_t i = 0; i < depth; i++) {
        strbuf_puts(json, "{\"type\":\"Sequence\",\"normalizers\":[");
    }
    for (uint32_t i = 0; i < n; i++) {
        strbuf_puts(json, i == 0 ? "{\"type\":\"NFC\"}" : ",{\"type\":\"NFC\"}");
    }
    for (uint32_t i = 0; i < depth; i++) {
        strbuf_puts(json, "]}");
    }
    strbuf_puts(json, "," MODEL(VOCAB, MERGES, "") "}");
}

static void added_of(struct strbuf *json, size_t bytes)
{
    strbuf_puts(json, "{\"added_tokens\":[{\"id\":20,\"content\":\"");
    for (size_t i = 0; i < bytes; i++) {
        strbuf_putc(json, 'z');
    }
    strbuf_puts(json, "\"}]," MODEL(VOCAB, MERGES, "") "}");
}

static void affixes(struct strbuf *json, uint32_t n)
{
    strbuf_puts(json, "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{"
                      "\"Sequence\":{}},{\"SpecialToken\":{\"id\":\"s\"}}],\"special_tokens\":{"
                      "\"s\":{\"ids\":[");
    for (uint32_t i = 0; i < n; i++) {
        strbuf_puts(json, i == 0 ? "1" : ",1");
    }
    strbuf_puts(json, "]}}}," MODEL(VOCAB, MERGES, "") "}");
}

static void pattern_of(struct strbuf *json, size_t bytes)
{
    strbuf_puts(json, "{\"normalizer\":{\"type\":\"Replace\",\"content\":\"\",\"pattern\":{"
                      "\"String\":\"");
    for (size_t i = 0; i < bytes; i++) {
        strbuf_putc(json, 'z');
    }
    strbuf_puts(json, "\"}}," MODEL(VOCAB, MERGES, "") "}");
}

static void token_of(struct strbuf *json, size_t bytes)
{
    strbuf_puts(json, "{\"model\":{\"merges\":[],\"vocab\":{\"");
    for (size_t i = 0; i < bytes; i++) {
        strbuf_putc(json, 'z');
    }
    strbuf_puts(json, "\":0}}}");
}

static void expect_limit(struct strbuf *json, bool fits)
{
    struct error err;
    struct tokenizer *t;
    assert_false(json->failed);
    enum status st = load(json->data, json->len, 0, &t, &err);
    if ((st == STATUS_OK) != fits) {
        fail_msg("%s: %.300s", err.message, json->data);
    }
    tokenizer_close(t);
    strbuf_deinit(json);
}

static void test_limits(void **state)
{
    (void)state;
    struct strbuf json = {0};
    for (int over = 0; over < 2; over++) {
        sequence(&json, 16 + (uint32_t)over, 1);
        expect_limit(&json, !over);
        sequence(&json, 1, 64 + (uint32_t)over);
        expect_limit(&json, !over);
        added_of(&json, 1024 + (size_t)over);
        expect_limit(&json, !over);
        affixes(&json, 64 + (uint32_t)over);
        expect_limit(&json, !over);
        pattern_of(&json, (16u << 10) + (size_t)over);
        expect_limit(&json, !over);
        token_of(&json, (64u << 10) + (size_t)over);
        expect_limit(&json, !over);
    }
    sequence(&json, 1, 0);
    expect_limit(&json, true);
    added_of(&json, 0); /* an empty one is ignored */
    expect_limit(&json, true);
    affixes(&json, 0);
    expect_limit(&json, true);
    pattern_of(&json, 0);
    expect_limit(&json, false);
    token_of(&json, 0);
    expect_limit(&json, true);
}

/* --- truncation and memory ---------------------------------------------------------------------
 */

static void test_truncated_anywhere(void **state)
{
    (void)state;
    for (size_t n = 0; n + 1 < sizeof whole - 1; n++) {
        struct error err;
        struct tokenizer *t;
        char *cut = mem_alloc(n + 1, 1); /* the exact size, so that ASan sees a read beyond */
        assert_non_null(cut);
        memcpy(cut, whole, n);
        enum status st = load(cut, n, 0, &t, &err);
        if (st != STATUS_BAD_MODEL) {
            fail_msg("cut at %zu: %s %s", n, status_name(st), err.message);
        }
        mem_free(cut);
    }
}

static char folder[64];

static const char *put(const char *name, const char *text, size_t len)
{
    static char path[4][128];
    static int turn;
    struct error err = ERROR_INIT;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    if (fs_write_atomic(path[turn], text, len, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return path[turn];
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/llmsched-tokenizer-XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                        "special_tokens_map.json", "tokenizer.json"};
    for (size_t i = 0; i < COUNT(names); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

static const char vocab_text[] =
    "{\"a\": 0, \"b\": 1, \"ab\": 2, \"<|endoftext|>\": 3, \"\u0120\": 4}";
static const char merges_text[] = "#version: 0.2\na b\n";

static void test_vocab_and_merges(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    struct tokenizer *t = NULL;
    struct strbuf got = {0};
    put("vocab.json", vocab_text, sizeof vocab_text - 1);
    put("merges.txt", merges_text, sizeof merges_text - 1);
    t = open_or_fail(folder);
    ids_as_text(t, "ab ba<|endoftext|>", 18, true, &got);
    assert_string_equal(strbuf_text(&got), "2 4 1 0 3");
    tokenizer_close(t);
    strbuf_deinit(&got);

    for (size_t n = 0; n + 1 < sizeof vocab_text - 1; n++) {
        t = NULL;
        const char *vocab = put("vocab.json", vocab_text, n);
        enum status st = tokenizer_open(folder, 0, &t, &err);
        assert_int_equal(st, STATUS_BAD_MODEL);
        assert_non_null(strstr(err.message, vocab));
    }
    put("vocab.json", vocab_text, sizeof vocab_text - 1);
    for (size_t n = 0; n < sizeof merges_text - 1; n++) { /* a prefix may be a shorter whole file */
        t = NULL;
        const char *merges = put("merges.txt", merges_text, n);
        if (tokenizer_open(folder, 0, &t, &err) != STATUS_OK) {
            assert_non_null(strstr(err.message, merges));
        }
        tokenizer_close(t);
    }
    static const char *const bad[] = {"a b\na b\n", "a  b\n", "a\n",
                                      "a b\n\na b", "b a\n",  "a z\n"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        t = NULL;
        put("merges.txt", bad[i], strlen(bad[i]));
        assert_int_equal(tokenizer_open(folder, 0, &t, &err), STATUS_BAD_MODEL);
    }
    put("merges.txt", "a b\r\n", 5); /* written on Windows */
    tokenizer_close(open_or_fail(folder));
}

/* Special tokens by the files beside the tokenizer. */
static void test_companion_files(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        const char *map;
        const char *text;
        const char *wanted;
    } cases[] = {
        {"{}", "{}", "ab", "2"},
        /* a becomes special, so it is found before anything is merged */
        {"{\"add_bos_token\":true,\"bos_token\":\"a\"}", "{}", "ab", "0 0 1"},
        {"{\"add_bos_token\":true,\"add_eos_token\":true}",
         "{\"bos_token\":\"a\",\"eos_token\":{\"content\":\"b\"}}", "", "0 1"},
        {"{\"add_bos_token\":true,\"bos_token\":\"nowhere\"}", "{}", "ab", "2"},
        {"{\"add_bos_token\":false,\"bos_token\":\"<|endoftext|>\",\"model_max_length\":"
         "1000000000000000019884624838656}",
         "{}", "ab", "2"},
        {"{\"add_eos_token\":true,\"eos_token\":\"<|endoftext|>\"}", "{}", "ab", "2 3"},
    };
    struct error err = ERROR_INIT;
    struct tokenizer *t = NULL;
    put("vocab.json", vocab_text, sizeof vocab_text - 1);
    put("merges.txt", merges_text, sizeof merges_text - 1);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct strbuf got = {0};
        put("tokenizer_config.json", cases[i].config, strlen(cases[i].config));
        put("special_tokens_map.json", cases[i].map, strlen(cases[i].map));
        t = open_or_fail(folder);
        ids_as_text(t, cases[i].text, strlen(cases[i].text), true, &got);
        assert_string_equal(strbuf_text(&got), cases[i].wanted);
        strbuf_deinit(&got);
        tokenizer_close(t);
    }
    put("tokenizer_config.json", "{", 1);
    t = NULL;
    assert_int_equal(tokenizer_open(folder, 0, &t, &err), STATUS_BAD_MODEL);
    assert_non_null(strstr(err.message, "tokenizer_config.json"));
    put("tokenizer_config.json", "{}", 2);
    put("special_tokens_map.json", "{}", 2);
}

static void test_nothing_there(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    struct tokenizer *t = NULL;
    assert_int_equal(tokenizer_open("/nonexistent/x", 0, &t, &err), STATUS_NOT_FOUND);
    assert_int_equal(tokenizer_open(SOURCE_DIR "/cmake", 0, &t, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "tokenizer.json"));
    assert_null(t);
}

/* Loads, encodes and decodes; *st is the first failure. Texts touch every stage. */
static void use_all(const char *json, size_t len, enum status *st)
{
    static const char text[] = "abxxx-\u00e9e\u0301 <s> ab\xFF"
                               "c";
    struct error err;
    struct tokenizer *t;
    struct token_ids ids = {0};
    struct strbuf out = {0};
    *st = load(json, len, 0, &t, &err);
    if (*st == STATUS_OK) {
        *st = tokenizer_encode(t, text, sizeof text - 1, true, &ids, &err);
    }
    if (*st == STATUS_OK) {
        tokenizer_decode(t, ids.ids, ids.n, true, &out);
        *st = out.failed ? STATUS_NO_MEMORY : STATUS_OK;
    }
    token_ids_deinit(&ids);
    strbuf_deinit(&out);
    tokenizer_close(t);
}

static void sweep(const char *json, size_t len)
{
    enum status st = STATUS_NO_MEMORY;
    for (int sticky = 0; sticky < 2; sticky++) {
        uint64_t n = 0;
        uint64_t refused = 0;
        uint64_t used;
        do {
            uint64_t before = mem_alloc_count();
            mem_fail_at(++n, sticky != 0);
            use_all(json, len, &st);
            mem_fail_at(0, false);
            used = mem_alloc_count() - before;
            if (st != STATUS_OK && st != STATUS_NO_MEMORY) {
                fail_msg("allocation %llu refused gave %s", (unsigned long long)n, status_name(st));
            }
            refused += st == STATUS_NO_MEMORY;
        } while (n <= used);
        assert_int_equal(st, STATUS_OK);
        assert_true(refused > n / 2);
    }
}

static void test_every_allocation_refused(void **state)
{
    (void)state;
    static const char llama[] =
        WITH(ADDED ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
                   "\"prepend\":\"\u2581\"},{\"type\":\"NFKD\"}]},\"pre_tokenizer\":{\"type\":"
                   "\"Metaspace\",\"replacement\":\"\u2581\"},\"decoder\":{\"type\":\"Metaspace\","
                   "\"replacement\":\"\u2581\"}");
    sweep(whole, sizeof whole - 1);
    sweep(llama, sizeof llama - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_file),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_regexes),
        cmocka_unit_test(test_match_limit),
        cmocka_unit_test(test_growth_limit),
        cmocka_unit_test(test_vocabulary_against_embedding),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_truncated_anywhere),
        cmocka_unit_test(test_vocab_and_merges),
        cmocka_unit_test(test_companion_files),
        cmocka_unit_test(test_nothing_there),
        cmocka_unit_test(test_every_allocation_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
