/*
 * tok_json_parts.c - the components of tokenizer.json: normalizer, pre_tokenizer, post_processor,
 * decoder. Sequences are flattened into the steps of struct tokenizer. A component that is not
 * known, or that cannot be honoured, is an error naming it: skipping it would give other ids.
 */
#include <string.h>

#include "base/utf8.h"
#include "model/tok_json.h"

struct parts {
    struct tokenizer *t;
    struct error *err;
    bool fused;     /* decoder: Fuse, or ByteLevel, has joined the tokens */
    bool has_bytes; /* decoder: ByteFallback came */
};

typedef enum status part_fn(struct parts *p, const char *type, const json_t *part);

static enum status unknown_type(struct parts *p, const char *what, const char *type)
{
    return error_set(p->err, STATUS_UNSUPPORTED, -1, "%s of type \"%.64s\" is not supported", what,
                     type);
}

/* Calls fn for a component, or for each member of a Sequence. list: the Sequence's key. */
static enum status each(struct parts *p, const json_t *part, const char *what, const char *list,
                        uint32_t depth, part_fn *fn)
{
    const char *type = NULL;
    size_t len = 0;
    if (part == NULL || json_is_null(part)) {
        return STATUS_OK;
    }
    if (!json_is_object(part)) {
        return tok_json_wrong(what, "an object", part, p->err);
    }
    enum status st = tok_json_string(part, "type", false, &type, &len, p->err);
    if (st != STATUS_OK) {
        error_prefix(p->err, "%s: ", what);
        return st;
    }
    if (strcmp(type, "Sequence") != 0) {
        st = fn(p, type, part);
        if (st != STATUS_OK) {
            error_prefix(p->err, "%s %.64s: ", what, type);
        }
        return st;
    }
    const json_t *members = json_object_get(part, list);
    if (!json_is_array(members)) {
        return tok_json_wrong(list, "an array", members, p->err);
    }
    if (depth >= TOK_MAX_NESTING) {
        return error_set(p->err, STATUS_BAD_MODEL, -1, "%s: Sequences nested more than %u deep",
                         what, TOK_MAX_NESTING);
    }
    for (size_t i = 0; i < json_array_size(members); i++) {
        st = each(p, json_array_get(members, i), what, list, depth + 1, fn);
        if (st != STATUS_OK) {
            return st;
        }
    }
    return STATUS_OK;
}

static enum status room(struct parts *p, uint32_t n)
{
    return n < TOK_MAX_STEPS
               ? STATUS_OK
               : error_set(p->err, STATUS_BAD_MODEL, -1, "more than %u steps", TOK_MAX_STEPS);
}

/* {"String": "..."} or {"Regex": "..."}. */
static enum status pattern(struct parts *p, const json_t *part, struct tok_regex *out)
{
    const json_t *pat = json_object_get(part, "pattern");
    const json_t *text = json_object_get(pat, "String");
    bool literal = text != NULL;
    if (text == NULL) {
        text = json_object_get(pat, "Regex");
    }
    if (!json_is_string(text) || json_object_size(pat) != 1) {
        return tok_json_wrong("pattern", "{\"String\": ...} or {\"Regex\": ...}", pat, p->err);
    }
    return tok_regex_compile(json_string_value(text), json_string_length(text), literal, out,
                             p->err);
}

/* A string of exactly one character. */
static enum status one_char(struct parts *p, const json_t *part, const char *key, char out[4],
                            uint32_t *len)
{
    const char *text = NULL;
    size_t n = 0;
    enum status st = tok_json_string(part, key, false, &text, &n, p->err);
    if (st != STATUS_OK) {
        return st;
    }
    if (n == 0 || utf8_sequence(text, n) != n) {
        return error_set(p->err, STATUS_BAD_MODEL, -1, "key \"%s\" must be one character", key);
    }
    memcpy(out, text, n);
    *len = (uint32_t)n;
    return STATUS_OK;
}

static enum status content(struct parts *p, const json_t *part, const char *key, const char **out,
                           uint32_t *out_len)
{
    const char *text = NULL;
    size_t len = 0;
    enum status st = tok_json_string(part, key, false, &text, &len, p->err);
    return st == STATUS_OK ? tok_json_keep(p->t, text, len, out, out_len, p->err) : st;
}

