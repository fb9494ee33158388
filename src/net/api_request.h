/*
 * api_request.h - the JSON body of an OpenAI-style request, checked and turned into plain data.
 *
 * One typed table per endpoint (api_request.c) holds every field's name, type, default, range and
 * whether null is allowed; all numbers from JSON pass through it. A field that is known but not
 * served answers 400 and names itself unless its value asks for nothing; fields that nobody knows
 * are ignored and listed once. No sockets, no model: ids are only compared with limits.n_vocab.
 *
 * Invariants: a parsed request obeys every range below; texts are valid UTF-8 without NUL.
 * Read on: api_fields.c (lists, messages), api_error.h (what is answered), api_response.h.
 */
#ifndef LLMSCHED_NET_API_REQUEST_H
#define LLMSCHED_NET_API_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"
#include "net/api_error.h"

/* A larger body is 413. 4 MiB of text is some million tokens: beyond every model served here. */
#define API_MAX_BODY_BYTES ((size_t)4 << 20)
/* jansson spends about 60 bytes on a value; 2^18 of them cover prompts of 128 Ki token ids. */
#define API_MAX_VALUES      262144U
#define API_MAX_DEPTH       32U
#define API_MAX_PROMPTS     256U
#define API_MAX_N           128
#define API_MAX_CHOICES     1024U /* prompts * n: one sequence each, as many as a plan can hold */
#define API_MAX_STOPS       16U
#define API_MAX_STOP_BYTES  1024U
#define API_MAX_STOP_IDS    128U
#define API_MAX_LOGIT_BIAS  1024U
#define API_MAX_LOGPROBS    20
#define API_MAX_MESSAGES    1024U
#define API_MAX_PARTS       256U /* text parts of one message */
#define API_MAX_NAME_BYTES  256U /* model, request_id */
#define API_MAX_UNKNOWN     16U
#define API_REST_OF_CONTEXT (-1) /* max_tokens was not given and the endpoint has no default */

enum api_endpoint { API_COMPLETIONS, API_CHAT, API_TOKENIZE, API_DETOKENIZE };

enum api_role { API_ROLE_SYSTEM, API_ROLE_USER, API_ROLE_ASSISTANT };

/* Bytes with their length, NUL-terminated too. data NULL: not given. */
struct api_text {
    const char *data;
    size_t len;
};

struct api_prompt {
    struct api_text text; /* data NULL: the prompt is ids */
    const int32_t *ids;
    uint32_t n_ids;
};

struct api_message {
    enum api_role role;      /* "developer" reads as system */
    struct api_text content; /* text parts are joined with a line end, as vLLM does */
};

struct api_bias {
    int32_t id;
    float bias;
};

struct api_request {
    enum api_endpoint endpoint;
    struct arena arena; /* holds everything that the pointers below point to */
    struct api_text model;
    struct api_text request_id;

    const struct api_prompt
        *prompts; /* completions: >= 1; tokenize: 1, unless messages are given */
    uint32_t n_prompts;
    const struct api_message *messages; /* chat: >= 1 */
    uint32_t n_messages;
    const int32_t *tokens; /* detokenize */
    uint32_t n_tokens;

    int64_t max_tokens; /* >= 0, or API_REST_OF_CONTEXT; 0 only with echo */
    int64_t min_tokens;
    int64_t n;
    int64_t priority;
    int64_t seed; /* valid if has_seed */
    bool has_seed;
    double temperature;
    double top_p;
    int64_t top_k; /* 0: off */
    double min_p;
    double repetition_penalty;
    double frequency_penalty;
    double presence_penalty;
    bool ignore_eos;

    const struct api_text *stops;
    uint32_t n_stops;
    const int32_t *stop_ids;
    uint32_t n_stop_ids;
    const struct api_bias *logit_bias; /* ascending ids, none twice */
    uint32_t n_logit_bias;

    bool echo;
    bool want_logprobs;
    int64_t top_logprobs; /* alternatives per token, 0..20; valid if want_logprobs */
    bool stream;
    bool include_usage;          /* false without stream */
    bool continuous_usage_stats; /* as asked; has effect with include_usage only */
    bool return_token_ids;
    bool add_special_tokens;
    bool add_generation_prompt;
    bool return_token_strs;

    struct api_text unknown[API_MAX_UNKNOWN]; /* names of ignored fields, at most 64 bytes each */
    uint32_t n_unknown;                       /* all of them; may exceed the array */

    /* Private to the parser. */
    int64_t best_of;
    int64_t max_completion_tokens;
    int64_t raw_logprobs;
    bool has_top_logprobs;
    bool has_stream_options;
};

struct api_limits {
    uint32_t n_vocab; /* ids at or above it are refused; 0: not known here, not checked */
};

/*
 * Parses the body of one request. All faults of a body are found in one pass and are 400, except
 * its size (413) and refused memory (503).
 * Owner: *out belongs to the caller, who ends it with api_request_deinit.
 * Thread: any; requests are independent. Alloc: the arena, and jansson's tree during the call.
 * Errors: BAD_DATA, NO_MEMORY; *out is then untouched and *errors (zeroed here) has >= 1 entry.
 */
enum status api_request_parse(enum api_endpoint endpoint, const char *text, size_t len,
                              const struct api_limits *limits, struct api_request *out,
                              struct api_errors *errors) MUST_USE;

void api_request_deinit(struct api_request *r);

/* True when the request names no model or one of the n served names; else adds a 404. */
bool api_request_check_model(const struct api_request *r, const char *const *names, uint32_t n,
                             struct api_errors *errors) MUST_USE;

/* The tokens that one prompt of prompt_tokens may add: *max_new is max_tokens, or what is left of
 * max_model_len. False, with a 400 that has the numbers, when they do not fit or the prompt is
 * empty. */
bool api_request_fit(const struct api_request *r, uint32_t prompt_tokens, uint32_t max_model_len,
                     uint32_t *max_new, struct api_errors *errors) MUST_USE;

#endif
