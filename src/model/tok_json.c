/*
 * tok_json.c - tokenizer.json (the model and the added tokens; the other components are in
 * tok_json_parts.c) and GPT-2's older pair vocab.json + merges.txt.
 *
 * Format: the serde types of huggingface/tokenizers (models/bpe/serialization.rs,
 * tokenizer/serialization.rs). Stricter than the library where it only warns: ids that contradict
 * each other, duplicate keys and duplicate merges are errors.
 */
#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "model/jsontext.h"
#include "model/tok_json.h"
#include "model/tokenizer_int.h"

/* --- typed access ---------------------------------------------------------------------------- */

enum status tok_json_wrong(const char *key, const char *wanted, const json_t *got,
                           struct error *err)
{
    static const char *const names[] = {"an object", "an array", "a string", "a number",
                                        "a number",  "true",     "false",    "null"};
    return error_set(err, STATUS_BAD_MODEL, -1, "key \"%s\" must be %s, not %s", key, wanted,
                     got == NULL ? "missing" : names[json_typeof(got)]);
}

enum status tok_json_string(const json_t *o, const char *key, bool may_lack, const char **text,
                            size_t *len, struct error *err)
{
    const json_t *v = json_object_get(o, key);
    if (may_lack && (v == NULL || json_is_null(v))) {
        *text = NULL;
        *len = 0;
        return STATUS_OK;
    }
    if (!json_is_string(v)) {
        return tok_json_wrong(key, "a string", v, err);
    }
    *text = json_string_value(v);
    *len = json_string_length(v);
    return STATUS_OK;
}

enum status tok_json_bool(const json_t *o, const char *key, bool fallback, bool *out,
                          struct error *err)
{
    const json_t *v = json_object_get(o, key);
    if (v == NULL || json_is_null(v)) {
        *out = fallback;
        return STATUS_OK;
    }
    if (!json_is_boolean(v)) {
        return tok_json_wrong(key, "true or false", v, err);
    }
    *out = json_is_true(v);
    return STATUS_OK;
}

/* Numbers arrive as doubles (JSON_DECODE_INT_AS_REAL). */
enum status tok_json_count(const json_t *v, const char *key, uint32_t most, uint32_t *out,
                           struct error *err)
{
    if (!json_is_number(v)) {
        return tok_json_wrong(key, "a number", v, err);
    }
    double d = json_number_value(v);
    if (!(d >= 0.0 && d <= (double)most) || d != floor(d)) {
        return error_set(err, STATUS_BAD_MODEL, -1, "\"%s\": %g is not a whole number from 0 to %u",
                         key, d, most);
    }
    *out = (uint32_t)d;
    return STATUS_OK;
}

/* A copy of a string in the tokenizer's arena. */
enum status tok_json_keep(struct tokenizer *t, const char *text, size_t len, const char **out,
                          uint32_t *out_len, struct error *err)
{
    if (len > TOK_MAX_TOKEN_BYTES) {
        return error_set(err, STATUS_BAD_MODEL, -1, "a string of %zu bytes (at most %zu)", len,
                         TOK_MAX_TOKEN_BYTES);
    }
    *out = arena_strndup(&t->arena, text, len);
    *out_len = (uint32_t)len;
    return *out != NULL ? STATUS_OK : tok_no_memory(err);
}

/* --- model ----------------------------------------------------------------------------------- */