/* --- normalizer ------------------------------------------------------------------------------- */

static enum status add_normalizer(struct parts *p, const char *type, const json_t *part)
{
    static const struct {
        const char *type;
        enum tok_norm_kind kind;
    } kinds[] = {
        {"Prepend", TOK_NORM_PREPEND},
        {"Replace", TOK_NORM_REPLACE},
        {"NFC", TOK_NORM_NFC},
        {"NFD", TOK_NORM_NFD},
        {"NFKC", TOK_NORM_NFKC},
        {"NFKD", TOK_NORM_NFKD},
        {"Lowercase", TOK_NORM_LOWERCASE},
        {"Strip", TOK_NORM_STRIP},
        {"ByteLevel", TOK_NORM_BYTE_LEVEL},
    };
    size_t i = 0;
    while (i < sizeof kinds / sizeof kinds[0] && strcmp(kinds[i].type, type) != 0) {
        i++;
    }
    if (i == sizeof kinds / sizeof kinds[0]) {
        return unknown_type(p, "a normalizer", type);
    }
    enum status st = room(p, p->t->n_norms);
    if (st != STATUS_OK) {
        return st;
    }
    struct tok_norm *norm = &p->t->norms[p->t->n_norms++];
    norm->kind = kinds[i].kind;
    switch (norm->kind) {
    case TOK_NORM_PREPEND:
        return content(p, part, "prepend", &norm->content, &norm->len);
    case TOK_NORM_REPLACE:
        st = pattern(p, part, &norm->regex);
        return st == STATUS_OK ? content(p, part, "content", &norm->content, &norm->len) : st;
    case TOK_NORM_STRIP:
        st = tok_json_bool(part, "strip_left", true, &norm->left, p->err);
        return st == STATUS_OK ? tok_json_bool(part, "strip_right", true, &norm->right, p->err)
                               : st;
    default:
        return STATUS_OK;
    }
}

/* --- pre_tokenizer ---------------------------------------------------------------------------- */

static enum status behavior(struct parts *p, const json_t *part, bool may_lack,
                            enum tok_split_behavior *out)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *text = NULL;
    size_t len = 0;
    enum status st = tok_json_string(part, "behavior", may_lack, &text, &len, p->err);
    if (st != STATUS_OK || text == NULL) {
        return st;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum tok_split_behavior)i;
            return STATUS_OK;
        }
    }
    return error_set(p->err, STATUS_UNSUPPORTED, -1, "behavior \"%.64s\" is not supported", text);
}

static enum status read_metaspace(struct parts *p, const json_t *part, struct tok_pretok *step)
{
    static const char *const schemes[] = {"always", "first", "never"};
    const char *scheme = NULL;
    size_t len = 0;
    bool prefix = true;
    step->behavior = TOK_SPLIT_MERGED_WITH_NEXT;
    enum status st = one_char(p, part, "replacement", step->replacement, &step->replacement_len);
    if (st == STATUS_OK) {
        st = tok_json_string(part, "prepend_scheme", true, &scheme, &len, p->err);
    }
    if (st == STATUS_OK) {
        st = tok_json_bool(part, "add_prefix_space", true, &prefix, p->err);
    }
    if (st == STATUS_OK) {
        st = tok_json_bool(part, "split", true, &step->split, p->err);
    }
    if (st != STATUS_OK) {
        return st;
    }
    size_t i = 0;
    while (scheme != NULL && i < 3 && strcmp(schemes[i], scheme) != 0) {
        i++;
    }
    if (i == 3) {
        return error_set(p->err, STATUS_UNSUPPORTED, -1, "prepend_scheme \"%.64s\" is unknown",
                         scheme);
    }
    step->prepend = (enum tok_prepend)i;
    if (!prefix && scheme != NULL && step->prepend != TOK_PREPEND_NEVER) {
        return error_set(p->err, STATUS_BAD_MODEL, -1,
                         "add_prefix_space does not match prepend_scheme");
    }
    if (!prefix) {
        step->prepend = TOK_PREPEND_NEVER;
    }
    return step->split ? tok_regex_compile(step->replacement, step->replacement_len, true,
                                           &step->regex, p->err)
                       : STATUS_OK;
}

