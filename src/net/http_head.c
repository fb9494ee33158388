/*
 * http_head.c - lines, header fields and what they say about the body; for requests and responses.
 *
 * Bytes are looked at once, from left to right, and each line is judged when it is whole, so the
 * outcome does not depend on how the bytes were cut into reads.
 */
#include "net/http_int.h"

#include <assert.h>

static const struct {
    const char *text;
    int status;
} bad_table[HTTP_BAD_COUNT] = {
#define HTTP_BAD_ROW(name, text, status) {text, status},
    HTTP_BAD_LIST(HTTP_BAD_ROW)
#undef HTTP_BAD_ROW
};

const char *http_bad_text(enum http_bad bad)
{
    assert(bad < HTTP_BAD_COUNT);
    return bad_table[bad].text;
}

int http_bad_status(enum http_bad bad)
{
    assert(bad < HTTP_BAD_COUNT);
    return bad_table[bad].status;
}

enum http_outcome http_head_bad(struct http_head *h, enum http_bad bad, size_t at)
{
    h->bad = bad;
    h->bad_at = (uint32_t)at;
    return HTTP_BAD;
}

/* ---- lines ---- */

enum http_outcome http_head_line(struct http_head *h, const char *buf, size_t len, size_t max_line,
                                 enum http_bad too_long, struct http_span *line)
{
    size_t limit = len < HTTP_MAX_HEAD_BYTES ? len : HTTP_MAX_HEAD_BYTES;
    size_t i = h->scan_at;
    for (; i < limit; i++) {
        unsigned char c = (unsigned char)buf[i];
        if (http_is_field_byte(c)) {
            if (i - h->line_at >= max_line) {
                return http_head_bad(h, too_long, i);
            }
            continue;
        }
        if (c == '\n') {
            return http_head_bad(h, HTTP_BAD_BARE_LF, i);
        }
        if (c != '\r') {
            return http_head_bad(h, HTTP_BAD_CONTROL, i);
        }
        if (i + 1 == limit) {
            break;
        }
        if (buf[i + 1] != '\n') {
            return http_head_bad(h, HTTP_BAD_BARE_CR, i);
        }
        *line = (struct http_span){h->line_at, (uint32_t)i - h->line_at};
        h->line_at = (uint32_t)i + 2;
        h->scan_at = h->line_at;
        return HTTP_DONE;
    }
    if (limit == HTTP_MAX_HEAD_BYTES) {
        return http_head_bad(h, HTTP_BAD_HEAD_LARGE, limit);
    }
    h->scan_at = (uint32_t)i;
    return HTTP_MORE;
}

enum http_bad http_head_version(struct http_head *h, const char *text, size_t n,
                                enum http_bad malformed)
{
    if (n < 5 || memcmp(text, "HTTP/", 5) != 0) {
        return malformed;
    }
    size_t i = 5;
    while (i < n && http_is_digit((unsigned char)text[i])) {
        i++;
    }
    size_t dot = i;
    if (dot == 5 || dot == n || text[dot] != '.') {
        return malformed;
    }
    for (i = dot + 1; i < n && http_is_digit((unsigned char)text[i]);) {
        i++;
    }
    if (i == dot + 1 || i != n) {
        return malformed;
    }
    if (n != 8 || text[5] != '1' || (text[7] != '0' && text[7] != '1')) {
        return HTTP_BAD_VERSION;
    }
    h->minor = (uint8_t)(text[7] - '0');
    return HTTP_BAD_NONE;
}

/* ---- names and values ---- */

static unsigned char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : (unsigned char)c;
}

static bool same_nocase(const char *a, size_t n, const char *text)
{
    if (n != strlen(text)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (lower(a[i]) != lower(text[i])) {
            return false;
        }
    }
    return true;
}

bool http_span_is(const char *buf, struct http_span s, const char *text)
{
    return s.len == strlen(text) && memcmp(buf + s.at, text, s.len) == 0;
}

bool http_span_is_nocase(const char *buf, struct http_span s, const char *text)
{
    return same_nocase(buf + s.at, s.len, text);
}

const struct http_header *http_header_find(const struct http_head *h, const char *buf,
                                           const char *name)
{
    for (uint32_t i = 0; i < h->n_headers; i++) {
        if (http_span_is_nocase(buf, h->headers[i].name, name)) {
            return &h->headers[i];
        }
    }
    return NULL;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static struct http_span trimmed(const char *buf, uint32_t from, uint32_t to)
{
    while (from < to && is_space(buf[from])) {
        from++;
    }
    while (to > from && is_space(buf[to - 1])) {
        to--;
    }
    return (struct http_span){from, to - from};
}

/* The next element of a comma-separated value, trimmed and maybe empty; false behind the last.
 * *at starts at 0. */
static bool next_element(const char *value, uint32_t n, uint32_t *at, struct http_span *element)
{
    if (*at > n) {
        return false;
    }
    uint32_t end = *at;
    while (end < n && value[end] != ',') {
        end++;
    }
    *element = trimmed(value, *at, end);
    *at = end + 1;
    return true;
}

/* ---- fields that decide how the message is read ---- */

/* One Host, a plausible name and port: no user, path or list, which proxies read differently. */
static enum http_bad note_host(struct http_head *h, const char *value, uint32_t n)
{
    if (h->n_host > 0 || n == 0) {
        return HTTP_BAD_HOST;
    }
    h->n_host = 1;
    for (uint32_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)value[i];
        if (c <= ' ' || c >= 0x7F || strchr(",/?#@\\\"<>^`{|}", c) != NULL) {
            return HTTP_BAD_HOST;
        }
    }
    return HTTP_BAD_NONE;
}

