/*
 * sse.h - events out of a text/event-stream (WHATWG HTML, 9.2.6), as the bytes arrive.
 *
 * Takes any cut: line ends may be CR, LF or CRLF and may be split over reads, as may the byte order
 * mark and every character. An event whose data is one line that lies whole in the caller's bytes
 * is not copied. Bytes are handed on as they are (no check of UTF-8). `id` and `retry` are read
 * over: nobody reconnects here. An event without its closing blank line is not delivered.
 */
#ifndef LLMSCHED_NET_SSE_H
#define LLMSCHED_NET_SSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Of an `event:` field; real ones have some twenty. */
#define SSE_MAX_TYPE_BYTES 64U

enum sse_outcome {
    SSE_EVENT, /* go on with the bytes behind *used */
    SSE_MORE,  /* all bytes used */
    SSE_BAD    /* data longer than the buffer, or a type longer than SSE_MAX_TYPE_BYTES; final */
};

/* Borrowed until the next call; data lies in the caller's bytes or in the buffer. */
struct sse_event {
    const char *data;
    size_t data_len;  /* lines joined by LF; may be 0 */
    const char *type; /* of the `event:` field; empty means "message" */
    size_t type_len;
};

/* Private, but for len: bytes of the event so far. */
struct sse {
    char *buf;
    size_t cap;
    size_t len;
    size_t type_len;
    char type[SSE_MAX_TYPE_BYTES];
    char name[8]; /* of the field being read */
    uint8_t name_len;
    uint8_t mark_len; /* bytes of the byte order mark seen */
    uint8_t state;
    uint8_t field;
    bool has_data;
    bool skip_lf;
};

/* An event's data may have up to `cap` bytes. Owner of buf: the caller, as long as s is used. */
void sse_init(struct sse *s, char *buf, size_t cap);

/* The buffer has become larger: buf holds what the former one held. For callers that would rather
 * grow than set the limit aside for each stream: n bytes need room for s->len + n + 1. */
void sse_set_buffer(struct sse *s, char *buf, size_t cap);

/* Consumes *used of n bytes. Call until it gives SSE_MORE (or SSE_BAD). Alloc: none. */
enum sse_outcome sse_next(struct sse *s, const char *in, size_t n, size_t *used,
                          struct sse_event *ev) MUST_USE;

#endif
