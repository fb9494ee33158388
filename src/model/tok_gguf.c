/*
 * tok_gguf.c - the tokenizer inside a GGUF file. Two kinds: `gpt2` (byte-level BPE, its split
 * chosen by the name in tokenizer.ggml.pre) and `llama` (SentencePiece BPE: the merge with the best
 * score first, bytes for what is unknown).
 *
 * Keys: ggml-org/ggml docs/gguf.md. Defaults and split patterns: ggml-org/llama.cpp
 * src/llama-vocab.cpp. As there, control and user-defined tokens are found in text; only control
 * tokens are special, that is, left out of decoded text.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/gguf.h"
#include "model/tokenizer_int.h"

enum token_type {
    TYPE_UNDEFINED,
    TYPE_NORMAL,
    TYPE_UNKNOWN,
    TYPE_CONTROL,
    TYPE_USER_DEFINED,
    TYPE_UNUSED,
    TYPE_BYTE,
    TYPE_COUNT
};

#define LLAMA3_PATTERN                                                                             \
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"     \
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* The pre-tokenizers: splits run in order, each on the pieces of the one before. */
static const struct pre {
    const char *name;
    const char *first; /* a split before GPT-2's, or instead of it */
    bool gpt2_split;
    bool ignore_merges;
    bool add_bos; /* when the file does not say */
} pres[] = {
    {"gpt-2", NULL, true, false, false},
    {"smollm", "\\p{N}", true, false, false},
    {"llama-bpe", LLAMA3_PATTERN, false, true, true},
};

struct loader {
    struct tokenizer *t;
    const struct gguf *g;
    const struct gguf_string *tokens;
    uint64_t n_tokens;
    const unsigned char *types; /* i32 little-endian, unaligned; NULL: all normal */
    const struct pre *pre;      /* gpt2 kind */
    struct error *err;
};

static uint32_t load_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static enum token_type type_of(const struct loader *l, uint64_t id)
{
    uint32_t type = l->types != NULL ? load_u32(l->types + id * 4) : TYPE_NORMAL;
    return type < TYPE_COUNT ? (enum token_type)type : TYPE_COUNT;
}

/* Optional keys: missing gives the fallback, a wrong type is an error. */
static enum status get_bool(const struct loader *l, const char *key, bool fallback, bool *out)
{
    struct error e = ERROR_INIT;
    enum status st = gguf_get_bool(l->g, key, out, &e);
    if (st == STATUS_NOT_FOUND) {
        *out = fallback;
        return STATUS_OK;
    }
    return st == STATUS_OK ? st : error_set(l->err, st, e.position, "%s", e.message);
}

/* A token id; -1 when the key is missing and there is no fallback. */
static enum status get_id(const struct loader *l, const char *key, int32_t fallback, int32_t *out)
{
    struct error e = ERROR_INIT;
    uint64_t value = 0;
    enum status st = gguf_get_u64(l->g, key, &value, &e);
    if (st == STATUS_NOT_FOUND) {
        *out = fallback;
        return STATUS_OK;
    }
    if (st != STATUS_OK) {
        return error_set(l->err, st, e.position, "%s", e.message);
    }
    if (value >= l->n_tokens) {
        return error_set(l->err, STATUS_BAD_MODEL, -1,
                         "%s is %" PRIu64 ", but there are only %" PRIu64 " tokens", key, value,
                         l->n_tokens);
    }
    *out = (int32_t)value;
    return STATUS_OK;
}

static enum status read_tokens(struct loader *l)
{
    static const char key[] = "tokenizer.ggml.tokens";
    struct tokenizer *t = l->t;
    enum status st = gguf_get_strings(l->g, key, &l->tokens, &l->n_tokens, l->err);
    if (st == STATUS_NOT_FOUND) {
        return error_set(l->err, STATUS_BAD_MODEL, -1, "key %s is missing: no tokenizer", key);
    }
    if (st != STATUS_OK) {
        return st;
    }
    if (l->n_tokens == 0 || l->n_tokens > TOK_MAX_IDS) {
        return error_set(l->err, STATUS_BAD_MODEL, -1, "%s has %" PRIu64 " tokens (1 to %u)", key,
                         l->n_tokens, TOK_MAX_IDS);
    }
    st = tok_vocab_begin(&t->vocab, (uint32_t)l->n_tokens, (uint32_t)l->n_tokens, l->err);
    for (uint32_t i = 0; i < l->n_tokens && st == STATUS_OK; i++) {
        if (!utf8_is_valid(l->tokens[i].text, l->tokens[i].len)) {
            return error_set(l->err, STATUS_BAD_MODEL, -1, "%s: token %u is not UTF-8", key, i);
        }
        st = tok_vocab_add(&t->vocab, &t->arena, i, l->tokens[i].text, l->tokens[i].len, l->err);
    }
    return st;
}

