/*
 * tokenizer_int.h - what the tokenizer's files share. Private to src/model/tok*.c.
 *
 *   tok_json.c        tokenizer.json, vocab.json + merges.txt  ┐
 *   tok_json_parts.c  its normalizers, splits, decoders        ├─► struct tokenizer (immutable)
 *   tok_config.c      special tokens by the files beside them  │
 *   tok_gguf.c        the tokenizer inside a GGUF file         ┘
 *   tok_vocab.c     tables: token text -> id, pair of ids -> merge, added tokens in text
 *   tok_regex.c     Oniguruma's dialect on PCRE2
 *   tok_norm.c, tok_pretok.c, tok_bpe.c   the three stages of encoding
 *   tok_decode.c    ids -> text
 *
 * Encoding follows the `tokenizers` library (huggingface/tokenizers, tokenizers/src):
 *
 *   text -> added tokens taken out of the raw text -> each gap normalised -> added tokens taken out
 *   of the normalised gap -> each gap split into words -> each word merged into ids
 *
 * Invariants of a finished struct tokenizer: every id in any table is < n_ids; texts are valid
 * UTF-8 in the arena; regexes are compiled; nothing is written after creation.
 */
#ifndef LLMSCHED_MODEL_TOKENIZER_INT_H
#define LLMSCHED_MODEL_TOKENIZER_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/strbuf.h"
#include "model/tokenizer.h"

/* Limits, each with its reason. Published tokenizers stay far below all of them. */
#define TOK_MAX_IDS           (1u << 22) /* ids; bounds the by-id tables (largest seen: 2^18) */
#define TOK_MAX_MERGES        (1u << 23) /* bounds the merge table (largest seen: 2^19) */
#define TOK_MAX_FILE_BYTES    ((size_t)256 << 20) /* tokenizer.json, merges.txt (largest: 35 MB) */
#define TOK_MAX_TOKEN_BYTES   ((size_t)64 << 10)  /* one token; sums of two lengths stay small */
#define TOK_MAX_ADDED_BYTES   1024u               /* matching costs text bytes x this at worst */
#define TOK_MAX_ADDED         (1u << 18)          /* added tokens */
#define TOK_MAX_STEPS         64u                 /* flattened components of one kind */
#define TOK_MAX_NESTING       16u                 /* Sequence inside Sequence; bounds recursion */
#define TOK_MAX_PATTERN_BYTES ((size_t)16 << 10)  /* one regex; PCRE2's own limit is higher */
#define TOK_MAX_AFFIX_IDS     64u                 /* ids a post-processor puts on one side */
/* Rewriting may make a text longer by this factor (byte alphabet 2, NFKC 11, a prefix per gap a
 * little): without it a few Replace steps in a hostile file would double a text until memory ends.
 */
#define TOK_MAX_GROWTH       64u
#define TOK_GROWTH_FLOOR     ((size_t)64 << 10)  /* short texts may grow to this anyway */
#define TOK_MAX_PIECES_BYTES ((size_t)256 << 20) /* decoded texts of all ids together */
#define TOK_MAX_TEXT_BYTES                                                                         \
    ((size_t)1 << 30) /* text, and each rewriting of it: symbols are                               \
                         counted in 31 bits */

struct tok_token {
    const char *text; /* NULL: a hole in the ids */
    uint32_t len;
};

/* The model's own vocabulary. Added tokens are kept apart: the merge engine must not see them. */
struct tok_vocab {
    struct tok_token *tokens; /* by id; n_ids of them */
    uint32_t n_ids;           /* highest id + 1 */
    uint32_t count;           /* tokens that exist */
    int32_t *slots;           /* open addressing: id + 1, 0 empty */
    size_t mask;
};

struct tok_merge {
    uint64_t pair;       /* left id << 32 | right id */
    uint32_t rank;       /* lower merges first */
    int32_t id_plus_one; /* 0: empty slot */
};

struct tok_merges {
    struct tok_merge *slots;
    size_t mask;
    uint32_t count;
};

struct tok_added {
    const char *text;    /* as written in the file */
    const char *pattern; /* what is looked for: the text, or its normalised form */
    uint32_t len;
    uint32_t pattern_len;
    int32_t id;
    bool special;     /* left out of decoded text */
    bool single_word; /* only between non-word characters */
    bool lstrip;      /* takes the white space before it along */
    bool rstrip;
    bool normalized; /* looked for in normalised text */
};

/* Leftmost-longest look-up of many texts at once. */
struct tok_matcher {
    const struct tok_added **sorted; /* by pattern bytes */
    uint32_t n;
    bool starts[256]; /* first bytes */
};

