/*
 * http.h - heads of HTTP/1.1 requests and responses, strictly (RFC 9110, RFC 9112).
 *
 * Server and client share it because it is a measuring instrument: what it does not understand it
 * refuses, it never guesses a message's length. It allocates nothing and keeps no bytes: the caller
 * holds the head in one buffer and every part is a span of that buffer (offsets, so the buffer may
 * move). Three outcomes: done (head.bytes used), need more, bad with a reason and the status code
 * that answers it. After bad the connection is closed. Body: http_body.h. Writing: http_write.h.
 * What is accepted and refused, with reasons: docs/HTTP.md.
 */
#ifndef LLMSCHED_NET_HTTP_H
#define LLMSCHED_NET_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* A head with first line, fields and closing empty line. */
#define HTTP_MAX_HEAD_BYTES 16384U
#define HTTP_MAX_HEADERS    64U
/* The longest registered method has 17 bytes (UPDATEREDIRECTREF); those of the API have 4. */
#define HTTP_MAX_METHOD_BYTES 20U
#define HTTP_MAX_TARGET_BYTES 4096U
/* Of a request, by Content-Length or chunks: room for a million token ids. */
#define HTTP_MAX_BODY_BYTES (8U << 20)
/* Line ends before a request line; some clients send one after a body (RFC 9112, 2.2). */
#define HTTP_MAX_EMPTY_LINES 1U

/* name, text for people, status code of the answer (0: in a response, where nobody is answered) */
#define HTTP_BAD_LIST(X)                                                                           \
    X(NONE, "nothing", 0)                                                                          \
    X(CONTROL, "a control character", 400)                                                         \
    X(BARE_CR, "a CR without LF", 400)                                                             \
    X(BARE_LF, "a LF without CR", 400)                                                             \
    X(REQUEST_LINE, "not a request line", 400)                                                     \
    X(METHOD, "method not implemented", 501)                                                       \
    X(TARGET, "not a request target", 400)                                                         \
    X(TARGET_LONG, "request target too long", 414)                                                 \
    X(VERSION, "HTTP version not supported", 505)                                                  \
    X(STATUS_LINE, "not a status line", 0)                                                         \
    X(HEAD_LARGE, "head too large", 431)                                                           \
    X(MANY_HEADERS, "too many header fields", 431)                                                 \
    X(FOLD, "a folded header line", 400)                                                           \
    X(NO_COLON, "a header line without a colon", 400)                                              \
    X(HEADER_NAME, "not a header name", 400)                                                       \
    X(NO_HOST, "no Host", 400)                                                                     \
    X(HOST, "not one valid Host", 400)                                                             \
    X(LENGTH, "not one valid Content-Length", 400)                                                 \
    X(LENGTH_AND_CODING, "Content-Length beside Transfer-Encoding", 400)                           \
    X(CODING, "not one valid Transfer-Encoding", 400)                                              \
    X(CODING_UNKNOWN, "transfer coding not implemented", 501)                                      \
    X(EXPECT, "expectation not known", 417)                                                        \
    X(BODY_LARGE, "body too large", 413)                                                           \
    X(CHUNK_SIZE, "not a chunk size", 400)                                                         \
    X(CHUNK_EXTENSION, "a bad or too long chunk extension", 400)                                   \
    X(CHUNK_END, "a chunk not ended by CRLF", 400)                                                 \
    X(TRAILER, "not a trailer field", 400)                                                         \
    X(TRAILER_LARGE, "trailer too large", 431)                                                     \
    X(CUT, "ended before its end", 400)

enum http_bad {
#define HTTP_BAD_ENUM(name, text, status) HTTP_BAD_##name,
    HTTP_BAD_LIST(HTTP_BAD_ENUM)
#undef HTTP_BAD_ENUM
        HTTP_BAD_COUNT
};

const char *http_bad_text(enum http_bad bad);
/* 400, 413, 414, 417, 431, 501 or 505; 0 for what can only be wrong in a response. */
int http_bad_status(enum http_bad bad);

enum http_outcome { HTTP_DONE, HTTP_MORE, HTTP_BAD };

/* `len` bytes from offset `at` of the caller's buffer. */
struct http_span {
    uint32_t at;
    uint32_t len;
};

/* The value has no white space at its ends. */
struct http_header {
    struct http_span name;
    struct http_span value;
};

/* How the body's end is found. */
enum http_framing {
    HTTP_NO_BODY,
    HTTP_LENGTH,     /* content_length bytes, maybe 0 */
    HTTP_CHUNKED,    /* the last chunk ends it */
    HTTP_UNTIL_CLOSE /* responses only: the end of the connection ends it */
};

/* Set when the outcome is HTTP_DONE; bad and bad_at when it is HTTP_BAD. */
struct http_head {
    struct http_header headers[HTTP_MAX_HEADERS];
    uint32_t n_headers;
    uint32_t bytes; /* of the whole head; the body begins there */
    uint8_t minor;  /* HTTP/1.minor: 0 or 1 */
    enum http_framing framing;
    uint64_t content_length; /* HTTP_LENGTH only */
    bool keep_alive;         /* the peer will take another message on this connection */
    enum http_bad bad;
    uint32_t bad_at; /* offset of the byte (or of the head's end) where it was noticed */
    /* private: where parsing goes on */
    uint32_t line_at;
    uint32_t scan_at;
    uint8_t n_empty_lines;
    bool in_fields;
    uint8_t n_host, n_length, n_chunked;
    bool unknown_coding, says_close, says_keep_alive, expects_continue;
};

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_OPTIONS,
    HTTP_PATCH,
    HTTP_TRACE,
    HTTP_OTHER_METHOD /* a well-formed name; whether that is 405 or 501 is the server's to say */
};

struct http_request {
    struct http_head head;
    enum http_method method;
    struct http_span method_name;
    struct http_span target; /* as sent */
    struct http_span path;   /* from its '/', not decoded; "*" of OPTIONS */
    struct http_span query;  /* behind the '?' */
    bool expect_continue;    /* HTTP/1.1: answer 100 before reading the body */
};

struct http_response {
    struct http_head head;
    uint16_t status; /* 100..599 */
    struct http_span reason;
    bool is_interim; /* 1xx: another head follows; begin again behind head.bytes */
    bool to_head;    /* private */
};

/* Before the first byte of a message. */
void http_request_begin(struct http_request *r);
/* to_head: it answers a HEAD request, so no body follows whatever the fields say. */
void http_response_begin(struct http_response *r, bool to_head);

/* Takes up where the last call left off: buf holds the message from its first byte, `len` of them
 * and maybe bytes behind the head; a call never looks at a byte twice, however they trickle in. Not
 * to be called again after done or bad until the next begin. A buffer of HTTP_MAX_HEAD_BYTES is
 * always large enough. Alloc: none. */
enum http_outcome http_request_parse(struct http_request *r, const char *buf, size_t len) MUST_USE;
/* As above. A response with both lengths, a broken one or an unknown coding is refused as well:
 * a client that guesses measures wrongly. */
enum http_outcome http_response_parse(struct http_response *r, const char *buf,
                                      size_t len) MUST_USE;

/* The first header of that name (any case), or NULL. */
const struct http_header *http_header_find(const struct http_head *h, const char *buf,
                                           const char *name) MUST_USE;
/* Whether the span holds just that text; _nocase for ASCII letters in any case. */
bool http_span_is(const char *buf, struct http_span s, const char *text);
bool http_span_is_nocase(const char *buf, struct http_span s, const char *text);

#endif
