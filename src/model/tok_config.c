/*
 * tok_config.c - what the files beside a tokenizer say about special tokens: tokenizer_config.json
 * and special_tokens_map.json, read as Transformers 5 does (PreTrainedTokenizerFast):
 *
 *   bos_token, eos_token, unk_token, pad_token, ...   become special when they are in the
 * vocabulary add_bos_token, add_eos_token                      when given, replace the
 * post-processor
 *
 * Neither file is needed. Tokens named there that the vocabulary lacks are left out: Transformers
 * would give them new ids, for which a model as saved has no embedding.
 */
#include <string.h>

#include "base/fs.h"
#include "model/tok_json.h"

/* A configuration holds a chat template at most. */
#define MAX_CONFIG_BYTES ((size_t)16 << 20)

/* "text" or {"content": "text"}; NULL when it is neither. */
static const json_t *token_text(const json_t *value)
{
    const json_t *content = json_object_get(value, "content");
    return json_is_string(value) ? value : json_is_string(content) ? content : NULL;
}

static enum status add_special(struct tokenizer *t, const json_t *value, struct error *err)
{
    const json_t *text = token_text(value);
    if (text == NULL || json_string_length(text) == 0) {
        return STATUS_OK;
    }
    struct tok_added a = {.text = json_string_value(text), .special = true};
    size_t len = json_string_length(text);
    a.id = tok_vocab_find(&t->vocab, a.text, len);
    for (uint32_t i = 0; i < t->n_added; i++) {
        if (t->added[i].len == len && memcmp(t->added[i].text, a.text, len) == 0) {
            return STATUS_OK;
        }
    }
    if (a.id < 0 || len > TOK_MAX_ADDED_BYTES) {
        return STATUS_OK;
    }
    a.len = (uint32_t)len;
    return tok_add_token(t, &a, err);
}

/* The id of the token that `key` names in one of the files, or -1. */
static int32_t named_id(const struct tokenizer *t, json_t *const files[2], const char *key)
{
    for (int i = 0; i < 2; i++) {
        const json_t *text = token_text(json_object_get(files[i], key));
        if (text != NULL) {
            return tokenizer_id_of(t, json_string_value(text), json_string_length(text));
        }
    }
    return -1;
}

static enum status apply(struct tokenizer *t, json_t *const files[2], struct error *err)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        for (int f = 0; f < 2; f++) {
            enum status st = add_special(t, json_object_get(files[f], names[i]), err);
            if (st != STATUS_OK) {
                return st;
            }
        }
    }
    const json_t *config = files[0];
    const json_t *given[2] = {json_object_get(config, "add_bos_token"),
                              json_object_get(config, "add_eos_token")};
    if (!json_is_boolean(given[0]) && !json_is_boolean(given[1])) {
        return STATUS_OK;
    }
    int32_t bos = named_id(t, files, "bos_token");
    int32_t eos = named_id(t, files, "eos_token");
    t->n_before = 0;
    t->n_after = 0;
    if (json_is_true(given[0]) && bos >= 0) {
        t->before[t->n_before++] = bos;
    }
    if (json_is_true(given[1]) && eos >= 0) {
        t->after[t->n_after++] = eos;
    }
    return STATUS_OK;
}

/* The parsed file, or NULL in *root when there is none. */
static enum status read_file(const char *folder, const char *name, json_t **root, struct error *err)
{
    char *path = fs_join(folder, name);
    char *text = NULL;
    size_t len = 0;
    if (path == NULL) {
        return tok_no_memory(err);
    }
    enum status st = STATUS_OK;
    if (fs_is_file(path)) {
        st = fs_read_file(path, MAX_CONFIG_BYTES, &text, &len, err);
        if (st == STATUS_OK) {
            st = tok_json_parse(text, len, path, root, err);
        }
    }
    mem_free(text);
    mem_free(path);
    return st;
}

enum status tok_apply_config(struct tokenizer *t, const char *folder, struct error *err)
{
    json_t *files[2] = {NULL, NULL};
    enum status st = read_file(folder, "tokenizer_config.json", &files[0], err);
    if (st == STATUS_OK) {
        st = read_file(folder, "special_tokens_map.json", &files[1], err);
    }
    if (st == STATUS_OK) {
        st = apply(t, files, err);
    }
    json_decref(files[0]);
    json_decref(files[1]);
    return st;
}
