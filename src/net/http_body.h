/*
 * http_body.h - the body behind a head, by any framing, and chunks for writing.
 *
 * Incremental and without copies: each call consumes some of the caller's bytes and may yield a
 * piece of the body as a slice of them. Chunk extensions and trailers are checked, counted and
 * dropped. Owner: the caller, of everything; nothing is allocated.
 */
#ifndef LLMSCHED_NET_HTTP_BODY_H
#define LLMSCHED_NET_HTTP_BODY_H

#include "net/http.h"

/* Of all chunks of a body together; nobody here reads extensions. */
#define HTTP_MAX_EXTENSION_BYTES 4096U
/* Trailer fields with their line ends; nobody here reads them either. */
#define HTTP_MAX_TRAILER_BYTES 4096U
/* 64 bits; more digits could only be zeros. */
#define HTTP_MAX_CHUNK_DIGITS 16U

enum http_body_outcome {
    HTTP_BODY_DATA, /* a piece: go on with the bytes behind *used */
    HTTP_BODY_MORE, /* all bytes used */
    HTTP_BODY_DONE, /* what is behind *used belongs to the next message */
    HTTP_BODY_BAD   /* b->bad says why; the connection is lost */
};

struct http_body {
    enum http_bad bad;
    uint64_t total_bytes; /* yielded so far */
    /* private */
    enum http_framing framing;
    uint64_t max_bytes;
    uint64_t left_bytes; /* of the length or the chunk */
    uint8_t state;
    uint8_t digits;
    uint32_t extension_bytes;
    uint32_t trailer_bytes;
    bool is_closed;
};

/* The body behind h. More than max_bytes is BODY_LARGE (a request's Content-Length was already
 * checked with its head). */
void http_body_begin(struct http_body *b, const struct http_head *h, uint64_t max_bytes);

/* Call until it gives MORE, DONE or BAD; with n = 0 it tells DONE from MORE. *used bytes of in are
 * consumed; DATA sets *data and *data_len >= 1, a slice of in. */
enum http_body_outcome http_body_next(struct http_body *b, const char *in, size_t n, size_t *used,
                                      const char **data, size_t *data_len) MUST_USE;

/* The peer has closed: DONE where that ends the body or it had ended, else BAD (CUT). */
enum http_body_outcome http_body_close(struct http_body *b) MUST_USE;

/* Ends a chunked body without trailers. */
#define HTTP_LAST_CHUNK "0\r\n\r\n"
/* Bytes a chunk costs besides its data: up to 16 digits and two line ends. */
#define HTTP_CHUNK_OVERHEAD (HTTP_MAX_CHUNK_DIGITS + 4U)

/* Writes n as a chunk's size line; the caller sends n data bytes and CRLF behind it. Returns its
 * length, or 0 when it does not fit or n is 0 (a chunk of 0 would end the body). */
size_t http_chunk_begin(char *out, size_t cap, size_t n) MUST_USE;

/* Writes a whole chunk. Returns its length, or 0 as above. */
size_t http_chunk_write(char *out, size_t cap, const void *data, size_t n) MUST_USE;

#endif