struct tok_regex {
    void *code; /* pcre2_code; void so that pcre2.h stays in tok_regex.c */
};

enum tok_norm_kind {
    TOK_NORM_PREPEND,
    TOK_NORM_REPLACE,
    TOK_NORM_NFC,
    TOK_NORM_NFD,
    TOK_NORM_NFKC,
    TOK_NORM_NFKD,
    TOK_NORM_LOWERCASE,
    TOK_NORM_STRIP,
    TOK_NORM_BYTE_LEVEL
};

struct tok_norm {
    enum tok_norm_kind kind;
    struct tok_regex regex; /* REPLACE */
    const char *content;    /* PREPEND, REPLACE */
    uint32_t len;
    bool left; /* STRIP */
    bool right;
};

enum tok_split_behavior {
    TOK_SPLIT_REMOVED,
    TOK_SPLIT_ISOLATED,
    TOK_SPLIT_MERGED_WITH_PREVIOUS,
    TOK_SPLIT_MERGED_WITH_NEXT,
    TOK_SPLIT_CONTIGUOUS
};

enum tok_pretok_kind { TOK_PRETOK_SPLIT, TOK_PRETOK_BYTE_LEVEL, TOK_PRETOK_METASPACE };
enum tok_prepend { TOK_PREPEND_ALWAYS, TOK_PREPEND_FIRST, TOK_PREPEND_NEVER };

struct tok_pretok {
    enum tok_pretok_kind kind;
    struct tok_regex regex; /* SPLIT; BYTE_LEVEL when split; METASPACE when split */
    enum tok_split_behavior behavior;
    bool invert;
    bool add_prefix_space;    /* BYTE_LEVEL */
    bool split;               /* BYTE_LEVEL use_regex, METASPACE split */
    enum tok_prepend prepend; /* METASPACE */
    char replacement[4];
    uint32_t replacement_len;
};

enum tok_engine { TOK_ENGINE_BPE, TOK_ENGINE_SPM, TOK_ENGINE_BYTES };

#define TOK_BYTE_COUNT 256 /* ids of TOK_ENGINE_BYTES that stand for text */

/* What an id adds to the text, before the UTF-8 repair of the stream. */
struct tok_piece {
    const char *text;
    uint32_t len;
    bool special;
    bool present;
};

enum tok_decode_kind {
    TOK_DECODE_REPLACE,
    TOK_DECODE_BYTE_FALLBACK,
    TOK_DECODE_BYTE_LEVEL,
    TOK_DECODE_METASPACE,
    TOK_DECODE_STRIP
};

/* One decoder step on a single token's text. What follows Fuse acts on the stream instead. */
struct tok_decode {
    enum tok_decode_kind kind;
    struct tok_regex regex; /* REPLACE */
    const char *content;    /* REPLACE */
    uint32_t len;
    char what[4]; /* METASPACE replacement, STRIP content */
    uint32_t what_len;
    bool drop_first; /* METASPACE: the first token loses its replacement characters */
    uint32_t start;  /* STRIP: most characters taken at the start, at the end */
    uint32_t stop;
};

struct tokenizer {
    struct arena arena;
    enum tok_engine engine;
    struct tok_vocab vocab;
    struct tok_merges merges;
    uint32_t *score_ranks; /* SPM: by id, 0 = best score */
    int32_t byte_ids[256]; /* tokens <0xNN>, or -1 */
    int32_t unk_id;        /* -1: none */
    bool byte_fallback;
    bool fuse_unk;
    bool ignore_merges;      /* a word that is a token as a whole is not merged */
    const char *word_prefix; /* continuing_subword_prefix, "" none */
    const char *word_suffix; /* end_of_word_suffix */
    uint32_t word_prefix_len;
    uint32_t word_suffix_len;

    struct tok_added *added;
    uint32_t n_added;
    struct tok_matcher raw;        /* added tokens looked for before normalisation */
    struct tok_matcher normalized; /* and after */

    struct tok_norm norms[TOK_MAX_STEPS];
    uint32_t n_norms;
    struct tok_pretok pretoks[TOK_MAX_STEPS];
    uint32_t n_pretoks;

    int32_t before[TOK_MAX_AFFIX_IDS]; /* the post-processor's ids */
    int32_t after[TOK_MAX_AFFIX_IDS];
    uint32_t n_before;
    uint32_t n_after;

    struct tok_decode decodes[TOK_MAX_STEPS];
    uint32_t n_decodes;
    bool join_spaces;   /* no decoder: tokens joined by spaces, as the library does */
    char strip_what[4]; /* Strip after Fuse: at the start of the whole text */
    uint32_t strip_len;
    uint32_t strip_start;
    struct tok_piece *pieces;       /* by id */
    struct tok_piece *first_pieces; /* as first token; NULL: no difference */
    uint32_t n_ids;
    char description[160];
};