/* {"token": id}: two passes, for the highest id sizes the table. */
static enum status read_vocab(struct tokenizer *t, json_t *vocab, struct error *err)
{
    if (!json_is_object(vocab)) {
        return tok_json_wrong("vocab", "an object", vocab, err);
    }
    size_t count = json_object_size(vocab);
    if (count > TOK_MAX_IDS) {
        return error_set(err, STATUS_BAD_MODEL, -1, "\"vocab\" has %zu tokens (at most %u)", count,
                         TOK_MAX_IDS);
    }
    uint32_t n_ids = 0;
    const char *key;
    json_t *value;
    json_object_foreach(vocab, key, value)
    {
        uint32_t id = 0;
        enum status st = tok_json_count(value, "vocab", TOK_MAX_IDS - 1, &id, err);
        if (st != STATUS_OK) {
            return st;
        }
        n_ids = id >= n_ids ? id + 1 : n_ids;
    }
    enum status st = tok_vocab_begin(&t->vocab, n_ids, (uint32_t)count, err);
    if (st != STATUS_OK) {
        return st;
    }
    json_object_foreach(vocab, key, value)
    {
        st = tok_vocab_add(&t->vocab, &t->arena, (uint32_t)json_number_value(value), key,
                           strlen(key), err);
        if (st != STATUS_OK) {
            return st;
        }
    }
    return STATUS_OK;
}

static enum status merge_parts(const json_t *merge, uint32_t rank, struct tok_token pair[2],
                               struct error *err)
{
    if (json_is_string(merge)) {
        size_t len = json_string_length(merge);
        return tok_split_merge(json_string_value(merge), len, rank, pair, err);
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *part = json_array_get(merge, i);
        if (json_array_size(merge) != 2 || !json_is_string(part)) {
            return error_set(err, STATUS_BAD_MODEL, -1,
                             "merge %u must be a string \"a b\" or a pair [\"a\", \"b\"]", rank);
        }
        if (json_string_length(part) > TOK_MAX_TOKEN_BYTES) {
            return error_set(err, STATUS_BAD_MODEL, -1, "merge %u is too long", rank);
        }
        pair[i] = (struct tok_token){json_string_value(part), (uint32_t)json_string_length(part)};
    }
    return STATUS_OK;
}

static enum status read_merges(struct tokenizer *t, const json_t *merges, struct error *err)
{
    if (!json_is_array(merges)) {
        return tok_json_wrong("merges", "an array", merges, err);
    }
    size_t count = json_array_size(merges);
    if (count > TOK_MAX_MERGES) {
        return error_set(err, STATUS_BAD_MODEL, -1, "\"merges\" has %zu entries (at most %u)",
                         count, TOK_MAX_MERGES);
    }
    enum status st = tok_merges_begin(&t->merges, (uint32_t)count, err);
    for (uint32_t i = 0; i < count && st == STATUS_OK; i++) {
        const json_t *merge = json_array_get(merges, i);
        struct tok_token pair[2];
        if (json_is_string(merge) && strncmp(json_string_value(merge), "#version", 8) == 0) {
            continue;
        }
        st = merge_parts(merge, i, pair, err);
        if (st == STATUS_OK) {
            st = tok_merges_add(&t->merges, &t->vocab, i, pair, t->word_prefix_len, err);
        }
    }
    return st;
}

static enum status read_affix(struct tokenizer *t, const json_t *model, const char *key,
                              const char **out, uint32_t *out_len, struct error *err)
{
    const char *text = NULL;
    size_t len = 0;
    enum status st = tok_json_string(model, key, true, &text, &len, err);
    if (st == STATUS_OK && text != NULL) {
        st = tok_json_keep(t, text, len, out, out_len, err);
    }
    return st;
}

static enum status read_options(struct tokenizer *t, const json_t *model, struct error *err)
{
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout != NULL && !json_is_null(dropout) &&
        !(json_is_number(dropout) && json_number_value(dropout) == 0.0)) {
        return error_set(err, STATUS_UNSUPPORTED, -1,
                         "\"dropout\" makes encoding random and is not supported; set it to null");
    }
    enum status st = tok_json_bool(model, "byte_fallback", false, &t->byte_fallback, err);
    if (st == STATUS_OK) {
        st = tok_json_bool(model, "fuse_unk", false, &t->fuse_unk, err);
    }
    if (st == STATUS_OK) {
        st = tok_json_bool(model, "ignore_merges", false, &t->ignore_merges, err);
    }
    if (st == STATUS_OK) {
        st = read_affix(t, model, "continuing_subword_prefix", &t->word_prefix, &t->word_prefix_len,
                        err);
    }
    if (st == STATUS_OK) {
        st = read_affix(t, model, "end_of_word_suffix", &t->word_suffix, &t->word_suffix_len, err);
    }
    return st;
}

