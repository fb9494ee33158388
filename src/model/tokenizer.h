/*
 * tokenizer.h - text to ids and back, by the model's own files.
 *
 * Kinds: byte-level BPE (GPT-2, SmolLM2, Llama 3), BPE with byte fallback (Llama 2, TinyLlama;
 * SentencePiece scores when it comes from GGUF), and plain bytes for random weights. Every
 * component of tokenizer.json is honoured or refused by name. Input text that is not UTF-8 reads as
 * U+FFFD. Immutable after creation: any number of threads may encode, each with its own scratch
 * inside.
 */
#ifndef LLMSCHED_MODEL_TOKENIZER_H
#define LLMSCHED_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"

struct tokenizer;
struct gguf;

/* A folder: tokenizer.json, else vocab.json + merges.txt, else its single .gguf; or a .gguf file.
 * n_vocab: rows of the embedding, 0 = do not check (ids must stay below it). */
enum status tokenizer_open(const char *path, uint32_t n_vocab, struct tokenizer **out,
                           struct error *err) MUST_USE;
enum status tokenizer_from_json(const char *text, size_t len, const char *path, uint32_t n_vocab,
                                struct tokenizer **out, struct error *err) MUST_USE;
enum status tokenizer_from_vocab_merges(const char *vocab_path, const char *merges_path,
                                        uint32_t n_vocab, struct tokenizer **out,
                                        struct error *err) MUST_USE;
enum status tokenizer_from_gguf(const struct gguf *g, uint32_t n_vocab, struct tokenizer **out,
                                struct error *err) MUST_USE;
/* ids 0..255 are the bytes, others decode as "<id>": --random-weights without a tokenizer at hand.
 * n_vocab >= 256. */
enum status tokenizer_bytes(uint32_t n_vocab, struct tokenizer **out, struct error *err) MUST_USE;
void tokenizer_close(struct tokenizer *t);

/* "byte-level BPE, 49152 ids, pre-tokenizer smollm" */
const char *tokenizer_describe(const struct tokenizer *t);
uint32_t tokenizer_vocab_size(const struct tokenizer *t);
/* The id of a token's exact text, or -1. */
int32_t tokenizer_id_of(const struct tokenizer *t, const char *token, size_t len);

/* Most bytes of text that one token can stand for; 0: no bound is known (the tokenizer's files may
 * make any text short). A text longer than n times that needs more than n tokens. */
size_t tokenizer_max_token_bytes(const struct tokenizer *t);
/* The token as the vocabulary spells it ("\u0120the"), NUL-terminated; NULL: there is none.
 * Borrowed for the tokenizer's life. */
const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *len);
/* Appends what the token adds within a text, special tokens too: maybe not whole characters. */
void tokenizer_append_token(const struct tokenizer *t, int32_t id, struct strbuf *out);

struct token_ids {
    int32_t *ids;
    size_t n;
    size_t capacity;
};
void token_ids_deinit(struct token_ids *ids);

/* Appends the ids of text. add_special: the post-processor's bos/eos as the files say; special
 * token text inside `text` is recognised always (as Transformers does). O(n log n).
 * Errors: NO_MEMORY, BAD_DATA (a regex limit). */
enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t len,
                             bool add_special, struct token_ids *out, struct error *err) MUST_USE;

/*
 * Streaming detokenizer: bytes are held back until a full UTF-8 character stands, so the pieces
 * joined equal the text of all ids at once, and no piece is broken UTF-8. Zero-initialise apart
 * from the tokenizer; detok_end flushes U+FFFD for an unfinished character.
 */
struct detok {
    const struct tokenizer *tokenizer;
    bool keep_special;      /* print special tokens too */
    bool started;           /* private */
    unsigned char held[64]; /* private */
    uint32_t n_held;
    bool in_text;        /* private: a character was given out */
    uint32_t n_stripped; /* private: characters dropped before that */
};
void detok_begin(struct detok *d, const struct tokenizer *t, bool keep_special);
void detok_push(struct detok *d, int32_t id, struct strbuf *out);
void detok_end(struct detok *d, struct strbuf *out);

/* All at once; the same text as the stream. */
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool keep_special,
                      struct strbuf *out);

#endif
