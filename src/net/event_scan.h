/*
 * event_scan.h - what a client needs of one OpenAI event: text, token ids, finish reason, usage,
 * error. Reads completions and chat, stream chunks and whole answers, without building a tree.
 *
 * Any order of keys, white space, unknown fields, escaped keys. The whole text must be JSON
 * (RFC 8259) with one object, and known fields must have their types: a count that is no count is
 * refused, not read as 0. A known key twice in one object is refused. Alloc: none.
 */
#ifndef LLMSCHED_NET_EVENT_SCAN_H
#define LLMSCHED_NET_EVENT_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Objects and arrays inside each other; real answers have 6. Bounds the recursion. */
#define EVENT_SCAN_MAX_DEPTH 64U
/* Streams carry one choice an event; answers to n prompts more. */
#define EVENT_SCAN_MAX_CHOICES 8U

#define SCAN_BAD_LIST(X)                                                                           \
    X(OK, "ok")                                                                                    \
    X(SYNTAX, "not JSON, or cut off")                                                              \
    X(STRING, "a bad escape, control character or UTF-8 sequence in a string")                     \
    X(DEPTH, "nested too deeply")                                                                  \
    X(TYPE, "a known field of the wrong type")                                                     \
    X(DUPLICATE, "a known field twice")                                                            \
    X(CHOICES, "too many choices")                                                                 \
    X(TEXT_LONG, "text longer than the buffer")                                                    \
    X(IDS_LONG, "more token ids than the buffer holds")

enum scan_bad {
#define SCAN_BAD_ENUM(name, text) SCAN_##name,
    SCAN_BAD_LIST(SCAN_BAD_ENUM)
#undef SCAN_BAD_ENUM
        SCAN_BAD_COUNT
};

const char *scan_bad_text(enum scan_bad bad);

enum scan_finish {
    SCAN_FINISH_NONE, /* null or absent: goes on */
    SCAN_FINISH_STOP,
    SCAN_FINISH_LENGTH,
    SCAN_FINISH_ABORT,
    SCAN_FINISH_ERROR,
    SCAN_FINISH_OTHER /* content_filter, tool_calls, ... */
};

/* UTF-8, maybe with NULs inside. Lies in the caller's JSON, or in the buffer where it had escapes.
 * at is NULL where the field is null or absent. */
struct scan_text {
    const char *at;
    size_t len;
};

struct scan_choice {
    uint32_t index;
    struct scan_text text;      /* text, delta.content or message.content */
    struct scan_text reasoning; /* delta or message: reasoning_content or reasoning */
    enum scan_finish finish;
    bool has_token_ids;       /* vLLM's return_token_ids */
    const int32_t *token_ids; /* in the caller's buffer */
    size_t n_token_ids;
};

#define SCAN_NO_COUNT UINT64_MAX

/* SCAN_NO_COUNT where null or absent. */
struct scan_usage {
    uint64_t prompt_tokens;
    uint64_t completion_tokens;
    uint64_t total_tokens;
    uint64_t cached_tokens; /* of the prompt */
};

/* Texts are as written where they do not fit into the buffer; NULL where they are no strings. */
struct scan_error {
    struct scan_text message;
    struct scan_text type;
    int64_t code; /* 0: absent or no integer */
};

struct event_scan {
    struct scan_choice choices[EVENT_SCAN_MAX_CHOICES];
    uint32_t n_choices;
    bool has_usage;
    struct scan_usage usage;
    /* {"error": ...} with a truthy value, or vLLM's former {"object": "error", "message": ...}. */
    bool has_error;
    struct scan_error error;
    size_t bad_at; /* offset of the fault */
};

/* The caller's room for unescaped text and for ids, used from the front by every event anew. */
struct scan_buffers {
    char *text;
    size_t text_cap;
    int32_t *ids;
    size_t ids_cap;
};

/* Scans the n bytes at json, which need no NUL. Fills *out; on a fault only bad_at counts.
 * Everything in it is borrowed from json and buffers. */
enum scan_bad event_scan(const char *json, size_t n, const struct scan_buffers *buffers,
                         struct event_scan *out) MUST_USE;

/* The end mark of a stream, by prefix as clients test it: "[DONE]". */
bool event_is_done(const char *data, size_t n);

#endif