static enum status read_types(struct loader *l)
{
    static const char key[] = "tokenizer.ggml.token_type";
    struct error e = ERROR_INIT;
    const void *data = NULL;
    uint64_t count = 0;
    enum status st = gguf_get_array(l->g, key, GGUF_I32, &data, &count, &e);
    if (st == STATUS_NOT_FOUND) {
        return STATUS_OK;
    }
    if (st != STATUS_OK) {
        return error_set(l->err, st, e.position, "%s", e.message);
    }
    if (count != l->n_tokens) {
        return error_set(l->err, STATUS_BAD_MODEL, -1,
                         "%s has %" PRIu64 " entries for %" PRIu64 " tokens", key, count,
                         l->n_tokens);
    }
    l->types = data;
    for (uint64_t i = 0; i < count; i++) {
        if (type_of(l, i) == TYPE_COUNT) {
            return error_set(l->err, STATUS_BAD_MODEL, -1, "%s: token %" PRIu64 " has type %u", key,
                             i, load_u32(l->types + i * 4));
        }
    }
    return STATUS_OK;
}

static enum status add_tokens(struct loader *l)
{
    for (uint64_t i = 0; i < l->n_tokens; i++) {
        enum token_type type = type_of(l, i);
        bool special = type == TYPE_CONTROL || type == TYPE_UNKNOWN;
        if ((!special && type != TYPE_USER_DEFINED) || l->tokens[i].len == 0) {
            continue;
        }
        if (l->tokens[i].len > TOK_MAX_ADDED_BYTES) {
            return error_set(l->err, STATUS_BAD_MODEL, -1,
                             "control token %" PRIu64 " has %zu bytes (at most %u)", i,
                             l->tokens[i].len, TOK_MAX_ADDED_BYTES);
        }
        struct tok_added a = {.text = l->t->vocab.tokens[i].text,
                              .len = (uint32_t)l->tokens[i].len,
                              .id = (int32_t)i,
                              .special = special};
        enum status st = tok_add_token(l->t, &a, l->err);
        if (st != STATUS_OK) {
            return st;
        }
    }
    return STATUS_OK;
}

static enum status read_affixes(struct loader *l, bool add_bos, int32_t bos, int32_t eos)
{
    struct tokenizer *t = l->t;
    bool add_eos = false;
    enum status st = get_bool(l, "tokenizer.ggml.add_bos_token", add_bos, &add_bos);
    if (st == STATUS_OK) {
        st = get_bool(l, "tokenizer.ggml.add_eos_token", false, &add_eos);
    }
    if (st == STATUS_OK) {
        st = get_id(l, "tokenizer.ggml.bos_token_id", bos, &bos);
    }
    if (st == STATUS_OK) {
        st = get_id(l, "tokenizer.ggml.eos_token_id", eos, &eos);
    }
    if (st != STATUS_OK) {
        return st;
    }
    if ((add_bos && bos < 0) || (add_eos && eos < 0)) {
        return error_set(l->err, STATUS_BAD_MODEL, -1,
                         "the file wants a %s token, but tokenizer.ggml.%s_token_id is missing",
                         add_bos && bos < 0 ? "bos" : "eos", add_bos && bos < 0 ? "bos" : "eos");
    }
    if (add_bos) {
        t->before[t->n_before++] = bos;
    }
    if (add_eos) {
        t->after[t->n_after++] = eos;
    }
    return STATUS_OK;
}

/* --- gpt2 ------------------------------------------------------------------------------------- */

static enum status find_pre(struct loader *l)
{
    static const char key[] = "tokenizer.ggml.pre";
    struct gguf_string name = {"(missing)", 9};
    struct error e = ERROR_INIT;
    enum status st = gguf_get_string(l->g, key, &name, &e);
    if (st != STATUS_OK && st != STATUS_NOT_FOUND) {
        return error_set(l->err, st, e.position, "%s", e.message);
    }
    for (size_t i = 0; i < sizeof pres / sizeof pres[0]; i++) {
        if (strlen(pres[i].name) == name.len && memcmp(pres[i].name, name.text, name.len) == 0) {
            l->pre = &pres[i];
            return STATUS_OK;
        }
    }
    return error_set(l->err, STATUS_UNSUPPORTED, -1,
                     "pre-tokenizer \"%.*s\" (%s) is not supported; known: gpt-2, smollm, "
                     "llama-bpe; a tokenizer.json beside the weights serves too",
                     (int)(name.len < 64 ? name.len : 64), name.text, key);
}