static enum status read_unknown(struct tokenizer *t, const json_t *model, struct error *err)
{
    const char *text = NULL;
    size_t len = 0;
    enum status st = tok_json_string(model, "unk_token", true, &text, &len, err);
    if (st == STATUS_OK && text != NULL) {
        t->unk_id = tok_vocab_find(&t->vocab, text, len);
        /* The library fails only when it needs the token; "" is what old files have for none. */
        if (t->unk_id < 0 && len > 0) {
            st = error_set(err, STATUS_BAD_MODEL, -1,
                           "unk_token \"%.64s\" is not in the vocabulary", text);
        }
    }
    return st;
}

static enum status read_model(struct tokenizer *t, const json_t *root, struct error *err)
{
    json_t *model = json_object_get(root, "model");
    if (!json_is_object(model)) {
        return tok_json_wrong("model", "an object", model, err);
    }
    const char *type = NULL;
    size_t len = 0;
    enum status st = tok_json_string(model, "type", true, &type, &len, err);
    /* Files from before the tag existed have no type; a BPE has merges. */
    if (st == STATUS_OK && type != NULL && strcmp(type, "BPE") != 0) {
        st = error_set(err, STATUS_UNSUPPORTED, -1,
                       "a model of type \"%.64s\" is not supported; known: BPE", type);
    }
    if (st == STATUS_OK) {
        st = read_options(t, model, err);
    }
    if (st == STATUS_OK) {
        st = read_vocab(t, json_object_get(model, "vocab"), err);
    }
    if (st == STATUS_OK) {
        st = read_merges(t, json_object_get(model, "merges"), err);
    }
    if (st == STATUS_OK) {
        st = read_unknown(t, model, err);
    }
    return st;
}

/* --- added tokens ---------------------------------------------------------------------------- */

static enum status read_added(struct tokenizer *t, const json_t *token, struct error *err)
{
    struct tok_added a = {0};
    size_t len = 0;
    uint32_t id = 0;
    if (!json_is_object(token)) {
        return tok_json_wrong("added_tokens[]", "an object", token, err);
    }
    enum status st = tok_json_string(token, "content", false, &a.text, &len, err);
    if (st == STATUS_OK) {
        st = tok_json_count(json_object_get(token, "id"), "id", TOK_MAX_IDS - 1, &id, err);
    }
    struct {
        const char *key;
        bool fallback;
        bool *out;
    } const flags[] = {
        {"special", false, &a.special},      {"single_word", false, &a.single_word},
        {"lstrip", false, &a.lstrip},        {"rstrip", false, &a.rstrip},
        {"normalized", true, &a.normalized},
    };
    for (size_t i = 0; i < sizeof flags / sizeof flags[0] && st == STATUS_OK; i++) {
        st = tok_json_bool(token, flags[i].key, flags[i].fallback, flags[i].out, err);
    }
    if (st != STATUS_OK || len == 0) { /* the library ignores empty ones too */
        return st;
    }
    if (len > TOK_MAX_ADDED_BYTES) {
        return error_set(err, STATUS_BAD_MODEL, -1, "added token %u has %zu bytes (at most %u)", id,
                         len, TOK_MAX_ADDED_BYTES);
    }
    a.len = (uint32_t)len;
    a.id = (int32_t)id;
    return tok_add_token(t, &a, err);
}

