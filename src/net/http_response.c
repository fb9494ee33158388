/* http_response.c - status line, and how a response's body ends. See http.h. */
#include "net/http_int.h"

void http_response_begin(struct http_response *r, bool to_head)
{
    struct http_head *h = &r->head;
    memset((char *)h + offsetof(struct http_head, n_headers), 0,
           sizeof *h - offsetof(struct http_head, n_headers));
    r->status = 0;
    r->reason = (struct http_span){0, 0};
    r->is_interim = false;
    r->to_head = to_head;
}

/* Version SP three digits [SP reason]. The space without a reason is missing in answers of some
 * servers and says nothing. */
static enum http_bad status_line(struct http_response *r, const char *buf, struct http_span line)
{
    const char *text = buf + line.at;
    const char *space = memchr(text, ' ', line.len);
    uint32_t version_len = space != NULL ? (uint32_t)(space - text) : line.len;
    enum http_bad bad = http_head_version(&r->head, text, version_len, HTTP_BAD_STATUS_LINE);
    if (bad != HTTP_BAD_NONE) {
        return bad;
    }
    uint32_t at = version_len + 1;
    if (line.len < at + 3 || (line.len > at + 3 && text[at + 3] != ' ')) {
        return HTTP_BAD_STATUS_LINE;
    }
    unsigned status = 0;
    for (uint32_t i = at; i < at + 3; i++) {
        if (!http_is_digit((unsigned char)text[i])) {
            return HTTP_BAD_STATUS_LINE;
        }
        status = status * 10 + (unsigned)(text[i] - '0');
    }
    /* 101 answers an Upgrade, which nobody here asks for. */
    if (status < 100 || status > 599 || status == 101) {
        return HTTP_BAD_STATUS_LINE;
    }
    r->status = (uint16_t)status;
    r->is_interim = status < 200;
    if (line.len > at + 4) {
        r->reason = (struct http_span){line.at + at + 4, line.len - at - 4};
    }
    return HTTP_BAD_NONE;
}

enum http_outcome http_response_parse(struct http_response *r, const char *buf, size_t len)
{
    struct http_head *h = &r->head;
    if (!h->in_fields) {
        struct http_span line;
        enum http_outcome got =
            http_head_line(h, buf, len, HTTP_MAX_HEAD_BYTES, HTTP_BAD_HEAD_LARGE, &line);
        if (got != HTTP_DONE) {
            return got;
        }
        enum http_bad bad = status_line(r, buf, line);
        if (bad != HTTP_BAD_NONE) {
            return http_head_bad(h, bad, line.at);
        }
        h->in_fields = true;
    }
    enum http_outcome got = http_head_fields(h, buf, len, false);
    if (got != HTTP_DONE) {
        return got;
    }
    enum http_bad bad = http_head_framing(h);
    if (bad != HTTP_BAD_NONE) {
        return http_head_bad(h, bad, h->bytes);
    }
    /* RFC 9112, 6.3, rules 1 and 8. */
    if (r->is_interim || r->status == 204 || r->status == 304 || r->to_head) {
        h->framing = HTTP_NO_BODY;
    } else if (h->framing == HTTP_NO_BODY) {
        h->framing = HTTP_UNTIL_CLOSE;
        h->keep_alive = false;
    }
    return HTTP_DONE;
}
