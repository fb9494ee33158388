/*
 * api_response.h - the answers of an OpenAI-compatible server, written as JSON into a strbuf.
 *
 * Everything is one line of UTF-8; bytes that are not UTF-8 become U+FFFD. A refused allocation
 * shows in b->failed, which the caller checks once. Streams are framed as server-sent events, each
 * complete in one call. struct api_stream keeps what the order of events depends on, so that a
 * role comes first, a finish_reason exactly once per choice, usage after all choices, [DONE] last.
 */
#ifndef LLMSCHED_NET_API_RESPONSE_H
#define LLMSCHED_NET_API_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "net/api_error.h"
#include "net/api_request.h"

enum api_finish {
    API_FINISH_NONE, /* goes on */
    API_FINISH_STOP,
    API_FINISH_LENGTH,
    API_FINISH_ABORT, /* the server stops, or the request was cancelled */
    API_FINISH_ERROR
};

/* "stop", "length", "abort", "error"; NULL for NONE. */
const char *api_finish_name(enum api_finish f);
enum api_finish api_finish_of(enum finish_reason r);

struct api_usage {
    uint32_t prompt_tokens;
    uint32_t completion_tokens;
    uint32_t cached_tokens; /* of the prompt */
};

struct api_alternative {
    struct api_text text; /* the token's bytes, not necessarily whole characters */
    double logprob;       /* natural logarithm */
};

/* One token with its log-probability. */
struct api_logprob {
    struct api_text text;
    double logprob;
    bool has_logprob;                  /* false: the first token of an echoed prompt */
    const struct api_alternative *top; /* best first */
    uint32_t n_top;
};

/* Why a choice ended, beyond its finish_reason: vLLM's stop_reason. */
enum api_stop_kind { API_STOP_EOS, API_STOP_TEXT, API_STOP_TOKEN };

struct api_choice {
    uint32_t index;       /* prompt index * n + k */
    struct api_text text; /* the new text; with echo it begins with the prompt */
    enum api_finish finish;
    enum api_stop_kind stop_kind;
    struct api_text stop_text; /* API_STOP_TEXT */
    int32_t stop_token;        /* API_STOP_TOKEN */
    bool has_token_ids;        /* of what is new; the prompt's once, else NULL */
    const int32_t *token_ids;
    uint32_t n_token_ids;
    const int32_t *prompt_ids;
    uint32_t n_prompt_ids;
    bool has_logprobs;
    const struct api_logprob *logprobs;
    uint32_t n_logprobs;
    uint32_t text_offset; /* characters of the tokens before `logprobs`; 0 unless streaming */
};

/* What every object of one answer repeats. Owner of the texts: the caller. */
struct api_head {
    enum api_endpoint endpoint; /* API_COMPLETIONS or API_CHAT */
    struct api_text id;         /* "cmpl-..." or "chatcmpl-..." */
    uint64_t created_s;         /* Unix time */
    struct api_text model;
};

/* "cmpl-" or "chatcmpl-" and 32 hexadecimal digits of the two numbers. */
#define API_ID_BYTES 48
void api_make_id(enum api_endpoint endpoint, uint64_t a, uint64_t b, char out[API_ID_BYTES]);

/* A whole answer, not streamed: text_completion or chat.completion. Every choice has finished. */
void api_write_answer(struct strbuf *b, const struct api_head *head,
                      const struct api_choice *choices, uint32_t n_choices,
                      const struct api_usage *usage);

struct api_stream {
    struct api_head head;
    uint32_t n_choices;
    uint32_t n_finished;
    bool include_usage;
    bool continuous;
    bool ended;
    uint8_t state[API_MAX_CHOICES];
};

/* n_choices <= API_MAX_CHOICES; usage flags from r. Texts of head are borrowed until the end. */
void api_stream_init(struct api_stream *s, const struct api_head *head, uint32_t n_choices,
                     const struct api_request *r);

/* Appends the events of new text of one choice: for chat, its role first if this is its first.
 * choice->finish other than NONE ends the choice; nothing may follow for it (asserted). usage so
 * far: written when the client asked for continuous_usage_stats, else may be NULL. */
void api_stream_choice(struct strbuf *b, struct api_stream *s, const struct api_choice *choice,
                       const struct api_usage *usage);

/* Appends the usage chunk, if asked for, and [DONE]. All choices must have finished (asserted). */
void api_stream_end(struct strbuf *b, struct api_stream *s, const struct api_usage *usage);

/* Ends a stream that cannot go on: one event with an error, then [DONE]. */
void api_stream_error(struct strbuf *b, struct api_stream *s, const struct api_error *e);

/* A comment that keeps proxies and clients waiting. */
void api_write_keep_alive(struct strbuf *b);

/* /v1/models: one entry per served name. */
void api_write_models(struct strbuf *b, const char *const *names, uint32_t n, uint64_t created_s,
                      uint32_t max_model_len);

/* /tokenize; strs NULL: not asked for. /detokenize. /version. */
void api_write_tokenize(struct strbuf *b, const int32_t *ids, uint32_t n,
                        const struct api_text *strs, uint32_t max_model_len);
void api_write_detokenize(struct strbuf *b, const char *text, size_t len);
void api_write_version(struct strbuf *b, const char *version);

#endif