static enum status read_all_added(struct tokenizer *t, const json_t *root, struct error *err)
{
    const json_t *list = json_object_get(root, "added_tokens");
    if (list == NULL || json_is_null(list)) {
        return STATUS_OK;
    }
    if (!json_is_array(list)) {
        return tok_json_wrong("added_tokens", "an array", list, err);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        enum status st = read_added(t, json_array_get(list, i), err);
        if (st != STATUS_OK) {
            return st;
        }
    }
    return STATUS_OK;
}

/* --- whole files ----------------------------------------------------------------------------- */

/* Values of a file at the caps of vocabulary, merges (pairs: three commas each) and added tokens.
 */
#define MAX_JSON_VALUES (TOK_MAX_IDS + 3ull * TOK_MAX_MERGES + 16ull * TOK_MAX_ADDED)
/* A Sequence inside a Sequence takes two levels; what is in them a few. */
#define MAX_JSON_DEPTH (2 * TOK_MAX_NESTING + 16)

enum status tok_json_parse(const char *text, size_t len, const char *path, json_t **root,
                           struct error *err)
{
    static const struct json_limits limits = {
        .max_depth = MAX_JSON_DEPTH, .max_values = MAX_JSON_VALUES, .integers_as_real = true};
    return json_text_parse(text, len, &limits, path, 0, root, err);
}

static void describe(struct tokenizer *t, bool byte_level)
{
    snprintf(t->description, sizeof t->description, "%s, %u ids, %u merges",
             byte_level         ? "byte-level BPE"
             : t->byte_fallback ? "BPE with byte fallback"
                                : "BPE",
             t->n_ids, t->merges.count);
}

static bool is_byte_level(const struct tokenizer *t)
{
    bool found = false;
    for (uint32_t i = 0; i < t->n_pretoks; i++) {
        found = found || t->pretoks[i].kind == TOK_PRETOK_BYTE_LEVEL;
    }
    for (uint32_t i = 0; i < t->n_norms; i++) {
        found = found || t->norms[i].kind == TOK_NORM_BYTE_LEVEL;
    }
    return found;
}

static enum status check_version(const json_t *root, struct error *err)
{
    const char *version = NULL;
    size_t len = 0;
    enum status st = tok_json_string(root, "version", true, &version, &len, err);
    if (st == STATUS_OK && version != NULL && strcmp(version, "1.0") != 0) {
        st = error_set(err, STATUS_UNSUPPORTED, -1, "version \"%.32s\" is unknown (known: 1.0)",
                       version);
    }
    return st;
}

enum status tok_load_json(struct tokenizer *t, const char *text, size_t len, const char *path,
                          struct error *err)
{
    json_t *root = NULL;
    enum status st = tok_json_parse(text, len, path, &root, err);
    if (st != STATUS_OK) {
        return st;
    }
    st = check_version(root, err);
    if (st == STATUS_OK) {
        st = read_model(t, root, err);
    }
    if (st == STATUS_OK) {
        st = tok_json_parts(t, root, err);
    }
    if (st == STATUS_OK) {
        st = read_all_added(t, root, err);
    }
    json_decref(root);
    if (st != STATUS_OK) {
        error_prefix(err, "%s: ", path);
    }
    return st;
}

enum status tok_deliver(struct tokenizer *t, enum status st, const char *path, uint32_t n_vocab,
                        struct tokenizer **out, struct error *err)
{
    if (st == STATUS_OK) {
        st = tok_finish(t, n_vocab, err);
        if (st != STATUS_OK) {
            error_prefix(err, "%s: ", path);
        }
    }
    if (st != STATUS_OK) {
        tokenizer_close(t);
        return st;
    }
    assert(t != NULL); /* NULL comes with NO_MEMORY in st */
    describe(t, is_byte_level(t));
    *out = t;
    return STATUS_OK;
}

enum status tokenizer_from_json(const char *text, size_t len, const char *path, uint32_t n_vocab,
                                struct tokenizer **out, struct error *err)
{
    struct tokenizer *t = tok_new();
    enum status st = t != NULL ? tok_load_json(t, text, len, path, err) : tok_no_memory(err);
    return tok_deliver(t, st, path, n_vocab, out, err);
}