/* A list of byte ranges of one text. */
struct tok_span {
    uint32_t start;
    uint32_t len;
};
struct tok_spans {
    struct tok_span *items;
    size_t n;
    size_t capacity;
};
enum status tok_spans_push(struct tok_spans *s, size_t start, size_t len) MUST_USE;

struct tok_symbol {
    int32_t id;
    int32_t prev;
    int32_t next;
    uint32_t start;
    uint32_t len; /* 0: merged away */
};

struct tok_candidate {
    uint64_t order; /* rank << 32 | position: the smallest merges next */
    int32_t id;
};

/* The state of one encode call: its stages never allocate twice for the same purpose. */
struct tok_scratch {
    size_t text_limit; /* bytes of any rewriting of the text */
    void *match_data;  /* pcre2; made at the first regex */
    void *match_context;
    void *jit_stack;
    struct strbuf normal[2]; /* normalising: from one to the other */
    struct strbuf words[2];  /* splitting */
    struct tok_spans spans[2];
    uint32_t *scalars; /* Unicode normalisation */
    size_t scalars_capacity;
    struct tok_symbol *symbols;
    size_t symbols_capacity;
    struct tok_candidate *heap;
    size_t heap_n;
    size_t heap_capacity;
};
void tok_scratch_deinit(struct tok_scratch *s);

/* Grows *items to hold n elements; what it held stays. */
enum status tok_grow(void **items, size_t *capacity, size_t n, size_t size) MUST_USE;
/* Inline, with the constant returned, so that static analysis sees that it is never OK. */
static inline enum status tok_no_memory(struct error *err)
{
    (void)error_set(err, STATUS_NO_MEMORY, -1, "out of memory in the tokenizer");
    return STATUS_NO_MEMORY;
}
/* Sets how long the rewritings of a text of len bytes may become. */
void tok_scratch_limit(struct tok_scratch *s, size_t len);
/* NO_MEMORY, or BAD_DATA (longer than the limit), when b is not fit for use. */
enum status tok_check_text(const struct tok_scratch *s, const struct strbuf *b,
                           struct error *err) MUST_USE;

/* --- tok_vocab.c ------------------------------------------------------------------------- */

/* Room for `count` tokens with ids below n_ids; then one add per token, any order. Errors of add:
 * BAD_MODEL (id given twice, text given twice, empty), NO_MEMORY. The text is copied. */
enum status tok_vocab_begin(struct tok_vocab *v, uint32_t n_ids, uint32_t count,
                            struct error *err) MUST_USE;
enum status tok_vocab_add(struct tok_vocab *v, struct arena *arena, uint32_t id, const char *text,
                          size_t len, struct error *err) MUST_USE;
int32_t tok_vocab_find(const struct tok_vocab *v, const char *text, size_t len);
void tok_vocab_deinit(struct tok_vocab *v);

enum status tok_merges_begin(struct tok_merges *m, uint32_t count, struct error *err) MUST_USE;
/* Both parts and the result must be tokens; a pair given twice is BAD_MODEL. skip: bytes of the
 * right part that the result leaves out (continuing_subword_prefix). */
enum status tok_merges_add(struct tok_merges *m, const struct tok_vocab *v, uint32_t rank,
                           const struct tok_token pair[2], uint32_t skip,
                           struct error *err) MUST_USE;
/* "left right" with exactly one space; the parts are borrowed. */
enum status tok_split_merge(const char *text, size_t len, uint32_t rank, struct tok_token pair[2],
                            struct error *err) MUST_USE;
const struct tok_merge *tok_merges_find(const struct tok_merges *m, int32_t left, int32_t right);
void tok_merges_deinit(struct tok_merges *m);

/* Byte tokens and, when every table of the model stands, the added tokens' matchers, the decoded
 * pieces and n_ids. The last step of every loader. */
enum status tok_finish(struct tokenizer *t, uint32_t n_vocab, struct error *err) MUST_USE;
/* The byte of a token text `<0xNN>` (two hex digits, either case), or -1. */
int tok_byte_of(const char *text, size_t len);
/* One added token; the id must be free or carry the same text. Its matcher is made by finish. */
enum status tok_add_token(struct tokenizer *t, const struct tok_added *token,
                          struct error *err) MUST_USE;
/* Longest pattern at text, or NULL. */
const struct tok_added *tok_matcher_at(const struct tok_matcher *m, const char *text, size_t len);

/* --- tok_regex.c ------------------------------------------------------------------------- */

