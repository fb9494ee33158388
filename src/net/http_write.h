/*
 * http_write.h - heads written into the caller's buffer.
 *
 * A part that does not fit, or that would break the head (a line end in a value, a name that is no
 * token), sets `failed`; later parts are then ignored, so that a writer checks once at its end.
 * There is no closing NUL.
 */
#ifndef LLMSCHED_NET_HTTP_WRITE_H
#define LLMSCHED_NET_HTTP_WRITE_H

#include "net/http.h"

struct http_writer {
    char *out;
    size_t cap;
    size_t len;
    bool failed;
};

/* "POST /v1/completions HTTP/1.1" */
void http_write_request_line(struct http_writer *w, const char *method, const char *target);
/* "HTTP/1.1 200 OK"; status must be 100..599. */
void http_write_status_line(struct http_writer *w, int status);
void http_write_header(struct http_writer *w, const char *name, const char *value);
void http_write_header_u64(struct http_writer *w, const char *name, uint64_t value);
/* The empty line. */
void http_write_end(struct http_writer *w);

/* The whole interim answer to Expect: 100-continue. */
#define HTTP_CONTINUE "HTTP/1.1 100 Continue\r\n\r\n"

/* "Not Found"; "" for a code without a name here. */
const char *http_status_text(int status);

#endif