static enum status read_byte_level(struct parts *p, const json_t *part, struct tok_pretok *step)
{
    step->kind = TOK_PRETOK_BYTE_LEVEL;
    step->behavior = TOK_SPLIT_ISOLATED;
    enum status st = tok_json_bool(part, "add_prefix_space", true, &step->add_prefix_space, p->err);
    if (st == STATUS_OK) {
        st = tok_json_bool(part, "use_regex", true, &step->split, p->err);
    }
    if (st == STATUS_OK && step->split) {
        st = tok_regex_compile(TOK_GPT2_PATTERN, strlen(TOK_GPT2_PATTERN), false, &step->regex,
                               p->err);
    }
    return st;
}

/* Whitespace is the one split that runs on Rust's regex engine: \w as UTS 18 has it. */
#define RUST_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"

/* Character classes of the library's fixed splits, as regexes. */
static enum status read_fixed(struct parts *p, const char *type, const json_t *part,
                              struct tok_pretok *step, bool *known)
{
    const char *source = NULL;
    enum status st = STATUS_OK;
    *known = true;
    if (strcmp(type, "Digits") == 0) {
        bool individual = false;
        st = tok_json_bool(part, "individual_digits", false, &individual, p->err);
        step->behavior = individual ? TOK_SPLIT_ISOLATED : TOK_SPLIT_CONTIGUOUS;
        source = "\\p{N}";
    } else if (strcmp(type, "Whitespace") == 0) {
        step->behavior = TOK_SPLIT_REMOVED;
        step->invert = true;
        source = "[" RUST_WORD "]+|[^" RUST_WORD "\\s]+";
    } else if (strcmp(type, "WhitespaceSplit") == 0) {
        step->behavior = TOK_SPLIT_REMOVED;
        source = "\\s";
    } else if (strcmp(type, "Punctuation") == 0) {
        step->behavior = TOK_SPLIT_ISOLATED;
        st = behavior(p, part, true, &step->behavior);
        source = "[\\p{P}!-\\/:-@\\[-`{-~]";
    } else {
        *known = false;
        return STATUS_OK;
    }
    return st == STATUS_OK ? tok_regex_compile(source, strlen(source), false, &step->regex, p->err)
                           : st;
}

static enum status add_pretokenizer(struct parts *p, const char *type, const json_t *part)
{
    enum status st = room(p, p->t->n_pretoks);
    if (st != STATUS_OK) {
        return st;
    }
    struct tok_pretok *step = &p->t->pretoks[p->t->n_pretoks++];
    step->kind = TOK_PRETOK_SPLIT;
    if (strcmp(type, "ByteLevel") == 0) {
        return read_byte_level(p, part, step);
    }
    if (strcmp(type, "Metaspace") == 0) {
        step->kind = TOK_PRETOK_METASPACE;
        return read_metaspace(p, part, step);
    }
    if (strcmp(type, "Split") == 0) {
        st = behavior(p, part, false, &step->behavior);
        if (st == STATUS_OK) {
            st = tok_json_bool(part, "invert", false, &step->invert, p->err);
        }
        return st == STATUS_OK ? pattern(p, part, &step->regex) : st;
    }
    bool known = false;
    st = read_fixed(p, type, part, step, &known);
    return known ? st : unknown_type(p, "a pre_tokenizer", type);
}

/* --- post_processor --------------------------------------------------------------------------- */

static enum status add_affix(struct parts *p, bool before, uint32_t id)
{
    struct tokenizer *t = p->t;
    uint32_t *n = before ? &t->n_before : &t->n_after;
    if (*n >= TOK_MAX_AFFIX_IDS) {
        return error_set(p->err, STATUS_BAD_MODEL, -1, "more than %u ids on one side",
                         TOK_MAX_AFFIX_IDS);
    }
    (before ? t->before : t->after)[(*n)++] = (int32_t)id;
    return STATUS_OK;
}

