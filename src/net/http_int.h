/* http_int.h - what request and response heads share inside this folder. */
#ifndef LLMSCHED_NET_HTTP_INT_H
#define LLMSCHED_NET_HTTP_INT_H

#include <string.h>

#include "net/http.h"

/* RFC 9110, 5.5: field values hold visible characters, space, tab and bytes above 0x7F. */
static inline bool http_is_field_byte(unsigned char c)
{
    return c == '\t' || (c >= 0x20 && c != 0x7F);
}

static inline bool http_is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

/* RFC 9110, 5.6.2: tchar. */
static inline bool http_is_token_byte(unsigned char c)
{
    unsigned char lower = c | 0x20;
    return (lower >= 'a' && lower <= 'z') || http_is_digit(c) ||
           (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* RFC 9112, 3.2, leniently: any visible ASCII but the fragment's mark. */
static inline bool http_is_target_byte(unsigned char c)
{
    return c > ' ' && c < 0x7F && c != '#';
}

/* Remembers reason and place; returns HTTP_BAD. */
enum http_outcome http_head_bad(struct http_head *h, enum http_bad bad, size_t at);

/* The next whole line from h->line_at on: done with *line as its bytes without CRLF, and line_at
 * behind it. A line longer than max_line is bad for the reason too_long. */
enum http_outcome http_head_line(struct http_head *h, const char *buf, size_t len, size_t max_line,
                                 enum http_bad too_long, struct http_span *line);

/* All header lines up to the empty one. Sets bytes, bad; keeps what framing needs. */
enum http_outcome http_head_fields(struct http_head *h, const char *buf, size_t len,
                                   bool is_request);

/* "HTTP/1.0" or "HTTP/1.1" into h->minor; malformed is the reason for what is no version at all. */
enum http_bad http_head_version(struct http_head *h, const char *text, size_t n,
                                enum http_bad malformed);

/* Transfer-Encoding and Content-Length together: framing, or the reason it is not certain. Neither
 * present leaves HTTP_NO_BODY. */
enum http_bad http_head_framing(struct http_head *h);

#endif