/* merges.txt: an optional #version line, then one merge a line. */
static enum status read_merge_lines(struct tokenizer *t, const char *text, size_t len,
                                    struct error *err)
{
    uint32_t lines = 0;
    for (size_t i = 0; i < len; i++) {
        lines += text[i] == '\n';
        if (lines > TOK_MAX_MERGES) {
            return error_set(err, STATUS_BAD_MODEL, (int64_t)i, "more than %u merges",
                             TOK_MAX_MERGES);
        }
    }
    enum status st = tok_merges_begin(&t->merges, lines + 1, err);
    uint32_t rank = 0;
    for (size_t at = 0; at < len && st == STATUS_OK;) {
        const char *line = text + at;
        const char *end = memchr(line, '\n', len - at);
        size_t n = end != NULL ? (size_t)(end - line) : len - at;
        at += n + 1;
        n -= n > 0 && line[n - 1] == '\r' ? 1 : 0;
        bool blank_end = n == 0 && at >= len;
        if (blank_end || (n >= 8 && memcmp(line, "#version", 8) == 0)) {
            continue;
        }
        struct tok_token pair[2];
        st = tok_split_merge(line, n, rank, pair, err);
        if (st == STATUS_OK) {
            st = tok_merges_add(&t->merges, &t->vocab, rank, pair, 0, err);
        }
        rank++;
    }
    return st;
}

static enum status load_vocab_file(struct tokenizer *t, const char *path, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    json_t *root = NULL;
    enum status st = fs_read_file(path, TOK_MAX_FILE_BYTES, &text, &len, err);
    if (st != STATUS_OK) {
        return st;
    }
    st = tok_json_parse(text, len, path, &root, err);
    mem_free(text);
    if (st != STATUS_OK) {
        return st;
    }
    st = read_vocab(t, root, err);
    json_decref(root);
    if (st != STATUS_OK) {
        error_prefix(err, "%s: ", path);
    }
    return st;
}

static enum status load_merges_file(struct tokenizer *t, const char *path, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    enum status st = fs_read_file(path, TOK_MAX_FILE_BYTES, &text, &len, err);
    if (st != STATUS_OK) {
        return st;
    }
    st = read_merge_lines(t, text, len, err);
    mem_free(text);
    if (st != STATUS_OK) {
        error_prefix(err, "%s: ", path);
    }
    return st;
}

/* What GPT2Tokenizer of Transformers adds by itself: its one special token. */
static enum status add_endoftext(struct tokenizer *t, struct error *err)
{
    static const char text[] = "<|endoftext|>";
    struct tok_added a = {.text = text, .len = sizeof text - 1, .special = true};
    a.id = tok_vocab_find(&t->vocab, text, sizeof text - 1);
    return a.id >= 0 ? tok_add_token(t, &a, err) : STATUS_OK;
}

enum status tok_load_vocab_merges(struct tokenizer *t, const char *vocab_path,
                                  const char *merges_path, struct error *err)
{
    enum status st = load_vocab_file(t, vocab_path, err);
    if (st == STATUS_OK) {
        st = load_merges_file(t, merges_path, err);
    }
    if (st == STATUS_OK) {
        st = tok_add_byte_level(t, true, err);
    }
    return st == STATUS_OK ? add_endoftext(t, err) : st;
}

enum status tokenizer_from_vocab_merges(const char *vocab_path, const char *merges_path,
                                        uint32_t n_vocab, struct tokenizer **out, struct error *err)
{
    struct tokenizer *t = tok_new();
    enum status st =
        t != NULL ? tok_load_vocab_merges(t, vocab_path, merges_path, err) : tok_no_memory(err);
    return tok_deliver(t, st, vocab_path, n_vocab, out, err);
}