/* {"SpecialToken": {"id": name}}: its ids stand in special_tokens[name].ids. */
static enum status template_special(struct parts *p, const json_t *special, const json_t *table,
                                    bool before)
{
    const char *name = NULL;
    size_t len = 0;
    enum status st = tok_json_string(special, "id", false, &name, &len, p->err);
    if (st != STATUS_OK) {
        return st;
    }
    const json_t *ids = json_object_get(json_object_get(table, name), "ids");
    if (!json_is_array(ids)) {
        return error_set(p->err, STATUS_BAD_MODEL, -1,
                         "special token \"%.64s\" has no ids in \"special_tokens\"", name);
    }
    for (size_t i = 0; i < json_array_size(ids) && st == STATUS_OK; i++) {
        uint32_t id = 0;
        st = tok_json_count(json_array_get(ids, i), "ids", TOK_MAX_IDS - 1, &id, p->err);
        if (st == STATUS_OK) {
            st = add_affix(p, before, id);
        }
    }
    return st;
}

static enum status read_template(struct parts *p, const json_t *part)
{
    const json_t *single = json_object_get(part, "single");
    const json_t *table = json_object_get(part, "special_tokens");
    uint32_t sequences = 0;
    if (!json_is_array(single)) {
        return tok_json_wrong("single", "an array", single, p->err);
    }
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i);
        const json_t *special = json_object_get(piece, "SpecialToken");
        if (json_object_get(piece, "Sequence") != NULL) {
            sequences++;
        } else if (special == NULL) {
            return tok_json_wrong("single[]", "a SpecialToken or a Sequence", piece, p->err);
        } else {
            enum status st = template_special(p, special, table, sequences == 0);
            if (st != STATUS_OK) {
                return st;
            }
        }
    }
    if (sequences != 1) {
        return error_set(p->err, STATUS_UNSUPPORTED, -1,
                         "a template with the text %u times is not supported", sequences);
    }
    return STATUS_OK;
}

/* ["</s>", 2] of RobertaProcessing and BertProcessing. */
static enum status read_pair(struct parts *p, const json_t *part, const char *key, bool before)
{
    const json_t *pair = json_object_get(part, key);
    uint32_t id = 0;
    if (json_array_size(pair) != 2) {
        return tok_json_wrong(key, "a pair of token and id", pair, p->err);
    }
    enum status st = tok_json_count(json_array_get(pair, 1), key, TOK_MAX_IDS - 1, &id, p->err);
    return st == STATUS_OK ? add_affix(p, before, id) : st;
}

static enum status add_postprocessor(struct parts *p, const char *type, const json_t *part)
{
    if (strcmp(type, "ByteLevel") == 0) { /* trims offsets, which we do not give */
        return STATUS_OK;
    }
    if (p->t->n_before + p->t->n_after > 0) {
        return error_set(p->err, STATUS_UNSUPPORTED, -1,
                         "two post-processors that add tokens are not supported");
    }
    if (strcmp(type, "TemplateProcessing") == 0) {
        return read_template(p, part);
    }
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
        enum status st = read_pair(p, part, "cls", true);
        return st == STATUS_OK ? read_pair(p, part, "sep", false) : st;
    }
    return unknown_type(p, "a post_processor", type);
}

/* --- decoder ---------------------------------------------------------------------------------- */

/* Strip {content, start, stop}: on each token, or, after Fuse, on the text as a whole. */
static enum status read_strip(struct parts *p, const json_t *part)
{
    struct tok_decode step = {.kind = TOK_DECODE_STRIP};
    enum status st = one_char(p, part, "content", step.what, &step.what_len);
    if (st == STATUS_OK) {
        st = tok_json_count(json_object_get(part, "start"), "start", UINT16_MAX, &step.start,
                            p->err);
    }
    if (st == STATUS_OK) {
        st = tok_json_count(json_object_get(part, "stop"), "stop", UINT16_MAX, &step.stop, p->err);
    }
    if (st != STATUS_OK) {
        return st;
    }
    if (!p->fused) {
        p->t->decodes[p->t->n_decodes++] = step;
        return STATUS_OK;
    }
    if (step.stop != 0 || p->t->strip_start != 0) {
        return error_set(p->err, STATUS_UNSUPPORTED, -1,
                         "a Strip at the end of the whole text, or a second one at its start, is "
                         "not supported: a stream has no end to look at");
    }
    memcpy(p->t->strip_what, step.what, sizeof step.what);
    p->t->strip_len = step.what_len;
    p->t->strip_start = step.start;
    return STATUS_OK;
}