/* Oniguruma's dialect (the library's regex engine) as far as it means the same here; what could
 * mean something else is UNSUPPORTED and named. literal: match the bytes as they are. */
enum status tok_regex_compile(const char *pattern, size_t len, bool literal, struct tok_regex *out,
                              struct error *err) MUST_USE;
void tok_regex_free(struct tok_regex *r);

/* Walks the matches in text, which must be valid UTF-8. Start with {0}. */
struct tok_matches {
    size_t next;     /* where to look next */
    size_t last_end; /* end of the last match; valid when any */
    bool any;
};
/* *found false: no more. Errors: BAD_DATA (a match limit), NO_MEMORY. */
enum status tok_regex_next(const struct tok_regex *r, struct tok_scratch *s, const char *text,
                           size_t len, struct tok_matches *m, bool *found, size_t *start,
                           size_t *end, struct error *err) MUST_USE;
/* Appends text with every match replaced. */
enum status tok_regex_replace(const struct tok_regex *r, struct tok_scratch *s, const char *text,
                              size_t len, const char *content, size_t content_len,
                              struct strbuf *out, struct error *err) MUST_USE;
void tok_regex_scratch_free(struct tok_scratch *s);

/* --- tok_norm.c -------------------------------------------------------------------------- */

/* Runs all normalizers; *out (borrowed from text or s) is valid until the next call with s. */
enum status tok_normalize(const struct tokenizer *t, struct tok_scratch *s, const char *text,
                          size_t len, struct tok_token *out, struct error *err) MUST_USE;
/* Unicode White_Space; word characters as `\w` of Unicode's UTS 18. */
bool tok_is_space(uint32_t c);
bool tok_is_word(uint32_t c);
/* Byte-level alphabet of GPT-2: the character of a byte, the byte of a character (-1: none). */
uint32_t tok_byte_to_char(unsigned char b);
int tok_char_to_byte(uint32_t c);
void tok_append_byte_chars(struct strbuf *out, const char *text, size_t len);

/* --- tok_pretok.c ------------------------------------------------------------------------ */

#define TOK_GPT2_PATTERN                                                                           \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Splits into words: *words are ranges of *text (both borrowed from s or the input). first: the
 * text stands at the very start of the input. */
enum status tok_pretokenize(const struct tokenizer *t, struct tok_scratch *s, const char *text,
                            size_t len, bool first, const char **words_text,
                            const struct tok_spans **words, struct error *err) MUST_USE;

/* --- tok_bpe.c --------------------------------------------------------------------------- */

/* Appends the ids of one word. O(n log n). */
enum status tok_bpe_word(const struct tokenizer *t, struct tok_scratch *s, const char *word,
                         size_t len, struct token_ids *out, struct error *err) MUST_USE;
enum status tok_push_id(struct token_ids *out, int32_t id, struct error *err) MUST_USE;

/* --- tok_decode.c ------------------------------------------------------------------------ */

/* The decoded text of every id, made once. */
enum status tok_make_pieces(struct tokenizer *t, struct error *err) MUST_USE;

/* --- loaders ----------------------------------------------------------------------------- */

struct json_t;

/* Reads normalizer, pre_tokenizer, post_processor and decoder of a parsed tokenizer.json. */
enum status tok_json_parts(struct tokenizer *t, const struct json_t *root,
                           struct error *err) MUST_USE;
/* Fill an empty tokenizer from files; errors name the path. */
enum status tok_load_json(struct tokenizer *t, const char *text, size_t len, const char *path,
                          struct error *err) MUST_USE;
enum status tok_load_vocab_merges(struct tokenizer *t, const char *vocab_path,
                                  const char *merges_path, struct error *err) MUST_USE;
/* tokenizer_config.json and special_tokens_map.json of the folder, where they are. */
enum status tok_apply_config(struct tokenizer *t, const char *folder, struct error *err) MUST_USE;
/* The last step of loading JSON: finishes and hands over t, or closes it when st or that fails. */
enum status tok_deliver(struct tokenizer *t, enum status st, const char *path, uint32_t n_vocab,
                        struct tokenizer **out, struct error *err) MUST_USE;
/* A new tokenizer with its fields at their neutral values. */
struct tokenizer *tok_new(void) MUST_USE;
/* GPT-2's pipeline: ByteLevel with its regex unless split is false, and the ByteLevel decoder. */
enum status tok_add_byte_level(struct tokenizer *t, bool split, struct error *err) MUST_USE;
/* One Split step. */
enum status tok_add_split(struct tokenizer *t, const char *pattern,
                          enum tok_split_behavior behavior, struct error *err) MUST_USE;

#endif