static enum status read_merges(struct loader *l)
{
    static const char key[] = "tokenizer.ggml.merges";
    const struct gguf_string *merges = NULL;
    uint64_t n = 0;
    enum status st = gguf_get_strings(l->g, key, &merges, &n, l->err);
    if (st == STATUS_NOT_FOUND) {
        return error_set(l->err, STATUS_BAD_MODEL, -1, "key %s is missing", key);
    }
    if (st != STATUS_OK) {
        return st;
    }
    if (n > TOK_MAX_MERGES) {
        return error_set(l->err, STATUS_BAD_MODEL, -1, "%s has %" PRIu64 " entries (at most %u)",
                         key, n, TOK_MAX_MERGES);
    }
    st = tok_merges_begin(&l->t->merges, (uint32_t)n, l->err);
    for (uint32_t i = 0; i < n && st == STATUS_OK; i++) {
        struct tok_token pair[2];
        st = tok_split_merge(merges[i].text, merges[i].len, i, pair, l->err);
        if (st == STATUS_OK) {
            st = tok_merges_add(&l->t->merges, &l->t->vocab, i, pair, 0, l->err);
        }
    }
    return st;
}

static enum status load_gpt2(struct loader *l)
{
    enum status st = find_pre(l);
    if (st == STATUS_OK) {
        st = read_merges(l);
    }
    if (st == STATUS_OK && l->pre->first != NULL) {
        st = tok_add_split(l->t, l->pre->first, TOK_SPLIT_ISOLATED, l->err);
    }
    if (st == STATUS_OK) {
        st = tok_add_byte_level(l->t, l->pre->gpt2_split, l->err);
    }
    if (st == STATUS_OK) {
        l->t->ignore_merges = l->pre->ignore_merges;
        st = read_affixes(l, l->pre->add_bos, -1, -1);
    }
    return st;
}

/* --- llama ------------------------------------------------------------------------------------ */

struct scored {
    float score;
    uint32_t id;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a;
    const struct scored *y = b;
    return (x->score < y->score) - (x->score > y->score);
}

/* Scores become ranks, so that both engines compare integers; equal scores share a rank. */
static enum status read_scores(struct loader *l)
{
    static const char key[] = "tokenizer.ggml.scores";
    const void *data = NULL;
    uint64_t count = 0;
    enum status st = gguf_get_array(l->g, key, GGUF_F32, &data, &count, l->err);
    if (st == STATUS_NOT_FOUND || (st == STATUS_OK && count != l->n_tokens)) {
        return error_set(l->err, STATUS_BAD_MODEL, -1,
                         "%s must have one score for each of the %" PRIu64 " tokens", key,
                         l->n_tokens);
    }
    if (st != STATUS_OK) {
        return st;
    }
    struct scored *order = mem_alloc(count, sizeof *order);
    l->t->score_ranks = mem_alloc(count, sizeof *l->t->score_ranks);
    if (order == NULL || l->t->score_ranks == NULL) {
        mem_free(order);
        return tok_no_memory(l->err);
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits = load_u32((const unsigned char *)data + (size_t)i * 4);
        memcpy(&order[i].score, &bits, sizeof bits);
        order[i].id = i;
        if (!isfinite(order[i].score)) {
            st = error_set(l->err, STATUS_BAD_MODEL, -1, "%s: the score of token %u is not finite",
                           key, i);
        }
    }
    if (st == STATUS_OK) {
        qsort(order, count, sizeof *order, by_score);
        uint32_t rank = 0;
        for (uint32_t i = 0; i < count; i++) {
            rank += i > 0 && order[i].score < order[i - 1].score;
            l->t->score_ranks[order[i].id] = rank;
        }
    }
    mem_free(order);
    return st;
}

static enum status check_byte_tokens(const struct loader *l)
{
    for (uint64_t i = 0; i < l->n_tokens; i++) {
        if (type_of(l, i) == TYPE_BYTE && tok_byte_of(l->tokens[i].text, l->tokens[i].len) < 0) {
            return error_set(l->err, STATUS_BAD_MODEL, -1,
                             "token %" PRIu64 " is of type byte, but \"%.*s\" is not <0xNN>", i,
                             (int)(l->tokens[i].len < 32 ? l->tokens[i].len : 32),
                             l->tokens[i].text);
        }
    }
    return STATUS_OK;
}

