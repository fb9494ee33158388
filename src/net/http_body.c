/* http_body.c - see http_body.h. Chunked coding: RFC 9112, 7.1. */
#include "net/http_body.h"
#include "net/http_int.h"

enum chunk_state {
    SIZE_FIRST, /* 0, so that begin's zeros are the start */
    SIZE,
    SIZE_SPACE, /* white space before the ';' of an extension */
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_FIRST,
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
    ENDED
};

void http_body_begin(struct http_body *b, const struct http_head *h, uint64_t max_bytes)
{
    *b = (struct http_body){.framing = h->framing, .max_bytes = max_bytes};
    if (h->framing == HTTP_LENGTH) {
        b->left_bytes = h->content_length;
    }
}

static int hex_value(unsigned char c)
{
    if (http_is_digit(c)) {
        return c - '0';
    }
    unsigned char lower = c | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static enum http_bad size_byte(struct http_body *b, unsigned char c)
{
    int digit = hex_value(c);
    if (digit >= 0) {
        if (b->digits == HTTP_MAX_CHUNK_DIGITS) {
            return HTTP_BAD_CHUNK_SIZE;
        }
        b->digits++;
        b->left_bytes = (b->left_bytes << 4) | (uint64_t)digit;
        b->state = SIZE;
        return HTTP_BAD_NONE;
    }
    if (b->digits == 0) {
        return HTTP_BAD_CHUNK_SIZE;
    }
    switch (c) {
    case '\r':
        b->state = SIZE_LF;
        return HTTP_BAD_NONE;
    case ';':
        b->state = EXTENSION;
        break;
    case ' ':
    case '\t':
        b->state = SIZE_SPACE;
        break;
    default:
        return HTTP_BAD_CHUNK_SIZE;
    }
    b->extension_bytes++;
    return b->extension_bytes > HTTP_MAX_EXTENSION_BYTES ? HTTP_BAD_CHUNK_EXTENSION : HTTP_BAD_NONE;
}

static enum http_bad extension_byte(struct http_body *b, unsigned char c)
{
    if (b->state == EXTENSION && c == '\r') {
        b->state = SIZE_LF;
        return HTTP_BAD_NONE;
    }
    if (b->state == SIZE_SPACE && c == ';') {
        b->state = EXTENSION;
    } else if (b->state == SIZE_SPACE ? c != ' ' && c != '\t' : !http_is_field_byte(c)) {
        return HTTP_BAD_CHUNK_EXTENSION;
    }
    b->extension_bytes++;
    return b->extension_bytes > HTTP_MAX_EXTENSION_BYTES ? HTTP_BAD_CHUNK_EXTENSION : HTTP_BAD_NONE;
}

static enum http_bad size_end(struct http_body *b, unsigned char c)
{
    if (c != '\n') {
        return HTTP_BAD_CHUNK_SIZE;
    }
    if (b->left_bytes > b->max_bytes - b->total_bytes) {
        return HTTP_BAD_BODY_LARGE;
    }
    b->state = b->left_bytes > 0 ? DATA : TRAILER_FIRST;
    return HTTP_BAD_NONE;
}

static enum http_bad trailer_byte(struct http_body *b, unsigned char c)
{
    if (b->state == TRAILER_FIRST && c == '\r') {
        b->state = LAST_LF;
        return HTTP_BAD_NONE;
    }
    if (++b->trailer_bytes > HTTP_MAX_TRAILER_BYTES) {
        return HTTP_BAD_TRAILER_LARGE;
    }
    if (b->state == TRAILER_LF) {
        b->state = TRAILER_FIRST;
        return c == '\n' ? HTTP_BAD_NONE : HTTP_BAD_TRAILER;
    }
    if (b->state == TRAILER_VALUE) {
        if (c == '\r') {
            b->state = TRAILER_LF;
            return HTTP_BAD_NONE;
        }
        return http_is_field_byte(c) ? HTTP_BAD_NONE : HTTP_BAD_TRAILER;
    }
    if (b->state == TRAILER_NAME && c == ':') {
        b->state = TRAILER_VALUE;
        return HTTP_BAD_NONE;
    }
    b->state = TRAILER_NAME;
    return http_is_token_byte(c) ? HTTP_BAD_NONE : HTTP_BAD_TRAILER;
}

/* Any byte but one of a chunk's data. */
static enum http_bad chunk_byte(struct http_body *b, unsigned char c)
{
    switch ((enum chunk_state)b->state) {
    case SIZE_FIRST:
    case SIZE:
        return size_byte(b, c);
    case SIZE_SPACE:
    case EXTENSION:
        return extension_byte(b, c);
    case SIZE_LF:
        return size_end(b, c);
    case DATA_CR:
        b->state = DATA_LF;
        return c == '\r' ? HTTP_BAD_NONE : HTTP_BAD_CHUNK_END;
    case DATA_LF:
        b->state = SIZE_FIRST;
        b->digits = 0;
        return c == '\n' ? HTTP_BAD_NONE : HTTP_BAD_CHUNK_END;
    case LAST_LF:
        b->state = ENDED;
        return c == '\n' ? HTTP_BAD_NONE : HTTP_BAD_TRAILER;
    case TRAILER_FIRST:
    case TRAILER_NAME:
    case TRAILER_VALUE:
    case TRAILER_LF:
        return trailer_byte(b, c);
    case DATA:
    case ENDED:
        break;
    }
    return HTTP_BAD_CHUNK_END; /* not reached: http_body_next keeps these two to itself */
}

static enum http_body_outcome body_bad(struct http_body *b, enum http_bad bad)
{
    b->bad = bad;
    return HTTP_BODY_BAD;
}

/* Yields min(left, n) bytes from in + *used on. */
static enum http_body_outcome piece(struct http_body *b, const char *in, size_t n, size_t *used,
                                    const char **data, size_t *data_len)
{
    size_t rest = n - *used;
    size_t take = b->left_bytes < rest ? (size_t)b->left_bytes : rest;
    *data = in + *used;
    *data_len = take;
    *used += take;
    b->left_bytes -= take;
    b->total_bytes += take;
    return HTTP_BODY_DATA;
}

static enum http_body_outcome next_chunked(struct http_body *b, const char *in, size_t n,
                                           size_t *used, const char **data, size_t *data_len)
{
    while (b->state != ENDED) {
        if (*used == n) {
            return HTTP_BODY_MORE;
        }
        if (b->state == DATA) {
            enum http_body_outcome got = piece(b, in, n, used, data, data_len);
            if (b->left_bytes == 0) {
                b->state = DATA_CR;
            }
            return got;
        }
        enum http_bad bad = chunk_byte(b, (unsigned char)in[*used]);
        if (bad != HTTP_BAD_NONE) {
            return body_bad(b, bad);
        }
        (*used)++;
    }
    return HTTP_BODY_DONE;
}

enum http_body_outcome http_body_next(struct http_body *b, const char *in, size_t n, size_t *used,
                                      const char **data, size_t *data_len)
{
    *used = 0;
    *data = NULL;
    *data_len = 0;
    if (b->bad != HTTP_BAD_NONE) {
        return HTTP_BODY_BAD;
    }
    switch (b->framing) {
    case HTTP_CHUNKED:
        return next_chunked(b, in, n, used, data, data_len);
    case HTTP_LENGTH:
        if (b->left_bytes > b->max_bytes - b->total_bytes) {
            return body_bad(b, HTTP_BAD_BODY_LARGE);
        }
        if (b->left_bytes == 0) {
            return HTTP_BODY_DONE;
        }
        return n == 0 ? HTTP_BODY_MORE : piece(b, in, n, used, data, data_len);
    case HTTP_UNTIL_CLOSE:
        if (b->is_closed || n == 0) {
            return b->is_closed ? HTTP_BODY_DONE : HTTP_BODY_MORE;
        }
        if (n > b->max_bytes - b->total_bytes) {
            return body_bad(b, HTTP_BAD_BODY_LARGE);
        }
        b->left_bytes = n;
        return piece(b, in, n, used, data, data_len);
    case HTTP_NO_BODY:
        break;
    }
    return HTTP_BODY_DONE;
}

enum http_body_outcome http_body_close(struct http_body *b)
{
    if (b->bad != HTTP_BAD_NONE) {
        return HTTP_BODY_BAD;
    }
    if (b->framing == HTTP_UNTIL_CLOSE) {
        b->is_closed = true;
    }
    size_t used;
    const char *data;
    size_t data_len;
    enum http_body_outcome got = http_body_next(b, "", 0, &used, &data, &data_len);
    return got == HTTP_BODY_MORE ? body_bad(b, HTTP_BAD_CUT) : got;
}

/* ---- writing ---- */

size_t http_chunk_begin(char *out, size_t cap, size_t n)
{
    size_t digits = 1;
    while (digits < sizeof n * 2 && n >> (4 * digits) != 0) {
        digits++;
    }
    if (n == 0 || cap < digits + 2) {
        return 0;
    }
    for (size_t i = 0; i < digits; i++) {
        out[i] = "0123456789abcdef"[(n >> (4 * (digits - 1 - i))) & 15U];
    }
    memcpy(out + digits, "\r\n", 2);
    return digits + 2;
}

size_t http_chunk_write(char *out, size_t cap, const void *data, size_t n)
{
    size_t head = http_chunk_begin(out, cap, n);
    if (head == 0 || cap - head < n || cap - head - n < 2) {
        return 0;
    }
    memcpy(out + head, data, n);
    memcpy(out + head + n, "\r\n", 2);
    return head + n + 2;
}
