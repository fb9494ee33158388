/* http_request.c - request line, and what a request's head must have. See http.h. */
#include "net/http_int.h"

#define VERSION_BYTES    8U /* "HTTP/1.1" */
#define MAX_REQUEST_LINE (HTTP_MAX_METHOD_BYTES + 1U + HTTP_MAX_TARGET_BYTES + 1U + VERSION_BYTES)

void http_request_begin(struct http_request *r)
{
    /* The headers need no clearing: n_headers says which are set. */
    struct http_head *h = &r->head;
    memset((char *)h + offsetof(struct http_head, n_headers), 0,
           sizeof *h - offsetof(struct http_head, n_headers));
    r->method = HTTP_OTHER_METHOD;
    r->method_name = r->target = r->path = r->query = (struct http_span){0, 0};
    r->expect_continue = false;
}

static const char *const method_names[HTTP_OTHER_METHOD] = {
    [HTTP_GET] = "GET",     [HTTP_HEAD] = "HEAD",     [HTTP_POST] = "POST",
    [HTTP_PUT] = "PUT",     [HTTP_DELETE] = "DELETE", [HTTP_OPTIONS] = "OPTIONS",
    [HTTP_PATCH] = "PATCH", [HTTP_TRACE] = "TRACE",
};

static enum http_bad method(struct http_request *r, const char *buf)
{
    struct http_span m = r->method_name;
    if (m.len == 0) {
        return HTTP_BAD_REQUEST_LINE;
    }
    for (uint32_t i = 0; i < m.len; i++) {
        if (!http_is_token_byte((unsigned char)buf[m.at + i])) {
            return HTTP_BAD_REQUEST_LINE;
        }
    }
    /* CONNECT would turn the rest of the connection into bytes of another protocol. */
    if (m.len > HTTP_MAX_METHOD_BYTES || http_span_is(buf, m, "CONNECT")) {
        return HTTP_BAD_METHOD;
    }
    uint32_t i = 0;
    while (i < HTTP_OTHER_METHOD && !http_span_is(buf, m, method_names[i])) {
        i++;
    }
    r->method = (enum http_method)i;
    return HTTP_BAD_NONE;
}

/* Where the path begins in an absolute target ("http://host/path"), or 0 when it is none. A target
 * without a path stands for "/": the second slash of "//" then serves as its path. */
static uint32_t absolute_path(const char *text, uint32_t n, uint32_t *path_len)
{
    uint32_t colon = 0;
    while (colon < n && http_is_token_byte((unsigned char)text[colon])) {
        colon++;
    }
    struct http_span scheme = {0, colon};
    if ((!http_span_is_nocase(text, scheme, "http") &&
         !http_span_is_nocase(text, scheme, "https")) ||
        n - colon < 4 || memcmp(text + colon, "://", 3) != 0) {
        return 0;
    }
    uint32_t i = colon + 3;
    while (i < n && text[i] != '/' && text[i] != '?') {
        i++;
    }
    if (i == colon + 3) {
        return 0;
    }
    if (i < n && text[i] == '/') {
        *path_len = n - i;
        return i;
    }
    *path_len = 1;
    return colon + 2;
}

static enum http_bad target(struct http_request *r, const char *buf)
{
    struct http_span t = r->target;
    if (t.len > HTTP_MAX_TARGET_BYTES) {
        return HTTP_BAD_TARGET_LONG;
    }
    const char *text = buf + t.at;
    for (uint32_t i = 0; i < t.len; i++) {
        if (!http_is_target_byte((unsigned char)text[i])) {
            return HTTP_BAD_TARGET;
        }
    }
    const char *mark = memchr(text, '?', t.len);
    uint32_t before = mark != NULL ? (uint32_t)(mark - text) : t.len;
    if (mark != NULL) {
        r->query = (struct http_span){t.at + before + 1, t.len - before - 1};
    }
    if (text[0] == '/') {
        r->path = (struct http_span){t.at, before};
        return HTTP_BAD_NONE;
    }
    if (t.len == 1 && text[0] == '*' && r->method == HTTP_OPTIONS) {
        r->path = t;
        return HTTP_BAD_NONE;
    }
    uint32_t path_len = 0;
    uint32_t path = absolute_path(text, before, &path_len);
    if (path == 0) {
        return HTTP_BAD_TARGET;
    }
    r->path = (struct http_span){t.at + path, path_len};
    return HTTP_BAD_NONE;
}

/* Method SP target SP version: one space each, nothing else. */
static enum http_bad request_line(struct http_request *r, const char *buf, struct http_span line)
{
    const char *text = buf + line.at;
    const char *first = memchr(text, ' ', line.len);
    if (first == NULL) {
        return HTTP_BAD_REQUEST_LINE;
    }
    uint32_t method_len = (uint32_t)(first - text);
    uint32_t rest = line.len - method_len - 1;
    const char *second = memchr(first + 1, ' ', rest);
    if (second == NULL || second == first + 1) {
        return HTTP_BAD_REQUEST_LINE;
    }
    uint32_t target_len = (uint32_t)(second - first - 1);
    r->method_name = (struct http_span){line.at, method_len};
    r->target = (struct http_span){line.at + method_len + 1, target_len};
    enum http_bad bad = method(r, buf);
    if (bad == HTTP_BAD_NONE) {
        bad = http_head_version(&r->head, second + 1, rest - target_len - 1, HTTP_BAD_REQUEST_LINE);
    }
    return bad == HTTP_BAD_NONE ? target(r, buf) : bad;
}

static enum http_outcome first_line(struct http_request *r, const char *buf, size_t len)
{
    struct http_head *h = &r->head;
    for (;;) {
        struct http_span line;
        enum http_outcome got =
            http_head_line(h, buf, len, MAX_REQUEST_LINE, HTTP_BAD_TARGET_LONG, &line);
        if (got != HTTP_DONE) {
            return got;
        }
        if (line.len == 0) {
            if (h->n_empty_lines++ == HTTP_MAX_EMPTY_LINES) {
                return http_head_bad(h, HTTP_BAD_REQUEST_LINE, line.at);
            }
            continue;
        }
        enum http_bad bad = request_line(r, buf, line);
        return bad == HTTP_BAD_NONE ? HTTP_DONE : http_head_bad(h, bad, line.at);
    }
}

enum http_outcome http_request_parse(struct http_request *r, const char *buf, size_t len)
{
    struct http_head *h = &r->head;
    if (!h->in_fields) {
        enum http_outcome got = first_line(r, buf, len);
        if (got != HTTP_DONE) {
            return got;
        }
        h->in_fields = true;
    }
    enum http_outcome got = http_head_fields(h, buf, len, true);
    if (got != HTTP_DONE) {
        return got;
    }
    enum http_bad bad = h->minor == 1 && h->n_host == 0 ? HTTP_BAD_NO_HOST : http_head_framing(h);
    if (bad == HTTP_BAD_NONE && h->framing == HTTP_LENGTH &&
        h->content_length > HTTP_MAX_BODY_BYTES) {
        bad = HTTP_BAD_BODY_LARGE;
    }
    if (bad != HTTP_BAD_NONE) {
        return http_head_bad(h, bad, h->bytes);
    }
    /* RFC 9110, 10.1.1: an HTTP/1.0 client cannot mean it. */
    r->expect_continue = h->expects_continue && h->minor == 1;
    return HTTP_DONE;
}