static enum http_bad note_length(struct http_head *h, const char *value, uint32_t n)
{
    if (h->n_length > 0 || n == 0) {
        return HTTP_BAD_LENGTH;
    }
    h->n_length = 1;
    uint64_t length = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!http_is_digit((unsigned char)value[i])) {
            return HTTP_BAD_LENGTH;
        }
        uint64_t digit = (uint64_t)(value[i] - '0');
        if (length > (UINT64_MAX - digit) / 10) {
            return HTTP_BAD_LENGTH;
        }
        length = length * 10 + digit;
    }
    h->content_length = length;
    return HTTP_BAD_NONE;
}

static enum http_bad note_coding(struct http_head *h, const char *value, uint32_t n)
{
    struct http_span e;
    for (uint32_t at = 0; next_element(value, n, &at, &e);) {
        if (e.len == 0) {
            return HTTP_BAD_CODING;
        }
        if (!same_nocase(value + e.at, e.len, "chunked")) {
            h->unknown_coding = true;
        } else if (++h->n_chunked > 1) {
            return HTTP_BAD_CODING;
        }
    }
    return HTTP_BAD_NONE;
}

static enum http_bad note_connection(struct http_head *h, const char *value, uint32_t n)
{
    struct http_span e;
    for (uint32_t at = 0; next_element(value, n, &at, &e);) {
        if (same_nocase(value + e.at, e.len, "close")) {
            h->says_close = true;
        } else if (same_nocase(value + e.at, e.len, "keep-alive")) {
            h->says_keep_alive = true;
        }
    }
    return HTTP_BAD_NONE;
}

static enum http_bad note_expect(struct http_head *h, const char *value, uint32_t n)
{
    if (!same_nocase(value, n, "100-continue")) {
        return HTTP_BAD_EXPECT;
    }
    h->expects_continue = true;
    return HTTP_BAD_NONE;
}

static const struct {
    const char *name;
    enum http_bad (*note)(struct http_head *h, const char *value, uint32_t n);
    bool requests_only;
} known_fields[] = {
    {"host", note_host, true},
    {"content-length", note_length, false},
    {"connection", note_connection, false},
    {"transfer-encoding", note_coding, false},
    {"expect", note_expect, true},
};

static enum http_outcome field(struct http_head *h, const char *buf, struct http_span line,
                               bool is_request)
{
    if (h->n_headers == HTTP_MAX_HEADERS) {
        return http_head_bad(h, HTTP_BAD_MANY_HEADERS, line.at);
    }
    if (is_space(buf[line.at])) {
        return http_head_bad(h, HTTP_BAD_FOLD, line.at);
    }
    uint32_t end = line.at + line.len;
    uint32_t colon = line.at;
    while (colon < end && buf[colon] != ':') {
        colon++;
    }
    if (colon == end) {
        return http_head_bad(h, HTTP_BAD_NO_COLON, line.at);
    }
    if (colon == line.at) {
        return http_head_bad(h, HTTP_BAD_HEADER_NAME, colon);
    }
    for (uint32_t i = line.at; i < colon; i++) {
        if (!http_is_token_byte((unsigned char)buf[i])) {
            return http_head_bad(h, HTTP_BAD_HEADER_NAME, i);
        }
    }
    struct http_header *f = &h->headers[h->n_headers++];
    f->name = (struct http_span){line.at, colon - line.at};
    f->value = trimmed(buf, colon + 1, end);
    for (size_t i = 0; i < sizeof known_fields / sizeof known_fields[0]; i++) {
        if ((is_request || !known_fields[i].requests_only) &&
            http_span_is_nocase(buf, f->name, known_fields[i].name)) {
            enum http_bad bad = known_fields[i].note(h, buf + f->value.at, f->value.len);
            return bad == HTTP_BAD_NONE ? HTTP_DONE : http_head_bad(h, bad, line.at);
        }
    }
    return HTTP_DONE;
}

enum http_outcome http_head_fields(struct http_head *h, const char *buf, size_t len,
                                   bool is_request)
{
    for (;;) {
        struct http_span line;
        enum http_outcome got =
            http_head_line(h, buf, len, HTTP_MAX_HEAD_BYTES, HTTP_BAD_HEAD_LARGE, &line);
        if (got != HTTP_DONE) {
            return got;
        }
        if (line.len == 0) {
            h->bytes = h->line_at;
            h->keep_alive = !h->says_close && (h->minor == 1 || h->says_keep_alive);
            return HTTP_DONE;
        }
        if (field(h, buf, line, is_request) != HTTP_DONE) {
            return HTTP_BAD;
        }
    }
}

enum http_bad http_head_framing(struct http_head *h)
{
    bool coded = h->n_chunked > 0 || h->unknown_coding;
    if (coded && h->n_length > 0) {
        return HTTP_BAD_LENGTH_AND_CODING;
    }
    if (coded && h->minor == 0) {
        return HTTP_BAD_CODING;
    }
    if (h->unknown_coding) {
        return HTTP_BAD_CODING_UNKNOWN;
    }
    h->framing = coded ? HTTP_CHUNKED : h->n_length > 0 ? HTTP_LENGTH : HTTP_NO_BODY;
    return HTTP_BAD_NONE;
}