static enum status read_decoder(struct parts *p, const char *type, const json_t *part)
{
    struct tok_decode *step = &p->t->decodes[p->t->n_decodes];
    enum status st = STATUS_OK;
    if (strcmp(type, "ByteLevel") == 0) {
        step->kind = TOK_DECODE_BYTE_LEVEL;
        p->fused = true;
    } else if (strcmp(type, "ByteFallback") == 0) {
        step->kind = TOK_DECODE_BYTE_FALLBACK;
        p->has_bytes = true;
    } else if (strcmp(type, "Metaspace") == 0) {
        struct tok_pretok m = {0};
        st = read_metaspace(p, part, &m);
        tok_regex_free(&m.regex);
        step->kind = TOK_DECODE_METASPACE;
        memcpy(step->what, m.replacement, sizeof m.replacement);
        step->what_len = m.replacement_len;
        step->drop_first = m.prepend != TOK_PREPEND_NEVER;
    } else if (strcmp(type, "Replace") == 0) {
        step->kind = TOK_DECODE_REPLACE;
        p->t->n_decodes++; /* counted first, so that the regex is freed with the tokenizer */
        st = pattern(p, part, &step->regex);
        return st == STATUS_OK ? content(p, part, "content", &step->content, &step->len) : st;
    } else {
        return unknown_type(p, "a decoder", type);
    }
    p->t->n_decodes++;
    return st;
}

static enum status add_decoder(struct parts *p, const char *type, const json_t *part)
{
    enum status st = room(p, p->t->n_decodes);
    if (st != STATUS_OK) {
        return st;
    }
    if (strcmp(type, "Fuse") == 0) {
        p->fused = true;
        return STATUS_OK;
    }
    bool strip = strcmp(type, "Strip") == 0;
    if ((p->fused && !strip) || (p->has_bytes && !p->fused)) {
        return error_set(p->err, STATUS_UNSUPPORTED, -1, "\"%.64s\" after %s is not supported",
                         type, p->fused ? "the tokens are joined" : "ByteFallback");
    }
    return strip ? read_strip(p, part) : read_decoder(p, type, part);
}

/* --- all of them ------------------------------------------------------------------------------ */

enum status tok_json_parts(struct tokenizer *t, const struct json_t *root, struct error *err)
{
    struct parts p = {.t = t, .err = err};
    const json_t *decoder = json_object_get(root, "decoder");
    enum status st = each(&p, json_object_get(root, "normalizer"), "normalizer", "normalizers", 0,
                          add_normalizer);
    if (st == STATUS_OK) {
        st = each(&p, json_object_get(root, "pre_tokenizer"), "pre_tokenizer", "pretokenizers", 0,
                  add_pretokenizer);
    }
    if (st == STATUS_OK) {
        st = each(&p, json_object_get(root, "post_processor"), "post_processor", "processors", 0,
                  add_postprocessor);
    }
    if (st == STATUS_OK) {
        st = each(&p, decoder, "decoder", "decoders", 0, add_decoder);
    }
    t->join_spaces = decoder == NULL || json_is_null(decoder);
    return st;
}

enum status tok_add_byte_level(struct tokenizer *t, bool split, struct error *err)
{
    struct tok_pretok *step = &t->pretoks[t->n_pretoks++];
    *step = (struct tok_pretok){
        .kind = TOK_PRETOK_BYTE_LEVEL, .behavior = TOK_SPLIT_ISOLATED, .split = split};
    t->decodes[t->n_decodes++] = (struct tok_decode){.kind = TOK_DECODE_BYTE_LEVEL};
    return split ? tok_regex_compile(TOK_GPT2_PATTERN, strlen(TOK_GPT2_PATTERN), false,
                                     &step->regex, err)
                 : STATUS_OK;
}

enum status tok_add_split(struct tokenizer *t, const char *source, enum tok_split_behavior how,
                          struct error *err)
{
    struct tok_pretok *step = &t->pretoks[t->n_pretoks++];
    *step = (struct tok_pretok){.kind = TOK_PRETOK_SPLIT, .behavior = how};
    return tok_regex_compile(source, strlen(source), false, &step->regex, err);
}