/* U+2581 for spaces, one in front of every stretch of text, and back again. */
static enum status add_metaspace(struct tokenizer *t, bool prefix, struct error *err)
{
    static const char mark[] = "\xE2\x96\x81";
    if (prefix) {
        t->norms[t->n_norms++] =
            (struct tok_norm){.kind = TOK_NORM_PREPEND, .content = mark, .len = 3};
        t->strip_what[0] = ' ';
        t->strip_len = 1;
        t->strip_start = 1;
    }
    struct tok_norm *spaces = &t->norms[t->n_norms++];
    *spaces = (struct tok_norm){.kind = TOK_NORM_REPLACE, .content = mark, .len = 3};
    struct tok_decode *back = &t->decodes[t->n_decodes++];
    *back = (struct tok_decode){.kind = TOK_DECODE_REPLACE, .content = " ", .len = 1};
    t->decodes[t->n_decodes++] = (struct tok_decode){.kind = TOK_DECODE_BYTE_FALLBACK};
    enum status st = tok_regex_compile(" ", 1, true, &spaces->regex, err);
    return st == STATUS_OK ? tok_regex_compile(mark, 3, true, &back->regex, err) : st;
}

static enum status load_llama(struct loader *l)
{
    bool prefix = true;
    l->t->engine = TOK_ENGINE_SPM;
    enum status st = read_scores(l);
    if (st == STATUS_OK) {
        st = check_byte_tokens(l);
    }
    if (st == STATUS_OK) {
        st = get_bool(l, "tokenizer.ggml.add_space_prefix", true, &prefix);
    }
    if (st == STATUS_OK) {
        st = get_id(l, "tokenizer.ggml.unknown_token_id", -1, &l->t->unk_id);
    }
    if (st == STATUS_OK) {
        st = add_metaspace(l->t, prefix, l->err);
    }
    return st == STATUS_OK
               ? read_affixes(l, true, l->n_tokens > 1 ? 1 : -1, l->n_tokens > 2 ? 2 : -1)
               : st;
}

/* --- both ------------------------------------------------------------------------------------- */

static enum status load_kind(struct loader *l)
{
    static const char key[] = "tokenizer.ggml.model";
    struct gguf_string kind = {"(missing)", 9};
    struct error e = ERROR_INIT;
    enum status st = gguf_get_string(l->g, key, &kind, &e);
    if (st != STATUS_OK && st != STATUS_NOT_FOUND) {
        return error_set(l->err, st, e.position, "%s", e.message);
    }
    bool gpt2 = kind.len == 4 && memcmp(kind.text, "gpt2", 4) == 0;
    bool llama = kind.len == 5 && memcmp(kind.text, "llama", 5) == 0;
    if (!gpt2 && !llama) {
        return error_set(l->err, STATUS_UNSUPPORTED, -1,
                         "a tokenizer of kind \"%.*s\" (%s) is not supported; known: gpt2, llama",
                         (int)(kind.len < 64 ? kind.len : 64), kind.text, key);
    }
    st = read_tokens(l);
    if (st == STATUS_OK) {
        st = read_types(l);
    }
    if (st == STATUS_OK) {
        st = gpt2 ? load_gpt2(l) : load_llama(l);
    }
    return st == STATUS_OK ? add_tokens(l) : st;
}

enum status tokenizer_from_gguf(const struct gguf *g, uint32_t n_vocab, struct tokenizer **out,
                                struct error *err)
{
    struct loader l = {.t = tok_new(), .g = g, .err = err};
    enum status st = l.t != NULL ? load_kind(&l) : tok_no_memory(err);
    if (st == STATUS_OK) {
        st = tok_finish(l.t, n_vocab, err);
    }
    if (st != STATUS_OK) {
        error_prefix(err, "%s: ", gguf_path(g));
        tokenizer_close(l.t);
        return st;
    }
    if (l.pre != NULL) {
        snprintf(l.t->description, sizeof l.t->description,
                 "byte-level BPE, %u ids, pre-tokenizer %s", l.t->n_ids, l.pre->name);
    } else {
        snprintf(l.t->description, sizeof l.t->description,
                 "SentencePiece BPE with byte fallback, %u ids", l.t->n_ids);
    }
    *out = l.t;
    return STATUS_OK;
}
